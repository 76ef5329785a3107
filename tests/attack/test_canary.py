"""Canaries: a known secret, name and passphrases, hunted for wherever they must not be.

A whole life runs over real sockets and real disks: joining, backing up, a second spelling, a
lost phone, a recovery, all that can go wrong on the way. Then every line that was logged, every
page of every file, every frame of every link and every error is searched.
"""

from __future__ import annotations

import base64
import io
import os
import traceback
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from node import daemon as daemons
from node.clock import SystemClock, SystemEntropy
from node.commands.wallet import parser, perform
from node.config import read_config
from node.daemon import CONFIG, Daemon, set_up_logging
from node.ports import Handler
from node.transport import Tls
from node.wallet.acts import Acts
from node.wallet.session import Ports
from node.workers import ThreadWorkers
from protocol.errors import HoldfastError
from protocol.federation import invite
from protocol.names import normalise
from protocol.sealing import Cost

NAME = "Zenobia Quillfeather"
OTHER = "Zénobie Quillfeather-Oddfellow"
SECRET = b"canary: 7d1fa0c2 vermilion axolotl 9e33\n"
PASSPHRASE = "lemur tangerine obelisk 4471"
PASSWORD = "pangolin viaduct 8820"
HINT = "the one with the accordion"
GUARDIANS = b"five random words are enough"  # what conftest locks keystores with

WIRE: list[bytes] = []


class Recorded(trio.abc.Stream):
    """A stream that remembers everything it carried, after TLS."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._sent, self._heard = bytearray(), bytearray()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._sent += data
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        self._heard += data
        return data

    async def aclose(self) -> None:
        WIRE.extend((bytes(self._sent), bytes(self._heard)))
        await self._stream.aclose()


class RecordingTls(Tls):
    async def dial(self, address: str, key: bytes, present: bool) -> trio.abc.Stream:
        return Recorded(await super().dial(address, key, present))

    async def serve(
        self, handler: Handler, task_status: trio.TaskStatus[Any] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async def wrapped(stream: trio.abc.Stream, key: bytes | None) -> None:
            recorded = Recorded(stream)
            try:
                await handler(recorded, key)
            finally:
                WIRE.extend((bytes(recorded._sent), bytes(recorded._heard)))

        await super().serve(wrapped, task_status)


def shapes(canary: bytes) -> list[bytes]:
    """The ways in which bytes are usually written down, in part as well."""
    text = canary.strip()
    found = [text, text[: len(text) // 2], text.hex().encode(), text.hex().upper().encode()]
    found += [
        base64.b64encode(text)[:-4],
        base64.b32encode(text)[:-8],
        text.decode().encode("utf-16-le"),
    ]
    return [*found, text.lower(), text.upper(), repr(text).encode()[2:-1]]


def hunt(places: dict[str, bytes], canaries: dict[str, bytes]) -> list[str]:
    return [
        f"{what} in {place}"
        for what, canary in canaries.items()
        for place, content in places.items()
        if any(shape in content for shape in shapes(canary))
    ]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Everything that would have been logged, at every level."""
    stream, before = io.StringIO(), structlog.get_config()
    set_up_logging("json", stream)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(0))
    WIRE.clear()
    monkeypatch.setattr(daemons, "Tls", RecordingTls)

    async def heed(self: Any, everything: trio.CancelScope) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(Daemon, "_heed_signals", heed)  # one process, several nodes
    yield stream
    structlog.configure(**before)


class Life:
    """Nodes in this process, and a wallet that talks to them."""

    def __init__(self, federation: Any, errors: list[str]) -> None:
        self.federation = federation
        self.folder: Path = federation.folder
        self.errors = errors
        self.daemons: list[Daemon] = []
        points = {seat: federation.endpoint(seat) for seat in federation.roster.seats}
        text = invite(federation.roster.id, federation.roster, points).to_text()
        self.invite = self.file("invite", text)

    def file(self, name: str, content: str | bytes) -> str:
        path = self.folder / "given" / name  # what the member typed is not what we wrote
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o600)
        return str(path)

    async def start(self, nursery: trio.Nursery) -> None:
        for guardian in self.federation.guardians:
            config = read_config(guardian.home / CONFIG, flags={}, environment={})
            node = Daemon(guardian.home, config)
            node.unlock(GUARDIANS)
            await nursery.start(node.run, io.StringIO())
            self.daemons.append(node)

    async def wallet(self, home: str, *words: str) -> int:
        options = parser().parse_args(
            [*words, "--home", str(self.folder / home), "--json", "--yes",
             "--password-file", self.file("password", PASSWORD + "\n")]
        )  # fmt: skip
        ports = Ports(
            RecordingTls(), SystemClock(), SystemEntropy(), ThreadWorkers(), Cost.TOY,
            Cost.INTERACTIVE,
        )  # fmt: skip
        return await perform(Acts(options, ports))

    async def fails(self, act: Callable[[], Awaitable[Any]]) -> None:
        """Something that goes wrong; what is said of it, and all that a bug report would hold."""
        try:
            await act()
        except* HoldfastError as group:
            for error in group.exceptions:
                hint = getattr(error, "hint", "")
                said = "".join(traceback.format_exception(error))
                self.errors += [str(error), hint, repr(error), said]
        else:
            raise AssertionError("this should have been refused")

    async def recover(self, *more: str) -> None:
        code = self.folder / "code"

        async def vote() -> None:
            while not code.exists() or not code.read_text():
                await trio.sleep(0.02)
            digits = code.read_text().strip()
            with trio.fail_after(20):
                while True:
                    try:
                        await self.daemons[0].ask("open", {"code": digits})
                        break
                    except HoldfastError:
                        await trio.sleep(0.02)
            for node in self.daemons[:2]:
                with trio.fail_after(20):
                    while True:
                        try:
                            await node.ask("approve", {"code": digits, "how": "in person"})
                            break
                        except HoldfastError:
                            await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(vote)
            assert await self.wallet("new", "recover", "--code-file", str(code), *more) == 0


async def test_nothing_secret_is_anywhere(
    found: Callable[..., Any], logged: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """No secret, passphrase or name in any log, file, frame or error, in whatever writing."""
    errors: list[str] = []
    life = Life(found(), errors)
    back, older = life.folder / "given" / "back", life.folder / "given" / "older"
    name = life.file("name", NAME + "\n")
    passphrase = life.file("word", PASSPHRASE + "\n")
    async with trio.open_nursery() as nursery:
        await life.start(nursery)
        assert await life.wallet(
            "phone", "join", "--invite-file", life.invite, "--form", "file", "--secret-file",
            life.file("secret", SECRET), "--name-file", name, "--passphrase-file", passphrase,
            "--hint", HINT,
        ) == 0  # fmt: skip
        assert await life.wallet(
            "phone", "name", "add", "--name-file", life.file("other", OTHER + "\n"),
            "--passphrase-file", passphrase,
        ) == 0  # fmt: skip
        wrong = life.file("wrong", PASSPHRASE.replace("lemur", "badger") + "\n")
        join = ("join", "--no-backup", "--invite-file", life.invite)
        assert await life.wallet("new", *join) == 0
        recover = ("--name-file", name, "--passphrase-file", wrong, "--output", str(back))
        await life.fails(partial(life.recover, *recover))
        good = ("--name-file", name, "--passphrase-file", passphrase)
        assert await life.wallet("new", "resume", *good, "--output", str(back)) == 0
        assert await life.wallet(
            "new", "resume", *good, "--output", str(older), "--older", "1"
        ) == 0  # fmt: skip
        beyond = ("--output", str(older) + "er", "--older", "9")
        await life.fails(partial(life.wallet, "new", "resume", *good, *beyond))
        await life.fails(partial(life.daemons[0].ask, "unlock", {"passphrase": GUARDIANS + b"\n"}))
        await life.fails(partial(life.daemons[1].ask, "open", {"code": NAME}))
        short = life.file("short", "Z\n")
        await life.fails(partial(life.wallet, "new", "recover", "--name-file", short))
        for node in life.daemons:
            # Before the files are checkpointed and the write-ahead log is gone.
            home = life.federation.guardians[life.daemons.index(node)].home
            WIRE.append(b"".join(path.read_bytes() for path in home.glob("guardian.db*")))
        for node in life.daemons:
            node.stop()
    assert back.read_bytes() == SECRET == older.read_bytes()

    shown = capsys.readouterr()
    places = {
        str(path.relative_to(life.folder)): path.read_bytes()
        for path in sorted(life.folder.rglob("*"))
        if path.is_file() and "given" not in path.parts and path.name != "passphrase"
    }
    assert {"ada/guardian.db", "ada/keystore", "new/state"} <= places.keys()
    places |= {f"frame {number}": each for number, each in enumerate(WIRE)}
    places |= {"log": logged.getvalue().encode(), "stdout": shown.out.encode()}
    places |= {"stderr": shown.err.encode(), "errors": "\n".join(errors).encode()}
    assert len(WIRE) > 30
    assert sum(map(len, WIRE)) > 20_000
    assert "notice" in logged.getvalue()
    canaries = {
        "secret": SECRET, "name": NAME.encode(), "other name": OTHER.encode(),
        "normal name": normalise(NAME).encode(), "passphrase": PASSPHRASE.encode(),
        "password": PASSWORD.encode(), "hint": HINT.encode(), "keystore": GUARDIANS,
    }  # fmt: skip
    assert hunt(places, canaries) == []


def test_the_hunt_finds_what_there_is() -> None:
    """A canary in any of the usual writings is found, so that silence means something."""
    for shape in (SECRET, SECRET.hex().encode(), base64.b64encode(SECRET.strip()),
                  SECRET.strip().decode().encode("utf-16-le"), SECRET.upper()):  # fmt: skip
        assert hunt({"x": os.urandom(50) + shape + os.urandom(50)}, {"secret": SECRET})
    assert hunt({"x": os.urandom(5000)}, {"secret": SECRET}) == []
