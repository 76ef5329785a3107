"""What held and what did not, which goals were met, and what to type next."""

from __future__ import annotations

from typing import Final

from simulations.checkers import GOALS, INVARIANTS
from simulations.quantities import show_duration
from simulations.report.story import (
    FAILED,
    HELD,
    UNCHECKED,
    Facts,
    Finding,
    Goal,
    Rule,
)
from simulations.running import PASSED, Result

BYTES_ONLY: Final = ("S10",)  # looks at bytes, which the fast engine does not make


def rules(result: Result) -> tuple[Rule, ...]:
    """Every invariant, and whether it was seen to hold, to fail, or not looked at."""
    failed = {one.id for one in result.violations}
    return tuple(
        Rule(id_, statement, FAILED)
        if id_ in failed
        else Rule(id_, statement, *_state(id_, result))
        for id_, statement in INVARIANTS.items()
    )


def _state(id_: str, result: Result) -> tuple[str, str]:
    if id_.startswith("L") and result.exhausted:
        return UNCHECKED, "the budget of events ran out before the end"
    if id_ in BYTES_ONLY and result.mode == "fast":
        return UNCHECKED, "there are no bytes in fast mode"
    return HELD, ""


def findings(result: Result) -> tuple[Finding, ...]:
    return tuple(
        Finding(one.id, one.statement, one.at, tuple(one.events)) for one in result.violations
    )


def goals(result: Result) -> tuple[Goal, ...]:
    """Goals that were asked for, and others that were met."""
    wanted = list(result.scenario.check["sometimes"])
    names = [*wanted, *(name for name in result.goals if name not in wanted)]
    found = [
        Goal(name, GOALS.get(name, ""), result.goals.get(name, 0), name in wanted) for name in names
    ]
    return tuple(goal for goal in found if goal.wanted or goal.times)


def facts(result: Result) -> Facts:
    """What decided the run, and its size."""
    scenario = result.scenario
    count = int(scenario.federation["count"])
    who = f"{scenario.guardians} guardians, threshold {scenario.threshold}"
    found = [
        ("federation", who if count == 1 else f"{count} of {who}"),
        ("seed", str(result.seed)),
        ("mode", result.mode),
        ("cryptography", str(scenario.federation["suite"])),
        ("waiting period", show_duration(int(scenario.policy["waiting"]))),
        ("length", f"{_days(scenario.length)}, then {_days(scenario.end - scenario.length)} "
                   "without faults"),
        ("run", f"{result.events:,} events, {result.messages:,} messages, {result.wall:.1f} s"),
        ("trace", result.trace),
    ]  # fmt: skip
    return tuple(found)


def commands(result: Result) -> Facts:
    """How to have the run again, and how to make its failure smaller."""
    again = f"holdfast simulate replay --seed {result.seed} --mode {result.mode} repro.toml"
    found = [("reproduce", again)]
    if result.verdict != PASSED and result.faults:
        found.append(("shrink", "holdfast simulate shrink repro.toml"))
    return tuple(found)


def _days(ms: int) -> str:
    days = ms / 86_400_000
    return f"{days:g} d" if days >= 1 else show_duration(ms)
