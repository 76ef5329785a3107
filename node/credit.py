"""How much one link may have under way, and how fast a wallet may send."""

from __future__ import annotations

import trio


class Credit:
    """Statements and bytes that a link may leave unprocessed.

    A reader takes credit before it works on input; the driver gives it back when it takes
    the event. So a fast neighbour waits in its own socket, and not in our memory.
    """

    def __init__(self, statements: int, size: int) -> None:
        self._statements = statements
        self._bytes = size
        self._statements_out = 0
        self._bytes_out = 0
        self._returned = trio.lowlevel.ParkingLot()

    async def take(self, statements: int, size: int) -> None:
        """Wait for credit. What exceeds it all is let through alone."""
        while self._statements_out and (
            self._statements_out + statements > self._statements
            or self._bytes_out + size > self._bytes
        ):
            await self._returned.park()
        self._statements_out += statements
        self._bytes_out += size

    def give(self, statements: int, size: int) -> None:
        self._statements_out -= statements
        self._bytes_out -= size
        self._returned.unpark_all()


class Bucket:
    """A rate with a burst: whoever exceeds it is slowed down, not refused."""

    def __init__(self, rate: float, burst: float) -> None:
        """`rate` is refilled each second, up to `burst`."""
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = trio.current_time()

    async def take(self) -> None:
        """Wait for one."""
        self._refill()
        if self._left < 1:
            await trio.sleep((1 - self._left) / self._rate)
            self._refill()
        self._left -= 1

    def _refill(self) -> None:
        now = trio.current_time()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
