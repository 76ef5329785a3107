"""Run what would hold up the event loop on threads: the store, signatures, long computations.

Work that has begun is never abandoned: a cancelled caller gets its result and is cancelled at
its next checkpoint, so that no transaction is left running behind the back of its owner. Work
that has not begun when its caller is cancelled never begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

import trio

T = TypeVar("T")
A = TypeVar("A")

VERIFY_THREADS: Final = 2  # libsodium lets go of the interpreter; more than two gained nothing
COMPUTE_THREADS: Final = 2  # each may hold 256 MiB for Argon2id
INLINE_MAX: Final = 3  # items: fewer take less time than handing them to a thread (0.1 ms)


class ThreadWorkers:
    """Fill the Workers port with trio's threads."""

    def __init__(self) -> None:
        self._store = trio.CapacityLimiter(1)
        self._verify = trio.CapacityLimiter(VERIFY_THREADS)
        self._compute = trio.CapacityLimiter(COMPUTE_THREADS)

    async def store(self, work: Callable[[], T]) -> T:
        """Run `work` on the store's thread, one call at a time, in the order of the calls."""
        return await trio.to_thread.run_sync(work, limiter=self._store)

    async def each(self, work: Callable[[Sequence[A]], list[T]], items: Sequence[A]) -> list[T]:
        """Return what `work` makes of the items, in their order.

        Up to `INLINE_MAX` items are worked on at once in the caller's task; more are split in
        two halves, one a thread. When a half raises, the other is still finished; then the
        error of the earlier half is raised.
        """
        if len(items) <= INLINE_MAX:
            await trio.lowlevel.checkpoint()
            return list(work(items))
        middle = (len(items) + 1) // 2
        halves = (_Half(work, items[:middle]), _Half(work, items[middle:]))
        async with trio.open_nursery() as nursery:
            for half in halves:
                nursery.start_soon(self._finish, half)
        return [result for half in halves for result in half.take()]

    async def compute(self, work: Callable[[], T]) -> T:
        """Run one long computation: a password, an erasure code."""
        return await trio.to_thread.run_sync(work, limiter=self._compute)

    async def _finish(self, half: _Half[A, T]) -> None:
        await trio.to_thread.run_sync(half.run, limiter=self._verify)


class _Half(Generic[A, T]):
    """Keeps the outcome, so that one half's error does not cancel the other half."""

    def __init__(self, work: Callable[[Sequence[A]], list[T]], items: Sequence[A]) -> None:
        self._work = work
        self._items = items
        self._results: list[T] = []
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            self._results = list(self._work(self._items))
        except Exception as error:
            self._error = error

    def take(self) -> list[T]:
        if self._error is not None:
            raise self._error
        return self._results
