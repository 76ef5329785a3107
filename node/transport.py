"""Reach other machines over TLS 1.3, and be reached, with every key checked.

Safety never rests here: what matters is signed, and secrets are sealed. TLS tells guardians
apart, so that a link can be counted, limited and blamed, and keeps strangers from reading who
talks about what. The address of a machine means nothing; the key at its far end does.

One connection, from either side:

    dial                                   accept
    TCP ── refused while too many are at the door
    TLS 1.3 ── our certificate, if we are a guardian and say so
    key compared with the one dialled      certificate found in the trust store, or none shown
              <──────── "ok" ────────────  room for one more of its kind
    connected                              handler called

The client of TLS 1.3 believes itself connected before the server has looked at its
certificate; hence the two bytes, and nothing counts before they have come.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import trio

from node.certificate import ALPN, context_client, context_server, key_of
from node.config import split_address
from node.ports import Handler, Trusted
from protocol.errors import HoldfastError, Refused
from protocol.keys import SigningKey

WELCOME: Final = b"ok"
BACKLOG: Final = 128  # connections the kernel holds until we take them: one burst of redials


class Unreachable(HoldfastError):
    """Nobody answered, or the connection broke before it stood. Try again later."""


class WrongPeer(Unreachable):
    """Somebody answered who does not hold the key that was dialled. Nothing was sent to them.

    The address is out of date, or somebody stands in between.
    """


@dataclass(frozen=True, slots=True)
class Limits:
    """What one node spends on connections. A flood fills its own part and no other."""

    dial_seconds: float = 10.0  # from the first packet to "ok": three retries of a lost packet
    handshake_seconds: float = 5.0  # a slow telephone needs two; a silent socket gets no more
    close_seconds: float = 2.0  # for a polite goodbye to somebody who may have gone
    handshakes_max: int = 64  # at a time, 1.3 ms of a core each
    wallets_max: int = 256  # at a time: a quarter of the 1,024 files a process may open
    per_address_max: int = 48  # handshakes and wallets: a household behind one router, not more
    per_guardian_max: int = 8  # both dial, and lost connections take a while to be noticed


class Tls:
    """Fill the Transport port with sockets.

    `key` is the transport key; a wallet has none and can only dial. `trusted` are pairs of
    transport key and certificate signature of the guardians let in. `listen` is `host:port`
    (an empty host means every address of the machine, port 0 any free one), or empty for
    nodes that only dial out.
    """

    def __init__(
        self,
        key: SigningKey | None = None,
        trusted: Trusted = (),
        *,
        listen: str = "",
        limits: Limits | None = None,
    ) -> None:
        self._key = key
        self._listen = listen
        self._limits = limits or Limits()
        self._anonymous = context_client()
        self._bound: tuple[str, ...] = ()
        self._handshakes = 0
        self._wallets = 0
        self._at_address: Counter[str] = Counter()
        self._guardians: Counter[bytes] = Counter()
        self._listening = trio.CancelScope()
        self.retrust(trusted)

    @property
    def bound(self) -> tuple[str, ...]:
        """Where we listen, as `host:port` with the ports that were found; empty before."""
        return self._bound

    def retrust(self, trusted: Trusted) -> None:
        """Accept these guardians' certificates from now on, and no others.

        Connections that stand are not touched: ending those of a guardian who has left is
        the business of whoever keeps the links.
        """
        if self._key is None:
            return
        self._accepting = context_server(self._key, trusted)
        self._presenting = context_client(self._key, trusted)

    async def dial(self, address: str, key: bytes, present: bool) -> trio.abc.Stream:
        """Return a stream to the holder of the transport key `key` at `host:port`.

        `present` shows our own certificate, as guardians do to guardians. Raises WrongPeer
        when somebody else is there, Unreachable when nobody is or we are turned away, both
        with a sentence that names the address; Refused when that is none.
        """
        if present and self._key is None:
            raise ValueError("only a guardian has a certificate to present")
        context = self._presenting if present else self._anonymous
        host, port = split_address(address)
        limits = self._limits
        try:
            with trio.fail_after(limits.dial_seconds):
                tcp = await trio.open_tcp_stream(host or "localhost", port)
                return await _greet(tcp, context, key, address, limits.close_seconds)
        except trio.TooSlowError as error:
            raise Unreachable(
                f"Nobody answered at {address} within {limits.dial_seconds:g} seconds.",
                hint="Check that the guardian's machine is on and connected.",
            ) from error
        except (OSError, UnicodeError) as error:  # UnicodeError: no possible host name
            raise Unreachable(
                f"Nobody can be reached at {address}: {_because(error)}.",
                hint="Check the address, and that both machines are connected.",
            ) from error

    async def serve(
        self, handler: Handler, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Call `handler` for every stream that comes in, with the guardian's key, or None.

        The stream ends with the handler. A connection that breaks ends its handler only;
        every other error of a handler is ours and is raised. `task_status` gets `bound`.
        Runs until cancelled, or until `stop_listening` and the last handler's end. Raises
        Refused when the address cannot be listened on.
        """
        listeners = await self._open_listeners()
        self._bound = tuple(_shown(listener.socket.getsockname()) for listener in listeners)
        self._listening = trio.CancelScope()
        async with trio.open_nursery() as nursery:

            async def accepted(tcp: trio.SocketStream) -> None:
                await self._accept(tcp, handler)

            with self._listening:
                task_status.started(self._bound)
                if listeners:
                    await trio.serve_listeners(accepted, listeners, handler_nursery=nursery)
                await trio.sleep_forever()

    def stop_listening(self) -> None:
        """Take no more connections; those that stand go on. The first step of shutting down."""
        self._listening.cancel()

    async def _open_listeners(self) -> list[trio.SocketListener]:
        if not self._listen:
            return []
        if self._key is None:
            raise ValueError("a node without a transport key cannot listen")
        host, port = split_address(self._listen)
        try:
            return await trio.open_tcp_listeners(port, host=host or None, backlog=BACKLOG)
        except (OSError, UnicodeError) as error:
            busy = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            raise Refused(
                f"This machine cannot listen at {self._listen}: {_because(error)}.",
                hint="Another programme, or another guardian, uses this port: choose another."
                if busy
                else "Choose an address of this machine and a port above 1023.",
            ) from error

    async def _accept(self, tcp: trio.SocketStream, handler: Handler) -> None:
        address = _origin(tcp)
        if (
            self._handshakes >= self._limits.handshakes_max
            or self._at_address[address] >= self._limits.per_address_max
        ):
            await trio.aclose_forcefully(tcp)  # cheapest for us, and a clear sign to redial later
            return
        with self._counted(self._at_address, address):
            self._handshakes += 1
            try:
                entered = await self._handshake(tcp)
            finally:
                self._handshakes -= 1
            if entered is None:
                return
            stream, peer = entered
            if peer is None:
                await self._attend_wallet(stream, handler)
                return
        # A guardian is known by its key and counts under that, not under its address.
        with self._counted(self._guardians, peer):
            if self._guardians[peer] > self._limits.per_guardian_max:
                await trio.aclose_forcefully(stream)
                return
            await self._attend(stream, peer, handler)

    async def _handshake(self, tcp: trio.SocketStream) -> tuple[TlsStream, bytes | None] | None:
        """The stream and the key at its far end, or None when it was not to be."""
        secured = trio.SSLStream(tcp, self._accepting, server_side=True, https_compatible=False)
        try:
            with trio.fail_after(self._limits.handshake_seconds):
                await secured.do_handshake()
        except (trio.BrokenResourceError, trio.TooSlowError):
            # Without this the socket stays open, and the other side waits for ever.
            await trio.aclose_forcefully(tcp)
            return None
        except BaseException:
            await trio.aclose_forcefully(tcp)
            raise
        der = secured.getpeercert(binary_form=True)
        peer = key_of(der)
        stranger = der is not None and peer is None
        if stranger or secured.selected_alpn_protocol() != ALPN:
            await trio.aclose_forcefully(tcp)
            return None
        return TlsStream(secured, self._limits.close_seconds), peer

    async def _attend_wallet(self, stream: TlsStream, handler: Handler) -> None:
        if self._wallets >= self._limits.wallets_max:
            await trio.aclose_forcefully(stream)
            return
        self._wallets += 1
        try:
            await self._attend(stream, None, handler)
        finally:
            self._wallets -= 1

    async def _attend(self, stream: TlsStream, peer: bytes | None, handler: Handler) -> None:
        try:
            with trio.fail_after(self._limits.handshake_seconds):
                await stream.send_all(WELCOME)
        except (trio.BrokenResourceError, trio.TooSlowError):
            await trio.aclose_forcefully(stream)
            return
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        try:
            await handler(stream, peer)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the other side went away, or one of our tasks hung up: both end a connection
        finally:
            await stream.aclose()

    @contextmanager
    def _counted(self, counts: Counter[Any], key: object) -> Iterator[None]:
        counts[key] += 1
        try:
            yield
        finally:
            counts[key] -= 1
            if not counts[key]:
                del counts[key]  # a flood from many addresses leaves nothing behind


class TlsStream(trio.abc.Stream):
    """A stream whose errors are trio's own, and whose goodbye takes a bounded time."""

    def __init__(self, secured: trio.SSLStream[trio.SocketStream], close_seconds: float) -> None:
        self._secured = secured
        self._close_seconds = close_seconds

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._secured.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._secured.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._secured.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Say goodbye and hang up; only hang up when that takes too long."""
        with trio.move_on_after(self._close_seconds):
            try:
                await self._secured.aclose()
            except (trio.BrokenResourceError, OSError):
                pass  # it hung up before hearing our goodbye; the socket is closed all the same


async def _greet(
    tcp: trio.SocketStream, context: ssl.SSLContext, key: bytes, address: str, close_seconds: float
) -> TlsStream:
    """Bring up TLS on a fresh connection, and return once the other side has taken us in."""
    secured = trio.SSLStream(tcp, context, https_compatible=False)
    try:
        await secured.do_handshake()
        if key_of(secured.getpeercert(binary_form=True)) != key:
            raise _wrong_peer(address)
        if secured.selected_alpn_protocol() != ALPN:
            raise Unreachable(
                f"The node at {address} speaks another version of Holdfast.",
                hint="Bring both to the newest version.",
            )
        welcome = b""
        while len(welcome) < len(WELCOME) and WELCOME.startswith(welcome):
            data = await secured.receive_some(len(WELCOME) - len(welcome))
            if not data:
                break
            welcome += data
        if welcome != WELCOME:
            raise _turned_away(address)
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(tcp)
        if isinstance(error.__cause__, ssl.SSLCertVerificationError):
            raise _wrong_peer(address) from error
        raise _turned_away(address) from error
    except BaseException:
        await trio.aclose_forcefully(tcp)
        raise
    return TlsStream(secured, close_seconds)


def _wrong_peer(address: str) -> WrongPeer:
    return WrongPeer(
        f"Somebody else answered at {address}, not the guardian who was called. "
        "Nothing was told to them.",
        hint="Ask the guardian for their present address.",
    )


def _turned_away(address: str) -> Unreachable:
    return Unreachable(
        f"The node at {address} answered and then hung up: it is too busy, or does not know us.",
        hint="Try again in a minute; if it stays so, ask the guardian.",
    )


def _because(error: Exception) -> str:
    """A few words of the system's, without its numbers and addresses."""
    if not isinstance(error, OSError):
        return "that is no possible name of a machine"
    for each in (error, *_below(error)):
        if isinstance(each, socket.gaierror):
            return "nobody knows a machine of that name"
        if each.errno:
            return os.strerror(each.errno).lower()
    return "the network does not get there"


def _below(error: OSError) -> list[OSError]:
    """What happened at each of a name's addresses, which trio groups below one error."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return [each for each in cause.exceptions if isinstance(each, OSError)]
    return [cause] if isinstance(cause, OSError) else []


def _origin(tcp: trio.SocketStream) -> str:
    """What counts as one remote address: of IPv6 the half that names a network (RFC 6177)."""
    try:
        host = str(tcp.socket.getpeername()[0])
    except OSError:  # gone already
        return ""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _shown(name: tuple[Any, ...]) -> str:
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
