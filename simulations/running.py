"""Run one scenario from one seed, in either engine, and say what came of it."""

from __future__ import annotations

import hashlib
import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import protocol.casework
import protocol.gossip
from protocol.errors import Malformed, Refused
from simulations.checkers import GOALS
from simulations.scenario import MODES, Scenario, load
from simulations.trace import Trace
from simulations.truth import Claimed, Truth, Violation

if TYPE_CHECKING:
    from simulations.faults import Atom
    from simulations.federation import Federation

ENGINES: Final = {"fast": "simulations.hosts.fast_world", "full": "simulations.hosts.full"}
PASSED, SAFETY, LIVENESS, INCONCLUSIVE, CRASHED = "passed", "safety", "liveness", "inconclusive", "crashed"  # noqa: E501  # fmt: skip


@dataclass
class Result:
    """What came of a run. Times are virtual ms since the world began."""

    scenario: Scenario
    seed: int
    mode: str
    trace: str
    outcome: str
    events: int
    wall: float
    violations: list[Violation] = field(default_factory=list)
    goals: dict[str, int] = field(default_factory=dict)
    claims: list[dict[str, Any]] = field(default_factory=list)
    votes: list[dict[str, Any]] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)
    told: list[tuple[int, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    messages: int = 0
    exhausted: bool = False
    lines: list[tuple[Any, ...]] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """passed, safety, liveness, inconclusive or crashed; the gravest first."""
        if self.failures:
            return CRASHED
        if any(violation.is_safety for violation in self.violations):
            return SAFETY
        if self.violations:
            return LIVENESS
        return INCONCLUSIVE if self.exhausted else PASSED

    @property
    def missing(self) -> list[str]:
        """Goals of `sometimes` that this run did not meet."""
        return [goal for goal in self.scenario.check["sometimes"] if not self.goals.get(goal)]

    def count(self, outcome: str) -> int:
        return sum(claim["outcome"] == outcome for claim in self.claims)

    @property
    def false_releases(self) -> tuple[int, int]:
        """How many claims of strangers got what they claimed, and of how many."""
        strangers = [claim for claim in self.claims if claim["by"] == "thief"]
        return sum(bool(claim["recovered"]) for claim in strangers), len(strangers)

    def table(self, name: str) -> Any:
        """`claims`, `votes`, `faults` or `events` as a polars frame (extra `[research]`)."""
        polars = importlib.import_module("polars")

        rows: Any = {"claims": self.claims, "votes": self.votes, "faults": self.faults}.get(name)
        if rows is None:
            rows = [{"at": at, "event": text} for at, text in self.told]
        return polars.DataFrame(rows)


def run(
    scenario: Scenario | str | Path,
    *,
    seed: int | None = None,
    mode: str | None = None,
    settings: Mapping[str, Any] | None = None,
    keep: int = 0,
) -> Result:
    """Run a scenario, given itself, by name or as a file, to its end.

    `mode` is "fast" or "full"; without it and without `seed` the scenario's own are taken.
    `settings` are as `--set` gives them. `keep` events of the trace are kept as they are.
    Raises `Malformed` or `Refused` for a scenario that cannot be run.
    """
    if not isinstance(scenario, Scenario):
        scenario = load(scenario, settings)
    elif settings:
        scenario = scenario.changed(**settings)
    seed = int(scenario.top["seed"]) if seed is None else seed
    mode = mode or str(scenario.top["mode"])
    if mode not in MODES:
        raise Refused(f"there is no mode {mode}; there are {' and '.join(MODES)}")
    from simulations.swarm import vary

    varied = vary(scenario, seed)
    began = time.perf_counter()
    with tempo(int(varied.federation["heartbeat"])):
        engine = importlib.import_module(ENGINES[mode])
        ended = engine.simulate(varied, seed, keep)
    return gather(varied, seed, mode, ended, time.perf_counter() - began)


@dataclass
class Ended:
    """A world that has come to its end."""

    federations: Sequence[Federation]
    atoms: Sequence[Atom]
    trace: Trace
    events: int
    exhausted: bool


def gather(scenario: Scenario, seed: int, mode: str, ended: Ended, wall: float) -> Result:
    """Put together what is known of a run that has ended."""
    claims, votes, violations, told, failures = [], [], [], [], []
    goals = dict.fromkeys(GOALS, 0)
    messages = 0
    for federation in ended.federations:
        truth = federation.truth
        rows = [one.to_map(federation.number) for one in _ordered(truth)]
        claims += federation.rows + rows
        votes += [
            {"federation": federation.number, "claim": one.number, "seat": seat, "at": at,
             "deceived": seat in one.deceived}
            for one in _ordered(truth) for seat, at in sorted(one.approved.items())
        ]  # fmt: skip
        violations += truth.violations
        told += truth.events
        failures += federation.failures
        messages += truth.messages
        for goal, times in truth.goals.items():
            goals[goal] = goals.get(goal, 0) + times
    return Result(
        scenario=scenario, seed=seed, mode=mode, trace=ended.trace.hexdigest(),
        outcome=digest(claims), events=ended.events, wall=wall, violations=violations,
        goals=goals, claims=claims, votes=votes,
        faults=[atom.to_map() for atom in ended.atoms], told=sorted(told), failures=failures,
        messages=messages, exhausted=ended.exhausted, lines=ended.trace.lines,
    )  # fmt: skip


def _ordered(truth: Truth) -> list[Claimed]:
    return sorted(truth.claims.values(), key=lambda one: one.number)


def digest(claims: Sequence[Mapping[str, Any]]) -> str:
    """Hash what a protocol's outcome is: which claims ended how, and who had approved.

    Not when, to the millisecond, nor over which link: that is where engines may differ.
    """
    lines = [
        f"{claim['federation']} {claim['claim']} {claim['by']} {claim['outcome']} "
        f"{claim['approvals']} {claim['deceived']} {bool(claim['vetoed'])}"
        for claim in sorted(claims, key=lambda claim: (claim["federation"], claim["claim"]))
    ]
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


@contextmanager
def tempo(heartbeat: int) -> Iterator[None]:
    """Let neighbours greet each other every `heartbeat` ms instead of every 15 s.

    A world of three months would else consist of greetings. What depends on it, a link's
    patience and the doubt after a downtime, is stretched alike.
    """
    import node.dialer
    import node.links

    factor = heartbeat / protocol.gossip.PING_EVERY
    if heartbeat < 1_000:
        raise Malformed("federation, heartbeat: at least one second")
    before = (
        protocol.gossip.PING_EVERY, node.links.SILENCE_S, protocol.casework.DOWNTIME_DOUBTED,
        node.dialer.RETRY_MAX_S,
    )  # fmt: skip
    changes: tuple[tuple[Any, str, Any], ...] = (
        (protocol.gossip, "PING_EVERY", heartbeat),
        (node.links, "SILENCE_S", max(before[1], before[1] * factor)),
        (protocol.casework, "DOWNTIME_DOUBTED", 2 * heartbeat),
        (node.dialer, "RETRY_MAX_S", max(before[3], before[3] * factor)),
    )
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(changes, before, strict=True):
            setattr(module, name, value)


def hook(scenario: Scenario) -> Callable[[Any], None]:
    """What a scenario's Python hook does to its world before it runs."""
    wanted = str(scenario.top["hook"])
    if not wanted:
        return lambda world: None
    module, _, name = wanted.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise Malformed(f"hook: {wanted} cannot be found: {error}") from error
    return found  # type: ignore[no-any-return]
