"""What a run's end means: exit codes, closing lines, and intervals for what was counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from simulations.checkers import GOALS
from simulations.intervals import wilson
from simulations.quantities import show_duration
from simulations.running import CRASHED, INCONCLUSIVE, LIVENESS, PASSED, SAFETY, Result

NONDETERMINISM: Final = "non-determinism"
BROKEN: Final = "simulator broken"
CODES: Final = {
    PASSED: 0,
    SAFETY: 10,
    LIVENESS: 11,
    INCONCLUSIVE: 12,
    NONDETERMINISM: 13,
    CRASHED: 14,
    BROKEN: 70,
}
WORDS: Final = {
    SAFETY: "FAILED",
    LIVENESS: "FAILED",
    CRASHED: "CRASHED",
    INCONCLUSIVE: "INCONCLUSIVE",
    PASSED: "passed",
}
Z95: Final = 1.959963984540054  # of the normal distribution, for an interval of 95 %
SHOWN: Final = 6  # events under a failure


def closing(result: Result, folder: Path | None, commit: str) -> str:
    """The last lines of a run: what came of it, and how to see it again."""
    scenario = result.scenario
    lines = [
        f"{scenario.name}  seed {result.seed}  {result.mode}  {scenario.guardians} guardians, "
        f"threshold {scenario.threshold}   {_length(scenario.end)} in {result.wall:.1f} s"
    ]
    lines += _findings(result)
    wanted = list(scenario.check["sometimes"])
    if wanted:
        met = len(wanted) - len(result.missing)
        gap = f", missing {', '.join(result.missing)}" if result.missing else ""
        lines.append(f"goals {met}/{len(wanted)}{gap}")
    lines.append(_cases(result))
    if folder is not None:
        lines.append(f"{folder}/  {'  '.join(sorted(path.name for path in folder.iterdir()))}")
        if result.verdict != PASSED and result.faults:
            lines.append(f"shrink:    holdfast simulate shrink {folder}/repro.toml")
    lines.append(
        f"reproduce: holdfast simulate replay --seed {result.seed} --mode {result.mode} "
        f"--commit {commit} {_again(result, folder)}"
    )
    return "\n".join(lines)


def _again(result: Result, folder: Path | None) -> str:
    return f"{folder}/repro.toml" if folder is not None else result.scenario.name


def _findings(result: Result) -> list[str]:
    if result.failures:
        return [f"CRASHED {failure}" for failure in result.failures[:SHOWN]]
    lines = []
    for violation in result.violations[:1]:
        lines.append(f"{WORDS[result.verdict]} {violation}")
        lines += [f"  {event}" for event in violation.events[-SHOWN:]]
    if len(result.violations) > 1:
        lines.append(f"  and {len(result.violations) - 1} more")
    if result.exhausted:
        lines.append(f"INCONCLUSIVE the budget of {result.events} events ran out")
    return lines or ["passed"]


def _cases(result: Result) -> str:
    kinds = ("recovered", "released", "vetoed", "open")
    counts = ", ".join(f"{result.count(kind)} {kind}" for kind in kinds if result.count(kind))
    hits, of = result.false_releases
    text = f"cases {len(result.claims)}: {counts or 'none'}"
    if of:
        low, high = wilson(hits, of)
        text += (
            f"; false release {hits}/{of} = {100 * hits / of:.0f} % "
            f"(95 %: {100 * low:.0f} to {100 * high:.0f})"
        )
    return text


def _length(ms: int) -> str:
    days = ms / 86_400_000
    return f"{days:g} d" if days >= 1 else show_duration(ms)


def worst(verdicts: Sequence[str]) -> str:
    """The gravest of several verdicts."""
    order = (PASSED, INCONCLUSIVE, LIVENESS, SAFETY, NONDETERMINISM, CRASHED, BROKEN)
    return max(verdicts, key=order.index, default=PASSED)


def goals_missing(results: Sequence[tuple[str, dict[str, int], Sequence[str]]]) -> list[str]:
    """Goals that some scenario wants and no run of it met: `scenario: goal`."""
    met: dict[str, dict[str, int]] = {}
    wanted: dict[str, Sequence[str]] = {}
    for name, goals, asks in results:
        wanted[name] = asks
        counts = met.setdefault(name, dict.fromkeys(GOALS, 0))
        for goal, times in goals.items():
            counts[goal] = counts.get(goal, 0) + times
    return [
        f"{name}: {goal}" for name, asks in sorted(wanted.items()) for goal in asks
        if not met[name].get(goal)
    ]  # fmt: skip
