"""Take a failing list of faults to a minimal one: delta debugging, then simpler figures.

Works because every fault draws from streams of its own key: taking one away changes nothing
about the others. What must stay is the failure itself, that is the same invariant's id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from simulations.running import Result, run
from simulations.scenario import Scenario, read_scenario

T = TypeVar("T")

RUNS_MAX: Final = 400  # then the best so far is what there is
SIMPLER: Final = ("restart-after", "for", "every", "delay", "skew")


def ddmin(items: Sequence[T], fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """A part of `items` for which `fails` still holds, and of which no one can be left out.

    `fails(items)` must hold. (Zeller and Hildebrandt, 2002.)
    """
    kept, pieces = list(items), 2
    while kept:
        size = -(-len(kept) // pieces)
        parts = [kept[start : start + size] for start in range(0, len(kept), size)]
        smaller = _smaller(parts, fails)
        if smaller is not None:
            kept, pieces = smaller, max(2, pieces - 1)
        elif pieces >= len(kept):
            break
        else:
            pieces = min(len(kept), 2 * pieces)
    return kept


def _smaller(parts: list[list[T]], fails: Callable[[Sequence[T]], bool]) -> list[T] | None:
    for index in range(len(parts)):
        rest = [item for part in parts[:index] + parts[index + 1 :] for item in part]
        if fails(rest):
            return rest
    return None


class Shrinker:
    """Shrinks one failing run. `tell` hears of progress."""

    def __init__(
        self, failing: Result, tell: Callable[[str], None] = lambda line: None, runs: int = RUNS_MAX
    ) -> None:
        self.failing = failing
        self.wanted = what_failed(failing)
        self.runs = 0
        self._tell = tell
        self._max = runs
        self.best = failing

    def shrink(self) -> Result:
        """The result of the smallest list of faults that fails in the same way."""
        faults = list(self.failing.faults)
        if not self._fails(faults):
            return self.failing  # the faults written out give another run: nothing to rest on
        kept = ddmin(faults, self._fails)
        for index in range(len(kept)):
            for name in SIMPLER:
                without = {key: value for key, value in kept[index].items() if key != name}
                tried = [*kept[:index], without, *kept[index + 1 :]]
                if name in kept[index] and self._fails(tried):
                    kept = tried
        self._fails(kept)
        return self.best

    def _fails(self, faults: Sequence[dict[str, Any]]) -> bool:
        if self.runs >= self._max:
            return False
        self.runs += 1
        scenario = with_faults(self.failing.scenario, faults)
        result = run(scenario, seed=self.failing.seed, mode=self.failing.mode)
        fails = what_failed(result) == self.wanted
        if fails and len(result.faults) <= len(self.best.faults):
            self.best = result
        self._tell(f"run {self.runs}: {len(faults)} faults, {'fails' if fails else 'passes'}")
        return fails


def what_failed(result: Result) -> str:
    """The invariant that failed first, a crash, or nothing."""
    if result.failures:
        return "crash"
    return result.violations[0].id if result.violations else ""


def with_faults(scenario: Scenario, faults: Sequence[dict[str, Any]]) -> Scenario:
    """The scenario with these faults, and no others."""
    raw = {**scenario.raw, "fault": [dict(fault) for fault in faults]}
    raw.pop("swarm", None)
    return read_scenario(raw)
