"""Rehearse a federation: deal a dummy key to every guardian, and get it back from each.

The one who rehearses acts as a wallet would: over TLS, with sealed pieces, signed receipts
and a claim. Guardians' nodes vote by themselves on a vault that says it is a rehearsal's,
and only for a guardian of the federation. Nothing passes unless all hold and all release:
what is missing today is missing on the day when somebody stands at the counter.

    deal ── a receipt from all ──> claim ── a good piece from all ──> put together, compared
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from node.config import split_address
from node.ports import Clock, Entropy, Transport, Workers
from node.transport import Tls
from node.wallet.guardians import Guardians, Link
from node.workers import ThreadWorkers
from protocol.cases import CODE_DIGITS
from protocol.contract import Verified
from protocol.errors import FaultyPiece, HoldfastError, Locked, Malformed
from protocol.federation import Endpoint, Roster
from protocol.keys import SealingKey, SigningKey
from protocol.names import normalise
from protocol.policy import Policy, usual_override
from protocol.sealing import Cost
from protocol.statements import Codec
from protocol.vault import Payload
from protocol.wallet import backing_up, joining, recovering
from protocol.wallet.backing_up import Backup
from protocol.wallet.drawing import SEED_BYTES, Draws
from protocol.wallet.recovering import Caught, Device, Recovery

NAME: Final = "Rehearsal"  # of the dummy's member: names have letters
DUMMY_BYTES: Final = 32
KEY_BYTES: Final = 32
PATIENCE_SECONDS: Final = 20.0  # for nodes that have just gone live and are still starting
PAUSE_SECONDS: Final = 0.5
RELEASE_SECONDS: Final = 45.0  # for votes and releases to reach us: gossip settles in one or two
_NO_CODE: Final = "0" * CODE_DIGITS  # nobody types the code of a rehearsal

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """Who held and released, and of everybody else what they failed in, by name.

    `false` says that a guardian served something false, which time does not mend.
    """

    held: list[str]
    released: list[str]
    failed: Mapping[str, str]
    false: bool = False

    @property
    def passed(self) -> bool:
        return not self.failed


async def rehearse(
    roster: Roster,
    identity: SigningKey,
    *,
    listens: Sequence[str],
    clock: Clock,
    entropy: Entropy,
    tell: Tell,
    transport: Transport | None = None,
    workers: Workers | None = None,
    cost: Cost = Cost.MODERATE,
) -> Outcome:
    """Rehearse with all guardians of the roster, as the one whose `identity` it is.

    `listens` is where that guardian's own node listens, which its public address need not
    reach from inside. Takes two or three seconds when all is well, a minute when it is not.
    """
    transport, workers = transport or Tls(), workers or ThreadWorkers()
    endpoints = await _endpoints(transport, roster, identity.public, listens)
    names = {guardian.seat: guardian.name for guardian in roster.guardians}
    guardians = Guardians(transport, endpoints, names, roster.id)
    draws = Draws(entropy.draw(SEED_BYTES))
    now = clock.now()
    dummy = await workers.compute(lambda: _deal(roster, identity, now, draws, cost))
    run = _Rehearsal(roster, guardians, dummy, tell)
    failed = await run.deposit()
    if failed:
        return run.outcome(failed)
    run.claim(now, draws)
    failed = await run.recover()
    if not failed:
        failed = await workers.compute(run.compare)
        await run.close(clock.now())
    return run.outcome(failed)


async def _endpoints(
    transport: Transport, roster: Roster, own: bytes, listens: Sequence[str]
) -> dict[int, Endpoint]:
    """Where everybody listens now, as far as our own node and the roster know."""
    found = joining.endpoints(roster, {})
    me = roster.by_identity(own)
    if me is None or not listens:
        return found
    found[me.seat] = Endpoint(_from_inside(listens[0]), me.transport)
    heard: list[bytes] = []

    async def ask(seat: int, link: Link) -> None:
        answer = (await link.ask("roster", {})).get("addresses")
        heard.extend(raw for raw in answer or [] if type(raw) is bytes)

    await Guardians(transport, found, {me.seat: me.name}, roster.id).each(ask)
    now = joining.endpoints(roster, joining.newest_addresses(roster, {}, heard))
    return {**now, me.seat: found[me.seat]}


def _from_inside(listening: str) -> str:
    host, port = split_address(listening)
    if host in ("", "0.0.0.0", "::"):  # noqa: S104  # read here, not listened on
        host = "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, repr=False)
class _Dummy:
    """A dummy key, dealt: what goes to the guardians, and what must come back."""

    backup: Backup
    segments: tuple[bytes, ...]
    secret: bytes
    stretched: bytes

    def __repr__(self) -> str:
        return "_Dummy(…)"


def _deal(roster: Roster, identity: SigningKey, now: int, draws: Draws, cost: Cost) -> _Dummy:
    codec = Codec(roster.id)
    count = len(roster.guardians)
    quorum = max(roster.bounds.quorum_floor, roster.threshold)
    policy = Policy(quorum, 0, usual_override(quorum, count), rehearsal=True)
    label = backing_up.make_label(NAME)
    dealt = backing_up.deal(codec, roster, identity, label, policy, now=now, draws=draws)
    spellings = (normalise(NAME),)
    stretched = backing_up.stretch_names(spellings, None, backing_up.pepper_of(dealt), cost)
    secret = draws.draw(DUMMY_BYTES)
    # A payload holds the owner's key. Ours is a guardian's identity: it stays at home.
    payload = Payload(draws.draw(KEY_BYTES), "raw", secret, spellings=spellings)
    backup, sealed = backing_up.seal(
        codec, roster, identity, dealt, payload, stretched,
        title=NAME, passphrase=False, now=now, draws=draws,
    )  # fmt: skip
    return _Dummy(backup, sealed.segments, secret, stretched[0])


@dataclass
class _Rehearsal:
    roster: Roster
    guardians: Guardians
    dummy: _Dummy
    tell: Tell
    news: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.codec = Codec(self.roster.id)
        self.backup = self.dummy.backup
        self.recovery: Recovery | None = None
        self.device: Device | None = None

    def outcome(self, failed: Mapping[int, str]) -> Outcome:
        released = self.recovery.good if self.recovery else []
        return Outcome(
            held=[self.roster.named(seat) for seat in sorted(self.backup.receipts)],
            released=[self.roster.named(seat) for seat in released],
            failed={self.roster.named(seat): why for seat, why in sorted(failed.items())},
            false=bool(self.recovery and self.recovery.caught),
        )

    # --- to all -----------------------------------------------------------------------

    async def deposit(self) -> dict[int, str]:
        """Bring everybody their piece; who did not sign a receipt, and why."""
        due = backing_up.deposits(self.codec, self.backup, self.dummy.segments)

        async def work(seat: int, link: Link) -> None:
            one = due[seat]
            fields = {"deal": one.deal, "version": one.version, "box": one.box, "whole": one.whole}
            receipt = (await link.ask("deposit", fields)).get("receipt")
            if type(receipt) is not bytes:
                raise Malformed(f"{link.name} took the piece and signed no receipt")
            self.backup = backing_up.take_receipt(
                self.codec, self.roster, self.backup, seat, receipt
            )
            self.tell(f"  {link.name} holds a piece of the dummy key")

        failed = await self._insist(work, lambda seat: seat in self.backup.receipts)
        return {seat: f"did not take a piece: {why}" for seat, why in failed.items()}

    async def _insist(
        self, work: Callable[[int, Link], Any], is_done: Callable[[int], bool]
    ) -> dict[int, str]:
        """Do the work with everybody, trying again for a while; why it failed, by seat."""
        why: dict[int, HoldfastError] = {}
        hopeless: dict[int, bool] = {}
        with trio.move_on_after(PATIENCE_SECONDS):
            while True:
                seats = self.roster.seats
                wanting = [seat for seat in seats if not is_done(seat) and seat not in hopeless]
                if not wanting:
                    break
                why.update(await self.guardians.each(work, wanting, tries=1))
                for seat in wanting:
                    if isinstance(why.get(seat), (FaultyPiece, Locked)):
                        hopeless[seat] = True
                await trio.sleep(PAUSE_SECONDS)
        missing = [seat for seat in self.roster.seats if not is_done(seat)]
        return {seat: self._why(seat, why.get(seat)) for seat in missing}

    def _why(self, seat: int, error: HoldfastError | None) -> str:
        name = self.roster.named(seat)
        return str(error).removeprefix(f"{name}: ") if error else "no answer came in time"

    # --- and back ---------------------------------------------------------------------

    def claim(self, now: int, draws: Draws) -> None:
        """Make the claim, as the device of somebody who lost the dummy key."""
        self.device = Device(SigningKey(draws.draw(KEY_BYTES)), SealingKey(draws.draw(KEY_BYTES)))
        deal = self.codec.read(self.backup.deal)
        claim = recovering.make_claim(
            self.codec, self.roster, self.device, NAME,
            now=now, draws=draws, kind="rehearsal", vault_id=deal.body["vault"],
        )  # fmt: skip
        self.recovery = Recovery(self.codec, self.roster, claim, self.device)

    async def recover(self) -> dict[int, str]:
        """Send the claim to all, follow it at one, and take everybody's release."""
        recovery = self._recovery
        sent: dict[int, bool] = {}

        async def send(seat: int, link: Link) -> None:
            await link.ask("claim", {"raw": recovery.claim.raw, "code": _NO_CODE})
            sent[seat] = True

        failed = await self._insist(send, lambda seat: seat in sent)
        if failed:
            return {seat: f"did not take the claim: {why}" for seat, why in failed.items()}
        with trio.move_on_after(RELEASE_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.guardians.keep, self._followed(), self._follow, _ignore)
                while not self._all_heard():
                    await self.news.wait()
                    self.news = trio.Event()
                nursery.cancel_scope.cancel()
        return self._not_released()

    @property
    def _recovery(self) -> Recovery:
        assert self.recovery is not None
        return self.recovery

    def _followed(self) -> int:
        """The one at whom we listen for all: what reaches them has come by gossip."""
        return sorted(self.guardians.endpoints)[-1]

    async def _follow(self, seat: int, link: Link) -> None:
        link.heard = self._hear
        await link.follow(self._recovery.claim.id)

    def _hear(self, kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "case":
            for raw in fields.get("votes") or []:
                if type(raw) is bytes:
                    self._recovery.take_vote(raw)
        elif kind == "release" and type(fields.get("raw")) is bytes:
            taken = self._recovery.take_release(fields["raw"])
            if isinstance(taken, Caught):
                self.tell(f"  {taken.guardian} released a FALSE piece: {taken.why}")
            elif taken is not None:
                self.tell(f"  {self.roster.named(taken.seat)} released a good piece")
        self.news.set()

    def _all_heard(self) -> bool:
        caught = [one.seat for one in self._recovery.caught]
        return all(seat in (*self._recovery.good, *caught) for seat in self.roster.seats)

    def _not_released(self) -> dict[int, str]:
        caught = {one.seat: one.why for one in self._recovery.caught}
        voted = [vote.seat for vote in self._recovery.votes]
        failed = {}
        for seat in self.roster.seats:
            if seat in caught:
                failed[seat] = f"released a false piece: {caught[seat]}"
            elif seat not in self._recovery.good:
                failed[seat] = (
                    "voted and did not release a piece"
                    if seat in voted
                    else "did not vote and did not release a piece: is their node unlocked, and "
                    "linked to the others?"
                )
        return failed

    def compare(self) -> dict[int, str]:
        """Put the dummy key together from what came back, and compare it with what was dealt."""
        candidate = self._recovery.candidates()[0]
        name_key = recovering.unlock_name(candidate, self.dummy.stretched)
        if name_key is None:
            raise FaultyPiece("the pieces came back, but the name does not open the dummy key")
        found = recovering.decrypt(candidate, name_key, [candidate.whole])
        if found.payload.secret != self.dummy.secret:
            raise FaultyPiece("another key came back than the one that was dealt")
        return {}

    async def close(self, now: int) -> None:
        """Take over the dummy vault, as every recovery ends, so that no case stays open."""
        assert self.device is not None
        deal = self.codec.read(self.backup.deal)
        statement: Verified = recovering.succeed(
            self.codec, self.device, self._recovery.claim, deal, now
        )

        async def work(seat: int, link: Link) -> None:
            await link.ask("succeed", {"raw": statement.raw})

        # Not part of what is rehearsed: the vault goes by itself within the hour.
        await self.guardians.each(work, [self._followed()])


def _ignore(seat: int, error: HoldfastError) -> None:
    """The link is dialled again; who stays silent is named at the end."""
