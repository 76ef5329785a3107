"""The benchmarks run, in a size that measures nothing, and say what they say in one shape."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks.measuring import AT_MOST, FULL, TINY, Figure, alternate, table
from benchmarks.sharing import SIZES, ours

ROOT = Path(__file__).parents[1]
KEYS = {"name", "measured", "floor", "ratio", "unit", "goal", "bound", "goal_of", "met"}


def run(name: str) -> dict[str, Any]:
    """What `python -m benchmarks NAME --json` prints."""
    words = [sys.executable, "-m", "benchmarks", name, "--json", "--size", "tiny"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def check_shape(said: dict[str, Any]) -> None:
    assert said.keys() >= KEYS
    assert said["measured"] > 0
    assert said["floor"] is None or said["ratio"] == pytest.approx(
        said["measured"] / said["floor"], rel=0.01
    )
    for part in said.get("parts", []):
        check_shape(part)


@pytest.mark.parametrize("name", command.NAMES)
def test_each_benchmark_gives_one_object(name: str) -> None:
    """Every benchmark measures something beside its floor and prints one JSON object."""
    said = run(name)

    assert said["name"] == name
    check_shape(said)


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever mistypes a name sees those that there are."""
    with pytest.raises(SystemExit):
        command.main(["votes"])

    assert "vote_ingest" in capsys.readouterr().err


def test_a_goal_is_met_when_every_part_meets_its_own() -> None:
    """One part beyond its goal fails the whole; one without a floor leaves it open."""
    good = Figure("good", 2.0, 1.0, "ms", 3.0, AT_MOST)
    bad = Figure("bad", 4.0, 1.0, "ms", 3.0, AT_MOST)
    unknown = Figure("unknown", 4.0, None, "ms", 3.0, AT_MOST)
    absolute = Figure("absolute", 4.0, None, "ms", 5.0, AT_MOST, "measured")

    def whole(*parts: Figure) -> bool | None:
        return Figure("whole", 1.0, 1.0, "ms", 3.0, AT_MOST, parts=parts).is_met

    assert whole(good, absolute) is True
    assert whole(good, bad, unknown) is False
    assert whole(good, unknown) is None


def test_the_table_has_a_line_for_each_part() -> None:
    """Parts stand below the figure they belong to, in the same columns."""
    part = Figure("part", 4.0, None, "ms", 5.0, AT_MOST, "measured")
    rows = list(Figure("whole", 1.0, 2.0, "ms", 3.0, parts=(part,)).rows())

    shown = table(rows).splitlines()

    assert [line.split()[0] for line in shown] == ["whole", "part"]
    assert shown[0].index("ms") == shown[1].index("ms")


def test_measurements_take_turns() -> None:
    """What is compared is measured turn about, and the median counts."""
    order: list[str] = []
    values = iter([1.0, 10.0, 3.0, 30.0, 2.0, 20.0])

    def one(name: str) -> float:
        order.append(name)
        return next(values)

    found = alternate(3, lambda: one("floor"), lambda: one("measured"))

    assert found == [2.0, 20.0]
    assert order == ["floor", "measured"] * 3


def test_the_sharing_that_is_timed_gives_the_secret_back() -> None:
    """What is timed is a whole round, in every size."""
    for count, threshold in SIZES:
        assert ours(count, threshold)()


def test_sizes_differ() -> None:
    """The size for tests does less than the full one."""
    assert TINY.pick(1, 2, 3) < FULL.pick(1, 2, 3)
