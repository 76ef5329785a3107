"""Figures: the numbers behind them, and that the same numbers give the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from protocol.errors import Refused
from simulations.arms import Plan
from simulations.intervals import Share
from simulations.plots import X, binomial, draw, plot
from simulations.points import KINDS, Point, Tables, power, read_point, tables_in, tables_of
from simulations.results import COLUMNS
from simulations.sweep import RUNS, Swept, write

pytest.importorskip("polars", reason="needs the extra [research]")
pytest.importorskip("matplotlib", reason="needs the extra [research]")
HOUR = 3_600_000


def case(by: str, took: int | None, deceived: int = 0) -> dict[str, Any]:
    row = dict.fromkeys(COLUMNS["cases"], 0)
    recovered = None if took is None else 1_000 + took
    return row | {"by": by, "outcome": "open", "recovered": recovered, "took": took,
                  "deceived": deceived, "vetoed": None}  # fmt: skip


def made(grid: dict[str, list[Any]], cases: list[list[dict[str, Any]]]) -> Tables:
    """Tables of a sweep of one seed in which these cases came about, by arm."""
    plan = Plan("deceived", grid=grid, seeds=1)
    names = list(grid)
    settings = [{names[0]: one} for one in grid[names[0]]]
    for name in names[1:]:
        settings = [{**arm, name: value} for arm in settings for value in grid[name]]
    run = dict.fromkeys(RUNS, 0) | {"broken": False, "messages": 90, "bytes": 9_000}
    rows = [
        {"arm": number, "seed": 1, "cases": some,
         "run": run | {"messages": 10 * len(some) * settings[number].get(names[0], 1) ** 2}}
        for number, some in enumerate(cases)
    ]  # fmt: skip
    about = {"commit": "ab12cd3", "plan": {**plan.to_map(), "scenario": {"name": "made"}}}
    return tables_of(Swept(plan, settings, rows), about)


OWNERS = [case("owner", HOUR), case("owner", 2 * HOUR), case("heir", None), case("thief", HOUR)]


def test_latency_counts_those_that_never_came() -> None:
    """Quantiles are of all rightful claims, so that a slow half cannot look fast."""
    points = KINDS["latency"](made({"policy.threshold": [3]}, [OWNERS]), "", "")

    assert {point.x: point.y for point in points if point.share is None} == {
        10: 1.0, 25: 1.0, 50: 2.0,
    }  # fmt: skip
    assert points[-1].share == Share(2, 3)


def test_availability_within_a_time() -> None:
    """Whoever is late was not served, however well it ended."""
    tables = made({"policy.threshold": [2, 3]}, [OWNERS, OWNERS[1:]])

    shares = [point.share for point in KINDS["availability"](tables, X["availability"], "90m")]
    assert shares == [Share(1, 3), Share(0, 2)]
    assert KINDS["availability"](tables, "", "")[0].share == Share(2, 3)


def test_loss_and_false_release() -> None:
    """Lost are keys of the rightful, given away are those that strangers got."""
    tables = made({"humans.default.dies": [0.1], "humans.default.deceived": [0.2]}, [OWNERS])

    assert KINDS["loss"](tables, "", "") == [
        Point("deceived 0.2", 0.1, 1 / 3, Share(1, 3)),
    ]
    assert KINDS["false-release"](tables, "", "")[0].share == Share(1, 1)


def test_messages_grow_by_a_power() -> None:
    """The exponent of a cost that grows with the square is two."""
    grid = {"federation.guardians": [4, 8, 16]}
    points = KINDS["messages"](made(grid, [OWNERS, OWNERS, OWNERS]), "", "")

    assert [(p.series, p.x, p.y) for p in points[:3]] == [
        ("messages", 4, 160), ("messages", 8, 640), ("messages", 16, 2560),
    ]  # fmt: skip
    assert points[3].x == "exponent"
    assert points[3].y == pytest.approx(2)
    assert power([(1, 5), (10, 50)]) == pytest.approx((5, 1))


def test_points_come_back_from_a_file() -> None:
    """What is published of a point gives that point again."""
    for point in (Point("a", 3, 0.5, Share(1, 2)), Point("a", "exponent", 2.0), Point("", 1, None)):
        assert read_point(point.to_map()) == point


def test_a_setting_that_was_not_swept() -> None:
    """A picture over what the sweep did not vary is refused, with what to do."""
    tables = made({"policy.threshold": [3]}, [OWNERS])

    with pytest.raises(Refused, match=r"drawn over humans\.default\.dies"):
        KINDS["loss"](tables, "", "")


def test_the_dotted_line_knows_the_arm() -> None:
    """The expected share is the binomial of that curve's threshold and guardians."""
    grid = {"humans.default.deceived": [0.5], "policy.threshold": [2, 3]}
    tables = made(grid, [OWNERS, OWNERS])

    assert binomial(tables, Point("threshold 3", 0.5, None)) == pytest.approx(0.5)
    assert binomial(tables, Point("threshold 2", 0.5, None)) == pytest.approx(26 / 32)
    assert binomial(tables, Point("another", 0.5, None)) is None


GRIDS: dict[str, dict[str, list[Any]]] = {
    "latency": {"policy.threshold": [2, 3]},
    "availability": {"federation.guardians": [4, 5], "policy.threshold": [3]},
    "false-release": {"humans.default.deceived": [0.1, 0.2]},
    "loss": {"humans.default.dies": [0.0, 0.2]},
    "messages": {"federation.guardians": [4, 8]},
}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_same_numbers_give_the_same_picture(kind: str, tmp_path: Path) -> None:
    """Each kind is drawn, names its axes, and comes out byte by byte the same again."""
    tables = made(GRIDS[kind], [OWNERS, OWNERS])
    paths = [tmp_path / name for name in ("one.svg", "two.svg")]

    points = [draw(kind, tables, path, x=X[kind], within="2d") for path in paths]

    assert points[0] == points[1] != []
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert b"<svg" in paths[0].read_bytes()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_arms_without_a_claim_draw_nothing(kind: str, tmp_path: Path) -> None:
    """Where nothing was counted there is no point, and no error either."""
    draw(kind, made(GRIDS[kind], [[], []]), tmp_path / "empty.png", x=X[kind])

    assert (tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`plot` draws a finished sweep's folder beside its tables, and refuses any other."""
    plan = Plan("deceived", grid={"humans.default.deceived": [0.2]}, seeds=1)
    run = dict.fromkeys(RUNS, 0)
    rows = [{"arm": 0, "seed": 1, "cases": OWNERS, "run": run}]
    with pytest.raises(Refused, match="no finished sweep"):
        tables_in(tmp_path)
    write(Swept(plan, [{"humans.default.deceived": 0.2}], rows), tmp_path)
    (tmp_path / "sweep.json").write_text(
        '{"plan": {"grid": {"humans.default.deceived": [0.2]}, "ranges": {}}}'
    )

    assert plot(["false-release", str(tmp_path), "--json"]) == 0
    assert '"hits": 1, "of": 1' in capsys.readouterr().out
    assert (tmp_path / "false-release.svg").exists()
