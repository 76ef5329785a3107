"""The case machine: from a claim to a release, as one guardian sees it.

    (claim waits for its code) -> OPEN -> WAITING -> RELEASED     EXPIRED from any but RELEASED
                                   ^ |       |
                        quorum lapses+-------+ veto: CONTESTED, until enough votes name it

1. A case is a fold over the *set* of entries about its claim. Order of arrival, repeats and
   who carried them never matter; a vote may come before its claim and waits.
2. The verdict follows from the latest revisions of all votes, evaluated anew each time.
   Only release, an override once complete, and expiry are final.
3. What depends on our own clock, since when the quorum stood and how long the waiting
   period has been served, is kept apart in `Facts`, and persisted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from protocol.contract import Id, Seat, Verified
from protocol.encoding import decode_loosely, encode_ordered, in_order
from protocol.limits import DAY
from protocol.policy import Policy, override_needed, policy_of
from protocol.statements import NOTHING, place_of

REVISIONS_MAX: Final = 8  # changes of mind on one claim; more is noise
CLAIM_LIFE_MAX: Final = 180 * DAY  # longer than any waiting period and any holiday
CODE_DIGITS: Final = 15  # 2^49.8; each try costs Argon2id
CODE_SALT: Final = b"holdfast/code/1\x00"

OPEN: Final = "open"
WAITING: Final = "waiting"
CONTESTED: Final = "contested"
RELEASED: Final = "released"
EXPIRED: Final = "expired"


def claim_code(stretched: bytes) -> str:
    """The fifteen digits that tie a person to a claim, from Argon2id over the claim's id."""
    return str(int.from_bytes(stretched, "big") % 10**CODE_DIGITS).zfill(CODE_DIGITS)


def group(code: str) -> str:
    """The code as people read it: five groups of three."""
    return " ".join(code[start : start + 3] for start in range(0, CODE_DIGITS, 3))


def read_code(typed: str) -> str | None:
    """The digits of a code as typed, or None if there are not fifteen."""
    digits = "".join(letter for letter in typed if letter in "0123456789")
    return digits if len(digits) == CODE_DIGITS else None


@dataclass(frozen=True)
class Facts:
    """What this guardian alone knows of a case. Times in ms, 0 for never.

    `served` is the part of the waiting period that is over, `since` when the clock was last
    started; `contested` when a veto first stood; `final` is set when an override completed.
    All of these are about `vault`, the one most votes are for.
    """

    opened: int
    code: str = ""
    served: int = 0
    since: int = 0
    stood: int = 0
    contested: int = 0
    final: bool = False
    approved: int = 0
    released: int = 0
    closed: str = ""
    vault: bytes = b""

    def to_bytes(self) -> bytes:
        return encode_ordered({name: getattr(self, name) for name in _FACTS})


_FACTS: Final = in_order(Facts.__dataclass_fields__)


def read_facts(raw: bytes) -> Facts:
    return Facts(**decode_loosely(raw, limit=1024))


@dataclass
class Case:
    """Everything known about one claim."""

    id: Id
    claim: Verified | None = None
    votes: dict[Seat, dict[int, Verified]] = field(default_factory=dict)
    vetoes: dict[Id, Verified] = field(default_factory=dict)
    releases: dict[Seat, Verified] = field(default_factory=dict)
    successions: dict[Id, Verified] = field(default_factory=dict)
    facts: Facts | None = None

    def latest(self) -> dict[Seat, Verified]:
        """The latest revision of each guardian's vote."""
        found = {}
        for seat in sorted(self.votes):
            votes = self.votes[seat]
            found[seat] = votes[max(votes)]
        return found

    @property
    def is_open(self) -> bool:
        return self.claim is not None and self.facts is not None and not self.facts.closed


@dataclass(frozen=True)
class Standing:
    """How the votes on one vault stand under one claim.

    `approvals` are the seats that count; `naming` those of them that name a veto.
    """

    vault: Id
    deal: Id
    policy: Policy
    approvals: tuple[Seat, ...]
    naming: tuple[Seat, ...]
    vetoed: bool
    override: int

    @property
    def has_quorum(self) -> bool:
        return len(self.approvals) >= self.policy.quorum

    @property
    def is_overridden(self) -> bool:
        return self.vetoed and len(self.naming) >= self.override


class Docket:
    """All cases, folded from entries, with what ties cases on one vault together."""

    def __init__(self) -> None:
        self.cases: dict[Id, Case] = {}
        # An approval retracts the same guardian's earlier one on that vault, under whatever
        # claim: the place of the latest, and its claim.
        self._approved: dict[tuple[Id, Seat], tuple[tuple[int, int], Id]] = {}
        # The claims with a vote on each vault, and the vaults that votes under each claim name.
        self._claims_on: dict[Id, dict[Id, bool]] = {}
        self._vaults_of: dict[Id, dict[Id, bool]] = {}

    def case(self, claim: Id) -> Case:
        found = self.cases.get(claim)
        if found is None:
            found = self.cases[claim] = Case(claim)
        return found

    def take_claim(self, claim: Verified) -> Case:
        case = self.case(claim.id)
        case.claim = claim
        return case

    def take_vote(self, vote: Verified) -> Verified | None:
        """Fold a vote; another vote of that seat and revision, if there is one."""
        place, body = place_of(vote), vote.body
        if body["revision"] > REVISIONS_MAX:
            return None
        votes = self.case(body["claim"]).votes.setdefault(place.seat, {})
        earlier = votes.setdefault(body["revision"], vote)
        if earlier is vote and body["vault"] != NOTHING:
            self._claims_on.setdefault(body["vault"], {})[body["claim"]] = True
            self._vaults_of.setdefault(body["claim"], {})[body["vault"]] = True
        if body["verdict"] == "approve":
            key = (body["vault"], place.seat)
            stand = ((place.incarnation, place.seq), body["claim"])
            self._approved[key] = max(self._approved.get(key, stand), stand)
        return earlier if earlier.id != vote.id else None

    def take_veto(self, veto: Verified) -> None:
        self.case(veto.body["claim"]).vetoes[veto.id] = veto

    def take_release(self, release: Verified) -> None:
        self.case(release.body["claim"]).releases.setdefault(place_of(release).seat, release)

    def take_succession(self, succession: Verified) -> None:
        self.case(succession.body["claim"]).successions[succession.id] = succession

    def on_vault(self, vault: Id) -> list[Case]:
        """Open cases with a vote on a vault, be it one that was changed since."""
        found = (self.cases[claim] for claim in sorted(self._claims_on.get(vault, ())))
        return [case for case in found if case.is_open]

    def beside(self, case: Case) -> list[Case]:
        """Open cases that have a vote on a vault which this case has a vote on, too."""
        found: dict[Id, bool] = {}
        for vault in self._vaults_of.get(case.id, ()):
            if len(self._claims_on[vault]) > 1:
                found.update(self._claims_on[vault])
        found.pop(case.id, None)
        cases = (self.cases[claim] for claim in sorted(found))
        return [each for each in cases if each.is_open]

    def standing(self, case: Case, deal: Verified, excluded: Iterable[Seat], now: int) -> Standing:
        """Count the votes for a deal under a claim.

        Only holders of the deal count, none of `excluded`, and an approval only while it is
        that guardian's latest on the vault.
        """
        vault, policy = deal.body["vault"], policy_of(deal)
        shut_out, holders = tuple(excluded), deal.body["holders"]
        vetoes = {id_ for id_, veto in case.vetoes.items() if veto.body["vault"] == vault}
        approvals, naming = [], []
        for seat, vote in case.latest().items():
            if seat in shut_out or seat not in holders:
                continue
            if not self._counts(case, seat, vote, vault, deal.id):
                continue
            approvals.append(seat)
            if vote.body["veto"] in vetoes:
                naming.append(seat)
        contested = case.facts.contested if case.facts else 0
        return Standing(
            vault=vault,
            deal=deal.id,
            policy=policy,
            approvals=tuple(approvals),
            naming=tuple(naming),
            vetoed=bool(vetoes),
            override=override_needed(policy, now - contested if contested else 0),
        )

    def _counts(self, case: Case, seat: Seat, vote: Verified, vault: Id, deal: Id) -> bool:
        body = vote.body
        # SPEC 11.3: what counts as an approval.
        if body["verdict"] != "approve" or body["vault"] != vault or body["deal"] != deal:
            return False
        if not body["how"]:
            return False  # who does not say how they checked has not checked
        latest = self._approved.get((vault, seat))
        return latest is None or latest[1] == case.id

    def forget(self, claim: Id) -> None:
        """Drop what is kept in memory of a case that is closed and past its time."""
        self.cases.pop(claim, None)
        for vault in self._vaults_of.pop(claim, ()):
            del self._claims_on[vault][claim]
            if not self._claims_on[vault]:
                del self._claims_on[vault]


def advance(facts: Facts, standing: Standing, now: int) -> Facts:
    """Move a case's clock to `now`, given how its votes stand. Pure; idempotent at one `now`."""
    if standing.approvals and facts.vault != standing.vault:
        # Guardians took one vault for another: its owner gets the whole time to object.
        facts = Facts(
            opened=facts.opened,
            code=facts.code,
            approved=facts.approved or now,
            released=facts.released,
            vault=standing.vault,
        )
    facts = _contest(facts, standing, now)
    # SPEC 11.7: the clock runs while the quorum stands and no veto holds it.
    runs = standing.has_quorum and (not standing.vetoed or facts.final)
    if runs and not facts.since:
        return replace(facts, since=now, stood=facts.stood or now)
    if not runs and facts.since:
        # The quorum lapsed or a veto came: the clock pauses and does not start anew.
        return replace(facts, served=facts.served + max(0, now - facts.since), since=0)
    return facts


def _contest(facts: Facts, standing: Standing, now: int) -> Facts:
    if standing.approvals and not facts.approved:
        facts = replace(facts, approved=now)
    if standing.vetoed and not facts.contested:
        facts = replace(facts, contested=now)
    # SPEC 11.12: an override once complete is final.
    if standing.is_overridden and not facts.final:
        facts = replace(facts, final=True)
    return facts


def due(facts: Facts, policy: Policy) -> int | None:
    """When the waiting period ends, while its clock runs."""
    if not facts.since:
        return None
    return facts.since + max(0, policy.waiting - facts.served)


def state_of(facts: Facts, standing: Standing | None) -> str:
    """The word for where a case is."""
    if facts.closed:
        return facts.closed
    if facts.released:
        return RELEASED
    if standing is None:
        return OPEN
    if standing.vetoed and not facts.final:
        return CONTESTED
    return WAITING if facts.since else OPEN


def deals_voted(case: Case) -> list[tuple[Id, Id]]:
    """The vaults and deals that have approvals under a claim, most approvals first."""
    counts: dict[tuple[Id, Id], int] = {}
    for votes in case.votes.values():
        body = votes[max(votes)].body
        if body["verdict"] == "approve":
            key = (body["vault"], body["deal"])
            counts[key] = counts.get(key, 0) + 1
    return sorted(counts, key=lambda key: (-counts[key], key))


def vaults_voted(case: Case) -> list[Id]:
    """The vaults that any vote under a claim was ever about."""
    found = {}
    for votes in case.votes.values():
        for vote in votes.values():
            found[vote.body["vault"]] = True
    found.pop(NOTHING, None)
    return sorted(found)


def next_revision(case: Case, seat: Seat) -> int:
    """The number of this guardian's next vote on a claim."""
    votes: Mapping[int, Verified] = case.votes.get(seat, {})
    return max(votes) + 1 if votes else 0
