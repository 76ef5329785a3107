"""Statements on their way, from what a witness saw of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from protocol.contract import Id
from simulations.report.story import NONE, Case, Message
from simulations.report.witness import Seen, shown
from simulations.truth import Claimed

KINDS: Final = {"vote": "vote", "release": "release"}
CARRIED: Final = {"veto": "veto", "claim": "claim"}


@dataclass(frozen=True)
class Places:
    """Where things of one federation are drawn: seat 0's lane, cases by claim, claimants."""

    first: int
    cases: Mapping[Id, int]
    claimant: Mapping[int, int]


def statements(seen: Iterable[Seen], places: Places, cases: Sequence[Case]) -> Iterator[Message]:
    """Every entry of a log, from its author to all who have it."""
    for one in seen:
        case = places.cases.get(one.claim, NONE) if one.claim is not None else NONE
        arrivals = sorted(
            (places.first + seat, at) for seat, at in one.arrivals.items() if seat != one.seat
        )
        sent = one.sent if one.sent is not None else min((at for _, at in arrivals), default=0)
        kind = CARRIED.get(one.inner) or KINDS.get(one.type, "other")
        facts = (
            ("statement", one.inner or one.type),
            ("id", one.id.hex()[:16]),
            ("log", f"guardian {one.place.seat}, entry {one.place.seq}, "
                    f"incarnation {one.place.incarnation}"),
            *shown(one.body),
        )  # fmt: skip
        yield Message(
            kind, places.first + one.seat, sent, tuple(arrivals), _words(one, case, cases), case,
            facts,
        )  # fmt: skip


def _words(one: Seen, case: int, cases: Sequence[Case]) -> str:
    about = f" on {cases[case].name}" if case != NONE else ""
    if one.type == "vote":
        return f"guardian {one.seat} votes {one.body.get('verdict', '')}{about}"
    if one.type == "carry":
        return f"guardian {one.seat} carries a {one.inner}{about}"
    return f"guardian {one.seat}: {one.type}{about}"


def openings(
    claims: Mapping[Id, Claimed], places: Places, cases: Sequence[Case]
) -> Iterator[Message]:
    """Pieces on their way to the claimant, until the claimant's wallet could open them."""
    for id_, one in claims.items():
        case = places.cases.get(id_, NONE)
        if case == NONE:
            continue
        for seat, at in sorted(one.opened.items()):
            sent = one.released.get(seat, at)
            text = f"the piece of guardian {seat} reaches the claimant of {cases[case].name}"
            arrival = ((places.claimant[case], max(at, sent)),)
            yield Message("release", places.first + seat, sent, arrival, text, case)
