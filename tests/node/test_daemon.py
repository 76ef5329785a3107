"""A guardian's node as it is put together: from a folder to a process and back."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import structlog
import trio

from node.clock import SystemEntropy
from node.config import GuardianConfig
from node.daemon import INTRODUCTION, STORE, Daemon, set_up_logging
from node.desk import ask
from node.keystore import SEEDS_BYTES, create, open_keystore, transport_key
from protocol.errors import Refused, WrongSecret
from protocol.federation import introduce, introduction_text

PASSPHRASE = b"five random words are enough"
CONFIG = GuardianConfig(name="ada", listen="127.0.0.1:0")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a guardian called ada."""
    home = tmp_path_factory.mktemp("guardians") / "ada"
    create(home, PASSPHRASE, SystemEntropy().draw(SEEDS_BYTES))
    keys = open_keystore(home, PASSPHRASE)
    from node.certificate import certificate_signature

    transport = transport_key(home)
    introduction = introduce(
        keys.identity,
        name="ada",
        sealing=keys.sealing[-1].public,
        transport=transport.public,
        certificate=certificate_signature(transport),
        address="",
        contact="",
        languages=[],
        hours="",
        now=1,
    )
    (home / INTRODUCTION).write_text(introduction_text(introduction) + "\n")
    return home


async def test_a_life(made: Path) -> None:
    """A node starts locked, says so, is unlocked and locked at its desk, and goes down."""
    talk = io.StringIO()
    daemon = Daemon(made, CONFIG)
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(daemon.run, talk)
        assert talk.getvalue().splitlines() == [
            f"ada is listening on {bound[0]}",
            "ada is locked: it relays but neither votes nor releases; holdfast guardian unlock",
        ]
        status = await ask(made, "status", {})
        assert (status["locked"], status["listens"]) == (True, [bound[0]])
        assert status["unreachable"] == []
        with pytest.raises(Refused, match="in use"):
            Daemon(made, CONFIG)

        with pytest.raises(WrongSecret):
            await ask(made, "unlock", {"passphrase": b"wrong"})
        await ask(made, "unlock", {"passphrase": PASSPHRASE})
        assert (await ask(made, "status", {}))["locked"] is False
        await ask(made, "lock", {})
        assert (await ask(made, "status", {}))["locked"] is True
        await ask(made, "stop", {})

    assert not (made / f"{STORE}-wal").exists()
    with pytest.raises(Refused, match="not running"):
        await ask(made, "status", {})


async def test_unlocked_from_the_start(made: Path) -> None:
    """Given the passphrase, a node needs no more to be said."""
    talk = io.StringIO()
    daemon = Daemon(made, CONFIG)
    daemon.unlock(PASSPHRASE)
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(daemon.run, talk)
        assert talk.getvalue() == f"ada is listening on {bound[0]}\n"
        daemon.stop()


def test_no_guardian_here(tmp_path: Path) -> None:
    """A folder without a guardian is refused with the next step."""
    with pytest.raises(Refused, match="no guardian") as refused:
        Daemon(tmp_path, CONFIG)
    assert "init" in refused.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("style", ["json", "console"])
def test_logs_hold_no_values(style: str) -> None:
    """What goes wrong is written with its lines, never with the values that stood there."""
    stream = io.StringIO()
    before = structlog.get_config()
    set_up_logging(style, stream)
    try:
        passphrase = "very" + "secret"
        try:
            raise KeyError("x" if passphrase else "")
        except KeyError:
            structlog.get_logger().exception("failed", verb="unlock")
    finally:
        structlog.configure(**before)

    written = stream.getvalue()
    assert "KeyError" in written
    assert "verysecret" not in written
    if style == "json":
        assert json.loads(written)["at"].endswith("+00:00")
