"""The kernel of a simulated world: virtual time, what is due when, and the ports made of both.

trio asks its clock how long to sleep exactly when no task can run. This clock then performs
the next event of its own heap or jumps to trio's next deadline, whichever is due first, so
that a run takes no real time and a month of waiting costs as much as a second. When neither
is left every task waits for another: a deadlock, which ends the run with a list of who waits
where.

Rules: an event's function is synchronous, short, and schedules tasks rather than acting as
one. Nothing here or above it reads a real clock. `trio.testing.wait_all_tasks_blocked` wakes
only after a jump and must not be used in a run.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, Final, TypeVar

import outcome
import trio

from simulations.determinism import draws as draws
from simulations.determinism import pins

T = TypeVar("T")
A = TypeVar("A")

NANOS_PER_S: Final = 1_000_000_000
START_MS: Final = 1_893_456_000_000  # 2030-01-01T00:00:00Z: when every simulated world begins
# Virtual times are floats of seconds; one that stands for a whole millisecond may lie a hair
# below it, and must not be read as the millisecond before. A microsecond covers 100 years.
ROUNDING_MS: Final = 0.001

WORK_MS_MAX: Final = 4.0  # a commit or a batch of signatures, on a machine that does little else
STALL_CHANCE: Final = 1 / 64  # of a slow commit or a starved thread
STALL_MS_MAX: Final = 250.0
WAKINGS_MAX: Final = 100  # of tasks that wait shielded while the run is being ended
DUMP_FRAMES: Final = 4  # innermost calls shown of each task that waits


class Deadlock(Exception):
    """Every task of the run waits for another, and nothing is due. `waiting` says who and where.

    A bug of the code that waits, or a world that promised an event and did not schedule it.
    """

    def __init__(self, time_s: float, waiting: str) -> None:
        super().__init__(
            f"at {time_s:.6f} s of virtual time every task waits and nothing is due:\n{waiting}"
        )
        self.waiting = waiting


class Kernel(trio.abc.Clock):
    """The clock of one run, which starts at 0.0 s, and the heap of what is due."""

    def __init__(self) -> None:
        self.events = 0  # performed so far
        self._now = 0.0
        self._order = 0
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._task: trio.lowlevel.Task | None = None
        self._scope: trio.CancelScope | None = None
        self._wakings = 0
        self._over = False
        self._failure: BaseException | None = None

    @property
    def now(self) -> float:
        """Seconds of virtual time since the run began."""
        return self._now

    @property
    def now_ns(self) -> int:
        """The same as whole nanoseconds, fit for a trace."""
        return round(self._now * NANOS_PER_S)

    def at(self, time: float, fn: Callable[[], object]) -> None:
        """Call `fn` once no task can run and `time` (s) has come; a past time means next.

        Events of one time happen in the order in which they were scheduled, and whatever
        one wakes runs before the next; a deadline of trio's at that time may come between.
        An error of `fn` ends the run.
        """
        if math.isnan(time):
            raise ValueError("an event needs a time; it was given not-a-number")
        self._order += 1
        heapq.heappush(self._heap, (max(time, self._now), self._order, fn))

    def after(self, delay: float, fn: Callable[[], object]) -> None:
        """Call `fn` as `at` does, `delay` seconds from now."""
        self.at(self._now + delay, fn)

    # What trio calls.

    def start_clock(self) -> None:
        """Nothing to do: virtual time stands still until everybody waits."""

    def current_time(self) -> float:
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Perform the next event or jump to the deadline. trio calls it with no task ready."""
        if self._over:
            return 0.0  # the run is being folded up; the heap is left as it is
        if self._heap and self._heap[0][0] <= deadline:
            self._now, _, fn = heapq.heappop(self._heap)
            self.events += 1
            try:
                fn()
            except BaseException as failure:
                self._end(failure)
        elif deadline < math.inf:
            self._now = max(self._now, deadline)
        else:
            self._end(Deadlock(self._now, describe_tasks(self._task)))
        return 0.0

    def _end(self, failure: BaseException) -> None:
        # An error raised to trio from here would count as trio's own and leave tasks behind.
        # So the run is cancelled, and the error raised by `_main` when all has unwound.
        if self._failure is None and self._scope is not None:
            self._failure = failure
            self._scope.cancel()
        elif self._task is not None and self._wakings < WAKINGS_MAX:
            # Somebody waits shielded from that.
            self._wakings += 1
            for task in _leaves(self._task):
                trio.lowlevel.reschedule(task, outcome.Error(failure))
        else:
            raise failure

    async def _main(self, main: Callable[..., Awaitable[T]], args: tuple[Any, ...]) -> T:
        # `_over` is set last: tasks of the main nursery are gone when it is.
        try:
            self._task = trio.lowlevel.current_task()
            with trio.CancelScope() as self._scope:
                result = await main(self, *args)
        except BaseException as error:
            if self._failure is not None and error is not self._failure:
                raise self._failure from error
            raise
        finally:
            self._over = True
        if self._failure is not None:
            raise self._failure
        return result


def run(
    main: Callable[..., Awaitable[T]], *args: Any, seed: int, kernel: Kernel | None = None
) -> T:
    """Run `await main(kernel, *args)` in virtual time, decided by `seed` alone, to its result.

    Call it from outside trio. A kernel serves one run; give one that has events scheduled
    already, or let a new one be made.

    Raises Deadlock when everybody waits, Nondeterminism when the run touches something that
    no seed decides, and whatever `main` or an event raises.
    """
    clock = kernel or Kernel()
    if clock._over:
        raise ValueError("this kernel has had its run; make a new one")
    with pins(seed):
        return trio.run(clock._main, main, args, clock=clock)


def describe_tasks(task: trio.lowlevel.Task | None = None) -> str:
    """List a task and all below it and where each waits; without one, every task of this run."""
    top = task or trio.lowlevel.current_root_task()
    return "" if top is None else "\n".join(_describe(top, 1))


def _describe(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    frames = [
        f"{frame.f_code.co_name} ({PurePath(frame.f_code.co_filename).name}:{line})"
        for frame, line in task.iter_await_frames()
        if not frame.f_globals.get("__name__", "").startswith("trio.")
    ]
    where = " > ".join(frames[-DUMP_FRAMES:]) or "not begun"
    yield f"{'  ' * depth}{task.name} waits in {where}"
    for nursery in task.child_nurseries:
        for child in sorted(nursery.child_tasks, key=_age):
            yield from _describe(child, depth + 1)


def _leaves(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    """Find the tasks that wait for no child of theirs."""
    children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    for child in sorted(children, key=_age):
        yield from _leaves(child)
    if not children:
        yield task


def _age(task: trio.lowlevel.Task) -> int:
    # trio keeps children in a set ordered by address; its own deterministic mode sorts by this.
    return int(getattr(task, "_counter", 0))


class SimClock:
    """Fill the Clock port of one machine: virtual UTC time plus what this machine is off by."""

    def __init__(self, kernel: Kernel, skew_ms: int = 0) -> None:
        self._kernel = kernel
        self._skew_ms = skew_ms
        self._stepped = trio.Event()

    @property
    def skew_ms(self) -> int:
        """By how much this clock is ahead of the true time; negative is behind."""
        return self._skew_ms

    def set_skew(self, skew_ms: int) -> None:
        """Let the clock jump; whoever sleeps until a time of it looks at it again."""
        self._skew_ms = skew_ms
        self._stepped.set()
        self._stepped = trio.Event()

    def now(self) -> int:
        """Return milliseconds since 1970, UTC, as this machine believes."""
        return START_MS + self._skew_ms + math.floor(self._kernel.now * 1000 + ROUNDING_MS)

    async def sleep_until(self, at: int) -> None:
        """Return when this clock shows `at` (ms, UTC) or later. A past time is a checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.now() < at:
            with trio.move_on_at((at - START_MS - self._skew_ms) / 1000):
                await self._stepped.wait()


class SimEntropy:
    """Fill the Entropy port from a stream of the seed: `SimEntropy(draws(seed, "entropy", 3))`."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def draw(self, size: int) -> bytes:
        """Return the next `size` bytes of the stream."""
        return self._rng.randbytes(size)


class InlineWorkers:
    """Fill the Workers port without threads: work takes random virtual time, then happens at once.

    The time passes before the work and cannot be cancelled, as with a thread that has begun.
    That order matters: code which sends before its write is durable is only caught while the
    write is still to come.
    """

    def __init__(self, rng: random.Random) -> None:
        self.slow_ms = 0  # on top of every write
        self._rng = rng
        self._storing = trio.Lock()  # hands over in the order of the calls

    async def store(self, work: Callable[[], T]) -> T:
        """Run `work` after a while, one call at a time, in the order of the calls."""
        async with self._storing:
            return await self._run(work, self.slow_ms)

    async def each(self, work: Callable[[Sequence[A]], list[T]], items: Sequence[A]) -> list[T]:
        """Return what `work` makes of the items, in their order, after a while."""
        return list(await self._run(lambda: work(items)))

    async def compute(self, work: Callable[[], T]) -> T:
        """Run one long computation after a while."""
        return await self._run(work)

    async def _run(self, work: Callable[[], T], more_ms: int = 0) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        stalls = self._rng.random() < STALL_CHANCE
        delay_ms = self._rng.random() * (STALL_MS_MAX if stalls else WORK_MS_MAX)
        with trio.CancelScope(shield=True):
            await trio.sleep((delay_ms + more_ms) / 1000)
        return work()
