"""Measure in alternation, take medians, and say it as JSON or as a line of a table.

The machine is never quiet, so a figure alone says little. Each is measured beside a floor:
the least that this machine needs for the same work, in the same run, turn and turn about.
"""

from __future__ import annotations

import gc
import logging
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog

from node.daemon import tune

ROUNDS: Final = 5  # an odd number, so that the median is one of them

AT_LEAST: Final = "at least"
AT_MOST: Final = "at most"


@dataclass(frozen=True)
class Size:
    """How much is done: `pick` gives the number for one of three sizes."""

    name: str

    def pick(self, tiny: int, usual: int, full: int) -> int:
        return {"tiny": tiny, "usual": usual, "full": full}[self.name]


TINY: Final = Size("tiny")  # for tests: that it runs, not how fast
USUAL: Final = Size("usual")  # a minute for all
FULL: Final = Size("full")  # with a hundred thousand vaults and a million rows


@dataclass(frozen=True)
class Figure:
    """One figure: `ratio` is measured over floor; `goal` bounds `goal_of`, one of the two.

    `floor` and `ratio` are None when there is nothing to compare with.
    """

    name: str
    measured: float
    floor: float | None
    unit: str
    goal: float
    bound: str = AT_LEAST
    goal_of: str = "ratio"
    more: dict[str, Any] = field(default_factory=dict)
    parts: tuple[Figure, ...] = ()

    @property
    def ratio(self) -> float | None:
        return self.measured / self.floor if self.floor else None

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is reached, by every part; None when nobody can say."""
        value = self.ratio if self.goal_of == "ratio" else self.measured
        own = None if value is None else self._holds(value)
        answers = [own, *(part.is_met for part in self.parts)]
        if False in answers:
            return False
        return None if None in answers else True

    def _holds(self, value: float) -> bool:
        return value >= self.goal if self.bound == AT_LEAST else value <= self.goal

    def to_map(self) -> dict[str, Any]:
        """What `--json` prints."""
        shown: dict[str, Any] = {
            "name": self.name,
            "measured": _short(self.measured),
            "floor": None if self.floor is None else _short(self.floor),
            "ratio": None if self.ratio is None else _short(self.ratio),
            "unit": self.unit,
            "goal": self.goal,
            "bound": self.bound,
            "goal_of": self.goal_of,
            "met": self.is_met,
            **self.more,
        }
        if self.parts:
            shown["parts"] = [part.to_map() for part in self.parts]
        return shown

    def rows(self) -> Iterator[tuple[str, ...]]:
        """The lines of a table: this figure and its parts."""
        words = {True: "yes", False: "NO", None: "?"}
        yield (
            self.name,
            f"{self.measured:.4g}",
            "-" if self.floor is None else f"{self.floor:.4g}",
            self.unit,
            "-" if self.ratio is None else f"{self.ratio:.2f}",
            f"{self.goal_of} {self.bound} {self.goal:g}",
            words[self.is_met],
        )
        for part in self.parts:
            yield from part.rows()


HEAD: Final = ("name", "measured", "floor", "unit", "ratio", "goal", "met")


def table(rows: list[tuple[str, ...]]) -> str:
    """Lay rows out in columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def alternate(rounds: int, *measure: Callable[[], float]) -> list[float]:
    """Call each in turn, `rounds` times over; the median of each."""
    found: list[list[float]] = [[] for _ in measure]
    for _ in range(rounds):
        for values, one in zip(found, measure, strict=True):
            with collected():
                values.append(one())
    return [statistics.median(values) for values in found]


def quiet() -> None:
    """Keep nodes from saying what is no error: stdout is for figures."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )


@contextmanager
def tuned() -> Iterator[None]:
    """Run as the process of a node does, and leave things as they were."""
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    tune()
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)


@contextmanager
def collected() -> Iterator[None]:
    """Begin without the garbage of whoever was measured before."""
    gc.collect()
    yield


def run(*words: str, stdin: bytes = b"") -> bytes:
    """Run this Python with these arguments; what it printed."""
    done = subprocess.run([sys.executable, *words], input=stdin, capture_output=True, check=True)
    return done.stdout


def resident(pid: int | str = "self") -> float | None:
    """Memory of a process that is in RAM, in MiB; None where the system does not say."""
    try:
        with Path(f"/proc/{pid}/status").open() as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        return None
    return int(lines["VmRSS"].split()[0]) / 1024


def _short(value: float) -> float:
    return float(f"{value:.4g}")
