"""Tables of a run: the same columns always, and numbers that fit together."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simulations
from protocol.errors import Refused
from simulations import results
from simulations.results import COLUMNS, Recorded, hours, quantile, rows_of, summarise, type_of
from simulations.running import run as plain_run

with_polars = pytest.mark.skipif(
    importlib.util.find_spec("polars") is None, reason="needs the extra [research]"
)


@pytest.fixture(scope="module")
def quiet() -> Recorded:
    return simulations.run("quiet-week", seed=3, mode="fast")


def test_counting_changes_nothing(quiet: Recorded) -> None:
    """A run that is counted is, event by event, the one that is not."""
    plain = plain_run("quiet-week", seed=3, mode="fast")

    assert (quiet.trace, quiet.outcome, quiet.events) == (plain.trace, plain.outcome, plain.events)
    assert quiet.traffic.sums()[0] == plain.messages > 0


def test_rows_fit_together(quiet: Recorded) -> None:
    """Every vote is of a claim of a case, every message arrives after it was sent."""
    claims = {(case["federation"], case["claim"]) for case in rows_of(quiet, "cases")}
    votes = rows_of(quiet, "votes")
    messages = rows_of(quiet, "messages")

    assert claims and votes and messages
    assert {(vote["federation"], vote["claim"]) for vote in votes} <= claims
    assert all(one["at"] <= one["arrives"] and one["bytes"] > 4 for one in messages)
    counted = {row["kind"]: row for row in rows_of(quiet, "traffic")
               if row["between"] == "guardians"}  # fmt: skip
    for kind in {one["kind"] for one in messages}:
        ours = [one["bytes"] for one in messages if one["kind"] == kind]
        assert (counted[kind]["messages"], counted[kind]["bytes"]) == (len(ours), sum(ours))


def test_only_so_many_messages_are_kept() -> None:
    """Of a long run only the first messages are kept one by one; all of them are counted."""
    short = results.run("quiet-week", seed=3, mode="fast", keep=10)

    assert len(short.traffic.rows) == 10
    assert short.traffic.sums()[0] > 10


def test_both_engines_count_alike() -> None:
    """The same scenario and seed makes wallets ask equally often in both engines."""
    one, other = (
        {row["kind"]: row["messages"] for row in rows_of(run, "traffic")
         if row["between"] == "wallets" and row["kind"] in ("claim", "deposit", "settle")}
        for run in (simulations.run("quiet-week", seed=3, mode=mode) for mode in ("fast", "full"))
    )  # fmt: skip

    assert one == other
    assert one["deposit"] == 10


@with_polars
def test_frames_have_their_columns(quiet: Recorded) -> None:
    """Each table is a polars frame with its columns, though nothing went wrong in this run."""
    tables = quiet.tables()

    assert {name: table.columns for name, table in tables.items()} == {
        name: list(columns) for name, columns in COLUMNS.items()
    }
    assert tables["faults"].height == 0
    assert tables["cases"]["vetoed"].null_count() == tables["cases"].height
    assert tables["cases"]["took"].min() > 86_400_000
    assert quiet.table("claims").equals(tables["cases"])


@with_polars
def test_a_run_leaves_its_tables(quiet: Recorded, tmp_path: Path) -> None:
    """What a run's folder gets: the tables that hold something, and the cases always."""
    polars = results.need("polars")

    names = [path.name for path in results.save(quiet, tmp_path)]

    assert names == ["cases.parquet", "votes.parquet", "traffic.parquet"]
    assert polars.read_parquet(tmp_path / "cases.parquet").equals(quiet.table("cases"))


@with_polars
def test_faults_say_when_in_milliseconds() -> None:
    """A fault's row gives its time and length as numbers, and the rest as it was written."""
    table = simulations.run("one-town", seed=1, mode="fast").table("faults")

    assert table.row(0, named=True) | {"how": ""} == {
        "kind": "outage", "key": "fault0", "seats": "0 1", "at": 86_400_000,
        "lasts": 3 * 86_400_000, "how": "",
    }  # fmt: skip


def test_a_table_there_is_not(quiet: Recorded) -> None:
    """Asking for another table says which there are."""
    with pytest.raises(Refused, match="cases, votes, messages, traffic, faults, events"):
        quiet.table("weather")


def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without polars there is a sentence that says how to get it."""

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(results.importlib, "import_module", missing)
    with pytest.raises(Refused, match="needs polars") as caught:
        results.need("polars")
    assert "holdfast[research]" in caught.value.hint


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1), st.integers(1, 100))
def test_quantiles(values: list[int], percent: int) -> None:
    """At least so many lie at or below a quantile, and fewer below it."""
    values.sort()
    found = quantile(values, percent)

    assert found is not None
    assert sum(value <= found for value in values) * 100 >= percent * len(values)
    assert sum(value < found for value in values) * 100 < percent * len(values)


def test_a_summary_counts_each_kind_of_claim() -> None:
    """Owners count for recovery, thieves for false release, both for vetoes; none gives null."""
    case = {"by": "owner", "recovered": 10, "took": 7_200_000, "vetoed": None}
    thief = {"by": "thief", "recovered": None, "took": None, "vetoed": 5}
    run = {"messages": 60, "bytes": 6000, "broken": False}

    row = summarise([case, case, thief], [run])

    assert (row["recovered"], row["recovered_of"], row["p_recovered"]) == (2, 2, 1.0)
    assert (row["false_release"], row["false_release_of"]) == (0, 1)
    assert row["p_false_release_low"] == 0 < row["p_false_release_high"] < 1
    assert (row["vetoed"], row["vetoed_of"]) == (1, 3)
    assert (row["took_h_p50"], row["messages_per_claim"]) == (2.0, 20)
    assert summarise([], [])["p_recovered"] is None
    assert hours(quantile([], 50)) is None


def test_types_of_columns() -> None:
    """Whole numbers stay whole, mixed numbers become numbers, all else is text."""
    assert [type_of(values) for values in ([1, 2], [0, 0.5], [1, "2d"], [True], [])] == [
        int, float, str, bool, str,
    ]  # fmt: skip
