"""Model checking: walk through every interleaving of a few guardians and look at each state.

Three honest guardians run the cores that ship; the fourth is in an adversary's hands, who
shows any of its prepared statements to whomever it likes, whenever it likes, or to nobody.
A plan says what else may happen: what people do at each guardian, a veto, crashes, guardians
comparing their logs, time passing. Every order of all that is walked, breadth first, with
equal states counted once; the oracle looks at every step, and from every state in which
nothing is in flight a fault-free end is played, after which all honest guardians must see
the case alike.

Entries in flight keep their order on each link, as TCP does, and die with a crash of either
end. Not walked are: talk that overtakes entries (clocks and digests are heard and answered at
once; two guardians compare only when nothing is in flight between them), pings before the
end, clocks that differ, crashes amid one event (the node commits an event's writes together),
and links that break without a crash.

Walked to the end, in seconds of processor time with CPython 3.11 on a shared machine:

    plan        states      steps   depth   seconds
    votes        5,970      15,320     12       1.5
    veto        74,365     267,722     20         6
    liar        80,214     281,536     20        10
    elsewhere   86,303     309,119     20         8
    twice      169,826     614,385     20        13
    forger     233,608   1,002,785     21        10
    full     5,242,497  21,443,256     27       160   and 2.4 GB

A core's step takes about 0.6 ms the first time and nothing again: `full` needs 152,753 of them.
"""

from __future__ import annotations

import argparse
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

from protocol.contract import Seat
from simulations.explore_cores import Cores, Member, Outcome, Step
from simulations.explore_mutants import MUTANTS, Mutant
from simulations.explore_oracle import Oracle
from simulations.explore_plans import HONEST, LIAR, NAMES, PLANS, TICK, Plan, Setting
from simulations.explore_report import PASSED, USAGE, Found, report, tell

Cells: TypeAlias = tuple[int, ...]  # a state of the whole: see the places below
PAIRS: Final = tuple((one, other) for one in HONEST for other in HONEST if one != other)
CHANNEL: Final = {pair: 3 + number for number, pair in enumerate(PAIRS)}
ACTS: Final = 9  # and the two after it: how many acts each person has done
CRASHES, COMPARES, VETOED, TICKS = 12, 13, 14, 15
CELLS: Final = 16
PACKED: Final = struct.Struct(f"<{CELLS}I")
ROUNDS_MAX: Final = 12  # of pings in a fault-free end
SHOW_EVERY: Final = 50_000  # states between two lines of progress


class Explorer:
    """Walks one plan, with the true code or a mutant."""

    def __init__(self, plan: Plan, mutant: Mutant | None = None) -> None:
        self.plan = plan
        self.setting = Setting(plan)
        self.oracle = Oracle(self.setting.truth())
        world = self.setting.world
        self.cores = Cores(
            world.roster,
            world.signed.to_bytes(),
            self.setting.codec,
            self.oracle,
            self.setting.asks,
            lambda name: (self.setting.lies[name][1],),
            mutation=mutant.mutation() if mutant else None,
            loses_last=mutant.loses_last if mutant else False,
            reload=mutant is None,
        )
        self._queues: list[tuple[int, ...]] = [()]
        self._queue_ids: dict[tuple[int, ...], int] = {(): 0}
        self._able: dict[int, list[Step]] = {}
        self._ended: dict[tuple[int, ...], list[str]] = {}
        self._heads = {one.id: name for name, (_, one) in self.setting.lies.items()}
        # A mutant is to be found by the fault that it is about, not by any odd one out.
        self._ends = mutant is None or mutant.finds.startswith("L")
        self.found = Found()

    # --- the first state --------------------------------------------------------------

    def first(self) -> Cells:
        """Everyone linked and in step, and what comes before the walk done."""
        cells = [0] * CELLS
        started = []
        world = self.setting.world
        for seat in HONEST:
            host = world.hosts[seat]
            member = Member(seat, host.introduction, host.keys)
            outcome = self.cores.start(member, host.ledger.copy(), world.now)
            started.append((seat, outcome))
            cells[seat] = outcome.state
        for seat, outcome in started:
            outcome = Outcome(cells[seat], outcome.sent)
            self._put(cells, seat, outcome, pings=True)
        faults = self._flood(cells)
        for seat, act in self.plan.before:
            done = self.cores.step(cells[seat], ("act", act))
            assert done is not None, f"{NAMES[seat]} cannot {act} before the walk"
            self._put(cells, seat, done, pings=True)
            faults += self._flood(cells)
        assert not faults, faults
        return tuple(cells)

    # --- cells ------------------------------------------------------------------------

    def _push(self, queue: int, packet: int) -> int:
        longer = (*self._queues[queue], packet)
        number = self._queue_ids.setdefault(longer, len(self._queues))
        if number == len(self._queues):
            self._queues.append(longer)
        return number

    def _pop(self, queue: int) -> int:
        shorter = self._queues[queue][1:]
        number = self._queue_ids.setdefault(shorter, len(self._queues))
        if number == len(self._queues):
            self._queues.append(shorter)
        return number

    def _put(
        self, cells: list[int], seat: Seat, outcome: Outcome, *, pings: bool = False
    ) -> tuple[str, ...]:
        """Take an outcome over: entries go in flight, talk is heard and answered at once."""
        cores, faults = self.cores, outcome.faults
        cells[seat] = outcome.state
        said = [(seat, peer, packet) for peer, packet in outcome.sent]
        for one, peer, packet in said:
            if peer == LIAR or (packet in cores.pings and not pings):
                continue
            if packet not in cores.talk:
                channel = CHANNEL[one, peer]
                cells[channel] = self._push(cells[channel], packet)
                continue
            answer = cores.step(cells[peer], ("hear", (one, packet)))
            assert answer is not None
            cells[peer] = answer.state
            faults += answer.faults
            said.extend((peer, other, reply) for other, reply in answer.sent)
        return faults

    # --- what can happen --------------------------------------------------------------

    def successors(self, cells: Cells) -> Iterator[tuple[str, Cells, tuple[str, ...]]]:
        """Every step from a state: in words, where it leads, and what is wrong with it."""
        for seat in HONEST:
            for peer in HONEST:
                if peer != seat and cells[CHANNEL[peer, seat]]:
                    yield from self._hear(cells, peer, seat)
            acts = self.plan.acts[seat]
            if cells[ACTS + seat] < len(acts):
                step = ("act", acts[cells[ACTS + seat]])
                yield from self._local(cells, seat, step, ACTS + seat)
            if cells[VETOED] == 0 and seat in self.plan.veto:
                yield from self._local(cells, seat, ("act", "veto"), VETOED)
            for step in self._able_of(cells[seat]):
                if step[0] != "compare":
                    yield from self._local(cells, seat, step, None)
                elif self._may_compare(cells, seat, int(step[1])):
                    yield from self._local(cells, seat, step, COMPARES)
            if cells[CRASHES] < self.plan.crashes and seat in self.plan.crashing:
                yield self._crash(cells, seat)
        if cells[TICKS] < self.plan.ticks:
            yield self._tick(cells)

    def _may_compare(self, cells: Cells, seat: Seat, peer: Seat) -> bool:
        if cells[COMPARES] >= self.plan.compares:
            return False
        return not (cells[CHANNEL[seat, peer]] or cells[CHANNEL[peer, seat]])

    def _hear(
        self, cells: Cells, peer: Seat, seat: Seat
    ) -> Iterator[tuple[str, Cells, tuple[str, ...]]]:
        channel = CHANNEL[peer, seat]
        packet = self._queues[cells[channel]][0]
        outcome = self.cores.step(cells[seat], ("hear", (peer, packet)))
        if outcome is not None:
            after = list(cells)
            after[channel] = self._pop(cells[channel])
            faults = self._put(after, seat, outcome)
            yield f"hear {seat} {peer} {packet}", tuple(after), faults

    def _local(
        self, cells: Cells, seat: Seat, step: Step, counter: int | None
    ) -> Iterator[tuple[str, Cells, tuple[str, ...]]]:
        outcome = self.cores.step(cells[seat], step)
        if outcome is not None:
            after = list(cells)
            if counter is not None:
                after[counter] += 1
            faults = self._put(after, seat, outcome)
            yield f"{step[0]} {seat} {step[1]}", tuple(after), faults

    def _able_of(self, state: int) -> list[Step]:
        """The steps that a guardian's own state makes possible, but for its person's."""
        if state not in self._able:
            replica = self.cores.look(state)
            able: list[Step] = []
            gossip = replica.core.gossip
            head = gossip.heads.get((LIAR, 0), (0, b""))[1]
            on = self._heads.get(head, "")
            if not gossip.is_excluded(LIAR):
                able += [("lie", lie) for lie in self.plan.lies if self.setting.lies[lie][0] == on]
            if any(name.startswith("digest") for name in replica.timers):
                able += [("compare", peer) for peer in HONEST if peer != replica.seat]
            self._able[state] = able
        return self._able[state]

    def _crash(self, cells: Cells, seat: Seat) -> tuple[str, Cells, tuple[str, ...]]:
        """A guardian crashes and comes back; what was in flight is lost, links stand again."""
        after = list(cells)
        after[CRASHES] += 1
        others = [peer for peer in HONEST if peer != seat]
        for peer in others:
            after[CHANNEL[seat, peer]] = after[CHANNEL[peer, seat]] = 0
        steps: list[tuple[Seat, Step]] = [(seat, ("boot", None))]
        steps += [(peer, ("relink", seat)) for peer in others]
        faults = self._together(after, steps)
        return f"boot {seat} None", tuple(after), faults

    def _tick(self, cells: Cells) -> tuple[str, Cells, tuple[str, ...]]:
        """Time passes, at all guardians alike."""
        after = list(cells)
        after[TICKS] += 1
        faults = self._together(after, [(seat, ("tick", TICK)) for seat in HONEST])
        return "tick 0 None", tuple(after), faults

    def _together(self, cells: list[int], steps: list[tuple[Seat, Step]]) -> tuple[str, ...]:
        """Steps of several guardians, before any of them hears what another then says."""
        outcomes = []
        for seat, step in steps:
            outcome = self.cores.step(cells[seat], step)
            assert outcome is not None
            cells[seat] = outcome.state
            outcomes.append((seat, outcome))
        faults: tuple[str, ...] = ()
        for seat, outcome in outcomes:
            faults += self._put(cells, seat, Outcome(cells[seat], outcome.sent, outcome.faults))
        return faults

    # --- the fault-free end -----------------------------------------------------------

    def _flood(self, cells: list[int]) -> list[str]:
        """Deliver all that is in flight, in turn, until nothing is."""
        faults: list[str] = []
        while any(cells[channel] for channel in CHANNEL.values()):
            for (peer, seat), channel in CHANNEL.items():
                if cells[channel]:
                    packet = self._queues[cells[channel]][0]
                    cells[channel] = self._pop(cells[channel])
                    outcome = self.cores.step(cells[seat], ("hear", (peer, packet)))
                    assert outcome is not None
                    faults += self._put(cells, seat, outcome, pings=True)
        return faults

    def _end(self, cells: Cells) -> list[str]:
        """Play the fault-free end: pings until all agree, time until all is due."""
        start = cells[:3]
        if start not in self._ended:
            self._ended[start] = self._play_end([*start, *([0] * (CELLS - 3))])
        return self._ended[start]

    def _play_end(self, cells: list[int]) -> list[str]:
        faults: list[str] = []
        for _ in range(ROUNDS_MAX):
            before = cells[:3]
            for seat in HONEST:
                for step in self._until_due(cells[seat]):
                    outcome = self.cores.step(cells[seat], step)
                    assert outcome is not None
                    faults += self._put(cells, seat, outcome, pings=True)
            faults += self._flood(cells)
            if cells[:3] == before:
                return faults + self.oracle.agree([self.cores.look(one) for one in cells[:3]])
        return [*faults, "L3: the guardians go on talking and never come to rest"]

    def _until_due(self, state: int) -> list[Step]:
        replica = self.cores.look(state)
        steps: list[Step] = [("ping", None)]
        due = self.oracle.next_due(replica)
        if due is not None and due > replica.now:
            steps.append(("tick", due - replica.now))
        return steps

    # --- the walk ---------------------------------------------------------------------

    def run(self, most: int | None = None, *, progress: bool = False) -> Found:
        """Walk until all is seen, a fault is found, or `most` states have been visited."""
        began = time.monotonic()
        found, first = self.found, self.first()
        root = PACKED.pack(*first)
        came: dict[bytes, bytes] = {root: root}
        level = [first]
        while level and not found.fault and (most is None or len(came) < most):
            level = self._level(level, came, most, progress)
            found.depth += bool(level)
        found.complete = not level and not found.fault
        found.states = len(came)
        found.cores, found.calls = len(self.cores), self.cores.calls
        found.seconds = time.monotonic() - began
        return found

    def _level(
        self, level: list[Cells], came: dict[bytes, bytes], most: int | None, progress: bool
    ) -> list[Cells]:
        """Look at all states of one depth; those of the next that are new."""
        found, after, pack = self.found, list[Cells](), PACKED.pack
        for cells in level:
            here = pack(*cells)
            if self._ends and not any(cells[3:9]):
                found.ends += 1
                faults = self._end(cells)
                if faults:
                    return self._fail(came, here, "and then, without any fault", faults[0])
            for words, then, faulty in self.successors(cells):
                found.steps += 1
                if faulty:
                    return self._fail(came, here, words, faulty[0])
                key = pack(*then)
                if key not in came:
                    came[key] = here
                    after.append(then)
                    if progress and len(came) % SHOW_EVERY == 0:
                        self._show(len(came))
            if most is not None and len(came) >= most:
                break
        return after

    def _show(self, states: int) -> None:
        depth = self.found.depth
        sys.stderr.write(
            f"{states:>10,} states, depth {depth}, {len(self.cores):,} states of cores\n"
        )

    # --- telling ----------------------------------------------------------------------

    def _fail(self, came: dict[bytes, bytes], at: bytes, last: str, fault: str) -> list[Cells]:
        path = [at]
        while came[path[-1]] != path[-1]:
            path.append(came[path[-1]])
        path.reverse()
        told = []
        for here, there in pairwise(path):
            for words, then, _ in self.successors(PACKED.unpack(here)):
                if PACKED.pack(*then) == there:
                    told.append(tell(words, self.cores.packets))
                    break
        self.found.fault = fault
        self.found.trace = (*told, tell(last, self.cores.packets))
        return []


# --- command ---------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Walk a plan, with the true code or a planted bug; the exit code says what was found."""
    parser = argparse.ArgumentParser(
        prog="holdfast simulate explore", description="Walk every interleaving of four guardians."
    )
    parser.add_argument("plan", nargs="?", choices=sorted(PLANS), help="what may happen (full)")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="plant a bug to be found")
    parser.add_argument("--states", type=int, metavar="N", help="stop after so many states")
    parser.add_argument("--list", action="store_true", help="list plans and mutants")
    try:
        options = parser.parse_args(argv)
    except SystemExit as error:
        return USAGE if error.code else PASSED
    if options.list:
        for name, plan in PLANS.items():
            sys.stdout.write(f"{name:<14} {plan.about}\n")
        for name, planted in MUTANTS.items():
            sys.stdout.write(f"{name:<14} planted: {planted.says}\n")
        return PASSED
    mutant = MUTANTS[options.mutant] if options.mutant else None
    name = options.plan or (mutant.plan if mutant else "full")
    found = Explorer(PLANS[name], mutant).run(options.states, progress=True)
    sys.stdout.write(report(name, found))
    return found.code


if __name__ == "__main__":
    sys.exit(main())
