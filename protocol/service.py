"""What a guardian's node does for wallets: deposits, claims, what owners say, news of a case.

Every request is answered, by a `reply` or by a refusal in a sentence. Replies carry signed
statements; what else they say is for orientation only, and a wallet rests nothing on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from protocol import cases, vault
from protocol.casework import Casework
from protocol.chores import Chores
from protocol.contract import (
    Changed,
    Deliver,
    Done,
    DropFragments,
    Effect,
    Id,
    Ledger,
    LinkId,
    Message,
    Moment,
    Notify,
    Persist,
    PutRow,
    Receive,
    Send,
    Table,
    Verified,
)
from protocol.custody import Custody, Deposit, member_number
from protocol.encoding import decode, encode
from protocol.errors import HoldfastError, Locked, NotYet, Refused
from protocol.gossip import Gossip
from protocol.keys import SigningKey
from protocol.messages import refusal, reply
from protocol.policy import policy_of
from protocol.relay import Relay, refuse_fragments
from protocol.statements import Codec

CLAIMS_WAITING_MAX: Final = 20_000  # about 30 MB; a small town losing its phones in a week
FOLLOWERS_MAX: Final = 2_000  # links that wait for news of a case
FOLLOWS_MAX: Final = 16  # claims that one link waits for: a person has one, a helper a few
TRANSFERS_MAX: Final = 64  # fragments on their way in at once
NEW_VAULTS_PER_LINK_MAX: Final = 64  # a member has a handful; a flood has to call again
KNOCKING_MAX: Final = 1_000  # refused members whose number a guardian may type
ERASED_KEY: Final = b"erased/"


@dataclass
class Transfer:
    """Fragments on their way in, and what happens when they are here."""

    link: LinkId
    request: int
    deposit: Deposit | None


@dataclass
class Followed:
    """What somebody who follows a case was told of it."""

    news: dict[str, Any] = field(default_factory=dict)
    releases: dict[Id, bool] = field(default_factory=dict)


class Service:
    """Answers wallets."""

    def __init__(
        self,
        codec: Codec,
        key: SigningKey | None,
        seat: int,
        signed: bytes,
        gossip: Gossip,
        custody: Custody,
        casework: Casework,
        chores: Chores,
        ledger: Ledger,
    ) -> None:
        self._codec = codec
        self._key = key
        self._seat = seat
        self.signed = signed
        self._gossip = gossip
        self._custody = custody
        self._casework = casework
        self._chores = chores
        self._ledger = ledger
        self.relay = Relay(gossip)
        self._transfers: dict[str, Transfer] = {}
        self._numbered = 0
        self._new_vaults: dict[LinkId, int] = {}
        self._followers: dict[LinkId, dict[Id, Followed]] = {}
        self._following: dict[Id, dict[LinkId, bool]] = {}  # the same the other way round
        self.addresses: dict[int, Verified] = {}
        self.knocking: dict[str, bytes] = {}
        custody.is_admitted = lambda first: first in casework.admitted
        self._answers: dict[str, Callable[[Moment, LinkId, Any, list[Effect]], None]] = {
            "roster": self._roster,
            "card": self._card,
            "settle": self._settle,
            "seen": self._seen,
            "owner": self._owner,
            "claim": self._claim,
            "follow": self._follow,
            "succeed": self._succeed,
            "fragments": self._fragments,
            "through": lambda at, link, fields, out: self.relay.pass_on(link, fields, out),
        }

    def handle(
        self,
        at: Moment,
        link: LinkId,
        message: Message,
        out: list[Effect],
        examined: vault.Examined | None = None,
    ) -> None:
        """Answer one request."""
        mark = len(out)
        try:
            if message.kind == "deposit":
                self._deposit(at, link, message.fields, out, examined)
            else:
                self._answers[message.kind](at, link, message.fields, out)
        except HoldfastError as error:
            # Every handler validates first and mutates last, so nothing is half done.
            assert not any(isinstance(effect, Persist) for effect in out[mark:])
            del out[mark:]
            if isinstance(error, Locked):
                error = Locked(
                    "this guardian's node is locked just now",
                    hint="try again later, or call the guardian, who unlocks it",
                )
            out.append(refusal(link, message.fields["request"], error))

    def link_down(self, link: LinkId) -> None:
        for gone in (link, *self.relay.link_down(link)):
            for claim in self._followers.pop(gone, ()):
                del self._following[claim][gone]
                if not self._following[claim]:
                    del self._following[claim]
            self._new_vaults.pop(gone, None)
        for id_ in [id_ for id_, item in self._transfers.items() if item.link == link]:
            del self._transfers[id_]

    def _roster(self, at: Moment, link: LinkId, fields: Any, out: list[Effect]) -> None:
        addresses = [entry.raw for _, entry in sorted(self.addresses.items())]
        out.append(reply(link, fields["request"], signed=self.signed, addresses=addresses))

    # --- deposits ---------------------------------------------------------------------

    def _deposit(
        self,
        at: Moment,
        link: LinkId,
        fields: Any,
        out: list[Effect],
        examined: vault.Examined | None,
    ) -> None:
        try:
            deposit = self._custody.check_deposit(
                fields["deal"], fields["version"], fields["box"], fields["whole"], examined
            )
        except Refused:
            self._knock(fields["deal"])
            raise
        if self._custody.row(deposit.deal.body["vault"]) is None:
            self._count_new_vault(link)
        if vault.is_whole(deposit.version):
            self._keep(at, link, fields["request"], deposit, out)
            return
        if link < 0:
            raise refuse_fragments()
        root = vault.root_for(deposit.version, deposit.deal, self._seat)
        count = deposit.version.body["segments"]
        self._receive(link, fields["request"], deposit.version.id, root, count, deposit, out)

    def _count_new_vault(self, link: LinkId) -> None:
        count = self._new_vaults.get(link, 0)
        if count >= NEW_VAULTS_PER_LINK_MAX:
            raise NotYet(
                f"{count} new vaults came over one connection, which is the most",
                hint="connect again",
            )
        self._new_vaults[link] = count + 1

    def _knock(self, deal: bytes) -> None:
        """Remember who asked to be admitted, so that a guardian can do it by number."""
        first = self._codec.read(deal).body["first"]
        self.knocking.pop(member_number(first), None)
        if len(self.knocking) >= KNOCKING_MAX:
            del self.knocking[next(iter(self.knocking))]  # who waits will knock again
        self.knocking[member_number(first)] = first

    def _receive(
        self,
        link: LinkId,
        request: int,
        version: Id,
        root: bytes,
        count: int,
        deposit: Deposit | None,
        out: list[Effect],
    ) -> None:
        if len(self._transfers) >= TRANSFERS_MAX:
            raise NotYet("this guardian is taking in many backups just now; try again soon")
        self._numbered += 1
        id_ = f"receive:{self._numbered}"
        self._transfers[id_] = Transfer(link, request, deposit)
        out.append(reply(link, request, fragments=True))
        out.append(Receive(id_, link, version, root, count))

    def received(self, at: Moment, done: Done, out: list[Effect]) -> None:
        """Fragments are here and durable, or did not come."""
        transfer = self._transfers.pop(done.id, None)
        if transfer is None:
            return
        if done.error is not None:
            out.append(refusal(transfer.link, transfer.request, Refused(done.error)))
        elif transfer.deposit is None:
            out.append(reply(transfer.link, transfer.request, kept=True))
        else:
            self._complete(at, transfer.link, transfer.request, transfer.deposit, out)

    def _complete(
        self, at: Moment, link: LinkId, request: int, deposit: Deposit, out: list[Effect]
    ) -> None:
        """Keep a deposit whose fragments came, if what held when they were sent for still does."""
        try:
            self._custody.check_deposit(
                deposit.deal.raw, deposit.version.raw, deposit.box, deposit.whole
            )
            self._keep(at, link, request, deposit, out)
        except HoldfastError as error:
            out.append(Persist(DropFragments(deposit.version.id)))
            out.append(refusal(link, request, error))

    def _keep(
        self, at: Moment, link: LinkId, request: int, deposit: Deposit, out: list[Effect]
    ) -> None:
        key = self._unlocked()
        vault_id = deposit.deal.body["vault"]
        if policy_of(deposit.deal).rehearsal:
            self._chores.add("rehearsal", at.now, vault_id, out)
        self._custody.keep(deposit, self._casework.is_frozen(vault_id), at.now, out)
        fields = self._custody.receipt(deposit, at.now)
        receipt = self._codec.sign(key, "receipt", fields)
        out.append(reply(link, request, receipt=receipt.raw))
        out.append(Changed("members"))

    def _unlocked(self) -> SigningKey:
        if self._key is None:
            raise Locked(
                "this guardian's node is locked and takes no backups just now",
                hint="try again later, or call the guardian",
            )
        return self._key

    def _card(self, at: Moment, link: LinkId, fields: Any, out: list[Effect]) -> None:
        pair = self._custody.deal(fields["vault"], fields["deal"])
        if pair is None:
            raise Refused("this guardian does not hold the deal that the card belongs to")
        label = self._custody.label(pair[1])
        if not label.card_count:
            raise Refused("the label of this vault names no verification card")
        self._receive(
            link, fields["request"], label.card_root, label.card_root, label.card_count, None, out
        )

    def _settle(self, at: Moment, link: LinkId, fields: Any, out: list[Effect]) -> None:
        statement = self._codec.verify(fields["raw"], "settled")
        frozen = self._casework.is_frozen(statement.body["vault"])
        before = self._custody.replaced_version(statement.body["deal"])
        for vault_id, deal_id in self._custody.settle(statement, frozen, at.now, out):
            self._chores.add("replaced", at.now, vault_id + deal_id, out)
        replaced = self._custody.replaced_version(statement.body["deal"])
        if replaced is not None and replaced != before:
            about = statement.body["vault"] + statement.body["deal"] + replaced
            self._chores.add("version", at.now, about, out)
        out.append(reply(link, fields["request"], settled=True))

    # --- owners -----------------------------------------------------------------------

    def _seen(self, at: Moment, link: LinkId, fields: Any, out: list[Effect]) -> None:
        statement = self._codec.verify(fields["raw"], "seen")
        vault_id = statement.body["vault"]
        erased = self._ledger.get(Table.META, ERASED_KEY + vault_id)
        if erased is not None and self._custody.row(vault_id) is None:
            body = decode(erased, limit=4096)
            if body["owner"] == statement.by:
                out.append(reply(link, fields["request"], erased=body["receipt"]))
                return
        row = self._custody.owned(statement)
        self._custody.seen(row, vault_id, at.now, out)
        pair = self._custody.deal(vault_id, row.deal)
        versions = [
            [version.id, version.body["number"], held.settled, held.at]
            for version, held in self._custody.versions(row.deal)
        ]
        out.append(
            reply(
                link,
                fields["request"],
                deal=row.deal,
                number=pair[0].body["number"] if pair else 0,
                deals=[deal.id for deal, _ in self._custody.deals(vault_id)],
                versions=versions,
                since=row.since,
                leaving=row.leaving,
                cases=[
                    self.summary(case, at.now) for case in self._casework.docket.on_vault(vault_id)
                ],
                erased=b"",
            )
        )

    def _owner(self, at: Moment, link: LinkId, fields: Any, out: list[Effect]) -> None:
        statement = self._codec.verify(fields["raw"], "veto", "check-in", "handover", "leave")
        row = self._custody.owned(statement)
        vault_id, body = statement.body["vault"], statement.body
        if statement.type == "veto":
            case = self._casework.docket.cases.get(body["claim"])
            if case is None:
                raise NotYet("this guardian has not heard of the claim that is vetoed")
            # One veto says it all; more of them would only fill the logs.
            if all(veto.by != statement.by for veto in case.vetoes.values()):
                self._casework.carry(at, statement, out)
        elif statement.type == "check-in":
            self._custody.seen(row, vault_id, at.now, out)
        elif self._casework.is_frozen(vault_id):
            raise Refused(
                "a claim on this vault is under way; until it ends the vault stays as it is",
                hint="veto the claim if it is not yours: holdfast wallet veto",
            )
        elif statement.type == "handover":
            self._casework.carry(at, statement, out)
        else:
            self._custody.leave(statement, row, at.now, out)
            if not body["stay"] and not row.leaving:
                self._chores.add("leave", at.now, vault_id, out)
        out.append(reply(link, fields["request"], taken=True))

    # --- claims -----------------------------------------------------------------------

    def _claim(self, at: Moment, link: LinkId, fields: Any, out: list[Effect]) -> None:
        claim = self._codec.verify(fields["raw"], "claim")
        self._casework.check_claim(claim, at.now)
        case = self._casework.docket.cases.get(claim.id)
        known = case is not None and case.claim is not None
        if claim.body["kind"] == "rehearsal":
            self._rehearsal(at, claim, out)
        elif not known and self._ledger.get(Table.CLAIM, claim.id) is None:
            if self._ledger.count(Table.CLAIM) >= CLAIMS_WAITING_MAX:
                raise NotYet("very many claims wait here for their codes; try again in an hour")
            row = {"raw": claim.raw, "code": fields["code"], "at": at.now}
            out.append(Persist(PutRow(Table.CLAIM, claim.id, encode(row))))
            self._chores.add("claim", at.now, claim.id, out)
            out.append(Changed("claims"))
            out.append(Notify("claim"))
        # Always the same answer, whether or not anyone here knows the name.
        out.append(reply(link, fields["request"], received=True))

    def _rehearsal(self, at: Moment, claim: Verified, out: list[Effect]) -> None:
        row = self._custody.row(claim.body["vault"])
        pair = self._custody.deal(claim.body["vault"], row.deal) if row else None
        if pair is None or not policy_of(pair[0]).rehearsal:
            raise Refused("this guardian holds no rehearsal vault of that claim")
        self._casework.carry(at, claim, out)

    def _follow(self, at: Moment, link: LinkId, fields: Any, out: list[Effect]) -> None:
        if len(self._followers) >= FOLLOWERS_MAX and link not in self._followers:
            raise NotYet("very many people follow their cases here; try again in a minute")
        follows = self._followers.setdefault(link, {})
        if len(follows) >= FOLLOWS_MAX and fields["claim"] not in follows:
            raise NotYet(f"one device follows {FOLLOWS_MAX} claims at a time; connect again")
        follows[fields["claim"]] = Followed()
        self._following.setdefault(fields["claim"], {})[link] = True
        out.append(reply(link, fields["request"], following=True))
        self._tell(link, fields["claim"], at.now, out)

    def tell_followers(self, at: Moment, out: list[Effect]) -> None:
        """Send news of the cases touched by this event to those who follow them."""
        touched = list(self._casework.touched)
        self._casework.touched.clear()
        for claim in touched:
            for link in self._following.get(claim, ()):
                self._tell(link, claim, at.now, out)

    def _tell(self, link: LinkId, claim: Id, now: int, out: list[Effect]) -> None:
        case = self._casework.docket.cases.get(claim)
        news: dict[str, Any] = {"claim": claim, "state": "waiting for code", "due": 0,
                                "approvals": 0, "quorum": 0, "votes": [], "vetoes": [],
                                "locked": self._key is None}  # fmt: skip
        if case is not None and case.claim is not None and case.facts is not None:
            news.update(self.summary(case, now))
            news["votes"] = [vote.raw for vote in case.latest().values()]
            news["vetoes"] = [veto.raw for _, veto in sorted(case.vetoes.items())]
        followed = self._followers[link][claim]
        if news != followed.news:
            followed.news = news
            out.append(Send(link, Message("case", news)))
        for _, release in sorted(case.releases.items()) if case is not None else ():
            if release.id not in followed.releases:
                followed.releases[release.id] = True
                out.append(Send(link, Message("release", {"claim": claim, "raw": release.raw})))

    def summary(self, case: cases.Case, now: int) -> dict[str, Any]:
        """Where a case is, in numbers."""
        standings = self._casework.standings(case, now)
        standing = standings[0][0] if standings else None
        facts = case.facts
        assert facts is not None
        return {
            "claim": case.id,
            "opened": facts.opened,
            "state": cases.state_of(facts, standing),
            "due": (cases.due(facts, standing.policy) or 0) if standing else 0,
            "approvals": len(standing.approvals) if standing else 0,
            "quorum": standing.policy.quorum if standing else 0,
        }

    def _succeed(self, at: Moment, link: LinkId, fields: Any, out: list[Effect]) -> None:
        statement = self._codec.verify(fields["raw"], "succession")
        row = self._custody.row(statement.body["vault"])
        if row is None or row.owner != statement.by:
            self._casework.check_succession(statement)
            self._casework.carry(at, statement, out)
        out.append(reply(link, fields["request"], taken=True))

    def _fragments(self, at: Moment, link: LinkId, fields: Any, out: list[Effect]) -> None:
        case = self._casework.docket.cases.get(fields["claim"])
        if case is None or case.facts is None or not case.facts.released:
            raise NotYet("this guardian has not released anything for that claim yet")
        release = case.releases.get(self._seat)
        held = self._custody.versions(release.body["deal"]) if release else []
        version = next((v for v, _ in held if v.id == fields["version"]), None)
        if version is None or vault.is_whole(version):
            raise Refused("this guardian holds no fragments of that version")
        out.append(reply(link, fields["request"], count=version.body["segments"]))
        out.append(Deliver(link, version.id, fields["request"]))
