"""The full engine: the unchanged node over simulated wires, disks, clocks and people.

Everything is real but those: framing, msgpack, signatures, the production store in SQLite.
TLS is left out. A power cut is a disk that answers no more, a transport that is dead, and a
cancelled task tree: whatever a `finally` still tries goes through dead ports.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeVar

import apsw
import structlog
import trio

from node.framing import FrameReader, pack
from node.greeting import Hello
from node.machine import Node
from node.ports import StoreFailed, StoreFull, Transaction
from node.store import SqliteStore
from node.transport import Unreachable
from protocol.contract import (
    Change,
    Id,
    Ledger,
    Message,
    Notify,
    PutEntry,
    Seat,
    Stretch,
    Table,
)
from protocol.errors import HoldfastError
from protocol.founding import ROSTER_KEY
from protocol.sealing import Cost
from protocol.verbs import codes
from simulations.connection import Weather
from simulations.disk import Disk, PowerCut, silent_power_cuts
from simulations.faults import Machines, schedule
from simulations.federation import Federation
from simulations.hosts.fast_world import enrol
from simulations.hosts.stage import Dark, Refusal
from simulations.kernel import InlineWorkers, Kernel, SimClock, SimEntropy, draws, run
from simulations.network import Network, SimTransport
from simulations.running import Ended, hook
from simulations.scenario import Scenario
from simulations.trace import Trace

T = TypeVar("T")

PATH: Final = "guardian.db"
ASK_S: Final = 60.0  # a person's or wallet's patience with one answer
RESTART_S: Final = 10.0  # until an operator's system starts a node again that ended by itself
HOPELESS: Final = 5  # ends in a row before a node ever ran: its disk is beyond help
TAIL_BYTES: Final = 24  # of a sealed piece, by which it is found on the platter


class WatchedStore:
    """The production store; tells what has become durable, once it has."""

    def __init__(self, inner: SqliteStore, committed: Callable[[list[PutEntry]], None]) -> None:
        self._inner = inner
        self._committed = committed

    def transact(self, work: Callable[[Transaction], T]) -> T:
        entries: list[PutEntry] = []
        result = self._inner.transact(lambda transaction: work(_Watching(transaction, entries)))
        self._committed(entries)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Watching:
    def __init__(self, inner: Transaction, entries: list[PutEntry]) -> None:
        self._inner = inner
        self._entries = entries

    @property
    def ledger(self) -> Ledger:
        return self._inner.ledger

    def apply(self, change: Change) -> None:
        if type(change) is PutEntry:
            self._entries.append(change)
        self._inner.apply(change)


class Silent:
    """People look by themselves here; nobody needs to be rung."""

    def changed(self, topic: str, id: Id) -> None:
        pass

    async def notify(self, notice: Notify) -> None:
        await trio.lowlevel.checkpoint()


class Life:
    """One guardian's machine: its disk, its clock, and the node that runs on them, if any."""

    def __init__(self, world: FullWorld, seat: Seat) -> None:
        self.world = world
        self.seat = seat
        self.disk = Disk(f"g{seat}", draws(world.seed, "disk", seat), trace=world.trace)
        self.clock: SimClock | None = None
        self.workers: InlineWorkers | None = None
        self.skew = 0
        self.slow_ms = 0
        self.bytes_max = 0  # 1: no room but the reserve
        self.node: Node | None = None
        self.scope: trio.CancelScope | None = None
        self.asking: dict[int, trio.CancelScope] = {}
        self.restart_after: int | None = None  # ms; 0 stays off
        self.step = ""
        self.armed_restart = 0
        self.image: dict[str, bytes] | None = None
        self.wake = trio.Event()
        self.lives = 0
        self.store: SqliteStore | None = None
        self._back = False
        self.commits = 0
        self._authored: list[str] = []

    @property
    def address(self) -> str:
        return str(self.world.federation.hosts[self.seat].introduction.body["address"])

    def cut(self, why: str, restart_after: int) -> None:
        """Cut the power now."""
        if self.scope is None:
            return
        self.restart_after = restart_after
        self._off(why)
        self.disk.cut_power()
        self.world.network.power_cut(self.address)
        self.scope.cancel()

    def _off(self, why: str) -> None:
        truth = self.world.federation.truth
        if self.node is not None or self.scope is not None:
            truth.went_off(self.seat, why)
        self.node = None
        self.world.federation.cores.pop(self.seat, None)
        for scope in list(self.asking.values()):
            scope.cancel()

    async def run(self) -> None:
        """Life after life."""
        failures = 0
        while True:
            started = self.world.kernel.now
            why = await self._live()
            failures = failures + 1 if self.world.kernel.now - started < 1 else 0
            if self.scope is not None and self.restart_after is None:
                self._off(why)
            self.scope = None
            self.world.network.power_cut(self.address)
            self.disk.cut_power()
            self._drop_store()
            self.disk.crash()
            if self.image is not None and self.restart_after is not None and self._back:
                self.disk.restore(self.image)
                self._back = False
            wait, self.restart_after = self.restart_after, None
            if failures >= HOPELESS:
                self.world.federation.truth.lost[self.seat] = "its disk is beyond help"
                wait = 0
            if wait == 0:
                self.wake = trio.Event()
                await self.wake.wait()
            else:
                await trio.sleep(RESTART_S if wait is None else wait / 1000)

    def _drop_store(self) -> None:
        # Closed while the disk is dark: a connection collected later would tidy up, and take
        # the files of the life after it away.
        if self.store is not None:
            try:
                self.store._db.close(True)
            except (PowerCut, apsw.Error):
                pass
            self.store = None

    def roll_back(self, restart_after: int) -> None:
        self._back = True
        self.cut("restored from an old copy", restart_after)

    async def _live(self) -> str:
        """Run a node until it ends; why it did."""
        why = "power cut"
        truth = self.world.federation.truth
        with trio.CancelScope() as self.scope:
            try:
                await self._run_node()
            except* PowerCut:
                self.restart_after = self.armed_restart or int(RESTART_S * 1000)
                self._off(why)
            except* (apsw.Error, StoreFailed):
                why = "its disk failed"
                truth.meet("write-failed")
            except* StoreFull:
                why = "its disk is full"
        return why

    async def _run_node(self) -> None:
        world, federation = self.world, self.world.federation
        host = federation.hosts[self.seat]
        body = host.introduction.body
        self.lives += 1
        store = SqliteStore(PATH, vfs=self.disk.vfs_name, bytes_max=self.bytes_max)
        store.transact(self._found)
        # A cut may strike after a commit had reached the platter and before anyone was told.
        known = federation.truth.durable[self.seat]
        survived = [PutEntry(at, raw) for at, raw in store.entries() if at not in known]
        federation.safety.committed(self.seat, survived)
        self.clock = SimClock(world.kernel, self.skew)
        self.workers = InlineWorkers(draws(world.seed, "workers", self.seat, self.lives))
        self.workers.slow_ms = self.slow_ms
        self.store = store
        node = Node(
            partial(federation.core, self.seat),
            store=WatchedStore(store, self._committed),
            transport=SimTransport(world.network, body["address"], body["transport"]),
            clock=self.clock,
            entropy=SimEntropy(draws(world.seed, "entropy", self.seat, self.lives)),
            workers=self.workers,
            human=Silent(),
            jobs={Stretch: partial(codes, cost=Cost.TOY)},
            software="holdfast simulated",
            step=self._step,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            self.node = node
            federation.truth.came_back(self.seat)
            try:
                await trio.sleep_forever()
            finally:
                self.commits += node.commits

    def _found(self, transaction: Any) -> None:
        if transaction.ledger.get(Table.META, ROSTER_KEY) is None:
            self.world.federation.found(transaction.apply)

    def _committed(self, entries: list[PutEntry]) -> None:
        self._authored = []
        if self.step:
            read = self.world.federation.codec.read
            self._authored = [read(e.raw).type for e in entries if e.place.seat == self.seat]
        self.world.federation.safety.committed(self.seat, entries)

    def _step(self, name: str) -> None:
        wanted, _, step = self.step.partition(".")
        if step != name:
            return
        if name == "persisted":
            core = self.world.federation.cores.get(self.seat)
            hit = core is not None and wanted in core.authored
            if core is not None:
                core.authored.clear()
        else:
            hit = wanted in self._authored
        if hit:
            self.step = ""
            before = name == "persisted"
            goal = "crash-before-commit" if before else "crash-after-commit"
            self.world.federation.truth.meet(goal)
            self.disk.cut_power()
            raise PowerCut(f"the power went at {wanted}.{name}")


class FullWorld:
    """One federation of real nodes, its network and its disks; also the stage of its people."""

    def __init__(self, scenario: Scenario, seed: int, trace: Trace, kernel: Kernel) -> None:
        self.scenario = scenario
        self.seed = seed
        self.trace = trace
        self.kernel = kernel
        self.federation = Federation(scenario, seed, 0, lambda: self.now)
        self.federation.stage = self
        self.network = Network(kernel, seed, trace, weather_of(scenario))
        self.network.tap = self.federation.safety.bytes_sent
        self.lives = [Life(self, seat) for seat in range(scenario.guardians)]
        self._places: dict[str, SimTransport] = {}
        self._asked = 0

    async def main(self, kernel: Kernel) -> None:
        async with trio.open_nursery() as nursery:
            self.nursery = nursery
            for life in self.lives:
                nursery.start_soon(life.run)
            self.federation.begin()
            await trio.sleep_until(self.scenario.end / 1000)
            self.federation.settled()
            for life in self.lives:
                life.disk.cut_power()
            nursery.cancel_scope.cancel()

    # --- the stage --------------------------------------------------------------------

    @property
    def now(self) -> int:
        return self.kernel.now_ns // 1_000_000

    async def until(self, at: int) -> None:
        await trio.sleep_until(at / 1000)

    def start(self, script: Coroutine[Any, Any, None], name: str) -> None:
        async def perform() -> None:
            await script

        self.nursery.start_soon(perform, name=name)

    async def tell(self, seat: Seat, verb: str, args: Mapping[str, Any]) -> Any:
        life = self.lives[seat]
        if life.node is None:
            raise Dark
        self._asked += 1
        number = self._asked
        with trio.move_on_after(ASK_S) as scope:
            life.asking[number] = scope
            try:
                return await life.node.ask(verb, **args)
            except RuntimeError as error:
                raise Dark from error  # a failed write, told as the node's own mistake
            finally:
                life.asking.pop(number, None)
        raise Dark

    async def exchange(
        self, place: str, seat: Seat, kind: str, fields: Mapping[str, Any], linger: int
    ) -> Sequence[Message]:
        if place not in self._places:
            self._places[place] = SimTransport(self.network, place, b"")
        heard: list[Message] = []
        with trio.move_on_after(ASK_S):
            try:
                await self._talk(self._places[place], seat, kind, fields, linger, heard)
            except (OSError, Unreachable, trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            except HoldfastError:
                pass
        for index, message in enumerate(heard):
            if message.kind == "reply":
                return [message, *heard[:index], *heard[index + 1 :]]
            if message.kind == "refusal":
                raise Refusal(str(message.fields["sentence"]), str(message.fields["kind"]))
        raise Dark

    async def _talk(
        self,
        transport: SimTransport,
        seat: Seat,
        kind: str,
        fields: Mapping[str, Any],
        linger: int,
        heard: list[Message],
    ) -> None:
        guardian = self.federation.roster.guardians[seat]
        stream = await transport.dial(guardian.address, guardian.transport, False)
        reader = FrameReader(stream)
        try:
            hello = Hello("wallet", self.federation.roster.id, "wallet").to_frame()
            await stream.send_all(hello + pack([kind, {**fields, "request": 1}]))
            with trio.CancelScope() as scope:
                while (value := await reader.read()) is not None:
                    if value[0] in ("hello", "bye"):
                        continue
                    heard.append(Message(value[0], value[1]))
                    if value[0] in ("reply", "refusal"):
                        scope.deadline = trio.current_time() + linger / 1000
        finally:
            with trio.CancelScope(shield=True):
                await stream.aclose()


class FullMachines(Machines):
    """What faults can do to real nodes."""

    def __init__(self, world: FullWorld) -> None:
        super().__init__(world.federation)
        self._world = world

    def _addresses(self, a: Seat, b: Seat) -> tuple[str, str]:
        return self._world.lives[a].address, self._world.lives[b].address

    def at(self, ms: int, fn: Callable[[], None]) -> None:
        self._world.kernel.at(ms / 1000, fn)

    def crash(self, seat: Seat, restart_after: int, why: str = "power cut") -> None:
        self._world.lives[seat].cut(why, restart_after)

    def start(self, seat: Seat) -> None:
        self._world.lives[seat].wake.set()

    def arm(self, seat: Seat, write: int, step: str, restart_after: int) -> None:
        life = self._world.lives[seat]
        life.armed_restart = restart_after
        life.disk.cut_at = life.disk.ops + write if write else None
        life.step = step

    def cut(self, source: Seat, target: Seat) -> None:
        self._world.network.cut(*self._addresses(source, target), one_way=True)

    def heal(self, source: Seat, target: Seat) -> None:
        self._world.network.mend(*self._addresses(source, target))

    def reset(self, a: Seat, b: Seat) -> None:
        self._world.network.reset(*self._addresses(a, b))

    def clog(self, a: Seat, b: Seat, ms: int) -> None:
        self._world.network.clog(*self._addresses(a, b), ms / 1000)

    def skew(self, seat: Seat, ms: int) -> None:
        life = self._world.lives[seat]
        life.skew = ms
        if life.clock is not None and life.clock.skew_ms != ms:
            life.clock.set_skew(ms)

    def fail_writes(self, seat: Seat, times: int) -> None:
        self._world.lives[seat].disk.fail_next(times)

    def fill(self, seat: Seat, full: bool) -> None:
        life = self._world.lives[seat]
        life.bytes_max = int(full)
        if life.store is not None:
            life.store._bytes_max = life.bytes_max

    def exhaust(self, seat: Seat, full: bool) -> None:
        disk = self._world.lives[seat].disk
        disk.capacity_bytes = disk.used() if full else None

    def lie(self, seat: Seat, chance: int) -> None:
        self._world.lives[seat].disk.lies = chance / 1_000_000

    def slow_disk(self, seat: Seat, ms: int) -> None:
        life = self._world.lives[seat]
        life.slow_ms = ms
        if life.workers is not None:
            life.workers.slow_ms = ms

    def rot(self, seat: Seat) -> None:
        life = self._world.lives[seat]
        store = life.store
        if life.node is None or store is None:
            return
        rows = store.read(lambda ledger: list(ledger.scan(Table.DEAL)))
        store.checkpoint()
        for _, raw in rows:
            box = _box(raw)
            life.disk.damage(PATH, box[-TAIL_BYTES:])
        life.cut("restarted", 1_000)  # so that nothing is served from memory

    def snapshot(self, seat: Seat) -> None:
        self._world.lives[seat].image = self._world.lives[seat].disk.image()

    def roll_back(self, seat: Seat, restart_after: int) -> None:
        self._world.lives[seat].roll_back(restart_after)


def _box(raw: bytes) -> bytes:
    from protocol.encoding import decode

    return bytes(decode(raw, limit=32 * 1024)["box"])


def weather_of(scenario: Scenario) -> Weather:
    """A scenario's network, in the units of connections."""
    network = scenario.network
    median, sigma = network["latency"]
    return Weather(
        latency_median=median / 1000,
        latency_sigma=sigma / 1_000_000,
        jitter=network["jitter"] / 1_000_000,
        split=network["split"] / 1_000_000,
        reset=network["reset"] / 1_000_000,
        loss=network["loss"] / 1_000_000,
        straggler=network["straggler"] / 1_000_000,
        straggler_takes=network["straggler-takes"] / 1000,
        bandwidth=network["bandwidth"],
    )


@contextmanager
def _quiet() -> Any:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        yield
    finally:
        structlog.configure(**before)


def simulate(scenario: Scenario, seed: int, keep: int = 0) -> Ended:
    """Run the federation of a scenario to its end."""
    trace, kernel = Trace(keep), Kernel()
    made: list[tuple[FullWorld, Any]] = []

    async def main(kernel: Kernel) -> None:
        world = FullWorld(scenario, seed, trace, kernel)
        made.append((world, None))
        enrol(world.federation, 1)
        atoms = schedule(FullMachines(world), scenario, seed)
        made[0] = (world, atoms)
        hook(scenario)(world)
        await world.main(kernel)

    try:
        with _quiet(), silent_power_cuts():
            run(main, seed=seed, kernel=kernel)
    finally:
        for world, _ in made:
            for life in world.lives:
                life.disk.close()
    world, atoms = made[0]
    return Ended([world.federation], atoms, trace, kernel.events, False)
