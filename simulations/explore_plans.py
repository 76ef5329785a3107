"""What the explorer walks through: plans, and the federation they are played in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from protocol.contract import Command, Event, Received, Seat, Told, Verified
from protocol.contract import Message as Sent
from protocol.keys import SigningKey
from protocol.limits import MINUTE
from protocol.statements import NOTHING
from protocol.wallet import owning
from simulations.explore_cores import WALLET, Remembering
from simulations.explore_oracle import Truth
from simulations.hosts import member as people
from simulations.hosts.bare import Bare

NAMES: Final = ("ada", "ben", "cleo", "dev")
HONEST: Final = (0, 1, 2)
LIAR: Final = 3  # dev
TICK: Final = 1 * MINUTE  # how much time passes at a guardian in one step


@dataclass(frozen=True)
class Plan:
    """What may happen, besides deliveries in any order.

    `before` has been done, and has arrived everywhere, when the walk begins. `acts` are what
    the persons at the honest guardians do, each in this order. `veto` lists where the owner's
    veto may arrive, one of them. `lies` are the statements that the liar may show.
    """

    about: str
    acts: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    before: tuple[tuple[Seat, str], ...] = ((0, "open"),)
    veto: tuple[Seat, ...] = ()
    lies: tuple[str, ...] = ()
    crashes: int = 0
    crashing: tuple[Seat, ...] = HONEST
    compares: int = 0
    ticks: int = 0
    waiting: int = 0


PLANS: Final[dict[str, Plan]] = {
    "votes": Plan(
        "votes, one of them twice, and a crash",
        (("approve", "approve"), ("approve",), ()),
        ticks=1,
        crashes=1,
        crashing=(0,),
    ),
    "veto": Plan(
        "votes, a veto at one guardian, a crash",
        (("approve",), ("approve",), ("approve",)),
        veto=(1,),
        crashes=1,
        crashing=(1, 2),
    ),
    "liar": Plan(
        "a liar shows two faces; guardians compare",
        (("approve",), ("approve",), ()),
        lies=("yes", "no"),
        compares=1,
    ),
    "twice": Plan(
        "a liar signs two votes of one revision into one log",
        (("approve",), ("approve",), ()),
        lies=("no", "yes after no"),
        compares=1,
    ),
    "elsewhere": Plan(
        "a liar votes on another claim and another vault; a crash",
        (("approve",), ("approve",), ()),
        lies=("rival", "elsewhere"),
        crashes=1,
        crashing=(1,),
    ),
    "rivals": Plan(
        "two claims on one vault",
        (("approve", "approve rival"), ("approve",), ("approve rival",)),
        before=((0, "open rival"), (0, "open")),
        lies=("yes", "rival"),
    ),
    "carrier": Plan(
        "a liar carries the owner's veto, to some, and shows others another face",
        (("approve",), (), ("approve",)),
        veto=(1,),
        lies=("veto", "yes"),
        compares=1,
    ),
    "forger": Plan(
        "a liar carries a veto that it forged; a crash",
        (("approve",), ("approve",), ("approve",)),
        lies=("forged veto",),
        crashes=1,
        crashing=(1,),
    ),
    "override": Plan(
        "a veto, and votes in spite of it",
        (("approve", "insist"), ("insist",), ("insist", "reject")),
        veto=(1,),
    ),
    "waiting": Plan(
        "a waiting period, a veto, a crash",
        (("approve",), (), ()),
        before=((0, "open"), (1, "approve"), (2, "approve")),
        veto=(1,),
        crashes=1,
        crashing=(0,),
        ticks=2,
        waiting=2 * TICK,
    ),
    "full": Plan(
        "votes, a veto, a crash of anyone, a liar with two faces",
        (("approve",), ("approve",), ()),
        veto=(2,),
        lies=("yes", "no"),
        crashes=1,
    ),
    "wide": Plan(
        "the same with a third voter: for nights",
        (("approve",), ("approve",), ("approve",)),
        veto=(1,),
        lies=("yes", "no"),
        crashes=1,
    ),
}

# --- the setting -----------------------------------------------------------------------


@dataclass
class Setting:
    """A federation of four with one vault and two claims on it, ready for the walk."""

    plan: Plan
    world: Bare = field(init=False)

    def __post_init__(self) -> None:
        self.world = Bare(NAMES, 3, waiting=self.plan.waiting)
        self.world.mesh()
        self.world.run()
        owner = people.Member(self.world, "Rosa Keller", waiting=self.plan.waiting)
        owner.back_up()
        self.claimants = {
            "": owner.claim(list(HONEST)),
            " rival": owner.claim(list(HONEST)),
        }
        assert owner.backup is not None
        codec, self.owner = self.world.codec, owner
        self.codec = Remembering(codec.federation)
        self.deal = self.codec.verify(owner.backup.deal)
        claim = self.claimants[""].claim
        self.veto = owning.veto(codec, owner.owner, owner.vault, claim.id, "not me", self.world.now)
        self.lies = self._lies()

    def truth(self) -> Truth:
        devices = {one.claim.id: one.device.sealing for one in self.claimants.values()}
        return Truth(self.world.roster, self.codec, self.owner.owner.public, self.deal, devices)

    def asks(self, seat: Seat, act: str) -> Event:
        """What a person, or the owner's wallet, asks of a node."""
        verb, _, which = act.partition(" ")
        if verb == "veto":
            return Received(WALLET, Sent("owner", {"request": 1, "raw": self.veto.raw}))
        code = self.claimants[" " + which if which else ""].code
        wanted: dict[str, dict[str, Any]] = {
            "open": {"code": code},
            "approve": {"code": code, "how": "in person"},
            "insist": {"code": code, "how": "in person", "despite_veto": True},
            "reject": {"case": code, "words": "I was wrong"},
        }
        return Told(1, Command("approve" if verb == "insist" else verb, wanted[verb]))

    # --- what the liar has up its sleeve ----------------------------------------------

    def _lies(self) -> dict[str, tuple[str, Verified]]:
        """The liar's statements by name, each with the name of the one it stands on."""
        claim, rival = (self.claimants[which].claim.id for which in ("", " rival"))
        vault, deal, now = self.owner.vault, self.deal.id, self.world.now
        forger = SigningKey(bytes(32))
        forged = owning.veto(self.world.codec, forger, vault, claim, "not me", now)
        yes = self._vote(claim, vault, deal)
        signed: dict[str, tuple[str, Verified]] = {}
        for name, on, kind, fields in (
            ("yes", "", "vote", yes),
            ("no", "", "vote", self._vote(claim, NOTHING, NOTHING)),
            ("rival", "", "vote", self._vote(rival, vault, deal)),
            ("elsewhere", "", "vote", self._vote(claim, bytes([7]) * 32, deal)),
            ("veto", "", "carry", {"raw": self.veto.raw}),
            ("forged veto", "", "carry", {"raw": forged.raw}),
            ("yes after no", "no", "vote", yes),
        ):
            signed[name] = (on, self._sign(kind, fields, signed[on][1] if on else None))
        return signed

    def _vote(self, claim: bytes, vault: bytes, deal: bytes) -> dict[str, Any]:
        yes = vault != NOTHING
        return {
            "claim": claim, "vault": vault, "deal": deal,
            "verdict": "approve" if yes else "reject",
            "how": "in person" if yes else "", "words": "" if yes else "no",
            "revision": 0, "veto": NOTHING, "at": self.world.now,
        }  # fmt: skip

    def _sign(self, kind: str, fields: dict[str, Any], on: Verified | None) -> Verified:
        place = {
            "epoch": self.world.roster.epoch, "seat": LIAR, "incarnation": 0,
            "seq": on.body["seq"] + 1 if on else 1, "prev": on.id if on else NOTHING,
        }  # fmt: skip
        key = self.world.hosts[LIAR].keys.identity
        return self.codec.verify(self.world.codec.sign(key, kind, {**place, **fields}).raw)
