"""The clock people mean, and sleeping by it."""

from __future__ import annotations

import trio
import trio.testing

from node.clock import RECHECK_MS, SystemClock, SystemEntropy

SECOND = 1_000


class Wall:
    """A wall clock that follows trio's virtual time, and can be set."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> int:
        return int((trio.current_time() + self.offset) * SECOND)


async def test_sleeps_until(autojump_clock: trio.testing.MockClock) -> None:
    """Thirty days pass in no time on a virtual clock, to the millisecond."""
    wall = Wall()
    clock = SystemClock(wall)
    at = clock.now() + 30 * 86_400 * SECOND
    await clock.sleep_until(at)
    assert 0 <= clock.now() - at <= 1


async def test_past(autojump_clock: trio.testing.MockClock) -> None:
    """A time in the past is no wait."""
    clock = SystemClock(Wall())
    before = trio.current_time()
    await clock.sleep_until(clock.now() - 5)
    assert trio.current_time() == before


async def test_wall_clock_jumps(autojump_clock: trio.testing.MockClock) -> None:
    """When the wall clock is set forward, a sleeper notices within thirty seconds."""
    wall = Wall()
    clock = SystemClock(wall)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.sleep_until, clock.now() + 86_400 * SECOND)
        await trio.sleep(100)
        wall.offset += 90_000
    assert trio.current_time() - start <= 100 + RECHECK_MS / SECOND


async def test_wall_clock_set_back(autojump_clock: trio.testing.MockClock) -> None:
    """When the wall clock is set back, a sleeper waits until it shows the time again."""
    wall = Wall()
    clock = SystemClock(wall)
    at = clock.now() + 50 * SECOND
    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.sleep_until, at)
        await trio.sleep(10)
        wall.offset -= 3600
    assert clock.now() >= at


def test_real() -> None:
    """The machine's clock is after this was written, and its randomness does not repeat."""
    assert SystemClock().now() > 1_760_000_000_000
    entropy = SystemEntropy()
    assert len(entropy.draw(32)) == 32
    assert entropy.draw(32) != entropy.draw(32)
