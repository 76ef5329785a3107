"""The simulated network: ordered bytes, random pieces, cuts that heal, machines that vanish."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import trio
import trio.testing

from node.ports import Transport
from node.transport import Unreachable, WrongPeer
from simulations.connection import GIVE_UP_S, WINDOW_BYTES, Weather
from simulations.kernel import Kernel, draws, run
from simulations.network import CONNECT_TIMEOUT_S, Network, SimTransport
from simulations.trace import Trace

T = TypeVar("T")

KEY = {"a": b"a" * 32, "b": b"b" * 32}


class Pair:
    """Machine `a`, which dials, and machine `b`, which listens; the far end of each stream."""

    def __init__(self, kernel: Kernel, seed: int = 1, weather: Weather | None = None) -> None:
        self.kernel = kernel
        self.trace = Trace(keep=1000)
        self.network = Network(kernel, seed, self.trace, weather or Weather())
        self.a = SimTransport(self.network, "a", KEY["a"])
        self.b: Transport = SimTransport(self.network, "b", KEY["b"])
        self.far: list[tuple[trio.abc.Stream, bytes | None]] = []

    async def hold(self, stream: trio.abc.Stream, key: bytes | None) -> None:
        self.far.append((stream, key))
        await trio.sleep_forever()

    async def connect(self, present: bool = True) -> tuple[trio.abc.Stream, trio.abc.Stream]:
        near = await self.a.dial("b", KEY["b"], present)
        await trio.sleep(0.001)
        return near, self.far[-1][0]


def conversation(
    body: Callable[[Pair], Awaitable[T]], seed: int = 1, weather: Weather | None = None
) -> tuple[T, Trace]:
    async def main(kernel: Kernel) -> tuple[T, Trace]:
        pair = Pair(kernel, seed, weather)
        async with trio.open_nursery() as nursery:
            await nursery.start(pair.b.serve, pair.hold)
            result = await body(pair)
            nursery.cancel_scope.cancel()
        return result, pair.trace

    return run(main, seed=seed)


async def read(stream: trio.abc.Stream, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := await stream.receive_some(size - len(data))):
        data += more
    return data


def test_bytes_arrive_in_order_in_other_pieces() -> None:
    """Whatever the sizes of writes and reads, the bytes are the same, and they take a while."""
    sent = draws(1, "bytes").randbytes(300_000)

    async def body(pair: Pair) -> tuple[bytes, set[int]]:
        near, far = await pair.connect()
        got, sizes = bytearray(), []

        async def receive() -> None:
            while data := await far.receive_some(30_000):
                got.extend(data)
                sizes.append(len(data))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            for at in range(0, len(sent), 7001):
                await near.send_all(sent[at : at + 7001])
            await near.aclose()
        return bytes(got), set(sizes)

    (got, sizes), _ = conversation(body)
    assert got == sent
    assert len(sizes) > 10


class PatientKernel(Kernel):
    """A kernel under which trio's test tool may wait until all tasks are blocked."""

    def deadline_to_sleep_time(self, deadline: float) -> float:
        runner = trio._core._run.GLOBAL_RUN_CONTEXT.runner
        if runner.waiting_for_idle and not self._heap:
            return 0.0001
        return super().deadline_to_sleep_time(deadline)


def test_trios_own_tests_of_a_stream_pass() -> None:
    """The stream keeps every rule that trio checks of two-way streams."""

    async def main(kernel: Kernel) -> None:
        pair = Pair(kernel)

        async def make() -> tuple[trio.abc.Stream, trio.abc.Stream]:
            return await pair.connect()

        async def make_full() -> tuple[trio.abc.Stream, trio.abc.Stream]:
            near, far = await pair.connect()
            for end in (near, far):
                await end.send_all(bytes(WINDOW_BYTES))
            return near, far

        async with trio.open_nursery() as nursery:
            await nursery.start(pair.b.serve, pair.hold)
            await trio.testing.check_two_way_stream(make, make_full)
            nursery.cancel_scope.cancel()

    run(main, seed=1, kernel=PatientKernel())


def test_who_is_at_the_far_end_is_known() -> None:
    """A guardian shows its key, a wallet none, and a dialler insists on the key it expects."""

    async def body(pair: Pair) -> None:
        await pair.connect(present=True)
        await pair.connect(present=False)
        assert [key for _, key in pair.far] == [KEY["a"], None]
        with pytest.raises(WrongPeer):
            await pair.a.dial("b", KEY["a"], True)
        pair.b.retrust([(b"c" * 32, b"")])
        with pytest.raises(Unreachable, match="does not know us"):
            await pair.a.dial("b", KEY["b"], True)
        await pair.connect(present=False)
        pair.b.retrust([(KEY["a"], b"")])
        await pair.connect(present=True)

    conversation(body)


def test_nobody_listening_refuses_and_the_dark_times_out() -> None:
    """A machine that is up says no at once; one that is not there leaves the dialler waiting."""

    async def body(pair: Pair) -> None:
        with pytest.raises(Unreachable, match="Nobody listens"):
            await pair.b.dial("a", KEY["a"], True)
        before = pair.kernel.now
        with pytest.raises(Unreachable, match="within 10 seconds"):
            await pair.a.dial("nowhere", KEY["b"], True)
        assert pair.kernel.now - before > CONNECT_TIMEOUT_S
        pair.network.cut("a", "b")
        with pytest.raises(Unreachable, match="within 10 seconds"):
            await pair.a.dial("b", KEY["b"], True)

    conversation(body)


def test_a_sender_waits_for_a_slow_reader() -> None:
    """No more than a window is ever on the way, so a slow neighbour holds its sender back."""

    async def body(pair: Pair) -> None:
        near, far = await pair.connect()
        done: list[float] = []

        async def send() -> None:
            await near.send_all(bytes(3 * WINDOW_BYTES))
            done.append(pair.kernel.now)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.sleep(30)
            assert not done
            assert len(await read(far, WINDOW_BYTES)) == WINDOW_BYTES
            await trio.sleep(30)
            assert not done
            await read(far, 2 * WINDOW_BYTES)
        assert done

    conversation(body)


def test_a_reader_that_leaves_frees_the_sender_it_held_back() -> None:
    """To close without reading breaks the sender's end, however full the window was."""

    async def body(pair: Pair) -> None:
        near, far = await pair.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_broken, near)
            await trio.sleep(10)
            await far.aclose()

    async def expect_broken(near: trio.abc.Stream) -> None:
        with pytest.raises(trio.BrokenResourceError, match="has closed"):
            await near.send_all(bytes(3 * WINDOW_BYTES))

    conversation(body)


@pytest.mark.parametrize("healed", [True, False])
def test_a_cut_holds_bytes_back_until_it_heals_or_the_sender_gives_up(healed: bool) -> None:
    """What was sent into a cut arrives after it; after too long the sender's end breaks."""

    async def body(pair: Pair) -> None:
        near, far = await pair.connect()
        pair.network.partition(["a"], ["b"])
        await near.send_all(b"one")
        await trio.sleep(GIVE_UP_S - 10)
        await near.send_all(b"two")
        if healed:
            pair.network.heal("b")
            assert await read(far, 6) == b"onetwo"
            return
        await trio.sleep(20)
        with pytest.raises(trio.BrokenResourceError, match="too long"):
            await near.send_all(b"three")
        pair.network.heal()
        with trio.move_on_after(1000) as scope:
            await far.receive_some()
        assert scope.cancelled_caught  # half open: this end was never told

    conversation(body)


def test_a_cut_may_be_one_way() -> None:
    """Bytes back still arrive when only the way there is cut."""

    async def body(pair: Pair) -> None:
        near, far = await pair.connect()
        pair.network.cut("a", "b", one_way=True)
        await near.send_all(b"lost for now")
        await far.send_all(b"hello")
        assert await read(near, 5) == b"hello"
        pair.network.heal("a", "b")
        assert await read(far, 12) == b"lost for now"

    conversation(body)


def test_a_reset_breaks_both_ends() -> None:
    """After a reset neither end can send or receive, and a new connection can be made."""

    async def body(pair: Pair) -> None:
        near, far = await pair.connect()
        await near.send_all(b"unread")
        await trio.sleep(5)
        pair.network.reset("b", "a")
        for stream in (near, far):
            with pytest.raises(trio.BrokenResourceError, match="reset"):
                await stream.receive_some()
            with pytest.raises(trio.BrokenResourceError, match="reset"):
                await stream.send_all(b"x")
        await pair.connect()

    conversation(body)


def test_weather_may_reset_connections_by_itself() -> None:
    """With the chance at one, every connection is reset some time."""

    async def body(pair: Pair) -> None:
        near, _ = await pair.connect()
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await near.receive_some()

    conversation(body, weather=Weather(reset=1.0))


def test_a_power_cut_says_no_goodbye() -> None:
    """The far end hears nothing until it sends to the machine after its return."""

    async def body(pair: Pair) -> None:
        near, far = await pair.connect()
        pair.network.power_cut("b")
        with pytest.raises(trio.BrokenResourceError, match="power"):
            await far.send_all(b"x")
        with pytest.raises(OSError, match="power"):
            await pair.b.dial("a", KEY["a"], True)
        with trio.move_on_after(1000) as scope:
            await near.receive_some()
        assert scope.cancelled_caught
        await near.send_all(b"are you there?")
        await trio.sleep(5)
        assert not pair.network.is_up("b")
        SimTransport(pair.network, "b", KEY["b"])
        with pytest.raises(trio.BrokenResourceError, match="closed"):
            await near.receive_some()

    conversation(body)


def test_a_machine_is_on_the_network_once() -> None:
    """A second transport for a machine that is up is a mistake of the world, and refused."""

    async def body(pair: Pair) -> None:
        with pytest.raises(ValueError, match="already"):
            SimTransport(pair.network, "a", KEY["a"])

    conversation(body)


def test_every_link_has_its_own_latency() -> None:
    """Latency follows the seed and the link, both ways the same, not the order of asking."""
    first, second = Network(Kernel(), 1, Trace()), Network(Kernel(), 1, Trace())
    links = [("a", "b"), ("a", "c"), ("b", "c")]
    forwards = [first.latency(*link) for link in links]
    backwards = [second.latency(b, a) for a, b in reversed(links)]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) == 3


def test_the_trace_holds_no_bytes_of_a_conversation() -> None:
    """Lengths and digests tell runs apart; what was said does not lie in a trace."""

    async def body(pair: Pair) -> None:
        near, far = await pair.connect()
        await near.send_all(b"a secret")
        await read(far, 8)

    _, trace = conversation(body)
    assert not any("secret" in repr(line) for line in trace.lines)
    assert conversation(body)[1].hexdigest() == trace.hexdigest()
    assert conversation(body, seed=2)[1].hexdigest() != trace.hexdigest()
