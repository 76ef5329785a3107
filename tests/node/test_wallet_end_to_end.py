"""The wallet's commands against five real nodes, on virtual time and streams in memory."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from node.commands.wallet import parser
from node.machine import Node
from node.store import SqliteStore
from node.wallet.acts import Acts
from node.wallet.returning import recover
from node.wallet.session import Ports
from protocol import cases, vault
from protocol.casework import Casework
from protocol.contract import Moment, PutRow, Stretch, Table
from protocol.custody import Settings
from protocol.errors import Refused, WrongSecret
from protocol.federation import Endpoint, draft, introduce, invite, sign_roster
from protocol.federation import Roster, Signed
from protocol.founding import FEDERATION_KEY, ROSTER_KEY
from protocol.guardian import Keys, open_core
from protocol.keys import SealingKey, SigningKey
from protocol.sealing import Cost
from protocol.verbs import codes

NAMES = ("ada", "ben", "cleo", "dev", "eve")
THRESHOLD = 3
START = 1_750_000_000_000


class VirtualClock:
    def now(self) -> int:
        return START + round(trio.current_time() * 1000)

    async def sleep_until(self, at: int) -> None:
        await trio.sleep(max(0, at - self.now()) / 1000)


class Inline:
    async def store(self, work: Callable[[], Any]) -> Any:
        await trio.lowlevel.checkpoint()
        return work()

    async def each(self, work: Callable[[Sequence[Any]], list[Any]], items: Sequence[Any]) -> Any:
        await trio.lowlevel.checkpoint()
        return list(work(items))

    async def compute(self, work: Callable[[], Any]) -> Any:
        await trio.lowlevel.checkpoint()
        return work()


class Draw:
    def draw(self, size: int) -> bytes:
        return os.urandom(size)


class Quiet:
    def changed(self, topic: str, id: bytes) -> None:
        pass

    async def notify(self, notice: object) -> None:
        await trio.lowlevel.checkpoint()


@dataclass
class Exchange:
    """Addresses and who listens there; `down` are those that nobody reaches."""

    handlers: dict[str, Any] = field(default_factory=dict)
    nurseries: dict[str, trio.Nursery] = field(default_factory=dict)
    down: dict[str, bool] = field(default_factory=dict)


class Loop:
    """Fill the Transport port with streams in memory."""

    def __init__(self, exchange: Exchange, address: str = "", key: bytes | None = None) -> None:
        self._exchange, self._address, self._key = exchange, address, key

    async def dial(self, address: str, key: bytes, present: bool) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if address not in self._exchange.handlers or self._exchange.down.get(address):
            raise OSError("nobody is there")
        near, far = trio.testing.memory_stream_pair()
        self._exchange.nurseries[address].start_soon(
            self._serve_one, address, far, self._key if present else None
        )
        return near

    async def _serve_one(self, address: str, stream: trio.abc.Stream, key: bytes | None) -> None:
        try:
            await self._exchange.handlers[address](stream, key)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async def serve(
        self, handler: Any, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with trio.open_nursery() as nursery:
            self._exchange.handlers[self._address] = handler
            self._exchange.nurseries[self._address] = nursery
            task_status.started((self._address,))
            try:
                await trio.sleep_forever()
            finally:
                del self._exchange.handlers[self._address]

    def retrust(self, trusted: object) -> None:
        pass


@dataclass
class Federation:
    """Five nodes that run, and a folder for wallets."""

    nodes: list[Node]
    roster: Roster
    exchange: Exchange
    folder: Path
    invite_file: Path

    def act(self, *arguments: str, home: str = "phone") -> Acts:
        options = parser().parse_args(
            [*arguments, "--home", str(self.folder / home), "--json", "--yes"]
        )
        ports = Ports(Loop(self.exchange), VirtualClock(), Draw(), Inline(), Cost.TOY)
        return Acts(options, ports)

    def file(self, name: str, text: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(0o600)
        return str(path)

    async def join(self, home: str) -> None:
        acts = self.act("join", "--no-backup", "--invite-file", str(self.invite_file), home=home)
        assert await acts.join() == 0

    async def back_up(self, secret: bytes, *more: str) -> int:
        await self.join("phone")
        arguments = ("--secret-file", self.file("secret", secret))
        name = ("--name-file", self.file("name", "Rosa Keller\n"))
        return await self.act("backup", *arguments, *name, *more).backup()

    async def vote(self, seats: Sequence[int]) -> None:
        """Wait for the code to be shown and have these guardians approve."""
        path = self.folder / "code"
        while not path.exists() or not path.read_text():  # noqa: ASYNC240
            await trio.sleep(0.05)
        code = path.read_text().strip()  # noqa: ASYNC240
        await trio.sleep(1)
        view = await self.nodes[seats[0]].ask("open", code=code)
        assert view["vaults"]
        await trio.sleep(1)
        for seat in seats:
            await self.nodes[seat].ask("approve", code=code, how="in person")

    async def recover(self, *more: str, seats: Sequence[int] = (0, 1, 2)) -> int:
        arguments = (
            "--output",
            str(self.folder / "back"),
            "--code-file",
            str(self.folder / "code"),
        )
        if "--name-file" not in more:
            more = (*more, "--name-file", self.file("name", "Rosa Keller\n"))
        codes: list[int] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.vote, seats)
            codes.append(await recover(self.act("recover", *arguments, *more, home="new")))
        return codes[0]


def found(folder: Path) -> tuple[Roster, bytes, list[tuple[SigningKey, SealingKey, bytes]]]:
    keys, introductions = [], []
    for number, name in enumerate(NAMES):
        signing, sealing = SigningKey(os.urandom(32)), SealingKey(os.urandom(32))
        transport = os.urandom(32)
        introductions.append(
            introduce(
                signing,
                name=name,
                sealing=sealing.public,
                transport=transport,
                certificate=bytes(64),
                address=f"{name}:{number + 1}",
                contact="",
                languages=[],
                hours="",
                now=START,
            )
        )
        keys.append((signing, sealing, transport))
    roster = draft(
        "Keepers", THRESHOLD, introductions, now=START, nonce=bytes(16), waiting_default=0
    )
    signatures = tuple(sign_roster(signing, roster).raw[-64:] for signing, *_ in keys)
    return roster, Signed(roster, signatures).to_bytes(), keys


@pytest.fixture
async def federation(
    tmp_path: Path, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> AsyncIterator[Federation]:
    roster, signed, keys = found(tmp_path)
    exchange, nodes = Exchange(), []
    for number, (signing, sealing, transport) in enumerate(keys):
        me = introduce(
            signing,
            name=NAMES[number],
            sealing=sealing.public,
            transport=transport,
            certificate=bytes(64),
            address=f"{NAMES[number]}:{number + 1}",
            contact="",
            languages=[],
            hours="",
            now=START,
        )
        store = SqliteStore(str(tmp_path / f"{NAMES[number]}.db"))
        for key, value in ((ROSTER_KEY, signed), (FEDERATION_KEY, roster.id)):
            row = PutRow(Table.META, key, value)
            store.transact(lambda transaction, row=row: transaction.apply(row))
        node_keys = Keys(signing, (sealing,))
        nodes.append(
            Node(
                lambda ledger, me=me, node_keys=node_keys: open_core(
                    ledger, me, node_keys, Settings()
                ),
                store=store,
                transport=Loop(exchange, f"{NAMES[number]}:{number + 1}", transport),
                clock=VirtualClock(),
                entropy=Draw(),
                workers=Inline(),
                human=Quiet(),
                jobs={Stretch: codes},
                software="holdfast test",
            )
        )
    points = {
        seat: Endpoint(f"{name}:{seat + 1}", keys[seat][2]) for seat, name in enumerate(NAMES)
    }
    line = tmp_path / "invite"
    line.write_text(invite(roster.id, roster, points).to_text())
    for node in nodes:
        await nursery.start(node.run)
    await trio.sleep(5)
    yield Federation(nodes, roster, exchange, tmp_path, line)
    nursery.cancel_scope.cancel()


def events(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def of(kind: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in found if event["event"] == kind]


async def test_a_key_goes_round(federation: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    """Join, back up, lose the phone, and get the same bytes back on another device."""
    secret = b"0123456789abcdef0123456789abcdef\n"
    assert await federation.back_up(secret) == 0
    told = events(capsys)
    assert of("joined", told)[0]["guardians"] == list(NAMES)
    assert of("standing", told)[0]["sentence"] == "5 of 5 hold a piece; any 3 give your key back"

    await federation.join("new")
    assert await federation.recover() == 0

    told = events(capsys)
    assert (federation.folder / "back").read_bytes() == secret
    assert {vote["guardian"] for vote in of("vote", told)} == {"ada", "ben", "cleo"}
    assert {event["guardian"] for event in of("release", told)} == set(NAMES)
    assert of("recovered", told)[0]["form"] == "hex"
    assert of("succession", told)[0]["guardians"] == list(NAMES)
    assert of("standing", told)[-1]["held"] == list(NAMES)
