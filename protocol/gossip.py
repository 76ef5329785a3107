"""Authored logs, spread by direct push, directed relay and clock digests.

Every guardian writes what the federation must know into a log of its own; an entry is
signed once and travels as the same bytes everywhere. A node keeps one number per log and
neighbour: how far that neighbour is known to be, or was sent. So a slow neighbour costs a
few integers and loses nothing.

1. Own entries go to every neighbour at once.
2. An entry of an author to whom a neighbour has no link is relayed by the first two
   guardians in an order that all compute alike.
3. Digests of the clock find whatever is still missing; the difference is streamed.
4. Two valid entries at one place prove that their author lied. The proof is an entry of its
   own; the author's further entries are not taken and its votes do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from protocol.contract import (
    Changed,
    DropLink,
    Effect,
    Ledger,
    LinkId,
    Message,
    Moment,
    Notify,
    Persist,
    Place,
    PutEntry,
    Seat,
    Send,
    SetTimer,
    Stream,
    Verified,
)
from protocol.encoding import encode, hash256
from protocol.errors import HoldfastError, Locked
from protocol.federation import Roster
from protocol.keys import SigningKey
from protocol.limits import MINUTE, SECOND
from protocol.statements import ENTRIES, ENTRY_BYTES_MAX, NOTHING, Codec, is_entry, place_of

RELAYS: Final = 2  # of which both must fail before the digests have to find it
PING_EVERY: Final = 15 * SECOND  # also finds a dead link within a minute
DIGEST_AFTER: Final = (150, 450)  # ms after news, when direct pushes have arrived
COMPARE_WINDOW: Final = 64  # entries laid side by side when two logs disagree
COMPARES_PER_PING: Final = 8  # so that a liar cannot make us read our store all day
INCARNATIONS_MAX: Final = 16  # one for each restore from a backup; clocks must stay small
SKEW_MAX: Final = 5 * MINUTE  # of a neighbour's clock that is still believed

Log = tuple[Seat, int]  # whose log, which incarnation


@dataclass
class Neighbour:
    """What is known of the other end of a link between guardians."""

    seat: Seat
    has: dict[Log, int] = field(default_factory=dict)
    synced: bool = False  # its clock has come, so what it lacks is known
    linked: frozenset[Seat] | None = None  # whom it says it is linked to
    skew: int | None = None  # its clock minus ours, in milliseconds
    compares: int = 0


class Gossip:
    """The logs of all guardians, and what each neighbour has of them."""

    def __init__(
        self,
        codec: Codec,
        roster: Roster,
        seat: Seat,
        incarnation: int,
        key: SigningKey | None,
        ledger: Ledger,
    ) -> None:
        self.codec = codec
        self.roster = roster
        self._authors = {guardian.seat: guardian.identity for guardian in roster.guardians}
        self.seat = seat
        self.incarnation = incarnation
        self._key = key
        self._ledger = ledger
        self.heads: dict[Log, tuple[int, bytes]] = {}
        self.proven: dict[Seat, Verified] = {}  # misbehaviour, by the seat accused
        self.suspects: dict[Seat, tuple[bytes, bytes]] = {}  # forks not yet written down
        self.neighbours: dict[LinkId, Neighbour] = {}
        self._comparing: dict[int, bool] = {}  # digests that are to be sent after news

    # --- own log ----------------------------------------------------------------------

    def load(self, place: Place, entry: Verified) -> None:
        """Take an entry from our own ledger, at start."""
        self.heads[place.seat, place.incarnation] = (place.seq, entry.id)

    def author(self, at: Moment, type_: str, fields: dict[str, Any], out: list[Effect]) -> Verified:
        """Write an entry into our own log and send it to every neighbour."""
        if self._key is None:
            raise Locked(
                "this node is locked and cannot sign",
                hint="unlock it: holdfast guardian unlock",
            )
        log = (self.seat, self.incarnation)
        seq, prev = self.heads.get(log, (0, NOTHING))
        entry = self.codec.sign(
            self._key,
            type_,
            {
                "epoch": self.roster.epoch,
                "seat": self.seat,
                "incarnation": self.incarnation,
                "seq": seq + 1,
                "prev": prev,
                **fields,
            },
        )
        self._append(place_of(entry), entry, out)
        for link, neighbour in self.neighbours.items():
            self._push(link, neighbour, log, out)
        self._news(at, out)
        return entry

    def _append(self, place: Place, entry: Verified, out: list[Effect]) -> None:
        self.heads[place.seat, place.incarnation] = (place.seq, entry.id)
        out.append(Persist(PutEntry(place, entry.raw)))

    # --- links ------------------------------------------------------------------------

    def link_up(self, at: Moment, link: LinkId, seat: Seat, out: list[Effect]) -> None:
        self.neighbours[link] = Neighbour(seat)
        out.append(Send(link, self._clock(reply=False)))
        self._ping(at, [link], out)
        # The others learn to whom we are linked now, which decides who relays to whom.
        self._ping(at, [other for other in self.neighbours if other != link], out)

    def link_down(self, link: LinkId) -> None:
        self.neighbours.pop(link, None)

    def linked_seats(self) -> list[Seat]:
        return sorted({neighbour.seat for neighbour in self.neighbours.values()})

    def resume(self, at: Moment, out: list[Effect]) -> None:
        out.append(SetTimer("ping", at.now + PING_EVERY))

    # --- entries that come in ---------------------------------------------------------

    def heard(
        self, at: Moment, link: LinkId, entries: Sequence[Verified], check: bool, out: list[Effect]
    ) -> list[Verified]:
        """Take entries from a neighbour; those that are new, in order."""
        neighbour = self.neighbours.get(link)
        if neighbour is None:
            return []
        fresh: list[Verified] = []
        gap = False
        for entry in entries:
            if not self._is_authors(entry):
                reason = "it passed on an entry that its author did not sign"
                out.append(DropLink(link, reason, their_fault=True))
                break
            gap |= self._take(at, link, neighbour, place_of(entry), entry, check, fresh, out)
        if gap:
            out.append(Send(link, self._clock(reply=False)))
        if fresh:
            self._relay(fresh, out)
            self._news(at, out)
        return fresh

    def _is_authors(self, entry: Verified) -> bool:
        """Whether an entry stands in the log of the guardian who signed it."""
        if not (entry.known and entry.type in ENTRIES) and not is_entry(entry.body):
            return False
        return self._authors.get(entry.body["seat"]) == entry.by

    def _take(
        self,
        at: Moment,
        link: LinkId,
        neighbour: Neighbour,
        place: Place,
        entry: Verified,
        check: bool,
        fresh: list[Verified],
        out: list[Effect],
    ) -> bool:
        """Take one entry; true if entries before it are missing."""
        log = (place.seat, place.incarnation)
        if self.is_excluded(place.seat) or place.incarnation >= INCARNATIONS_MAX:
            return False
        seq, head = self.heads.get(log, (0, NOTHING))
        neighbour.has[log] = max(neighbour.has.get(log, 0), place.seq)
        if place.seq <= seq:
            if check:
                self._compare(at, place, entry, out)
            return False
        if place.seq > seq + 1:
            return True
        if entry.body["prev"] != head:
            self._ask_compare(link, neighbour, log, seq, out)
            return False
        self._append(place, entry, out)
        fresh.append(entry)
        return False

    def _relay(self, fresh: Iterable[Verified], out: list[Effect]) -> None:
        logs = {(entry.body["seat"], entry.body["incarnation"]): True for entry in fresh}
        for log in logs:
            for link, neighbour in self.neighbours.items():
                if self._is_relay(log[0], neighbour):
                    self._push(link, neighbour, log, out)

    def _is_relay(self, author: Seat, neighbour: Neighbour) -> bool:
        """Whether we are among the first to relay this author to this neighbour."""
        if neighbour.linked is None or author in neighbour.linked or author == neighbour.seat:
            return False
        able = [self.seat] if author in self.linked_seats() else []
        able += sorted(
            {
                other.seat
                for other in self.neighbours.values()
                if other.linked is not None
                and author in other.linked
                and neighbour.seat in other.linked
            }
        )
        order = sorted(able, key=lambda seat: _rank(author, neighbour.seat, seat))
        return self.seat in order[:RELAYS]

    def _push(self, link: LinkId, neighbour: Neighbour, log: Log, out: list[Effect]) -> None:
        """Send a neighbour what it lacks of a log, if we know what it has."""
        seq, _ = self.heads.get(log, (0, NOTHING))
        has = neighbour.has.get(log, 0)
        if neighbour.synced and has < seq:
            out.append(Stream(link, log[0], log[1], has + 1, seq))
            neighbour.has[log] = seq

    # --- clocks and digests -----------------------------------------------------------

    def _spoken(self) -> list[tuple[Log, tuple[int, bytes]]]:
        """The heads we speak of: those of proven liars could never be made to agree."""
        return [
            (log, self.heads[log]) for log in sorted(self.heads) if not self.is_excluded(log[0])
        ]

    def _clock(self, *, reply: bool) -> Message:
        rows = [[log[0], log[1], seq, head[:8]] for log, (seq, head) in self._spoken()]
        return Message("clock", {"heads": rows, "reply": reply})

    def digest(self) -> bytes:
        rows = [[log[0], log[1], seq, head] for log, (seq, head) in self._spoken()]
        return hash256("hf/clock", encode(rows))[:16]

    def clock_heard(self, link: LinkId, message: Message, out: list[Effect]) -> None:
        """A neighbour's clock: stream what it lacks; it does the same with ours."""
        neighbour = self.neighbours.get(link)
        if neighbour is None:
            return
        theirs: dict[Log, tuple[int, bytes]] = {}
        for seat, incarnation, seq, head in message.fields["heads"]:
            theirs[seat, incarnation] = (seq, head)
        neighbour.synced = True
        neighbour.has = {log: seq for log, (seq, _) in theirs.items()}
        for log, (seq, head) in theirs.items():
            mine, own_head = self.heads.get(log, (0, NOTHING))
            if seq == mine and own_head[:8] != head:
                self._side_by_side(link, neighbour, log, seq, out)
        for log, _ in self._spoken():
            self._push(link, neighbour, log, out)
        if message.fields["reply"]:
            # A reply asks for none, so that two clocks do not answer each other for ever.
            out.append(Send(link, self._clock(reply=False)))

    def digest_heard(self, link: LinkId, digest: bytes, out: list[Effect]) -> None:
        if link in self.neighbours and digest != self.digest():
            out.append(Send(link, self._clock(reply=True)))

    def ping_heard(self, at: Moment, link: LinkId, message: Message, out: list[Effect]) -> None:
        neighbour = self.neighbours.get(link)
        if neighbour is None:
            return
        neighbour.skew = message.fields["now"] - at.now
        neighbour.linked = frozenset(message.fields["linked"])
        self.digest_heard(link, message.fields["digest"], out)

    def _ping(self, at: Moment, links: Sequence[LinkId], out: list[Effect]) -> None:
        fields = {"now": at.now, "linked": self.linked_seats(), "digest": self.digest()}
        out.extend(Send(link, Message("ping", fields)) for link in links)

    def _news(self, at: Moment, out: list[Effect]) -> None:
        """Compare digests soon, unless that is to happen anyway: steady news must not put
        it off for ever."""
        for turn, delay in enumerate(DIGEST_AFTER):
            if turn not in self._comparing:
                self._comparing[turn] = True
                out.append(SetTimer(f"digest:{turn}", at.now + delay))

    def timer(self, at: Moment, name: str, about: str, out: list[Effect]) -> None:
        if name == "ping":
            for neighbour in self.neighbours.values():
                neighbour.compares = 0
            self._ping(at, list(self.neighbours), out)
            out.append(SetTimer("ping", at.now + PING_EVERY))
            return
        self._comparing.pop(int(about), None)
        if self.neighbours:
            links = sorted(self.neighbours)
            link = links[int.from_bytes(at.seed[:4], "big") % len(links)]
            out.append(Send(link, Message("digest", {"digest": self.digest()})))

    def skew(self) -> int | None:
        """Our neighbours' median clock minus ours, in ms; None when too few are linked."""
        by_seat = {
            neighbour.seat: neighbour.skew
            for neighbour in self.neighbours.values()
            if neighbour.skew is not None
        }
        known = sorted(by_seat.values())
        if len(known) < max(1, len(self.roster.guardians) // 2):
            return None
        return known[len(known) // 2]

    # --- misbehaviour -----------------------------------------------------------------

    def is_excluded(self, seat: Seat) -> bool:
        """Whether this guardian is proven to have signed what one key may not."""
        return seat in self.proven or seat in self.suspects

    def excluded(self) -> list[Seat]:
        if not (self.proven or self.suspects):
            return []
        return [seat for seat in self.roster.seats if self.is_excluded(seat)]

    def _side_by_side(
        self, link: LinkId, neighbour: Neighbour, log: Log, upto: int, out: list[Effect]
    ) -> None:
        if neighbour.compares < COMPARES_PER_PING:
            neighbour.compares += 1
            first = max(1, upto - COMPARE_WINDOW + 1)
            out.append(Stream(link, log[0], log[1], first, upto, check=True))

    def _ask_compare(
        self, link: LinkId, neighbour: Neighbour, log: Log, upto: int, out: list[Effect]
    ) -> None:
        if neighbour.compares < COMPARES_PER_PING and upto > 0:
            neighbour.compares += 1
            fields = {"seat": log[0], "incarnation": log[1], "upto": upto}
            out.append(Send(link, Message("compare", fields)))

    def compare_asked(self, link: LinkId, message: Message, out: list[Effect]) -> None:
        neighbour = self.neighbours.get(link)
        log = (message.fields["seat"], message.fields["incarnation"])
        seq, _ = self.heads.get(log, (0, NOTHING))
        upto = min(seq, message.fields["upto"])
        if neighbour is not None and upto > 0:
            self._side_by_side(link, neighbour, log, upto, out)

    def _compare(self, at: Moment, place: Place, entry: Verified, out: list[Effect]) -> None:
        raw = self._ledger.entry(place)
        if raw is not None and self.codec.read(raw).id != entry.id:
            self.accuse(at, place.seat, raw, entry.raw, out)

    def accuse(
        self, at: Moment, seat: Seat, first: bytes, second: bytes, out: list[Effect]
    ) -> None:
        """Write down that a guardian signed two statements which one key may not both sign."""
        if self.is_excluded(seat) or seat == self.seat:
            return
        self.suspects[seat] = (first, second)
        accused = self.roster.at(seat)
        # Two accusations at one place are too large to be proven with; whoever is shown both
        # shuts their author out by itself.
        fitting = max(len(first), len(second)) <= ENTRY_BYTES_MAX
        if self._key is not None and accused is not None and fitting:
            fields = {"accused": accused.identity, "first": first, "second": second}
            self.believe(self.author(at, "misbehaviour", fields, out))
        out.append(Notify("misbehaviour"))
        out.append(Changed("federation"))

    def believe(self, entry: Verified) -> bool:
        """Check a proof of misbehaviour that anyone wrote; true if it proves a guardian."""
        try:
            first = self.codec.verify(entry.body["first"])
            second = self.codec.verify(entry.body["second"])
        except HoldfastError:
            return False
        accused = self.roster.by_identity(entry.body["accused"])
        if accused is None or first.by != accused.identity or not conflict(first, second):
            return False
        self.suspects.pop(accused.seat, None)
        self.proven.setdefault(accused.seat, entry)
        return True


def _rank(author: Seat, to: Seat, relay: Seat) -> bytes:
    """Rendezvous order: everyone computes the same, and no one relays for everybody."""
    return hash256("hf/relay", bytes((author, to, relay)))


def conflict(first: Verified, second: Verified) -> bool:
    """Whether one key may not sign both: two entries at one place, or two votes of one
    revision on one claim."""
    if first.by != second.by or first.id == second.id:
        return False
    one, other = first.body, second.body
    if "seq" not in one or "seq" not in other:
        return False
    if place_of(first) == place_of(second):
        return True
    are_votes = first.type == second.type == "vote" and first.known and second.known
    return are_votes and (one["claim"], one["revision"]) == (
        other["claim"],
        other["revision"],
    )
