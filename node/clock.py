"""The machine's wall clock and its source of randomness, as ports. Nobody else reads either."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

import trio

from protocol.limits import SECOND

RECHECK_MS: Final = 30 * SECOND
"""How long a sleep goes on without looking at the wall clock.

A laptop that slept, or a clock that was set right, must not delay a release for longer.
"""
_NANOS_PER_MS: Final = 1_000_000


def _wall() -> int:
    return time.time_ns() // _NANOS_PER_MS


class SystemClock:
    """Fill the Clock port with the machine's clock: UTC in milliseconds. It may jump.

    `wall` is there for tests.
    """

    def __init__(self, wall: Callable[[], int] = _wall) -> None:
        self._wall = wall

    def now(self) -> int:
        """Return milliseconds since 1970, UTC."""
        return self._wall()

    async def sleep_until(self, at: int) -> None:
        """Return when the wall clock shows `at` (ms, UTC) or later, at most 30 s late.

        A time in the past is a checkpoint.
        """
        await trio.lowlevel.checkpoint()
        while True:
            left = at - self._wall()
            if left <= 0:
                return
            await trio.sleep(min(left, RECHECK_MS) / SECOND)


class SystemEntropy:
    """Fill the Entropy port from the operating system."""

    def draw(self, size: int) -> bytes:
        """Return `size` fresh random bytes, fit for keys."""
        return os.urandom(size)
