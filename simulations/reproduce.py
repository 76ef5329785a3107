"""Published figures: how each is made, which numbers it shows, and whether it still does.

A figure is a TOML file in `simulations/figures/`: what is swept, how it is drawn, and below
that the numbers that were published, with the commit they are of. Written by people down to
`[published]`, by `--publish` from there on.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from protocol.errors import Malformed, NotYet, Refused
from simulations.arms import Plan, read_plan
from simulations.journal import MANIFEST, code_digest
from simulations.plots import X, draw
from simulations.points import KINDS, Point, read_point, tables_of
from simulations.quantities import to_toml
from simulations.sweep import LATER, Progress, complaints, conduct, say, workers
from simulations.verdicts import CODES, NONDETERMINISM

FOLDER: Final = Path(__file__).parent / "figures"
DIFFERS: Final = 1
TOLERANCE: Final = 0.05  # of a number that is no share: times and costs move a little with code
GENERATED: Final = "[published]"
SAME, AGREES, DISAGREES = "same", "agrees", "differs"


@dataclass(frozen=True)
class Figure:
    """A figure as it is made, and as it was published."""

    name: str
    title: str
    plot: str
    plan: Plan
    x: str
    within: str
    tolerance: float
    published: tuple[Point, ...]
    about: Mapping[str, Any]  # commit, code and Python of what was published


def figures() -> list[str]:
    """The names of the figures that come with Holdfast."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_figure(name: str | Path) -> Figure:
    """Read a figure by its name or from a file. Raises `Refused` or `Malformed`."""
    path = _path(name)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise Malformed(f"{path.name} is not TOML: {error}") from error
    known = {"title", "plot", "x", "within", "tolerance", "sweep", "published"}
    for key in raw:
        if key not in known:
            raise Malformed(f"{path.name}: {key!r} is not known; there are {', '.join(known)}")
    plot = raw.get("plot", "")
    if plot not in KINDS:
        raise Malformed(f"{path.name}, plot: {plot!r} is not one of {', '.join(KINDS)}")
    published = raw.get("published", {})
    return Figure(
        path.stem, str(raw.get("title", "")), plot, read_plan(raw.get("sweep", {})),
        str(raw.get("x", X[plot])), str(raw.get("within", "")),
        float(raw.get("tolerance", TOLERANCE)),
        tuple(read_point(row) for row in published.get("points", [])),
        {key: value for key, value in published.items() if key != "points"},
    )  # fmt: skip


def _path(name: str | Path) -> Path:
    path = Path(name)
    if path.suffix != ".toml":
        path = FOLDER / f"{name}.toml"
    if not path.is_file():
        raise Refused(f"there is no figure {name}; there are {', '.join(figures())}")
    return path


# --- comparing -------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """One number as published and as found now; None where one of them is missing."""

    series: str
    x: float | str
    published: Point | None
    found: Point | None
    verdict: str

    def __str__(self) -> str:
        return (
            f"{self.series or 'all'} at {self.x}: published {_shown(self.published)}, "
            f"found {_shown(self.found)}: {self.verdict}"
        )


def _shown(point: Point | None) -> str:
    if point is None:
        return "nothing"
    return str(point.share) if point.share is not None else f"{point.y:.6g}"


def compare(
    published: Sequence[Point], found: Sequence[Point], tolerance: float = TOLERANCE
) -> list[Compared]:
    """Compare two versions of a figure number by number.

    A share agrees when its 95 % interval meets the published one; any other number when it
    is within `tolerance`, a part of the published value.
    """
    before = {(point.series, point.x): point for point in published}
    now = {(point.series, point.x): point for point in found}
    return [
        Compared(*key, before.get(key), now.get(key),
                 _verdict(before.get(key), now.get(key), tolerance))
        for key in dict.fromkeys([*before, *now])
    ]  # fmt: skip


def _verdict(one: Point | None, other: Point | None, tolerance: float) -> str:
    if one is None or other is None or (one.share is None) != (other.share is None):
        return DISAGREES
    if one == other:
        return SAME
    if one.share is not None and other.share is not None:
        return AGREES if one.share.agrees(other.share) else DISAGREES
    if one.y is None or other.y is None:
        return DISAGREES
    return AGREES if abs(one.y - other.y) <= tolerance * abs(one.y) else DISAGREES


def publish(path: Path, points: Sequence[Point], about: Mapping[str, Any]) -> None:
    """Write the numbers of a figure into its file, in place of those published before."""
    text = path.read_text(encoding="utf-8").partition(GENERATED)[0].rstrip()
    kept = {key: about[key] for key in ("commit", "code", "lock", "python")}
    made = to_toml({"published": {**kept, "points": [point.to_map() for point in points]}})
    path.write_text(f"{text}\n\n{made.strip()}\n", encoding="utf-8")


# --- the command -----------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    one = argparse.ArgumentParser(
        prog="holdfast simulate reproduce", allow_abbrev=False,
        description="Make a published figure again and compare its numbers. "
        "Exit: 0 they are the same or agree, 1 they differ, 13 they differ though the code is "
        "the same.",
    )  # fmt: skip
    one.add_argument("figure", nargs="?", help="its name, or a TOML file (none: list them)")
    one.add_argument("-o", "--out", type=Path, help="folder for tables and picture")
    workers(one)
    one.add_argument("--publish", action="store_true", help="write the numbers into the figure")
    one.add_argument("--json", action="store_true", help="the comparison on stdout")
    return one


def reproduce(arguments: list[str]) -> int:
    """Run `holdfast simulate reproduce`; the exit code."""
    options = parser().parse_args(arguments)
    if options.figure is None:
        for name in figures():
            print(f"{name:<24} {load_figure(name).title}")  # noqa: T201
        return 0
    figure = load_figure(options.figure)
    # Runs of different code never meet in one folder.
    folder = options.out or Path("figures") / f"{figure.name}-{code_digest()[:8]}"
    try:
        swept = conduct(figure.plan, folder, jobs=options.jobs, cluster=options.cluster,
                        heard=Progress(figure.name))  # fmt: skip
    except (KeyboardInterrupt, NotYet) as error:
        say(f"stopped: {error}" if isinstance(error, NotYet) else "stopped")
        say("what is done is kept, and the same command goes on from there")
        return LATER
    about = json.loads((folder / MANIFEST).read_text())
    picture = folder / f"{figure.name}.svg"
    points = draw(figure.plot, tables_of(swept, about), picture, x=figure.x, within=figure.within,
                  title=figure.title)  # fmt: skip
    say(f"{picture}")
    if swept.broken:
        for line in complaints(swept):
            say(line)
        say(f"{len(swept.broken)} runs went wrong, so these numbers are worth nothing")
        return CODES[swept.verdict]
    if options.publish:
        publish(_path(options.figure), points, about)
        say(f"published {len(points)} numbers of {figure.name}, at {about['commit']}")
        return 0
    return _judged(figure, points, about, options.json)


def _judged(
    figure: Figure, points: Sequence[Point], about: Mapping[str, Any], as_json: bool
) -> int:
    compared = compare(figure.published, points, figure.tolerance)
    counts = {verdict: sum(one.verdict == verdict for one in compared)
              for verdict in (SAME, AGREES, DISAGREES)}  # fmt: skip
    for one in compared:
        if one.verdict == DISAGREES:
            say(f"  {one}")
    of = figure.about.get("commit", "nobody")
    say(f"{figure.name}: {counts[SAME]} numbers the same as those of {of}, {counts[AGREES]} agree, "
        f"{counts[DISAGREES]} differ")  # fmt: skip
    if as_json:
        rows = [{"series": one.series, "x": one.x, "verdict": one.verdict,
                 "published": one.published.to_map() if one.published else None,
                 "found": one.found.to_map() if one.found else None}
                for one in compared]  # fmt: skip
        print(json.dumps({"figure": figure.name, **counts, "numbers": rows}))  # noqa: T201
    same_code = figure.about.get("code") == about["code"]
    if counts[DISAGREES]:
        return CODES[NONDETERMINISM] if same_code else DIFFERS
    return 0


run = reproduce
