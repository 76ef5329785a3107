"""Scenarios: what is written is checked, and every one that ships says what it shows."""

from __future__ import annotations

import tomllib

import pytest

from protocol.errors import HoldfastError, Malformed, Refused
from simulations.quantities import duration, moment, show_duration, to_toml
from simulations.scenario import load, read_scenario, read_setting, shipped


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_scenario_is_valid_and_says_what_it_shows(name: str) -> None:
    """A scenario that ships reads without complaint and has one line about itself."""
    scenario = load(name)

    assert scenario.name == name
    assert 20 < len(scenario.top["shows"]) < 120
    assert "\n" not in scenario.top["shows"]


def test_enough_scenarios_ship() -> None:
    """At least two dozen."""
    assert len(shipped()) >= 24


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({"polcy": {}}, "'polcy' is not known"),
        ({"policy": {"threshold": 9}}, "9 of 5 guardians"),
        ({"policy": {"waiting": "soon"}}, "no length of time"),
        ({"network": {"loss": 2}}, "from 0 to 1"),
        ({"fault": [{"at": "1d"}]}, "does not say its kind"),
        ({"fault": {"kind": "crash"}}, "two brackets"),
        ({"fault": [{"kind": "crash", "select": [7]}]}, "seats 0 to 4"),
        ({"humans": {"default": {"awake": "23:00-07:00"}}}, "ends before"),
        ({"humans": {"default": {"zones": {"CET": 1.0}}}}, "no time zone"),
        ({"mode": "slow"}, "not one of"),
        ({"federation": {"guardians": True}}, "not a whole number"),
    ],
)
def test_a_wrong_scenario_is_refused_with_the_place(raw: dict[str, object], says: str) -> None:
    """The complaint names the table and what would be right."""
    with pytest.raises(Malformed, match=says):
        read_scenario(raw)


def test_settings_reach_every_place() -> None:
    """A dotted path sets a value, also inside a list."""
    settings = dict(
        map(read_setting, ("policy.threshold=4", "fault.0.at=2h", "federation.guardians=7"))
    )
    scenario = load("minority-cut-off", settings)

    assert scenario.threshold == 4
    assert scenario.guardians == 7
    assert scenario.fault[0]["at"] == 7_200_000


def test_settings_that_mean_nothing_are_refused() -> None:
    """Neither a text without a value nor a place that is not there is swallowed."""
    with pytest.raises(Refused, match="sets nothing"):
        read_setting("policy.threshold")
    with pytest.raises(HoldfastError, match="no number 5"):
        load("minority-cut-off", {"fault.5.at": "1h"})


def test_an_unknown_scenario_is_refused_with_a_hint() -> None:
    """The hint tells how to find those there are."""
    with pytest.raises(Refused, match="no scenario nowhere"):
        load("nowhere")


@pytest.mark.parametrize("name", shipped())
def test_a_scenario_written_back_is_the_same(name: str) -> None:
    """TOML from a scenario's tables reads as the same tables."""
    raw = dict(load(name).raw)

    assert tomllib.loads(to_toml(raw)) == raw


@pytest.mark.parametrize(
    ("text", "ms"),
    [("40ms", 40), ("1.5h", 5_400_000), ("90d", 7_776_000_000), ("0s", 0), ("20 m", 1_200_000)],
)
def test_lengths_of_time(text: str, ms: int) -> None:
    """They are read exactly, and written so that they read the same."""
    assert duration(text) == ms
    assert duration(show_duration(ms)) == ms


def test_a_moment_is_shown_as_people_read_it() -> None:
    """Days, then the time of the day."""
    assert moment(2 * 86_400_000 + 4 * 3_600_000 + 11 * 60_000 + 7_204) == "d2 04:11:07.204"
