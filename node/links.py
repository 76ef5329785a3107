"""Links: one for each stream, to a neighbour, a wallet or a stranger.

A reader takes frames as fast as the driver takes its events, and no faster: a link has
credit for so many statements and bytes. What it passes on has its signature checked. A
writer empties the link's outbox. Both end together, for a reason that is told to the other
side and written to the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
import trio

from node.credit import Bucket, Credit
from node.driver import Driver
from node.framing import FrameReader
from node.greeting import Hello, bye, parted, read_frame, read_hello
from node.intake import Log, read_batch, verify_batch, weigh
from node.outbox import Outbox, Tail
from node.ports import Store, Verifier, Workers
from node.transfers import Transfer
from protocol.contract import (
    DropLink,
    Heard,
    LinkDown,
    LinkId,
    LinkUp,
    Message,
    Place,
    Receive,
    Received,
    Seat,
)
from protocol.errors import HoldfastError, Malformed
from protocol.vault import Examined, examine

HELLO_S: Final = 10.0  # for the greeting: a slow mobile line needs two
SILENCE_S: Final = 90.0  # a core pings every 15 s; whoever misses six of them is not there
BYE_S: Final = 2.0  # to send what is queued and the reason, when we hang up
CREDIT_STATEMENTS: Final = 256  # unprocessed on one link: enough for a large batch of many links
CREDIT_BYTES: Final = 256 * 1024  # and so few that three hundred links fit in 100 MB
STRANGERS_MAX: Final = 256  # links without a seat at a time: a quarter of the usual open files
LINKS_PER_SEAT: Final = 2  # both sides may dial at once; a third means that the oldest is dead
WALLET_RATE: Final = 20.0  # frames a second: a person at a wallet causes one
WALLET_BURST: Final = 200.0  # frames: reconnecting, and a deposit of the largest size

log = structlog.get_logger("node.links")


class Link:
    """One stream with its far end: what is owed to it, and what is expected from it."""

    def __init__(
        self,
        id: LinkId,
        stream: trio.abc.Stream,
        reader: FrameReader,
        key: bytes | None,
        seat: Seat | None,
        out: Outbox,
    ) -> None:
        self.id = id
        self.stream = stream
        self.reader = reader
        self.key = key
        self.seat = seat
        self.out = out
        self.transfers: deque[Transfer] = deque()  # fragments belong to the first
        self.credit = Credit(CREDIT_STATEMENTS, CREDIT_BYTES)
        self.bucket = Bucket(WALLET_RATE, WALLET_BURST) if seat is None else None
        self.reading = trio.CancelScope()
        self.reason = ""

    def end(self, reason: str) -> None:
        """Stop reading, send what is queued and the reason, and hang up. Returns at once."""
        if not self.reason:
            self.reason = reason
            self.out.close()
            self.reading.cancel()


class Links:
    """All links of a node."""

    def __init__(
        self, driver: Driver, store: Store, workers: Workers, codec: Callable[[bytes], Verifier]
    ) -> None:
        self._driver = driver
        self._store = store
        self._workers = workers
        self._make_codec = codec
        self._codec: Verifier | None = None
        self._hello = Hello("")
        self._seats: dict[bytes, Seat] = {}
        self._links: dict[LinkId, Link] = {}
        self._count = 0
        self._closed = False
        self._changes = trio.lowlevel.ParkingLot()
        self.heads: dict[Log, int] = {}
        self.tail = Tail()

    # --- what the node calls -----------------------------------------------------------

    def introduce(self, hello: Hello, federated: bool) -> None:
        """Speak as this node from now on. Links of another federation end."""
        if hello.federation != self._hello.federation:
            self.end_all("this guardian joined a federation: connect again")
        self._hello = hello
        self._codec = self._make_codec(hello.federation) if federated else None

    def trust(self, seats: Mapping[bytes, Seat]) -> None:
        """Know guardians by these transport keys. Links end whose seat this changes."""
        self._seats = dict(seats)
        for link in list(self._links.values()):
            if link.key is not None and self._seats.get(link.key) != link.seat:
                link.end("the roster has changed: connect again")

    def seat_of(self, id: LinkId) -> Seat | None:
        link = self._links.get(id)
        return None if link is None else link.seat

    def get(self, id: LinkId) -> Link | None:
        """The link, unless it has gone or is about to go."""
        link = self._links.get(id)
        return None if link is None or link.reason else link

    def stands(self, key: bytes) -> bool:
        """Whether there is a link with the holder of this key, whoever dialled."""
        return any(link.key == key and not link.reason for link in self._links.values())

    async def changed(self) -> None:
        """Return when a link has come or gone."""
        await self._changes.park()

    def committed(self, place: Place, raw: bytes) -> None:
        """An entry is durable: known from now on, and at hand for every writer."""
        self.heads[place.seat, place.incarnation] = place.seq
        self.tail.add(place, raw)

    def drop(self, what: DropLink) -> None:
        if link := self.get(what.link):
            level = log.warning if what.their_fault else log.info
            level("link dropped", link=link.id, seat=link.seat, reason=what.reason)
            link.end(what.reason)

    def receive(self, wanted: Receive) -> None:
        """Expect fragments on a link."""
        link = self.get(wanted.link)
        transfer = Transfer(wanted, self._store, self._workers)
        if link is None:
            self._driver.put_first(transfer.failed("the connection to the wallet is gone"))
        else:
            link.transfers.append(transfer)

    def forget_transfers(self) -> None:
        """The core that asked for them is no more."""
        for link in self._links.values():
            link.transfers.clear()

    def end_with(self, key: bytes, reason: str) -> None:
        for link in list(self._links.values()):
            if link.key == key:
                link.end(reason)

    def end_all(self, reason: str) -> None:
        for link in list(self._links.values()):
            link.end(reason)

    async def close(self, reason: str) -> None:
        """Take no further link, end all that stand, and return when they are gone."""
        self._closed = True
        self.end_all(reason)
        while self._links:
            await self._changes.park()

    # --- one link ----------------------------------------------------------------------

    async def serve(
        self,
        stream: trio.abc.Stream,
        key: bytes | None,
        stands: Callable[[], None] = lambda: None,
    ) -> str:
        """Keep a link on this stream until it ends; return why it ended.

        `stands` is called when both sides have greeted. Raises nothing but cancellation, in
        which case no core hears of the end.
        """
        try:
            link = await self._greet(stream, key)
            self._links[link.id] = link
            self._changes.unpark_all()
            stands()
            await self._keep(link)
            return link.reason
        except (HoldfastError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            return str(error)
        finally:
            await _hang_up(stream)

    async def _greet(self, stream: trio.abc.Stream, key: bytes | None) -> Link:
        reader = FrameReader(stream)
        with trio.move_on_after(HELLO_S):
            try:
                await stream.send_all(self._hello.to_frame())
                theirs = read_hello(await reader.read(), self._hello)
                seat = self._seats.get(key) if key and theirs.role == "guardian" else None
                self._make_room(seat)
            except HoldfastError as error:
                await stream.send_all(bye(str(error)))
                raise
            self._count += 1
            out = Outbox(self.tail, self._store, self._workers)
            return Link(self._count, stream, reader, key, seat, out)
        raise Malformed(f"no greeting came within {HELLO_S:g} seconds")

    def _make_room(self, seat: Seat | None) -> None:
        if self._closed:
            raise Malformed("this guardian's node is going down")
        alike = [link for link in self._links.values() if link.seat == seat]
        if seat is None and len(alike) >= STRANGERS_MAX:
            raise Malformed("too many wallets are connected just now: try again in a minute")
        if seat is not None:
            for oldest in alike[: max(0, len(alike) - LINKS_PER_SEAT + 1)]:
                oldest.end("a newer connection took the place of this one")

    async def _keep(self, link: Link) -> None:
        self._driver.put(LinkUp(link.id, link.seat))
        try:
            await self._converse(link)
        except* Exception:
            # A bug of ours that bytes from outside have found must not take the node down.
            log.exception("link failed", link=link.id)
            link.end("this guardian's node has a fault")
        del self._links[link.id]
        self._changes.unpark_all()
        for transfer in link.transfers:
            self._driver.put_first(transfer.failed("the connection broke before all of it came"))
        self._driver.put(LinkDown(link.id))

    async def _converse(self, link: Link) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, link)
            with link.reading:
                link.end(await self._read(link))
            nursery.cancel_scope.deadline = trio.current_time() + BYE_S

    async def _write(self, link: Link) -> None:
        try:
            while data := await link.out.next():
                await link.stream.send_all(data)
            await link.stream.send_all(bye(link.reason))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            link.end("the connection broke")
        except HoldfastError as error:
            log.error("link cannot be served", link=link.id, error=str(error))
            link.end("this guardian's disk has a problem")

    # --- reading -----------------------------------------------------------------------

    async def _read(self, link: Link) -> str:
        """Read until the link ends; why it did."""
        try:
            while True:
                with trio.fail_after(SILENCE_S):
                    values = await link.reader.read_some()
                if not values:
                    return "the other side hung up"
                for value in values:
                    kind, fields = read_frame(value)
                    if kind == "bye":
                        return parted(fields)
                    await self._take(link, kind, fields)
        except trio.TooSlowError:
            return f"nothing came for {SILENCE_S:g} seconds"
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return "the connection broke"
        except HoldfastError as error:
            log.warning("link broke a rule", link=link.id, seat=link.seat, reason=str(error))
            return str(error)

    async def _take(self, link: Link, kind: str, fields: Mapping[str, Any]) -> None:
        if link.bucket is not None:
            await link.bucket.take()
        if kind == "entries":
            await self._take_entries(link, fields)
        elif kind == "fragment":
            await self._take_fragment(link, fields)
        else:
            size = weigh(fields)
            await link.credit.take(1, size)
            message = Message(kind, fields)
            event = Received(link.id, message, await self._examine(message))
            self._driver.put(event, 1, _giving_back(link.credit, 1, size))

    async def _examine(self, message: Message) -> Examined | None:
        """Do ahead of the core, on a thread beside it, what takes longest in a deposit."""
        codec, fields = self._codec, message.fields
        if message.kind != "deposit" or codec is None:
            return None
        return await self._workers.compute(
            lambda: examine(codec.verify, fields.get("deal"), fields.get("version"))
        )

    async def _take_entries(self, link: Link, fields: Mapping[str, Any]) -> None:
        if link.seat is None:
            raise Malformed("only guardians send log entries")
        codec = self._codec
        if codec is None:
            return
        batch = read_batch(fields)
        # Most of what a busy neighbour sends is known: it costs no more than this.
        batch = batch.after(self.heads.get(batch.log, 0))
        for part in batch.parts(CREDIT_STATEMENTS):
            number, size = len(part.raws), sum(map(len, part.raws))
            await link.credit.take(number, size)
            good, error = await verify_batch(self._workers, codec, part)
            if good:
                event = Heard(link.id, good, part.check)
                self._driver.put(event, number, _giving_back(link.credit, number, size))
            if error is not None:
                raise error  # verified before it was relayed, so this is the neighbour's fault

    async def _take_fragment(self, link: Link, fields: Mapping[str, Any]) -> None:
        if not link.transfers:
            return  # the rest of a transfer that failed was on its way already
        transfer = link.transfers[0]
        done = await transfer.take(fields)
        if done is not None and link.transfers and link.transfers[0] is transfer:
            link.transfers.popleft()
            self._driver.put_first(done)


async def _hang_up(stream: trio.abc.Stream) -> None:
    """Close, politely unless we are cancelled; the far end may be gone already."""
    try:
        with trio.move_on_after(BYE_S):
            await stream.aclose()
    except trio.BrokenResourceError:
        pass  # closed all the same


def _giving_back(credit: Credit, statements: int, size: int) -> Callable[[], None]:
    return lambda: credit.give(statements, size)
