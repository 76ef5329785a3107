"""The figures that people publish, drawn from a sweep (extra `research`).

Every probability comes with its 95 % interval. The same tables give the same file, byte by
byte. Colours can be told apart by everybody (Okabe and Ito 2008) and markers differ too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from simulations.intervals import Share, at_least
from simulations.points import (
    DECEIVED,
    GUARDIANS,
    KINDS,
    THRESHOLD,
    Point,
    Tables,
    power,
    series_of,
    tables_in,
    times,
)
from simulations.results import RIGHTFUL, hours, need
from simulations.sweep import say

COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
GREY: Final = "#666666"
SIZE: Final = (6.4, 4.2)  # inches: one column of a page
CURVES_MAX: Final = 7  # that an eye can follow
AXES: Final = {
    "federation.guardians": "guardians",
    "policy.threshold": "threshold (guardians needed)",
    "humans.default.deceived": "probability that one guardian is deceived",
    "humans.default.dies": "guardians who die in a year (share)",
    "policy.waiting": "waiting period",
}
STYLE: Final = {
    "svg.hashsalt": "holdfast", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#E5E5E5",
    "axes.axisbelow": True, "legend.frameon": False, "axes.titlelocation": "left",
}  # fmt: skip


def draw(
    kind: str, tables: Tables, path: Path, *, x: str = "", within: str = "", title: str = ""
) -> list[Point]:
    """Draw one of `KINDS` into a file, SVG, PNG or PDF by its name; the numbers that it shows.

    `x` is the setting on the horizontal axis, `within` the time that counts as available.
    Raises `Refused` when the sweep does not hold what is drawn.
    """
    matplotlib = need("matplotlib")
    points = KINDS[kind](tables, x, within)
    matplotlib.use("Agg")
    pyplot = need("matplotlib.pyplot")
    with matplotlib.rc_context(STYLE):
        figure = pyplot.figure(figsize=SIZE, layout="constrained")
        try:
            DRAWN[kind](figure, tables, points, x, within)
            figure.axes[0].set_title(title or TITLES[kind], fontsize=11)
            figure.supxlabel(_source(kind, tables), fontsize=6.5, color=GREY, x=0.99, ha="right")
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without a date in it, the same numbers give the same file.
            clean = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
            figure.savefig(path, dpi=200, metadata=clean.get(path.suffix))
        finally:
            pyplot.close(figure)
    return points


def _source(kind: str, tables: Tables) -> str:
    plan = tables.about.get("plan", {})
    runs = sum(row["runs"] for row in tables.summary)
    name = plan.get("scenario", {}).get("name")
    intervals = "" if kind == "messages" else "; intervals: 95 %"
    return (
        f"Holdfast {tables.about.get('commit', '')}, scenario {name}, "
        f"{plan.get('seeds')} seeds, {runs} runs{intervals}"
    )


def _series(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Points by curve, at most as many as an eye can follow."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.series, []).append(point)
    return dict(list(found.items())[:CURVES_MAX])


def _latency(figure: Any, tables: Tables, points: Sequence[Point], x: str, within: str) -> None:
    axes = figure.subplots()
    rightful = [case for case in tables.cases if case["by"] in RIGHTFUL]
    longest = (hours(max(times(rightful), default=0)) or 1.0) * 1.02
    for number, row in enumerate(tables.summary[:CURVES_MAX]):
        own = [case for case in rightful if case["arm"] == row["arm"]]
        took = sorted(times(own))
        at = [0.0, *(ms / 3_600_000 for ms in took), longest]
        shares = [Share(hits, len(own)) for hits in (*range(len(took) + 1), len(took))]
        axes.step(at, [share.value or 0.0 for share in shares], where="post", lw=1.6,
                  color=COLOURS[number],
                  label=f"{series_of(tables, row)} ({len(own)} claims)")  # fmt: skip
        axes.fill_between(at, [share.low for share in shares], [share.high for share in shares],
                          step="post", color=COLOURS[number], alpha=0.12, lw=0)  # fmt: skip
    axes.set(xlabel="hours from the claim to the secret", ylabel="share of claims recovered",
             xlim=(0, longest), ylim=(0, 1.02))  # fmt: skip
    axes.legend(loc="lower right")


def _shares(label: str, model: Callable[[Tables, Point], float | None]) -> Any:
    def drawn(figure: Any, tables: Tables, points: Sequence[Point], x: str, within: str) -> None:
        axes = figure.subplots()
        dotted = False
        for number, (name, some) in enumerate(_series(points).items()):
            some = sorted((p for p in some if p.y is not None), key=lambda point: point.x)
            if not some:
                continue
            colour = COLOURS[number]
            axes.errorbar(
                [point.x for point in some], [point.y for point in some], yerr=_bars(some),
                color=colour, marker=MARKERS[number], ms=4, lw=1.4, capsize=2.5, elinewidth=1,
                label="_" if name == "all" else name,
            )  # fmt: skip
            places = _between(some)
            expected = [model(tables, Point(name, place, None)) for place in places]
            if expected and all(value is not None for value in expected):
                axes.plot(places, expected, color=colour, ls=":", lw=1.2)
                dotted = True
        if dotted:
            axes.plot([], [], color=GREY, ls=":", lw=1.2, label="independent guardians (binomial)")
        axes.set(xlabel=AXES.get(x, x), ylabel=label, ylim=(-0.02, 1.02))
        if axes.get_legend_handles_labels()[0]:
            axes.legend()

    return drawn


def _between(points: Sequence[Point]) -> list[float]:
    """Places along the horizontal axis, close enough for a curve; none between words."""
    if any(isinstance(point.x, str) for point in points):
        return []
    first, last = float(points[0].x), float(points[-1].x)
    return [first + (last - first) * part / 60 for part in range(61)]


def _bars(points: Sequence[Point]) -> list[list[float]]:
    """How far each interval reaches below and above its point."""
    reach: list[list[float]] = [[], []]
    for point in points:
        assert point.share is not None
        value = point.y or 0.0
        reach[0].append(max(0.0, value - point.share.low))
        reach[1].append(max(0.0, point.share.high - value))
    return reach


def binomial(tables: Tables, point: Point) -> float | None:
    """What independent guardians would give away: the dotted line beside what was counted."""
    scenario = tables.about.get("plan", {})
    known: dict[str, Any] = {
        THRESHOLD: scenario.get("scenario", {}).get("policy", {}).get("threshold", 3),
        GUARDIANS: scenario.get("scenario", {}).get("federation", {}).get("guardians", 5),
        **scenario.get("settings", {}),
    }
    for row in tables.summary:
        if series_of(tables, row, DECEIVED) == point.series and DECEIVED in tables.keys:
            known.update((key, row[key]) for key in tables.keys if key != DECEIVED)
            return at_least(known[THRESHOLD], known[GUARDIANS], float(point.x))
    return None


def _no_model(tables: Tables, point: Point) -> float | None:
    return None


def _heat(figure: Any, tables: Tables, points: Sequence[Point], x: str, within: str) -> None:
    """Shares over two settings, each cell with its number and interval."""
    if GUARDIANS not in tables.keys or len(tables.keys) != 2:
        _shares("share of claims recovered", _no_model)(figure, tables, points, x, within)
        return
    axes = figure.subplots()
    columns = sorted({row[x] for row in tables.summary})
    lines = sorted({row[GUARDIANS] for row in tables.summary})
    cells = [[float("nan")] * len(columns) for _ in lines]
    for row, point in zip(tables.summary, points, strict=True):
        line, column = lines.index(row[GUARDIANS]), columns.index(row[x])
        assert point.share is not None
        value = point.y if point.y is not None else float("nan")
        cells[line][column] = value
        text = f"{100 * value:.0f}\n{100 * point.share.low:.0f}–{100 * point.share.high:.0f}"
        axes.text(column, line, text, ha="center", va="center", fontsize=7,
                  color="white" if value < 0.55 else "black")  # fmt: skip
    image = axes.imshow(cells, cmap="cividis", vmin=0, vmax=1, aspect="auto", origin="lower")
    axes.set(xticks=range(len(columns)), xticklabels=columns, yticks=range(len(lines)),
             yticklabels=lines, xlabel=AXES.get(x, x), ylabel="guardians")  # fmt: skip
    axes.grid(False)
    limit = f" within {within}" if within else ""
    figure.colorbar(image, ax=axes, label=f"share of claims recovered{limit} (95 % below)")


def _messages(figure: Any, tables: Tables, points: Sequence[Point], x: str, within: str) -> None:
    panels = dict(zip(("messages", "bytes"), figure.subplots(2, 1, sharex=True), strict=True))
    for number, (name, some) in enumerate(_series(points).items()):
        what, _, rest = name.partition(", ")
        pairs = [(float(p.x), float(p.y or 0)) for p in some if p.x != "exponent"]
        sizes, colour = [n for n, _ in pairs], COLOURS[number % len(COLOURS)]
        label = rest or what
        if len(pairs) > 1:
            scale, exponent = power(pairs)
            label = f"{rest}  ~ n^{exponent:.2f}" if rest else f"~ n^{exponent:.2f}"
            panels[what].plot(sizes, [scale * n**exponent for n in sizes], color=colour, ls=":",
                              lw=1.2)  # fmt: skip
        style = {"color": colour, "marker": MARKERS[number % len(MARKERS)]}
        costs = [cost for _, cost in pairs]
        panels[what].plot(sizes, costs, ms=4, lw=1.4, label=label, **style)
        for n, cost in pairs:
            panels[what].annotate(_spaced(cost), (n, cost), (-5, 5), fontsize=7, color=colour,
                                  textcoords="offset points", ha="right")  # fmt: skip
    ticks = sorted({float(point.x) for point in points if point.x != "exponent"})
    for what, axes in panels.items():
        axes.set(xscale="log", yscale="log", ylabel=f"{what} per claim")
        axes.margins(x=0.1)
        drawn = [cost for line in axes.lines for cost in line.get_ydata()]
        if drawn:  # with room for the numbers beside the points
            axes.set_ylim(min(drawn) / 2, max(drawn) * 2)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.xaxis.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: _spaced(value))
        axes.yaxis.set_minor_formatter(lambda value, _: "")
        if axes.lines:
            axes.legend(loc="lower right")
    panels["bytes"].set_xlabel(AXES.get(x, x))


def _spaced(value: float) -> str:
    """A whole number with its thousands apart."""
    return f"{value:,.0f}".replace(",", " ")


DRAWN: Final[dict[str, Any]] = {
    "latency": _latency,
    "availability": _heat,
    "false-release": _shares("probability that a stranger gets the key", binomial),
    "loss": _shares("probability that the key is lost", _no_model),
    "messages": _messages,
}
TITLES: Final = {
    "latency": "Time to recover",
    "availability": "Recoveries that succeed",
    "false-release": "Keys given to strangers",
    "loss": "Keys lost as guardians die",
    "messages": "What a recovery costs",
}
X: Final = {"availability": THRESHOLD, "false-release": DECEIVED, "messages": GUARDIANS,
            "loss": "humans.default.dies", "latency": ""}  # fmt: skip


# --- the command -----------------------------------------------------------------------


def parser() -> argparse.ArgumentParser:
    one = argparse.ArgumentParser(
        prog="holdfast simulate plot", allow_abbrev=False,
        description="Draw a finished sweep.",
    )  # fmt: skip
    one.add_argument("kind", choices=sorted(KINDS))
    one.add_argument("folder", type=Path, help="of a finished sweep")
    one.add_argument("--x", default="", metavar="A.B", help="the setting on the horizontal axis")
    one.add_argument("--within", default="", metavar="TIME",
                     help="availability: recovered within this time, such as 3d")  # fmt: skip
    one.add_argument("--title", default="")
    one.add_argument("-o", "--out", type=Path, metavar="FILE", help="SVG, PNG or PDF, by its name")
    one.add_argument("--json", action="store_true", help="the numbers drawn, on stdout")
    return one


def plot(arguments: list[str]) -> int:
    """Run `holdfast simulate plot`; the exit code."""
    options = parser().parse_args(arguments)
    path = options.out or options.folder / f"{options.kind}.svg"
    tables = tables_in(options.folder)
    points = draw(options.kind, tables, path, x=options.x or X[options.kind],
                  within=options.within, title=options.title)  # fmt: skip
    say(str(path))
    if options.json:
        print(json.dumps([point.to_map() for point in points]))  # noqa: T201
    return 0


run = plot
