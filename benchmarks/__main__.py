"""`python -m benchmarks [NAME …] [--json] [--full]`: measure, and print a table or JSON.

With one NAME and `--json`, one object; with several, or none for all, one object a line.
Exit 0 when every goal that could be judged is reached, else 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from typing import Final

from benchmarks.measuring import FULL, HEAD, TINY, USUAL, Figure, quiet, table

NAMES: Final = ("release_path", "vote_ingest", "deposit", "sharing", "startup")
SIZES: Final = {size.name: size for size in (TINY, USUAL, FULL)}


def main(arguments: list[str]) -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--json", action="store_true", help="objects instead of a table")
    parser.add_argument("--size", choices=sorted(SIZES), default=USUAL.name)
    parser.add_argument("--full", action="store_const", const=FULL.name, dest="size")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(NAMES)}")
    quiet()
    figures: list[Figure] = []
    for name in options.names or NAMES:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        figure: Figure = importlib.import_module(f"benchmarks.{name}").measure(SIZES[options.size])
        figures.append(figure)
        if options.json:
            print(json.dumps(figure.to_map()), flush=True)
    if not options.json:
        print(table([HEAD, *(row for figure in figures for row in figure.rows())]))
    return 1 if any(figure.is_met is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
