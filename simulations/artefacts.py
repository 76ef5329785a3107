"""The folder that a run leaves: what it was, what came of it, and how to have it again."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import platform
import subprocess
import zipfile
from collections.abc import Mapping
from copy import deepcopy
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from simulations import results
from simulations.quantities import to_toml
from simulations.running import PASSED, Result
from simulations.scenario import Scenario

ROOT: Final = Path(__file__).parent.parent
LOCK: Final = ROOT / "requirements.lock"
UNKNOWN: Final = "unknown"
REPORT: Final = "simulations.report"


def commit() -> str:
    """The commit this code is of, with a + when it was changed since; "unknown" elsewhere."""
    try:
        head = _git("rev-parse", "--short=8", "HEAD")
        dirty = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return f"{head}+" if dirty else head


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *words], check=True, capture_output=True, text=True, timeout=10
    )
    return done.stdout.strip()


def reproduction(scenario: Scenario, faults: list[dict[str, Any]], seed: int, mode: str) -> str:
    """A scenario as TOML with its faults written out one by one."""
    raw: dict[str, Any] = deepcopy(dict(scenario.raw))
    raw.update(seed=seed, mode=mode)
    raw["fault"] = [_explicit(fault) for fault in faults]
    raw.pop("swarm", None)
    return to_toml(raw) + "\n"


def _explicit(fault: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fault.items() if value not in ("", "0ms", None)}


def manifest(result: Result) -> dict[str, Any]:
    """Everything that decided the run, and its two hashes."""
    return {
        "scenario": result.scenario.name,
        "seed": result.seed,
        "mode": result.mode,
        "suite": result.scenario.federation["suite"],
        "commit": commit(),
        "lock": blake2b(LOCK.read_bytes(), digest_size=16).hexdigest() if LOCK.exists() else "",
        "python": platform.python_version(),
        "trio": metadata.version("trio"),
        "verdict": result.verdict,
        "trace": result.trace,
        "outcome": result.outcome,
        "events": result.events,
        "messages": result.messages,
        "wall_s": round(result.wall, 3),
        "goals": {goal: times for goal, times in result.goals.items() if times},
        "violations": [
            {"id": one.id, "statement": one.statement, "at": one.at, "events": list(one.events)}
            for one in result.violations
        ],
        "failures": result.failures,
    }


def write(result: Result, folder: Path) -> None:
    """Write a run's folder: manifest, cases, events, repro.toml, and a report if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(manifest(result), indent=1) + "\n")
    text = reproduction(result.scenario, result.faults, result.seed, result.mode)
    (folder / "repro.toml").write_text(text)
    if not results.save(result, folder):
        _write_rows(folder / "cases.csv", result.claims)
    events = [{"at": at, "event": event} for at, event in result.told]
    (folder / "events.jsonl").write_text("".join(json.dumps(row) + "\n" for row in events))
    _write_report(result, folder)
    if result.verdict != PASSED:
        bundle(folder)


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]) if rows else ["claim"])
        writer.writeheader()
        writer.writerows(rows)


def _write_report(result: Result, folder: Path) -> None:
    # The page is drawn by a package of its own, if this installation has it.
    if importlib.util.find_spec(REPORT) is None:
        return
    try:
        page = importlib.import_module(REPORT).render(result)
    except Exception as error:
        # A run is worth more than its picture; what failed stands beside it.
        (folder / "report-failed.txt").write_text(f"{type(error).__name__}: {error}\n")
    else:
        (folder / "report.html").write_text(page, encoding="utf-8")


def bundle(folder: Path) -> Path:
    """Put what a failure leaves into one zip beside its parts."""
    path = folder / "failure.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in sorted(folder.iterdir()):
            if part != path:
                archive.write(part, part.name)
        if LOCK.exists():
            archive.write(LOCK, LOCK.name)
    return path
