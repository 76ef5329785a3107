"""The timers a core has set: each has a name, fires once, and is replaced by setting it anew."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

import trio

from node.ports import Clock
from protocol.contract import Millis

SLACK: Final = 64  # timers that were replaced and may lie in the heap besides


class Timers:
    """Fire timers by the clock, never early."""

    def __init__(self, clock: Clock, fire: Callable[[str], None]) -> None:
        self._clock = clock
        self._fire = fire
        self._due: dict[str, Millis] = {}
        self._heap: list[tuple[Millis, str]] = []  # may hold timers that were replaced since
        self._not_before: dict[str, Millis] = {}
        self._sleep: trio.CancelScope | None = None
        self._news = trio.lowlevel.ParkingLot()

    def set(self, name: str, at: Millis | None) -> None:
        """Fire `name` at a time, or not at all."""
        if at is None:
            self._due.pop(name, None)
            return
        at = max(at, self._not_before.get(name, at))
        self._due[name] = at
        if len(self._heap) > 2 * len(self._due) + SLACK:
            self._heap = [(due, each) for each, due in self._due.items() if each != name]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (at, name))
        if self._heap[0] == (at, name):
            self._wake()

    def hold(self, name: str, until: Millis) -> None:
        """Do not fire `name` before a time, whoever sets it: its last firing did harm."""
        self._not_before[name] = until

    def clear(self) -> None:
        """Take all timers away; what is held stays held."""
        self._due.clear()
        self._heap.clear()
        self._wake()

    def _wake(self) -> None:
        self._news.unpark_all()
        if self._sleep is not None:
            self._sleep.cancel()

    async def run(self) -> None:
        """Fire until cancelled."""
        while True:
            while not self._heap:
                await self._news.park()
            with trio.CancelScope() as self._sleep:
                await self._clock.sleep_until(self._heap[0][0])
            self._sleep = None
            self._fire_due()

    def _fire_due(self) -> None:
        now = self._clock.now()
        while self._heap and self._heap[0][0] <= now:
            at, name = heapq.heappop(self._heap)
            if self._due.get(name) == at:
                del self._due[name]
                self._fire(name)
