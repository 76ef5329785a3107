"""A small federation of real processes on loopback, and members that talk to it over TLS."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from node import desk
from node.certificate import certificate_signature
from node.config import GuardianConfig, write_config
from node.daemon import CONFIG, INTRODUCTION, STORE
from node.keystore import SEEDS_BYTES, create, open_keystore, transport_key
from node.store import SqliteStore
from node.transport import Tls
from node.wallet.guardians import Link
from protocol.cases import CODE_SALT, claim_code
from protocol.contract import PutRow, Table
from protocol.errors import HoldfastError
from protocol.federation import (
    Endpoint,
    Roster,
    Signed,
    draft,
    introduce,
    introduction_text,
    sign_roster,
)
from protocol.founding import FEDERATION_KEY, ROSTER_KEY
from protocol.keys import SealingKey, SigningKey
from protocol.names import normalise
from protocol.sealing import Cost, stretch
from protocol.statements import Codec
from protocol.vault import Payload, Sealed
from protocol.verbs import REHEARSED_KEY
from protocol.wallet import backing_up, recovering
from protocol.wallet.backing_up import Backup
from protocol.wallet.drawing import Draws

PASSPHRASE = b"five random words are enough"
READY_S = 30.0  # for a process to answer after its start, on a busy machine


def now() -> int:
    return int(time.time() * 1000)


@dataclass
class Guardian:
    """One guardian: folder, port, and the process when it runs."""

    name: str
    seat: int
    home: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        passphrase = self.home.parent / "passphrase"
        words = ["-m", "node", "guardian", "run", "--home", str(self.home)]
        with (self.home.parent / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *words, "--passphrase-file", str(passphrase)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    async def ready(self) -> None:
        """Wait until the process answers at its desk."""
        assert self.process is not None
        with trio.fail_after(READY_S):
            while True:
                assert self.process.poll() is None, f"{self.name} ended by itself"
                try:
                    await self.ask("status")
                    return
                except HoldfastError:
                    await trio.sleep(0.02)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        (self.home / desk.SOCKET).unlink(missing_ok=True)

    async def ask(self, verb: str, **args: Any) -> Any:
        return await desk.ask(self.home, verb, args)

    def memory(self) -> int:
        """Resident bytes of the process, as the system counts them."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    @property
    def said(self) -> str:
        return (self.home.parent / f"{self.name}.log").read_text()


@dataclass
class Federation:
    """Guardians that can be started, and what members need to reach them."""

    folder: Path
    roster: Roster
    guardians: list[Guardian]
    transport: Tls = field(default_factory=Tls)
    links: list[Link] = field(default_factory=list)

    @property
    def codec(self) -> Codec:
        return Codec(self.roster.id)

    def endpoint(self, seat: int) -> Endpoint:
        guardian = self.roster.guardians[seat]
        return Endpoint(guardian.address, guardian.transport)

    async def start(self) -> None:
        for guardian in self.guardians:
            guardian.start()
        for guardian in self.guardians:
            await guardian.ready()

    def stop(self) -> None:
        for guardian in self.guardians:
            if guardian.process is not None and guardian.process.poll() is None:
                guardian.process.terminate()
        for guardian in self.guardians:
            if guardian.process is not None:
                try:
                    guardian.process.wait(10)
                except subprocess.TimeoutExpired:
                    guardian.process.kill()
                    guardian.process.wait()

    async def link(self, seat: int) -> Link:
        """A wallet's link to one guardian; close its stream."""
        at = self.endpoint(seat)
        stream = await self.transport.dial(at.address, at.transport, False)
        link = Link(stream, self.roster.named(seat))
        self.links.append(link)
        await link.greet(self.roster.id)
        return link

    async def hang_up(self, *links: Link | None) -> None:
        """Close these links, or all."""
        for link in links or tuple(self.links):
            if link is not None:
                self.links.remove(link)
                await trio.aclose_forcefully(link.stream)

    async def request(self, seat: int, kind: str, **fields: Any) -> dict[str, Any]:
        """One request over a link of its own. Raises the refusal."""
        link = await self.link(seat)
        try:
            return await link.ask(kind, fields)
        finally:
            with trio.CancelScope(shield=True):
                await self.hang_up(link)

    async def agree(self, seconds: float = 30.0) -> None:
        """Wait until every node has the same entries of every log."""
        with trio.fail_after(seconds):
            while True:
                views = [await guardian.ask("status") for guardian in self.guardians]
                counts = [[each["entries"] for each in view["guardians"]] for view in views]
                if all(count == counts[0] for count in counts):
                    return
                await trio.sleep(0.05)

    def member(self, name: str, secret: bytes = b"the key to everything") -> Person:
        return Person(self, name, secret)


@dataclass
class Person:
    """A member with the wallet's own core and cheap names."""

    federation: Federation
    name: str
    secret: bytes
    owner: SigningKey = field(default_factory=lambda: SigningKey(os.urandom(32)))
    backup: Backup | None = None
    sealed: Sealed | None = None
    receipts: dict[int, bytes] = field(default_factory=dict)

    @property
    def vault(self) -> bytes:
        assert self.backup is not None
        return bytes(self.federation.codec.read(self.backup.deal).body["vault"])

    def prepare(self) -> None:
        """Deal a vault, or write the next version under the deal that stands."""
        codec, roster, draws = self.federation.codec, self.federation.roster, Draws(os.urandom(32))
        spellings = (normalise(self.name),)
        payload = Payload(self.owner.seed, "raw", self.secret, "", spellings)
        if self.backup is not None:
            stretched = backing_up.stretch_names(spellings, None, self.backup.pepper, Cost.TOY)
            self.backup, self.sealed = backing_up.seal_again(
                codec, self.backup, payload, stretched,
                passphrase=False, now=now(), draws=draws,
            )  # fmt: skip
            return
        dealt = backing_up.deal(
            codec, roster, self.owner, backing_up.make_label(self.name),
            backing_up.policy_for(roster), now=now(), draws=draws,
        )  # fmt: skip
        stretched = backing_up.stretch_names(spellings, None, backing_up.pepper_of(dealt), Cost.TOY)
        self.backup, self.sealed = backing_up.seal(
            codec, roster, self.owner, dealt, payload, stretched,
            title="", passphrase=False, now=now(), draws=draws,
        )  # fmt: skip

    async def deposit(self, seat: int, link: Link | None = None) -> None:
        """Send one guardian its part and keep its receipt. Raises what comes instead."""
        assert self.backup is not None
        assert self.sealed is not None
        one = backing_up.deposits(self.federation.codec, self.backup, self.sealed.segments)[seat]
        fields = {"deal": one.deal, "version": one.version, "box": one.box, "whole": one.whole}
        if link is not None:
            answer = await link.ask("deposit", fields)
        else:
            answer = await self.federation.request(seat, "deposit", **fields)
        self.backup = backing_up.take_receipt(
            self.federation.codec, self.federation.roster, self.backup, seat, answer["receipt"]
        )

    async def back_up(self) -> None:
        self.prepare()
        for seat in self.federation.roster.seats:
            await self.deposit(seat)

    async def claim(self, seats: list[int]) -> NewPhone:
        codec, roster = self.federation.codec, self.federation.roster
        device = recovering.Device(SigningKey(os.urandom(32)), SealingKey(os.urandom(32)))
        claim = recovering.make_claim(
            codec, roster, device, self.name, now=now(), draws=Draws(os.urandom(32))
        )
        code = claim_code(stretch(claim.id, CODE_SALT, Cost.INTERACTIVE))
        phone = NewPhone(self.federation, self.name, device, claim, code)
        for seat in seats:
            await phone.send(seat)
        return phone


@dataclass
class NewPhone:
    """A device that claims."""

    federation: Federation
    name: str
    device: recovering.Device
    claim: Any
    code: str

    async def send(self, seat: int) -> None:
        await self.federation.request(seat, "claim", raw=self.claim.raw, code=self.code)

    async def open(self, seat: int) -> recovering.Recovered | None:
        """What the releases known at one guardian give back."""
        record = await self.federation.guardians[seat].ask("record", case=self.code)
        heard = recovering.Recovery(
            self.federation.codec, self.federation.roster, self.claim, self.device
        )
        for raw in record["releases"]:
            heard.take_release(raw)
        for candidate in heard.candidates():
            stretched = backing_up.stretch_names(
                (normalise(self.name),), None, candidate.pepper, Cost.TOY
            )
            key = recovering.unlock_name(candidate, stretched[0])
            if key is not None:
                return recovering.decrypt(candidate, key, [candidate.whole])
        return None


def _ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _make(folder: Path, names: tuple[str, ...], threshold: int) -> Federation:
    """Make the folders of a federation that is founded already, with cheap keystores."""
    introductions, identities, guardians = [], [], []
    (folder / "passphrase").write_bytes(PASSPHRASE + b"\n")
    (folder / "passphrase").chmod(0o600)
    for seat, (name, port) in enumerate(zip(names, _ports(len(names)), strict=True)):
        home = folder / name
        create(home, PASSPHRASE, os.urandom(SEEDS_BYTES), cost=Cost.TOY)
        keys, transport = open_keystore(home, PASSPHRASE), transport_key(home)
        address = f"127.0.0.1:{port}"
        introduction = introduce(
            keys.identity, name=name, sealing=keys.sealing[0].public, transport=transport.public,
            certificate=certificate_signature(transport), address=address, contact="",
            languages=[], hours="", now=now(),
        )  # fmt: skip
        (home / INTRODUCTION).write_text(introduction_text(introduction) + "\n")
        write_config(
            home / CONFIG, GuardianConfig(name=name, listen=address, advertise=address, log="json")
        )
        introductions.append(introduction)
        identities.append(keys.identity)
        guardians.append(Guardian(name, seat, home, port))
    roster = draft(
        "Elm Street", threshold, introductions, now=now(), nonce=bytes(16), waiting_default=0
    )
    signed = Signed(roster, tuple(sign_roster(key, roster).raw[-64:] for key in identities))
    rows: Mapping[bytes, bytes] = {
        ROSTER_KEY: signed.to_bytes(),
        FEDERATION_KEY: roster.id,
        REHEARSED_KEY: now().to_bytes(8, "big"),
    }
    for guardian in guardians:
        store = SqliteStore(str(guardian.home / STORE))

        def fill(transaction: Any) -> None:
            for key, value in rows.items():
                transaction.apply(PutRow(Table.META, key, value))

        store.transact(fill)
        store.close()
    return Federation(folder, roster, guardians)


@pytest.fixture
def found(tmp_path: Path) -> Iterator[Callable[..., Federation]]:
    """A maker of federations; what was started ends with the test."""
    made: list[Federation] = []

    def make(*names: str, threshold: int = 2) -> Federation:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(_make(folder, names or ("ada", "ben", "cleo"), threshold))
        return made[-1]

    yield make
    for federation in made:
        federation.stop()
