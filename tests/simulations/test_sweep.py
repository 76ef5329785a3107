"""Sweeps: what is tried, that it goes on after a kill, and what it says of strangers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import Malformed, Refused
from simulations import journal as journals
from simulations.arms import Plan, arms, hypercube, possible, read_axis, read_plan
from simulations.intervals import at_least, surprise
from simulations.journal import JOURNAL
from simulations.running import Result
from simulations.running import run as run_one
from simulations.sweep import Task, conduct, perform, sweep

pytest.importorskip("polars", reason="needs the extra [research]")

TABLES = [
    f"{name}.{suffix}" for name in ("runs", "cases", "summary") for suffix in ("csv", "parquet")
]
STRANGERS = {"federation.heartbeat": "1d", "workload.0.count": 10}


@pytest.fixture(autouse=True)
def steady_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest of the code is not what these tests are about."""
    monkeypatch.setattr(journals, "code_digest", lambda: "the code")


def small(**changes: object) -> Plan:
    plan = {
        "scenario": "deceived", "seeds": 2, "grid": {"policy.threshold": [2, 3]},
        "mode": "fast", "settings": {**STRANGERS, "workload.0.count": 3},
    }  # fmt: skip
    return read_plan(plan | changes)


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES}


# --- what is tried ---------------------------------------------------------------------


def test_a_grid_is_every_combination() -> None:
    """Every value of one setting meets every value of the other; the last changes fastest."""
    plan = Plan("deceived", grid={"a": [1, 2], "b": ["x", "y"]})

    assert [tuple(arm.values()) for arm in arms(plan)] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.text(max_size=5))
def test_a_hypercube_has_one_point_in_every_part(samples: int, base: str) -> None:
    """Cut each range in as many parts as points: every part holds one, for every setting."""
    ranges = {"a": (0.0, 1.0), "b": (2.0, 4.0), "c": (0, samples - 1)}
    points = hypercube(ranges, samples, base)

    for key, (low, high) in {"a": (0, 1), "b": (2, 4)}.items():
        # Values are rounded to millionths, which may carry one over its part's edge.
        parts = sorted((float(point[key]) - low) / (high - low) * samples for point in points)
        assert all(n - 1e-4 <= part <= n + 1 + 1e-4 for n, part in enumerate(parts))
    assert sorted(point["c"] for point in points) == list(range(samples))
    assert points == hypercube(ranges, samples, base)


def test_a_hypercube_over_lengths_of_time() -> None:
    """Lengths of time are drawn like numbers and written as scenarios write them."""
    points = hypercube({"policy.waiting": ("0s", "4d")}, 4, "1")

    plan = Plan("quiet-week", ranges={"policy.waiting": ("0s", "4d")}, samples=4)
    waits = sorted(scenario.policy["waiting"] // 86_400_000 for _, scenario in possible(plan)[0])
    assert waits == [0, 1, 2, 3]
    assert all(isinstance(point["policy.waiting"], str) for point in points)
    with pytest.raises(Malformed, match="no range"):
        hypercube({"policy.waiting": ("0s", 4)}, 4, "1")


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("policy.threshold=2,3", ("policy.threshold", [2, 3])),
        ("a.b=[0.5, 1]", ("a.b", [0.5, 1])),
        ("a.b=0.1..0.5", ("a.b", (0.1, 0.5))),
        ("policy.waiting=1h..2d", ("policy.waiting", ("1h", "2d"))),
        ("policy.waiting=1h,2d", ("policy.waiting", ["1h", "2d"])),
    ],
)
def test_axes_as_they_are_typed(text: str, axis: object) -> None:
    """Values after a comma are a list, two dots a range, words lengths of time."""
    assert read_axis(text) == axis


@pytest.mark.parametrize("text", ["policy.threshold", "=3", "a=", "a=[1,"])
def test_what_is_no_axis(text: str) -> None:
    """A mistyped axis is refused with what was typed."""
    with pytest.raises(Refused, match="is no axis"):
        read_axis(text)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"grid": {}}, "which scenario"),
        ({"scenario": "deceived", "seed": 3}, "'seed' is not known"),
        ({"scenario": "deceived", "seeds": 0}, "at least one"),
        ({"scenario": "deceived", "mode": "slow"}, "not one of fast, full"),
        ({"scenario": "deceived", "samples": 3}, "go together"),
        ({"scenario": "deceived", "ranges": {"a": [1]}, "samples": 3}, "two ends"),
        ({"scenario": "deceived", "grid": {"a": 3}}, "a list of values"),
        ({"scenario": "deceived", "grid": {"a": list(range(200)), "b": list(range(200))}}, "40000"),
    ],
)
def test_plans_that_are_refused(raw: dict[str, object], says: str) -> None:
    """A plan that means nothing says what is wrong with it before anything runs."""
    with pytest.raises(Malformed, match=says):
        read_plan(raw)


def test_arms_that_cannot_be_are_left_out() -> None:
    """More guardians needed than there are is no arm; a typing error in all arms is refused."""
    kept, refused = possible(Plan("deceived", grid={"policy.threshold": [3, 5, 6]}))

    assert [arm["policy.threshold"] for arm, _ in kept] == [3, 5]
    assert "6 of 5 guardians" in refused[0]
    with pytest.raises(Refused, match="'treshold' is not known"):
        possible(Plan("deceived", grid={"policy.treshold": [3, 4]}))


# --- what comes of it ------------------------------------------------------------------


def test_strangers_succeed_as_often_as_the_binomial_says(tmp_path: Path) -> None:
    """P(false release) is that of a threshold of independent guardians being deceived."""
    chances = (0.2, 0.5)
    plan = small(
        seeds=4, settings={**STRANGERS, "workload.0.count": 20},
        grid={"humans.default.deceived": list(chances), "policy.threshold": [3]},
    )  # fmt: skip
    swept = conduct(plan, tmp_path, jobs=1)

    assert not swept.broken
    for arm, chance in enumerate(chances):
        cases = swept.cases(arm)
        released = sum(bool(case["recovered"]) for case in cases)
        assert len(cases) == 80
        assert surprise(released, 80, at_least(3, 5, chance)) > 0.001
        assert all(bool(case["recovered"]) == (case["deceived"] >= 3) for case in cases)


def test_people_are_the_same_in_every_arm(tmp_path: Path) -> None:
    """Common random numbers: whoever is deceived at one rate is deceived at any higher one."""
    rates = [0.1, 0.25, 0.6]
    plan = small(seeds=3, settings=STRANGERS | {"workload.0.count": 6},
                 grid={"humans.default.deceived": rates, "policy.threshold": [5]})  # fmt: skip
    swept = conduct(plan, tmp_path, jobs=1)

    by_arm = [[(case["claim"], case["made"]) for case in swept.cases(arm)] for arm in range(3)]
    assert by_arm[0] == by_arm[1] == by_arm[2]
    fooled = [[case["deceived"] for case in swept.cases(arm)] for arm in range(3)]
    for low, middle, high in zip(*fooled, strict=True):
        assert low <= middle <= high
    assert sum(fooled[0]) < sum(fooled[2])


def test_a_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    """However far a sweep had come, and with its last line cut off, it ends with the same bytes."""
    conduct(small(), tmp_path / "whole", jobs=1)
    lines = (tmp_path / "whole" / JOURNAL).read_bytes().splitlines(keepends=True)

    for done in range(len(lines)):
        folder = tmp_path / str(done)
        folder.mkdir()
        (folder / JOURNAL).write_bytes(b"".join(lines[:done]) + lines[done][:40])
        told: list[tuple[int, int]] = []
        conduct(small(), folder, jobs=1, heard=lambda *counts, told=told: told.append(counts))
        assert told == [(number, 4) for number in range(done, 5)]
        assert tables(folder) == tables(tmp_path / "whole")


KILLED = """
import sys
from pathlib import Path
from simulations import journal
journal.code_digest = lambda: "the code"
from simulations.sweep import conduct
sys.path.insert(0, {tests!r})
from test_sweep import small
if __name__ == "__main__":
    conduct(small(seeds=3), Path({folder!r}), jobs=2)
"""


def test_a_killed_sweep_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """Killed in the middle with all its processes, then continued: no byte is different."""
    folder = tmp_path / "killed"
    script = tmp_path / "script.py"
    script.write_text(KILLED.format(tests=str(Path(__file__).parent), folder=str(folder)))
    process = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    journal = folder / JOURNAL
    try:
        while not (journal.exists() and journal.read_bytes().count(b"\n") >= 2):
            assert process.poll() is None, "it was done before it could be killed"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = journal.read_bytes().count(b"\n")
    assert done < 6
    assert not (folder / "runs.csv").exists()

    again = conduct(small(seeds=3), folder, jobs=1)
    conduct(small(seeds=3), tmp_path / "whole", jobs=1)

    assert len(again.rows) == 6
    assert tables(folder) == tables(tmp_path / "whole")


def test_a_folder_belongs_to_one_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another plan, or other code, is not mixed into what lies there."""
    conduct(small(seeds=1), tmp_path, jobs=1)
    before = tables(tmp_path)

    with pytest.raises(Refused, match="holds another sweep"):
        conduct(small(seeds=2), tmp_path, jobs=1)
    monkeypatch.setattr(journals, "code_digest", lambda: "changed")
    with pytest.raises(Refused, match="a sweep of other code"):
        conduct(small(seeds=1), tmp_path, jobs=1)
    assert tables(tmp_path) == before


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """While one process is at work on a folder, another is refused."""
    refused = pytest.raises(Refused, match="another process")
    with journals.opened(tmp_path, {}), refused, journals.opened(tmp_path, {}):
        pass


def test_a_run_that_fails_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in one run does not end a sweep: its row says what happened."""

    def fails(*args: object, **named: object) -> Result:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("simulations.sweep.run_one", fails)
    row = perform(Task(0, 1, "fast", {"name": "x"}))

    assert row["run"]["verdict"] == "crashed"
    assert row["run"]["broken"]
    assert row["run"]["why"] == "ZeroDivisionError: planted"


def test_a_row_is_what_a_run_of_its_seed_gives(tmp_path: Path) -> None:
    """Every row can be had again by running its seed with its settings."""
    swept = conduct(small(seeds=1), tmp_path, jobs=1)

    for row in swept.rows:
        again = run_one("deceived", seed=row["seed"], mode="fast",
                        settings={**swept.plan.settings, **swept.arms[row["arm"]]})  # fmt: skip
        assert row["run"]["trace"] == again.trace


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`sweep` writes its tables, says each arm's share with its interval, and gives JSON."""
    code = sweep(
        ["deceived", "--over", "policy.threshold=2,3,9", "--seeds", "1", "-j", "1", "--set",
         "workload.0.count=3", "--mode", "fast", "--json", "-o", str(tmp_path / "out")]
    )  # fmt: skip

    told = capsys.readouterr()
    assert code == 0
    assert len(json.loads(told.out)["arms"]) == 2
    assert "policy.threshold=2   false release" in told.err
    assert "(95 %: " in told.err
    assert "left out" in told.err
    assert sorted(tables(tmp_path / "out")) == sorted(TABLES)


def test_stopping_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle keeps what is done, and says so."""

    def stopped(*args: object, **named: Callable[[int, int], None]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("simulations.sweep.conduct", stopped)
    assert sweep(["deceived", "-o", str(tmp_path)]) == 75
    assert "goes on from there" in capsys.readouterr().err
