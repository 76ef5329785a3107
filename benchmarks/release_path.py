"""From the last approval to the secret in the wallet's hands.

Seven guardians, five of whom must agree, each a process of its own; links and wallet over
TLS on loopback, stores on disk. Four have approved; the clock runs from the moment the fifth
says so until the wallet has the secret. Argon2id, whose cost is chosen, is at a toy's cost.

The floor does bare, one after the other, what five guardians and the wallet cannot do
without: the curve operations, a durable commit for each guardian, and a round trip over TLS
for each guardian but the one who approves (the vote comes, the piece goes).
"""

from __future__ import annotations

import os
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw
import nacl.bindings as sodium
import trio

from benchmarks import staging, wallets
from benchmarks.measuring import AT_MOST, Figure, Size
from benchmarks.sitting import Sitter, sit_down
from benchmarks.staging import LOOPBACK, Stage
from benchmarks.wallets import Line, Member
from node.certificate import context_client, context_server
from node.clock import SystemClock
from node.greeting import read_frame
from protocol.wallet import backing_up, recovering

GOAL: Final = 3.0
SEATS: Final = 7
THRESHOLD: Final = 5
VOTE_BYTES: Final = 432
RELEASE_BYTES: Final = 3_400
WAIT_S: Final = 30.0  # for anything: a node that hangs must not hang us


# --- the real thing --------------------------------------------------------------------


class Cast:
    """Seven nodes and a wallet's link to each."""

    def __init__(self, stage: Stage, addresses: list[str], folder: Path) -> None:
        self.stage = stage
        self.codec = stage.codec
        self._threshold = stage.roster.threshold
        self._addresses = addresses
        self._folder = folder
        self.sitters: list[Sitter] = []
        self.lines: list[Line] = []
        self._members = 0

    async def enter(self) -> None:
        for number, address in enumerate(self._addresses):
            home = self._folder / str(number)
            home.mkdir()
            store = staging.open_store(home)
            staging.write(store, self.stage.rows())
            store.close()
            self.sitters.append(await sit_down(number, address, home))
        for number, address in enumerate(self._addresses):
            key = self.stage.seats[number].transport.public
            self.lines.append(await wallets.call(address, key, self.stage.roster.id))
        for sitter in self.sitters:
            await _asked(sitter, lambda status: all(one["linked"] for one in status["guardians"]))

    async def leave(self) -> None:
        for line in self.lines:
            await line.close()
        for sitter in self.sitters:
            await sitter.leave()

    async def recover(self) -> float:
        """One member loses a phone; the seconds that the end of the story takes."""
        self._members += 1
        now = SystemClock().now()
        member = wallets.enrol(self.codec, self.stage.roster, self._members, now)
        await self._back_up(member)
        for line in self.lines:
            await line.request("claim", raw=member.claim.raw, code=member.code)
            await line.request("follow", claim=member.claim.id)
        await self.sitters[0].ask("open", code=member.code)
        for sitter in self.sitters[: self._threshold - 1]:
            await self._approve(sitter, member)
        await self._all_have_heard(member)
        return await self._last_approval(member)

    async def _back_up(self, member: Member) -> None:
        backup = member.backup
        for seat, one in member.deposits.items():
            fields = {"deal": one.deal, "version": one.version, "box": one.box, "whole": one.whole}
            answer = await self.lines[seat].request("deposit", **fields)
            backup = backing_up.take_receipt(
                self.codec, self.stage.roster, backup, seat, answer["receipt"]
            )
        settled = backing_up.settle(self.codec, backup).settled
        for line in self.lines:
            await line.request("settle", raw=settled)

    async def _approve(self, sitter: Sitter, member: Member) -> None:
        while True:
            try:
                await sitter.ask("approve", code=member.code, vault="1", how="in person")
                return
            except RuntimeError:
                await trio.sleep(0.02)  # the claim is on its way to this guardian

    async def _all_have_heard(self, member: Member) -> None:
        wanted = self._threshold - 1
        for sitter in self.sitters:
            await _asked(sitter, lambda case: case["approvals"] == wanted, "show", case=member.code)

    async def _last_approval(self, member: Member) -> float:
        recovery = recovering.Recovery(self.codec, self.stage.roster, member.claim, member.device)
        last = self.sitters[self._threshold - 1]
        found: list[float] = []
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + WAIT_S
            begun = time.perf_counter()

            async def listen(line: Line) -> None:
                while not found:
                    for frame in await line.reader.read_some():
                        kind, fields = read_frame(frame)
                        if kind == "release" and not found:
                            recovery.take_release(fields["raw"])
                            if wallets.open_vault(recovery, member.name) == wallets.SECRET:
                                found.append(time.perf_counter() - begun)
                                nursery.cancel_scope.cancel()

            for line in self.lines:
                nursery.start_soon(listen, line)
            await self._approve(last, member)
        return found[0]


async def _asked(
    sitter: Sitter, holds: Callable[[Any], bool], verb: str = "status", **args: Any
) -> None:
    with trio.fail_after(WAIT_S):
        while True:
            try:
                if holds(await sitter.ask(verb, **args)):
                    return
            except RuntimeError:
                pass  # the claim is on its way to this guardian
            await trio.sleep(0.02)


# --- bare ------------------------------------------------------------------------------


class Bare:
    """The operations without anything around them."""

    def __init__(self, folder: Path, echo: ssl.SSLSocket, seats: int, threshold: int) -> None:
        self._seats, self._threshold = seats, threshold
        self._echo = echo
        self._db = apsw.Connection(str(folder / "bare.db"))
        for pragma in ("locking_mode=exclusive", "journal_mode=wal", "synchronous=full"):
            self._db.execute("PRAGMA " + pragma)
        self._db.execute("CREATE TABLE entry (arrival INTEGER PRIMARY KEY, raw BLOB)")
        self._public, self._pair = sodium.crypto_sign_seed_keypair(bytes(32))
        self._scalar = bytes([7]) * 31 + b"\0"
        self._point = sodium.crypto_scalarmult_ed25519_base_noclamp(self._scalar)
        self._box = sodium.crypto_scalarmult_base(self._scalar)
        self._vote = sodium.crypto_sign(bytes(VOTE_BYTES), self._pair)
        self._release = sodium.crypto_sign(bytes(RELEASE_BYTES), self._pair)
        self._piece = sodium.crypto_box_seal(bytes(250), self._box)
        self._plain = bytes(RELEASE_BYTES - 300)
        self._sealed = sodium.crypto_box_seal(self._plain, self._box)

    def run(self) -> float:
        begun = time.perf_counter()
        sodium.crypto_sign(bytes(VOTE_BYTES), self._pair)
        self._guardian()
        for _ in range(self._threshold - 1):
            self._echo.sendall(bytes(VOTE_BYTES))
            sodium.crypto_sign_open(self._vote, self._public)
            self._guardian()
            got = 0
            while got < RELEASE_BYTES:
                got += len(self._echo.recv(65536))
        self._wallet()
        return time.perf_counter() - begun

    def _guardian(self) -> None:
        """Open the piece, seal it to the device, sign, and make it durable."""
        sodium.crypto_box_seal_open(self._piece, self._box, self._scalar)
        sodium.crypto_scalarmult_base(self._scalar)
        sodium.crypto_box(self._plain, bytes(24), self._box, self._scalar)
        release = sodium.crypto_sign(self._plain, self._pair)
        with self._db:
            self._db.execute("INSERT INTO entry (raw) VALUES (?)", (release,))

    def _wallet(self) -> None:
        """Check the deal and the version, then each release, and combine."""
        sodium.crypto_sign_open(self._vote, self._public)
        sodium.crypto_sign_open(self._vote, self._public)
        for _ in range(self._seats + self._threshold):
            sodium.crypto_scalarmult_ed25519_noclamp(self._scalar, self._point)
        for _ in range(self._seats + self._threshold - 2):
            sodium.crypto_core_ed25519_add(self._point, self._point)
        for _ in range(self._threshold):
            sodium.crypto_sign_open(self._release, self._public)
            sodium.crypto_box_seal_open(self._sealed, self._box, self._scalar)
            sodium.crypto_scalarmult_ed25519_base_noclamp(self._scalar)
        sodium.crypto_scalarmult_ed25519_base_noclamp(self._scalar)


@contextmanager
def _echoing(stage: Stage) -> Iterator[ssl.SSLSocket]:
    """A TLS connection to a process that answers a vote's length with a release's."""
    one, other = stage.seats[0], stage.seats[1]
    with socket.create_server((LOOPBACK, 0)) as server:
        child = os.fork()
        if not child:
            try:
                _serve(server, context_server(other.transport, [one.trusted]))
            finally:
                os._exit(0)
        with socket.create_connection(server.getsockname()) as tcp:
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context_client(one.transport, [other.trusted]).wrap_socket(tcp) as secured:
                yield secured
        os.waitpid(child, 0)


def _serve(server: socket.socket, context: ssl.SSLContext) -> None:
    tcp, _ = server.accept()
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(tcp, server_side=True) as secured:
        held = 0
        while data := secured.recv(65536):
            held += len(data)
            while held >= VOTE_BYTES:
                held -= VOTE_BYTES
                secured.sendall(bytes(RELEASE_BYTES))


# --- both ------------------------------------------------------------------------------


def measure(size: Size, rounds: int = 9) -> Figure:
    """Measure both, turn about."""
    rounds = size.pick(1, rounds, 3 * rounds)
    seats, threshold = size.pick(3, SEATS, SEATS), size.pick(2, THRESHOLD, THRESHOLD)
    ports = _free_ports(seats)
    stage = staging.found(seats, threshold, waiting=0, addresses=ports)
    with tempfile.TemporaryDirectory() as folder, _echoing(stage) as echo:
        bare = Bare(Path(folder), echo, seats, threshold)

        async def both() -> list[tuple[float, float]]:
            cast = Cast(stage, ports, Path(folder))
            await cast.enter()
            pairs = [(bare.run(), await cast.recover()) for _ in range(rounds + 1)]
            await cast.leave()
            return pairs[1:] or pairs  # the first one warms up

        pairs = trio.run(both)
    floor, measured = (statistics.median(values) * 1e3 for values in zip(*pairs, strict=True))
    slowest = max(value for _, value in pairs) * 1e3
    more = {"slowest": round(slowest, 2), "rounds": len(pairs)}
    return Figure("release_path", measured, floor, "ms", GOAL, AT_MOST, more=more)


def _free_ports(count: int) -> list[str]:
    sockets = [socket.create_server((LOOPBACK, 0)) for _ in range(count)]
    addresses = [f"{LOOPBACK}:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses
