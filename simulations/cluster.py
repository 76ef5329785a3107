"""Give the runs of a sweep to a Dask cluster that exists already (extra `cluster`).

A Dask worker has threads of its own, and a simulated world forbids threads, clocks and
randomness to its process. So a worker keeps a process beside itself, by thread, that does
nothing but run worlds. It is fed through a pipe, and ends when the worker is gone, however
that went. What a lost worker had not finished, the scheduler gives to another.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from typing import Any, Final

from protocol.errors import HoldfastError, NotYet, Refused
from simulations.campaign import AHEAD
from simulations.journal import Row, code_digest
from simulations.results import need
from simulations.sweep import Task, perform

CONNECT_S: Final = 20  # until a scheduler has answered, or is taken not to be there
_BESIDE: Final = threading.local()


def rows(tasks: Sequence[Task], address: str) -> Iterator[Row]:
    """Run tasks on the cluster of a scheduler; their rows as they come.

    Raises `NotYet` when the cluster cannot be reached or gives up on a task, `Refused` when a
    worker runs other code.
    """
    distributed = need("distributed")
    if not tasks:
        return
    try:
        client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise NotYet(f"there is no Dask scheduler at {address}: {error}") from error
    with client:
        yield from _collect(distributed, client, tasks)


def _collect(distributed: Any, client: Any, tasks: Sequence[Task]) -> Iterator[Row]:
    code = code_digest()
    left = iter([replace(task, code=code) for task in tasks])
    ahead = AHEAD * max(1, sum(client.nthreads().values()))
    # `pure` would let the scheduler remember results of another sweep under the same name.
    waiting = distributed.as_completed(
        [client.submit(apart, asdict(task), pure=False) for task in islice(left, ahead)],
        loop=client.loop,
    )
    for future in waiting:
        try:
            row: Row = future.result()
        except HoldfastError:
            raise
        except Exception as error:
            raise NotYet(f"the cluster gave up: {type(error).__name__}: {error}") from error
        task = next(left, None)
        if task is not None:
            waiting.add(client.submit(apart, asdict(task), pure=False))
        yield row


# --- on the worker ---------------------------------------------------------------------


def apart(task: dict[str, Any]) -> Row:
    """Run a task in the process beside this thread, started when there is none."""
    child: subprocess.Popen[str] | None = getattr(_BESIDE, "child", None)
    if child is None or child.poll() is not None:
        child = _BESIDE.child = subprocess.Popen(
            [sys.executable, "-m", "simulations.cluster"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
        )  # fmt: skip
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(json.dumps(task) + "\n")
    child.stdin.flush()
    line = child.stdout.readline()
    if not line:
        raise RuntimeError("the process that runs worlds has ended in the middle of one")
    answer: Row = json.loads(line)
    if "refused" in answer:
        raise Refused(answer["refused"])
    return answer


def serve() -> None:
    """Run the tasks on stdin, a line each; their rows on stdout."""
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            answer = perform(Task(**json.loads(line)))
        except HoldfastError as error:
            answer = {"refused": str(error)}
        out.write(json.dumps(answer) + "\n")
        out.flush()


if __name__ == "__main__":
    serve()
