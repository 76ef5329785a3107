"""`holdfast simulate report`: draw a run, from the folder it left or from its scenario.

The run is made again, since one seed is one run, and watched this time: so the page shows
every statement, and says when this code no longer does what the folder says.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from simulations.report import write_report
from simulations.report.witness import run as watch
from simulations.scenario import load, read_setting

REPRODUCTION = "repro.toml"


def run(arguments: list[str]) -> int:
    """Run the verb; the exit code: 13 when the run is not the one that the folder tells of."""
    options = parser().parse_args(arguments)
    path = Path(options.run)
    settings = dict(read_setting(text) for text in options.settings)
    left: dict[str, Any] = {}
    if path.is_dir():
        manifest = path / "manifest.json"
        left = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
        scenario = load(path / REPRODUCTION, settings)
    else:
        scenario = load(options.run, settings)
    result = watch(scenario, seed=options.seed, mode=options.mode)
    out = options.out or (path / "report.html" if path.is_dir() else Path("report.html"))
    write_report(result, out)
    sys.stderr.write(f"{out}: {result.verdict}, {len(result.claims)} claims\n")
    asked_for_another = options.seed is not None or options.mode is not None or settings
    if left and not asked_for_another and left.get("trace") != result.trace:
        sys.stderr.write(
            f"holdfast simulate: warning: {path} tells of another run, made by commit "
            f"{left.get('commit', 'unknown')}; the page shows what this code does\n"
        )
        return 13
    return 0


def parser() -> argparse.ArgumentParser:
    one = argparse.ArgumentParser(
        prog="holdfast simulate report",
        description="Draw a run as one page that works without a network.",
        allow_abbrev=False,
    )
    one.add_argument("run", help="the folder of a run, a scenario's name, or a TOML file")
    one.add_argument("--seed", type=int, help="another seed than the one it has")
    one.add_argument("--mode", choices=("fast", "full"), help="bare cores, or the whole node")
    one.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", dest="settings",
        help="change the scenario: --set policy.threshold=4",
    )  # fmt: skip
    one.add_argument("-o", "--out", type=Path, help="the page (report.html in the folder)")
    return one
