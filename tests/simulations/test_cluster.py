"""A sweep on a real Dask cluster: the same bytes, though a worker is killed on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest

from protocol.errors import NotYet, Refused
from simulations import cluster
from simulations.arms import Plan, possible, read_plan
from simulations.sweep import Task, conduct, perform

pytest.importorskip("polars", reason="needs the extra [research]")
pytest.importorskip("distributed", reason="needs the extra [cluster]")
# Dask leaves sockets and loops to the collector when a worker is gone.
pytestmark = pytest.mark.filterwarnings("ignore")

START_S = 60  # for a scheduler or a worker to be there, on a busy machine


def plan() -> Plan:
    return read_plan({
        "scenario": "deceived", "seeds": 8, "mode": "fast",
        "grid": {"policy.threshold": [2, 3]},
        "settings": {"federation.heartbeat": "1d", "workload.0.count": 6},
    })  # fmt: skip


@contextmanager
def started(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Dask's, killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(process: subprocess.Popen[bytes], path: Path) -> None:
    for _ in range(START_S * 20):
        if path.exists() and path.read_text().strip():
            return
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
    raise AssertionError("the scheduler did not start")


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler with two workers of one thread each: its address, and the workers."""
    from distributed import Client

    file = tmp_path / "scheduler.json"
    with ExitStack() as stack:
        head = stack.enter_context(started(
            "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
            "--no-dashboard", "--scheduler-file", str(file),
        ))  # fmt: skip
        wait_for(head, file)
        workers = [
            stack.enter_context(started(
                "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1",
                "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path / name),
            ))
            for name in ("one", "two")
        ]  # fmt: skip
        address = json.loads(file.read_text())["address"]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=START_S)
        yield address, workers


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def test_a_killed_worker_costs_nothing(
    tmp_path: Path, scheduler: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    """One of two workers is killed during the sweep; every run is there, byte by byte the same."""
    address, workers = scheduler
    killed: list[int] = []

    def kill_one(done: int, of: int) -> None:
        if done >= 2 and not killed:
            assert all(worker.poll() is None for worker in workers)
            killed.append(done)
            workers[0].kill()
            workers[0].wait()

    swept = conduct(plan(), tmp_path / "cluster", cluster=address, heard=kill_one)
    conduct(plan(), tmp_path / "alone", jobs=1)

    assert killed
    assert killed[0] < 16 == len(swept.rows)
    assert not swept.broken
    for name in ("runs.csv", "cases.csv", "summary.csv", "runs.parquet", "cases.parquet"):
        ours, alone = (tmp_path / where / name for where in ("cluster", "alone"))
        assert ours.read_bytes() == alone.read_bytes(), name


def test_where_no_scheduler_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep says that there is none, and can be continued when there is."""
    monkeypatch.setattr(cluster, "CONNECT_S", 0.5)
    with pytest.raises(NotYet, match=r"no Dask scheduler at tcp://127\.0\.0\.1:1"):
        conduct(plan(), tmp_path, cluster="tcp://127.0.0.1:1")


def task() -> Task:
    _, scenario = possible(plan())[0][0]
    return Task(0, 7, "fast", scenario.raw)


def test_the_process_beside_a_worker() -> None:
    """It gives what this process gives, serves one task after another, and ends with its pipe."""
    row = cluster.apart(asdict(task()))
    child = cluster._BESIDE.child

    assert row == perform(task())
    assert cluster.apart(asdict(task())) == row
    assert cluster._BESIDE.child is child
    if sys.platform == "linux":
        assert child.pid in children(os.getpid())
    child.stdin.close()
    child.stdout.close()
    assert child.wait(START_S) == 0


def test_other_code_is_refused() -> None:
    """A worker that has other code than whoever asks runs nothing."""
    with pytest.raises(Refused, match="other code"):
        cluster.apart(asdict(Task(0, 7, "fast", {}, code="another")))
    child = cluster._BESIDE.child
    child.stdin.close()
    child.stdout.close()
    child.wait(START_S)
