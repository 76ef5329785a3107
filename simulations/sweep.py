"""Run every arm of a plan with every seed, and leave tables: resumable, on as many cores.

What a folder holds: `sweep.json` (plan, commit, lock, Python), `journal.jsonl` (a line for
each run that is done, in the order they came), and when all are done `runs`, `cases` and
`summary`, each as CSV and Parquet. A sweep that was stopped goes on where it was, and its
tables end with the same bytes. Runs of changed code are not put into one table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from protocol.errors import HoldfastError, NotYet, Refused
from simulations.arms import Plan, check, possible, read_axis, read_plan, seeds
from simulations.campaign import AHEAD, cores
from simulations.intervals import Share
from simulations.journal import Row, code_digest, opened
from simulations.results import COLUMNS, RIGHTFUL, SUMMARY, need, rows_of, summarise, type_of, typed
from simulations.results import run as run_one
from simulations.running import CRASHED, PASSED
from simulations.scenario import read_scenario, read_setting
from simulations.verdicts import CODES, worst

LATER: Final = 75
QUIET_S: Final = 30  # between two lines about progress where there is no terminal
RUNS: Final[dict[str, type]] = {
    "verdict": str, "expected": str, "why": str, "broken": bool, "claims": int, "messages": int,
    "bytes": int, "wallet_messages": int, "wallet_bytes": int, "events": int, "trace": str,
    "outcome": str,
}  # fmt: skip
CASES: Final = {"arm": int, "seed": int, **COLUMNS["cases"]}

Heard = Callable[[int, int], None]


@dataclass(frozen=True)
class Task:
    """One run: small and plain, so that it can travel to another machine.

    `code` is the digest of the code it must be run with; empty where that cannot differ.
    """

    arm: int
    seed: int
    mode: str
    raw: Mapping[str, Any]
    code: str = ""


def perform(task: Task) -> Row:
    """Run one task in this process; what is kept of it. A run that fails is a row too."""
    if task.code and task.code != code_digest():
        raise Refused(
            "a worker has other code of Holdfast than the one that asks",
            hint="install the same commit everywhere, and run the same command again",
        )
    scenario = read_scenario(task.raw)
    row: Row = {"arm": task.arm, "seed": task.seed, "cases": []}
    row["run"] = dict.fromkeys(RUNS) | {"expected": str(scenario.top["expected"])}
    try:
        result = run_one(scenario, seed=task.seed, mode=task.mode or None, keep=0)
    except Exception as error:
        nothing = dict.fromkeys(("claims", "messages", "bytes"), 0)
        why = f"{type(error).__name__}: {error}"
        row["run"] |= {**nothing, "verdict": CRASHED, "why": why, "broken": True}
        return row
    among, wallets = result.traffic.sums(), result.traffic.sums("wallets")
    found = [str(one) for one in result.violations] + result.failures
    row["cases"] = rows_of(result, "cases")
    row["run"] |= {
        "verdict": result.verdict, "why": found[0] if found else "",
        "broken": result.verdict not in (PASSED, row["run"]["expected"]),
        "claims": len(result.claims), "messages": among[0], "bytes": among[1],
        "wallet_messages": wallets[0], "wallet_bytes": wallets[1], "events": result.events,
        "trace": result.trace, "outcome": result.outcome,
    }  # fmt: skip
    return row


# --- running ---------------------------------------------------------------------------


@dataclass
class Swept:
    """A sweep that is done: its arms, and its rows in order of arm and seed."""

    plan: Plan
    arms: list[dict[str, Any]]
    rows: list[Row]
    refused: list[str] = field(default_factory=list)

    def cases(self, arm: int) -> list[Row]:
        return [case for row in self.rows if row["arm"] == arm for case in row["cases"]]

    @property
    def settings(self) -> dict[str, type]:
        """The type of each setting that differs between arms."""
        return {key: type_of([arm[key] for arm in self.arms]) for key in self.plan.keys}

    def summary(self) -> list[Row]:
        """One row for each arm; see `simulations.results.summarise`."""
        summaries = []
        for number, arm in enumerate(self.arms):
            runs = [row["run"] for row in self.rows if row["arm"] == number]
            summaries.append({"arm": number, **arm, **summarise(self.cases(number), runs)})
        return summaries

    @property
    def broken(self) -> list[Row]:
        return [row for row in self.rows if row["run"]["broken"]]

    @property
    def verdict(self) -> str:
        return worst([row["run"]["verdict"] for row in self.broken])


def conduct(
    plan: Plan,
    folder: Path,
    *,
    jobs: int = 0,
    cluster: str = "",
    heard: Heard = lambda done, of: None,
) -> Swept:
    """Run what is not yet done of a plan, write its tables, and return it.

    `jobs` processes of this machine (0: one for each core), or an existing Dask cluster by
    the address of its scheduler. `heard` is told how many runs are done. Raises `Refused` for
    a folder of another sweep, `NotYet` when the cluster is gone; then nothing is lost.
    """
    check(plan)
    need("polars")  # before hours of work, not after
    arms, refused = possible(plan)
    with opened(folder, plan.to_map()) as journal:
        tasks = [
            Task(number, seed, plan.mode, scenario.raw)
            for seed in seeds(plan)
            for number, (_, scenario) in enumerate(arms)
        ]
        todo = [task for task in tasks if (task.arm, task.seed) not in journal.rows]
        heard(len(tasks) - len(todo), len(tasks))
        for row in _rows(todo, jobs or cores(), cluster):
            journal.add(row)
            heard(len(journal.rows), len(tasks))
        rows = [journal.rows[key] for key in sorted(journal.rows)]
    swept = Swept(plan, [arm for arm, _ in arms], rows, refused)
    write(swept, folder)
    return swept


def _rows(tasks: Sequence[Task], jobs: int, cluster: str) -> Iterator[Row]:
    if cluster:
        from simulations.cluster import rows

        return rows(tasks, cluster)
    return map(perform, tasks) if jobs == 1 else _pooled(tasks, jobs)


def _pooled(tasks: Sequence[Task], jobs: int) -> Iterator[Row]:
    # Spawned, not forked: a run rests on module state that a fork would share half done.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        left = iter(tasks)
        running: set[Future[Row]] = set()
        try:
            while True:
                while len(running) < AHEAD * jobs and (task := next(left, None)) is not None:
                    running.add(pool.submit(perform, task))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from [future.result() for future in done]
        finally:
            pool.shutdown(cancel_futures=True)


# --- tables ----------------------------------------------------------------------------


def frames(swept: Swept) -> dict[str, Any]:
    """runs, cases and summary as polars frames."""
    about = {"arm": int, **swept.settings}
    runs = [{"arm": row["arm"], "seed": row["seed"], **swept.arms[row["arm"]], **row["run"]}
            for row in swept.rows]  # fmt: skip
    cases = [{"arm": row["arm"], "seed": row["seed"], **case}
             for row in swept.rows for case in row["cases"]]  # fmt: skip
    return {
        "runs": typed({"arm": int, "seed": int, **swept.settings, **RUNS}, _spelt(swept, runs)),
        "cases": typed(CASES, cases),
        "summary": typed({**about, **SUMMARY}, _spelt(swept, swept.summary())),
    }


def _spelt(swept: Swept, rows: list[Row]) -> list[Row]:
    """Values of a setting as one type: lists and mixed ones as they are written."""
    texts = [key for key, kind in swept.settings.items() if kind is str]
    return [row | {key: _text(row[key]) for key in texts} for row in rows]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def write(swept: Swept, folder: Path) -> None:
    """Write every table as CSV and Parquet, each whole or not at all."""
    for name, table in frames(swept).items():
        for suffix, save in (("csv", table.write_csv), ("parquet", table.write_parquet)):
            path = folder / f"{name}.{suffix}"
            beside = path.with_name(f".{path.name}")
            save(beside)
            beside.replace(path)


def told(swept: Swept) -> list[str]:
    """A line for each arm, and what was wrong."""
    lines = []
    for number, arm in enumerate(swept.arms):
        cases = swept.cases(number)
        about = "  ".join(f"{key}={value}" for key, value in arm.items()) or "all"
        parts = [
            f"{name} {Share(sum(bool(one['recovered']) for one in some), len(some))}"
            for name, some in (
                ("recovered", [case for case in cases if case["by"] in RIGHTFUL]),
                ("false release", [case for case in cases if case["by"] == "thief"]),
            )
            if some
        ]
        lines.append(f"{about}   {'   '.join(parts) or 'no claims'}")
    if swept.refused:
        lines.append(f"left out, since they cannot be: {'; '.join(swept.refused[:3])}")
    return lines + complaints(swept)


def complaints(swept: Swept) -> list[str]:
    """A line for each of the first runs that went wrong."""
    return [
        f"{row['run']['verdict'].upper()} arm {row['arm']} seed {row['seed']}: {row['run']['why']}"
        for row in swept.broken[:3]
    ]


# --- the command -----------------------------------------------------------------------


class Progress:
    """One line on a terminal; elsewhere a line now and then."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = self._last = time.monotonic()
        self._first = -1

    def __call__(self, done: int, of: int) -> None:
        self._first = done if self._first < 0 else self._first
        now = time.monotonic()
        here = done - self._first
        left = f", {(now - self._began) / here * (of - done):.0f} s left" if here else ""
        line = f"{self._what}: {done}/{of} runs{left if done < of else ''}"
        if sys.stderr.isatty():
            filled = 24 * done // max(of, 1)
            sys.stderr.write(f"\r\x1b[K[{'#' * filled}{'.' * (24 - filled)}] {line[:90]}")
            sys.stderr.write("\n" if done == of else "")
            sys.stderr.flush()
        elif now - self._last > QUIET_S or done == of:
            self._last = now
            say(line)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def parser() -> argparse.ArgumentParser:
    one = argparse.ArgumentParser(
        prog="holdfast simulate sweep", allow_abbrev=False,
        description="Run a scenario over a grid of settings, or a Latin hypercube, with the same "
        "seeds for every arm. A sweep that was stopped goes on with the same command.",
    )  # fmt: skip
    one.add_argument("scenario", help="its name or TOML file, or a TOML file with a [sweep]")
    one.add_argument(
        "--over", action="append", default=[], metavar="A.B=1,2,3",
        help="a setting and its values; as A.B=0.1..0.5 a range to draw from",
    )  # fmt: skip
    one.add_argument("--samples", type=int, default=0, metavar="N",
                     help="points of a Latin hypercube over the ranges")  # fmt: skip
    one.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="settings")
    one.add_argument("--seeds", type=int, default=10, metavar="N", help="runs of each arm (10)")
    one.add_argument("--base", default="1", help="derive the seeds from this")
    one.add_argument("--mode", choices=("fast", "full"), default="")
    workers(one)
    one.add_argument("-o", "--out", type=Path, help="folder for the tables (sweeps/SCENARIO)")
    one.add_argument("--json", action="store_true", help="the summary on stdout")
    return one


def workers(one: argparse.ArgumentParser) -> None:
    """The options that say where runs are made."""
    one.add_argument("-j", "--jobs", type=int, default=0, metavar="N", help="processes (all cores)")
    one.add_argument("--cluster", default="", metavar="tcp://HOST:PORT",
                     help="the scheduler of a Dask cluster that runs")  # fmt: skip


def _plan(options: argparse.Namespace) -> Plan:
    path = Path(options.scenario)
    if path.suffix == ".toml" and path.is_file():
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        if "sweep" in raw:
            return read_plan(raw["sweep"])
    axes = dict(read_axis(text) for text in options.over)
    return Plan(
        options.scenario,
        {key: values for key, values in axes.items() if isinstance(values, list)},
        {key: ends for key, ends in axes.items() if isinstance(ends, tuple)},
        options.samples, options.seeds, options.base, options.mode,
        dict(read_setting(text) for text in options.settings),
    )  # fmt: skip


def sweep(arguments: list[str]) -> int:
    """Run `holdfast simulate sweep`; the exit code: 0, 75 when stopped, or of the worst run."""
    options = parser().parse_args(arguments)
    plan = _plan(options)
    folder = options.out or Path("sweeps") / Path(options.scenario).stem
    try:
        swept = conduct(plan, folder, jobs=options.jobs, cluster=options.cluster,
                        heard=Progress(folder.name))  # fmt: skip
    except (KeyboardInterrupt, NotYet) as error:
        if isinstance(error, HoldfastError):
            say(f"holdfast simulate sweep: error: {error}")
        say(f"stopped; what is done lies in {folder}/, and the same command goes on from there")
        return LATER
    for line in told(swept):
        say(line)
    say(f"{folder}/  {'  '.join(sorted(path.name for path in folder.glob('*.*')))}")
    if options.json:
        print(json.dumps({"plan": asdict(plan), "arms": swept.summary()}))  # noqa: T201
    return CODES[swept.verdict]


run = sweep
