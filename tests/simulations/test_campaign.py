"""Campaigns, shrinking, and the commands that people call."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from simulations import campaign
from simulations.command import run as simulate
from simulations.mutants import MUTANTS
from simulations.running import run
from simulations.scenario import load
from simulations.shrink import Shrinker, ddmin
from simulations.verdicts import wilson


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to leave runs in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_ddmin_finds_the_two_that_matter() -> None:
    """Of forty items, only the two that fail together are left."""
    kept = ddmin(range(40), lambda items: 7 in items and 31 in items)

    assert kept == [7, 31]


def test_a_failing_schedule_shrinks_to_what_it_needs() -> None:
    """A bug that takes restarts is shown with its three faults of eight."""
    harmless = [
        {"kind": "clog", "select": [seat], "at": "1d", "for": "3d", "delay": "1s"}
        for seat in range(5)
    ]
    crashes = [{"kind": "crash", "select": [seat], "at": "76h"} for seat in (0, 2, 3)]
    scenario = load("quiet-week").changed(fault=[*harmless, *crashes])
    with MUTANTS["clock-restarted"].plant():
        failing = run(scenario, seed=2, mode="fast")
        best = Shrinker(failing).shrink()

    assert failing.verdict == best.verdict == "liveness"
    assert [fault["kind"] for fault in best.faults] == ["crash"] * 3


def test_a_run_leaves_a_folder_and_says_how_to_repeat_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The manifest has both hashes, the last line the command; replay gives the same trace."""
    assert simulate(["run", "quiet-week", "--seed", "5"]) == 0
    first = json.loads((folder / "runs/5/manifest.json").read_text())
    assert (
        capsys.readouterr().err.splitlines()[-1].startswith("reproduce: holdfast simulate replay")
    )

    assert simulate(["replay", "runs/5/repro.toml", "-o", "again"]) == 0
    assert json.loads((folder / "again/manifest.json").read_text())["trace"] == first["trace"]
    assert simulate(["diff", "runs/5", "again"]) == 0


def test_a_failure_is_told_shrunk_and_zipped(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 10, the invariant in a sentence, and one file to send to somebody."""
    with MUTANTS["no-waiting"].plant():
        assert simulate(["run", "swarm", "--seed", "2"]) == 10
        told = capsys.readouterr().err
        assert simulate(["shrink", "runs/2/repro.toml", "-o", "small"]) == 10

    assert "FAILED S6: guardian" in told
    assert "shrink:    holdfast simulate shrink runs/2/repro.toml" in told
    assert (folder / "runs/2/failure.zip").exists()
    assert "kind" not in (folder / "small/repro.toml").read_text().partition("[[fault]]")[2]


def test_replay_warns_on_another_commit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A seed means something only together with the code."""
    simulate(["replay", "quiet-week", "--seed", "1", "--commit", "ab12cd3"])

    assert "that was commit ab12cd3" in capsys.readouterr().err


def test_a_campaign_writes_junit(folder: Path) -> None:
    """One test case for each run, in the corpus too."""
    (folder / "corpus").mkdir()
    (folder / "corpus/once.toml").write_text(
        'length = "2d"\nseed = 4\n[federation]\nheartbeat = "1h"\n'
    )
    code = simulate(
        ["campaign", "quiet-week", "--seeds", "2", "-j", "1", "--both", "1", "--base", "x",
         "--junit", "out.xml", "--corpus", "corpus"]
    )  # fmt: skip
    suite = ElementTree.parse(folder / "out.xml").getroot()  # noqa: S314

    assert code == 0
    assert suite.attrib["failures"] == "0"
    assert len(suite.findall("testcase")) == 3


def test_a_goal_that_nobody_met_makes_a_campaign_inconclusive(folder: Path) -> None:
    """Nothing failed, and something was not tried: exit 12."""
    settings = ["--set", 'check.sometimes=["veto-wins"]']

    assert simulate(["campaign", "quiet-week", "--seeds", "1", "-j", "1", *settings]) == 12


def test_a_campaign_that_finds_a_bug_fails(folder: Path) -> None:
    """Exit 10, and the failing run is kept."""
    with MUTANTS["no-waiting"].plant():
        code = simulate(["campaign", "quiet-week", "--seeds", "1", "-j", "1", "--base", "x"])

    assert code == 10
    assert list((folder / "runs").iterdir())


def test_seeds_follow_from_a_commit() -> None:
    """The same commit gives the same seeds, another one others."""
    assert campaign.seeds_from("a", 3) == campaign.seeds_from("a", 5)[:3]
    assert campaign.seeds_from("a", 3) != campaign.seeds_from("b", 3)


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"), [(1, 20, 0.009, 0.236), (0, 10, 0.0, 0.278), (0, 0, 0.0, 1.0)]
)
def test_wilson_intervals(hits: int, of: int, low: float, high: float) -> None:
    """As in Brown, Cai and DasGupta (2001)."""
    found = wilson(hits, of)

    assert found[0] == pytest.approx(low, abs=1e-3)
    assert found[1] == pytest.approx(high, abs=1e-3)


@pytest.mark.parametrize("what", ["scenarios", "faults", "strategies", "invariants", "goals"])
def test_lists(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every list has a line for each, with what it is."""
    assert simulate(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()

    assert len(lines) > 9
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines)
