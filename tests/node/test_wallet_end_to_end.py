"""The wallet's commands against five real nodes, on virtual time and streams in memory."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from node.commands.wallet import parser, perform
from node.machine import Node
from node.ports import Transaction
from node.store import SqliteStore
from node.transport import Unreachable
from node.wallet.acts import Acts
from node.wallet.session import Ports
from protocol import cases, vault
from protocol.casework import Casework
from protocol.contract import Core, Ledger, Moment, PutRow, Stretch, Table, Verified
from protocol.custody import Settings
from protocol.errors import Locked, Refused, WrongSecret
from protocol.federation import Endpoint, Roster, Signed, draft, introduce, invite, sign_roster
from protocol.founding import FEDERATION_KEY, ROSTER_KEY
from protocol.guardian import Keys, open_core
from protocol.keys import SealingKey, SigningKey
from protocol.limits import DAY
from protocol.sealing import Cost
from protocol.verbs import codes

Capture = pytest.CaptureFixture[str]
Clock = trio.testing.MockClock  # a test has to ask for it itself, or it really sleeps

NAMES = ("ada", "ben", "cleo", "dev", "eve")
THRESHOLD = 3
START = 1_750_000_000_000


@dataclass
class VirtualClock:
    """The wall clock of everybody; `ahead` lets days go by at once, as after a long sleep."""

    ahead: int = 0

    def now(self) -> int:
        return START + self.ahead + round(trio.current_time() * 1000)

    async def sleep_until(self, at: int) -> None:
        await trio.lowlevel.checkpoint()
        while (left := at - self.now()) > 0:
            await trio.sleep(min(left, 30_000) / 1000)


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
    clock: VirtualClock
    folder: Path
    invite_file: Path

    def act(self, *arguments: str, home: str = "phone") -> Acts:
        options = parser().parse_args(
            [*arguments, "--home", str(self.folder / home), "--json", "--yes"]
        )
        ports = Ports(Loop(self.exchange), self.clock, Draw(), Inline(), Cost.TOY, Cost.TOY)
        return Acts(options, ports)

    def file(self, name: str, text: str | bytes) -> str:
        path = self.folder / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(0o600)
        return str(path)

    async def join(self, home: str) -> None:
        acts = self.act("join", "--no-backup", "--invite-file", str(self.invite_file), home=home)
        assert await perform(acts) == 0

    async def back_up(self, secret: bytes, *more: str) -> int:
        await self.join("phone")
        arguments = ("--secret-file", self.file("secret", secret))
        name = ("--name-file", self.file("name", "Rosa Keller\n"))
        return await perform(self.act("backup", *arguments, *name, *more))

    async def vote(self, seats: Sequence[int]) -> None:
        """Wait for the code to be shown and have these guardians approve."""
        path = self.folder / "code"
        while not path.exists() or not path.read_text():
            await trio.sleep(0.05)
        code = path.read_text().strip()
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
            codes.append(await perform(self.act("recover", *arguments, *more, home="new")))
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


def make_core(me: Verified, keys: Keys, ledger: Ledger) -> Core:
    return open_core(ledger, me, keys, Settings())


def put(row: PutRow, transaction: Transaction) -> None:
    transaction.apply(row)


@pytest.fixture
async def federation(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Federation]:
    roster, signed, keys = found(tmp_path)
    exchange, clock, nodes = Exchange(), VirtualClock(), []
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
            store.transact(partial(put, PutRow(Table.META, key, value)))
        nodes.append(
            Node(
                partial(make_core, me, Keys(signing, (sealing,))),
                store=store,
                transport=Loop(exchange, f"{NAMES[number]}:{number + 1}", transport),
                clock=clock,
                entropy=Draw(),
                workers=Inline(),
                human=Quiet(),
                jobs={Stretch: partial(codes, cost=Cost.TOY)},
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
    yield Federation(nodes, roster, exchange, clock, tmp_path, line)
    nursery.cancel_scope.cancel()


def events(capsys: Capture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def of(kind: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in found if event["event"] == kind]


async def test_a_key_goes_round(
    federation: Federation, capsys: Capture, autojump_clock: Clock
) -> None:
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


async def test_a_false_piece_is_named_and_a_dead_guardian_does_not_matter(
    federation: Federation,
    capsys: Capture,
    autojump_clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One guardian lies and one is dead: the key comes back, and the liar is named."""
    await federation.back_up(b"my will\n")
    await federation.join("new")
    honest = vault.release_plain

    def release_plain(piece: vault.Piece, *more: Any) -> bytes:
        if piece.share == shares[4]:
            piece = replace(piece, share=bytes([1]) + bytes(31))
        return honest(piece, *more)

    shares = {}
    original = Casework._release

    def release(self: Casework, at: Moment, *more: Any) -> None:
        if self.seat == 4:
            shares[4] = self.custody.piece(more[3]).share
        original(self, at, *more)

    shares[4] = b""
    monkeypatch.setattr(Casework, "_release", release)
    monkeypatch.setattr(vault, "release_plain", release_plain)
    federation.exchange.down["ben:2"] = True

    assert await federation.recover(seats=(0, 2, 3)) == 0

    told = events(capsys)
    assert (federation.folder / "back").read_bytes() == b"my will\n"
    assert [event["guardian"] for event in of("caught", told)] == ["eve"]
    assert of("standing", told)[-1]["missing"] == ["ben"]


async def test_a_large_file_comes_back_from_fragments(
    federation: Federation, capsys: Capture, autojump_clock: Clock
) -> None:
    """Half a megabyte travels as fragments, with a verification card beside it."""
    secret = os.urandom(500_000)
    card = ("--card-line-file", federation.file("line", "We met in Lisbon\n"))
    picture = ("--card-picture", federation.file("face.png", os.urandom(200_000)))
    assert await federation.back_up(secret, *card, *picture) == 0
    await federation.join("new")

    assert await federation.recover() == 0

    assert (federation.folder / "back").read_bytes() == secret
    assert of("recovered", events(capsys))[0]["form"] == "file"


async def test_a_slip_in_the_name_is_found(
    federation: Federation, capsys: Capture, autojump_clock: Clock
) -> None:
    """The wallet tries spellings near the one typed, and says how many it tried."""
    await federation.back_up(b"secret")
    await federation.join("new")

    assert await federation.recover("--name-file", federation.file("typo", "Rosa Kellr")) == 0

    assert (federation.folder / "back").read_bytes() == b"secret"
    assert of("guess", events(capsys))


async def test_a_wrong_passphrase_loses_nothing(
    federation: Federation, capsys: Capture, autojump_clock: Clock
) -> None:
    """With another passphrase the pieces are kept, and no guardian is needed to try again."""
    right = federation.file("right", "correct horse")
    await federation.back_up(b"secret", "--passphrase-file", right)
    await federation.join("new")
    wrong = federation.file("wrong", "incorrect horse")
    with pytest.raises(BaseExceptionGroup) as caught:
        await federation.recover("--passphrase-file", wrong)
    assert caught.group_contains(WrongSecret, match="passphrase")
    for name in NAMES:
        federation.exchange.down[f"{name}:{NAMES.index(name) + 1}"] = True

    again = federation.act(
        "resume",
        "--passphrase-file",
        right,
        "--output",
        str(federation.folder / "back"),
        home="new",
    )
    await perform(again)

    assert (federation.folder / "back").read_bytes() == b"secret"


async def test_closing_half_way_and_resuming(
    federation: Federation, capsys: Capture, autojump_clock: Clock
) -> None:
    """The claim is made, the window closed, guardians vote, and another process goes on."""
    await federation.back_up(b"secret")
    await federation.join("new")
    code = str(federation.folder / "code")
    name = federation.file("name", "Rosa Keller")
    begun = federation.act(
        "recover", "--no-wait", "--name-file", name, "--code-file", code, home="new"
    )
    assert await perform(begun) == 0
    shown = of("code", events(capsys))[0]["code"]
    assert len(shown) == cases.CODE_DIGITS
    await federation.vote([0, 1, 2])
    await trio.sleep(5)
    # Releases are gossiped: one guardian is enough.
    for seat in (0, 1, 2, 3):
        federation.exchange.down[f"{NAMES[seat]}:{seat + 1}"] = True

    resumed = federation.act("resume", "--output", str(federation.folder / "back"), home="new")
    await perform(resumed)

    assert (federation.folder / "back").read_bytes() == b"secret"


async def test_a_missing_guardian_gets_its_piece_later(
    federation: Federation, capsys: Capture, autojump_clock: Clock
) -> None:
    """A backup is safe with four of five, says who is missing, and `resume` completes it."""
    federation.exchange.down["ada:1"] = True
    assert await federation.back_up(b"secret") == 0
    assert of("standing", events(capsys))[0]["sentence"] == (
        "4 of 5 hold a piece; any 3 give your key back; ada has not answered, "
        "run `holdfast wallet resume`"
    )
    federation.exchange.down.clear()

    assert await perform(federation.act("resume")) == 0

    assert of("standing", events(capsys))[0]["missing"] == []


async def test_names_are_added_and_taken_away(
    federation: Federation, capsys: Capture, autojump_clock: Clock
) -> None:
    """A backup opens under a spelling that was added, and the list shows it."""
    await federation.back_up(b"secret")
    maiden = federation.file("maiden", "Rosa Lindqvist")

    assert await perform(federation.act("name", "add", "--name-file", maiden)) == 0
    events(capsys)
    assert await perform(federation.act("name", "list")) == 0

    assert [each["spelling"] for each in events(capsys)] == ["rosa keller", "rosa lindqvist"]
    await federation.join("new")
    await federation.recover("--name-file", federation.file("other", "Rosa Keller"))
    assert (federation.folder / "back").read_bytes() == b"secret"


async def test_an_owner_sees_a_claim_and_objects(
    federation: Federation, capsys: Capture, autojump_clock: Clock
) -> None:
    """A claim on one's own vault shows in `status`, and a veto contests it."""
    await federation.back_up(b"secret", "--waiting-days", "1")
    await federation.join("thief")
    code = str(federation.folder / "code")
    name = federation.file("name", "Rosa Keller")
    await perform(
        federation.act(
            "recover", "--no-wait", "--name-file", name, "--code-file", code, home="thief"
        )
    )
    await federation.vote([0, 1, 2])
    events(capsys)

    await perform(federation.act("status"))
    (claim,) = events(capsys)[0]["backups"][0]["claims"]
    assert (claim["state"], claim["approvals"], claim["quorum"]) == ("waiting", 3, 3)

    await perform(federation.act("veto"))
    assert of("veto", events(capsys))[0]["guardians"] == list(NAMES)
    await perform(federation.act("status"))
    (claim,) = events(capsys)[0]["backups"][0]["claims"]
    assert claim["state"] == "contested"


async def test_moving_to_a_new_phone(
    federation: Federation, capsys: Capture, autojump_clock: Clock
) -> None:
    """The old phone packs and hands over, the new one deals anew, the old one owns nothing."""
    await federation.back_up(b"secret")
    await federation.join("new")
    line, packed = str(federation.folder / "line"), str(federation.folder / "packed")
    await perform(federation.act("move", "--new", "--output", line, home="new"))
    assert await perform(federation.act("move", "--to-file", line, "--output", packed)) == 0
    events(capsys)

    assert await perform(federation.act("move", "--take", packed, home="new")) == 0

    assert of("standing", events(capsys))[0]["held"] == list(NAMES)
    await perform(federation.act("status"))
    unanswered = events(capsys)[0]["backups"][0]["unanswered"]
    assert all("newer device" in why for why in unanswered.values())
    assert len(unanswered) == len(NAMES)


async def test_leaving_ends_in_erasure_receipts(
    federation: Federation, capsys: Capture, autojump_clock: Clock
) -> None:
    """After seven days every guardian has erased the vault and signed for it."""
    await federation.back_up(b"secret")
    assert await perform(federation.act("leave")) == 0
    federation.clock.ahead = 8 * DAY
    await trio.sleep(60)
    events(capsys)

    await perform(federation.act("status"))

    assert events(capsys)[0]["backups"][0]["erased"] == list(NAMES)
    await perform(federation.act("status"))
    assert events(capsys)[0]["backups"] == []


async def test_a_second_process_is_refused(
    federation: Federation, capsys: Capture, autojump_clock: Clock
) -> None:
    """Two windows on one wallet: the second one says so and changes nothing."""
    await federation.join("phone")
    with (
        federation.act("status").opened(),
        pytest.raises(Locked, match="another window"),
        federation.act("status").opened(),
    ):
        pass


async def test_a_recovery_that_is_over_stops_waiting(
    federation: Federation, capsys: Capture, autojump_clock: Clock
) -> None:
    """A claim that has expired is refused by every guardian, and the wallet says so."""
    await federation.join("new")
    name = federation.file("name", "Rosa Keller")
    assert (
        await perform(federation.act("recover", "--no-wait", "--name-file", name, home="new")) == 0
    )
    federation.clock.ahead = 181 * DAY

    with pytest.raises(BaseExceptionGroup) as caught:
        await perform(federation.act("resume", home="new"))

    assert caught.group_contains(Refused, match="expired", depth=None)


async def test_an_invite_that_nobody_answers(federation: Federation, autojump_clock: Clock) -> None:
    """With every guardian away, joining says that none could be reached, and leaves no wallet."""
    for seat, name in enumerate(NAMES):
        federation.exchange.down[f"{name}:{seat + 1}"] = True
    with pytest.raises(Unreachable, match="none of the 3 guardians"):
        await federation.join("new")
    assert not (federation.folder / "new").exists()
