"""What one link still has to send, and in which order.

Log entries are never queued: a link holds ranges of numbers and reads the entries when its
stream takes them, from a tail of recent ones in memory or, when it lags, from the store. So
a slow neighbour costs a few integers and loses nothing. Only small messages wait as bytes,
and a neighbour that lets too many pile up loses its link.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

import trio

from node.framing import pack
from node.intake import Log
from node.ports import Store, Workers
from protocol.contract import Deliver, Id, Message, Place, Stream

ENTRIES_BYTES_MAX: Final = 64 * 1024  # of a frame of entries: one read of its receiver
ENTRIES_MAX: Final = 256  # in such a frame: its receiver's credit
TAIL_BYTES_MAX: Final = 4 * 1024 * 1024  # ten thousand votes, minutes of the busiest day
MESSAGES_MAX: Final = 256  # waiting on one link: a core sends a handful in a second
MESSAGES_BYTES_MAX: Final = 1024 * 1024  # of those: sixteen of the largest statements
DELIVERIES_MAX: Final = 16  # versions asked for at once on one link: more than a vault keeps
RANGES_MAX: Final = 4  # gaps remembered in what is owed of one log; then they are sent as well
FRAGMENTS_READ: Final = 4  # at once from the store: half a megabyte in memory for a link


class Tail:
    """The newest entries of all logs, so that pushing them costs the store nothing."""

    def __init__(self, bytes_max: int = TAIL_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._raws: OrderedDict[tuple[int, int, int], bytes] = OrderedDict()

    def add(self, place: Place, raw: bytes) -> None:
        self._raws[place.seat, place.incarnation, place.seq] = raw
        self._bytes += len(raw)
        while self._bytes > self._bytes_max:
            self._bytes -= len(self._raws.popitem(last=False)[1])

    def slice(self, log: Log, first: int, last: int) -> list[bytes]:
        """Entries from `first` on, as many as one frame takes; none if the first is gone."""
        found: list[bytes] = []
        size = 0
        for seq in range(first, min(last, first + ENTRIES_MAX - 1) + 1):
            raw = self._raws.get((*log, seq))
            if raw is None:
                break
            size += len(raw)
            if found and size > ENTRIES_BYTES_MAX:
                break
            found.append(raw)
        return found


class Ranges:
    """Numbers that are owed of one log, as a few ranges in order."""

    def __init__(self) -> None:
        self._spans: list[tuple[int, int]] = []

    def add(self, first: int, last: int) -> None:
        """Owe `first` to `last`; what overlaps or touches becomes one range."""
        if first > last:
            return
        apart: list[tuple[int, int]] = []
        for low, high in self._spans:
            if high + 1 < first or last + 1 < low:
                apart.append((low, high))
            else:
                first, last = min(low, first), max(high, last)
        self._spans = sorted([*apart, (first, last)])
        if len(self._spans) > RANGES_MAX:
            self._spans = [(self._spans[0][0], self._spans[-1][1])]

    def next(self) -> tuple[int, int] | None:
        return self._spans[0] if self._spans else None

    def sent(self, number: int) -> None:
        """Strike the first `number` numbers; 0 strikes the first range, which nobody has."""
        low, high = self._spans.pop(0)
        if number and low + number <= high:
            self._spans.insert(0, (low + number, high))


@dataclass(slots=True)
class Delivery:
    """Fragments of one version that were asked for, and how far they have been sent."""

    version: Id
    request: int
    next: int = 0
    count: int = -1  # not yet asked of the store


class Outbox:
    """Everything one link owes. Filled by the driver at once, emptied by the link's writer."""

    def __init__(self, tail: Tail, store: Store, workers: Workers) -> None:
        self._tail = tail
        self._store = store
        self._workers = workers
        self._messages: deque[bytes] = deque()
        self._messages_bytes = 0
        self._owed: dict[tuple[Log, bool], Ranges] = {}
        self._deliveries: deque[Delivery] = deque()
        self._frames: deque[bytes] = deque()  # fragments read and not sent
        self._news = trio.lowlevel.ParkingLot()
        self._closing = False

    def post(self, message: Message) -> bool:
        """Queue a message; False when the link lets too many pile up.

        Raises TypeError or ValueError for a message that no frame can hold.
        """
        frame = pack([message.kind, dict(message.fields)])
        self._messages.append(frame)
        self._messages_bytes += len(frame)
        self._news.unpark_all()
        return len(
            self._messages
        ) <= MESSAGES_MAX and self._messages_bytes <= MESSAGES_BYTES_MAX + len(frame)

    def stream(self, what: Stream) -> None:
        key = ((what.seat, what.incarnation), what.check)
        self._owed.setdefault(key, Ranges()).add(what.first, what.last)
        self._news.unpark_all()

    def deliver(self, what: Deliver) -> bool:
        """Queue a delivery; False when too many wait."""
        self._deliveries.append(Delivery(what.version, what.request))
        self._news.unpark_all()
        return len(self._deliveries) <= DELIVERIES_MAX

    def close(self) -> None:
        """Owe nothing more but the messages that wait."""
        self._closing = True
        self._news.unpark_all()

    async def next(self) -> bytes | None:
        """Wait for bytes to send: frames, one or several; None when closed and empty."""
        while True:
            if self._messages:
                return self._take_messages()
            if self._closing:
                return None
            if self._owed:
                if frame := await self._take_entries():
                    return frame
            elif self._frames or self._deliveries:
                if frame := await self._take_fragment():
                    return frame
            else:
                await self._news.park()

    def _take_messages(self) -> bytes:
        taken = [self._messages.popleft()]
        size = len(taken[0])
        while self._messages and size + len(self._messages[0]) <= ENTRIES_BYTES_MAX:
            size += len(self._messages[0])
            taken.append(self._messages.popleft())
        self._messages_bytes -= size
        return b"".join(taken)

    async def _take_entries(self) -> bytes | None:
        """A frame of the log that has waited longest; None if that had nothing to send."""
        key = next(iter(self._owed))
        ranges = self._owed.pop(key)
        span = ranges.next()
        if span is None:
            return None
        # Back at the end of the line before waiting, so that the driver can add to it.
        self._owed[key] = ranges
        log, check = key
        first, last = span
        raws = self._tail.slice(log, first, last)
        if not raws:
            raws = await self._workers.store(
                lambda: self._store.stream_entries(*log, first, last, ENTRIES_BYTES_MAX)
            )
            raws = raws[:ENTRIES_MAX]
        self._strike(key, ranges, first, len(raws))
        if not raws:
            return None
        return pack(
            [
                "entries",
                {
                    "seat": log[0],
                    "incarnation": log[1],
                    "first": first,
                    "raws": raws,
                    "check": check,
                },
            ]
        )

    def _strike(self, key: tuple[Log, bool], ranges: Ranges, first: int, number: int) -> None:
        # While the store was read, an older number may have come to be owed: then nothing is
        # struck, and a few entries go twice.
        span = ranges.next()
        if span is not None and span[0] == first:
            ranges.sent(number)
        if ranges.next() is None:
            self._owed.pop(key, None)

    async def _take_fragment(self) -> bytes | None:
        if not self._frames:
            delivery = self._deliveries[0]
            if await self._read_fragments(delivery):
                self._deliveries.popleft()
        return self._frames.popleft() if self._frames else None

    async def _read_fragments(self, delivery: Delivery) -> bool:
        """Read the next few fragments; true when the delivery has nothing more."""
        version, first = delivery.version, delivery.next
        if delivery.count < 0:
            delivery.count = await self._workers.store(lambda: self._store.fragment_count(version))
        held = await self._workers.store(
            lambda: self._store.fragments(version, first, FRAGMENTS_READ)
        )
        about = {"request": delivery.request, "count": delivery.count}
        for item in held:
            fields = {"index": item.index, "data": item.data, "path": list(item.path)}
            self._frames.append(pack(["fragment", about | fields]))
            delivery.next = item.index + 1
        if not held and first == 0:
            # So that nobody waits for what is not here.
            nothing = {"index": 0, "data": b"", "path": [], "count": 0}
            self._frames.append(pack(["fragment", about | nothing]))
        return len(held) < FRAGMENTS_READ
