"""Many seeds of many scenarios, on all cores, and one verdict.

A campaign passes when every run ended as its scenario expects, every pair of engines that
was compared agreed, every scenario of the corpus passes, and every `sometimes` goal was met
by some run. A goal that was not met makes it inconclusive: nothing was found, and something
that should have been tried was not.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from simulations import artefacts
from simulations.determinism import Nondeterminism
from simulations.running import CRASHED, INCONCLUSIVE, PASSED, run
from simulations.scenario import load
from simulations.verdicts import BROKEN, NONDETERMINISM, goals_missing, worst

BOTH: Final = "both"
AHEAD: Final = 4  # tasks handed to each worker before one is back


@dataclass(frozen=True)
class Task:
    """One run, or with the mode `both` a pair that must agree."""

    scenario: str  # a name, or the path of a file
    seed: int
    mode: str
    settings: tuple[tuple[str, Any], ...] = ()


@dataclass
class Report:
    """What one task came to: small enough to travel between processes."""

    task: Task
    verdict: str
    why: str = ""
    events: tuple[str, ...] = ()
    goals: dict[str, int] = field(default_factory=dict)
    wanted: tuple[str, ...] = ()
    expected: str = PASSED
    wall: float = 0.0
    trace: str = ""
    claims: int = 0
    false: tuple[int, int] = (0, 0)
    name: str = ""

    @property
    def ok(self) -> bool:
        return self.verdict == self.expected


def perform(task: Task) -> Report:
    """Run one task in this process. Never raises: a bug of the simulator is a report too."""
    try:
        return _perform(task)
    except Nondeterminism as error:
        return Report(task, NONDETERMINISM, str(error), name=task.scenario)
    except Exception as error:
        return Report(task, BROKEN, f"{type(error).__name__}: {error}", name=task.scenario)


def _perform(task: Task) -> Report:
    scenario = load(task.scenario, dict(task.settings))
    mode = "fast" if task.mode == BOTH else task.mode
    result = run(scenario, seed=task.seed, mode=mode)
    why = str(result.violations[0]) if result.violations else "; ".join(result.failures[:1])
    report = Report(
        task, result.verdict, why, result.violations[0].events if result.violations else (),
        dict(result.goals), tuple(scenario.check["sometimes"]), str(scenario.top["expected"]),
        result.wall, result.trace, len(result.claims), result.false_releases, scenario.name,
    )  # fmt: skip
    if task.mode == BOTH and report.ok:
        other = run(scenario, seed=task.seed, mode="full")
        report.wall += other.wall
        for goal, times in other.goals.items():
            report.goals[goal] = report.goals.get(goal, 0) + times
        if other.verdict != report.expected:
            report.verdict = other.verdict
            report.why = "in full mode: " + str((other.violations or other.failures)[0])
        elif other.outcome != result.outcome:
            report.verdict = NONDETERMINISM
            report.why = f"fast and full differ: {_difference(result.claims, other.claims)}"
    return report


def _difference(fast: Sequence[dict[str, Any]], full: Sequence[dict[str, Any]]) -> str:
    for one, other in zip(fast, full, strict=False):
        for key in ("by", "outcome", "approvals", "deceived"):
            if one[key] != other[key]:
                return f"claim {one['claim']} has {key} {one[key]} and {other[key]}"
    return f"{len(fast)} claims and {len(full)}"


def seeds_from(text: str, count: int) -> list[int]:
    """Seeds derived from a commit: each tries new ones, and all can be had again."""
    return [
        int.from_bytes(hashlib.blake2b(f"{text} {number}".encode(), digest_size=4).digest(), "big")
        for number in range(count)
    ]


def plan(
    scenarios: Sequence[str], seeds: Sequence[int], mode: str, both: int,
    settings: tuple[tuple[str, Any], ...] = (),
) -> list[Task]:  # fmt: skip
    """A task for each seed: every scenario once, then by turns those that draw their knobs.

    Without any of those, all by turns. The first `both` tasks are run in both modes.
    """
    drawn = [name for name in scenarios if load(name).swarm["enabled"]] or list(scenarios)
    rest = len(scenarios)
    tasks = []
    for number, seed in enumerate(seeds):
        again = drawn[(number - rest) % len(drawn)]
        name = scenarios[number] if number < rest else again
        tasks.append(Task(name, seed, BOTH if number < both else mode, settings))
    return tasks


def corpus(folder: Path) -> list[Task]:
    """What failed once: every scenario of a folder, in the mode and with the seed it names."""
    tasks = []
    for path in sorted(folder.glob("*.toml")):
        scenario = load(path)
        tasks.append(Task(str(path), int(scenario.top["seed"]), str(scenario.top["mode"])))
    return tasks


def conduct(
    tasks: Iterator[Task],
    jobs: int,
    heard: Callable[[Report], None],
    until: float = float("inf"),
) -> None:
    """Perform tasks on `jobs` processes; each report is given to `heard` as it comes.

    No new task is begun after `until`, a time of `time.monotonic`.
    """
    if jobs == 1:
        for task in tasks:
            if time.monotonic() > until:
                return
            heard(perform(task))
        return
    # Spawned, not forked: a run rests on module state that a fork would share half done.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running: set[Future[Report]] = set()
        more = True
        while running or more:
            while more and len(running) < AHEAD * jobs:
                upcoming = next(tasks, None) if time.monotonic() <= until else None
                more = upcoming is not None
                if upcoming is not None:
                    running.add(pool.submit(perform, upcoming))
            if running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    heard(future.result())


def verdict_of(reports: Sequence[Report]) -> tuple[str, list[str]]:
    """The verdict of a campaign, and the goals nobody met."""
    bad = [report.verdict if report.verdict != PASSED else CRASHED
           for report in reports if not report.ok]  # fmt: skip
    missing = goals_missing([(r.name, r.goals, r.wanted) for r in reports])
    if bad:
        return worst(bad), missing
    return (INCONCLUSIVE if missing else PASSED), missing


def junit(reports: Sequence[Report], wall: float) -> str:
    """The reports as JUnit XML, one test case each."""
    failed = sum(not report.ok for report in reports)
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        f'<testsuite name="holdfast simulate" tests="{len(reports)}" failures="{failed}" '
        f'time="{wall:.1f}">',
    ]
    for report in reports:
        name = f"{report.name} seed {report.task.seed} {report.task.mode}"
        lines.append(
            f"<testcase classname={quoteattr('simulate.' + report.name)} name={quoteattr(name)} "
            f'time="{report.wall:.2f}">'
        )
        lines.append(f"<properties><property name='trace' value='{report.trace}'/></properties>")
        if not report.ok:
            text = "\n".join([report.why, *report.events, reproduce(report)])
            lines.append(f"<failure message={quoteattr(report.why)}>{escape(text)}</failure>")
        lines.append("</testcase>")
    return "\n".join([*lines, "</testsuite>", ""])


def reproduce(report: Report) -> str:
    """The command that runs a task again."""
    mode = "fast" if report.task.mode == BOTH else report.task.mode
    if report.why.startswith(("in full mode", "fast and full")):
        mode = "full"
    return (
        f"reproduce: holdfast simulate replay --seed {report.task.seed} --mode {mode} "
        f"--commit {artefacts.commit()} {report.task.scenario}"
    )


def cores() -> int:
    """How many processes may run beside each other here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
