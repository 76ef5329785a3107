"""The unchanged node in a seeded world: one seed, one trace, and every key comes back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from simulations.world import Plan, simulate

SCRIPT = "from simulations.world import simulate; o = simulate({seed}); print(o.trace, o.disks)"


def elsewhere(seed: int, hashseed: str) -> str:
    """Trace and disk hash of a run in a process of its own."""
    environment = {**os.environ, "PYTHONHASHSEED": hashseed}
    command = [sys.executable, "-c", SCRIPT.format(seed=seed)]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_one_seed_gives_one_trace_in_every_process() -> None:
    """Trace and disks are the same whatever the process and its hash seed."""
    here = simulate(7)

    assert {f"{here.trace} {here.disks}"} == {elsewhere(7, seed) for seed in ("0", "1", "random")}


def test_another_seed_gives_another_trace() -> None:
    """Two seeds are two worlds."""
    assert simulate(1).trace != simulate(2).trace


@pytest.mark.parametrize("seed", range(4))
def test_power_cuts_cost_no_key(seed: int) -> None:
    """Guardians crash at any write, and every member's secret comes back all the same."""
    outcome = simulate(seed)

    assert outcome.crashes >= 5
    assert outcome.recovered == 2
    assert outcome.heads == 1


def test_seven_guardians_and_a_waiting_period() -> None:
    """Seven guardians, five needed, an hour to wait."""
    plan = Plan(guardians=7, threshold=5, members=1, lives=1, waiting_ms=3_600_000, seconds=4_000.0)

    assert simulate(3, plan).recovered == 1
