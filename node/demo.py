"""The demonstration: real processes, run with the commands that people run, tell a story.

A federation is founded, a member backs up a key and loses the phone; one guardian is killed
during the vote and another one releases a false piece. The key comes back all the same.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from protocol.cases import group
from protocol.errors import HoldfastError, Refused

NAMES: Final = (
    "ada",
    "ben",
    "cleo",
    "dev",
    "eve",
    "finn",
    "gita",
    "hugo",
    "ines",
    "jon",
    "kim",
    "lea",
    "mads",
    "nora",
    "omar",
    "pia",
    "quin",
    "rafi",
    "sana",
    "tove",
    "uma",
    "vito",
    "wen",
    "xeni",
    "yara",
    "zoe",
    "abel",
    "bea",
    "caro",
    "dina",
    "emil",
    "fay",
)
MEMBER: Final = "Rosa Keller"
COMMAND_S: Final = 60.0  # for one command; the longest takes a few seconds
READY_S: Final = 30.0  # for a node to answer after its start


@dataclass
class Guardian:
    """One guardian's folder and process."""

    name: str
    home: Path
    port: int
    lies: bool = False
    process: trio.Process | None = None

    @property
    def passphrase_file(self) -> Path:
        return self.home.parent / f"{self.name}.passphrase"


@dataclass
class Report:
    """What came of it, for machines."""

    guardians: int
    threshold: int
    killed: list[str] = field(default_factory=list)
    lying: list[str] = field(default_factory=list)
    caught: list[str] = field(default_factory=list)
    secret_match: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    def to_map(self) -> dict[str, Any]:
        return {"recovered": self.secret_match, **self.__dict__}


class Failed(HoldfastError):
    """A command of the demonstration did not do what it must. A bug of ours."""


class Demo:
    """A stage of its own: folders under one directory, ports on loopback."""

    def __init__(
        self, base: Path, guardians: int, threshold: int, tell: Callable[[str], None]
    ) -> None:
        if not 2 <= threshold <= guardians <= len(NAMES):
            raise Refused(
                f"{guardians} guardians with a threshold of {threshold} make no federation",
                hint=f"from 2 to {len(NAMES)} guardians, a threshold from 2 to their number",
            )
        self.base = base
        self.tell = tell
        self.report = Report(guardians, threshold)
        self.voted: list[str] = []  # whose approval the wallet saw, in that order
        self._told: list[str] = []
        ports = _free_ports(guardians)
        self.guardians = [
            Guardian(name, base / name, port) for name, port in zip(NAMES, ports, strict=False)
        ]
        spare = guardians - threshold
        if spare >= 1:
            self.guardians[-1].lies = True
            self.report.lying.append(self.guardians[-1].name)
        self._victim = self.guardians[1] if spare >= 2 else None

    async def run(self) -> Report:
        """Tell the whole story. Raises `Failed` when something does not go as it must."""
        async with trio.open_nursery() as nursery:
            try:
                await self._timed("found", self._found(nursery))
                await self._timed("backup", self._back_up())
                await self._recover()
            finally:
                for guardian in self.guardians:
                    if guardian.process is not None and guardian.process.returncode is None:
                        guardian.process.terminate()
        return self.report

    async def _timed(self, what: str, work: Any) -> None:
        begun = trio.current_time()
        await work
        self.report.seconds[what] = round(trio.current_time() - begun, 2)

    # --- commands ---------------------------------------------------------------------

    async def command(self, *words: str, okay: Sequence[int] = (0,)) -> list[dict[str, Any]]:
        """Run one command as a person would, with `--json`; the objects it printed."""
        with trio.fail_after(COMMAND_S):
            done = await trio.run_process(
                [sys.executable, "-m", "node", *words, "--json"],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        if done.returncode not in okay:
            said = done.stderr.decode(errors="replace").strip()
            raise Failed(f"holdfast {' '.join(words[:2])} ended with {done.returncode}: {said}")
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]

    async def guardian(
        self, guardian: Guardian, verb: str, *words: str, okay: Sequence[int] = (0,)
    ) -> dict[str, Any]:
        answers = await self.command(
            "guardian", verb, "--home", str(guardian.home), *words, okay=okay
        )
        return answers[-1] if answers else {}

    def _file(self, name: str, content: str | bytes) -> str:
        path = self.base / name
        raw = content.encode() if isinstance(content, str) else content
        path.touch(mode=0o600)
        path.write_bytes(raw)
        return str(path)

    # --- 1: founding ------------------------------------------------------------------

    async def _found(self, nursery: trio.Nursery) -> None:
        async with trio.open_nursery() as making:
            for guardian in self.guardians:
                making.start_soon(self._make, guardian)
        async with trio.open_nursery() as starting:
            for guardian in self.guardians:
                starting.start_soon(self._start, guardian, nursery)
        lines = [
            (await self.guardian(guardian, "introduce"))["introduction"]
            for guardian in self.guardians
        ]
        organiser = self.guardians[0]
        await self.guardian(
            organiser,
            "draft",
            "--name",
            "Elm Street",
            "--threshold",
            str(self.report.threshold),
            "--waiting",
            "0",
            "--introductions",
            self._file("introductions", "\n".join(lines) + "\n"),
            "--yes",
        )
        async with trio.open_nursery() as signing:
            for guardian in self.guardians:
                signing.start_soon(self._accept, guardian)
        await self.guardian(
            organiser, "rehearse", "--passphrase-file", str(organiser.passphrase_file)
        )
        invite = await self.guardian(organiser, "invite")
        self.invite = self._file("invite", invite["invite"])
        names = " ".join(guardian.name for guardian in self.guardians)
        self.tell(f"1 Founding   {names}    all signed, rehearsal passed")

    async def _make(self, guardian: Guardian) -> None:
        self._file(guardian.passphrase_file.name, f"{guardian.name} keeps a promise\n")
        await self.guardian(
            guardian,
            "init",
            guardian.name,
            "--listen",
            f"127.0.0.1:{guardian.port}",
            "--passphrase-file",
            str(guardian.passphrase_file),
            "--yes",
        )

    async def _start(self, guardian: Guardian, nursery: trio.Nursery) -> None:
        """Start a node and wait until it answers. The liar runs a programme of its own."""
        honest = ["-m", "node", "guardian", "run"]
        programme = ["-m", "simulations.byzantine"] if guardian.lies else honest
        log = (self.base / f"{guardian.name}.log").open("wb")
        home = ["--home", str(guardian.home), "--passphrase-file", str(guardian.passphrase_file)]
        guardian.process = await _spawn(
            nursery, [*programme, *home], stdout=log, stderr=subprocess.STDOUT
        )
        with trio.fail_after(READY_S):
            while not (guardian.home / "desk.sock").exists():
                if guardian.process.returncode is not None:
                    raise Failed(f"the node of {guardian.name} did not start")
                await trio.sleep(0.05)

    async def _accept(self, guardian: Guardian) -> None:
        await self.guardian(guardian, "accept", "--wait", "--until-live", "--yes")

    # --- 2: backup --------------------------------------------------------------------

    async def _back_up(self) -> None:
        self.secret = bytes(range(7, 39))
        name = self._file("name", MEMBER + "\n")
        self.name_file = name
        said = await self.command(
            "wallet",
            "join",
            "--home",
            str(self.base / "phone"),
            "--invite-file",
            self.invite,
            "--secret-file",
            self._file("secret", self.secret),
            "--form",
            "raw",
            "--name-file",
            name,
            "--password-file",
            self._file("pin", "1234\n"),
            "--yes",
        )
        held = [one for one in said if one.get("event") == "standing"]
        count = len(held[-1]["held"]) if held else 0
        self.tell(
            f"2 {MEMBER} backs up her key       {count} of {self.report.guardians} hold a piece"
        )
        if count != self.report.guardians:
            raise Failed(f"only {count} guardians hold a piece")

    # --- 3: recovery ------------------------------------------------------------------

    async def _recover(self) -> None:
        self._lost_at = trio.current_time()
        events_in, events = trio.open_memory_channel[dict[str, Any]](1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._wallet_recovers, events_in)
            code = await self._next(events, "code")
            digits = self._file("code", code["code"])
            self.tell(f"3 Phone lost. New device, code {group(code['code'])}")
            await self._vote(digits)
            await self._finish(events)

    async def _wallet_recovers(self, events: trio.MemorySendChannel[dict[str, Any]]) -> None:
        """Run the wallet on the new device and pass its events on as they come."""
        self.output = self.base / "returned"
        words = ["-m", "node", "wallet", "recover", "--yes", "--json"]
        for option, value in {
            "home": self.base / "new phone",
            "invite-file": self.invite,
            "name-file": self.name_file,
            "password-file": self.base / "pin",
            "output": self.output,
        }.items():
            words += [f"--{option}", str(value)]
        async with events, trio.open_nursery() as nursery:
            process = await _spawn(
                nursery, words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            assert process.stdout is not None
            rest = b""
            async for chunk in process.stdout:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.startswith(b"{"):
                        await events.send(json.loads(line))

    async def _next(
        self, events: trio.MemoryReceiveChannel[dict[str, Any]], kind: str
    ) -> dict[str, Any]:
        with trio.fail_after(COMMAND_S):
            async for event in events:
                self._note(event)
                if event.get("event") == kind:
                    return event
        raise Failed(f"the wallet ended before it said {kind}")

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("event") == "vote" and event["verdict"] == "approve":
            self.voted.append(event["guardian"])
        if event.get("event") == "caught" and event["guardian"] not in self.report.caught:
            self.report.caught.append(event["guardian"])

    async def _vote(self, code_file: str) -> None:
        """One guardian after another opens the claim and approves, until enough have."""
        *first, last = self._order()
        for guardian in first:
            await self._open(guardian, code_file)
            if guardian is self._victim:
                await self._kill(guardian)
            else:
                await self._approve(guardian, code_file)
                self.tell(f"    {guardian.name:<6} approved")
                self._told.append(guardian.name)
        liars = [guardian for guardian in self.guardians if guardian.lies]
        async with trio.open_nursery() as nursery:
            for guardian in [last, *liars]:
                await self._open(guardian, code_file)
            for guardian in [last, *liars]:
                nursery.start_soon(self._approve, guardian, code_file)

    def _order(self) -> list[Guardian]:
        """Honest guardians first, so that the story reaches its turn before the liar speaks."""
        honest = [guardian for guardian in self.guardians if not guardian.lies]
        extra = 1 if self._victim is not None else 0
        return honest[: self.report.threshold + extra]

    async def _open(self, guardian: Guardian, code_file: str) -> None:
        with trio.fail_after(COMMAND_S):
            while True:
                try:
                    await self.guardian(guardian, "open", "--code-file", code_file)
                    return
                except Failed:
                    await trio.sleep(0.2)  # the claim is on its way to this guardian

    async def _approve(self, guardian: Guardian, code_file: str) -> None:
        await self.guardian(
            guardian,
            "approve",
            "--code-file",
            code_file,
            "--vault",
            "1",
            "--how",
            "in person",
            "--yes",
            okay=(0, 1, 75) if guardian.lies else (0,),  # it may come when the case is over
        )

    async def _kill(self, guardian: Guardian) -> None:
        """Kill the node while its guardian's vote is being given."""
        assert guardian.process is not None
        guardian.process.send_signal(signal.SIGKILL)
        await guardian.process.wait()
        self.report.killed.append(guardian.name)
        self.tell(f"    {guardian.name:<6} killed during the vote (kill -9)")

    def _what_became_of(self, name: str) -> str:
        needed = self.report.threshold
        words = []
        if name in self.voted:
            is_last = self.voted.index(name) + 1 == needed
            words.append(f"approved: {needed} of {needed}, released" if is_last else "approved")
        if name in self.report.caught:
            words.append("sent a FALSE piece: caught, named")
        return ", ".join(words)

    async def _finish(self, events: trio.MemoryReceiveChannel[dict[str, Any]]) -> None:
        await self._next(events, "recovered")
        self.report.seconds["recover"] = round(trio.current_time() - self._lost_at, 2)
        with trio.move_on_after(COMMAND_S):
            async for event in events:
                self._note(event)
        silent = [name for name in self.report.caught if name not in self.voted]
        for name in [*self.voted, *silent]:
            if name not in self._told:
                self.tell(f"    {name:<6} {self._what_became_of(name)}")
        self.report.secret_match = self.output.read_bytes() == self.secret
        word = "equal byte for byte" if self.report.secret_match else "NOT the one backed up"
        self.tell(f"4 Key returned, {word}  {self.report.seconds['recover']:.1f} s")


async def _spawn(nursery: trio.Nursery, words: Sequence[str], **streams: Any) -> trio.Process:
    """Start a process of this Python, to end with the nursery."""
    start = partial(trio.run_process, [sys.executable, *words], check=False, **streams)
    process: trio.Process = await nursery.start(start)
    return process


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on just now."""
    import socket

    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
