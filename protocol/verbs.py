"""What the person at a guardian's node may ask for: open, show, approve, reject, ask, …

Each verb answers with plain values that a terminal or a page can show, or refuses with a
sentence. Approving a case takes the code, typed as the person who stands there reads it
from their own screen; no answer of this module shows a code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from protocol import cases
from protocol.cases import Case
from protocol.casework import Casework
from protocol.contract import (
    Answer,
    Done,
    Effect,
    Id,
    Ledger,
    Moment,
    Persist,
    PutRow,
    Run,
    Stretch,
    Table,
    Verified,
)
from protocol.custody import Custody, DealRow
from protocol.encoding import decode
from protocol.errors import HoldfastError, NotYet, Refused
from protocol.federation import Endpoint, Roster, invite
from protocol.gossip import Gossip
from protocol.limits import TEXT_CHARS_MAX
from protocol.sealing import Cost, stretch
from protocol.service import Service
from protocol.statements import NOTHING, Codec
from protocol.vault import Label

Alike = tuple[int, Id, Label, DealRow]  # as `Custody.like` finds them

HOW: Final = ("in person", "by video", "other")
CANDIDATES_MAX: Final = 16  # claims that say they have one code; each costs 0.06 s to check
REHEARSED_KEY: Final = b"rehearsed"


def codes(job: Stretch, cost: Cost = Cost.INTERACTIVE) -> list[tuple[Id, str]]:
    """The claims and their codes. Takes 0.06 s for each, so it runs beside the core."""
    return [
        (claim, cases.claim_code(stretch(claim, cases.CODE_SALT, cost))) for claim in job.claims
    ]


class Verbs:
    def __init__(
        self,
        codec: Codec,
        roster: Roster,
        seat: int,
        gossip: Gossip,
        custody: Custody,
        casework: Casework,
        service: Service,
        ledger: Ledger,
        *,
        locked: bool,
    ) -> None:
        self._codec = codec
        self._roster = roster
        self._seat = seat
        self._gossip = gossip
        self._custody = custody
        self._casework = casework
        self._service = service
        self._ledger = ledger
        self._locked = locked
        self._opening: dict[str, tuple[int, str]] = {}
        self._verbs: dict[str, Callable[[Moment, Mapping[str, Any], list[Effect]], Any]] = {
            "status": self._status,
            "claims": self._claims,
            "show": self._show,
            "approve": self._approve,
            "reject": self._reject,
            "ask": self._ask,
            "admit": self._admit,
            "invite": self._invite,
            "rehearsed": self._rehearsed,
            "federation": self._federation,
            "record": self._record,
        }

    def handle(
        self, at: Moment, ticket: int, verb: str, args: Mapping[str, Any], out: list[Effect]
    ) -> None:
        mark = len(out)
        try:
            if verb == "open":
                self._open(ticket, args, out)
                return
            if verb not in self._verbs:
                raise Refused(f"this node does not know how to {verb}")
            out.append(Answer(ticket, self._verbs[verb](at, args, out)))
        except HoldfastError as error:
            assert not any(isinstance(effect, Persist) for effect in out[mark:])
            del out[mark:]
            out.append(Answer(ticket, refusal=error))

    # --- opening a claim --------------------------------------------------------------

    def _open(self, ticket: int, args: Mapping[str, Any], out: list[Effect]) -> None:
        code = cases.read_code(args["code"])
        if code is None:
            raise Refused(
                "a code has fifteen digits, in five groups of three",
                hint="ask the person to read it from their own screen once more",
            )
        waiting = []
        for claim, raw in self._ledger.scan(Table.CLAIM):
            row = decode(raw, limit=32 * 1024)
            if row["code"] == code:
                waiting.append((row["at"], claim))
        # First come first: who overhears a code can send claims that say they have it, but
        # not before the true one was sent.
        candidates = [case.id for case in self._with_code(code)]
        candidates += [claim for _, claim in sorted(waiting)]
        if not candidates:
            raise NotYet(
                "no claim with this code has arrived here",
                hint="check the digits with the person; their device must have been on line "
                "and have reached a guardian",
            )
        id_ = f"open:{ticket}"
        self._opening[id_] = (ticket, code)
        out.append(Run(id_, Stretch(tuple(candidates[:CANDIDATES_MAX]))))

    def opened(self, at: Moment, done: Done, out: list[Effect]) -> None:
        """The candidates' true codes are here: open the one claim whose code was typed."""
        ticket, code = self._opening.pop(done.id, (0, ""))
        if not ticket:
            return
        mark = len(out)
        try:
            if done.error is not None:
                raise NotYet(done.error)
            matching = [claim for claim, true in done.result if true == code]
            case = self._open_one(at, matching, out)
            self._casework.coded(case.id, code, out)
            out.append(Answer(ticket, self.view(case, at.now)))
        except HoldfastError as error:
            del out[mark:]
            out.append(Answer(ticket, refusal=error))

    def _open_one(self, at: Moment, matching: list[Id], out: list[Effect]) -> Case:
        if not matching:
            raise Refused("a claim pretends to have this code and does not; nothing was opened")
        if len(matching) > 1:
            raise Refused(
                f"{len(matching)} claims have this code; somebody may be trying to pass for "
                "the person before you, so neither is opened",
                hint="ask the person to start again on their device, for a new code",
            )
        case = self._casework.docket.cases.get(matching[0])
        if case is not None and case.claim is not None:
            self._casework.carry(at, case.claim, out)
            return case
        raw = self._ledger.get(Table.CLAIM, matching[0])
        if raw is None:
            raise NotYet("the claim is gone from this node; ask the person to send it again")
        claim = self._codec.verify(decode(raw, limit=32 * 1024)["raw"], "claim")
        self._casework.check_claim(claim, at.now)
        self._casework.carry(at, claim, out)
        return self._casework.docket.case(claim.id)

    def _with_code(self, code: str) -> list[Case]:
        return [
            case
            for _, case in sorted(self._casework.docket.cases.items())
            if case.is_open and case.facts is not None and case.facts.code == code
        ]

    # --- looking ----------------------------------------------------------------------

    def _find(self, args: Mapping[str, Any]) -> Case:
        """A case by its code, or by the first letters of its id as `claims` lists it."""
        asked = str(args["case"]).strip()
        code = cases.read_code(asked)
        if code is not None:
            found = self._with_code(code)
        else:
            found = [
                case
                for id_, case in sorted(self._casework.docket.cases.items())
                if case.claim is not None and asked and id_.hex().startswith(asked.lower())
            ]
        if not found:
            raise Refused(
                "no open case is known by that",
                hint="holdfast guardian claims lists them; a new claim is opened by its code",
            )
        if len(found) > 1:
            raise Refused("two open cases have this code or number; they block each other")
        return found[0]

    def _claims(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        listed = []
        for _, case in sorted(self._casework.docket.cases.items()):
            if case.claim is None or case.facts is None or case.claim.body["kind"] == "rehearsal":
                continue
            mine = case.latest().get(self._seat)
            listed.append(
                {
                    **self._summary(case, at.now),
                    "name": self._name(case.claim),
                    "my_vote": mine.body["verdict"] if mine else "",
                }
            )
        return {"cases": listed, "waiting_for_code": self._ledger.count(Table.CLAIM)}

    def _summary(self, case: Case, now: int) -> dict[str, Any]:
        summary = self._service.summary(case, now)
        return {**summary, "case": case.id.hex()[:8], "claim": case.id.hex()}

    def _name(self, claim: Verified) -> str:
        try:
            return self._casework.name_of(claim)
        except HoldfastError as error:
            return f"({error})"

    def _show(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        return self.view(self._find(args), at.now)

    def view(self, case: Case, now: int) -> dict[str, Any]:
        """A case as its guardian sees it, with the vaults under that or a similar name."""
        assert case.claim is not None
        name = self._name(case.claim)
        return {
            **self._summary(case, now),
            "name": name,
            "created": case.claim.body["created"],
            "expires": case.claim.body["expires"],
            "vaults": [] if self._locked else self._vaults(case, name, now),
            "votes": [self._vote_view(vote) for vote in case.latest().values()],
            "released": [self._roster.named(seat) for seat in sorted(case.releases)],
            "vetoes": [
                {"at": veto.body["at"], "words": veto.body["words"]}
                for _, veto in sorted(case.vetoes.items())
            ],
        }

    def _vaults(self, case: Case, name: str, now: int) -> list[dict[str, Any]]:
        try:
            alike = self._custody.like(name)
        except Refused:
            return []
        views = []
        for number, (likeness, vault_id, label, deal, since) in enumerate(
            self._choices(alike), start=1
        ):
            held = self._custody.row(vault_id)
            standing = self._casework.docket.standing(case, deal, self._gossip.excluded(), now)
            views.append(
                {
                    "number": number,
                    "vault": vault_id.hex(),
                    "deal": deal.id.hex(),
                    "name": label.name,
                    "hint": label.hint,
                    "likeness": likeness,
                    "since": held.since if held else 0,
                    "seen": held.seen if held else 0,
                    "replaced": since,
                    "has_card": bool(label.card_count),
                    "approvals": len(standing.approvals),
                    "quorum": standing.policy.quorum,
                    "waiting": standing.policy.waiting,
                }
            )
        return views

    def _vote_view(self, vote: Verified) -> dict[str, Any]:
        body = vote.body
        return {
            "guardian": self._roster.named(body["seat"]),
            "verdict": body["verdict"],
            "how": body["how"],
            "words": body["words"],
            "at": body["at"],
            "vault": body["vault"].hex(),
            "despite_veto": body["veto"] != NOTHING,
        }

    def card(self, args: Mapping[str, Any]) -> tuple[bytes, bytes, int]:
        """Key, root and count of a vault's verification card, to be read from the store."""
        row = self._custody.row(bytes.fromhex(args["vault"]))
        pair = self._custody.deal(bytes.fromhex(args["vault"]), row.deal) if row else None
        if pair is None:
            raise Refused("this guardian keeps nothing of that vault")
        label = self._custody.label(pair[1])
        if not label.card_count:
            raise Refused("the member left no verification card for this vault")
        return label.card_key, label.card_root, label.card_count

    # --- voting -----------------------------------------------------------------------

    def _approve(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        code = cases.read_code(str(args["code"]))
        if code is None:
            raise Refused("approving takes the fifteen digits that the person reads to you")
        case = self._find({"case": code})
        if args["how"] not in HOW:
            raise Refused(f"say how you checked who it is: {', '.join(HOW)}")
        if args["how"] == "other" and not args.get("words"):
            raise Refused("say in words how you checked who it is")
        assert case.claim is not None
        vault_id, deal = self._choose(case, args)
        veto = self._veto_named(case, vault_id, bool(args.get("despite_veto")))
        words = _words(args)
        self._casework.vote(at, case, vault_id, deal.id, "approve", args["how"], words, veto, out)
        return self.view(case, at.now)

    def _choose(self, case: Case, args: Mapping[str, Any]) -> tuple[Id, Verified]:
        assert case.claim is not None
        alike = self._custody.like(self._casework.name_of(case.claim))
        named = case.claim.body["vault"]
        if named != NOTHING:
            alike = [match for match in alike if match[1] == named]
        chosen = str(args.get("vault") or "")
        if not alike:
            raise Refused("no vault here is under that or a similar name")
        if not chosen and len(alike) > 1:
            raise Refused(
                f"{len(alike)} vaults are under that or a similar name",
                hint="look at them with holdfast guardian show, and say --vault NUMBER",
            )
        for number, (_, vault_id, _, deal, _) in enumerate(self._choices(alike), start=1):
            meant = str(args.get("deal") or deal.id.hex()) == deal.id.hex()
            if meant and chosen in ("", str(number), vault_id.hex()):
                return vault_id, deal
        raise Refused(f"there is no vault {chosen[:70]} under that name; there are {len(alike)}")

    def _choices(self, alike: Sequence[Alike]) -> list[tuple[int, Id, Label, Verified, int]]:
        """What a guardian may choose: each vault, and behind them all the backups replaced.

        The last item is when one was replaced, 0 for those of today. Somebody who had the old
        phone may have replaced what the member wants back.
        """
        today = [
            (likeness, vault_id, label, self._votable(vault_id, row)[0], 0)
            for likeness, vault_id, label, row in alike
        ]
        before = [
            (likeness, vault_id, label, deal, row.replaced)
            for likeness, vault_id, label, _ in alike
            for deal, row in reversed(self._custody.deals(vault_id))
            if row.replaced
        ]
        return today + before

    def _votable(self, vault_id: Id, row: DealRow) -> tuple[Verified, DealRow]:
        """The deal that an approval is for: the settled one, or, before any is, the newest."""
        held = self._custody.row(vault_id)
        deals = [pair for pair in self._custody.deals(vault_id) if not pair[1].beside]
        settled = held is not None and held.settled
        current = [pair for pair in deals if held is not None and pair[0].id == held.deal]
        if (settled and current) or not deals:
            return current[0] if current else (self._codec.read(row.raw), row)
        return deals[-1]

    def _veto_named(self, case: Case, vault_id: Id, despite: bool) -> Id:
        vetoes = sorted(
            (veto.body["at"], id_)
            for id_, veto in case.vetoes.items()
            if veto.body["vault"] == vault_id
        )
        if not vetoes:
            return NOTHING
        if not despite:
            raise Refused(
                "the owner's old device says that this claim is not theirs",
                hint="if you are sure that the person before you is the member and the old "
                "device is in other hands, approve with --despite-veto",
            )
        return vetoes[-1][1]

    def _reject(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        if not str(args.get("words") or "").strip():
            raise Refused("rejecting needs a reason, in words the others understand")
        return self._say(at, "reject", args, out)

    def _ask(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        if not str(args.get("words") or "").strip():
            raise Refused("asking needs a question")
        return self._say(at, "ask", args, out)

    def _say(self, at: Moment, verdict: str, args: Mapping[str, Any], out: list[Effect]) -> Any:
        case = self._find(args)
        words = _words(args)
        if not case.is_open:
            raise Refused("this case is closed")
        self._casework.vote(at, case, NOTHING, NOTHING, verdict, "", words, NOTHING, out)
        return self.view(case, at.now)

    # --- the federation ---------------------------------------------------------------

    def _status(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        linked = self._gossip.linked_seats()
        return {
            "phase": "live",
            "federation": self._roster.name,
            "me": self._roster.named(self._seat),
            "locked": self._locked,
            "threshold": self._roster.threshold,
            "guardians": [
                {
                    "name": guardian.name,
                    "linked": guardian.seat in linked or guardian.seat == self._seat,
                    "misbehaved": self._gossip.is_excluded(guardian.seat),
                    "entries": sum(
                        seq
                        for log, (seq, _) in self._gossip.heads.items()
                        if log[0] == guardian.seat
                    ),
                }
                for guardian in self._roster.guardians
            ],
            "vaults": self._ledger.count(Table.VAULT),
            "open_cases": sum(
                case.is_open for _, case in sorted(self._casework.docket.cases.items())
            ),
            "waiting_for_code": self._ledger.count(Table.CLAIM),
            "rehearsed": self._ledger.get(Table.META, REHEARSED_KEY) is not None,
            "clock_skew": self._gossip.skew(),
        }

    def _federation(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        return {"signed": self._service.signed, "phrase": self._roster.phrase, "seat": self._seat}

    def _invite(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        if self._ledger.get(Table.META, REHEARSED_KEY) is None:
            raise Refused(
                "nobody has seen this federation give a key back yet",
                hint="rehearse first: holdfast guardian rehearse",
            )
        points = {
            guardian.seat: Endpoint(guardian.address, guardian.transport)
            for guardian in self._roster.guardians
            if guardian.address
        }
        for seat, entry in self._service.addresses.items():
            points[seat] = Endpoint(entry.body["address"], entry.body["transport"])
        made = invite(self._codec.federation, self._roster, points)
        return {"invite": made.to_text(), "federation": self._roster.name,
                "phrase": self._roster.phrase}  # fmt: skip

    def _rehearsed(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        out.append(Persist(PutRow(Table.META, REHEARSED_KEY, at.now.to_bytes(8, "big"))))
        return {"rehearsed": True}

    def _admit(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        number = "".join(letter for letter in str(args["number"]) if letter in "0123456789")
        first = self._service.knocking.get(number)
        if first is None:
            raise NotYet(
                "no member with this number has asked for admission here",
                hint="ask them to run holdfast wallet resume, then try again",
            )
        entry = self._gossip.author(at, "admit", {"member": first, "at": at.now}, out)
        self._casework.fold(at, entry, out)
        return {"admitted": number}

    def _record(self, at: Moment, args: Mapping[str, Any], out: list[Effect]) -> Any:
        """The entries about one case, as they were signed: the stuff of a transcript."""
        case = self._find(args)
        assert case.claim is not None
        return {
            "signed": self._service.signed,
            "claim": case.claim.raw,
            "votes": [
                vote.raw
                for _, votes in sorted(case.votes.items())
                for _, vote in sorted(votes.items())
            ],
            "vetoes": [veto.raw for _, veto in sorted(case.vetoes.items())],
            "releases": [release.raw for _, release in sorted(case.releases.items())],
            "successions": [one.raw for _, one in sorted(case.successions.items())],
        }


def _words(args: Mapping[str, Any]) -> str:
    words = str(args.get("words") or "").strip()
    if len(words) > TEXT_CHARS_MAX:
        raise Refused(f"at most {TEXT_CHARS_MAX} characters, these are {len(words)}")
    try:
        words.encode()
    except UnicodeEncodeError:
        raise Refused("the words hold characters that are no text; type them again") from None
    return words
