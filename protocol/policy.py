"""A vault's policy: how many votes, how long to wait, how many to override a veto."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from protocol.contract import Verified
from protocol.errors import Refused
from protocol.federation import Bounds
from protocol.limits import DAY

OVERRIDE_FALLS_AFTER: Final = 60 * DAY  # a thief with the old phone cannot block for ever


@dataclass(frozen=True, slots=True)
class Policy:
    """Votes needed (`quorum`), milliseconds to wait, votes that override a veto.

    `rehearsal` marks the dummy vault of a founding rehearsal, the only kind for which
    guardians' nodes vote by themselves.
    """

    quorum: int
    waiting: int
    override: int
    rehearsal: bool = False

    def to_map(self) -> dict[str, Any]:
        return {
            "quorum": self.quorum,
            "waiting": self.waiting,
            "override": self.override,
            "rehearsal": self.rehearsal,
        }


def read_policy(fields: Mapping[str, Any]) -> Policy:
    return _policy(**fields)


@lru_cache(64)  # a federation has a handful, and every vote looks at one
def _policy(**fields: Any) -> Policy:
    return Policy(**fields)


def policy_of(deal: Verified) -> Policy:
    """The policy that a deal's owner signed."""
    return read_policy(deal.body["policy"])


def usual_policy(bounds: Bounds, guardians: int) -> Policy:
    """The federation's usual policy for a vault held by that many guardians."""
    quorum = bounds.quorum_floor
    return Policy(quorum, bounds.waiting_default, usual_override(quorum, guardians))


def usual_override(quorum: int, guardians: int) -> int:
    """One vote more than the quorum, but never everybody, so that one absence is survived."""
    return max(quorum, min(guardians - 1, quorum + 1))


def check_policy(policy: Policy, bounds: Bounds, threshold: int, holders: int) -> None:
    """Refuse a policy outside what the roster allows, with the numbers."""
    # SPEC 8.6: within what the roster allows.
    lowest = max(bounds.quorum_floor, threshold)
    if not lowest <= policy.quorum <= min(bounds.quorum_ceiling, holders):
        raise Refused(
            f"the quorum asked for is {policy.quorum}; this federation allows from {lowest} "
            f"to {min(bounds.quorum_ceiling, holders)}"
        )
    if not policy.quorum <= policy.override <= max(policy.quorum, holders - 1):
        raise Refused(
            f"{policy.override} votes to override a veto do not fit a quorum of {policy.quorum} "
            f"among {holders} guardians"
        )
    if policy.rehearsal:
        return
    if not bounds.waiting_floor <= policy.waiting <= bounds.waiting_ceiling:
        raise Refused(
            f"a waiting period of {policy.waiting / DAY:g} days was asked for; this federation "
            f"allows from {bounds.waiting_floor / DAY:g} to {bounds.waiting_ceiling / DAY:g}"
        )


def override_needed(policy: Policy, contested_for: int) -> int:
    """Votes that name the veto needed to go on after it; `contested_for` in milliseconds."""
    return policy.quorum if contested_for >= OVERRIDE_FALLS_AFTER else policy.override
