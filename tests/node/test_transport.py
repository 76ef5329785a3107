"""Connections over loopback: who gets in, who is told what, and what a flood leaves standing."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from node.certificate import certificate_signature
from node.transport import Limits, Tls, Unreachable, WrongPeer, _origin, _shown
from protocol.errors import Refused
from protocol.keys import SigningKey

ANNA, BEN, CARLA, STRANGER = (SigningKey(bytes([i]) * 32) for i in range(1, 5))
ROSTER = [(key.public, certificate_signature(key)) for key in (ANNA, BEN, CARLA)]
LOCAL = "127.0.0.1:0"

Handler = Callable[[trio.abc.Stream, bytes | None], Awaitable[None]]


async def echo(stream: trio.abc.Stream, peer: bytes | None) -> None:
    await stream.send_all(peer or b"wallet")
    async for data in stream:
        await stream.send_all(data)


@asynccontextmanager
async def served(node: Tls, handler: Handler = echo) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(node.serve, handler)
        yield address
        nursery.cancel_scope.cancel()


async def greeting(stream: trio.abc.Stream) -> bytes:
    async with stream:
        return bytes(await stream.receive_some(100))


async def test_guardian_and_wallet() -> None:
    """A guardian is known by its key, a wallet by none; both are served."""
    anna = Tls(ANNA, ROSTER, listen=LOCAL)
    async with served(anna) as address:
        assert anna.bound == (address,)
        ben = Tls(BEN, ROSTER)
        assert await greeting(await ben.dial(address, ANNA.public, True)) == BEN.public
        assert await greeting(await ben.dial(address, ANNA.public, False)) == b"wallet"
        assert await greeting(await Tls().dial(address, ANNA.public, False)) == b"wallet"


async def test_megabytes_both_ways() -> None:
    """What goes in comes out, in order, and the end of it is seen."""
    sent = bytes(range(256)) * 8192

    async def collect(stream: trio.abc.Stream, peer: bytes | None) -> None:
        got = bytearray()
        while len(got) < len(sent):
            got += await stream.receive_some()
        await stream.send_all(got)

    async with served(Tls(ANNA, ROSTER, listen=LOCAL), collect) as address:
        stream = await Tls().dial(address, ANNA.public, False)
        await stream.send_all(sent)
        back = bytearray()
        async for data in stream:
            back += data
        assert back == sent
        await stream.aclose()


async def test_other_guardian_answers() -> None:
    """Being in the roster is not enough: it must be the guardian that was dialled."""
    async with served(Tls(ANNA, ROSTER, listen=LOCAL)) as address:
        for node, present in ((Tls(BEN, ROSTER), True), (Tls(), False)):
            with pytest.raises(WrongPeer, match=f"Somebody else answered at {address}"):
                await node.dial(address, CARLA.public, present)


async def test_stranger_answers() -> None:
    """A server that is not in the roster is refused even where its key was dialled."""
    async with served(Tls(STRANGER, [], listen=LOCAL)) as address:
        with pytest.raises(WrongPeer):
            await Tls(BEN, ROSTER).dial(address, STRANGER.public, True)


async def test_stranger_dials() -> None:
    """Who presents an unknown certificate is turned away, and learns it before sending."""
    async with served(Tls(ANNA, ROSTER, listen=LOCAL)) as address:
        with pytest.raises(Unreachable, match="hung up"):
            await Tls(STRANGER, ROSTER).dial(address, ANNA.public, True)
        assert await greeting(await Tls().dial(address, ANNA.public, False)) == b"wallet"


async def test_retrust() -> None:
    """A new roster lets its new guardian in and its former one no more; links that stand stay."""
    anna = Tls(ANNA, ROSTER[:2], listen=LOCAL)
    async with served(anna) as address:
        ben, carla = Tls(BEN, ROSTER), Tls(CARLA, ROSTER)
        link = await ben.dial(address, ANNA.public, True)
        with pytest.raises(Unreachable):
            await carla.dial(address, ANNA.public, True)
        anna.retrust([ROSTER[0], ROSTER[2]])
        assert await greeting(await carla.dial(address, ANNA.public, True)) == CARLA.public
        with pytest.raises(Unreachable):
            await ben.dial(address, ANNA.public, True)
        assert await greeting(link) == BEN.public


async def test_nobody_there() -> None:
    """A closed port and an impossible name are reported with the address, in a sentence."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable, match=f"{address}: connection refused"):
            await Tls().dial(address, ANNA.public, False)
    with pytest.raises(Unreachable, match="no possible name"):
        await Tls().dial(f"{'a' * 70}:1", ANNA.public, False)


async def test_port_taken() -> None:
    """Two nodes on one port: the second is refused with a hint."""
    async with served(Tls(ANNA, ROSTER, listen=LOCAL)) as address:
        with pytest.raises(Refused, match="address already in use") as caught:
            await Tls(BEN, ROSTER, listen=address).serve(echo)
        assert "choose another" in caught.value.hint


async def test_dials_out_only() -> None:
    """A node without an address listens nowhere."""
    node = Tls(ANNA, ROSTER)
    async with trio.open_nursery() as nursery:
        assert await nursery.start(node.serve, echo) == ()
        nursery.cancel_scope.cancel()
    with pytest.raises(ValueError, match="without a transport key"):
        await Tls(listen=LOCAL).serve(echo)
    with pytest.raises(ValueError, match="certificate"):
        await Tls().dial("127.0.0.1:1", ANNA.public, True)


async def test_silent_client(mock_clock: trio.testing.MockClock) -> None:
    """Who connects and says nothing is hung up on, and holds nobody else up."""
    async with served(Tls(ANNA, ROSTER, listen=LOCAL)) as address:
        host, port = address.split(":")
        silent = await trio.open_tcp_stream(host, int(port))
        assert await greeting(await Tls().dial(address, ANNA.public, False)) == b"wallet"
        mock_clock.jump(Limits().handshake_seconds + 1)
        assert await silent.receive_some() == b""
        await silent.aclose()


async def test_noise_at_the_door() -> None:
    """Bytes that are no TLS are hung up on, and the node stays up."""
    async with served(Tls(ANNA, ROSTER, listen=LOCAL)) as address:
        host, port = address.split(":")
        for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(70_000), b""):
            stream = await trio.open_tcp_stream(host, int(port))
            try:
                await stream.send_all(noise)
                await stream.send_eof()
                while await stream.receive_some():
                    pass
            except trio.BrokenResourceError:
                pass
            await stream.aclose()
        assert await greeting(await Tls().dial(address, ANNA.public, False)) == b"wallet"


async def test_silent_server(mock_clock: trio.testing.MockClock) -> None:
    """A machine that takes the call and never speaks counts as unreachable after a while."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = _shown(listener.socket.getsockname())

    async def expect() -> None:
        with pytest.raises(Unreachable, match="within 10 seconds"):
            await Tls().dial(address, ANNA.public, False)

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(expect)
        quiet = await listener.accept()
        await trio.testing.wait_all_tasks_blocked(0.01)
        mock_clock.jump(11)
    await quiet.aclose()


async def test_flood_of_silence() -> None:
    """Handshakes have a limit by address; guardians that are linked go on, and it passes."""
    limits = Limits(per_address_max=4)
    async with served(Tls(ANNA, ROSTER, listen=LOCAL, limits=limits)) as address:
        ben = Tls(BEN, ROSTER)
        link = await ben.dial(address, ANNA.public, True)
        host, port = address.split(":")
        flood = [await trio.open_tcp_stream(host, int(port)) for _ in range(8)]
        with pytest.raises(Unreachable):
            await Tls().dial(address, ANNA.public, False)
        assert await greeting(link) == BEN.public
        for stream in flood:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert await greeting(await Tls().dial(address, ANNA.public, False)) == b"wallet"


async def test_too_many_wallets() -> None:
    """Wallets fill their own room only: a guardian still gets in."""
    limits = Limits(wallets_max=2)
    async with served(Tls(ANNA, ROSTER, listen=LOCAL, limits=limits)) as address:
        wallet = Tls()
        held = [await wallet.dial(address, ANNA.public, False) for _ in range(2)]
        with pytest.raises(Unreachable, match="too busy"):
            await wallet.dial(address, ANNA.public, False)
        assert await greeting(await Tls(BEN, ROSTER).dial(address, ANNA.public, True)) == BEN.public
        for stream in held:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert await greeting(await wallet.dial(address, ANNA.public, False)) == b"wallet"


async def test_too_many_of_one_guardian() -> None:
    """One guardian cannot take every connection, and does not count under its address."""
    limits = Limits(per_guardian_max=3, per_address_max=2)
    anna = Tls(ANNA, ROSTER, listen=LOCAL, limits=limits)
    async with served(anna) as address:
        ben = Tls(BEN, ROSTER)
        held = [await ben.dial(address, ANNA.public, True) for _ in range(3)]
        with pytest.raises(Unreachable):
            await ben.dial(address, ANNA.public, True)
        carla = await Tls(CARLA, ROSTER).dial(address, ANNA.public, True)
        assert await greeting(carla) == CARLA.public
        for stream in held:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not anna._guardians
        assert not anna._at_address


async def test_lost_connection_ends_its_handler_only() -> None:
    """A wallet that vanishes in the middle breaks its own handler, not the node."""
    ended = trio.Event()

    async def watch(stream: trio.abc.Stream, peer: bytes | None) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(echo, stream, peer)
        finally:
            ended.set()

    async with served(Tls(ANNA, ROSTER, listen=LOCAL), watch) as address:
        stream = await Tls().dial(address, ANNA.public, False)
        await trio.aclose_forcefully(stream)
        await ended.wait()
        assert await greeting(await Tls().dial(address, ANNA.public, False)) == b"wallet"


async def test_our_own_errors_are_not_hidden() -> None:
    """A bug in a handler ends the node with that bug."""

    async def buggy(stream: trio.abc.Stream, peer: bytes | None) -> None:
        raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with (
            served(Tls(ANNA, ROSTER, listen=LOCAL), buggy) as address,
            await Tls().dial(address, ANNA.public, False),
        ):
            await trio.sleep_forever()


async def test_stop_listening() -> None:
    """When a node stops listening, new calls fail and those that stand go on."""
    anna = Tls(ANNA, ROSTER, listen=LOCAL)
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(anna.serve, echo)
        link = await Tls(BEN, ROSTER).dial(address, ANNA.public, True)
        anna.stop_listening()
        await trio.testing.wait_all_tasks_blocked(0.01)
        with pytest.raises(Unreachable, match="refused"):
            await Tls().dial(address, ANNA.public, False)
        assert await greeting(link) == BEN.public


async def test_goodbye_to_a_deaf_peer(mock_clock: trio.testing.MockClock) -> None:
    """Hanging up ends in time, however much is still unsent to somebody who reads nothing."""
    hung_up = trio.Event()

    async def talk(stream: trio.abc.Stream, peer: bytes | None) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(64 * 1024 * 1024))
            await trio.testing.wait_all_tasks_blocked(0.05)
            mock_clock.rate = 1000
            with trio.CancelScope(shield=True):  # the sender's error arrives first
                await stream.aclose()
            hung_up.set()

    async with served(Tls(ANNA, ROSTER, listen=LOCAL), talk) as address:
        stream = await Tls().dial(address, ANNA.public, False)
        await hung_up.wait()
        await trio.aclose_forcefully(stream)


def ipv6_works() -> bool:
    if not socket.has_ipv6:
        return False
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


@pytest.mark.skipif(not ipv6_works(), reason="this machine has no IPv6")
async def test_ipv6() -> None:
    """IPv6 works as IPv4 does, its addresses in brackets."""
    async with served(Tls(ANNA, ROSTER, listen="[::1]:0")) as address:
        assert address.startswith("[::1]:")
        assert await greeting(await Tls().dial(address, ANNA.public, False)) == b"wallet"


def test_origin() -> None:
    """A home's whole IPv6 network counts as one address; mapped IPv4 stays apart."""

    class Fake:
        def __init__(self, host: str) -> None:
            self.socket = self
            self.host = host

        def getpeername(self) -> tuple[str, int]:
            return self.host, 1

    def origin(host: str) -> str:
        return _origin(Fake(host))  # type: ignore[arg-type]

    assert origin("2001:db8::1") == origin("2001:db8::ffff:2") != origin("2001:db8:0:1::1")
    assert origin("fe80::1%eth0") == "fe80::/64"
    assert origin("192.0.2.1") == "192.0.2.1"
    assert origin("::ffff:192.0.2.1") == "192.0.2.1" != origin("::ffff:192.0.2.2")
