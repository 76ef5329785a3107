"""The driver: nothing before it is durable, one bad event harms no other, people come first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from node.driver import BATCH_MAX, Driver
from node.ports import StoreFailed, StoreFull
from node.store import SqliteStore
from protocol.contract import (
    Answer,
    Change,
    Changed,
    Command,
    Effect,
    Event,
    Ledger,
    LinkDown,
    LinkUp,
    Message,
    Moment,
    Persist,
    Place,
    PutEntry,
    PutRow,
    Rebuild,
    Received,
    Seat,
    Send,
    Table,
    TimerFired,
    Told,
)
from protocol.errors import NotYet

T = TypeVar("T")
A = TypeVar("A")


class Script:
    """A core that does what its commands say, and writes down what it was given."""

    def __init__(self, ledger: Ledger, history: list[Any]) -> None:
        self.ledger = ledger
        self.history = history
        history.append("new core")

    def resume(self, at: Moment) -> Sequence[Effect]:
        return [Changed("resumed", b"".join(key for key, _ in self.ledger.scan(Table.CASE)))]

    def handle(self, at: Moment, event: Event) -> Sequence[Effect]:
        self.history.append(event)
        self.history.append(at)
        if isinstance(event, Told):
            if event.command.verb == "boom":
                raise KeyError("poison")
            return list(event.command.args.get("effects", ()))
        return []

    @staticmethod
    def events(history: list[Any]) -> list[Any]:
        return [each for each in history if not isinstance(each, Moment)]


class Recorder:
    """The world outside, which only remembers."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.seats: dict[int, Seat] = {}

    def restarted(self) -> None:
        self.seen.append("restarted")

    def seat_of(self, link: int) -> Seat | None:
        return self.seats.get(link)

    def committed(self, entries: Sequence[PutEntry]) -> None:
        self.seen += [entry.place.seq for entry in entries]

    def act(self, effect: Effect) -> None:
        self.seen.append(effect)

    def failed(self, event: Event, error: Exception) -> None:
        self.seen.append((event, type(error)))

    def step(self, name: str) -> None:
        self.seen.append(name)


class Clock:
    def __init__(self) -> None:
        self.times: Iterator[int] = iter(range(1, 10**6))

    def now(self) -> int:
        return next(self.times)

    async def sleep_until(self, at: int) -> None:
        raise AssertionError("a driver does not sleep")


class Entropy:
    drawn = 0

    def draw(self, size: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(size, "big")


class Inline:
    """Workers that take virtual time before the work, as threads do."""

    async def store(self, work: Callable[[], T]) -> T:
        await trio.sleep(0.001)
        return work()

    async def each(self, work: Callable[[Sequence[A]], list[T]], items: Sequence[A]) -> list[T]:
        return work(items)

    async def compute(self, work: Callable[[], T]) -> T:
        return work()


class PowerCut(BaseException):
    """What a crash test raises at a step: nobody may catch it."""


class Bench:
    """A driver with a scripted core over a real store."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(str(path / "guardian.db"))
        self.world = Recorder()
        self.history: list[Any] = []
        self.clock = Clock()
        self.step: Callable[[str], None] = self.world.step
        self.driver = Driver(
            lambda ledger: Script(ledger, self.history),
            self.store,
            self.clock,
            Entropy(),
            Inline(),
            self.world,
            lambda name: self.step(name),
        )

    @asynccontextmanager
    async def running(self) -> Any:
        async with trio.open_nursery() as nursery:
            await self.driver.start()
            self.world.seen.clear()
            self.history.clear()
            nursery.start_soon(self.driver.run)
            yield self
            await self.driver.drained()
            nursery.cancel_scope.cancel()

    def tell(self, ticket: int, *effects: Effect, verb: str = "do") -> Told:
        told = Told(ticket, Command(verb, {"effects": effects}))
        self.driver.put_first(told)
        return told

    def rows(self) -> list[bytes]:
        return self.store.read(lambda ledger: [key for key, _ in ledger.scan(Table.CASE)])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def entry(seq: int) -> Persist:
    return Persist(PutEntry(Place(1, 0, seq), b"%d" % seq))


def row(key: bytes) -> Persist:
    return Persist(PutRow(Table.CASE, key, b"x"))


def news(link: int = 1) -> Send:
    return Send(link, Message("news", {}))


def told_in(history: list[Any]) -> list[int]:
    return [event.ticket for event in history if isinstance(event, Told)]


async def test_no_effect_before_commit(bench: Bench, autojump_clock: Any) -> None:
    """What is sent was durable first, even when the core says send before it says write."""
    async with bench.running():
        bench.tell(1, news(), row(b"a"), entry(1), Answer(1, "done"))
        await bench.driver.drained()

    assert bench.world.seen == [
        "persisted",
        1,
        "committed",
        news(),
        Answer(1, "done"),
        "acted",
    ]
    assert bench.rows() == [b"a"]


async def test_batch_is_one_transaction(bench: Bench, autojump_clock: Any) -> None:
    """What waits together is written together, and performed in the order in which it came."""
    async with bench.running():
        for ticket in range(50):
            bench.tell(ticket, entry(ticket + 1), Answer(ticket))
        await bench.driver.drained()

    assert bench.driver.commits == 1
    assert bench.driver.events == 50
    assert [e.ticket for e in bench.world.seen if isinstance(e, Answer)] == list(range(50))


async def test_poison_is_isolated(bench: Bench, autojump_clock: Any) -> None:
    """One event that fails is given up; those beside it happen, and happen once."""
    async with bench.running():
        bench.tell(1, entry(1), news(1), Answer(1))
        bench.tell(2, verb="boom")
        bench.tell(3, row(b"a"), entry(1))  # an entry that stands there already
        bench.tell(4, entry(2), news(4), Answer(4))
        await bench.driver.drained()

    done = [e for e in bench.world.seen if isinstance(e, (Answer, Send, tuple, int))]
    assert [e[0].ticket for e in done if isinstance(e, tuple)] == [2, 3]
    assert [e[1] for e in done if isinstance(e, tuple)] == [KeyError, ValueError]
    rest = [e for e in done if not isinstance(e, tuple)]
    assert rest == [1, news(1), Answer(1), 2, news(4), Answer(4)]
    assert bench.rows() == []


async def test_new_core_knows_the_links(bench: Bench, autojump_clock: Any) -> None:
    """After a failure the new core is told of every link the former one knew, and no other."""
    bench.world.seats = {1: 5, 2: 6, 3: 7}
    async with bench.running():
        bench.driver.put(LinkUp(1, 5))
        bench.driver.put(LinkUp(2, 6))
        bench.driver.put(LinkDown(2))
        await bench.driver.drained()
        bench.history.clear()
        bench.driver.put(Received(1, Message("x", {})))
        bench.driver.put(LinkUp(3, 7))
        bench.tell(9, verb="boom")
        await bench.driver.drained()

    last = len(bench.history) - 1 - bench.history[::-1].index("new core")
    assert Script.events(bench.history[last:]) == [
        "new core",
        LinkUp(1, 5),
        Received(1, Message("x", {})),
        LinkUp(3, 7),
    ]


async def test_rebuild_puts_off_the_rest(bench: Bench, autojump_clock: Any) -> None:
    """A core that asks to be replaced decides nothing after it."""
    async with bench.running():
        bench.tell(1, row(b"a"), Rebuild(), Answer(1))
        bench.tell(2, row(b"b"), Answer(2))
        await bench.driver.drained()

    assert Script.events(bench.history)[1] == "new core"
    assert told_in(bench.history) == [1, 2]
    # The new core resumed from what the former one wrote.
    assert Changed("resumed", b"a") in bench.world.seen
    assert bench.rows() == [b"a", b"b"]


async def test_forgotten_command_is_answered(bench: Bench, autojump_clock: Any) -> None:
    """Whoever waits for an answer that only the former core could give is told to ask again."""
    async with bench.running():
        bench.tell(1)
        bench.tell(2, Answer(2))
        await bench.driver.drained()
        await bench.driver.rebuild()

    answers = [each for each in bench.world.seen if isinstance(each, Answer)]
    assert [each.ticket for each in answers] == [2, 1]
    assert isinstance(answers[1].refusal, NotYet)


@pytest.mark.parametrize(("step", "kept"), [("persisted", []), ("committed", [b"a"])])
async def test_power_cut(
    bench: Bench, step: str, kept: list[bytes], autojump_clock: Any, tmp_path: Path
) -> None:
    """A crash before the commit leaves nothing, one after it everything; neither sends twice."""

    def cut(name: str) -> None:
        if name == step:
            raise PowerCut

    with pytest.RaisesGroup(PowerCut):
        async with bench.running():
            bench.step = cut
            bench.tell(1, row(b"a"), news())
            await trio.sleep(1)

    assert news() not in bench.world.seen
    bench.store.close()
    again = Bench(tmp_path)
    await again.driver.start()
    assert again.world.seen.count(Changed("resumed", b"".join(kept))) == 1


async def test_people_come_first(bench: Bench, autojump_clock: Any) -> None:
    """A person does not wait behind gossip that came before."""
    async with bench.running():
        for number in range(3 * BATCH_MAX):
            bench.driver.put(Received(number, Message("x", {})))
        bench.driver.put_first(TimerFired("due"))
        bench.tell(1)
        await bench.driver.drained()

    first = Script.events(bench.history)[:2]
    assert [type(each) for each in first] == [TimerFired, Told]
    assert bench.driver.commits == 4


async def test_batches_are_bounded_by_weight(bench: Bench, autojump_clock: Any) -> None:
    """Few events with many statements fill a batch too, and give back their credit at once."""
    given: list[int] = []
    async with bench.running():
        for number in range(8):
            bench.driver.put(
                Received(number, Message("x", {})), BATCH_MAX // 4, lambda: given.append(1)
            )
        await bench.driver.drained()

    assert bench.driver.commits == 2
    assert len(given) == 8


async def test_moments(bench: Bench, autojump_clock: Any) -> None:
    """Time never goes back for a core, whatever the clock does, and no seed comes twice."""
    bench.clock.times = iter([5, 7, 3, 9, 1])
    async with bench.running():
        for ticket in range(4):
            bench.tell(ticket)
        await bench.driver.drained()

    moments = [each for each in bench.history if isinstance(each, Moment)]
    assert [each.now for each in moments] == [7, 7, 9, 9]
    assert len({each.seed for each in moments}) == 4


class Failing(SqliteStore):
    """A disk on which transactions fail, a few times or always."""

    error: Exception = StoreFailed("the disk failed")
    failures = 0

    def transact(self, work: Callable[[SqliteStore], T]) -> T:
        if self.failures:
            self.failures -= 1
            raise self.error
        return super().transact(work)


async def test_disk_that_recovers(bench: Bench, autojump_clock: Any) -> None:
    """A commit that failed once is tried again, and nothing is lost."""
    failing = Failing(str(bench.store._path) + "2")
    bench.driver._store = failing
    async with bench.running():
        failing.failures = 1
        bench.tell(1, entry(1), Answer(1))
        await bench.driver.drained()

    assert Answer(1) in bench.world.seen
    assert failing.heads() == [Place(1, 0, 1)]


async def test_disk_that_is_dead(bench: Bench, autojump_clock: Any) -> None:
    """A node whose disk does not work stops rather than decide what it cannot remember."""
    failing = Failing(str(bench.store._path) + "2")
    bench.driver._store = failing
    with pytest.RaisesGroup(StoreFailed):
        async with bench.running():
            failing.failures = 10**6
            bench.tell(1, Answer(1))
            await trio.sleep(1)

    assert Answer(1) not in bench.world.seen


class FullStore(SqliteStore):
    """A store on a disk with no room for a deal."""

    def apply(self, change: Change) -> None:
        if isinstance(change, PutRow) and change.table is Table.DEAL:
            raise StoreFull("there is no room left")
        super().apply(change)


async def test_full_disk_gives_up_one_event(tmp_path: Path, autojump_clock: Any) -> None:
    """With a full disk a deposit is given up, and the votes beside it are written."""
    bench = Bench(tmp_path)
    bench.driver._store = FullStore(str(tmp_path / "full.db"))
    async with bench.running():
        bench.tell(1, entry(1), Answer(1))
        deposit = bench.tell(2, Persist(PutRow(Table.DEAL, b"d", b"x")), Answer(2))
        bench.tell(3, entry(2), Answer(3))
        await bench.driver.drained()

    assert (deposit, StoreFull) in bench.world.seen
    answered = [each.ticket for each in bench.world.seen if isinstance(each, Answer)]
    assert answered == [1, 3]
