"""Garbage on the port of a real node: it stays up, its memory bounded, and serves the honest.

Everything here comes from loopback addresses alone.
"""

from __future__ import annotations

import random
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

import trio

from node.certificate import context_client
from node.framing import FRAME_BYTES_MAX, pack
from node.greeting import Hello
from node.transport import Limits

STRANGER = "127.0.0.2"  # another machine, as far as the node can tell
OPENS = 10_000
GROWTH_MAX = 96 * 1024 * 1024
"""Bytes of memory that no flood may exceed: handshakes and links, and what those that ended
leave behind until they are collected, which levels off at 60 MB."""
LIMITS = Limits()


async def _connect(federation: Any, seat: int = 0, origin: str = STRANGER) -> trio.SocketStream:
    stream: trio.SocketStream = await trio.open_tcp_stream(
        "127.0.0.1", federation.guardians[seat].port, local_address=origin
    )
    return stream


async def _secured(federation: Any) -> trio.SSLStream[trio.SocketStream]:
    """A connection like a wallet's, past TLS and its welcome."""
    tcp = await _connect(federation)
    secured = trio.SSLStream(tcp, context_client(), https_compatible=False)
    await secured.do_handshake()
    assert await secured.receive_some(2) == b"ok"
    return secured


async def _ends(stream: trio.abc.Stream, seconds: float) -> bool:
    """Whether the other side hangs up in time."""
    with trio.move_on_after(seconds):
        try:
            while await stream.receive_some():
                pass
        except (trio.BrokenResourceError, ssl.SSLError):
            pass
        return True
    return False


async def _serves(federation: Any) -> None:
    """An honest member backs up with the guardian under attack."""
    person = federation.member("Rosa Keller")
    person.prepare()
    with trio.fail_after(10):
        await person.deposit(0)
    assert 0 in person.backup.receipts


async def test_bytes_that_mean_nothing(found: Callable[..., Any]) -> None:
    """Before TLS and within it: random bytes, huge lengths, half a message, the wrong order."""
    federation = found()
    federation.guardians[0].start()
    await federation.guardians[0].ready()
    rng = random.Random(4)
    for size in (1, 5, 100, 5_000, 100_000):
        stream = await _connect(federation)
        try:
            await stream.send_all(rng.randbytes(size))
            assert size < 5 or await _ends(stream, LIMITS.handshake_seconds + 3)
        except trio.BrokenResourceError:
            pass  # it hung up while we were still talking
        await trio.aclose_forcefully(stream)
    hello = Hello("garbage", federation.roster.id, "wallet").to_frame()
    nonsense = [
        struct.pack("!I", 2**32 - 1),
        struct.pack("!I", FRAME_BYTES_MAX + 1) + bytes(100),
        struct.pack("!I", 3) + b"\xc1\xc1\xc1",
        struct.pack("!I", 6) + b"\xdd\xff\xff\xff\xff\xc0",  # an array of four billion
        struct.pack("!I", 6) + b"\xc6\xff\xff\xff\xff\xc0",  # bytes, four billion of them
        pack(["deposit", {}]),
        hello + pack(["entries", {"raws": [], "check": False}]),
        hello + pack(["deposit", {"request": 1, "deal": b"x"}]),
        hello + pack(["no such thing", {}]),
        hello + hello,
        hello + pack(["seen", {"request": 1, "raw": rng.randbytes(60_000)}])[:50_000],
    ]
    for each in nonsense:
        secured = await _secured(federation)
        await secured.send_all(each)
        if each is nonsense[-1]:
            await trio.aclose_forcefully(secured)
            continue
        assert await _ends(secured, 5), each[:40]
        await trio.aclose_forcefully(secured)

    await _serves(federation)
    assert "Traceback" not in federation.guardians[0].said
    assert federation.guardians[0].process.poll() is None
    await federation.hang_up()


async def test_half_a_handshake_and_a_slow_trickle(found: Callable[..., Any]) -> None:
    """Silent sockets and drips fill their own part of the door, and honest people get in."""
    federation = found()
    guardian = federation.guardians[0]
    guardian.start()
    await guardian.ready()
    before = guardian.memory()
    ours: list[trio.SocketStream] = []
    hello = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context_client().wrap_bio(*hello)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    first = hello[1].read()
    for number in range(LIMITS.per_address_max + 20):
        stream = await _connect(federation)
        ours.append(stream)
        try:
            # Half of the first message, all of it and then nothing, or nothing at all.
            await stream.send_all((first[: len(first) // 2], first, b"\x16")[number % 3])
        except trio.BrokenResourceError:
            pass  # beyond the share of one address it is closed at once

    await _serves(federation)

    async def drip(stream: trio.SocketStream) -> None:
        try:
            for byte in b"\x03\x01" * 50:
                await stream.send_all(bytes((byte,)))
                await trio.sleep(0.2)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async with trio.open_nursery() as nursery:
        for stream in ours:
            nursery.start_soon(drip, stream)
        with trio.fail_after(LIMITS.handshake_seconds + 5):
            for stream in ours:
                assert await _ends(stream, LIMITS.handshake_seconds + 5)
        nursery.cancel_scope.cancel()
    for stream in ours:
        await trio.aclose_forcefully(stream)

    assert guardian.memory() - before < GROWTH_MAX
    await _serves(federation)
    await federation.hang_up()


async def test_a_burst_of_ten_thousand_opens(found: Callable[..., Any]) -> None:
    """Ten thousand connections from one other address; the others go on, and memory stays."""
    federation = found()
    guardian = federation.guardians[0]
    guardian.start()
    await guardian.ready()
    await _serves(federation)
    before = guardian.memory()
    peak = before

    async def flood(count: int) -> None:
        held: list[socket.socket] = []
        for number in range(count):
            one = socket.socket()
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.bind((STRANGER, 0))
            one.connect_ex(("127.0.0.1", guardian.port))
            held.append(one)
            if number % 5 == 0:
                await trio.sleep(0.001)
            if len(held) >= 100:
                held.pop(0).close()
        for one in held:
            one.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood, OPENS)
        for _ in range(5):
            await _serves(federation)
            peak = max(peak, guardian.memory())
    peak = max(peak, guardian.memory())

    assert guardian.process.poll() is None
    assert peak - before < GROWTH_MAX
    await _serves(federation)
    assert "Traceback" not in guardian.said
    await federation.hang_up()


async def test_wallets_that_do_not_read(found: Callable[..., Any]) -> None:
    """Requests without end, their answers never read: the link ends, memory stays bounded."""
    federation = found()
    guardian = federation.guardians[0]
    guardian.start()
    await guardian.ready()
    before = guardian.memory()

    async def shout() -> None:
        secured = await _secured(federation)
        try:
            await secured.send_all(Hello("shout", federation.roster.id, "wallet").to_frame())
            frame = pack(["roster", {"request": 1}])
            for _ in range(2_000):
                await secured.send_all(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(secured)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(shout)
        await _serves(federation)
        with trio.move_on_after(2):
            await trio.sleep_forever()
        assert guardian.memory() - before < GROWTH_MAX
        nursery.cancel_scope.cancel()
    await _serves(federation)
    await federation.hang_up()
