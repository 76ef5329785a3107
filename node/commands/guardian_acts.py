"""One guardian command on its way: its options, the desk of the node, and how it talks."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio

from node import desk, terminal
from node.clock import SystemClock, SystemEntropy
from node.commands.guardian import default_home
from node.daemon import INTRODUCTION
from node.keystore import find_passphrase
from node.ports import Clock, Entropy
from protocol.errors import Refused

AskDesk: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[Any]]

CODE_FILE_BYTES_MAX: Final = 4096  # nineteen characters; room for what an editor adds


@dataclass
class Act:
    """What every command has at hand. `desk` asks the node that runs on `home`."""

    options: argparse.Namespace
    home: Path
    desk: AskDesk
    clock: Clock
    entropy: Entropy

    async def ask(self, verb: str, **args: Any) -> Any:
        """Ask the running node. Raises its refusal."""
        return await self.desk(verb, args)

    def say(self, text: str = "") -> None:
        """Talk to a person; with `--json` there is none."""
        if not self.options.json:
            terminal.say(text)

    def emit(self, value: Mapping[str, Any], lines: list[str]) -> None:
        """Give data out: the mapping with `--json`, else the lines."""
        if self.options.json:
            terminal.emit(plain(value), True)
        elif lines:
            terminal.emit(lines, False)

    def confirm(self, prompt: str) -> bool:
        return terminal.confirm(prompt, self.options.yes)

    @property
    def is_interactive(self) -> bool:
        """Whether there is a person who can be asked and wants to be."""
        return sys.stdin.isatty() and not self.options.json and not self.options.yes

    def passphrase(self, prompt: Callable[[], str] | None = None) -> bytes:
        """The passphrase: from the file named, systemd's credential, or the person."""
        file = self.options.passphrase_file
        return find_passphrase(
            Path(file) if file else None,
            environment=os.environ,
            prompt=prompt or (lambda: terminal.ask_secret("Passphrase of your keys:")),
        )

    def command(self, verb: str) -> str:
        """A command as this person has to type it."""
        home = f" --home {shlex.quote(self.options.home)}" if self.options.home else ""
        return f"holdfast guardian {verb}{home}"


def plain(value: Any) -> Any:
    """What JSON can hold: bytes become hexadecimal digits."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def perform(options: argparse.Namespace) -> int:
    """Do what the options say, in this process; the exit code."""
    home = Path(options.home or default_home()).expanduser()

    async def ask(verb: str, args: Mapping[str, Any]) -> Any:
        require_guardian(home)
        return await desk.ask(home, verb, args)

    act = Act(options, home, ask, SystemClock(), SystemEntropy())
    return trio.run(run_verb, act, strict_exception_groups=True)


def require_guardian(home: Path) -> None:
    """Refuse a folder that holds no guardian, before anything else fails on it."""
    if not (home / INTRODUCTION).exists():
        raise Refused(
            f"there is no guardian in {home}",
            hint="make one with holdfast guardian init, or name the right folder with --home",
        )


async def run_verb(act: Act) -> int:
    """Run the verb of the options."""
    from node.commands import guardian_cases, guardian_founding, guardian_node

    verb = str(act.options.verb)
    for module in (guardian_node, guardian_founding, guardian_cases):
        if verb in module.ACTS:
            code: int = await module.ACTS[verb](act)
            return code
    raise AssertionError(verb)
