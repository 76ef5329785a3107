"""Worlds made from one seed in which the code of `node` and `protocol` runs unchanged.

`simulations.run("veto-race", seed=8123)` runs a scenario and gives a result, whose
`table("cases")` is a polars frame, as are votes, messages, traffic, faults and events;
`simulations.load` reads a scenario to be changed first.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulations.results import Recorded
    from simulations.scenario import Scenario


def run(
    scenario: Scenario | str | Path,
    *,
    seed: int | None = None,
    mode: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Recorded:
    """Run a scenario to its end; see `simulations.results.run`."""
    from simulations.results import run as run_one

    return run_one(scenario, seed=seed, mode=mode, settings=settings)


def load(name: str | Path, settings: Mapping[str, Any] | None = None) -> Scenario:
    """Read a scenario by its name or from a file; see `simulations.scenario.load`."""
    from simulations.scenario import load as load_one

    return load_one(name, settings)
