"""Swarm mode: the seed draws the knobs too, so that no two runs test the same world.

Every draw has a label of its own: with one knob fixed by the scenario the others stay.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Final

from simulations.chances import Stream
from simulations.quantities import show_duration
from simulations.scenario import Scenario, read_scenario

STRATEGIES: Final = (
    "equivocate", "vote-across-claims", "forge", "withhold-vote", "withhold-veto", "selective",
    "spam", "replay", "false-share", "release-early", "frame",
)  # fmt: skip
# How often each kind comes, of a thousand.
KINDS: Final = {
    "crash": 300, "partition": 200, "outage": 60, "flapping": 50, "swizzle": 50, "clog": 60,
    "reset": 60, "eio": 60, "slow-disk": 30, "full-disk": 30, "skew": 40, "silent": 20, "rot": 20,
    "byzantine": 60, "rollback": 10, "lock": 10,
}  # fmt: skip
STEPS: Final = ("vote.persisted", "vote.committed", "release.persisted", "release.committed",
                "carry.persisted", "carry.committed")  # fmt: skip


def vary(scenario: Scenario, seed: int) -> Scenario:
    """The scenario with what its `[swarm]` varies drawn from the seed; itself without one."""
    if not scenario.swarm["enabled"]:
        return scenario
    raw: dict[str, Any] = deepcopy(dict(scenario.raw))
    raw["swarm"] = {"enabled": False}
    for what in scenario.swarm["vary"]:
        if what == "network":
            raw["network"] = {**_network(Stream(seed, "swarm", what)), **raw.get("network", {})}
        elif what == "humans":
            _humans(raw, Stream(seed, "swarm", what))
        elif what == "faults":
            count = Stream(seed, "swarm", what).below(int(scenario.swarm["faults"]) + 1)
            drawn = [_fault(scenario, Stream(seed, "swarm", what, n), n) for n in range(count)]
            raw["fault"] = [*raw.get("fault", []), *drawn]
        elif what == "policy.threshold":
            n = scenario.guardians
            raw.setdefault("policy", {})["threshold"] = Stream(seed, "swarm", what).between(2, n)
    return read_scenario(raw)


def _network(stream: Stream) -> dict[str, Any]:
    return {
        "latency": {"median": f"{stream.between(5, 200)}ms", "sigma": 0.5},
        "loss": stream.below(40) / 1000,
        "straggler": stream.below(20) / 1000,
        "reset": stream.below(50) / 1000,
    }


def _humans(raw: dict[str, Any], stream: Stream) -> None:
    default = raw.setdefault("humans", {}).setdefault("default", {})
    default.setdefault("answer", {"median": f"{stream.between(10, 600)}m", "sigma": 1.0})
    default.setdefault("mistaken", stream.below(100) / 1000)


def _fault(scenario: Scenario, stream: Stream, number: int) -> dict[str, Any]:
    kind = stream.weighted(KINDS)
    at = stream.below(max(1, scenario.length * 8 // 10))
    lasts = 60_000 + stream.below(max(1, scenario.length // 5))
    fault: dict[str, Any] = {
        "kind": kind,
        "key": f"swarm{number}",
        "select": "one" if stream.chance(700_000) else "minority",
        "at": show_duration(at),
        "for": show_duration(lasts),
        "restart-after": show_duration(1_000 + stream.below(7_200_000)),
    }
    if kind == "crash":
        fault.update(_crash(stream))
    elif kind == "partition":
        shapes = ("split", "ring", "bridge", "one-way")
        fault["shape"] = shapes[stream.below(len(shapes))]
    elif kind in ("flapping", "reset"):
        fault["every"] = show_duration(30_000 + stream.below(3_600_000))
    elif kind == "skew":
        fault["skew"] = show_duration(1_000 + stream.below(1_800_000))
        fault["behind"] = stream.chance(500_000)
    elif kind == "byzantine":
        fault["strategy"] = STRATEGIES[stream.below(len(STRATEGIES))]
        fault["select"] = "one"
    elif kind == "eio":
        fault["times"] = stream.between(1, 4)
    return fault


def _crash(stream: Stream) -> dict[str, Any]:
    how = stream.below(3)
    if how == 0:
        return {}
    if how == 1:
        return {"at-write": stream.between(1, 60)}
    return {"at-step": STEPS[stream.below(len(STEPS))]}
