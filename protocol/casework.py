"""What a guardian's node does with its cases: fold what is heard, wait, release.

Every release is decided here, in `Casework.consider`, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from protocol import cases, vault
from protocol.cases import Case, Docket, Facts, Standing
from protocol.contract import (
    Changed,
    Effect,
    Id,
    Ledger,
    Moment,
    Notify,
    Persist,
    PutRow,
    Run,
    Seat,
    SetTimer,
    Stretch,
    Table,
    Verified,
)
from protocol.custody import Custody, DealRow
from protocol.encoding import hash256
from protocol.errors import FaultyPiece, HoldfastError, Locked, NotYet, Refused, WrongSecret
from protocol.gossip import PING_EVERY, SKEW_MAX, Gossip
from protocol.keys import SealingKey
from protocol.limits import FULL_NAME_BYTES_MAX, MINUTE, SEATS_MAX
from protocol.policy import OVERRIDE_FALLS_AFTER, policy_of
from protocol.sealing import seal, unlock
from protocol.statements import CARRIED, NOTHING, Codec, place_of

ALIVE: Final = b"alive"  # when this node was last known to run
CARRIED_KEY: Final = b"carried/"  # members' statements that count here, and whose log has them
LATER: Final = "consider"  # the timer of cases that many entries came for
LATER_BY: Final = 100  # ms, in which the same cases come up in the logs of other neighbours
MANY: Final = 32  # entries at once: more than any day's work brings, fewer than catching up
DOWNTIME_DOUBTED: Final = 2 * PING_EVERY  # a shorter gap is no downtime


class Casework:
    """The cases of one guardian, and what follows from them."""

    def __init__(
        self,
        codec: Codec,
        seat: Seat,
        gossip: Gossip,
        custody: Custody,
        sealing: Sequence[SealingKey],
        ledger: Ledger,
    ) -> None:
        self.codec = codec
        self.seat = seat
        self.gossip = gossip
        self.custody = custody
        self.docket = Docket()
        self.touched: dict[Id, bool] = {}
        self.admitted: dict[bytes, bool] = {}
        self._sealing = tuple(sealing)
        self._ledger = ledger
        self._deferred: dict[Id, bool] | None = None
        self._later: dict[Id, bool] = {}  # cases to be looked at when the timer fires
        self._doubt = 0  # downtime not yet vouched for by the neighbours' clocks, in ms

    # --- at start ---------------------------------------------------------------------

    def load(self, entry: Verified, now: int) -> None:
        """Fold an entry from our own ledger, without effects."""
        if not entry.known:
            return
        if entry.type == "carry":
            self._load_carried(entry.body["raw"], now)
        elif entry.type == "vote":
            self.docket.take_vote(entry)
        elif entry.type == "release":
            self.docket.take_release(entry)
        elif entry.type == "misbehaviour":
            self.gossip.believe(entry)
        elif entry.type == "admit":
            self.admitted[entry.body["member"]] = True

    def _load_carried(self, raw: bytes, now: int) -> None:
        try:
            statement = self.codec.read(raw)
        except HoldfastError:
            return
        if self._carrier(statement.id) is None:
            return  # it did not count when it came, so it does not now
        if statement.type == "claim":
            self._load_claim(statement, now)
        elif statement.type == "veto":
            self.docket.take_veto(statement)
        elif statement.type == "succession":
            self.docket.take_succession(statement)

    def _load_claim(self, claim: Verified, now: int) -> None:
        row = self._ledger.get(Table.CASE, claim.id)
        facts = cases.read_facts(row) if row is not None else None
        # One that expired while we were off has yet to be closed.
        if facts is not None and (claim.body["expires"] > now or not facts.closed):
            self.docket.take_claim(claim).facts = facts

    def _carrier(self, statement: Id) -> Seat | None:
        """Whose log carries a statement that counts here."""
        row = self._ledger.get(Table.META, CARRIED_KEY + statement)
        return None if row is None else int.from_bytes(row[8:], "big")

    def resume(self, at: Moment, out: list[Effect]) -> None:
        """Derive what is still owed: codes, timers, releases."""
        alive = self._ledger.get(Table.META, ALIVE)
        gap = at.now - int.from_bytes(alive or b"", "big") if alive else 0
        self._doubt = gap if gap > DOWNTIME_DOUBTED else 0
        for _, case in sorted(self.docket.cases.items()):
            if case.claim is None:
                continue
            if case.is_open:
                out.append(SetTimer(f"expire:{case.id.hex()}", case.claim.body["expires"]))
            if case.facts is not None and not case.facts.code:
                out.append(Run(f"code:{case.id.hex()}", Stretch((case.id,))))
            self.consider(at, case, out)
            self._succeed(at, case, out)

    def breathe(self, at: Moment, out: list[Effect]) -> None:
        """Note that we are alive, while a waiting period runs."""
        if any(case.is_open and case.facts and case.facts.since for case in self._all()):
            out.append(Persist(PutRow(Table.META, ALIVE, at.now.to_bytes(8, "big"))))

    def _all(self) -> list[Case]:
        return [case for _, case in sorted(self.docket.cases.items())]

    # --- folding ----------------------------------------------------------------------

    def fold_all(self, at: Moment, entries: Sequence[Verified], out: list[Effect]) -> None:
        """Take entries that came together, and only then decide what follows.

        A later one may take an earlier one back: who catches up on a log must not release
        on an approval that the same log has withdrawn since. When very many come, the same
        holds for the logs of all neighbours: each case is looked at once for all of them.
        """
        self._deferred = {}
        for entry in entries:
            self.fold(at, entry, out)
        deferred, self._deferred = self._deferred, None
        if len(entries) <= MANY:
            self._consider_each(at, deferred, out)
            return
        if not self._later:
            out.append(SetTimer(LATER, at.now + LATER_BY))
        self._later.update(deferred)

    def catch_up(self, at: Moment, out: list[Effect]) -> None:
        """Decide what was put off until all that had come in was folded."""
        later, self._later = self._later, {}
        self._consider_each(at, later, out)

    def _consider_each(self, at: Moment, claims: Iterable[Id], out: list[Effect]) -> None:
        for case_id in claims:
            self._touch(case_id, out)
            self.consider(at, self.docket.case(case_id), out)

    def fold(self, at: Moment, entry: Verified, out: list[Effect]) -> None:
        """Take a new entry of any log and do what follows from it."""
        if not entry.known:
            return
        match entry.type:
            case "carry":
                self._fold_carried(at, entry, out)
            case "vote":
                self._fold_vote(at, entry, out)
            case "release":
                self.docket.take_release(entry)
                self._succeed(at, self.docket.case(entry.body["claim"]), out)
                self._touch(entry.body["claim"], out)
            case "misbehaviour":
                if self.gossip.believe(entry):
                    out.append(Notify("misbehaviour"))
                    self.consider_all(at, out)
            case "admit":
                self.admitted[entry.body["member"]] = True

    def _fold_vote(self, at: Moment, vote: Verified, out: list[Effect]) -> None:
        other = self.docket.take_vote(vote)
        if other is not None:
            self.gossip.accuse(at, place_of(vote).seat, other.raw, vote.raw, out)
        case = self.docket.case(vote.body["claim"])
        if self._deferred is None:
            self._touch(case.id, out)
        # Also a vote that turns away from a vault changes how its other claims stand.
        for beside in self.docket.beside(case):
            self.consider(at, beside, out)
        self.consider(at, case, out)

    def _fold_carried(self, at: Moment, entry: Verified, out: list[Effect]) -> None:
        try:
            statement = self.codec.verify(entry.body["raw"], *CARRIED)
        except HoldfastError:
            return  # the carrier's mistake; the entry keeps its place and means nothing
        carrier = self._carrier(statement.id)
        if carrier is None and not self._is_lawful(at, statement):
            return
        if carrier is None or self.gossip.is_excluded(carrier):
            row = at.now.to_bytes(8, "big") + entry.body["seat"].to_bytes(2, "big")
            out.append(Persist(PutRow(Table.META, CARRIED_KEY + statement.id, row)))
        if carrier is not None:
            return
        match statement.type:
            case "claim":
                self._fold_claim(at, statement, out)
            case "veto":
                self._fold_veto(at, statement, out)
            case "succession":
                self.docket.take_succession(statement)
                self._succeed(at, self.docket.case(statement.body["claim"]), out)
            case "handover":
                self._fold_handover(statement, out)

    def _is_lawful(self, at: Moment, statement: Verified) -> bool:
        if statement.type == "claim":
            try:
                self.check_claim(statement, at.now)
            except Refused:
                return False
        elif statement.type == "veto":
            row = self.custody.row(statement.body["vault"])
            return row is not None and row.owner == statement.by
        return True

    def carry(self, at: Moment, statement: Verified, out: list[Effect]) -> None:
        """Put a member's statement into our log, unless an honest log has it already."""
        carrier = self._carrier(statement.id)
        if carrier is None or self.gossip.is_excluded(carrier):
            entry = self.gossip.author(at, "carry", {"raw": statement.raw}, out)
            self.fold(at, entry, out)

    def carry_anew(self, at: Moment, out: list[Effect]) -> None:
        """Carry what members said in the log of a guardian now proven to lie.

        Nobody speaks of that log any more, so a guardian that never saw those entries would
        miss a claim, or worse a veto. Each who has them carries them once.
        """
        if not self._sealing:
            return
        for case in self._all():
            if case.is_open and case.claim is not None:
                said = [case.claim, *case.vetoes.values(), *case.successions.values()]
                for statement in sorted(said, key=lambda one: one.id):
                    if self._carrier(statement.id) is not None:
                        self.carry(at, statement, out)

    # --- claims -----------------------------------------------------------------------

    def check_claim(self, claim: Verified, now: int) -> None:
        """Refuse a claim that is over, or asks for too long a life."""
        body = claim.body
        if body["expires"] <= now:
            raise Refused(
                "this claim has expired", hint="start the recovery anew on the new device"
            )
        if body["expires"] - now > cases.CLAIM_LIFE_MAX + SKEW_MAX:
            raise Refused("a claim lives for 180 days at most; is the clock of the device right?")
        if body["kind"] == "estate":
            raise Refused("this federation does not open estates yet")
        if len(body["seats"]) != len(body["wraps"]):
            raise Refused("a claim does not say which guardian can read which part of it")

    def _fold_claim(self, at: Moment, claim: Verified, out: list[Effect]) -> None:
        case = self.docket.take_claim(claim)
        out.append(Persist(PutRow(Table.CLAIM, claim.id, None)))
        if case.facts is None:
            self._open(at, case, out)
        self.consider(at, case, out)
        self._succeed(at, case, out)

    def _open(self, at: Moment, case: Case, out: list[Effect]) -> None:
        assert case.claim is not None
        self._keep(case, Facts(opened=at.now), out)
        out.append(SetTimer(f"expire:{case.id.hex()}", case.claim.body["expires"]))
        out.append(Run(f"code:{case.id.hex()}", Stretch((case.id,))))
        if case.claim.body["kind"] == "rehearsal":
            self._rehearse(at, case, out)
        else:
            out.append(Notify("opened", case.id))
        self._touch(case.id, out)

    def coded(self, case_id: Id, code: str, out: list[Effect]) -> None:
        """The code of a case has been worked out."""
        case = self.docket.cases.get(case_id)
        if case is not None and case.facts is not None and case.facts.code != code:
            self._keep(case, replace(case.facts, code=code), out)

    def name_of(self, claim: Verified) -> str:
        """The name in a claim, as the claimant typed it. Raises `Locked` or `Refused`."""
        body = claim.body
        if not self._sealing:
            raise Locked(
                "this node is locked and cannot read names",
                hint="unlock it: holdfast guardian unlock",
            )
        if self.seat in body["seats"]:
            wrap = body["wraps"][body["seats"].index(self.seat)]
            for key in self._sealing:
                try:
                    plain = unlock(key.open(wrap), body["name"])
                except (HoldfastError, ValueError):
                    continue
                return plain.rstrip(b"\0").decode(errors="replace")[:FULL_NAME_BYTES_MAX]
        raise Refused("the name in this claim cannot be read by this guardian")

    # --- owners -----------------------------------------------------------------------

    def _fold_veto(self, at: Moment, veto: Verified, out: list[Effect]) -> None:
        self.docket.take_veto(veto)
        out.append(Notify("vetoed", veto.body["claim"]))
        self._touch(veto.body["claim"], out)
        self.consider(at, self.docket.case(veto.body["claim"]), out)

    def _fold_handover(self, statement: Verified, out: list[Effect]) -> None:
        vault_id = statement.body["vault"]
        row = self.custody.row(vault_id)
        if row is not None and row.owner == statement.by and not self.is_frozen(vault_id):
            self.custody.hand_over(vault_id, row, statement.body["to"], out)

    def is_frozen(self, vault_id: Id) -> bool:
        """Whether a case on the vault has an approval and is not closed."""
        return any(
            case.facts is not None and case.facts.approved
            for case in self.docket.on_vault(vault_id)
        )

    def check_succession(self, statement: Verified) -> None:
        """Raise `NotYet` or `Refused` unless the releases for it are known here."""
        case = self.docket.cases.get(statement.body["claim"])
        if case is None or case.claim is None:
            raise NotYet("this guardian has not heard of that claim yet")
        if case.claim.by != statement.by:
            raise Refused("only the device that made the claim becomes the owner")
        have, need = self._releases(case, statement.body["vault"])
        if have < need:
            raise NotYet(f"this guardian knows of {have} released pieces; {need} are needed")

    def _releases(self, case: Case, vault_id: Id) -> tuple[int, int]:
        deals = {deal.id: deal for deal, _ in self.custody.deals(vault_id)}
        seats: dict[Id, int] = {}
        for release in case.releases.values():
            if release.body["vault"] == vault_id and release.body["deal"] in deals:
                seats[release.body["deal"]] = seats.get(release.body["deal"], 0) + 1
        if not seats:
            return 0, self.gossip.roster.threshold
        best = max(sorted(seats), key=lambda deal: seats[deal])
        return seats[best], vault.threshold_of(deals[best])

    def _succeed(self, at: Moment, case: Case, out: list[Effect]) -> None:
        """Make the claimant's device the owner, once the releases for it are known."""
        for _, statement in sorted(case.successions.items()):
            vault_id = statement.body["vault"]
            row = self.custody.row(vault_id)
            if row is None or row.owner == statement.by or case.facts is None:
                continue
            try:
                self.check_succession(statement)
            except HoldfastError:
                continue
            self.custody.drop_beside(vault_id, out)
            self.custody.hand_over(vault_id, row, statement.by, out)
            self._close(at, case, cases.RELEASED, out)
            for other in self.docket.on_vault(vault_id):
                self.consider(at, other, out)

    # --- the verdict ------------------------------------------------------------------

    def consider_all(self, at: Moment, out: list[Effect]) -> None:
        """Look anew at every case: who may vote has changed."""
        for case in self._all():
            self.consider(at, case, out)

    def consider_vault(self, at: Moment, vault_id: Id, out: list[Effect]) -> None:
        """Look anew at every open case on a vault: they hold each other back."""
        for case in self.docket.on_vault(vault_id):
            self.consider(at, case, out)

    def standings(self, case: Case, now: int) -> list[tuple[Standing, Verified, DealRow]]:
        """How the votes stand for each deal voted on that we hold, fullest first."""
        excluded = self.gossip.excluded()
        result = []
        for vault_id, deal_id in cases.deals_voted(case):
            pair = self.custody.deal(vault_id, deal_id)
            if pair is not None:
                standing = self.docket.standing(case, pair[0], excluded, now)
                result.append((standing, *pair))
        if len(result) > 1:
            result.sort(key=lambda item: (-len(item[0].approvals), item[0].deal))
        return result

    def consider(self, at: Moment, case: Case, out: list[Effect]) -> None:
        """Evaluate a case anew; release if, now, everything says so."""
        if self._deferred is not None:
            self._deferred[case.id] = True
            return
        before = case.facts
        if before is None or before.closed or case.claim is None:
            return
        if case.claim.body["expires"] <= at.now:
            self.expire(at, case, out)
            return
        standings = self.standings(case, at.now)
        if not standings:
            return
        standing, deal, row = standings[0]
        after = cases.advance(before, standing, at.now)
        if after is not before:
            self._keep(case, after, out)
            self._touch(case.id, out)
        self._set_timers(at, case, standing, out)
        if self._may_release(at, case, standing, out):
            self._release(at, case, standing, deal, row, out)

    def _set_timers(self, at: Moment, case: Case, standing: Standing, out: list[Effect]) -> None:
        facts = case.facts
        assert facts is not None
        end = cases.due(facts, standing.policy)
        if facts.contested and not facts.final:
            end = facts.contested + OVERRIDE_FALLS_AFTER
        if end is not None and end > at.now and not facts.released:
            out.append(SetTimer(f"due:{case.id.hex()}", end))

    def _may_release(self, at: Moment, case: Case, standing: Standing, out: list[Effect]) -> bool:
        facts = case.facts
        assert facts is not None
        if facts.released or not standing.has_quorum or not facts.since or not self._sealing:
            return False
        if standing.vetoed and not facts.final:
            return False
        if self._has_rival(case, standing, at.now):
            out.append(Notify("rivals", case.id))
            return False
        return self._has_waited(at, case, standing, out)

    def _has_rival(self, case: Case, standing: Standing, now: int) -> bool:
        """Whether another claim on the vault has a quorum too: then neither releases."""
        for other in self.docket.on_vault(standing.vault):
            if other.id != case.id:
                for rival, _, _ in self.standings(other, now):
                    if rival.vault == standing.vault and rival.has_quorum:
                        return True
        return False

    def _has_waited(self, at: Moment, case: Case, standing: Standing, out: list[Effect]) -> bool:
        if not standing.policy.waiting:
            return True
        assert case.facts is not None
        end = cases.due(case.facts, standing.policy)
        if end is None or at.now < end:
            return False
        skew = self.gossip.skew()
        if skew is None and at.now < end + self._doubt:
            # Nobody vouches for our clock after a stop: the time we were off does not count.
            out.append(SetTimer(f"due:{case.id.hex()}", min(end + self._doubt, at.now + MINUTE)))
            return False
        if skew is not None and abs(skew) > SKEW_MAX:
            out.append(Notify("clock"))
            out.append(SetTimer(f"due:{case.id.hex()}", at.now + MINUTE))
            return False
        return True

    def _release(
        self,
        at: Moment,
        case: Case,
        standing: Standing,
        deal: Verified,
        row: DealRow,
        out: list[Effect],
    ) -> None:
        assert case.claim is not None and case.facts is not None
        piece = self.own_piece(deal, row)
        if piece is None:
            out.append(Notify("damaged", case.id))
            return
        raws = [(held.raw, row.whole) for held, row in self.custody.releasable(deal.id)]
        plain = vault.release_plain(piece, deal.raw, raws)
        seed = hash256("hf/release", at.seed, case.id)
        latest = case.latest()
        fields: dict[str, Any] = {
            "claim": case.id,
            "vault": standing.vault,
            "deal": deal.id,
            "box": seal(case.claim.body["device"], plain, seed),
            "votes": [latest[seat].id for seat in standing.approvals],
            "since": case.facts.stood,
            "vetoes": sorted(case.vetoes)[:SEATS_MAX],
            "at": at.now,
        }
        entry = self.gossip.author(at, "release", fields, out)
        self._keep(case, replace(case.facts, released=at.now), out)
        out.append(Notify("released", case.id))
        self.fold(at, entry, out)

    def own_piece(self, deal: Verified, row: DealRow) -> vault.Piece | None:
        """Our piece of a deal, if it is still what the owner signed; rot is never served."""
        try:
            piece = self.custody.piece(row)
            vault.check_piece(deal, self.seat, piece)
        except (FaultyPiece, WrongSecret):
            return None
        return piece

    # --- ends -------------------------------------------------------------------------

    def expire(self, at: Moment, case: Case, out: list[Effect]) -> None:
        """A claim's time is over. What was released stays so; the rest ends."""
        if case.facts is None or case.facts.closed:
            return
        end = cases.RELEASED if case.facts.released else cases.EXPIRED
        self._close(at, case, end, out)
        for vault_id in cases.vaults_voted(case):
            self.consider_vault(at, vault_id, out)

    def _close(self, at: Moment, case: Case, end: str, out: list[Effect]) -> None:
        assert case.facts is not None
        self._keep(case, replace(case.facts, closed=end), out)
        for vault_id in cases.vaults_voted(case):
            if not self.is_frozen(vault_id):
                self.custody.unfreeze(vault_id, out)
        self._touch(case.id, out)

    def _rehearse(self, at: Moment, case: Case, out: list[Effect]) -> None:
        """Vote by ourselves, on the dummy vault of a rehearsal and nothing else."""
        assert case.claim is not None
        vault_id = case.claim.body["vault"]
        row = self.custody.row(vault_id)
        pair = self.custody.deal(vault_id, row.deal) if row else None
        if pair is None or not policy_of(pair[0]).rehearsal or not self._sealing:
            return
        self.vote(at, case, vault_id, pair[0].id, "approve", "other", "rehearsal", NOTHING, out)

    def vote(
        self,
        at: Moment,
        case: Case,
        vault_id: Id,
        deal_id: Id,
        verdict: str,
        how: str,
        words: str,
        veto: Id,
        out: list[Effect],
    ) -> None:
        """Sign a vote of ours and do what follows from it."""
        revision = cases.next_revision(case, self.seat)
        if revision > cases.REVISIONS_MAX:
            raise Refused(
                f"you have changed your vote on this claim {cases.REVISIONS_MAX} times already"
            )
        fields = {
            "claim": case.id,
            "vault": vault_id,
            "deal": deal_id,
            "verdict": verdict,
            "how": how,
            "words": words,
            "revision": revision,
            "veto": veto,
            "at": at.now,
        }
        entry = self.gossip.author(at, "vote", fields, out)
        self.fold(at, entry, out)

    def _keep(self, case: Case, facts: Facts, out: list[Effect]) -> None:
        if facts != case.facts:
            case.facts = facts
            out.append(Persist(PutRow(Table.CASE, case.id, facts.to_bytes())))

    def _touch(self, case_id: Id, out: list[Effect]) -> None:
        if case_id not in self.touched:
            self.touched[case_id] = True
            out.append(Changed("case", case_id))
