"""Two engines, one protocol: the same scenario and seed end with the same outcome in both."""

from __future__ import annotations

import pytest

import simulations
from simulations.running import PASSED, Result
from simulations.scenario import shipped


@pytest.mark.parametrize(
    ("scenario", "seed"),
    [
        ("swarm", 1),
        ("swarm", 3),
        ("swarm-liars", 0),
        ("crash-at-release", 2),
        ("false-share", 1),
    ],
)
def test_both_engines_give_the_same_outcome(scenario: str, seed: int) -> None:
    """Which claims ended how, and who had approved, does not depend on the engine."""
    fast = simulations.run(scenario, seed=seed, mode="fast")
    full = simulations.run(scenario, seed=seed, mode="full")

    assert (fast.verdict, full.verdict) == (PASSED, PASSED)
    assert fast.outcome == full.outcome
    assert fast.votes and [vote["seat"] for vote in fast.votes] == [
        vote["seat"] for vote in full.votes
    ]


@pytest.mark.parametrize(
    "name",
    [name for name in shipped() if not name.endswith("slow")],
)
def test_every_scenario_runs_once(name: str) -> None:
    """Each ends as it expects to, in the fast engine."""
    result = simulations.run(name, seed=1, mode="fast")

    assert result.verdict == result.scenario.top["expected"], (result.violations, result.failures)


def test_a_knob_leaves_other_draws_alone() -> None:
    """With one fault less, and another network, the same people act at the same times."""
    one = simulations.run("minority-cut-off", seed=4)
    settings = {"network.latency": {"median": "90ms", "sigma": 0.1}, "fault": []}
    other = simulations.run("minority-cut-off", seed=4, settings=settings)

    def made(result: Result) -> list[tuple[int, int]]:
        return [(claim["claim"], claim["made"]) for claim in result.claims]

    assert made(one) == made(other)
    assert one.trace != other.trace


def test_a_result_has_tables() -> None:
    """Cases, votes, faults and events of a run are there as rows."""
    result = simulations.run("false-share", seed=1)

    assert {"claim", "by", "outcome", "approvals", "took"} <= set(result.claims[0])
    assert result.faults[0]["strategy"] == "false-share"
    assert result.goals["wrong-piece-named"]
    assert result.missing == []


def test_many_federations_share_one_heap() -> None:
    """Each has its own members; of finished cases only a row is kept."""
    settings = {"federation.count": 4, "workload.0.count": 8}
    result = simulations.run("many-federations-slow", seed=1, settings=settings)

    assert result.verdict == PASSED
    assert [claim["federation"] for claim in result.claims] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert result.count("recovered") == 8
