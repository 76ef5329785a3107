"""Members, and whoever claims what is theirs: owners with a new phone, thieves, heirs.

Each case is one member with one vault. The wallet's own core makes every statement and
judges every answer; what is simulated is when people act.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from protocol.cases import CODE_SALT, claim_code
from protocol.contract import Message, Seat, Verified
from protocol.errors import HoldfastError
from protocol.keys import SealingKey, SigningKey
from protocol.limits import HOUR, SECOND
from protocol.names import normalise
from protocol.sealing import Cost, stretch
from protocol.vault import Payload
from protocol.wallet import backing_up, owning, recovering
from protocol.wallet.drawing import Draws
from simulations.chances import Stream
from simulations.hosts.stage import Dark, Refusal
from simulations.kernel import START_MS
from simulations.people import AGAIN, Visit
from simulations.truth import Claimed

if TYPE_CHECKING:
    from simulations.federation import Federation

GIVEN: Final = ("Ana", "Bora", "Chidi", "Dora", "Emil", "Fatma", "Goran", "Hana", "Iker", "Jana",
                "Kofi", "Lena", "Milan", "Nadia", "Oskar", "Petra")  # fmt: skip
SYLLABLES: Final = ("ba", "do", "fe", "gri", "ho", "ju", "ka", "lem", "mi", "no", "pau", "qui",
                    "ro", "sta", "tu", "vez")  # fmt: skip
JOINS_WITHIN: Final = 12 * HOUR  # of the beginning, so that every backup is done on day 1
LINGER: Final = 2 * SECOND  # a wallet listens on after a reply
SLOWEST: Final = 6 * HOUR  # between two looks at a case
WATCHES: Final = 4 * HOUR  # how often a wallet that is on asks for claims on its vault
TRIES: Final = 60  # of one request, before a wallet turns to other things


def name_of(number: int) -> str:
    """A name unlike every other: trigrams of the syllables differ in every place."""
    parts = []
    left = number
    for _ in range(4):
        left, digit = divmod(left, len(SYLLABLES))
        parts.append(SYLLABLES[digit])
    mixed = GIVEN[number % len(GIVEN)], "".join(parts[:2]), "".join(parts[2:]) + str(number)
    return f"{mixed[0]} {mixed[1].title()} {mixed[2].title()}"


class Claim:
    """One claim from a device: made, sent, followed, and perhaps opened."""

    def __init__(self, member: Member, by: str, number: int) -> None:
        federation = member.federation
        self.member = member
        self.by = by
        self.number = number
        self.place = f"{by}{number}"
        self.over = False
        self.is_contested = False
        self._stream = Stream(federation.seed, "claim", federation.number, number)
        self.device = recovering.Device(
            SigningKey(self._stream.octets(32)), SealingKey(self._stream.octets(32))
        )

    def make(self) -> None:
        """Sign the claim as of now."""
        federation = self.member.federation
        now = federation.stage.now
        self.statement = recovering.make_claim(
            federation.codec, federation.roster, self.device, self.member.name,
            now=START_MS + now, draws=Draws(self._stream.octets(32)),
        )  # fmt: skip
        self.id = self.statement.id
        self.vault = self.member.vault
        self.code = claim_code(stretch(self.id, CODE_SALT, Cost.TOY))
        self.heard = recovering.Recovery(
            federation.codec, federation.roster, self.statement, self.device
        )
        expires = self.statement.body["expires"] - START_MS
        federation.truth.claimed(
            Claimed(self.number, self.member.number, self.by, self.id, self.vault, now, expires)
        )

    async def live(self, calls: Sequence[Seat], visits: tuple[int, int]) -> None:
        """Claim everywhere, see the guardians, wait, and recover."""
        federation = self.member.federation
        stage = federation.stage
        self.make()
        made = stage.now
        for seat in federation.roster.seats:
            stage.start(self._send(seat), f"{self.place} to {seat}")
        asked = made
        order = Stream(federation.seed, "order", federation.number, self.number)
        left = list(calls)
        while left:
            seat = left.pop(order.below(len(left)))
            asked += order.lognormal(*visits)
            stage.start(Visit(federation, seat, self).live(asked), f"visit {seat} {self.place}")
        await self._follow(made)
        self.over = True

    async def _send(self, seat: Seat) -> None:
        fields = {"raw": self.statement.raw, "code": self.code}
        await self.member.insist(self.place, seat, "claim", fields)

    async def _follow(self, made: int) -> None:
        federation = self.member.federation
        stage, ends = federation.stage, self.statement.body["expires"] - START_MS
        everyone, turn = federation.roster.seats, 0
        while stage.now < ends:
            await stage.until(stage.now + min(SLOWEST, max(AGAIN, (stage.now - made) // 8)))
            # One guardian knows what all do; once a piece has come, every one is asked.
            turn = (turn + 1) % len(everyone)
            for seat in everyone if self.heard.good else (everyone[turn],):
                await self._look(seat)
                if self._open():
                    await self._succeed()
                    return
        federation.truth.meet("expired")

    async def _look(self, seat: Seat) -> None:
        federation = self.member.federation
        try:
            heard = await federation.stage.exchange(
                self.place, seat, "follow", {"claim": self.id}, LINGER
            )
        except (Dark, HoldfastError):
            return
        before = len(self.heard.caught)
        for message in heard:
            if message.kind == "release":
                self.heard.take_release(message.fields["raw"])
            elif message.kind == "case" and message.fields["vetoes"]:
                self.is_contested = True
        one = federation.truth.claims[self.id]
        federation.safety.opened(one, self.heard.good)
        if len(self.heard.caught) > before:
            federation.safety.caught(one, [caught.seat for caught in self.heard.caught])

    def _open(self) -> bool:
        """Put the secret together if enough pieces are here. A thief knows the name too."""
        candidates = self.heard.candidates()
        if not candidates:
            return False
        candidate = candidates[0]
        name = normalise(self.member.name)
        stretched = backing_up.stretch_names((name,), None, candidate.pepper, Cost.TOY)[0]
        name_key = recovering.unlock_name(candidate, stretched)
        if name_key is None:
            return False
        self.recovered = recovering.decrypt(candidate, name_key, [candidate.whole])
        federation = self.member.federation
        right = self.recovered.payload.secret == self.member.secret
        federation.safety.got(federation.truth.claims[self.id], right)
        return True

    async def _succeed(self) -> None:
        """Tell the guardians that this device owns the vault from now on."""
        if not self.member.work["succession"]:
            return
        federation = self.member.federation
        statement = recovering.succeed(
            federation.codec, self.device, self.statement, self.recovered.deal,
            START_MS + federation.stage.now,
        )  # fmt: skip
        for seat in federation.roster.seats:
            await self.member.insist(self.place, seat, "succeed", {"raw": statement.raw}, 6)


class Member:
    """A person with something worth keeping, and what becomes of it."""

    def __init__(self, federation: Federation, number: int, work: Mapping[str, Any]) -> None:
        self.federation = federation
        self.number = number
        self.work = work
        self.name = name_of(number)
        stream = Stream(federation.seed, "member", federation.number, number)
        self.owner = SigningKey(stream.octets(32))
        self.secret = stream.octets(32)
        self.joins = stream.below(JOINS_WITHIN)
        self.loses = work["from"] + stream.below(max(1, work["over"]))
        self._stream = stream
        self._own: list[Claim] = []
        self.vault = b""

    async def live(self) -> None:
        """Join, back up, and then whatever this member's story is."""
        stage = self.federation.stage
        await stage.until(self.joins)
        await self._back_up()
        await stage.until(max(self.loses, stage.now))
        kind = self.work["kind"]
        numbers = self.federation.claim_numbers(self)
        if kind in ("thefts", "rivals", "stolen-phones"):
            thief = Claim(self, "thief", next(numbers))
        if kind in ("thefts", "rivals"):
            stage.start(self._claims(thief), thief.place)
        if kind == "thefts":
            await self._guard(thief)
            return
        for _ in range(self.work["repeat"]):
            own = Claim(self, "heir" if kind == "heirs" else "owner", next(numbers))
            self._own.append(own)
            if kind == "stolen-phones":
                stage.start(self._spoil(own), f"spoiler{own.number}")
            await self._claims(own)
        self.federation.finished(self)

    async def _claims(self, claim: Claim) -> None:
        federation = self.federation
        calls = federation.select(self.work["calls"], f"calls {claim.number}")
        await claim.live(calls, self.work["visits"])

    # --- backing up -------------------------------------------------------------------

    async def _back_up(self) -> None:
        federation, draws = self.federation, Draws(self._stream.octets(32))
        now = START_MS + federation.stage.now
        dealt = backing_up.deal(
            federation.codec, federation.roster, self.owner, backing_up.make_label(self.name),
            backing_up.policy_for(federation.roster, waiting=federation.waiting),
            now=now, draws=draws,
        )  # fmt: skip
        spellings = (normalise(self.name),)
        pepper = backing_up.pepper_of(dealt)
        stretched = backing_up.stretch_names(spellings, None, pepper, Cost.TOY)
        payload = Payload(self.owner.seed, "raw", self.secret, "", spellings)
        backup, sealed = backing_up.seal(
            federation.codec, federation.roster, self.owner, dealt, payload, stretched,
            title="", passphrase=False, now=now, draws=draws,
        )  # fmt: skip
        self.vault = federation.codec.read(backup.deal).body["vault"]
        federation.truth.canaries.append(self.secret)
        for seat, one in backing_up.deposits(federation.codec, backup, sealed.segments).items():
            fields = {"deal": one.deal, "version": one.version, "box": one.box, "whole": one.whole}
            reply = await self.insist(f"member{self.number}", seat, "deposit", fields)
            if reply is not None:
                backup = backing_up.take_receipt(
                    federation.codec, federation.roster, backup, seat, reply.fields["receipt"]
                )
        backup = backing_up.settle(federation.codec, backup)
        if backup.settled:
            for seat in federation.roster.seats:
                fields = {"raw": backup.settled}
                await self.insist(f"member{self.number}", seat, "settle", fields, 6)

    async def insist(
        self, place: str, seat: Seat, kind: str, fields: Mapping[str, Any], tries: int = TRIES
    ) -> Message | None:
        """Ask until answered; None when refused for good, or out of patience."""
        stage = self.federation.stage
        for _ in range(tries):
            try:
                return (await stage.exchange(place, seat, kind, fields, 0))[0]
            except Dark:
                pass
            except Refusal as refusal:
                if refusal.kind != "not yet":
                    return None
            await stage.until(stage.now + AGAIN)
        return None

    # --- owners who look, thieves who object ------------------------------------------

    async def _guard(self, thief: Claim) -> None:
        """The owner's wallet is on: it hears of the claim after a while, and objects."""
        stage = self.federation.stage
        stream = Stream(self.federation.seed, "notices", self.federation.number, self.number)
        await stage.until(stage.now + stream.lognormal(*self.work["notices"]))
        while not thief.over:
            if await self._sees(thief):
                await self._object(thief, "this is not me")
                return
            await stage.until(stage.now + WATCHES)

    async def _sees(self, thief: Claim) -> bool:
        federation = self.federation
        fields = {"raw": owning.seen(
            federation.codec, self.owner, self.vault, START_MS + federation.stage.now
        ).raw}  # fmt: skip
        for seat in federation.roster.seats:
            try:
                heard = await federation.stage.exchange(
                    f"member{self.number}", seat, "seen", fields, 0
                )
            except (Dark, HoldfastError):
                continue
            if any(case["claim"] == thief.id for case in heard[0].fields["cases"]):
                return True
        return False

    async def _object(self, claim: Claim, words: str) -> None:
        federation = self.federation
        statement: Verified = owning.veto(
            federation.codec, self.owner, self.vault, claim.id, words,
            START_MS + federation.stage.now,
        )  # fmt: skip
        place = f"member{self.number}"
        federation.truth.vetoed(claim.id)
        for seat in federation.roster.seats:
            script = self.insist(place, seat, "owner", {"raw": statement.raw})
            federation.stage.start(_dropping(script), f"veto {seat} {place}")

    async def _spoil(self, own: Claim) -> None:
        """A thief with the old phone objects to the owner's own claim."""
        stage = self.federation.stage
        stream = Stream(self.federation.seed, "notices", self.federation.number, self.number)
        await stage.until(stage.now + stream.lognormal(*self.work["notices"]))
        while not own.over:
            if await self._sees(own):
                await self._object(own, "not me")
                return
            await stage.until(stage.now + WATCHES)


async def _dropping(script: Any) -> None:
    await script
