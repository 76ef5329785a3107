"""Links between nodes with a toy core: what goes over them, what ends them, and what they bound."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from node.dialer import RETRY_MAX_S
from node.framing import FrameReader, pack
from node.links import CREDIT_STATEMENTS, SILENCE_S, STRANGERS_MAX, WALLET_BURST
from node.machine import FEDERATION, Node
from node.outbox import ENTRIES_BYTES_MAX, MESSAGES_MAX, Ranges
from node.ports import Fragment, Handler, Transaction, Trusted
from node.store import SqliteStore
from node.timers import Timers
from protocol import fragments
from protocol.contract import (
    Answer,
    Core,
    Deliver,
    Dial,
    Done,
    DropLink,
    Effect,
    Event,
    Heard,
    Ledger,
    LinkDown,
    LinkUp,
    Message,
    Moment,
    Notify,
    Peer,
    Persist,
    Place,
    PutEntry,
    PutRow,
    Receive,
    Received,
    Run,
    Send,
    SetTimer,
    Stream,
    Stretch,
    Table,
    TimerFired,
    Told,
    Trust,
    Verified,
)
from protocol.errors import NotYet, Refused
from protocol.keys import SigningKey
from protocol.statements import NOTHING, Codec, place_of

T = TypeVar("T")
A = TypeVar("A")

HOME = b"f" * 32  # the federation
KEYS = [SigningKey(bytes([seat]) * 32) for seat in range(3)]
VERSION = b"v" * 32


def key_of(seat: int) -> bytes:
    return b"transport %d" % seat + bytes(21)


def sign(seat: int, seq: int, at: int = 0) -> Verified:
    place = {"epoch": 1, "seat": seat, "incarnation": 0, "seq": seq, "prev": NOTHING}
    return Codec(HOME).sign(KEYS[seat], "admit", {**place, "member": bytes(32), "at": at})


class Toy:
    """A core that gossips what it is told to write, and otherwise does as it is told."""

    def __init__(self, seat: int, ledger: Ledger, peers: Sequence[int], events: list[Event]):
        self.seat = seat
        self.ledger = ledger
        self.peers = peers
        self.events = events
        self.links: list[int] = []
        self.heads = dict.fromkeys(range(3), 0)
        for place, _ in ledger.entries():
            self.heads[place.seat] = place.seq

    def resume(self, at: Moment) -> Sequence[Effect]:
        trust = Trust(tuple((seat, key_of(seat), b"") for seat in range(3)))
        return [trust, Dial(tuple(Peer(seat, f"n{seat}", key_of(seat)) for seat in self.peers))]

    def handle(self, at: Moment, event: Event) -> Sequence[Effect]:
        self.events.append(event)
        match event:
            case LinkUp(link, seat) if seat is not None:
                self.links.append(link)
                return [
                    Stream(link, author, 0, 1, head) for author, head in self.heads.items() if head
                ]
            case LinkDown(link) if link in self.links:
                self.links.remove(link)
            case Heard(_, entries):
                return [each for entry in entries for each in self._take(entry)]
            case Told(ticket, command) if command.verb == "write":
                seq = self.heads[self.seat] + 1
                return [*self._take(sign(self.seat, seq)), Answer(ticket, seq)]
            case Told(ticket, command) if command.verb == "refuse":
                return [Answer(ticket, refusal=Refused("no"))]
            case Told(ticket, command):
                return [*command.args["effects"], Answer(ticket, "done")]
        return []

    def _take(self, entry: Verified) -> list[Effect]:
        place = place_of(entry)
        if place.seq != self.heads[place.seat] + 1:
            return []
        self.heads[place.seat] = place.seq
        push = [Stream(link, place.seat, 0, place.seq, place.seq) for link in self.links]
        return [Persist(PutEntry(place, entry.raw)), *push]


class Clock:
    """The virtual clock of the test, as milliseconds."""

    def now(self) -> int:
        return round(trio.current_time() * 1000)

    async def sleep_until(self, at: int) -> None:
        await trio.sleep(max(0, at - self.now()) / 1000)


class Entropy:
    drawn = 0

    def draw(self, size: int) -> bytes:
        self.drawn += 1
        return (self.drawn * 37 % 251).to_bytes(size, "big")


class Inline:
    async def store(self, work: Callable[[], T]) -> T:
        await trio.sleep(0.001)
        return work()

    async def each(self, work: Callable[[Sequence[A]], list[T]], items: Sequence[A]) -> list[T]:
        await trio.sleep(0.001)
        return work(items)

    async def compute(self, work: Callable[[], T]) -> T:
        await trio.sleep(0.1)
        return work()


class People:
    def __init__(self) -> None:
        self.rung: list[str] = []

    def changed(self, topic: str, id: bytes) -> None:
        pass

    async def notify(self, notice: Notify) -> None:
        self.rung.append(notice.notice)


class Wire:
    """Where nodes listen, by address; streams between them are in memory."""

    def __init__(self) -> None:
        self.handlers: dict[str, tuple[Handler, trio.Nursery]] = {}

    def reach(self, address: str, shown: bytes | None, stream: trio.abc.Stream) -> None:
        handler, nursery = self.handlers[address]
        nursery.start_soon(handler, stream, shown)


class Port:
    """The transport of one node on a wire."""

    def __init__(self, wire: Wire, seat: int) -> None:
        self.wire = wire
        self.seat = seat
        self.dialled: list[float] = []
        self.trusted: list[bytes] = []

    async def dial(self, address: str, key: bytes, present: bool) -> trio.abc.Stream:
        self.dialled.append(trio.current_time())
        await trio.sleep(0.01)
        if address not in self.wire.handlers:
            raise OSError("nobody is there")
        ours, theirs = trio.testing.memory_stream_pair()
        self.wire.reach(address, key_of(self.seat) if present else None, theirs)
        return ours

    async def serve(self, handler: Handler, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            self.wire.handlers[f"n{self.seat}"] = (handler, nursery)
            task_status.started(f"n{self.seat}")
            try:
                await trio.sleep_forever()
            finally:
                del self.wire.handlers[f"n{self.seat}"]

    def retrust(self, trusted: Trusted) -> None:
        self.trusted = [key for key, _ in trusted]


class Counting(Codec):
    """Counts signatures checked."""

    checked = 0

    def verify(self, raw: bytes, *types: str) -> Verified:
        self.checked += 1
        return super().verify(raw, *types)


class Host:
    """One node on the wire, and what its core saw."""

    def __init__(self, wire: Wire, seat: int, path: Path, peers: Sequence[int] = ()) -> None:
        self.events: list[Event] = []
        self.people = People()
        self.port = Port(wire, seat)
        self.codec = Counting(HOME)
        self.path = str(path / f"{seat}.db")
        self.store = SqliteStore(self.path)
        self.store.transact(lambda t: t.apply(PutRow(Table.META, FEDERATION, HOME)))
        self.node = Node(
            lambda ledger: self.make(seat, ledger, peers),
            store=self.store,
            transport=self.port,
            clock=Clock(),
            entropy=Entropy(),
            workers=Inline(),
            human=self.people,
            jobs={Stretch: lambda job: [(claim, "1") for claim in job.claims]},
            software="holdfast test",
            codec=lambda federation: self.codec,
        )

    def make(self, seat: int, ledger: Ledger, peers: Sequence[int]) -> Core:
        return Toy(seat, ledger, peers, self.events)

    def of(self, *kinds: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]

    def raws(self) -> list[bytes]:
        return [raw for _, raw in self.store.read(lambda ledger: list(ledger.entries()))]

    async def do(self, *effects: Effect) -> None:
        await self.node.ask("do", effects=effects)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@asynccontextmanager
async def running(*hosts: Host) -> AsyncIterator[trio.Nursery]:
    async with trio.open_nursery() as nursery:
        for host in hosts:
            await nursery.start(host.node.run)
        yield nursery
        nursery.cancel_scope.cancel()


class Stranger:
    """The other end of a link, played by the test frame by frame."""

    def __init__(self, wire: Wire, host: Host, seat: int | None, lockstep: bool = False) -> None:
        make: Any = (
            trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
        )
        self.stream, theirs = make()
        self.reader = FrameReader(self.stream)
        wire.reach(f"n{host.port.seat}", None if seat is None else key_of(seat), theirs)

    async def send(self, kind: str, **fields: Any) -> None:
        await self.stream.send_all(pack([kind, fields]))

    async def read(self) -> Any:
        return await self.reader.read()

    async def hello(self, role: str = "guardian", **changed: Any) -> None:
        hello = {"software": "x", "protocol": 1, "federation": HOME, "role": role}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.read)
            await self.send("hello", **(hello | changed))

    async def entries(self, *entries: Verified, first: int = 1, check: bool = False) -> None:
        raws = [entry.raw for entry in entries]
        await self.send("entries", seat=1, incarnation=0, first=first, raws=raws, check=check)

    async def reason(self) -> str:
        """Read to the goodbye."""
        while frame := await self.read():
            if frame[0] == "bye":
                return str(frame[1]["reason"])
        raise AssertionError("the link ended without a word")


# --- gossip ------------------------------------------------------------------------------


async def test_entries_reach_a_neighbour(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """What was written before a link stood and after it arrives, in order and once."""
    old, new = Host(wire, 0, tmp_path), Host(wire, 1, tmp_path, peers=[0])
    async with running(old) as nursery:
        for _ in range(3):
            await old.node.ask("write")
        await nursery.start(new.node.run)
        await trio.sleep(1)
        for _ in range(3):
            await old.node.ask("write")
        await trio.sleep(1)

        assert new.raws() == old.raws()
        assert len(new.raws()) == 6
        assert new.codec.checked == 6


async def test_lagging_link_reads_the_store(
    wire: Wire, tmp_path: Path, autojump_clock: Any
) -> None:
    """A neighbour that was away for long gets what no memory holds any more."""
    old = Host(wire, 0, tmp_path)

    def fill(transaction: Transaction) -> None:
        for seq in range(1, 601):
            transaction.apply(PutEntry(Place(0, 0, seq), sign(0, seq).raw))

    old.store.transact(fill)
    new = Host(wire, 1, tmp_path, peers=[0])
    async with running(old, new):
        await trio.sleep(2)

        assert new.raws() == old.raws()


async def test_known_entries_cost_nothing(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """Entries already held are dropped undecoded, unless a comparison is asked for."""
    host = Host(wire, 0, tmp_path)
    entries = [sign(1, seq) for seq in (1, 2, 3)]
    async with running(host):
        peer = Stranger(wire, host, 1)
        await peer.hello()
        await peer.entries(*entries[:2])
        await trio.sleep(1)
        await peer.entries(*entries)
        await trio.sleep(1)
        assert host.codec.checked == 3
        assert [len(event.entries) for event in host.of(Heard)] == [2, 1]

        await peer.entries(*entries, check=True)
        await trio.sleep(1)
        assert host.codec.checked == 6
        assert host.of(Heard)[-1].check


@pytest.mark.parametrize("fault", ["signature", "place", "shape"])
async def test_bad_entry_ends_the_link(
    wire: Wire, tmp_path: Path, fault: str, autojump_clock: Any
) -> None:
    """A neighbour that passes on what it cannot have verified loses its link; the good stays."""
    host = Host(wire, 0, tmp_path)
    bad = sign(1, 2 if fault != "place" else 7)
    raw = bad.raw[:-1] + bytes([bad.raw[-1] ^ 1]) if fault == "signature" else bad.raw
    raw = b"junk" if fault == "shape" else raw
    async with running(host):
        peer = Stranger(wire, host, 1)
        await peer.hello()
        raws = [sign(1, 1).raw, raw, sign(1, 3).raw]
        await peer.send("entries", seat=1, incarnation=0, first=1, raws=raws, check=False)

        assert await peer.reason()
        await trio.sleep(5)
        assert [[each.body["seq"] for each in heard.entries] for heard in host.of(Heard)] == [[1]]
        assert [type(event) for event in host.events] == [LinkUp, Heard, LinkDown]


async def test_slow_neighbour_costs_numbers(
    wire: Wire, tmp_path: Path, autojump_clock: Any
) -> None:
    """Whoever does not read gets, when it reads at last, everything in few large frames."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        peer = Stranger(wire, host, 1, lockstep=True)
        await peer.hello()
        await trio.sleep(1)
        for _ in range(500):
            await host.node.ask("write")

        got: list[bytes] = []
        sizes: list[int] = []
        while len(got) < 500:
            kind, fields = await peer.read()
            assert kind == "entries"
            assert fields["first"] == len(got) + 1
            got += fields["raws"]
            sizes.append(sum(map(len, fields["raws"])))
        assert got == host.raws()
        assert max(sizes) <= ENTRIES_BYTES_MAX
        assert len(sizes) <= 4


async def test_credit_bounds_input(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """A flood waits in its own stream: the core is given one credit's worth at a time."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        peer = Stranger(wire, host, 1)
        await peer.hello()
        await peer.entries(*(sign(1, seq) for seq in range(1, 1001)))
        await trio.sleep(2)

        assert max(len(event.entries) for event in host.of(Heard)) == CREDIT_STATEMENTS
        assert len(host.raws()) == 1000


# --- greeting and ending -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"federation": b"g" * 32}, "another federation"),
        ({"protocol": 2}, "version 1 of the protocol"),
        ({"role": "admin"}, "greeting"),
    ],
)
async def test_greeting_must_fit(
    wire: Wire, tmp_path: Path, changed: dict[str, Any], words: str, autojump_clock: Any
) -> None:
    """Who is not meant to be here hears why, and the core hears nothing."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        peer = Stranger(wire, host, 1)
        await peer.hello(**changed)

        assert words in await peer.reason()
        await trio.sleep(1)
        assert host.events == []


async def test_wallet_sends_no_entries(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """A wallet is a link without a seat, whatever it says of itself, and has no log."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        peer = Stranger(wire, host, None)
        await peer.hello(role="guardian")
        await peer.send("claim", request=1)
        await peer.entries(sign(1, 1))

        assert "only guardians" in await peer.reason()
        await trio.sleep(5)
        assert host.events == [
            LinkUp(1, None),
            Received(1, Message("claim", {"request": 1})),
            LinkDown(1),
        ]


async def test_silence_ends_a_link(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """A far end that says nothing for long is not there any more."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        peer = Stranger(wire, host, 1)
        await peer.hello()
        await trio.sleep(SILENCE_S - 1)
        await peer.send("ping")
        await trio.sleep(SILENCE_S - 1)
        assert not host.of(LinkDown)

        assert "nothing came" in await peer.reason()


async def test_mute_caller_is_hung_up_on(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """Whoever connects and says nothing does not hold a place for long."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        peer = Stranger(wire, host, None)
        started = trio.current_time()
        while await peer.read():
            pass
        assert trio.current_time() - started < 15
        assert host.events == []


async def test_core_drops_a_link(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """What was sent before a link is dropped still arrives, then the reason."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        peer = Stranger(wire, host, 1)
        await peer.hello()
        await trio.sleep(1)
        await host.do(Send(1, Message("last", {})), DropLink(1, "enough", their_fault=False))

        assert await peer.read() == ["last", {}]
        assert await peer.read() == ["bye", {"reason": "enough"}]
        assert await peer.read() is None


async def test_far_end_that_takes_nothing(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """Messages are not piled up without end for somebody who does not read them."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        peer = Stranger(wire, host, 1, lockstep=True)
        await peer.hello()
        await trio.sleep(1)
        await host.do(*(Send(1, Message("x", {})) for _ in range(MESSAGES_MAX + 2)))
        await trio.sleep(5)

        assert host.of(LinkDown) == [LinkDown(1)]


async def test_wallets_are_slowed_down(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """A wallet that floods waits; its requests are not lost."""
    host = Host(wire, 0, tmp_path)
    number = int(WALLET_BURST) + 100
    async with running(host):
        peer = Stranger(wire, host, None)
        await peer.hello(role="wallet")
        for request in range(number):
            await peer.send("seen", request=request)
        await trio.sleep(1)
        assert WALLET_BURST <= len(host.of(Received)) < number
        await trio.sleep(10)
        assert len(host.of(Received)) == number


async def test_wallets_are_limited(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """Beyond a number of wallets, the next is asked to come back; guardians still get in."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        for _ in range(STRANGERS_MAX):
            await Stranger(wire, host, None).hello(role="wallet")
        await trio.sleep(1)
        late = Stranger(wire, host, None)
        await late.hello(role="wallet")
        assert "too many wallets" in await late.reason()

        await Stranger(wire, host, 1).hello()
        await trio.sleep(1)
        assert host.events[-1] == LinkUp(STRANGERS_MAX + 1, 1)


async def test_third_link_replaces_the_oldest(
    wire: Wire, tmp_path: Path, autojump_clock: Any
) -> None:
    """A neighbour that comes back is let in before its dead links are noticed."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        peers = [Stranger(wire, host, 1) for _ in range(3)]
        for peer in peers:
            await peer.hello()
            await trio.sleep(1)

        assert "newer" in await peers[0].reason()
        assert host.of(LinkDown) == [LinkDown(1)]


async def test_roster_change_ends_links(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """A guardian who has left the roster loses the link, one who joined connects anew."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        peer = Stranger(wire, host, 1)
        await peer.hello()
        await trio.sleep(1)
        await host.do(Trust(((0, key_of(0), b""), (2, key_of(2), b""))))

        assert "roster" in await peer.reason()
        assert host.port.trusted == [key_of(0), key_of(2)]


# --- fragments ---------------------------------------------------------------------------

LEAVES = [bytes([number]) * 1000 for number in range(11)]
ROOT = fragments.root(LEAVES)


def wanted(count: int = len(LEAVES), root: bytes = ROOT) -> Receive:
    return Receive("deposit", 1, VERSION, root, count)


async def send_leaf(peer: Stranger, index: int, data: bytes = b"") -> None:
    path = fragments.path(LEAVES, index)
    leaf = data or LEAVES[index]
    await peer.send("fragment", request=1, index=index, data=leaf, path=path)


async def test_fragments_come_in_and_go_out(
    wire: Wire, tmp_path: Path, autojump_clock: Any
) -> None:
    """A version's fragments are kept as they come, and come back with their proofs."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        peer = Stranger(wire, host, None)
        await peer.hello(role="wallet")
        await trio.sleep(1)
        await host.do(wanted())
        for index in range(len(LEAVES)):
            await send_leaf(peer, index)
        await trio.sleep(1)
        assert host.of(Done) == [Done("deposit", result=True)]

        await host.do(Deliver(1, VERSION, request=7))
        for index, leaf in enumerate(LEAVES):
            kind, fields = await peer.read()
            assert (kind, fields["request"], fields["index"]) == ("fragment", 7, index)
            assert fields["data"] == leaf
            fragments.check_path(leaf, index, fields["count"], fields["path"], ROOT)


async def test_wrong_fragment_is_not_kept(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """A damaged fragment fails the transfer before a byte of it is kept; its rest is ignored."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        peer = Stranger(wire, host, None)
        await peer.hello(role="wallet")
        await trio.sleep(1)
        await host.do(wanted())
        for index in range(len(LEAVES)):
            await send_leaf(peer, index, b"other" if index == 8 else b"")
        await trio.sleep(1)

        (done,) = host.of(Done)
        assert "Fragment 9 of 11" in done.error
        assert host.store.fragment_count(VERSION) == 8
        await host.do(Send(1, Message("still here", {})))
        assert await peer.read() == ["still here", {}]


async def test_transfer_ends_with_its_link(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """A core never waits for fragments that cannot come any more."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        peer = Stranger(wire, host, None)
        await peer.hello(role="wallet")
        await trio.sleep(1)
        await host.do(wanted())
        await send_leaf(peer, 0)
        await peer.stream.aclose()
        await trio.sleep(1)
        await host.do(wanted())
        await trio.sleep(1)

        assert ["broke" in done.error for done in host.of(Done)] == [True, False]
        assert host.of(LinkDown, Done)[0].error is not None


async def test_nothing_to_deliver(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """Whoever asks for fragments that are not held hears so."""
    host = Host(wire, 0, tmp_path)
    host.store.put_fragments(VERSION, [Fragment(0, b"x", ())])
    async with running(host):
        peer = Stranger(wire, host, None)
        await peer.hello(role="wallet")
        await trio.sleep(1)
        await host.do(Deliver(1, b"w" * 32, request=1))

        assert (await peer.read())[1]["count"] == 0


# --- dialling ----------------------------------------------------------------------------


async def test_dialling_goes_on(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """A neighbour that is away is dialled ever more rarely, named as missing, and found."""
    host, other = Host(wire, 0, tmp_path, peers=[1]), Host(wire, 1, tmp_path)
    async with running(host) as nursery:
        await trio.sleep(300)
        (missing,) = host.node.missing()
        assert (missing.seat, missing.reason) == (1, "nobody is there")
        assert missing.since < 1000
        assert 10 < len(host.port.dialled) < 50

        await nursery.start(other.node.run)
        await trio.sleep(1.5 * RETRY_MAX_S)
        assert host.node.missing() == []
        assert len(host.of(LinkUp)) == 1
        tries = len(host.port.dialled)
        await trio.sleep(30)
        assert len(host.port.dialled) == tries


async def test_neighbour_no_longer_named(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """A core that stops naming a neighbour hears of the end of the link, and it stays so."""
    host, other = Host(wire, 0, tmp_path, peers=[1]), Host(wire, 1, tmp_path)
    async with running(other, host):
        await trio.sleep(1)
        await host.do(Dial(()))
        await trio.sleep(100)

        assert [type(event) for event in host.of(LinkUp, LinkDown)] == [LinkUp, LinkDown]
        assert len(host.port.dialled) == 1
        assert other.of(LinkDown)


async def test_patience(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """Of two that can dial, the patient one leaves it to the other."""
    host, other = Host(wire, 0, tmp_path), Host(wire, 1, tmp_path)
    async with running(host, other):
        await host.do(Dial((Peer(1, "n1", key_of(1), patience=3000),)))
        await other.do(Dial((Peer(0, "n0", key_of(0)),)))
        await trio.sleep(80)

        assert host.port.dialled == []
        assert len(host.of(LinkUp)) == 1


# --- the rest of a node ------------------------------------------------------------------


async def test_commands_and_refusals(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """A command gets its answer, or the core's refusal as the exception it is."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        assert await host.node.ask("write") == 1
        with pytest.raises(Refused, match="no"):
            await host.node.ask("refuse")
        with pytest.raises(RuntimeError, match="nothing was changed"):
            await host.node.ask("do")  # the toy core fails on it
        assert await host.node.ask("write") == 2


async def test_jobs_timers_and_notices(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """Computations come back, timers fire when they are due and not before, people are rung."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        due = Clock().now() + 5000
        await host.do(
            Run("code", Stretch((b"c" * 32,))),
            SetTimer("soon", due),
            SetTimer("never", due),
            SetTimer("never", None),
            Notify("claim"),
        )
        await trio.sleep(4.9)
        assert host.of(Done) == [Done("code", result=[(b"c" * 32, "1")])]
        assert host.of(TimerFired) == []
        await trio.sleep(0.2)
        assert host.of(TimerFired) == [TimerFired("soon")]
        assert host.people.rung == ["claim"]


async def test_rebuild_keeps_links(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """Unlocking builds a new core, to which every link is announced, and timers begin anew."""
    host, other = Host(wire, 0, tmp_path, peers=[1]), Host(wire, 1, tmp_path)
    async with running(other, host):
        await trio.sleep(1)
        await host.do(SetTimer("old", Clock().now() + 5000))
        await host.node.rebuild()
        await host.node.ask("write")
        await trio.sleep(10)

        assert host.of(LinkUp) == [LinkUp(1, 1), LinkUp(1, 1)]
        assert host.of(LinkDown, TimerFired) == []
        assert other.raws() == host.raws() != []


async def test_stop_leaves_everything_done(wire: Wire, tmp_path: Path, autojump_clock: Any) -> None:
    """A node that goes down says goodbye, answers who still waits, and lets go of its folder."""
    host = Host(wire, 0, tmp_path)
    async with running(host):
        peer = Stranger(wire, host, 1)
        await peer.hello()
        await trio.sleep(1)
        await host.node.ask("write")
        await host.node.stop()

        assert "going down" in await peer.reason()
        assert host.events[-1] == LinkDown(1)
        with pytest.raises(NotYet):
            await host.node.ask("write")
        assert SqliteStore(host.path).heads() == [Place(0, 0, 1)]


async def test_timers_are_replaced(autojump_clock: Any) -> None:
    """Setting a timer anew replaces it; one that did harm is held back."""
    fired: list[tuple[str, float]] = []
    timers = Timers(Clock(), lambda name: fired.append((name, trio.current_time())))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        await trio.lowlevel.checkpoint()
        for at in range(1000, 300_000, 500):
            timers.set("a", at)
        timers.set("a", 2000)
        timers.hold("b", 9000)
        timers.set("b", 1000)
        await trio.sleep(3)
        timers.set("a", 4000)
        await trio.sleep(20)
        nursery.cancel_scope.cancel()

    assert fired == [("a", 2), ("a", 4), ("b", 9)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 6)), max_size=12))
def test_ranges_lose_nothing(spans: list[tuple[int, int]]) -> None:
    """Whatever was owed is sent, each number once, and in order."""
    ranges = Ranges()
    owed: set[int] = set()
    for first, length in spans:
        ranges.add(first, first + length)
        owed |= set(range(first, first + length + 1))

    sent: list[int] = []
    while (span := ranges.next()) is not None:
        number = min(3, span[1] - span[0] + 1)
        sent += range(span[0], span[0] + number)
        ranges.sent(number)

    assert sent == sorted(set(sent))
    assert owed <= set(sent)
