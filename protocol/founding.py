"""Founding a federation: from introductions to a roster that all have signed.

Nobody need be online together. The organiser's node hands the draft to the others and
gathers signatures; a guardian that only dials out calls the organiser. What is signed is
the draft's hash, so a draft that changes after a signature needs that signature anew. With
the last signature the roster is live and every node becomes a guardian's.

    introductions -> DRAFT (organiser) -> shown, compared by voice -> accepted -> LIVE
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from protocol import messages
from protocol.contract import (
    Answer,
    Changed,
    Dial,
    DropLink,
    Effect,
    Event,
    Ledger,
    LinkDown,
    LinkUp,
    Message,
    Moment,
    Notify,
    Peer,
    Persist,
    PutRow,
    Rebuild,
    Received,
    Send,
    SetTimer,
    Table,
    TimerFired,
    Told,
    Trust,
    Verified,
)
from protocol.encoding import decode, encode, hash256
from protocol.errors import HoldfastError, Locked, Malformed, Refused
from protocol.federation import (
    Roster,
    Signed,
    draft,
    introduction_text,
    read_introduction,
    read_roster,
    read_signed,
    sign_roster,
)
from protocol.keys import SigningKey
from protocol.limits import SECOND
from protocol.outbox import Pending
from protocol.statements import Codec

ROSTER_KEY: Final = b"roster"
FEDERATION_KEY: Final = b"federation"
_DRAFT: Final = b"founding/draft"
_ORGANISER: Final = b"founding/organiser"  # the introduction to call, or empty when it is us
_ACCEPTED: Final = b"founding/accepted"  # id of the draft we signed, and our signature
_SIGNATURES: Final = b"founding/signatures"
_AGAIN: Final = 3 * SECOND  # how often the organiser asks on a standing link


class Founding:
    """A node that is not in a federation yet."""

    def __init__(self, ledger: Ledger, me: Verified, key: SigningKey | None) -> None:
        self._ledger = Pending(ledger)
        self._me = me
        self._key = key
        self._links: dict[int, bool] = {}
        self._draft = self._read_draft()
        self._verbs: dict[str, Callable[[Moment, Mapping[str, Any], list[Effect]], Any]] = {
            "status": self._status,
            "introduce": lambda at, args, out: {"introduction": introduction_text(self._me)},
            "draft": self._make,
            "join": self._join,
            "drafted": self._show,
            "accept": self._accept,
        }

    def resume(self, at: Moment) -> Sequence[Effect]:
        out: list[Effect] = []
        self._ledger.out = out
        self._connect(out)
        if self._draft is not None:
            out.append(SetTimer("founding", at.now + _AGAIN))
            self._complete(out)
        return out

    def handle(self, at: Moment, event: Event) -> Sequence[Effect]:
        out: list[Effect] = []
        self._ledger.out = out
        match event:
            case LinkUp(link, _):
                self._links[link] = True
                self._greet(link, out)
            case LinkDown(link):
                self._links.pop(link, None)
            case Received(link, message):
                self._received(at, link, message, out)
            case Told(ticket, command):
                self._told(at, ticket, command.verb, command.args, out)
            case TimerFired("founding"):
                for link in self._links:
                    self._greet(link, out)
                out.append(SetTimer("founding", at.now + _AGAIN))
        return out

    def _told(
        self, at: Moment, ticket: int, verb: str, args: Mapping[str, Any], out: list[Effect]
    ) -> None:
        mark = len(out)
        try:
            if verb not in self._verbs:
                raise Refused(
                    "this node is not in a federation yet",
                    hint="exchange introductions, then holdfast guardian draft or accept",
                )
            answer = self._verbs[verb](at, args, out)
            out.append(Answer(ticket, answer))
        except HoldfastError as error:
            del out[mark:]
            out.append(Answer(ticket, refusal=error))

    # --- state ------------------------------------------------------------------------

    def _read_draft(self) -> Roster | None:
        raw = self._ledger.get(Table.META, _DRAFT)
        return read_roster(raw) if raw is not None else None

    @property
    def _is_organiser(self) -> bool:
        return self._ledger.get(Table.META, _ORGANISER) == b""

    def _signatures(self) -> dict[int, tuple[bytes, int]]:
        """Signatures by seat, and when they came."""
        raw = self._ledger.get(Table.META, _SIGNATURES)
        rows = decode(raw, limit=8192) if raw is not None else []
        return {seat: (signature, at) for seat, signature, at in rows}

    def _put(self, key: bytes, value: bytes | None, out: list[Effect]) -> None:
        out.append(Persist(PutRow(Table.META, key, value)))

    def _keep_signature(self, seat: int, signature: bytes, now: int, out: list[Effect]) -> None:
        kept = self._signatures()
        kept[seat] = (signature, now)
        rows = [[number, *kept[number]] for number in sorted(kept)]
        self._put(_SIGNATURES, encode(rows), out)
        out.append(Changed("founding"))

    # --- the organiser ----------------------------------------------------------------

    def _make(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        if self._signatures() and not args.get("discard"):
            raise Refused(
                f"{len(self._signatures())} guardians have signed the draft already, and "
                "changing it makes their signatures void",
                hint="draft once more with --discard, and let all compare the phrase again",
            )
        introductions = [read_introduction(line) for line in args["introductions"]]
        if all(one.by != self._me.by for one in introductions):
            introductions.insert(0, self._me)
        made = draft(
            args["name"],
            args["threshold"],
            introductions,
            now=at.now,
            nonce=hash256("hf/nonce", at.seed)[:16],
            quorum=args.get("quorum"),
            **{key: args[key] for key in ("waiting_default", "waiting_floor") if key in args},
        )
        self._draft = made
        self._put(_DRAFT, made.body, out)
        self._put(_ORGANISER, b"", out)
        self._put(_SIGNATURES, None, out)
        self._put(_ACCEPTED, None, out)
        self._connect(out)
        for link in self._links:
            self._greet(link, out)
        out.append(SetTimer("founding", at.now + _AGAIN))
        return self._view()

    def _connect(self, out: list[Effect]) -> None:
        """Trust the draft's certificates; as the organiser, call everyone who can be called."""
        peers: list[Peer] = []
        if self._draft is not None:
            out.append(
                Trust(tuple((g.seat, g.transport, g.certificate) for g in self._draft.guardians))
            )
            if self._is_organiser:
                peers = [
                    Peer(None, guardian.address, guardian.transport)
                    for guardian in self._draft.guardians
                    if guardian.address and guardian.identity != self._me.by
                ]
        organiser = self._ledger.get(Table.META, _ORGANISER)
        if organiser:
            one = Codec().read(organiser)
            peers = [Peer(None, one.body["address"], one.body["transport"])]
        out.append(Dial(tuple(peers)))

    # --- a guardian -------------------------------------------------------------------

    def _join(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        """Call an organiser, for a guardian that can only dial out."""
        one = read_introduction(args["organiser"])
        if not one.body["address"]:
            raise Refused(f"{one.body['name']} cannot be called: their node only dials out")
        if self._is_organiser:
            raise Refused("this node organises a draft of its own")
        self._put(_ORGANISER, one.raw, out)
        self._connect(out)
        return {"calling": one.body["name"], "address": one.body["address"]}

    def _show(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        if self._draft is None:
            raise Refused(
                "no draft has arrived at this node yet",
                hint="keep the node running; the organiser's node hands the draft out. If this "
                "node can only dial out, say whom to call: holdfast guardian accept --call LINE",
            )
        return self._view()

    def _accept(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        self._show(at, args, out)
        made = self._draft
        assert made is not None
        if args["draft"] != made.id:
            raise Refused("the draft has changed since you looked at it; compare the phrase again")
        if self._key is None:
            raise Locked("this node is locked and cannot sign", hint="holdfast guardian unlock")
        own = made.by_identity(self._me.by)
        assert own is not None
        signature = sign_roster(self._key, made).raw[-64:]
        self._put(_ACCEPTED, encode([made.id, signature]), out)
        if self._is_organiser:
            self._keep_signature(own.seat, signature, at.now, out)
            self._complete(out)
        for link in self._links:
            self._greet(link, out)
        return self._view()

    # --- messages ---------------------------------------------------------------------

    def _greet(self, link: int, out: list[Effect]) -> None:
        """Say on a link what the other side may lack: the draft, our signature, ourselves."""
        if self._is_organiser and self._draft is not None:
            out.append(Send(link, Message("draft", {"body": self._draft.body})))
            return
        out.append(Send(link, Message("join", {"introduction": self._me.raw})))
        accepted = self._ledger.get(Table.META, _ACCEPTED)
        if accepted is not None:
            id_, signature = decode(accepted, limit=200)
            fields = {"draft": id_, "by": self._me.by, "signature": signature}
            out.append(Send(link, Message("signature", fields)))

    def _received(self, at: Moment, link: int, message: Message, out: list[Effect]) -> None:
        try:
            messages.check(message)
            match message.kind:
                case "draft":
                    self._take_draft(at, message.fields["body"], out)
                    self._greet(link, out)
                case "signature" if self._is_organiser:
                    self._take_signature(at, message.fields, out)
                case "founded":
                    self._take_founded(message.fields["signed"], out)
                case kind if kind in messages.REQUESTS:
                    error = Refused("this guardian is not in a federation yet")
                    out.append(messages.refusal(link, message.fields["request"], error))
        except HoldfastError as error:
            out.append(DropLink(link, str(error), their_fault=True))

    def _take_draft(self, at: Moment, body: bytes, out: list[Effect]) -> None:
        made = read_roster(body)
        if made.by_identity(self._me.by) is None or self._is_organiser:
            return  # a draft of others; it is no business of ours
        self._check_own_seat(made)
        if self._draft is None or self._draft.id != made.id:
            self._draft = made
            self._put(_DRAFT, made.body, out)
            self._connect(out)
            out.append(SetTimer("founding", at.now + _AGAIN))
            out.append(Notify("draft"))
            out.append(Changed("founding"))

    def _check_own_seat(self, made: Roster) -> None:
        own = made.by_identity(self._me.by)
        assert own is not None
        for key in ("sealing", "transport", "certificate"):
            if getattr(own, key) != self._me.body[key]:
                raise Malformed("a draft names other keys for this guardian than its own")

    def _take_signature(self, at: Moment, fields: Mapping[str, Any], out: list[Effect]) -> None:
        made = self._draft
        guardian = made.by_identity(fields["by"]) if made is not None else None
        if made is None or guardian is None or fields["draft"] != made.id:
            return  # a signature of an earlier draft counts for nothing
        if guardian.seat in self._signatures():
            return
        Codec(made.id).assemble("roster", fields["by"], {"body": made.body}, fields["signature"])
        self._keep_signature(guardian.seat, fields["signature"], at.now, out)
        self._complete(out)

    def _complete(self, out: list[Effect]) -> None:
        """With the last signature the federation is live."""
        made, kept = self._draft, self._signatures()
        if made is None or not self._is_organiser or len(kept) < len(made.guardians):
            return
        signed = Signed(made, tuple(kept[seat][0] for seat in made.seats))
        self._found(signed, out)
        for link in self._links:
            out.append(Send(link, Message("founded", {"signed": signed.to_bytes()})))
        out.append(Rebuild())

    def _take_founded(self, raw: bytes, out: list[Effect]) -> None:
        signed = read_signed(raw)
        accepted = self._ledger.get(Table.META, _ACCEPTED)
        if signed.roster.by_identity(self._me.by) is None or accepted is None:
            return
        if decode(accepted, limit=200)[0] != signed.roster.id:
            return  # all have signed, we among them, but not what we accepted last: impossible
        self._found(signed, out)
        out.append(Rebuild())

    def _found(self, signed: Signed, out: list[Effect]) -> None:
        self._put(ROSTER_KEY, signed.to_bytes(), out)
        self._put(FEDERATION_KEY, signed.roster.id, out)

    # --- what people see --------------------------------------------------------------

    def _status(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        view = {"phase": "founding", "me": self._me.body["name"], "locked": self._key is None}
        return {**view, "draft": self._view() if self._draft is not None else None}

    def _view(self) -> dict[str, Any]:
        made = self._draft
        assert made is not None
        kept = self._signatures()
        accepted = self._ledger.get(Table.META, _ACCEPTED)
        mine = accepted is not None and decode(accepted, limit=200)[0] == made.id
        return {
            "id": made.id,
            "name": made.name,
            "threshold": made.threshold,
            "phrase": made.phrase,
            "created": made.created,
            "organiser": self._is_organiser,
            "accepted": mine,
            "waiting_default": made.bounds.waiting_default,
            "guardians": [
                {
                    "name": guardian.name,
                    "address": guardian.address,
                    "contact": guardian.contact,
                    "signed": guardian.seat in kept,
                    "signed_at": kept[guardian.seat][1] if guardian.seat in kept else 0,
                }
                for guardian in made.guardians
            ],
        }
