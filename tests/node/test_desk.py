"""The admin socket: who may ask, what comes back, and what is said when nobody is there."""

from __future__ import annotations

import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from node.desk import SOCKET, Desk, ask
from protocol.errors import Locked, NotYet, Refused


async def answer(verb: str, args: dict[str, Any]) -> Any:
    match verb:
        case "echo":
            return args
        case "locked":
            raise Locked("the keys are sealed", hint="unlock first")
        case "later":
            raise NotYet("nothing has come")
        case "bug":
            raise KeyError("a secret")
    return None


@asynccontextmanager
async def open_desk(home: Path) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(Desk(home, answer).serve)
        yield
        nursery.cancel_scope.cancel()


async def test_answers(tmp_path: Path) -> None:
    """A command gets its answer back as it was given, several at once."""
    async with open_desk(tmp_path):
        args = {"text": "ä", "bytes": b"\xff", "list": [1, None, True]}
        assert await ask(tmp_path, "echo", args) == args
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask, tmp_path, "echo", {})
        assert await ask(tmp_path, "nothing", {}) is None


async def test_refusals_keep_their_kind(tmp_path: Path) -> None:
    """What the node refuses arrives as the error it was, with its hint."""
    async with open_desk(tmp_path):
        with pytest.raises(Locked, match="sealed") as locked:
            await ask(tmp_path, "locked", {})
        assert locked.value.hint == "unlock first"
        with pytest.raises(NotYet):
            await ask(tmp_path, "later", {})


async def test_bug_says_nothing_of_its_cause(tmp_path: Path) -> None:
    """A fault of ours is named as one, and does not show what it stumbled over."""
    async with open_desk(tmp_path):
        with pytest.raises(RuntimeError, match="inside the node") as bug:
            await ask(tmp_path, "bug", {})
        assert "secret" not in str(bug.value)
        assert await ask(tmp_path, "echo", {}) == {}


async def test_for_the_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody but the owner of the folder is answered, and the socket is theirs alone."""
    async with open_desk(tmp_path):
        assert stat.S_IMODE((tmp_path / SOCKET).stat().st_mode) == 0o600
    monkeypatch.setattr(Desk, "_is_owner", lambda desk, caller: False)
    async with open_desk(tmp_path):
        with pytest.raises(Refused, match="hung up"):
            await ask(tmp_path, "echo", {})


async def test_owner_is_compared(tmp_path: Path) -> None:
    """The system is asked who calls."""
    desk = Desk(tmp_path, answer)
    one, other = trio.socket.socketpair()
    with one, other:
        assert desk._is_owner(one)
        desk._owner += 1
        assert not desk._is_owner(one)


async def test_nobody_there(tmp_path: Path) -> None:
    """Without a node, or with the socket of one that died, the next step is named."""
    home = tmp_path / "ada"
    home.mkdir()
    sentence = "the node of ada is not running: start it with holdfast guardian run"
    with pytest.raises(Refused, match=sentence):
        await ask(home, "echo", {})

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(home / SOCKET))
    with pytest.raises(Refused, match=sentence):
        await ask(home, "echo", {})

    async with open_desk(home):
        assert await ask(home, "echo", {}) == {}
    assert not (home / SOCKET).exists()


async def test_deep_folder(tmp_path: Path) -> None:
    """The path of a folder may be longer than the system lets a socket's path be."""
    home = tmp_path / ("deep" * 30) / ("down" * 30)
    home.mkdir(parents=True)
    async with open_desk(home):
        assert await ask(home, "echo", {"x": 1}) == {"x": 1}
        assert (home / SOCKET).is_socket()


async def test_nonsense_is_hung_up_on(tmp_path: Path) -> None:
    """Whoever writes something else to the socket harms nobody."""
    async with open_desk(tmp_path):
        for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x01\x90", b""):
            async with await trio.open_unix_socket(tmp_path / SOCKET) as stream:
                await stream.send_all(junk)
                await stream.send_eof()
                assert await stream.receive_some() == b""
        assert await ask(tmp_path, "echo", {}) == {}
