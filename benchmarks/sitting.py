"""One guardian's node in a process of its own, told what to do line by line.

    python -m benchmarks.sitting SEAT ADDRESS FOLDER

Says `ready` when it serves. Each line on stdin is JSON, a verb and its arguments, answered by
a line of JSON: the answer, or `{"refused": sentence}`. Ends with stdin.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import trio

from benchmarks import staging
from benchmarks.measuring import quiet
from benchmarks.processes import Far, start
from node.daemon import tune
from protocol.errors import HoldfastError


class Sitter:
    """The far end: a node's process, and questions to it."""

    def __init__(self, far: Far) -> None:
        self._far = far

    @property
    def pid(self) -> int:
        return self._far.process.pid

    async def ask(self, verb: str, **args: Any) -> Any:
        """The node's answer. Raises RuntimeError with the sentence of a refusal."""
        await self._far.say(json.dumps([verb, args]).encode())
        answer = json.loads(await self._far.line())
        if isinstance(answer, dict) and "refused" in answer:
            raise RuntimeError(answer["refused"])
        return answer

    async def leave(self) -> None:
        await self._far.leave()


async def sit_down(seat: int, address: str, folder: Path) -> Sitter:
    """Start a node's process and wait until it serves."""
    far = await start("benchmarks.sitting", str(seat), address, str(folder))
    await far.line()
    return Sitter(far)


async def main(number: int, address: str, folder: Path) -> None:
    """Run the node until stdin ends."""
    store = staging.open_store(folder)
    running = staging.make_node(staging.seat(number, address), store, listen=address)
    async with trio.open_nursery() as nursery:
        await nursery.start(running.node.run)
        print("ready", flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            verb, args = json.loads(line)
            try:
                answer = await running.node.ask(verb, **args)
            except HoldfastError as error:
                answer = {"refused": str(error)}
            print(json.dumps(answer, default=str), flush=True)
        await running.node.stop()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    quiet()
    tune()
    trio.run(main, int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
