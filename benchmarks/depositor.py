"""The wallets of `deposit`, in a process of their own: each sends its next when one is taken.

    python -m benchmarks.depositor ADDRESS FILE WALLETS

FILE holds frames of deposits. Says `ready` on stdout, waits for a line on stdin, and says
`done` when the last receipt is here.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio

from benchmarks import staging, wallets
from benchmarks.measuring import quiet
from benchmarks.wallets import Line

PER_LINK: Final = 48  # fewer than a guardian takes over one connection
LENGTH: Final = struct.Struct("!I")


def frames(raw: bytes) -> Iterator[bytes]:
    """Cut what was written down into frames."""
    at = 0
    while at < len(raw):
        end = at + LENGTH.size + LENGTH.unpack_from(raw, at)[0]
        yield raw[at:end]
        at = end


async def main(address: str, federation: bytes, left: list[bytes], count: int) -> None:
    """Send everything that is left."""
    key = staging.seat(0).transport.public
    lines = [await wallets.call(address, key, federation) for _ in range(count)]
    print("ready", flush=True)
    await trio.to_thread.run_sync(sys.stdin.readline)

    async def send(line: Line) -> None:
        sent = 0
        while left:
            if sent == PER_LINK:
                await line.close()
                line, sent = await wallets.call(address, key, federation), 0
            await line.pass_on(left.pop())
            sent += 1

    async with trio.open_nursery() as nursery:
        for line in lines:
            nursery.start_soon(send, line)
    print("done", flush=True)


if __name__ == "__main__":
    quiet()
    file = Path(sys.argv[2])
    federation = file.with_name("federation").read_bytes()
    trio.run(main, sys.argv[1], federation, list(frames(file.read_bytes())), int(sys.argv[3]))
