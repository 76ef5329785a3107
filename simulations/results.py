"""What came of runs, as tables: cases, votes, messages, faults, and summaries of many runs.

Tables have the same columns and types however few rows there are. Times are virtual
milliseconds since the world began, null for never. polars makes them (extra `research`);
everything that needs it says so before it begins.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from protocol.errors import Refused
from simulations.intervals import Share
from simulations.quantities import duration
from simulations.running import Result
from simulations.running import run as run_one
from simulations.scenario import Scenario
from simulations.traffic import KEPT, Traffic, metered

# Columns by table: text, whole number, or yes and no.
COLUMNS: Final[dict[str, dict[str, type]]] = {
    "cases": {
        "federation": int, "case": int, "claim": int, "by": str, "outcome": str, "made": int,
        "approvals": int, "deceived": int, "vetoed": int, "released": int, "recovered": int,
        "took": int,
    },
    "votes": {"federation": int, "claim": int, "seat": int, "at": int, "deceived": bool},
    "messages": {
        "federation": int, "at": int, "arrives": int, "source": str, "target": str, "kind": str,
        "bytes": int,
    },
    "traffic": {"federation": int, "between": str, "kind": str, "messages": int, "bytes": int},
    "faults": {"kind": str, "key": str, "seats": str, "at": int, "lasts": int, "how": str},
    "events": {"at": int, "event": str},
}  # fmt: skip
NEVER: Final = ("vetoed", "recovered")  # of a case: 0 where it did not happen
RIGHTFUL: Final = ("owner", "heir")
EXTRAS: Final = {"polars": "research", "matplotlib": "research", "distributed": "cluster"}


def need(module: str) -> Any:
    """Import a library of an extra. Raises `Refused` with how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise Refused(
            f"this needs {name}, which is not installed",
            hint=f"pip install 'holdfast[{EXTRAS[name]}]'",
        ) from error


@dataclass
class Recorded(Result):
    """A result, and what travelled in its run."""

    traffic: Traffic = field(default_factory=Traffic)

    def table(self, name: str) -> Any:
        """One of cases, votes, messages, traffic, faults and events as a polars frame.

        `messages` holds the first of them one by one, `traffic` all of them counted.
        """
        return frame(name, rows_of(self, name))

    def tables(self) -> dict[str, Any]:
        """All tables by name."""
        return {name: self.table(name) for name in COLUMNS}


def run(
    scenario: Scenario | str | Path,
    *,
    seed: int | None = None,
    mode: str | None = None,
    settings: Mapping[str, Any] | None = None,
    keep: int = KEPT,
) -> Recorded:
    """Run a scenario as `simulations.running.run` does, and count what travels.

    `keep` is how many messages are kept one by one.
    """
    with metered(keep) as traffic:
        result = run_one(scenario, seed=seed, mode=mode, settings=settings)
    known = {one.name: getattr(result, one.name) for one in fields(result)}
    return Recorded(**known, traffic=traffic)


# --- tables of one run -----------------------------------------------------------------


def rows_of(result: Result, name: str) -> list[dict[str, Any]]:
    """The rows of a table of a run. Raises `Refused` for a table there is not."""
    traffic = result.traffic if isinstance(result, Recorded) else Traffic()
    match name:
        case "cases" | "claims":
            return [_case(claim) for claim in result.claims]
        case "votes":
            return list(result.votes)
        case "messages":
            return traffic.rows
        case "traffic":
            return traffic.table()
        case "faults":
            return [_fault(fault) for fault in result.faults]
        case "events":
            return [{"at": at, "event": text} for at, text in result.told]
    raise Refused(f"there is no table {name}; there are {', '.join(COLUMNS)}")


def _case(claim: Mapping[str, Any]) -> dict[str, Any]:
    row = {key: claim.get(key) for key in COLUMNS["cases"]}
    return row | {key: row[key] or None for key in NEVER}


def _fault(fault: Mapping[str, Any]) -> dict[str, Any]:
    rest = {key: fault[key] for key in fault if key not in ("kind", "key", "select", "at", "for")}
    return {
        "kind": fault["kind"],
        "key": fault.get("key", ""),
        "seats": " ".join(str(seat) for seat in fault["select"]),
        "at": duration(fault["at"]),
        "lasts": duration(fault["for"]),
        "how": json.dumps(rest, sort_keys=True),
    }


def frame(name: str, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a polars frame with the columns of a table."""
    return typed(COLUMNS["cases" if name == "claims" else name], rows)


def typed(columns: Mapping[str, type], rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a polars frame with columns of these types; what is missing is null."""
    polars = need("polars")
    types = {int: polars.Int64, str: polars.String, bool: polars.Boolean, float: polars.Float64}
    return polars.DataFrame(
        {key: [row.get(key) for row in rows] for key in columns},
        schema={key: types[kind] for key, kind in columns.items()},
        strict=False,
    )


def type_of(values: Sequence[Any]) -> type:
    """The type of a column that holds all of these: whole numbers, numbers, or else text."""
    kinds = {type(value) for value in values}
    if kinds == {bool} or kinds == {int}:
        return next(iter(kinds))
    return float if kinds and kinds <= {int, float} else str


def save(result: Result, folder: Path) -> list[Path]:
    """Write cases, votes, traffic and faults of a run as Parquet; nothing without polars."""
    if importlib.util.find_spec("polars") is None:
        return []
    paths = []
    for name in ("cases", "votes", "traffic", "faults"):
        rows = rows_of(result, name)
        if rows or name == "cases":
            paths.append(folder / f"{name}.parquet")
            frame(name, rows).write_parquet(paths[-1])
    return paths


# --- many runs -------------------------------------------------------------------------


def summarise(
    cases: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """One row about runs that are alike: probabilities with their intervals, times, costs.

    `p_recovered` is of claims by owners and heirs, `p_false_release` of claims by strangers.
    Times are quantiles of recoveries that came about, in hours.
    """
    rightful = [case for case in cases if case["by"] in RIGHTFUL]
    strangers = [case for case in cases if case["by"] == "thief"]
    took = sorted(case["took"] for case in rightful if case["recovered"])
    messages, size = (sum(run[key] for run in runs) for key in ("messages", "bytes"))
    row: dict[str, Any] = {"runs": len(runs), "broken": sum(run["broken"] for run in runs)}
    row["claims"] = len(cases)
    row |= _shown("recovered", Share(sum(map(_recovered, rightful)), len(rightful)))
    row |= _shown("false_release", Share(sum(map(_recovered, strangers)), len(strangers)))
    row |= _shown("vetoed", Share(sum(bool(case["vetoed"]) for case in cases), len(cases)))
    for part in (50, 90, 99):
        row[f"took_h_p{part}"] = hours(quantile(took, part))
    row["messages_per_claim"] = messages / len(cases) if cases else None
    row["bytes_per_claim"] = size / len(cases) if cases else None
    return row


def _recovered(case: Mapping[str, Any]) -> bool:
    return bool(case["recovered"])


def _shown(name: str, share: Share) -> dict[str, Any]:
    return {
        f"{name}": share.hits, f"{name}_of": share.of, f"p_{name}": share.value,
        f"p_{name}_low": share.low, f"p_{name}_high": share.high,
    }  # fmt: skip


def quantile(values: Sequence[int], percent: int) -> int | None:
    """The smallest of sorted values that at least `percent` of 100 do not exceed."""
    return values[max(0, (len(values) * percent + 99) // 100 - 1)] if values else None


def hours(ms: int | None) -> float | None:
    return None if ms is None else ms / 3_600_000


SUMMARY: Final[dict[str, type]] = {
    key: float if key.startswith(("p_", "took")) or key.endswith("per_claim") else int
    for key in summarise([], [])
}
