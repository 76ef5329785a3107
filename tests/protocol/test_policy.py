"""Policies: what a member may ask for, within what the guardians agreed on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Refused
from protocol.federation import Bounds
from protocol.limits import DAY
from protocol.policy import (
    OVERRIDE_FALLS_AFTER,
    Policy,
    check_policy,
    override_needed,
    read_policy,
    usual_override,
    usual_policy,
)

BOUNDS = Bounds(3, 4, 1 * DAY, 30 * DAY, 2 * DAY)


@given(threshold=st.integers(2, 32), more=st.integers(0, 30))
def test_the_usual_policy_is_always_allowed(threshold: int, more: int) -> None:
    """Whatever a roster says, the policy a wallet takes by default fits it."""
    count = min(32, threshold + more)
    bounds = Bounds(threshold, count)

    check_policy(usual_policy(bounds, count), bounds, threshold, count)


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (Policy(2, DAY, 4), "quorum asked for is 2; this federation allows from 3 to 4"),
        (Policy(5, DAY, 5), "quorum asked for is 5"),
        (Policy(3, DAY, 2), "2 votes to override"),
        (Policy(3, DAY, 5), "5 votes to override"),
        (Policy(3, 0, 4), "0 days was asked for; this federation allows from 1 to 30"),
        (Policy(3, 31 * DAY, 4), "31 days was asked for"),
    ],
)
def test_a_policy_out_of_bounds_is_refused_with_the_numbers(policy: Policy, sentence: str) -> None:
    """Neither a thief nor a hasty member goes below the floor or above the ceiling."""
    with pytest.raises(Refused, match=sentence):
        check_policy(policy, BOUNDS, 3, 5)


def test_a_rehearsal_need_not_wait() -> None:
    """The dummy of a rehearsal comes back at once; its quorum is a real one."""
    check_policy(Policy(3, 0, 4, True), BOUNDS, 3, 5)
    with pytest.raises(Refused):
        check_policy(Policy(2, 0, 4, True), BOUNDS, 3, 5)


def test_the_threshold_is_the_least_quorum() -> None:
    """Fewer votes than pieces would let pieces go for nothing."""
    with pytest.raises(Refused, match="from 4 to 4"):
        check_policy(Policy(3, DAY, 4), BOUNDS, 4, 5)


def test_overriding_takes_one_vote_more_but_never_everybody() -> None:
    """One absent guardian does not make a veto final."""
    assert [usual_override(3, count) for count in (3, 4, 5, 9)] == [3, 3, 4, 4]
    assert usual_override(5, 5) == 5


def test_a_veto_weakens_after_sixty_days() -> None:
    """From then on the quorum itself is enough."""
    policy = Policy(3, DAY, 4)

    assert override_needed(policy, OVERRIDE_FALLS_AFTER - 1) == 4
    assert override_needed(policy, OVERRIDE_FALLS_AFTER) == 3


def test_a_policy_reads_back() -> None:
    """What the owner signed is what is applied."""
    policy = Policy(3, DAY, 4, True)

    assert read_policy(policy.to_map()) == policy
