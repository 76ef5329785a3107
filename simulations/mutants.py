"""Planted bugs, and whether the simulator finds them: the test of the tests.

Each mutant is one small change of the code that ships, made for the time of a run. Those of
the cores are hunted in the fast engine, those of the driver and the store in the full one.
A mutant nobody finds means that the scenarios, the faults or the invariants have a hole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from protocol.contract import Persist
from simulations.running import PASSED, run

SEEDS_MAX: Final = 40  # then a mutant counts as not found


@dataclass(frozen=True)
class Mutant:
    """A planted bug: what it does, where it is hunted, and how it is planted."""

    name: str
    shows: str
    mode: str
    scenario: str
    plant: Callable[[], Any]


MUTANTS: Final[dict[str, Mutant]] = {}


def mutant(name: str, mode: str, scenario: str) -> Callable[[Callable[[], Iterator[None]]], None]:
    """Make a function that plants a bug while it is suspended known by a name."""

    def keep(plant: Callable[[], Iterator[None]]) -> None:
        shows = (plant.__doc__ or "").splitlines()[0]
        MUTANTS[name] = Mutant(name, shows, mode, scenario, contextmanager(plant))

    return keep


@contextmanager
def _with(owner: Any, name: str, stand_in: Any) -> Iterator[None]:
    before = owner.__dict__[name]
    setattr(owner, name, stand_in)
    try:
        yield
    finally:
        setattr(owner, name, before)


# --- of the cores ----------------------------------------------------------------------


@mutant("vote-counted-twice", "fast", "swarm")
def _vote_counted_twice() -> Iterator[None]:
    """The last approval counts as two."""
    from protocol.cases import Docket

    real = Docket.standing

    def standing(self: Any, *args: Any) -> Any:
        found = real(self, *args)
        return replace(found, approvals=found.approvals + found.approvals[-1:])

    with _with(Docket, "standing", standing):
        yield


@mutant("revisions-add-up", "fast", "votes-again")
def _revisions_add_up() -> Iterator[None]:
    """Every revision of one guardian's vote counts, not only the latest."""
    from protocol.cases import Docket

    real = Docket.standing

    def standing(self: Any, case: Any, *args: Any) -> Any:
        found = real(self, case, *args)
        repeated = [seat for seat in found.approvals for _ in case.votes[seat]]
        return replace(found, approvals=tuple(repeated))

    with _with(Docket, "standing", standing):
        yield


@mutant("approvals-across-claims", "fast", "swarm-thieves")
def _approvals_across_claims() -> Iterator[None]:
    """Approvals of another claim on the vault count for this one."""
    from protocol.cases import Docket

    real = Docket.standing

    def standing(self: Any, case: Any, deal: Any, excluded: Any, now: int) -> Any:
        for other in self.cases.values():
            for seat, vote in other.latest().items():
                if vote.body["vault"] == deal.body["vault"]:
                    case.votes.setdefault(seat, {0: vote})
        return real(self, case, deal, excluded, now)

    def counts(self: Any, case: Any, seat: Any, vote: Any, vault: Any, deal: Any) -> bool:
        return (vote.body["verdict"], vote.body["deal"]) == ("approve", deal)

    with _with(Docket, "standing", standing), _with(Docket, "_counts", counts):
        yield


@mutant("veto-forgotten", "fast", "veto-race")
def _veto_forgotten() -> Iterator[None]:
    """A veto is known until the node starts anew."""
    from protocol.casework import Casework

    real = Casework.resume

    def resume(self: Any, at: Any, out: Any) -> None:
        for case in self.docket.cases.values():
            case.vetoes.clear()
            if case.facts is not None:
                case.facts = replace(case.facts, contested=0)
        real(self, at, out)

    with _with(Casework, "resume", resume):
        yield


@mutant("no-waiting", "fast", "quiet-week")
def _no_waiting() -> Iterator[None]:
    """The waiting period is not waited."""
    from protocol.casework import Casework

    with _with(Casework, "_has_waited", lambda self, *args: True):
        yield


@mutant("clock-restarted", "fast", "swarm")
def _clock_restarted() -> Iterator[None]:
    """The waiting period begins anew whenever the node does."""
    from protocol.casework import Casework

    real = Casework.resume

    def resume(self: Any, at: Any, out: Any) -> None:
        for case in self.docket.cases.values():
            if case.facts is not None and case.facts.since:
                case.facts = replace(case.facts, since=at.now, served=0)
        real(self, at, out)

    with _with(Casework, "resume", resume):
        yield


@mutant("rot-served", "fast", "bad-disks")
def _rot_served() -> Iterator[None]:
    """A piece that no longer fits what its owner signed is served all the same."""
    from protocol.casework import Casework
    from protocol.encoding import hash256

    real = Casework.own_piece

    def own_piece(self: Any, deal: Any, row: Any) -> Any:
        piece = real(self, deal, row)
        if piece is not None:
            return piece
        other = self.custody.piece(replace(row, box=row.box[:-1] + bytes((row.box[-1] ^ 1,))))
        return replace(other, share=hash256("rot", other.share)[:31] + b"\0")

    with _with(Casework, "own_piece", own_piece):
        yield


# --- of the driver and the store -------------------------------------------------------


@mutant("send-before-persist", "full", "quiet-week")
def _send_before_persist() -> Iterator[None]:
    """The driver performs effects first, and makes the changes durable afterwards."""
    from node.driver import Driver, Outcome

    class Undo(Exception):
        pass

    async def transact(self: Any, batch: Sequence[Any]) -> Any:
        stamped = [(self._moment(), item.event) for item in batch]
        outcome, changes = Outcome(), list[Any]()

        def decide(transaction: Any) -> None:
            for moment, event in stamped:
                effects = self._core.handle(moment, event)
                changes.extend(e.change for e in effects if isinstance(e, Persist))
                outcome.add(effects, transaction)
                outcome.handled += 1
            raise Undo

        def keep(transaction: Any) -> None:
            for change in changes:
                transaction.apply(change)

        try:
            await self._workers.store(lambda: self._store.transact(decide))
        except Undo:
            pass
        self._world.committed(outcome.entries)
        for effect in outcome.effects:
            self._world.act(effect)
        outcome.effects = []
        await self._workers.store(lambda: self._store.transact(keep))
        return outcome

    with _with(Driver, "_transact", transact):
        yield


@mutant("unsynced-store", "full", "power-cuts")
def _unsynced_store() -> Iterator[None]:
    """The database does not wait until a commit is on the disk."""
    from node.store import SqliteStore

    real = SqliteStore._prepare

    def prepare(self: Any) -> None:
        real(self)
        self._db.execute("PRAGMA synchronous=off")

    with _with(SqliteStore, "_prepare", prepare):
        yield


# --- the hunt --------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """How a mutant was found: by which invariant, in which run of how many, after how long."""

    mutant: str
    by: str
    runs: int
    wall: float


def hunt_one(wanted: Mutant, seeds: int = SEEDS_MAX) -> Found:
    """Run seeds until an invariant breaks; `by` is empty when none did."""
    began = time.perf_counter()
    with wanted.plant():
        for seed in range(seeds):
            result = run(wanted.scenario, seed=seed, mode=wanted.mode)
            if result.verdict != PASSED:
                by = result.violations[0].id if result.violations else result.verdict
                return Found(wanted.name, by, seed + 1, time.perf_counter() - began)
    return Found(wanted.name, "", seeds, time.perf_counter() - began)


def hunt(say: Callable[[str], None], seeds: int = SEEDS_MAX) -> bool:
    """Hunt every mutant, a line for each; whether all were found."""
    escaped = 0
    for one in MUTANTS.values():
        found = hunt_one(one, seeds)
        escaped += not found.by
        how = f"found by {found.by} in run {found.runs}" if found.by else "NOT FOUND"
        say(f"mutant {one.name:<24} {one.mode}  {how}  {found.wall:.1f} s   {one.shows}")
    say(f"{len(MUTANTS) - escaped} of {len(MUTANTS)} planted bugs found")
    return not escaped
