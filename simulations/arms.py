"""What a sweep tries: a grid, or a Latin hypercube, over settings of one scenario.

An *arm* is one choice of settings. Every arm is run with the same seeds: since each draw of a
world has a label of its own, people who are asked the same question in two arms give the
same answer, and what differs between arms is what the settings do (common random numbers).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

from protocol.errors import HoldfastError, Malformed, Refused
from simulations.campaign import seeds_from
from simulations.chances import Stream
from simulations.quantities import duration, show_duration
from simulations.scenario import MODES, Scenario, load

ARMS_MAX: Final = 10_000  # more is a mistake in a range, or a year of computing
FINE: Final = 1 << 24  # places within one stratum of a hypercube
DIGITS: Final = 6  # chances are read in millionths

Value = int | float | str | bool
Range = tuple[Value, Value]


@dataclass(frozen=True)
class Plan:
    """A sweep: `seeds` runs of a scenario for every arm.

    `grid` lists values by setting; `ranges` gives two ends by setting, from which a Latin
    hypercube draws `samples` points; given both, every point meets every value of the grid.
    """

    scenario: str
    grid: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    samples: int = 0
    seeds: int = 10
    base: str = "1"
    mode: str = ""
    settings: Mapping[str, Value] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """The settings that differ between arms."""
        return (*self.grid, *self.ranges)

    def to_map(self) -> dict[str, Any]:
        """Everything that decides which runs are made."""
        return {
            "scenario": load(self.scenario).raw,
            "grid": {key: list(values) for key, values in self.grid.items()},
            "ranges": {key: list(ends) for key, ends in self.ranges.items()},
            "samples": self.samples, "seeds": self.seeds, "base": self.base, "mode": self.mode,
            "settings": dict(self.settings),
        }  # fmt: skip


def read_plan(raw: Mapping[str, Any]) -> Plan:
    """Check a `[sweep]` table. Raises `Malformed` with what is wrong."""
    known = {"scenario", "grid", "ranges", "samples", "seeds", "base", "mode", "settings"}
    for key in raw:
        if key not in known:
            raise Malformed(f"sweep: {key!r} is not known; there are {', '.join(sorted(known))}")
    if "scenario" not in raw:
        raise Malformed("sweep: it does not say which scenario")
    ranges = {key: (ends[0], ends[1]) if len(ends) == 2 else _bad_ends(key)
              for key, ends in raw.get("ranges", {}).items()}  # fmt: skip
    plan = Plan(
        str(raw["scenario"]), raw.get("grid", {}), ranges, int(raw.get("samples", 0)),
        int(raw.get("seeds", 10)), str(raw.get("base", "1")), str(raw.get("mode", "")),
        raw.get("settings", {}),
    )  # fmt: skip
    check(plan)
    return plan


def _bad_ends(key: str) -> Range:
    raise Malformed(f"sweep, ranges, {key}: two ends are needed")


def check(plan: Plan) -> None:
    """Raise `Malformed` for a plan of nothing, or of too much."""
    if plan.seeds < 1:
        raise Malformed("sweep, seeds: at least one")
    if plan.mode not in ("", *MODES):
        raise Malformed(f"sweep, mode: {plan.mode} is not one of {', '.join(MODES)}")
    if bool(plan.ranges) != bool(plan.samples):
        raise Malformed(
            "sweep: ranges and samples go together: how many points are drawn from them"
        )
    for key, values in plan.grid.items():
        if not isinstance(values, list | tuple) or not values:
            raise Malformed(f"sweep, grid, {key}: a list of values is needed")
    if set(plan.grid) & set(plan.ranges):
        raise Malformed("sweep: a setting is either in the grid or in a range")
    size = max(1, plan.samples)
    for values in plan.grid.values():
        size *= len(values)
    if size > ARMS_MAX:
        raise Malformed(f"sweep: that makes {size} arms, and at most {ARMS_MAX} are run")


def read_axis(text: str) -> tuple[str, list[Value] | Range]:
    """`a.b=2,3,5` or `a.b=[…]` as a list, `a.b=0.1..0.5` as a range. Raises `Refused`."""
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key or not value:
        raise Refused(f"{text!r} is no axis; write for example policy.threshold=2,3,4")
    low, dots, high = value.partition("..")
    if dots:
        return key, (_value(low), _value(high))
    if value.startswith("["):
        return key, _listed(value, text)
    return key, [_value(part) for part in value.split(",")]


def _listed(value: str, text: str) -> list[Value]:
    try:
        return list(tomllib.loads(f"value = {value}")["value"])
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"{text!r} is no axis: {error}") from error


def _value(text: str) -> Value:
    text = text.strip()
    try:
        read: Value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return read


# --- arms ------------------------------------------------------------------------------


def arms(plan: Plan) -> list[dict[str, Value]]:
    """Every arm's settings, in order: the last setting of the grid changes fastest."""
    cells = [dict(zip(plan.grid, values, strict=True)) for values in product(*plan.grid.values())]
    points = hypercube(plan.ranges, plan.samples, plan.base) if plan.ranges else [{}]
    return [{**cell, **point} for cell in cells for point in points]


def possible(plan: Plan) -> tuple[list[tuple[dict[str, Value], Scenario]], list[str]]:
    """The arms whose settings fit together, with their scenarios, and why others do not.

    Raises `Refused` when no arm is left.
    """
    kept, refused = [], []
    for arm in arms(plan):
        try:
            kept.append((arm, load(plan.scenario, {**plan.settings, **arm})))
        except HoldfastError as error:
            if str(error) not in refused:
                refused.append(str(error))
    if not kept:
        raise Refused(f"no arm of this sweep can be run: {refused[0]}")
    return kept, refused


def seeds(plan: Plan) -> list[int]:
    """The seeds that every arm is run with."""
    return seeds_from(plan.base, plan.seeds)


def hypercube(ranges: Mapping[str, Range], samples: int, base: str) -> list[dict[str, Value]]:
    """`samples` points: along each setting, one in every part when its range is cut in so many.

    The points are the same on every machine. Raises `Malformed` for ends that are no numbers
    and no lengths of time.
    """
    columns = {key: _column(key, ends, samples, base) for key, ends in ranges.items()}
    return [{key: column[number] for key, column in columns.items()} for number in range(samples)]


def _column(key: str, ends: Range, samples: int, base: str) -> list[Value]:
    stream = Stream(0, "hypercube", base, key)
    left = list(range(samples))
    order = [left.pop(stream.below(len(left))) for _ in range(samples)]
    places = [(part * FINE + stream.below(FINE), samples * FINE) for part in order]
    low, high = ends
    if isinstance(low, str) and isinstance(high, str):
        first, last = duration(low), duration(high)
        return [show_duration(first + (last - first) * at // of) for at, of in places]
    if isinstance(low, bool | str) or isinstance(high, bool | str):
        raise Malformed(f"{key}: {low!r} to {high!r} is no range of numbers or lengths of time")
    if isinstance(low, int) and isinstance(high, int):
        return [low + (high - low + 1) * at // of for at, of in places]
    return [round(low + (high - low) * (at / of), DIGITS) for at, of in places]
