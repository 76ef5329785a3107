"""The six neighbours of `vote_ingest`, in a process of their own: they send all they have.

    python -m benchmarks.feeder ADDRESS FOLDER

Dials the node at ADDRESS once for each file of frames in FOLDER, says on stdout that all
links stand, waits for a line on stdin, and sends.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from benchmarks import staging
from benchmarks.measuring import quiet
from node.framing import FrameReader
from node.greeting import Hello
from node.transport import Tls

CHUNK: int = 256 * 1024  # handed to TLS at once


async def _drain(reader: FrameReader) -> None:
    """Take what the node says, so that nothing waits on its side."""
    while await reader.read_some():
        pass


async def main(address: str, federation: bytes, logs: dict[int, bytes]) -> None:
    """Feed the node the frames of each seat, and end with stdin."""
    target = staging.seat(0)
    streams: list[tuple[trio.abc.Stream, bytes]] = []
    async with trio.open_nursery() as nursery:
        for seat, frames in sorted(logs.items()):
            own = staging.seat(seat)
            tls = Tls(own.transport, [target.trusted])
            stream = await tls.dial(address, target.transport.public, True)
            await stream.send_all(Hello("benchmark", federation).to_frame())
            reader = FrameReader(stream)
            await reader.read()
            nursery.start_soon(_drain, reader)
            streams.append((stream, frames))
        print("linked", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        for stream, frames in streams:
            nursery.start_soon(_feed, stream, frames)
        await trio.to_thread.run_sync(sys.stdin.readline)
        nursery.cancel_scope.cancel()


async def _feed(stream: trio.abc.Stream, frames: bytes) -> None:
    for at in range(0, len(frames), CHUNK):
        await stream.send_all(frames[at : at + CHUNK])


if __name__ == "__main__":
    quiet()
    folder = Path(sys.argv[2])
    read = {int(file.stem): file.read_bytes() for file in folder.glob("*.frames")}
    trio.run(main, sys.argv[1], (folder / "federation").read_bytes(), read)
