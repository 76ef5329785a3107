"""The kernel: one seed is one run, nothing real shines through, and nobody waits for ever."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import apsw
import nacl.public
import pytest
import trio

from node.ports import Clock, Entropy, Workers
from node.transport import Unreachable
from simulations import determinism
from simulations.determinism import Nondeterminism, TrioMoved, check_trio, pins
from simulations.disk import Disk, PowerCut
from simulations.kernel import (
    START_MS,
    Deadlock,
    InlineWorkers,
    Kernel,
    SimClock,
    SimEntropy,
    draws,
    run,
)
from simulations.network import Network, SimTransport
from simulations.trace import MARK_EVERY, Trace, divergence, encode

MACHINES = 4


class SmallWorld:
    """Machines that dial each other, keep what they hear on disk, and lose their power."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.trace = Trace()
        self.disks: list[Disk] = []

    async def main(self, kernel: Kernel) -> str:
        self.kernel = kernel
        self.network = Network(kernel, self.seed, self.trace)
        for i in range(MACHINES):
            self.disks.append(Disk(f"m{i}", draws(self.seed, "disk", i), trace=self.trace))
        with trio.move_on_after(30):
            async with trio.open_nursery() as nursery:
                for i in range(MACHINES):
                    nursery.start_soon(self.machine, i)
        self.trace(*[disk.content_hash() for disk in self.disks])
        return self.trace.hexdigest()

    async def machine(self, i: int) -> None:
        rng = draws(self.seed, "machine", i)
        disk = self.disks[i]
        while True:
            disk.cut_at = disk.ops + rng.randrange(20, 90)
            transport = SimTransport(self.network, f"m{i}", b"%032d" % i)
            try:
                await self.live(i, transport, rng)
            except* (PowerCut, apsw.Error):
                self.network.power_cut(f"m{i}")
            disk.crash()
            await trio.sleep(rng.random() * 3)

    async def live(self, i: int, transport: SimTransport, rng: random.Random) -> None:
        database = apsw.Connection("node.db", vfs=self.disks[i].vfs_name)
        workers = InlineWorkers(rng)

        async def hear(stream: trio.abc.Stream, key: bytes | None) -> None:
            try:
                while data := await stream.receive_some(100):
                    await workers.store(lambda: save(bytes(data)))
            except trio.BrokenResourceError:
                pass

        def save(data: bytes) -> None:
            database.execute("insert into heard values(?)", (data,))

        try:
            database.execute("pragma locking_mode=exclusive; pragma journal_mode=wal")
            database.execute("create table if not exists heard(data)")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(transport.serve, hear)
                nursery.start_soon(self.talk, i, transport, rng)
        finally:
            try:
                database.close(True)
            except PowerCut:
                pass

    async def talk(self, i: int, transport: SimTransport, rng: random.Random) -> None:
        while True:
            other = rng.randrange(MACHINES)
            await trio.sleep(rng.random())
            try:
                stream = await transport.dial(f"m{other}", b"%032d" % other, True)
                for _ in range(3):
                    await stream.send_all(rng.randbytes(150))
                await stream.aclose()
            except (OSError, Unreachable, trio.BrokenResourceError):
                self.trace("unreachable", self.kernel.now_ns, i, other)


def small_world(seed: int) -> str:
    world = SmallWorld(seed)
    try:
        return run(world.main, seed=seed)
    finally:
        for disk in world.disks:
            disk.close()


def in_process_with(hash_seed: str) -> subprocess.Popen[str]:
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['small_world'](7))"
    return subprocess.Popen(
        [sys.executable, "-c", code, __file__],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_one_seed_is_one_run_in_every_process() -> None:
    """A run can be replayed elsewhere: hash order, addresses and earlier runs do not matter."""
    children = [in_process_with(hash_seed) for hash_seed in ("0", "1", "random")]
    traces = [small_world(7), small_world(7)]
    traces += [child.communicate(timeout=60)[0].strip() for child in children]

    assert [traces[0]] * 5 == traces


def test_other_seeds_are_other_runs() -> None:
    """Every seed gives a world of its own."""
    assert len({small_world(seed) for seed in range(5)}) == 5


def test_streams_of_draws_are_independent() -> None:
    """A stream depends on its seed and its labels alone, and labels do not run together."""
    assert draws(1, "link", 2).random() == draws(1, "link", 2).random()
    different = [draws(1, "link", 2), draws(2, "link", 2), draws(1, "link2"), draws(1, "link", "2")]
    assert len({rng.random() for rng in different}) == 4


def test_a_month_takes_no_time() -> None:
    """Sleepers wake exactly when they asked to, in order, whatever the distance."""
    woken: list[float] = []

    async def sleeper(until: float) -> None:
        await trio.sleep_until(until)
        woken.append(trio.current_time())

    async def main(kernel: Kernel) -> float:
        async with trio.open_nursery() as nursery:
            for until in (30 * 86400.1, 0.1, 3.3):
                nursery.start_soon(sleeper, until)
        return kernel.now

    assert run(main, seed=1) == 30 * 86400.1
    assert woken == [0.1, 3.3, 30 * 86400.1]


def test_events_happen_in_order_and_never_early() -> None:
    """Events of one moment keep the order in which they were scheduled."""
    seen: list[str] = []

    async def main(kernel: Kernel) -> None:
        kernel.at(2.0, lambda: seen.append("second"))
        kernel.at(2.0, lambda: seen.append("third"))
        kernel.after(1.0, lambda: seen.append("first"))
        await trio.sleep(1.5)
        seen.append("task")
        await trio.sleep(1.5)

    run(main, seed=1)
    assert seen == ["first", "task", "second", "third"]


def test_an_error_of_an_event_ends_the_run_as_itself() -> None:
    """What an event raises reaches the caller unwrapped, after the tasks have unwound."""
    unwound: list[bool] = []

    async def main(kernel: Kernel) -> None:
        kernel.at(1.0, lambda: 1 // 0)
        try:
            await trio.sleep(5)
        finally:
            unwound.append(True)

    with pytest.raises(ZeroDivisionError):
        run(main, seed=1)
    assert unwound == [True]


def test_deadlock_says_who_waits_where() -> None:
    """When everybody waits for another the run ends and names the tasks and their lines."""

    async def waits_for_a_key() -> None:
        await trio.Event().wait()

    async def main(kernel: Kernel) -> None:
        await trio.sleep(2.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits_for_a_key)

    with pytest.raises(Deadlock) as caught:
        run(main, seed=1)
    assert "at 2.500000 s" in str(caught.value)
    assert "waits_for_a_key (test_kernel.py:" in caught.value.waiting


def test_deadlock_of_a_shielded_task_is_reported_too() -> None:
    """Not even a task that cannot be cancelled makes a run hang."""

    async def main(kernel: Kernel) -> None:
        with trio.CancelScope(shield=True):
            await trio.Event().wait()

    with pytest.raises(Deadlock):
        run(main, seed=1)


def test_a_kernel_serves_one_run() -> None:
    """A used kernel is refused, since its time would not begin at zero."""
    kernel = Kernel()

    async def main(kernel: Kernel) -> None:
        await trio.sleep(1)

    run(main, seed=1, kernel=kernel)
    with pytest.raises(ValueError, match="had its run"):
        run(main, seed=1, kernel=kernel)


FORBIDDEN: list[tuple[str, Callable[[], Any]]] = [
    ("os.urandom", lambda: os.urandom(4)),
    ("_urandom", lambda: secrets.token_bytes(4)),
    ("_urandom", lambda: random.SystemRandom().random()),
    ("os.urandom", uuid.uuid4),
    ("os.urandom", nacl.public.PrivateKey.generate),
    (
        "crypto_box_seal",
        lambda: nacl.public.SealedBox(nacl.public.PrivateKey(b"7" * 32).public_key).encrypt(b""),
    ),
    ("random.Random() without a seed", lambda: random.Random()),
    ("random.choice", lambda: random.choice([1, 2])),
    ("time.time", lambda: time.time()),
    ("time.time_ns", lambda: time.time_ns()),
    ("time.monotonic", lambda: time.monotonic()),
    ("time.sleep", lambda: time.sleep(0)),
    ("time.localtime", lambda: time.localtime()),
    ("Thread.start", lambda: threading.Thread(target=print).start()),
]


@pytest.mark.parametrize(("name", "call"), FORBIDDEN, ids=[name for name, _ in FORBIDDEN])
def test_what_no_seed_decides_is_refused(name: str, call: Callable[[], Any]) -> None:
    """Clock, chance and threads fail at once, with the name and the line of the culprit."""

    async def main(kernel: Kernel) -> None:
        call()

    with pytest.raises(Nondeterminism, match=r"test_kernel\.py") as caught:
        run(main, seed=1)
    assert name in str(caught.value)


def test_a_worker_thread_of_trio_is_refused() -> None:
    """trio's own threads are refused too, before one of them starts."""

    async def main(kernel: Kernel) -> None:
        await trio.to_thread.run_sync(print)

    with pytest.raises(Nondeterminism, match="Workers port"):
        run(main, seed=1)


def test_a_swallowed_breach_fails_the_run_all_the_same() -> None:
    """Code that catches every error cannot hide that it looked at the clock."""

    async def main(kernel: Kernel) -> None:
        try:
            time.time()
        except Exception:
            await trio.sleep(1)

    with pytest.raises(Nondeterminism, match=r"time\.time"):
        run(main, seed=1)


def test_the_shared_generator_is_watched_under_any_name() -> None:
    """A function of the module random that was bound before the run is noticed afterwards."""
    bound_before = random.random

    async def main(kernel: Kernel) -> None:
        bound_before()

    with pytest.raises(Nondeterminism, match="module random"):
        run(main, seed=1)


def test_pure_uses_of_the_calendar_are_let_through() -> None:
    """To break up a given time reads no clock."""

    async def main(kernel: Kernel) -> int:
        return time.gmtime(START_MS // 1000).tm_year

    assert run(main, seed=1) == 2030


def test_everything_is_put_back() -> None:
    """After a run, even one that failed, clock, chance and scheduler are as before."""
    scheduler = trio._core._run
    names = [(os, "urandom"), (time, "time"), (random.Random, "seed"), (threading.Thread, "start")]
    before = [getattr(owner, name) for owner, name in names]
    flag, state = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()

    with pytest.raises(Nondeterminism), pins(1):
        time.time()

    assert before == [getattr(owner, name) for owner, name in names]
    assert flag == scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    assert state == scheduler._r.getstate()


def test_the_private_names_of_trio_are_in_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """When trio moves what the simulator pins, the error says what moved and where to look."""
    check_trio()
    monkeypatch.delattr("trio._core._run._r")
    with pytest.raises(TrioMoved, match=r"trio\._core\._run\._r .*determinism\.py"):
        check_trio()


def test_the_private_names_of_trio_still_act() -> None:
    """The order of tasks ready at one moment follows the seed, and nothing but the seed."""

    async def order(kernel: Kernel) -> list[int]:
        seen: list[int] = []

        async def step(i: int) -> None:
            await trio.sleep(1)
            seen.append(i)

        async with trio.open_nursery() as nursery:
            for i in range(20):
                nursery.start_soon(step, i)
        return seen

    first = run(order, seed=1)
    assert all(run(order, seed=1) == first for _ in range(5))
    assert run(order, seed=2) != first


def test_observers_may_look_at_the_clock() -> None:
    """A test tool that measures from the same thread is no part of the run."""
    scope = {"__name__": "hypothesis.tool", "time": time}

    async def main(kernel: Kernel) -> float:
        return float(eval("time.time()", scope))  # noqa: S307

    assert run(main, seed=1) > 0
    assert "hypothesis" in determinism.OBSERVERS


def test_the_clock_of_a_machine_may_be_wrong_and_jump() -> None:
    """A sleeper wakes when its own machine's clock shows the time, also after a jump."""

    async def main(kernel: Kernel) -> list[tuple[int, float]]:
        wrong = SimClock(kernel, skew_ms=-500)
        kernel.at(2.0, lambda: wrong.set_skew(60_000))
        clock: Clock = wrong
        seen = []
        for at in (START_MS + 1, START_MS + 333, START_MS + 10_000):
            await clock.sleep_until(at)
            seen.append((clock.now() - at, kernel.now))
        return seen

    assert run(main, seed=1) == [(0, 0.501), (0, 0.833), (52_000, 2.0)]


def test_entropy_follows_its_stream() -> None:
    """Two machines with one stream draw the same keys; a replay depends on it."""
    ours: Entropy
    ours, theirs = SimEntropy(draws(1, "entropy")), SimEntropy(draws(1, "entropy"))
    assert ours.draw(32) == theirs.draw(32) != ours.draw(32)


def test_work_takes_time_before_it_happens_and_is_never_abandoned() -> None:
    """A cancelled caller's work still happens, later, and stores keep the order of the calls."""
    done: list[int] = []

    async def main(kernel: Kernel) -> None:
        workers: Workers = InlineWorkers(draws(1, "workers"))
        with trio.CancelScope() as scope:
            kernel.after(0.00001, scope.cancel)
            await workers.store(lambda: done.append(0))
        assert done == [0]
        assert kernel.now > 0.00001
        async with trio.open_nursery() as nursery:
            for i in range(1, 9):
                await nursery.start(in_order, workers, i)
        assert await workers.each(lambda items: [2 * item for item in items], [1, 2]) == [2, 4]
        assert await workers.compute(lambda: 7) == 7

    async def in_order(workers: Workers, i: int, task_status: Any) -> None:
        task_status.started()
        await workers.store(lambda: done.append(i))

    run(main, seed=1)
    assert done == list(range(9))


def test_a_trace_takes_only_what_is_the_same_in_every_run() -> None:
    """Objects and floats are refused; fields do not run together."""
    assert encode((1, "a", b"a", None, True)) == b"5;i1;s1:ab1:ant"
    assert encode(("ab", "c")) != encode(("a", "bc"))
    for wrong in (1.5, [1], object()):
        with pytest.raises(TypeError, match="a trace takes"):
            encode((wrong,))  # type: ignore[arg-type]


@pytest.mark.parametrize(("keep", "found"), [(0, MARK_EVERY), (1000, MARK_EVERY + 9)])
def test_traces_say_where_they_part(keep: int, found: int) -> None:
    """The marks narrow a divergence down to a stretch, kept lines to the event."""
    first, second = Trace(keep), Trace(keep)
    for i in range(3 * MARK_EVERY):
        first("event", i)
        second("event", i if i < MARK_EVERY + 9 else -i)
    assert divergence(first, second) == found
    assert divergence(first, first) is None
