"""A world of bare cores: any number of federations on one heap, and what goes wrong in them."""

from __future__ import annotations

from collections.abc import Callable

from protocol.contract import Seat
from simulations.faults import Machines, schedule
from simulations.federation import Federation
from simulations.hosts.fast import MS, Engine, FastFederation
from simulations.running import Ended, hook
from simulations.scenario import Scenario
from simulations.trace import Trace


class FastMachines(Machines):
    """What faults can do to a federation of bare cores."""

    def __init__(self, world: FastFederation) -> None:
        super().__init__(world.federation)
        self._world = world
        self._engine = world.engine

    def at(self, ms: int, fn: Callable[[], None]) -> None:
        self._engine.at(ms * MS, lambda _: fn())

    def crash(self, seat: Seat, restart_after: int, why: str = "power cut") -> None:
        node = self._world.nodes[seat]
        node.restart_after = restart_after
        node.stop(why)

    def start(self, seat: Seat) -> None:
        self._world.nodes[seat].start()

    def arm(self, seat: Seat, write: int, step: str, restart_after: int) -> None:
        node = self._world.nodes[seat]
        node.restart_after = restart_after
        node.cut_at = node.write + write if write else 0
        node.cut_step = step

    def cut(self, source: Seat, target: Seat) -> None:
        self._world.cut(source, target)

    def heal(self, source: Seat, target: Seat) -> None:
        self._world.heal(source, target)

    def reset(self, a: Seat, b: Seat) -> None:
        self._world.reset(a, b)

    def clog(self, a: Seat, b: Seat, ms: int) -> None:
        self._world.slow[a, b] = self._world.slow[b, a] = ms

    def skew(self, seat: Seat, ms: int) -> None:
        self._world.nodes[seat].skew = ms

    def fail_writes(self, seat: Seat, times: int) -> None:
        self._world.nodes[seat].fails = times

    def fill(self, seat: Seat, full: bool) -> None:
        self._world.nodes[seat].ledger.full = full

    def exhaust(self, seat: Seat, full: bool) -> None:
        self._world.nodes[seat].fails = 10**9 if full else 0

    def lie(self, seat: Seat, chance: int) -> None:
        # Nothing is unsynced here; what a lying disk does is lose the newest writes.
        self.snapshot(seat)

    def rot(self, seat: Seat) -> None:
        self._world.nodes[seat].ledger.rot()
        self.crash(seat, 1_000, "restarted")  # so that nothing is served from memory

    def snapshot(self, seat: Seat) -> None:
        node = self._world.nodes[seat]
        node.snapshot = node.ledger.copy()

    def roll_back(self, seat: Seat, restart_after: int) -> None:
        node = self._world.nodes[seat]
        self.crash(seat, restart_after, "restored from an old copy")
        if node.snapshot is not None:
            node.ledger = node.snapshot.copy()

    def stall(self, seat: Seat, ms: int) -> None:
        for other in range(self.federation.scenario.guardians):
            if other != seat:
                self.clog(seat, other, ms)

    def slow_disk(self, seat: Seat, ms: int) -> None:
        self.stall(seat, ms)


def simulate(scenario: Scenario, seed: int, keep: int = 0) -> Ended:
    """Run every federation of a scenario to its end."""
    trace = Trace(keep)
    engine = Engine(trace)
    federations, worlds, atoms = [], [], []
    number_of = int(scenario.federation["count"])
    for number in range(number_of):
        federation = Federation(scenario, seed, number, lambda: engine.now // MS)
        world = FastFederation(engine, federation)
        enrol(federation, number_of)
        machines = FastMachines(world)
        atoms += schedule(machines, scenario, seed)
        federations.append(federation)
        worlds.append(world)
    hook(scenario)(worlds)
    for world in worlds:
        for node in world.nodes:
            node.start()
        world.federation.begin()
    finished = engine.run(scenario.end * MS, int(scenario.budget["events"]))
    for world in worlds:
        if finished:
            world.federation.settled()
    return Ended(federations, atoms, trace, engine.events, not finished)


def enrol(federation: Federation, of: int) -> None:
    """Give a federation its share of every workload."""
    first = 0
    for work in federation.scenario.workload:
        total = int(work["count"])
        share = total // of + (federation.number < total % of)
        federation.enrol(work, share, first)
        first += share
