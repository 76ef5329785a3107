"""The admin socket: how the commands of a guardian's owner reach the node that runs.

A Unix socket in the guardian's folder, for the owner of the folder only: mode 0600, and
where the system tells who calls (Linux does), they are asked. One request, one answer:

    [verb, {…}]   →   ["done", body]   or   ["refused", sentence, hint, kind]

Frames as on every link. What the verbs are is the business of whoever serves the desk.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import structlog
import trio

from node.framing import FrameReader, pack
from protocol import errors
from protocol.errors import HoldfastError, Malformed, Refused

SOCKET: Final = "desk.sock"
PATH_BYTES_MAX: Final = 100  # of a Unix socket's path: Linux has room for 107, macOS for 103
VISITS_MAX: Final = 32  # at a time: several terminals and a script
BACKLOG: Final = 128  # commands that wait for one of those places
REQUEST_S: Final = 10.0  # to send a request once connected
BUG: Final = "bug"  # the kind of an answer that says: this should not have happened

# What a refusal is at the other end of the socket. The names are part of the protocol.
KINDS: Final[Mapping[str, type[HoldfastError]]] = {
    name: getattr(errors, name)
    for name in (
        "Refused",
        "NotYet",
        "Locked",
        "WrongSecret",
        "Malformed",
        "BadSignature",
        "FaultyPiece",
        "NotEnough",
    )
}

Handler: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[Any]]

log = structlog.get_logger("node.desk")


class Desk:
    """Serve one guardian's desk."""

    def __init__(self, home: Path, handler: Handler) -> None:
        """`handler` takes a verb and its arguments; what it raises is told to the caller."""
        self._home = home
        self._handler = handler
        self._owner = home.stat().st_uid
        self._visits = trio.Semaphore(VISITS_MAX)

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled. A socket left by a node that died is replaced.

        Open the store first: its lock is what keeps a second node from this folder.
        """
        with _listening(self._home) as listening:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    await self._visits.acquire()  # before accepting, so that nobody is half in
                    caller, _ = await listening.accept()
                    nursery.start_soon(self._visit, trio.SocketStream(caller))

    async def _visit(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                if self._is_owner(stream.socket):
                    await self._answer(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, Malformed):
            pass  # the command was interrupted, or is no command of ours
        finally:
            self._visits.release()

    def _is_owner(self, caller: trio.socket.SocketType) -> bool:
        if not hasattr(socket, "SO_PEERCRED"):
            return True  # the mode of the socket has to do
        asked = struct.Struct("3i")
        raw = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, asked.size)
        return bool(asked.unpack(raw)[1] == self._owner)

    async def _answer(self, stream: trio.SocketStream) -> None:
        with trio.fail_after(REQUEST_S):
            verb, args = _read_request(await FrameReader(stream).read())
        await stream.send_all(await self._handle(verb, args))

    async def _handle(self, verb: str, args: dict[str, Any]) -> bytes:
        try:
            return pack(["done", await self._handler(verb, args)])
        except HoldfastError as error:
            kind = type(error).__name__
            known = kind if kind in KINDS else "Refused"
            return pack(["refused", str(error), error.hint, known])
        except Exception:
            log.exception("command failed", verb=verb)
            sentence = "something went wrong inside the node, and nothing was changed"
            return pack(["refused", sentence, "what the node wrote about it says more", BUG])


async def ask(home: Path, verb: str, args: Mapping[str, Any]) -> Any:
    """Ask the node that runs on a folder. Returns plain values.

    Raises its refusal, as the class it had there; `Refused` when no node runs; RuntimeError
    when the node has a bug.
    """
    try:
        stream = await _connect(home)
    except OSError:
        raise Refused(
            f"the node of {home.name} is not running: start it with holdfast guardian run"
        ) from None
    try:
        async with stream:
            await stream.send_all(pack([verb, dict(args)]))
            answer = await FrameReader(stream).read()
    except trio.BrokenResourceError:
        answer = None
    return _read_answer(answer, home.name)


def _read_request(value: Any) -> tuple[str, dict[str, Any]]:
    if type(value) is not list or len(value) != 2:
        raise Malformed("a request is a verb and its arguments")
    verb, args = value
    if type(verb) is not str or type(args) is not dict:
        raise Malformed("a request is a verb and its arguments")
    return verb, args


def _read_answer(value: Any, name: str) -> Any:
    match value:
        case ["done", body]:
            return body
        case ["refused", str(sentence), str(hint), str(kind)]:
            if kind == BUG:
                raise RuntimeError(sentence)
            raise KINDS.get(kind, Refused)(sentence, hint=hint)
    raise Refused(
        f"the node of {name} hung up without an answer",
        hint="it may be going down, or this folder belongs to somebody else",
    )


# --- the socket ------------------------------------------------------------------------


@contextmanager
def _listening(home: Path) -> Iterator[trio.socket.SocketType]:
    path = home / SOCKET
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        path.unlink()
    listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listening:
        with _short(home) as reached:
            # Past trio, whose bind is asynchronous for the sake of host names.
            plain = socket.socket(fileno=os.dup(listening.fileno()))
            with plain:
                plain.bind(reached)
        path.chmod(0o600)  # before anyone can connect, which takes `listen`
        listening.listen(BACKLOG)
        try:
            yield listening
        finally:
            path.unlink(missing_ok=True)


async def _connect(home: Path) -> trio.SocketStream:
    with _short(home) as reached:
        return await trio.open_unix_socket(reached)


@contextmanager
def _short(home: Path) -> Iterator[str]:
    """A path to the socket that is short enough for the system, whatever the folder's is."""
    path = str(home / SOCKET)
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-") as beside:
        shortcut = Path(beside) / "d"
        shortcut.symlink_to(home.absolute(), target_is_directory=True)
        yield str(shortcut / SOCKET)
