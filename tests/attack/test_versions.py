"""Releases side by side: what nobody here knows yet is passed on, what was kept still opens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from node.clock import SystemEntropy
from node.config import read_config
from node.daemon import CONFIG, INTRODUCTION, STORE
from node.framing import FrameReader, pack
from node.greeting import PROTOCOL, Hello
from node.keystore import open_keystore, transport_key
from node.schema import SCHEMA
from node.store import SqliteStore
from node.transport import Tls
from node.wallet.folder import open_folder
from protocol.contract import Moment, Place, Table, Verified
from protocol.custody import Settings
from protocol.encoding import encode
from protocol.federation import read_introduction, read_signed
from protocol.founding import ROSTER_KEY
from protocol.guardian import GuardianCore, Keys, open_core
from protocol.keys import SigningKey
from protocol.statements import NOTHING, SCHEMAS, Codec
from protocol.vault import read_payload

FOLDERS = Path(__file__).parents[1] / "folders"
RELEASES = sorted(path.name for path in FOLDERS.iterdir() if path.is_dir() and path.name[0] != "_")
GUARDIANS = b"five random words are enough"


def sign_strange(codec: Codec, key: SigningKey, type_: str, fields: dict[str, Any]) -> Verified:
    """An entry as a later release may write it: of another type, or with more in it."""
    body = {"type": type_, "by": key.public, **fields}
    payload = encode(encode(body))
    signature = key.sign(codec._before + payload)
    head = bytes.fromhex("d28443a10127a0")
    return codec.verify(head + payload + b"\x58\x40" + signature)


async def _hear(reader: FrameReader, seconds: float) -> list[Any]:
    frames = []
    with trio.move_on_after(seconds):
        while (frame := await reader.read()) is not None:
            frames.append(frame)
    return frames


async def test_entries_of_a_later_release_are_passed_on(found: Callable[..., Any]) -> None:
    """A guardian with a newer release writes what nobody knows: real nodes relay it unread."""
    federation = found()
    ada, ben, cleo = federation.guardians
    for guardian in (ada, ben):
        guardian.start()
    for guardian in (ada, ben):
        await guardian.ready()
    # Cleo's node is ours, so that it can speak a later release.
    identity = open_keystore(cleo.home, GUARDIANS).identity
    trusted = [(each.transport, each.certificate) for each in federation.roster.guardians]
    transport = Tls(transport_key(cleo.home), trusted)
    place = {"epoch": 0, "seat": 2, "incarnation": 0}
    first = sign_strange(
        federation.codec, identity, "will-reading", {**place, "seq": 1, "prev": NOTHING, "x": [1]}
    )
    vote = dict.fromkeys(SCHEMAS["vote"], 0)
    second = sign_strange(
        federation.codec, identity, "vote",
        {**vote, **place, "seq": 2, "prev": first.id, "mood": "good"},
    )  # fmt: skip
    assert not first.known
    assert not second.known

    at = federation.endpoint(0)
    stream = await transport.dial(at.address, at.transport, True)
    await stream.send_all(Hello("holdfast 9.9.9", federation.roster.id).to_frame())
    await stream.send_all(pack(["entries", {
        "seat": 2, "incarnation": 0, "first": 1, "raws": [first.raw, second.raw], "check": False,
    }]))  # fmt: skip
    with trio.fail_after(20):
        while True:
            view = await ben.ask("status")
            if view["guardians"][2]["entries"] == 2:
                break
            await trio.sleep(0.05)
    assert not view["guardians"][2]["misbehaved"]
    await trio.aclose_forcefully(stream)
    federation.stop()

    store = SqliteStore(str(ben.home / STORE))
    assert store.entry(Place(2, 0, 1)) == first.raw
    assert store.entry(Place(2, 0, 2)) == second.raw
    store.close()
    ben.start()
    await ben.ready()
    assert (await ben.ask("status"))["guardians"][2]["entries"] == 2
    assert "Traceback" not in ada.said + ben.said


async def test_a_later_protocol_is_told_so(found: Callable[..., Any]) -> None:
    """A node that speaks another protocol altogether gets a sentence, and nothing breaks."""
    federation = found()
    federation.guardians[0].start()
    await federation.guardians[0].ready()
    at = federation.endpoint(0)
    stream = await Tls().dial(at.address, at.transport, False)
    fields = {"software": "x", "protocol": PROTOCOL + 1, "federation": federation.roster.id,
              "role": "wallet", "more": "than today"}  # fmt: skip
    await stream.send_all(pack(["hello", fields]))

    frames = await _hear(FrameReader(stream), 5)

    await trio.aclose_forcefully(stream)
    (reason,) = (fields["reason"] for kind, fields in frames if kind == "bye")
    assert "install the newer one" in reason
    await federation.hang_up()


@pytest.fixture(params=RELEASES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What a release left behind: copied, because opening it may change it."""
    copied = tmp_path / "kept"
    shutil.copytree(FOLDERS / request.param, copied)
    for path in copied.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    (copied / "wallet").chmod(0o700)
    return copied


def test_a_guardians_folder_of_every_release_opens(folder: Path) -> None:
    """Keys, entries, vaults, cases and settings of old are there, and the core goes on."""
    home = folder / "guardian"
    config = read_config(home / CONFIG, flags={}, environment={})
    assert config.name == "ada"
    opened = open_keystore(home, GUARDIANS)
    me = read_introduction((home / INTRODUCTION).read_text().strip())
    assert opened.identity.public == me.by
    store = SqliteStore(str(home / STORE))
    assert store.damage() == []
    assert store._pragma("user_version") == SCHEMA
    raw = store.get(Table.META, ROSTER_KEY)
    assert raw is not None
    roster = read_signed(raw).roster
    core = open_core(store, me, Keys(opened.identity, opened.sealing), Settings())
    assert isinstance(core, GuardianCore)

    core.resume(Moment(roster.created + 60_000, bytes(32)))

    kinds = [Codec(roster.id).verify(entry).type for _, entry in store.entries()]
    assert {"carry", "vote", "release"} <= set(kinds)
    ((vault_id, _),) = store.scan(Table.VAULT)
    ((deal, row),) = core.custody.deals(vault_id)
    assert core.casework.own_piece(deal, row) is not None
    assert core.custody.label(row).name == "Rosa Keller"
    assert [found[1] for found in core.custody.like("Rosa Kelle")] == [vault_id]
    closed = [case.facts.released > 0 for case in core.casework.docket.cases.values() if case.facts]
    assert sorted(closed) == [False, True]
    store.close()


async def test_a_guardians_node_runs_on_a_folder_of_every_release(
    folder: Path, found: Callable[..., Any]
) -> None:
    """The real process starts on it and answers."""
    federation = found()
    stage = federation.guardians[0]
    shutil.copytree(folder / "guardian", stage.home, dirs_exist_ok=True)
    path = stage.home / CONFIG
    settings = path.read_text().splitlines()
    kept = [line for line in settings if not line.startswith(("listen", "advertise"))]
    path.write_text("\n".join([f'listen = "127.0.0.1:{stage.port}"', *kept]) + "\n")
    stage.start()
    await stage.ready()

    status = await stage.ask("status")

    assert (status["vaults"], status["locked"], status["me"]) == (1, False, "ada")
    listed = await stage.ask("claims")
    assert [case["name"] for case in listed["cases"]] != []


def test_a_wallets_folder_of_every_release_opens(folder: Path) -> None:
    """What a member keeps is read: who guards, what is backed up, and the secret itself."""
    wallet = open_folder(folder / "wallet", b"", SystemEntropy())
    try:
        ((vault_id, backup),) = wallet.state.backups.items()
        assert wallet.state.membership is not None
        codec = Codec(wallet.state.membership.roster.id)
        assert codec.verify(backup.deal, "deal").body["vault"] == vault_id
        assert len(backup.receipts) == 3
        (part,) = (path.name for path in (folder / "wallet" / "parts").glob("*.payload"))
        payload = read_payload(wallet.part(part))
        assert payload.secret == b"a key that is nobody's\n"
        assert payload.spellings == ("rosa keller",)
    finally:
        wallet.close()


def test_this_release_keeps_a_folder() -> None:
    """Whoever publishes a release has kept what it writes, for all later ones to read."""
    from importlib import metadata

    assert metadata.version("holdfast") in RELEASES
    kept = [path for path in FOLDERS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) < 200 * 1024 * max(1, len(RELEASES))
