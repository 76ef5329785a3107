"""The explorer's oracle: judges each step of a guardian by the entries in its ledger.

It shares no code with the case machine. It reads the signed entries, counts for itself, and
keeps in its notes what a guardian may not undo: every statement it ever let out, overrides
that were complete, and how long a quorum has stood by the guardian's own clock.

S1 threshold     a release rests on a quorum of distinct holders whose latest word is approval
S3 binding       a release opens with the key of the claim's device and holds the right share
S5 one word      no guardian signs two votes of one revision, or two entries at one place,
                 and none that its person did not cast
S6 veto, delay   no release after a known veto without an override; none before its time
S9 liars         votes of a guardian that is proven to lie do not count
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from protocol import vault
from protocol.contract import Id, Seat, Verified
from protocol.errors import HoldfastError
from protocol.federation import Roster
from protocol.keys import SealingKey
from protocol.policy import Policy, policy_of
from protocol.statements import Codec, place_of
from simulations.explore_cores import Replica, Step

PERSONAL: Final = ("act",)  # the steps in which a person decides


@dataclass(frozen=True)
class Truth:
    """What the oracle knows for certain of the one vault that is claimed."""

    roster: Roster
    codec: Codec
    owner: bytes
    deal: Verified
    devices: Mapping[Id, SealingKey]

    @property
    def vault(self) -> Id:
        id_: Id = self.deal.body["vault"]
        return id_

    @property
    def policy(self) -> Policy:
        return policy_of(self.deal)


@dataclass
class Known:
    """What lies in one guardian's ledger about the vault."""

    votes: dict[Id, dict[Seat, dict[int, list[Verified]]]] = field(default_factory=dict)
    claims: dict[Id, Verified] = field(default_factory=dict)
    vetoes: dict[Id, dict[Id, Verified]] = field(default_factory=dict)
    approved: dict[Seat, tuple[tuple[int, int], Id]] = field(default_factory=dict)
    releases: dict[tuple[Id, Seat], Id] = field(default_factory=dict)
    liars: dict[Seat, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Count:
    """The votes for the vault under one claim, counted by the oracle."""

    approvals: tuple[Seat, ...]
    naming: tuple[Seat, ...]
    vetoed: bool


@dataclass(frozen=True)
class Notes:
    """What a guardian may not undo. `clocks`: claim -> (served, running since) in ms."""

    let_out: frozenset[tuple[str, Any, Id]] = frozenset()
    overridden: frozenset[Id] = frozenset()
    clocks: tuple[tuple[Id, int, int], ...] = ()


class Oracle:
    def __init__(self, truth: Truth) -> None:
        self.truth = truth

    def first(self, replica: Replica) -> Notes:
        return Notes()

    def judge(self, replica: Replica, step: Step, new: list[Verified]) -> list[str]:
        """Look at a step of a guardian that wrote the `new` entries into its own log."""
        known = self.read(entry for _, entry in replica.ledger.entries())
        faults = self._one_word(replica, step, new)
        self._remember(replica, known)
        for entry in new:
            if entry.type == "release":
                faults += self._release(replica, known, entry)
        return faults

    # --- reading a ledger -------------------------------------------------------------

    def read(self, entries: Iterable[bytes]) -> Known:
        """Sort out what a ledger holds."""
        known = Known()
        for raw in entries:
            entry = self.truth.codec.read(raw)
            match entry.type:
                case "vote":
                    self._vote(known, entry)
                case "carry":
                    self._carried(known, entry.body["raw"])
                case "release":
                    known.releases[entry.body["claim"], place_of(entry).seat] = entry.id
                case "misbehaviour":
                    self._accusation(known, entry.body)
        self._double_votes(known)
        return known

    def _vote(self, known: Known, vote: Verified) -> None:
        place, body = place_of(vote), vote.body
        seats = known.votes.setdefault(body["claim"], {})
        seats.setdefault(place.seat, {}).setdefault(body["revision"], []).append(vote)
        if body["verdict"] == "approve" and body["vault"] == self.truth.vault:
            stand = ((place.incarnation, place.seq), body["claim"])
            known.approved[place.seat] = max(known.approved.get(place.seat, stand), stand)

    def _carried(self, known: Known, raw: bytes) -> None:
        statement = self.truth.codec.read(raw)
        if statement.type == "claim":
            known.claims[statement.id] = statement
        elif (statement.type, statement.by, statement.body["vault"]) == (
            "veto", self.truth.owner, self.truth.vault,
        ):  # fmt: skip
            known.vetoes.setdefault(statement.body["claim"], {})[statement.id] = statement

    def _accusation(self, known: Known, body: Mapping[str, Any]) -> None:
        try:
            first = self.truth.codec.verify(body["first"])
            second = self.truth.codec.verify(body["second"])
        except HoldfastError:
            return
        guardian = self.truth.roster.by_identity(body["accused"])
        if guardian is None or not first.by == second.by == guardian.identity:
            return
        same_vote = first.type == second.type == "vote" and all(
            first.body[key] == second.body[key] for key in ("claim", "revision")
        )
        if first.id != second.id and (place_of(first) == place_of(second) or same_vote):
            known.liars[guardian.seat] = True

    def _double_votes(self, known: Known) -> None:
        for seats in known.votes.values():
            for seat, revisions in seats.items():
                if any(len(votes) > 1 for votes in revisions.values()):
                    known.liars[seat] = True

    def count(self, known: Known, claim: Id) -> Count:
        """Count the votes under a claim: each holder once, by its latest word."""
        deal = self.truth.deal
        vetoes = known.vetoes.get(claim, {})
        approvals, naming = [], []
        for seat, revisions in sorted(known.votes.get(claim, {}).items()):
            if seat in known.liars or seat not in deal.body["holders"]:
                continue
            body = revisions[max(revisions)][0].body
            if (body["verdict"], body["vault"], body["deal"]) != (
                "approve", self.truth.vault, deal.id,
            ):  # fmt: skip
                continue
            if known.approved[seat][1] != claim:
                continue  # taken back by a later approval of another claim
            approvals.append(seat)
            if body["veto"] in vetoes:
                naming.append(seat)
        return Count(tuple(approvals), tuple(naming), bool(vetoes))

    # --- the past ---------------------------------------------------------------------

    def _remember(self, replica: Replica, known: Known) -> None:
        notes: Notes = replica.notes
        clocks = {claim: (served, since) for claim, served, since in notes.clocks}
        overridden = notes.overridden
        for claim in sorted(known.claims):
            count = self.count(known, claim)
            if count.vetoed and len(count.naming) >= self.truth.policy.override:
                overridden |= {claim}
            stands = len(count.approvals) >= self.truth.policy.quorum
            runs = stands and (not count.vetoed or claim in overridden)
            served, since = clocks.get(claim, (0, 0))
            if runs and not since:
                clocks[claim] = (served, replica.now)
            elif not runs and since:
                clocks[claim] = (served + replica.now - since, 0)
        rows = tuple((claim, *clocks[claim]) for claim in sorted(clocks))
        replica.notes = replace(notes, overridden=overridden, clocks=rows)

    def due(self, replica: Replica, claim: Id) -> int | None:
        """When this guardian has waited long enough, if its clock for the claim runs."""
        for row, served, since in replica.notes.clocks:
            if row == claim and since:
                return int(since + max(0, self.truth.policy.waiting - served))
        return None

    def _one_word(self, replica: Replica, step: Step, new: list[Verified]) -> list[str]:
        faults = []
        notes: Notes = replica.notes
        let_out = dict[tuple[str, Any], Id]()
        for kind, about, id_ in sorted(notes.let_out, key=repr):
            let_out[kind, about] = id_
        for entry in new:
            place = place_of(entry)
            keys: list[tuple[str, Any]] = [("place", (place.incarnation, place.seq))]
            if let_out.get(keys[0]) == entry.id:
                continue  # its own words come back to it
            if entry.type == "vote":
                keys.append(("vote", (entry.body["claim"], entry.body["revision"])))
                if step[0] not in PERSONAL:
                    faults.append("S5: a vote that no person cast")
            for key in keys:
                if let_out.setdefault(key, entry.id) != entry.id:
                    faults.append(
                        "S5: two votes of one revision" if key[0] == "vote"
                        else "S5: two entries at one place"
                    )  # fmt: skip
        rows = frozenset((kind, about, id_) for (kind, about), id_ in let_out.items())
        replica.notes = replace(notes, let_out=rows)
        return faults

    # --- the end ----------------------------------------------------------------------

    def next_due(self, replica: Replica) -> int | None:
        """The latest end of a waiting period that runs at this guardian."""
        dues = [self.due(replica, claim) for claim, _, _ in replica.notes.clocks]
        return max((due for due in dues if due is not None), default=None)

    def agree(self, replicas: list[Replica]) -> list[str]:
        """Whether, after a fault-free end, all see the cases alike and released what is due."""
        faults = []
        views = [self.read(entry for _, entry in replica.ledger.entries()) for replica in replicas]
        for claim in self.truth.devices:
            counts = [self.count(known, claim) for known in views]
            opened = [claim in known.claims for known in views]
            if len(set(zip(counts, opened, strict=True))) > 1:
                faults.append("L3: honest guardians do not see the case alike in the end")
        if len({tuple(sorted(known.liars)) for known in views}) > 1:
            faults.append("L3: not all honest guardians know who lied")
        for replica, known in zip(replicas, views, strict=True):
            faults += self._owed(replica, known)
        return faults

    def _owed(self, replica: Replica, known: Known) -> list[str]:
        for claim in sorted(known.claims):
            due = self.due(replica, claim)
            rivals = [
                other for other in sorted(known.claims) if other != claim
                and len(self.count(known, other).approvals) >= self.truth.policy.quorum
            ]  # fmt: skip
            owed = due is not None and replica.now >= due and not rivals
            if owed and (claim, replica.seat) not in known.releases:
                return ["L1: a guardian has not released what it should have"]
            case = replica.core.casework.docket.cases.get(claim)
            standings = replica.core.casework.standings(case, replica.now) if case else []
            seen = standings[0][0].approvals if standings else ()
            if tuple(seen) != self.count(known, claim).approvals:
                return ["L3: a guardian's node counts other votes than lie in its ledger"]
        return []

    # --- releases ---------------------------------------------------------------------

    def _release(self, replica: Replica, known: Known, release: Verified) -> list[str]:
        body = release.body
        claim = body["claim"]
        count = self.count(known, claim)
        faults = []
        if (body["vault"], body["deal"]) != (self.truth.vault, self.truth.deal.id):
            faults.append("S3: a release of another vault or deal than the one voted on")
        if len(count.approvals) < self.truth.policy.quorum:
            liars = " (one is proven to lie)" if known.liars else ""
            faults.append(
                f"S1: a release on {len(count.approvals)} standing approvals{liars}, "
                f"{self.truth.policy.quorum} are needed"
            )
        faults += self._votes_named(known, count, body)
        if count.vetoed and claim not in replica.notes.overridden:
            faults.append("S6: a release after a known veto that is not overridden")
        due = self.due(replica, claim)
        if self.truth.policy.waiting and (due is None or replica.now < due):
            faults.append("S6: a release before the waiting period was over")
        if known.releases[claim, replica.seat] != release.id:
            faults.append("S5: a second release for one claim")
        return faults + self._binding(known, release)

    def _votes_named(self, known: Known, count: Count, body: Mapping[str, Any]) -> list[str]:
        votes = known.votes.get(body["claim"], {})
        latest = [votes[seat][max(votes[seat])][0].id for seat in count.approvals]
        if sorted(body["votes"]) == sorted(latest):
            return []
        return ["S1: a release names votes that do not count, or not each once"]

    def _binding(self, known: Known, release: Verified) -> list[str]:
        """Open the box as the device of the claim would."""
        body = release.body
        claim = known.claims.get(body["claim"])
        device = self.truth.devices[body["claim"]]
        if claim is None or claim.body["device"] != device.public:
            return ["S3: a release for a claim that the guardian does not have"]
        try:
            plain = device.open(body["box"])
            vault.read_release(self.truth.codec, place_of(release).seat, plain, body["deal"])
        except HoldfastError as error:
            return [f"S3: the claim's device cannot use a release: {error}"]
        return []
