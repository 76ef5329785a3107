"""`holdfast simulate`: run federations that do not exist, and find what breaks them.

0 passed, 10 safety, 11 liveness, 12 inconclusive, 13 non-determinism, 14 a node crashed,
64 usage, 70 a bug of the simulator. Only the standard library is imported at the top.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

USAGE = 64
# Verbs with modules of their own: the function takes the arguments after the verb.
ELSEWHERE = {
    "sweep": ("simulations.sweep", "sweep", "run a grid or a sample of settings"),
    "plot": ("simulations.plots", "plot", "draw what a sweep found"),
    "reproduce": (
        "simulations.reproduce",
        "reproduce",
        "make a published figure anew and compare",
    ),
    "report": ("simulations.report.command", "run", "write the page of a run"),
    "explore": ("simulations.explore", "main", "walk every interleaving of four guardians"),
}
HASH_SEEDS = ("0", "1", "random")


def run(arguments: list[str]) -> int:
    """Run one verb of `holdfast simulate`; the exit code."""
    act = _chosen(arguments)
    if act is None:
        parser().print_help(sys.stderr)
        return USAGE
    from node import terminal
    from protocol.errors import HoldfastError
    from simulations.determinism import Nondeterminism

    try:
        return act()
    except HoldfastError as error:  # a scenario, or a setting of one, that cannot be run
        terminal.fail("simulate", str(error), error.hint)
        return USAGE
    except Nondeterminism as error:
        terminal.fail("simulate", str(error))
        return 13


def _chosen(arguments: list[str]) -> Callable[[], int] | None:
    """What the arguments ask for, ready to be done."""
    if arguments and arguments[0] in ELSEWHERE:
        module, function, _ = ELSEWHERE[arguments[0]]
        work = getattr(importlib.import_module(module), function)
        return partial(work, arguments[1:])
    options = parser().parse_args(arguments)
    return partial(options.act, options) if hasattr(options, "act") else None


def parser() -> argparse.ArgumentParser:
    one = argparse.ArgumentParser(
        prog="holdfast simulate",
        description="Run federations that do not exist, and find what breaks them.",
        allow_abbrev=False,
        epilog="Exit: 0 passed, 10 safety, 11 liveness, 12 inconclusive, 13 non-determinism, "
        "14 a node crashed, 64 usage, 70 a bug of the simulator.",
    )
    verbs = one.add_subparsers(metavar="verb")
    _add_run(verbs)
    _add_campaign(verbs)
    replay = _verb(verbs, "replay", "run a seed again, and say whether it went the same way", again)
    _scenario(replay)
    replay.add_argument("--commit", default="", help="the commit that the failure was seen on")
    shrinks = _verb(verbs, "shrink", "take the faults of a failing run to as few as fail", shrink)
    _scenario(shrinks)
    shrinks.add_argument("--runs", type=int, default=400, help="try at most so often (400)")
    differ = _verb(verbs, "diff", "say where two runs part: two folders of runs", diff)
    differ.add_argument("one", type=Path)
    differ.add_argument("other", type=Path)
    for verb, (_, _, summary) in ELSEWHERE.items():
        verbs.add_parser(verb, help=summary)
    check = _verb(verbs, "check-determinism", "the same seed in many processes", determinism)
    check.add_argument("scenario", nargs="?", default="quiet-week")
    check.add_argument("--seeds", type=int, default=3, metavar="N", help="how many seeds (3)")
    check.add_argument("--mode", choices=("fast", "full", "both"), default="both")
    _settings(check)
    lists = _verb(verbs, "list", "what there is", listing)
    lists.add_argument(
        "what", nargs="?", default="scenarios",
        choices=("scenarios", "faults", "strategies", "invariants", "goals"),
    )  # fmt: skip
    return one


def _verb(
    verbs: Any, name: str, text: str, act: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(
        name, help=text, description=text, allow_abbrev=False
    )
    made.set_defaults(act=act)
    return made


def _settings(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", dest="settings",
        help="change the scenario: --set policy.threshold=4",
    )  # fmt: skip


def _scenario(one: argparse.ArgumentParser) -> None:
    one.add_argument("scenario", help="a name as `list` gives it, or a TOML file")
    one.add_argument("--seed", type=int, help="decides everything (the scenario's own)")
    one.add_argument("--mode", choices=("fast", "full"), help="bare cores, or the whole node")
    _settings(one)
    one.add_argument("-o", "--out", type=Path, help="folder for what the run leaves (runs/SEED)")
    one.add_argument("--json", action="store_true", help="the manifest on stdout")


def _add_run(verbs: Any) -> None:
    _scenario(_verb(verbs, "run", "run one scenario from one seed", once))


def _add_campaign(verbs: Any) -> None:
    one = _verb(verbs, "campaign", "run many seeds, and give one verdict", campaign)
    one.add_argument("scenarios", nargs="*", help="those to take by turns (all that are shipped)")
    one.add_argument("--seeds", type=int, default=50, metavar="N", help="how many runs (50)")
    one.add_argument("--for", dest="lasts", metavar="TIME", help="instead, as many as fit: 5m")
    one.add_argument("--base", default="", help="derive the seeds from this (the commit)")
    one.add_argument("--both", type=int, default=0, metavar="N", help="compare engines on N seeds")
    one.add_argument("--mode", choices=("fast", "full"), default="fast")
    one.add_argument("-j", "--jobs", type=int, default=0, metavar="N", help="processes (all cores)")
    one.add_argument("--junit", type=Path, metavar="FILE", help="write a JUnit file")
    one.add_argument("--corpus", type=Path, metavar="FOLDER", help="also run all that failed once")
    one.add_argument("--mutants", action="store_true", help="also plant bugs, and find each")
    one.add_argument("-o", "--out", type=Path, default=Path("runs"), help="folder for failures")
    one.add_argument("--json", action="store_true", help="the verdict as one object on stdout")
    _settings(one)


def _load(options: argparse.Namespace) -> Any:
    from simulations.scenario import load, read_setting

    return load(options.scenario, dict(read_setting(text) for text in options.settings))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201


# --- one run ---------------------------------------------------------------------------


def once(options: argparse.Namespace) -> int:
    from simulations import artefacts
    from simulations.report.witness import run as run_one
    from simulations.verdicts import CODES, closing

    result = run_one(_load(options), seed=options.seed, mode=options.mode)
    folder = options.out or Path("runs") / str(result.seed)
    artefacts.write(result, folder)
    _say(closing(result, folder, artefacts.commit()))
    if options.json:
        _print(json.dumps(artefacts.manifest(result)))
    return CODES[result.verdict]


def again(options: argparse.Namespace) -> int:
    from simulations import artefacts

    here = artefacts.commit()
    if options.commit and options.commit.rstrip("+") != here.rstrip("+"):
        _say(f"holdfast simulate: warning: that was commit {options.commit} and this is {here}; "
             "the run may differ")  # fmt: skip
    return once(options)


def shrink(options: argparse.Namespace) -> int:
    from simulations import artefacts
    from simulations.running import PASSED
    from simulations.running import run as run_one
    from simulations.shrink import Shrinker
    from simulations.verdicts import CODES, closing

    failing = run_one(_load(options), seed=options.seed, mode=options.mode)
    if failing.verdict == PASSED:
        _say("this run passes, so there is nothing to shrink")
        return 0
    shrinker = Shrinker(failing, _progress, options.runs)
    best = shrinker.shrink()
    _progress_end()
    folder = options.out or Path("runs") / f"{best.seed}-small"
    artefacts.write(best, folder)
    _say(f"{len(failing.faults)} faults -> {len(best.faults)} in {shrinker.runs} runs")
    _say(closing(best, folder, artefacts.commit()))
    return CODES[best.verdict]


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line[:100]}")
        sys.stderr.flush()


def _progress_end() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")


# --- many runs -------------------------------------------------------------------------


def campaign(options: argparse.Namespace) -> int:
    from simulations import artefacts
    from simulations import campaign as many
    from simulations.quantities import duration
    from simulations.scenario import load, read_setting, shipped
    from simulations.verdicts import CODES

    base = options.base or artefacts.commit()
    settings = tuple(read_setting(text) for text in options.settings)
    names = options.scenarios or [name for name in shipped() if _takes_part(load(name))]
    jobs = options.jobs or many.cores()
    began = time.monotonic()
    until = began + duration(options.lasts) / 1000 if options.lasts else float("inf")
    count = 10**6 if options.lasts else options.seeds
    tasks = many.corpus(options.corpus) if options.corpus else []
    total = None if options.lasts else len(tasks) + count

    def all_tasks() -> Iterator[many.Task]:
        yield from tasks
        yield from many.plan(names, many.seeds_from(base, count), options.mode,
                             options.both, settings)  # fmt: skip

    reports: list[many.Report] = []
    last = [0.0]

    def heard(report: many.Report) -> None:
        reports.append(report)
        bad = sum(not one.ok for one in reports)
        if not report.ok:
            _say(f"{report.verdict.upper()} {report.name} seed {report.task.seed}: {report.why}")
            _say(f"  {many.reproduce(report)}")
        line = f"{len(reports)}/{total or '?'} runs, {bad} failed"
        _progress(line)
        if not sys.stderr.isatty() and time.monotonic() - last[0] > 30:
            last[0] = time.monotonic()
            _say(line)

    many.conduct(all_tasks(), jobs, heard, until)
    _progress_end()
    wall = time.monotonic() - began
    verdict, missing = many.verdict_of(reports)
    if options.junit:
        options.junit.write_text(many.junit(reports, wall), encoding="utf-8")
    _keep_failures(reports, options.out)
    if options.mutants:
        verdict = _mutation(verdict)
    _end(options, reports, verdict, missing, wall, base)
    return CODES[verdict]


def _takes_part(scenario: Any) -> bool:
    """Whether a scenario is small enough to be run hundreds of times."""
    return bool(scenario.federation["count"] == 1 and "slow" not in scenario.name)


def _keep_failures(reports: list[Any], out: Path) -> None:
    from simulations import artefacts
    from simulations.campaign import BOTH
    from simulations.report.witness import run as run_one
    from simulations.scenario import load

    for report in [one for one in reports if not one.ok][:5]:
        mode = "full" if report.why.startswith("in full") else report.task.mode
        mode = "fast" if mode == BOTH else mode
        try:
            scenario = load(report.task.scenario, dict(report.task.settings))
            result = run_one(scenario, seed=report.task.seed, mode=mode)
        except Exception as error:
            _say(f"{report.name} seed {report.task.seed} left nothing: {error}")
            continue
        artefacts.write(result, out / str(report.task.seed))
        _say(f"{out}/{report.task.seed}/ holds {report.name}; "
             f"shrink: holdfast simulate shrink {out}/{report.task.seed}/repro.toml")  # fmt: skip


def _mutation(verdict: str) -> str:
    from simulations.mutants import hunt
    from simulations.running import INCONCLUSIVE, PASSED

    found = hunt(_say)
    return verdict if found or verdict != PASSED else INCONCLUSIVE


def _end(
    options: argparse.Namespace, reports: list[Any], verdict: str, missing: list[str],
    wall: float, base: str,
) -> None:  # fmt: skip
    from simulations.intervals import wilson

    hits, of = (sum(report.false[part] for report in reports) for part in (0, 1))
    claims = sum(report.claims for report in reports)
    both = sum(report.task.mode == "both" for report in reports)
    bad = sum(not report.ok for report in reports)
    low, high = wilson(hits, of)
    _say(f"campaign  {len(reports)} runs, {both} in both modes, {claims} claims  in {wall:.0f} s")
    _say(f"{verdict}: {bad} failed" + (f"; goals missing: {', '.join(missing)}" if missing else ""))
    if of:
        _say(f"false release {hits}/{of} = {100 * hits / of:.1f} % "
             f"(95 %: {100 * low:.1f} to {100 * high:.1f})")  # fmt: skip
    _say(f"again: holdfast simulate campaign --base {base} --seeds {len(reports)}")
    if options.json:
        _print(json.dumps({"verdict": verdict, "runs": len(reports), "failed": bad,
                           "missing": missing, "wall_s": round(wall, 1)}))  # fmt: skip


# --- comparing -------------------------------------------------------------------------


def determinism(options: argparse.Namespace) -> int:
    """Run each seed in processes of different hash seeds; every trace must be the same."""
    modes = ("fast", "full") if options.mode == "both" else (options.mode,)
    bad = 0
    for mode in modes:
        for seed in range(options.seeds):
            traces = {hash_seed: _trace(options, seed, mode, hash_seed) for hash_seed in HASH_SEEDS}
            same = len(set(traces.values())) == 1
            bad += not same
            shown = next(iter(traces.values())) if same else str(traces)
            _say(f"{options.scenario} seed {seed} {mode}: {'same' if same else 'DIFFERS'} {shown}")
    if bad:
        _say(f"{bad} seeds ran differently in another process: see simulations/determinism.py")
        return 13
    return 0


def _trace(options: argparse.Namespace, seed: int, mode: str, hash_seed: str) -> str:
    code = (
        "import sys, json; from simulations.running import run;"
        "from simulations.scenario import load, read_setting;"
        "name, seed, mode, *settings = sys.argv[1:];"
        "r = run(load(name, dict(map(read_setting, settings))), seed=int(seed), mode=mode);"
        "print(r.trace, r.outcome)"
    )
    command = [sys.executable, "-c", code, str(options.scenario), str(seed), mode]
    done = subprocess.run(
        [*command, *options.settings], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )  # fmt: skip
    return done.stdout.strip()


def diff(options: argparse.Namespace) -> int:
    """Compare two folders of runs: what they were, how they ended, where they part."""
    one, other = (json.loads((path / "manifest.json").read_text())
                  for path in (options.one, options.other))  # fmt: skip
    for key in sorted({*one, *other} - {"wall_s"}):
        if one.get(key) != other.get(key):
            _print(f"{key}: {one.get(key)} | {other.get(key)}")
    if one["trace"] == other["trace"]:
        _print("the same run: every event is equal")
        return 0
    events = [(path / "events.jsonl").read_text().splitlines()
              for path in (options.one, options.other)]  # fmt: skip
    for number, (left, right) in enumerate(zip(*events, strict=False)):
        if left != right:
            _print(f"they part at event {number}:\n  {left}\n  {right}")
            break
    else:
        _print("what was written down of them is the same; they part in the trace alone")
    return 1


def listing(options: argparse.Namespace) -> int:
    """Print what there is, a line each."""
    for name, text in _listed(options.what):
        _print(f"{name:<24} {text}")
    return 0


def _listed(what: str) -> list[tuple[str, str]]:
    if what == "scenarios":
        from simulations.scenario import load, shipped

        return [(name, str(load(name).top["shows"])) for name in shipped()]
    if what == "faults":
        from simulations.faults import SHOWN

        return sorted(SHOWN.items())
    if what == "strategies":
        from simulations.byzantine import STRATEGIES

        return [(name, (made.__doc__ or "").splitlines()[0])
                for name, made in sorted(STRATEGIES.items())]  # fmt: skip
    from simulations.checkers import GOALS, INVARIANTS

    return list((INVARIANTS if what == "invariants" else GOALS).items())
