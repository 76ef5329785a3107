"""A guardian's core: routes every event to the part that decides it, and nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from protocol import messages
from protocol.casework import LATER, Casework
from protocol.chores import TIMER, Chores
from protocol.contract import (
    Core,
    Dial,
    Done,
    DropLink,
    Effect,
    Event,
    Heard,
    Ledger,
    LinkDown,
    LinkUp,
    Message,
    Moment,
    Peer,
    Persist,
    PutRow,
    Received,
    Send,
    Table,
    TimerFired,
    Told,
    Trust,
    Verified,
)
from protocol.custody import Custody, Settings
from protocol.encoding import encode, hash256
from protocol.errors import Malformed
from protocol.federation import Roster, read_signed
from protocol.founding import ROSTER_KEY, Founding
from protocol.gossip import Gossip
from protocol.keys import SealingKey, SigningKey
from protocol.limits import SECOND
from protocol.outbox import Pending
from protocol.service import ERASED_KEY, Service
from protocol.statements import Codec
from protocol.verbs import Verbs

INDEX_KEY: Final = b"index key"
INCARNATION_KEY: Final = b"incarnation"
PATIENCE: Final = 3 * SECOND  # left to the guardian with the higher seat, which dials first


@dataclass(frozen=True)
class Keys:
    """A guardian's secret keys: identity, and the sealing keys, newest first."""

    identity: SigningKey
    sealing: tuple[SealingKey, ...]

    def __repr__(self) -> str:
        return "Keys(…)"


def open_core(ledger: Ledger, me: Verified, keys: Keys | None, settings: Settings) -> Core:
    """Build the core that fits the ledger: founding a federation, or guarding in one.

    `me` is this guardian's own introduction; without `keys` the node is locked, relays, and
    neither signs nor opens anything.
    """
    raw = ledger.get(Table.META, ROSTER_KEY)
    if raw is None:
        return Founding(ledger, me, keys.identity if keys else None)
    signed = read_signed(raw)
    return GuardianCore(ledger, me, keys, settings, signed.roster, raw)


class GuardianCore:
    """One guardian of a live federation."""

    def __init__(
        self,
        ledger: Ledger,
        me: Verified,
        keys: Keys | None,
        settings: Settings,
        roster: Roster,
        signed: bytes,
    ) -> None:
        self.roster = roster
        self.codec = Codec(roster.id)
        own = roster.by_identity(me.by)
        if own is None:
            raise Malformed("this node's keys are not in the roster of its federation")
        self.seat = own.seat
        self._ledger = Pending(ledger)
        self._me = me
        identity = keys.identity if keys else None
        sealing: Sequence[SealingKey] = keys.sealing if keys else ()
        incarnation = int.from_bytes(ledger.get(Table.META, INCARNATION_KEY) or b"", "big")
        self._index_key = ledger.get(Table.META, INDEX_KEY) or b""
        self.gossip = Gossip(self.codec, roster, self.seat, incarnation, identity, self._ledger)
        self.custody = Custody(
            self.codec, roster, self.seat, sealing, self._ledger, settings, self._index_key
        )
        self.casework = Casework(
            self.codec, self.seat, self.gossip, self.custody, sealing, self._ledger
        )
        self.chores = Chores(self._ledger)
        self.service = Service(
            self.codec, identity, self.seat, signed, self.gossip, self.custody, self.casework,
            self.chores, self._ledger,
        )  # fmt: skip
        self.verbs = Verbs(
            self.codec, roster, self.seat, self.gossip, self.custody, self.casework,
            self.service, self._ledger, locked=keys is None,
        )  # fmt: skip
        self._identity = identity
        self._loaded = False

    # --- the contract -----------------------------------------------------------------

    def resume(self, at: Moment) -> Sequence[Effect]:
        out: list[Effect] = []
        self._ledger.out = out
        if not self._index_key:
            self._index_key = hash256("hf/index key", at.seed)
            self.custody.index_key = self._index_key
            out.append(Persist(PutRow(Table.META, INDEX_KEY, self._index_key)))
        if not self._loaded:
            self._loaded = True
            for place, raw in self._ledger.entries():
                entry = self.codec.read(raw)
                self.gossip.load(place, entry)
                self._note(entry)
                self.casework.load(entry, at.now)
        self._connect(out)
        self.gossip.resume(at, out)
        if self._identity is not None:
            self._announce(at, out)
        self.casework.resume(at, out)
        self.casework.carry_anew(at, out)
        self._do_chores(at, out)
        return self._finish(at)

    def handle(self, at: Moment, event: Event) -> Sequence[Effect]:
        out: list[Effect] = []
        self._ledger.out = out
        match event:
            case LinkUp(link, seat):
                if seat is not None:
                    self.gossip.link_up(at, link, seat, out)
            case LinkDown(link):
                self.gossip.link_down(link)
                self.service.link_down(link)
            case Heard(link, entries, check):
                trusted = self.gossip.excluded()
                self._take(at, self.gossip.heard(at, link, entries, check, out), out)
                if self.gossip.excluded() != trusted:
                    self.casework.carry_anew(at, out)
                    self.casework.consider_all(at, out)
            case Received(link, message, examined):
                self._received(at, link, message, examined, out)
            case Told(ticket, command):
                self.verbs.handle(at, ticket, command.verb, command.args, out)
            case TimerFired(timer):
                self._timer(at, timer, out)
            case Done():
                self._done(at, event, out)
        return self._finish(at)

    def _finish(self, at: Moment) -> Sequence[Effect]:
        self.service.tell_followers(at, self._ledger.out)
        return self.service.relay.redirect(self._ledger.out)

    # --- routes -----------------------------------------------------------------------

    def _take(self, at: Moment, entries: Sequence[Verified], out: list[Effect]) -> None:
        if [entry for entry in entries if self._note(entry)]:
            self._connect(out)
        self.casework.fold_all(at, entries, out)

    def _received(
        self, at: Moment, link: int, message: Message, examined: Any, out: list[Effect]
    ) -> None:
        try:
            messages.check(message)
        except Malformed as error:
            out.append(DropLink(link, str(error), their_fault=True))
            return
        match message.kind:
            case "clock":
                self.gossip.clock_heard(link, message, out)
            case "digest":
                self.gossip.digest_heard(link, message.fields["digest"], out)
            case "ping":
                self.gossip.ping_heard(at, link, message, out)
            case "compare":
                self.gossip.compare_asked(link, message, out)
            case "passed" if link in self.gossip.neighbours:
                self._passed(at, link, message, out)
            case "returned" if link in self.gossip.neighbours:
                self.service.relay.returned(message.fields, out)
            case "join":
                out.append(Send(link, Message("founded", {"signed": self.service.signed})))
            case kind if kind in messages.REQUESTS:
                self.service.handle(at, link, message, out, examined)

    def _passed(self, at: Moment, link: int, message: Message, out: list[Effect]) -> None:
        try:
            guest, request = self.service.relay.guest(link, message.fields)
        except Malformed:
            return  # the wallet's mistake, not that of the neighbour who passed it on
        self.service.handle(at, guest, request, out)

    def _timer(self, at: Moment, timer: str, out: list[Effect]) -> None:
        kind, _, about = timer.partition(":")
        if kind in ("ping", "digest"):
            self.gossip.timer(at, kind, about, out)
            if kind == "ping":
                self.casework.breathe(at, out)
        elif kind == TIMER:
            self._do_chores(at, out)
        elif kind == LATER:
            self.casework.catch_up(at, out)
        elif kind in ("due", "expire"):
            case = self.casework.docket.cases.get(bytes.fromhex(about))
            if case is not None:
                self.casework.consider(at, case, out)

    def _done(self, at: Moment, done: Done, out: list[Effect]) -> None:
        kind = done.id.partition(":")[0]
        if kind == "open":
            self.verbs.opened(at, done, out)
        elif kind == "receive":
            self.service.received(at, done, out)
        elif kind == "code" and done.error is None:
            for claim, code in done.result:
                self.casework.coded(claim, code, out)

    def _do_chores(self, at: Moment, out: list[Effect]) -> None:
        for kind, about in self.chores.due(at.now, out):
            if kind == "claim":
                out.append(Persist(PutRow(Table.CLAIM, about, None)))
            elif kind == "replaced":
                pair = self.custody.deal(about[:32], about[32:])
                if pair is not None and self.casework.is_frozen(about[:32]):
                    self.chores.add("replaced", at.now, about, out)  # once more in 30 days
                elif pair is not None:
                    self.custody.drop_deal(about[:32], *pair, out)
            elif kind == "version" and self.casework.is_frozen(about[:32]):
                self.chores.add("version", at.now, about, out)  # once more in 30 days
            elif kind == "version":
                self.custody.drop_version(about[32:64], about[64:], out)
            elif kind == "rehearsal":
                self.custody.erase(about, out)
            elif kind == "leave":
                self._leave(at, about, out)
        self.chores.set_timer(out)

    def _leave(self, at: Moment, vault_id: bytes, out: list[Effect]) -> None:
        row = self.custody.row(vault_id)
        if row is None or not row.leaving or row.leaving > at.now:
            return
        if self.casework.is_frozen(vault_id) or self._identity is None:
            self.chores.add("leave", at.now, vault_id, out)  # once more in a week
            return
        self.custody.erase(vault_id, out)
        receipt = self.codec.sign(
            self._identity, "erased", {"vault": vault_id, "seat": self.seat, "at": at.now}
        )
        kept = encode({"owner": row.owner, "receipt": receipt.raw})
        out.append(Persist(PutRow(Table.META, ERASED_KEY + vault_id, kept)))

    # --- addresses --------------------------------------------------------------------

    def _note(self, entry: Verified) -> bool:
        """Take the newest address of a guardian; true if it is new."""
        if entry.type != "address" or not entry.known:
            return False
        seat = entry.body["seat"]
        held = self.service.addresses.get(seat)
        if held is not None and held.body["number"] >= entry.body["number"]:
            return False
        self.service.addresses[seat] = entry
        return True

    def _reachable(self) -> list[_At]:
        """Every guardian with the address and transport key of now."""
        result = []
        for guardian in self.roster.guardians:
            entry = self.service.addresses.get(guardian.seat)
            source = entry.body if entry is not None else guardian.__dict__
            result.append(
                _At(guardian.seat, source["address"], source["transport"], source["certificate"])
            )
        return result

    def _connect(self, out: list[Effect]) -> None:
        """Accept the certificates of now, and keep a link to everyone who can be dialled."""
        places = self._reachable()
        out.append(Trust(tuple((at.seat, at.transport, at.certificate) for at in places)))
        peers = (
            Peer(at.seat, at.address, at.transport, 0 if at.seat < self.seat else PATIENCE)
            for at in places
            if at.seat != self.seat and at.address
        )
        out.append(Dial(tuple(peers)))

    def _announce(self, at: Moment, out: list[Effect]) -> None:
        """Say where we listen now, if the federation knows us elsewhere."""
        known = next(place for place in self._reachable() if place.seat == self.seat)
        body = self._me.body
        now = _At(self.seat, body["address"], body["transport"], body["certificate"])
        if known == now:
            return
        held = self.service.addresses.get(self.seat)
        fields = {
            "number": held.body["number"] + 1 if held is not None else 1,
            "address": now.address,
            "transport": now.transport,
            "certificate": now.certificate,
        }
        self._take(at, [self.gossip.author(at, "address", fields, out)], out)


@dataclass(frozen=True)
class _At:
    seat: int
    address: str
    transport: bytes
    certificate: bytes
