"""The checkers find what is wrong, and only that."""

from __future__ import annotations

import pytest

import simulations
from simulations.mutants import MUTANTS, hunt_one
from simulations.scenario import load

FAST = [name for name, one in MUTANTS.items() if one.mode == "fast"]
EXPECTED = {
    "vote-counted-twice": ("S1", "S4"),
    "revisions-add-up": ("S1", "S4"),
    "approvals-across-claims": ("S1", "S3"),
    "veto-forgotten": ("S6",),
    "no-waiting": ("S6",),
    "clock-restarted": ("L7",),
    "rot-served": ("S8", "S9"),
    "send-before-persist": ("S9",),
}


@pytest.mark.parametrize("name", [*FAST, "send-before-persist"])
def test_a_planted_bug_is_found_by_its_invariant(name: str) -> None:
    """Each small change of the code that ships breaks the invariant it should."""
    found = hunt_one(MUTANTS[name], seeds=12)

    assert found.by in EXPECTED[name]


def test_a_planted_bug_is_taken_out_again() -> None:
    """After a hunt the code is what it was."""
    with MUTANTS["no-waiting"].plant():
        assert simulations.run("quiet-week", seed=0).verdict == "safety"

    assert simulations.run("quiet-week", seed=0).verdict == "passed"


def test_a_deceived_approval_is_counted_and_no_violation() -> None:
    """Strangers who fool enough guardians get keys; that is a figure, not a failure."""
    result = simulations.run("deceived", seed=2, settings={"humans.default.deceived": 0.6})
    hits, strangers = result.false_releases

    assert result.verdict == "passed"
    assert strangers == 20
    assert 0 < hits <= strangers


def test_beyond_the_budget_a_stranger_needs_no_deceiving() -> None:
    """With a threshold of liars the pieces add up, and confidentiality is what breaks."""
    scenario = load("quiet-week").changed(
        workload=[{"kind": "thefts", "notices": "30d"}],
        fault=[{"kind": "byzantine", "select": [0, 1, 2], "strategy": "release-early"}],
        check={"budget": "exceed"},
    )
    result = simulations.run(scenario, seed=1)

    assert [violation.id for violation in result.violations][:1] == ["S2"]
    assert result.verdict == "safety"


def test_the_planner_keeps_to_the_budget() -> None:
    """Liars are struck from the list until fewer are left than could put a key together."""
    scenario = load("quiet-week").changed(
        fault=[
            {"kind": "byzantine", "select": [seat], "strategy": "release-early"}
            for seat in range(4)
        ],
    )

    assert len(simulations.run(scenario, seed=1).faults) == 2
