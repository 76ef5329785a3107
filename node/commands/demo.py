"""`holdfast demo`: watch guardians give a lost key back, though one is dead and one lies."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path


def run(arguments: list[str]) -> int:
    """Run the demonstration; 0 when the key came back."""
    options = parser().parse_args(arguments)
    import json

    import trio

    from node.demo import Demo

    # With --json the story is talk and the one object is data.
    story = sys.stderr if options.json else sys.stdout

    def tell(line: str) -> None:
        print(line, file=story, flush=True)

    with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as base:
        demo = Demo(Path(base), options.guardians, options.threshold, tell)
        report = trio.run(demo.run)
    if options.json:
        print(json.dumps(report.to_map()), flush=True)  # noqa: T201
    return 0 if report.secret_match else 1


def parser() -> argparse.ArgumentParser:
    one = argparse.ArgumentParser(
        prog="holdfast demo",
        description="Found a federation on this machine, lose a key, and get it back.",
        allow_abbrev=False,
    )
    one.add_argument("--guardians", type=int, default=5, metavar="N", help="how many (5)")
    one.add_argument("--threshold", type=int, default=3, metavar="T", help="how many needed (3)")
    one.add_argument("--json", action="store_true", help="one object on the last line")
    return one
