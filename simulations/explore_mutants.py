"""Planted bugs: cores that keep to the protocol but for one thing, which the explorer must find.

Each is a class put in place of a part of a core that was just built, as a careless change to
the protocol would.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from protocol.cases import Case, Docket, Standing
from protocol.casework import Casework
from protocol.contract import Effect, Id, Moment, Seat, Verified
from protocol.custody import DealRow
from protocol.guardian import GuardianCore
from simulations.explore_cores import Mutation


class CountsTwice(Docket):
    """Counts every revision of a vote, not the latest of each guardian."""

    def standing(self, case: Case, deal: Verified, excluded: Iterable[Seat], now: int) -> Standing:
        standing = super().standing(case, deal, excluded, now)
        votes = [seat for seat in standing.approvals for _ in case.votes[seat]]
        return replace(standing, approvals=tuple(votes))


class IgnoresVeto(Docket):
    """Does not let a veto stand in the way."""

    def standing(self, case: Case, deal: Verified, excluded: Iterable[Seat], now: int) -> Standing:
        return replace(super().standing(case, deal, excluded, now), vetoed=False)


class AcrossClaims(Docket):
    """Counts an approval under one claim for another claim on the vault, too."""

    def standing(self, case: Case, deal: Verified, excluded: Iterable[Seat], now: int) -> Standing:
        for _, other in sorted(self.cases.items()):
            for seat, revisions in other.votes.items():
                case.votes.setdefault(seat, revisions)
        return super().standing(case, deal, excluded, now)

    def _counts(self, case: Case, seat: Seat, vote: Verified, vault: Id, deal: Id) -> bool:
        body = vote.body
        return bool((body["verdict"], body["vault"], body["deal"]) == ("approve", vault, deal))


class ForgetsVeto(Casework):
    """Does not read vetoes back after a crash."""

    def load(self, entry: Verified, now: int) -> None:
        super().load(entry, now)
        for case in self.docket.cases.values():
            case.vetoes.clear()


class VotesAgain(Casework):
    """Forgets after a crash what its own guardian voted, so that the next vote is the first."""

    def load(self, entry: Verified, now: int) -> None:
        if entry.type != "vote" or entry.body["seat"] != self.seat:
            super().load(entry, now)


class RepeatsVote(Casework):
    """Casts its guardian's vote again by itself when it comes back from a crash."""

    def resume(self, at: Moment, out: list[Effect]) -> None:
        super().resume(at, out)
        for case in list(self.docket.cases.values()):
            mine = case.latest().get(self.seat)
            if mine is not None and case.is_open:
                body = mine.body
                self.vote(
                    at, case, body["vault"], body["deal"], body["verdict"], body["how"],
                    body["words"], body["veto"], out,
                )  # fmt: skip


class CountsLiars(Docket):
    """Goes on counting the votes of a guardian that is proven to lie."""

    def standing(self, case: Case, deal: Verified, excluded: Iterable[Seat], now: int) -> Standing:
        return super().standing(case, deal, (), now)


class NeverWaits(Casework):
    """Releases as soon as the quorum stands, whatever the waiting period."""

    def _has_waited(self, at: Moment, case: Case, standing: Standing, out: list[Effect]) -> bool:
        return True


class StartsAnew(Casework):
    """Starts the waiting period anew after a crash."""

    def load(self, entry: Verified, now: int) -> None:
        super().load(entry, now)
        for case in self.docket.cases.values():
            if case.facts is not None and not case.facts.released:
                case.facts = replace(case.facts, served=0, since=0)


class WrongDevice(Casework):
    """Seals a release to the device of whichever claim it heard of first."""

    def _release(
        self,
        at: Moment,
        case: Case,
        standing: Standing,
        deal: Verified,
        row: DealRow,
        out: list[Effect],
    ) -> None:
        first = next(iter(self.docket.cases.values()))
        honest, case.claim = case.claim, first.claim
        super()._release(at, case, standing, deal, row, out)
        case.claim = honest


@dataclass(frozen=True)
class Mutant:
    """A planted bug: which part it replaces, the plan that shows it, what must be found."""

    part: type[Docket] | type[Casework] | None
    plan: str
    finds: str
    loses_last: bool = False

    @property
    def says(self) -> str:
        about: Any = self.part
        text = about.__doc__ if about else "Sends what follows from an event before it is durable."
        return str(text).splitlines()[0]

    def mutation(self) -> Mutation | None:
        part = self.part
        if part is None:
            return None

        def put(core: GuardianCore) -> None:
            of: Any = core.casework.docket if issubclass(part, Docket) else core.casework
            of.__class__ = part

        return put


MUTANTS: Final[dict[str, Mutant]] = {
    "counts-twice": Mutant(CountsTwice, "votes", "S1"),
    "ignores-veto": Mutant(IgnoresVeto, "veto", "S6"),
    "forgets-veto": Mutant(ForgetsVeto, "veto", "S6"),
    "votes-again": Mutant(VotesAgain, "votes", "S5"),
    "repeats-vote": Mutant(RepeatsVote, "votes", "S5"),
    "sends-first": Mutant(None, "votes", "S5", loses_last=True),
    "across-claims": Mutant(AcrossClaims, "elsewhere", "S1"),
    "counts-liars": Mutant(CountsLiars, "liar", "S1"),
    "never-waits": Mutant(NeverWaits, "waiting", "S6"),
    "starts-anew": Mutant(StartsAnew, "waiting", "L1"),
    "wrong-device": Mutant(WrongDevice, "rivals", "S3"),
}
