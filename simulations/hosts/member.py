"""A member among bare cores: backs up, loses the phone, claims, recovers.

Uses the wallet's own core; only the stretching of names is cheap, which never changes what
follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol.cases import CODE_SALT, claim_code
from protocol.contract import Verified
from protocol.keys import SealingKey, SigningKey
from protocol.names import normalise
from protocol.sealing import Cost, stretch
from protocol.vault import Payload
from protocol.wallet import backing_up, owning, recovering
from protocol.wallet.drawing import Draws
from simulations.hosts.bare import Bare


@dataclass
class Member:
    """One person and the device in their hand."""

    world: Bare
    name: str
    secret: bytes = b"the key to everything"
    waiting: int | None = None
    backup: backing_up.Backup | None = None
    links: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.owner = SigningKey(self._draw(32))

    def _draw(self, size: int) -> bytes:
        return self.world.rng.randbytes(size)

    def link(self, seat: int) -> int:
        if seat not in self.links:
            self.links[seat] = self.world.wallet(seat)
        return self.links[seat]

    @property
    def vault(self) -> bytes:
        assert self.backup is not None
        vault_id: bytes = self.world.codec.read(self.backup.deal).body["vault"]
        return vault_id

    # --- backing up -------------------------------------------------------------------

    def prepare(self, again: bool = False) -> None:
        """Make a deal and a version of the secret, ready to be sent."""
        world, draws = self.world, Draws(self._draw(32))
        after = self.backup if again else None
        policy = backing_up.policy_for(world.roster, waiting=self.waiting)
        dealt = backing_up.deal(
            world.codec,
            world.roster,
            self.owner,
            backing_up.make_label(self.name),
            policy,
            now=world.now,
            draws=draws,
            after=world.codec.read(after.deal) if after else None,
        )
        spellings = (normalise(self.name),)
        stretched = backing_up.stretch_names(spellings, None, backing_up.pepper_of(dealt), Cost.TOY)
        payload = Payload(self.owner.seed, "raw", self.secret, "", spellings)
        self.backup, self.sealed = backing_up.seal(
            world.codec, world.roster, self.owner, dealt, payload, stretched,
            title="", passphrase=False, now=world.now, draws=draws, after=after,
        )  # fmt: skip

    def deposit(self, seats: list[int] | None = None) -> dict[int, str]:
        """Send the deposits; what each guardian answered, in a word or a sentence."""
        assert self.backup is not None
        world, answers = self.world, {}
        for seat, one in backing_up.deposits(
            world.codec, self.backup, self.sealed.segments
        ).items():
            if seats is not None and seat not in seats:
                continue
            answer = world.request(
                self.link(seat), "deposit",
                deal=one.deal, version=one.version, box=one.box, whole=one.whole,
            )  # fmt: skip
            if answer["kind"] == "reply" and "receipt" in answer:
                self.backup = backing_up.take_receipt(
                    world.codec, world.roster, self.backup, seat, answer["receipt"]
                )
                answers[seat] = "held"
            else:
                answers[seat] = str(answer.get("sentence", "fragments wanted"))
        return answers

    def settle(self) -> list[str]:
        """Send the settled statement to all who hold the version."""
        assert self.backup is not None
        self.backup = backing_up.settle(self.world.codec, self.backup)
        assert self.backup.settled, "not enough receipts to settle"
        answers = []
        for seat in self.backup.receipts:
            answer = self.world.request(self.link(seat), "settle", raw=self.backup.settled)
            answers.append(str(answer.get("sentence", "settled")))
        return answers

    def back_up(self) -> None:
        self.prepare()
        self.deposit()
        self.settle()

    # --- recovering -------------------------------------------------------------------

    def claim(self, seats: list[int], name: str | None = None) -> Claimant:
        """On a new device: claim under the name, at some guardians."""
        return Claimant(self.world, name or self.name, seats)

    def veto(self, claim: Verified, seat: int) -> dict[str, object]:
        statement = owning.veto(
            self.world.codec, self.owner, self.vault, claim.id, "not me", self.world.now
        )
        return dict(self.world.request(self.link(seat), "owner", raw=statement.raw))


class Claimant:
    """A new device that claims what lies under a name."""

    def __init__(self, world: Bare, name: str, seats: list[int]) -> None:
        self.world = world
        self.name = name
        rng = world.rng
        self.device = recovering.Device(
            SigningKey(rng.randbytes(32)), SealingKey(rng.randbytes(32))
        )
        self.claim = recovering.make_claim(
            world.codec, world.roster, self.device, name,
            now=world.now, draws=Draws(rng.randbytes(32)),
        )  # fmt: skip
        self.code = claim_code(stretch(self.claim.id, CODE_SALT, Cost.TOY))
        self.links = {seat: world.wallet(seat) for seat in seats}
        for link in self.links.values():
            world.request(link, "claim", raw=self.claim.raw, code=self.code)
            world.request(link, "follow", claim=self.claim.id)

    def recovery(self) -> recovering.Recovery:
        """Everything heard so far."""
        heard = recovering.Recovery(self.world.codec, self.world.roster, self.claim, self.device)
        for link in self.links.values():
            for message in self.world.heard[link]:
                if message.kind == "release":
                    heard.take_release(message.fields["raw"])
                elif message.kind == "case":
                    for raw in message.fields["votes"]:
                        heard.take_vote(raw)
        return heard

    def open(self, name: str | None = None) -> recovering.Recovered | None:
        """The payload, if enough good pieces are here and the name opens it."""
        for candidate in self.recovery().candidates():
            password = backing_up.stretch_names(
                (normalise(name or self.name),), None, candidate.pepper, Cost.TOY
            )[0]
            name_key = recovering.unlock_name(candidate, password)
            if name_key is not None:
                return recovering.decrypt(candidate, name_key, [candidate.whole])
        return None

    def succeed(self, recovered: recovering.Recovered, seat: int) -> dict[str, object]:
        statement = recovering.succeed(
            self.world.codec, self.device, self.claim, recovered.deal, self.world.now
        )
        link = self.links.get(seat) or self.world.wallet(seat)
        return dict(self.world.request(link, "succeed", raw=statement.raw))
