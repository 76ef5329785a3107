"""The invariants: what must hold at every event, and what must have happened by the end.

Each has an id, one line that states it, and on failure the events that led there. Safety
(S) is checked as the world runs; liveness (L) once, after a tail without faults, and only
where it could be expected: with more guardians lying, lost or cut off than the threshold
allows, a stalled claim is no failure. A deceived approval is an approval; that one was
deceived is counted, and is not a violation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from protocol.contract import Effect, Heard, Id, Notify, Persist, PutEntry, Seat, Verified
from protocol.limits import MINUTE
from protocol.statements import place_of
from simulations.truth import Claimed, Truth

INVARIANTS: Final = {
    "S1": "threshold: an honest guardian releases only when a quorum of guardians approved",
    "S2": "confidentiality: no stranger holds a threshold of pieces unless a quorum approved",
    "S3": "binding: every vote behind a release is about the same claim and vault",
    "S4": "distinctness: a guardian counts once",
    "S5": "no equivocation: an honest guardian never signs two entries for one place",
    "S6": "delay and veto: nothing leaves before the waiting period, or after a veto was kept",
    "S7": "expiry: nothing leaves after the claim's end",
    "S8": "reconstruction: the claimant gets the secret or a named culprit, never another secret",
    "S9": "accountability: what leaves was durable first, and no honest guardian is accused",
    "S10": "hygiene: no secret appears on a wire or a disk",
    "L1": "release: what a quorum approved comes back in time",
    "L2": "termination: past the claim's end no guardian holds its case open",
    "L3": "convergence: all honest guardians end with the same entries",
    "L4": "veto: a claim vetoed everywhere before its quorum's waiting ended is never released",
    "L5": "rejoin: every honest guardian that was down is back",
    "L6": "bounded work: messages stay below a multiple of claims and faults times pairs",
    "L7": "waiting: a guardian waits the waiting period and no longer",
}
GOALS: Final = {
    "recovered": "a secret came back",
    "veto-wins": "a stranger's claim had a quorum and was vetoed in time",
    "release-after-heal": "a release after a partition had been healed",
    "release-after-crash": "a guardian that had crashed during the case released",
    "crash-before-commit": "a node died after deciding and before the decision was durable",
    "crash-after-commit": "a node died after a decision was durable and before it was sent",
    "equivocation-proven": "a guardian that signed two things was proven to have",
    "wrong-piece-named": "a claimant's wallet named a guardian who served a false piece",
    "override": "a claim went on although it had been vetoed",
    "expired": "a claim ended by its age",
    "deceived": "a guardian was deceived",
    "false-release": "a stranger got what they claimed",
    "rot-found": "a guardian found that its piece had rotted, and served nothing",
    "write-failed": "a write failed and the node went on",
    "clock-doubted": "a guardian held back because its clock was off",
}

PROPAGATION: Final = 10 * MINUTE  # on top of two heartbeats, for an entry to reach everyone
MESSAGES_PER_PAIR: Final = 400  # for a claim or a fault, beyond greetings: measured 20 to 60
NOTICED: Final = {"damaged": "rot-found", "clock": "clock-doubted"}


class Safety:
    """Watches one federation's nodes; every method is called as it happens."""

    def __init__(self, truth: Truth, quorum: int, waiting: int) -> None:
        self.truth = truth
        self.quorum = quorum
        self.waiting = waiting
        self._first: dict[tuple[Seat, int, int], Id] = {}  # entries heard of honest guardians

    def decided(self, seat: Seat, effects: Sequence[Effect]) -> None:
        """A core has decided; nothing of it is durable yet."""
        for effect in effects:
            if type(effect) is Notify and effect.notice in NOTICED:
                self.truth.meet(NOTICED[effect.notice])
            if type(effect) is not Persist or type(effect.change) is not PutEntry:
                continue
            put = effect.change
            if put.place.seat == seat and self.truth.honest(seat):
                entry = self.truth.codec.read(put.raw)
                if entry.type == "release":
                    self._releases(seat, entry)
                elif entry.type == "misbehaviour":
                    self._accuses(seat, entry)

    def committed(self, seat: Seat, entries: Sequence[PutEntry]) -> None:
        """Entries have become durable at a seat."""
        if not entries:
            return
        truth = self.truth
        for entry in truth.kept(seat, entries):
            if entry.type == "release" and place_of(entry).seat == seat:
                self._released(seat, entry)

    def heard(self, seat: Seat, heard: Heard) -> None:
        """Entries have arrived at a seat: whoever signed them has sent them."""
        truth = self.truth
        for entry in heard.entries:
            place = place_of(entry)
            if place.seat == seat or not truth.honest(place.seat):
                continue
            key = (place.seat, place.incarnation, place.seq)
            known = self._first.setdefault(key, entry.id)
            if known != entry.id:
                truth.violate(
                    "S5",
                    f"guardian {place.seat} signed two entries as number {place.seq}",
                    f"guardian {place.seat}",
                )
            if truth.durable[place.seat].get(place) != entry.id:
                truth.violate(
                    "S9",
                    f"entry {place.seq} of guardian {place.seat} reached guardian {seat} "
                    "before it was durable",
                    f"guardian {place.seat}",
                )

    # --- releases ---------------------------------------------------------------------

    def _releases(self, seat: Seat, entry: Verified) -> None:
        truth, body = self.truth, entry.body
        one = truth.claims.get(body["claim"])
        if one is None:
            return
        about = (f"guardian {seat}", f"claim {one.number}")
        behind = self.approvals(one)
        if len(behind) < self.quorum:
            truth.violate(
                "S1",
                f"guardian {seat} released claim {one.number} when {len(behind)} of "
                f"{self.quorum} had approved",
                *about,
            )
        self._check_certificate(seat, one, entry)
        if truth.now() > one.expires + self._tolerance(seat):
            truth.violate("S7", f"guardian {seat} released claim {one.number} after its end")
        self._check_delay(seat, one, behind)
        self._check_veto(seat, one)

    def approvals(self, one: Claimed) -> dict[Seat, int]:
        """Who approved, and when: people by their word, liars also by their keys."""
        behind = dict(one.approved)
        for (seat, claim), at in self.truth.signed.items():
            if claim == one.claim and not self.truth.honest(seat):
                behind[seat] = min(at, behind.get(seat, at))
        return behind

    def _check_certificate(self, seat: Seat, one: Claimed, entry: Verified) -> None:
        truth, body = self.truth, entry.body
        known = [truth.votes.get(vote) for vote in body["votes"]]
        seats = [vote[0] for vote in known if vote is not None]
        if len(set(seats)) != len(seats) or len(set(body["votes"])) != len(body["votes"]):
            truth.violate("S4", f"guardian {seat} counted a guardian twice on claim {one.number}")
        if len(body["votes"]) < self.quorum:
            truth.violate(
                "S9",
                f"guardian {seat} released claim {one.number} and gives {len(body['votes'])} of "
                f"{self.quorum} votes",
            )
        if body["vault"] != one.vault or any(v is not None and v[1] != one.claim for v in known):
            truth.violate(
                "S3", f"guardian {seat} released claim {one.number} on votes about something else"
            )

    def _check_delay(self, seat: Seat, one: Claimed, behind: dict[Seat, int]) -> None:
        if len(behind) < self.quorum:
            return
        stood = sorted(behind.values())[self.quorum - 1]
        early = stood + self.waiting - self._tolerance(seat) - self.truth.now()
        if early > 0:
            self.truth.violate(
                "S6",
                f"guardian {seat} released claim {one.number} {early / 1000:g} s before the "
                "waiting period was over",
                f"guardian {seat}",
                f"claim {one.number}",
            )

    def _check_veto(self, seat: Seat, one: Claimed) -> None:
        since = self.truth.vetoes.get((seat, one.claim))
        if since is None:
            return
        signed = [s for (s, c) in self.truth.signed if c == one.claim and not self.truth.honest(s)]
        if len({*one.knowing, *signed}) >= self.quorum:
            self.truth.meet("override")
            return
        self.truth.violate(
            "S6",
            f"guardian {seat} released claim {one.number} "
            f"{(self.truth.now() - since) / 1000:g} s after storing a veto",
            f"guardian {seat}",
            f"claim {one.number}",
        )

    def _tolerance(self, seat: Seat) -> int:
        return 1_000 + self.truth.skewed.get(seat, 0)

    def _released(self, seat: Seat, entry: Verified) -> None:
        truth = self.truth
        one = truth.claims.get(entry.body["claim"])
        if one is None or seat in one.released:
            return
        one.released[seat] = truth.now()
        truth.tell(f"guardian {seat} releases claim {one.number}")
        if any(begin >= one.made for begin, _ in truth.off[seat]):
            truth.meet("release-after-crash")
        if truth.last_fault and truth.last_fault >= one.made:
            truth.meet("release-after-heal")

    def _accuses(self, seat: Seat, entry: Verified) -> None:
        truth = self.truth
        accused = next(
            (s for s in range(truth.guardians) if truth.keys[s] == entry.body["accused"]), None
        )
        if accused is None:
            return
        if truth.honest(accused):
            truth.violate(
                "S9",
                f"honest guardian {accused} is accused by guardian {seat}",
                f"guardian {accused}",
            )
        else:
            truth.proven.setdefault(accused, truth.now())
            truth.meet("equivocation-proven")

    # --- claimants --------------------------------------------------------------------

    def opened(self, one: Claimed, seats: Sequence[Seat]) -> None:
        """The claimant's wallet can open the pieces of these seats."""
        truth = self.truth
        for seat in seats:
            one.opened.setdefault(seat, truth.now())
        if one.by != "thief":
            return
        known = {*one.opened, *truth.charged}
        behind = self.approvals(one)
        if len(one.opened) and len(known) >= truth.threshold and len(behind) < self.quorum:
            truth.violate(
                "S2",
                f"a stranger holds {len(known)} pieces though {len(behind)} of {self.quorum} "
                "approved",
                f"claim {one.number}",
            )

    def caught(self, one: Claimed, seats: Sequence[Seat]) -> None:
        """The claimant's wallet says that these served something false."""
        one.named = tuple(seats)
        for seat in seats:
            if self.truth.honest(seat):
                self.truth.violate("S9", f"honest guardian {seat} was named by a wallet")
            else:
                self.truth.meet("wrong-piece-named")

    def got(self, one: Claimed, right: bool) -> None:
        """The claimant put a secret together."""
        truth = self.truth
        if not right:
            truth.violate("S8", f"claim {one.number} gave another secret than was kept")
            return
        one.recovered = truth.now()
        truth.tell(f"{one.by} has the secret of claim {one.number}")
        truth.meet("false-release" if one.by == "thief" else "recovered")

    def bytes_sent(self, piece: bytes) -> None:
        for canary in self.truth.canaries:
            if canary in piece:
                self.truth.violate("S10", "a secret travelled in the clear")
                self.truth.canaries.remove(canary)
                return


def within_budget(truth: Truth) -> bool:
    """Whether fewer lie than could put a key together, and enough are left to give it back."""
    away = {*truth.charged, *truth.lost}
    return len(truth.charged) < truth.threshold and len(away) <= truth.guardians - truth.threshold


class Liveness:
    """What must have happened by the end of a run."""

    def __init__(self, safety: Safety, heartbeat: int, end: int) -> None:
        self.safety = safety
        self.truth = safety.truth
        self.slack = 2 * heartbeat + PROPAGATION
        self.end = end

    def check(self, heads: dict[Seat, Any], open_: dict[Seat, list[Id]]) -> None:
        """`heads` is what each guardian holds, None for one whose node is down.

        `open_` is the claims whose cases are open there.
        """
        truth = self.truth
        for seat, claims in sorted(open_.items()):
            for one in (truth.claims[id_] for id_ in claims if id_ in truth.claims):
                if one.expires + self.slack < self.end and truth.honest(seat):
                    truth.violate("L2", f"guardian {seat} holds claim {one.number} open at its end")
        for seat, head in sorted(heads.items()):
            if head is None and truth.honest(seat) and seat not in truth.lost:
                truth.violate("L5", f"guardian {seat} did not come back", f"guardian {seat}")
        kept = {seat: head for seat, head in heads.items() if head is not None}
        honest = {seat: head for seat, head in kept.items() if truth.honest(seat)}
        if len({str(head) for head in honest.values()}) > 1:
            truth.violate("L3", f"guardians ended with different entries: {_parted(honest)}")
        for one in list(truth.claims.values()):
            self._check_claim(one)
        allowed = MESSAGES_PER_PAIR * truth.guardians**2 * (1 + len(truth.claims) + truth.troubles)
        if truth.messages > allowed and not truth.charged:
            truth.violate("L6", f"{truth.messages} messages, where {allowed} would be many")

    def _check_claim(self, one: Claimed) -> None:
        truth = self.truth
        behind = {s: at for s, at in one.voted.items() if truth.honest(s)}
        stood = sorted(behind.values())[self.safety.quorum - 1 :]
        contested = one.vetoed and len(one.knowing) < self.safety.quorum + 1
        if one.vetoed and stood and not one.released:
            truth.meet("veto-wins")
        self._check_veto(one, stood)
        if not stood or contested or self._has_rival(one):
            return
        waited = stood[0] + self.safety.waiting
        overdue = waited + 2 * self.slack < min(self.end, one.expires) and not one.recovered
        if overdue and within_budget(truth):
            truth.violate(
                "L1",
                f"claim {one.number} was approved by {len(behind)} and is not back "
                f"{(self.end - waited) / 3_600_000:.1f} h after the waiting period",
                f"claim {one.number}",
            )
        # Where clocks are wrong, guardians hold back, as they should.
        if not one.vetoed and not truth.skewed:
            self._check_waiting(one)

    def _check_veto(self, one: Claimed, stood: list[int]) -> None:
        truth = self.truth
        by = (stood[0] if stood else self.end) + self.safety.waiting - self.slack
        told = [seat for (seat, claim), at in truth.vetoes.items()
                if claim == one.claim and at < by and truth.honest(seat)]  # fmt: skip
        liars = [seat for seat, claim in truth.signed if claim == one.claim]
        overridden = len({*one.knowing, *liars}) >= self.safety.quorum
        if len(told) > truth.guardians - truth.threshold and one.recovered and not overridden:
            truth.violate(
                "L4",
                f"claim {one.number} was vetoed at {len(told)} guardians in time, and released",
            )

    def _has_rival(self, one: Claimed) -> bool:
        # Two claims on one vault hold each other back, and an approval retracts an earlier one.
        return any(
            other.vault == one.vault and other.claim != one.claim and self.safety.approvals(other)
            for other in self.truth.claims.values()
        )

    def _check_waiting(self, one: Claimed) -> None:
        truth = self.truth
        for seat, at in one.released.items():
            if not truth.honest(seat):
                continue
            had = sorted(
                when
                for (holder, vote), when in truth.had.items()
                if holder == seat
                and truth.votes[vote][1] == one.claim
                and truth.honest(truth.votes[vote][0])
            )
            if len(had) < self.safety.quorum:
                continue
            stood = had[self.safety.quorum - 1]
            late = at - stood - self.safety.waiting - truth.time_off(seat, stood) * 2 - self.slack
            if late > 0:
                truth.violate(
                    "L7",
                    f"guardian {seat} released claim {one.number} {late / 3_600_000:.1f} h late",
                    f"guardian {seat}",
                    f"claim {one.number}",
                )


def _parted(heads: dict[Seat, Any]) -> str:
    groups: dict[str, list[Seat]] = {}
    for seat, head in heads.items():
        groups.setdefault(str(head), []).append(seat)
    return ", ".join(str(seats) for seats in groups.values())
