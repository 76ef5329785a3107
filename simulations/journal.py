"""What a sweep has done so far: a line for each run, appended as they come.

A process that is killed loses at most the run it was in. The journal belongs to one plan and
one state of the code: runs of changed code are not put into one table.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from protocol.errors import Refused
from simulations.artefacts import LOCK, ROOT, commit

JOURNAL: Final = "journal.jsonl"
MANIFEST: Final = "sweep.json"

Row = dict[str, Any]


@cache
def code_digest() -> str:
    """A hash over all code that decides a run, whether it comes from a checkout or a wheel."""
    hashed = blake2b(digest_size=16)
    for package in ("protocol", "node", "simulations"):
        for path in sorted((ROOT / package).rglob("*.py")):
            hashed.update(f"{path.relative_to(ROOT).as_posix()}\n".encode() + path.read_bytes())
    return hashed.hexdigest()


def manifest(plan: Mapping[str, Any]) -> Row:
    """Everything that decides what a sweep's tables say."""
    return {
        "plan": plan,
        "commit": commit(),
        "code": code_digest(),
        "lock": blake2b(LOCK.read_bytes(), digest_size=16).hexdigest() if LOCK.exists() else "",
        "python": platform.python_version(),
        "holdfast": metadata.version("holdfast"),
    }


class Journal:
    """The runs that are done, a line each, appended as they come."""

    def __init__(self, folder: Path) -> None:
        self.rows: dict[tuple[int, int], Row] = {}
        self._path = folder / JOURNAL
        whole = self._read() if self._path.exists() else 0
        self._file = self._path.open("ab")
        # A line that was cut off while it was written would spoil the one after it.
        self._file.truncate(whole)

    def _read(self) -> int:
        whole = 0
        with self._path.open("rb") as file:
            for line in file:
                try:
                    row = json.loads(line) if line.endswith(b"\n") else None
                except ValueError:
                    row = None
                if row is None:
                    break
                self.rows[row["arm"], row["seed"]] = row
                whole += len(line)
        return whole

    def add(self, row: Row) -> None:
        self._file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        self.rows[row["arm"], row["seed"]] = row

    def close(self) -> None:
        self._file.close()


@contextmanager
def opened(folder: Path, plan: Mapping[str, Any]) -> Iterator[Journal]:
    """The journal of a folder, for one process at a time, and of this plan and code only."""
    folder.mkdir(parents=True, exist_ok=True)
    path, now = folder / MANIFEST, manifest(plan)
    if path.exists():
        before = json.loads(path.read_text())
        for what, shown in (("plan", "another sweep"), ("code", "a sweep of other code")):
            if before.get(what) != now[what]:
                raise Refused(
                    f"{folder} holds {shown}, of commit {before.get('commit')}; nothing was done",
                    hint="give another folder with -o, or remove that one",
                )
    else:
        path.write_text(json.dumps(now, indent=1) + "\n")
    with (folder / "lock").open("w") as lock:
        _lock(lock, folder)
        journal = Journal(folder)
        try:
            yield journal
        finally:
            journal.close()


def _lock(file: Any, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # elsewhere than on Unix nothing stops a second process
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise Refused(f"another process is at work on {folder}") from error
