"""One connection: two ends, and bytes that travel between them in virtual time.

Bytes arrive in order, in pieces of random size, each with a delay of its own. When the link
is severed they wait; after `GIVE_UP_S` without progress the sender's end breaks, and the
other, which hears nothing, stays as it is: half open, as happens with TCP. A connection that
is reset loses what its ends had received and not read.
"""

from __future__ import annotations

import hashlib
import operator
import random
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from simulations.chances import Stream
from simulations.kernel import Kernel
from simulations.trace import Field

WINDOW_BYTES: Final = 64 * 1024  # sent and not yet read: a usual socket buffer
PIECE_BYTES_MAX: Final = 16 * 1024  # one record of TLS
GIVE_UP_S: Final = 120.0  # without progress; systems take from one to fifteen minutes
DIGEST_BYTES: Final = 8
NANOS: Final = 1_000_000_000
UNANSWERED: Final = "the far end has not answered for too long"


class Links(Protocol):
    """What a connection needs of its network."""

    @property
    def kernel(self) -> Kernel: ...
    def latency(self, a: str, b: str) -> float: ...
    def severed(self, source: str, target: str) -> bool: ...
    def forget(self, number: int) -> None: ...
    def note(self, what: str, *fields: Field) -> None: ...
    def slowness(self, source: str, target: str) -> float: ...
    def show(self, piece: bytes) -> None: ...


RESENT_AFTER_S: Final = 0.2  # at least, and twice as long each time: what systems do


@dataclass(frozen=True, slots=True)
class Weather:
    """How links behave. Times in seconds, chances from 0 to 1."""

    latency_median: float = 0.04  # of links; one way, between homes in one country
    latency_sigma: float = 0.5  # of the normal distribution of its logarithm over links
    jitter: float = 0.3  # mean extra delay of a piece, as a part of the link's latency
    split: float = 0.2  # chance that what could go as one piece is broken at a random place
    reset: float = 0.0  # chance for each connection to be reset at a random time
    reset_within: float = 60.0  # of its beginning
    loss: float = 0.0  # chance that a piece is lost once or more and sent again later
    straggler: float = 0.0  # chance that a piece takes up to `straggler_takes` longer
    straggler_takes: float = 5.0
    bandwidth: int = 0  # bytes a second one way; 0 is no bound


CALM: Final = Weather()


class Connection:
    """Two ends and what is on its way between them."""

    def __init__(
        self,
        network: Links,
        number: int,
        dialler: str,
        listener: str,
        rng: random.Random,
        weather: Weather,
    ) -> None:
        self.network = network
        self.number = number
        there = Flow(self, dialler, listener, rng, weather)
        back = Flow(self, listener, dialler, rng, weather)
        self._flows = (there, back)
        self.ends = (SimStream(self, out=there, into=back), SimStream(self, out=back, into=there))
        there.back, back.back = back, there
        there.receiver, back.receiver = self.ends[1], self.ends[0]

    def joins(self, a: str, b: str) -> bool:
        return (self._flows[0].source, self._flows[0].target) in ((a, b), (b, a))

    def reset(self) -> None:
        self.network.note("reset", self.number)
        for end in self.ends:
            end.break_off("the connection was reset")

    def lose(self, address: str) -> None:
        for end in self.ends:
            if end.address == address:
                end.vanish()

    def resume(self) -> None:
        for flow in self._flows:
            flow.resume()

    def tidy(self) -> None:
        if all(end.gone for end in self.ends):
            self.network.forget(self.number)


class Flow:
    """One direction of a connection: pieces in order, each with its own delay."""

    receiver: SimStream
    back: Flow  # the other direction; its receiver is the sender of this one

    def __init__(
        self,
        connection: Connection,
        source: str,
        target: str,
        rng: random.Random,
        weather: Weather,
    ) -> None:
        self.source = source
        self.target = target
        self.unread = 0  # bytes sent and not yet taken by the receiver
        self.has_room = trio.lowlevel.ParkingLot()
        self._connection = connection
        self._network = connection.network
        self._rng = rng
        self._draw = Stream.over(rng)
        self._weather = weather
        self._wire: deque[bytes] = deque()  # the end of the stream is an empty piece
        self._stalled = 0  # pieces that are due and cannot get through
        self._stall = 0  # number of the present stall
        self._last_due = 0.0
        self._owes_refusal = False

    def piece(self, data: memoryview) -> bytes:
        """Cut off what goes as the next piece."""
        size = min(len(data), WINDOW_BYTES - self.unread, PIECE_BYTES_MAX)
        if self._rng.random() < self._weather.split:
            size = self._rng.randint(1, size)
        return bytes(data[:size])

    def send(self, piece: bytes) -> None:
        digest = hashlib.blake2b(piece, digest_size=DIGEST_BYTES).digest()
        self._network.note("send", self._connection.number, self.source, len(piece), digest)
        self._network.show(piece)
        self.unread += len(piece)
        self._wire.append(piece)
        self._schedule(len(piece))

    def lose_tail(self) -> None:
        """Forget what the source could not get out before it lost its power."""
        # Nothing passes what is stalled, so then all is lost; else some of it is on its way.
        out = 0 if self._stalled else self._rng.randint(0, len(self._wire))
        while len(self._wire) > out:
            self._wire.pop()
        self._stalled = 0

    def resume(self) -> None:
        if self._owes_refusal:
            self.refuse()
        if self._stalled and not self._network.severed(self.source, self.target):
            stalled, self._stalled = self._stalled, 0
            self._stall += 1
            for _ in range(stalled):
                self._schedule()

    def _schedule(self, size: int = 0) -> None:
        latency = self._network.latency(self.source, self.target)
        jitter = self._draw.exponential(NANOS) / NANOS * self._weather.jitter
        due = self._network.kernel.now + latency * (1.0 + jitter)
        due += self._network.slowness(self.source, self.target)
        weather = self._weather
        if weather.loss and self._rng.random() < weather.loss:
            due += max(RESENT_AFTER_S, 2 * latency) * (1 << self._rng.randrange(3))
        if weather.straggler and self._rng.random() < weather.straggler:
            due += self._rng.random() * weather.straggler_takes
        if weather.bandwidth:
            due = max(due, self._last_due) + size / weather.bandwidth
        self._last_due = max(self._last_due, due)
        self._network.kernel.at(self._last_due, self._arrive)

    def _arrive(self) -> None:
        if len(self._wire) <= self._stalled:
            return  # lost with the power of the source
        if self._stalled or self._network.severed(self.source, self.target):
            self._stalled += 1
            if self._stalled == 1:
                stall = self._stall
                self._network.kernel.after(GIVE_UP_S, lambda: self._give_up(stall))
            return
        piece = self._wire.popleft()
        self._network.note("arrive", self._connection.number, self.target, len(piece))
        if self.receiver.gone:
            self.refuse()  # the machine is up and knows nothing of this connection any more
        else:
            self.receiver.arrive(piece)

    def refuse(self) -> None:
        """Let the source hear that nobody takes this, once what was sent to it has arrived."""
        sender, kernel = self.back.receiver, self._network.kernel
        self._owes_refusal = self._network.severed(self.target, self.source)
        if self._owes_refusal:
            kernel.after(GIVE_UP_S, lambda: sender.break_off(UNANSWERED))
            return
        due = kernel.now + self._network.latency(self.source, self.target)
        kernel.at(max(due, self.back._last_due), lambda: sender.break_off("the far end has closed"))

    def _give_up(self, stall: int) -> None:
        if self._stalled and stall == self._stall:
            self._network.note("give up", self._connection.number, self.source)
            self._wire.clear()
            self._stalled = 0
            self.back.receiver.break_off(UNANSWERED)


class SimStream(trio.abc.Stream):
    """One end of a connection. `SimTransport.dial` and `serve` make it, nobody else."""

    def __init__(self, connection: Connection, *, out: Flow, into: Flow) -> None:
        self.address = out.source
        self._connection = connection
        self._out = out
        self._into = into
        self._arrived = bytearray()
        self._has_news = trio.lowlevel.ParkingLot()
        self._closed = False
        self._ended = False
        self._broken = ""  # why
        self._sending = False
        self._receiving = False

    @property
    def gone(self) -> bool:
        """True when this end takes nothing more."""
        return self._closed or bool(self._broken)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything, waiting while `WINDOW_BYTES` are unread. Errors as any trio stream's."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            self._check()
            await trio.lowlevel.checkpoint()
            rest = memoryview(data).cast("B")
            while rest:
                await self._wait_for_room()
                piece = self._out.piece(rest)
                self._out.send(piece)
                rest = rest[len(piece) :]
            self._check()
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            self._check()
            await trio.lowlevel.checkpoint()
            await self._wait_for_room()
        finally:
            self._sending = False

    async def _wait_for_room(self) -> None:
        self._check()
        full = WINDOW_BYTES
        while self._out.unread >= full:
            # Not at the first byte of room: ever smaller pieces would follow each other.
            full = WINDOW_BYTES // 2
            await self._out.has_room.park()
            self._check()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has arrived, at most `max_bytes`; nothing at the end of the stream."""
        if max_bytes is not None and operator.index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        self._receiving = True
        try:
            self._check()
            await trio.lowlevel.checkpoint()
            self._check()
            while not self._arrived:
                if self._ended:
                    return b""
                await self._has_news.park()
                self._check()
            return self._take(max_bytes or len(self._arrived))
        finally:
            self._receiving = False

    def _take(self, size: int) -> bytes:
        taken = bytes(self._arrived[:size])
        del self._arrived[:size]
        self._into.unread -= len(taken)
        self._into.has_room.unpark_all()
        return taken

    async def aclose(self) -> None:
        """Close; what was sent still arrives. Later calls do nothing."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close without waiting."""
        if self._closed:
            return
        self._closed = True
        if not self._broken:
            self._out.send(b"")
            if self._arrived:  # as TCP does: who closes without reading breaks the connection
                self._into.refuse()
        self._wake()

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self._broken:
            raise trio.BrokenResourceError(self._broken)

    # What the connection calls.

    def arrive(self, piece: bytes) -> None:
        if piece:
            self._arrived += piece
        else:
            self._ended = True
        self._has_news.unpark_all()

    def break_off(self, why: str) -> None:
        """Make this end useless; what has arrived and was not read is lost, as with TCP."""
        if not self.gone:
            self._broken = why
            self._arrived.clear()
        self._wake()

    def vanish(self) -> None:
        """Lose power: this end is dead, and the far end hears nothing of it."""
        self._out.lose_tail()
        self.break_off(f"{self.address} has lost its power")

    def _wake(self) -> None:
        self._has_news.unpark_all()
        self._out.has_room.unpark_all()
        self._connection.tidy()
