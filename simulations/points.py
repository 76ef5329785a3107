"""The numbers of a figure: what is drawn, what is published, and what is compared.

Taken from a sweep's tables, without any library. A *series* is one curve: the arms that are
alike but for what the horizontal axis shows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp, log
from pathlib import Path
from typing import Any, Final

from protocol.errors import Refused
from simulations.intervals import Share
from simulations.journal import MANIFEST, Row
from simulations.quantities import duration
from simulations.results import RIGHTFUL, hours, need, quantile
from simulations.sweep import Swept, frames

PERCENTS: Final = (10, 25, 50, 75, 90, 95)  # that stand for a distribution of times
THRESHOLD: Final = "policy.threshold"
GUARDIANS: Final = "federation.guardians"
DECEIVED: Final = "humans.default.deceived"
DIES: Final = "humans.default.dies"


@dataclass(frozen=True)
class Point:
    """One number of a figure; `share` when it is a probability that was counted."""

    series: str
    x: float | str
    y: float | None
    share: Share | None = None

    def to_map(self) -> Row:
        row: Row = {"series": self.series, "x": self.x}
        if self.share is not None:
            return row | {"hits": self.share.hits, "of": self.share.of}
        return row if self.y is None else row | {"y": self.y}


def read_point(row: Mapping[str, Any]) -> Point:
    """A point as `to_map` wrote it."""
    if "of" in row:
        return counted(row["series"], row["x"], Share(row["hits"], row["of"]))
    return Point(row["series"], row["x"], row.get("y"))


def counted(series: str, x: float | str, share: Share) -> Point:
    return Point(series, x, share.value, share)


@dataclass(frozen=True)
class Tables:
    """A sweep's results as rows: one for each arm, and one for each case."""

    keys: tuple[str, ...]
    summary: Sequence[Row]
    cases: Sequence[Row]
    about: Mapping[str, Any] = field(default_factory=dict)

    def cases_of(self, arm: int) -> list[Row]:
        return [case for case in self.cases if case["arm"] == arm]


def tables_of(swept: Swept, about: Mapping[str, Any]) -> Tables:
    """The tables of a sweep that has just been made."""
    made = frames(swept)
    return Tables(swept.plan.keys, made["summary"].to_dicts(), made["cases"].to_dicts(), about)


def tables_in(folder: Path) -> Tables:
    """The tables of a folder. Raises `Refused` when no sweep was finished there."""
    polars = need("polars")
    if not (folder / MANIFEST).exists() or not (folder / "cases.parquet").exists():
        raise Refused(
            f"{folder} holds no finished sweep",
            hint="make one with holdfast simulate sweep",
        )
    about = json.loads((folder / MANIFEST).read_text())
    plan = about["plan"]
    summary, cases = (polars.read_parquet(folder / f"{name}.parquet").to_dicts()
                      for name in ("summary", "cases"))  # fmt: skip
    return Tables((*plan["grid"], *plan["ranges"]), summary, cases, about)


def series_of(tables: Tables, row: Row, *shown: str) -> str:
    """What tells a curve from the others: the settings that no axis shows."""
    parts = [f"{key.rpartition('.')[2]} {row[key]}" for key in tables.keys if key not in shown]
    return ", ".join(parts) or "all"


def needs(tables: Tables, *keys: str) -> None:
    """Raise `Refused` unless a sweep varied these settings."""
    for key in keys:
        if key not in tables.keys:
            raise Refused(
                f"this picture is drawn over {key}, which this sweep does not vary",
                hint=f"sweep it with --over {key}=…, or name another with --x",
            )


# --- what people publish ---------------------------------------------------------------


def latency(tables: Tables, x: str = "", within: str = "") -> list[Point]:
    """Quantiles of the hours from claim to secret; among all claims, recovered or not."""
    points = []
    for row in tables.summary:
        own = [case for case in tables.cases_of(row["arm"]) if case["by"] in RIGHTFUL]
        took, name = sorted(times(own)), series_of(tables, row)
        for percent in PERCENTS:
            # Those that never came stand behind all that did, and may have no quantile.
            wanted = quantile([*took, *([-1] * (len(own) - len(took)))], percent)
            if wanted is not None and wanted >= 0:
                points.append(Point(name, percent, hours(wanted)))
        points.append(counted(name, "recovered", Share(len(took), len(own))))
    return points


def times(cases: Sequence[Row]) -> list[int]:
    """Milliseconds from claim to secret, of those that were recovered."""
    return [case["took"] for case in cases if case["recovered"]]


def availability(tables: Tables, x: str = "", within: str = "") -> list[Point]:
    """The share of rightful claims that were recovered, within a time; over guardians too."""
    limit = duration(within) if within else None
    key = x or THRESHOLD
    needs(tables, key)
    points = []
    for row in tables.summary:
        own = [case for case in tables.cases_of(row["arm"]) if case["by"] in RIGHTFUL]
        hits = sum(limit is None or took <= limit for took in times(own))
        points.append(counted(series_of(tables, row, key), row[key], Share(hits, len(own))))
    return points


def false_release(tables: Tables, x: str = "", within: str = "") -> list[Point]:
    """The share of strangers who got what they claimed."""
    key = x or DECEIVED
    needs(tables, key)
    return [
        counted(series_of(tables, row, key), row[key],
                Share(row["false_release"], row["false_release_of"]))
        for row in tables.summary
    ]  # fmt: skip


def loss(tables: Tables, x: str = "", within: str = "") -> list[Point]:
    """The share of rightful claims that were not recovered by the end."""
    key = x or DIES
    needs(tables, key)
    return [
        counted(series_of(tables, row, key), row[key],
                Share(row["recovered_of"] - row["recovered"], row["recovered_of"]))
        for row in tables.summary
    ]  # fmt: skip


def messages(tables: Tables, x: str = "", within: str = "") -> list[Point]:
    """Messages and bytes between guardians for each claim, and the exponents of their growth."""
    key = x or GUARDIANS
    needs(tables, key)
    points = []
    for what in ("messages", "bytes"):
        found: dict[str, list[tuple[float, float]]] = {}
        for row in tables.summary:
            cost = row[f"{what}_per_claim"]
            if cost:
                name = f"{what}, {series_of(tables, row, key)}".removesuffix(", all")
                found.setdefault(name, []).append((row[key], cost))
        for name, pairs in found.items():
            points += [Point(name, n, cost) for n, cost in sorted(pairs)]
            if len({n for n, _ in pairs}) > 1:
                points.append(Point(name, "exponent", power(pairs)[1]))
    return points


def power(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Fit y = a x^b by least squares of the logarithms; a and b."""
    logs = [(log(x), log(y)) for x, y in pairs]
    middle_x = sum(x for x, _ in logs) / len(logs)
    middle_y = sum(y for _, y in logs) / len(logs)
    above = sum((x - middle_x) * (y - middle_y) for x, y in logs)
    exponent = above / sum((x - middle_x) ** 2 for x, _ in logs)
    return exp(middle_y - exponent * middle_x), exponent


KINDS: Final[dict[str, Callable[[Tables, str, str], list[Point]]]] = {
    "latency": latency,
    "availability": availability,
    "false-release": false_release,
    "loss": loss,
    "messages": messages,
}
