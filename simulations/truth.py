"""What really happened in a federation: the record that invariants are checked against.

Who approved is known from the people themselves, who signed from the keys, what is durable
from the stores. Nothing here is believed because a message says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from protocol.contract import Id, Place, PutEntry, Seat, Verified
from protocol.statements import Codec, place_of
from simulations.quantities import moment

VIOLATIONS_MAX: Final = 50  # kept of one run; the first tells the most
EVENTS_MAX: Final = 2_000  # kept to be shown


@dataclass(frozen=True)
class Violation:
    """An invariant that did not hold: which, in one sentence, when, and what led to it."""

    id: str
    statement: str
    at: int
    events: tuple[str, ...] = ()

    @property
    def is_safety(self) -> bool:
        return self.id.startswith("S")

    def __str__(self) -> str:
        return f"{self.id}: {self.statement}"


@dataclass
class Claimed:
    """One claim as the world knows it. Times in ms since the start, 0 for never."""

    number: int
    case: int
    by: str  # owner, thief, heir
    claim: Id
    vault: Id
    made: int
    expires: int
    approved: dict[Seat, int] = field(default_factory=dict)  # by people who meant to
    voted: dict[Seat, int] = field(default_factory=dict)  # whose approval their node has taken
    deceived: dict[Seat, int] = field(default_factory=dict)  # those of them who were fooled
    knowing: dict[Seat, int] = field(default_factory=dict)  # approved although it was vetoed
    vetoed: int = 0  # when the vault's key holder first objected
    released: dict[Seat, int] = field(default_factory=dict)
    opened: dict[Seat, int] = field(default_factory=dict)  # pieces the claimant could open
    recovered: int = 0
    named: tuple[Seat, ...] = ()  # whom the claimant's wallet caught

    @property
    def outcome(self) -> str:
        if self.recovered:
            return "recovered"
        if self.released:
            return "released"
        return "vetoed" if self.vetoed else "open"

    def to_map(self, federation: int) -> dict[str, Any]:
        """A row of the table of claims."""
        return {
            "federation": federation, "case": self.case, "claim": self.number, "by": self.by,
            "outcome": self.outcome, "made": self.made, "approvals": len(self.approved),
            "deceived": len(self.deceived), "vetoed": self.vetoed,
            "released": len(self.released), "recovered": self.recovered,
            "took": self.recovered - self.made if self.recovered else None,
        }  # fmt: skip


class Truth:
    """The record of one federation. `now` gives virtual ms since the start."""

    def __init__(
        self, codec: Codec, guardians: int, threshold: int, now: Callable[[], int]
    ) -> None:
        self.codec = codec
        self.guardians = guardians
        self.threshold = threshold
        self.now = now
        self.charged: dict[Seat, str] = {}  # who may do anything, and why
        self.skewed: dict[Seat, int] = {}  # by how many ms a clock was off at most
        self.lost: dict[Seat, str] = {}  # who will not answer again
        self.claims: dict[Id, Claimed] = {}
        self.durable: dict[Seat, dict[Place, Id]] = {seat: {} for seat in range(guardians)}
        self.had: dict[tuple[Seat, Id], int] = {}  # when a seat had an entry of a vote or veto
        self.votes: dict[Id, tuple[Seat, Id]] = {}  # vote: whose, on which claim
        self.vetoes: dict[tuple[Seat, Id], int] = {}  # seat, claim: since when durable
        self.signed: dict[tuple[Seat, Id], int] = {}  # approvals by keys that lie
        self.off: dict[Seat, list[list[int]]] = {seat: [] for seat in range(guardians)}
        self.goals: dict[str, int] = {}
        self.events: list[tuple[int, str]] = []
        self.violations: list[Violation] = []
        self.proven: dict[Seat, int] = {}
        self.keys: dict[Seat, bytes] = {}  # identities
        self.messages = 0
        self.troubles = 0  # faults that struck
        self.canaries: list[bytes] = []
        self.last_fault = 0

    # --- telling ----------------------------------------------------------------------

    def tell(self, text: str) -> None:
        """Keep an event to be shown to people."""
        if len(self.events) < EVENTS_MAX:
            self.events.append((self.now(), text))

    def meet(self, goal: str) -> None:
        """A goal of `sometimes` was met."""
        self.goals[goal] = self.goals.get(goal, 0) + 1

    def violate(self, id_: str, statement: str, *about: str) -> None:
        if len(self.violations) >= VIOLATIONS_MAX:
            return
        shown = tuple(
            f"{moment(at)} {text}"
            for at, text in self.events
            if not about or any(word in text for word in about)
        )
        self.violations.append(Violation(id_, statement, self.now(), shown[-12:]))

    def charge(self, seat: Seat, why: str) -> None:
        """Count a guardian against the Byzantine budget: nothing it does proves anything."""
        self.charged.setdefault(seat, why)

    def honest(self, seat: Seat) -> bool:
        return seat not in self.charged

    # --- people -----------------------------------------------------------------------

    def claimed(self, claimed: Claimed) -> None:
        self.claims[claimed.claim] = claimed
        self.tell(f"{claimed.by} claims, claim {claimed.number}")

    def approves(self, seat: Seat, claim: Id, *, deceived: bool, knowing: bool) -> None:
        """A person is about to approve; from now on their approval may count."""
        one = self.claims.get(claim)
        if one is None:
            return
        one.approved.setdefault(seat, self.now())
        if deceived:
            one.deceived.setdefault(seat, self.now())
            self.meet("deceived")
        if knowing:
            one.knowing.setdefault(seat, self.now())

    def approved(self, seat: Seat, claim: Id) -> None:
        if claim in self.claims:
            self.claims[claim].voted.setdefault(seat, self.now())
            self.tell(f"guardian {seat} approves claim {self.claims[claim].number}")

    def takes_back(self, seat: Seat, claim: Id) -> None:
        """The node refused, so there was no approval."""
        one = self.claims.get(claim)
        if one is None:
            return
        for known in (one.approved, one.deceived, one.knowing):
            known.pop(seat, None)

    def vetoed(self, claim: Id) -> None:
        one = self.claims.get(claim)
        if one is not None and not one.vetoed:
            one.vetoed = self.now()
            self.tell(f"owner vetoes claim {one.number}")

    # --- machines ---------------------------------------------------------------------

    def went_off(self, seat: Seat, why: str) -> None:
        self.off[seat].append([self.now(), 0])
        self.tell(f"guardian {seat} down: {why}")

    def came_back(self, seat: Seat) -> None:
        if self.off[seat] and not self.off[seat][-1][1]:
            self.off[seat][-1][1] = self.now()
            self.tell(f"guardian {seat} back")

    def time_off(self, seat: Seat, since: int) -> int:
        """Milliseconds that a guardian's node was down after a moment."""
        total = 0
        for begin, end in self.off[seat]:
            total += max(0, (end or self.now()) - max(begin, since))
        return total

    def kept(self, seat: Seat, entries: Sequence[PutEntry]) -> list[Verified]:
        """Note what has become durable at a seat; the entries, read."""
        read = []
        for put in entries:
            entry = self.codec.read(put.raw)
            read.append(entry)
            if put.place.seat == seat:
                self.durable[seat][put.place] = entry.id
            if entry.type == "vote":
                self.had.setdefault((seat, entry.id), self.now())
                self.votes[entry.id] = (place_of(entry).seat, entry.body["claim"])
            elif entry.type == "carry":
                carried = self.codec.read(entry.body["raw"])
                if carried.type == "veto":
                    self.vetoes.setdefault((seat, carried.body["claim"]), self.now())
        return read

    def forget(self, case: int) -> None:
        """Drop what is kept of a finished case, so that memory follows the open ones."""
        for claim in [id_ for id_, one in self.claims.items() if one.case == case]:
            del self.claims[claim]
            for vote in [id_ for id_, (_, about) in self.votes.items() if about == claim]:
                del self.votes[vote]
                for seat in range(self.guardians):
                    self.had.pop((seat, vote), None)
