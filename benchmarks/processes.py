"""Processes of this Python that are told what to do, and answer, line by line."""

from __future__ import annotations

import subprocess
import sys

import trio


class Far:
    """The process at the far end of two pipes."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._rest = b""

    async def say(self, line: bytes) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send_all(line + b"\n")

    async def line(self) -> bytes:
        """The next line it says. Raises RuntimeError when it has ended instead."""
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            data = await self.process.stdout.receive_some()
            if not data:
                raise RuntimeError("a process that was measured has ended")
            self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    async def leave(self) -> None:
        """Close its stdin and wait for its end."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()
        await self.process.wait()


async def start(module: str, *words: str) -> Far:
    """Start a module of ours."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", module, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    return Far(process)
