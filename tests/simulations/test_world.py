"""The unchanged node in a seeded world: one seed, one trace, and every key comes back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import simulations

SETTINGS = {"federation.heartbeat": "4h", "policy.waiting": "12h"}
SCRIPT = (
    "import simulations;"
    "r = simulations.run('power-cuts', seed={seed}, mode='{mode}', settings={settings});"
    "print(r.trace, r.outcome)"
)


def elsewhere(seed: int, mode: str, hashseed: str) -> str:
    """Trace and outcome of a run in a process of its own."""
    environment = {**os.environ, "PYTHONHASHSEED": hashseed}
    code = SCRIPT.format(seed=seed, mode=mode, settings=SETTINGS)
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize("mode", ["fast", "full"])
def test_one_seed_gives_one_trace_in_every_process(mode: str) -> None:
    """The trace is the same whatever the process and its hash seed."""
    here = simulations.run("power-cuts", seed=7, mode=mode, settings=SETTINGS)

    assert {f"{here.trace} {here.outcome}"} == {elsewhere(7, mode, seed) for seed in ("0", "1")}


def test_another_seed_gives_another_trace() -> None:
    """Two seeds are two worlds."""
    first, second = (simulations.run("quiet-week", seed=seed) for seed in (1, 2))

    assert first.trace != second.trace


@pytest.mark.parametrize("seed", range(2))
def test_power_cuts_cost_no_key(seed: int) -> None:
    """Guardians crash at any write, and every member's secret comes back all the same."""
    result = simulations.run("power-cuts", seed=seed, mode="full", settings=SETTINGS)

    assert result.verdict == "passed", result.violations
    assert result.count("recovered") == 3
    assert sum("down" in text for _, text in result.told) >= 5


def test_seven_guardians_and_a_waiting_period() -> None:
    """Seven guardians, five needed, two days to wait: nobody is early, and the key comes back."""
    settings = {"federation.guardians": 7, "policy.threshold": 5, "policy.waiting": "2d"}
    result = simulations.run("quiet-week", seed=3, mode="full", settings=settings)

    assert result.verdict == "passed", result.violations
    assert [claim["took"] > 2 * 86_400_000 for claim in result.claims] == [True, True]
