"""Work on threads keeps its order, its results and its promises."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from node.workers import INLINE_MAX, ThreadWorkers


def double(items: Sequence[int]) -> list[int]:
    return [2 * item for item in items]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(), max_size=40))
def test_each_keeps_order(items: list[int]) -> None:
    """Results stand in the order of the items, however many there are."""

    async def main() -> list[int]:
        return await ThreadWorkers().each(double, items)

    assert trio.run(main) == [2 * item for item in items]


async def test_few_inline() -> None:
    """A few items are worked on where the caller is, more are split on two threads."""
    seen: list[tuple[str, int]] = []

    def note(items: Sequence[int]) -> list[int]:
        seen.append((threading.current_thread().name, len(items)))
        return list(items)

    here = threading.current_thread().name
    await ThreadWorkers().each(note, range(INLINE_MAX))
    assert seen == [(here, INLINE_MAX)]
    seen.clear()
    await ThreadWorkers().each(note, range(7))
    assert sorted(number for _, number in seen) == [3, 4]
    assert here not in {name for name, _ in seen}


async def test_each_raises_plainly() -> None:
    """An error in one half is raised as it is, after the other half is finished."""
    finished: list[int] = []

    def work(items: Sequence[int]) -> list[int]:
        if 0 in items:
            raise KeyError("first half")
        finished.extend(items)
        return list(items)

    with pytest.raises(KeyError, match="first half"):
        await ThreadWorkers().each(work, range(10))
    assert finished == [5, 6, 7, 8, 9]


async def test_store_one_at_a_time() -> None:
    """Calls to the store never overlap, and run in the order they were made."""
    workers = ThreadWorkers()
    inside = threading.Lock()
    order: list[int] = []

    async def call(number: int) -> None:
        def work() -> None:
            assert inside.acquire(blocking=False)
            order.append(number)
            inside.release()

        await workers.store(work)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(call, number)
            await trio.testing.wait_all_tasks_blocked()
    assert order == list(range(20))


async def test_store_never_abandoned() -> None:
    """A cancelled caller waits for the transaction it began, and gets its result."""
    workers = ThreadWorkers()
    begun, may_end = threading.Event(), threading.Event()
    results: list[str] = []

    def work() -> str:
        begun.set()
        assert may_end.wait(10)
        return "durable"

    async def call(scope: trio.CancelScope) -> None:
        with scope:
            results.append(await workers.store(work))

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, scope)
        await trio.to_thread.run_sync(begun.wait)
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert results == []
        may_end.set()
    assert results == ["durable"]


async def test_cancelled_before_it_began() -> None:
    """Work whose caller is cancelled while it waits its turn never runs."""
    workers = ThreadWorkers()
    ran: list[str] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await workers.store(lambda: ran.append("ran"))
    assert ran == []


async def test_compute() -> None:
    """A computation gives its result or raises its error."""
    workers = ThreadWorkers()
    assert await workers.compute(lambda: 6 * 7) == 42
    with pytest.raises(ZeroDivisionError):
        await workers.compute(lambda: 1 // 0)
