"""Recovering: any threshold of good pieces gives the secret back, and bad ones are named."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import sealing, vault
from protocol.contract import Verified
from protocol.errors import FaultyPiece, NotEnough, Refused, WrongSecret
from protocol.federation import Roster, draft, introduce
from protocol.keys import SealingKey, SigningKey
from protocol.names import normalise
from protocol.sealing import Cost
from protocol.statements import NOTHING, Codec
from protocol.vault import Payload
from protocol.wallet import backing_up, recovering
from protocol.wallet.backing_up import Backup
from protocol.wallet.drawing import Draws
from protocol.wallet.gathering import Gathering
from protocol.wallet.recovering import Caught, Device, Recovered, Recovery

NOW = 1_750_000_000_000
NAME = "Rosa Keller"
LIES = ("share", "pepper", "whole", "version", "device", "garbage", "deal")


def seed(number: int) -> bytes:
    return number.to_bytes(32, "big")


@dataclass
class World:
    """A federation of `count` guardians and a vault that they hold."""

    count: int
    threshold: int
    secret: bytes = b"the key"
    passphrase: str | None = None
    roster: Roster = field(init=False)
    codec: Codec = field(init=False)
    backup: Backup = field(init=False)
    sealed: vault.Sealed = field(init=False)
    claim: Verified = field(init=False)

    def __post_init__(self) -> None:
        self.identities = [SigningKey(seed(100 + seat)) for seat in range(self.count)]
        self.boxes = [SealingKey(seed(200 + seat)) for seat in range(self.count)]
        introductions = [
            introduce(
                self.identities[seat], name=f"g{seat}", sealing=self.boxes[seat].public,
                transport=seed(300 + seat), certificate=bytes(64), address=f"h:{seat + 1}",
                contact="", languages=[], hours="", now=NOW,
            )
            for seat in range(self.count)
        ]  # fmt: skip
        self.roster = draft("Keepers", self.threshold, introductions, now=NOW, nonce=bytes(16))
        self.codec = Codec(self.roster.id)
        self.owner = SigningKey(seed(1))
        self.device = Device(SigningKey(seed(2)), SealingKey(seed(3)))
        self.claim = recovering.make_claim(
            self.codec, self.roster, self.device, NAME, now=NOW, draws=Draws(seed(4))
        )
        self.backup, self.sealed = self.make_backup(self.owner, 5)

    def make_backup(self, owner: SigningKey, number: int) -> tuple[Backup, vault.Sealed]:
        draws = Draws(seed(number))
        label, policy = backing_up.make_label(NAME), backing_up.policy_for(self.roster)
        self.dealt = backing_up.deal(
            self.codec, self.roster, owner, label, policy, now=NOW, draws=draws
        )
        spellings = (normalise(NAME),)
        payload = Payload(owner.seed, "raw", self.secret, "", spellings)
        pepper = backing_up.pepper_of(self.dealt)
        stretched = backing_up.stretch_names(spellings, self.passphrase, pepper, Cost.TOY)
        return backing_up.seal(
            self.codec, self.roster, owner, self.dealt, payload, stretched, title="",
            passphrase=self.passphrase is not None, now=NOW, draws=draws,
        )  # fmt: skip

    def piece(self, seat: int) -> vault.Piece:
        return vault.read_piece(self.boxes[seat].open(self.backup.pieces[seat]))

    def release(self, seat: int, lie: str = "", **more: Any) -> bytes:
        """A guardian's release entry; `lie` says what is false in it."""
        piece, deal = self.piece(seat), self.backup.deal
        versions = more.get("versions") or [(self.backup.version, self.sealed.whole)]
        to = self.device.sealing.public
        if lie == "share":
            piece = replace(piece, share=self.piece((seat + 1) % self.count).share)
        elif lie == "pepper":
            piece = replace(piece, pepper=bytes(16))
        elif lie == "whole":
            versions = [(versions[0][0], bytes(len(versions[0][1])))]
        elif lie == "version":
            version = self.codec.read(self.backup.version)
            body = {key: version.body[key] for key in version.body if key not in ("type", "by")}
            forged = self.codec.sign(self.identities[seat], "version", {**body, "number": 99})
            versions = [(forged.raw, versions[0][1])]
        elif lie == "device":
            to = SealingKey(seed(9)).public
        plain = vault.release_plain(piece, deal, versions)
        if lie == "garbage":
            plain = b"\x00" * 40
        deal_id = bytes(32) if lie == "deal" else self.codec.read(deal).id
        fields = {
            "epoch": 0, "seat": seat, "incarnation": 0, "seq": 1, "prev": NOTHING,
            "claim": more.get("claim", self.claim.id),
            "vault": self.codec.read(deal).body["vault"], "deal": deal_id,
            "box": sealing.seal(to, plain, seed(400 + seat)),
            "votes": [], "since": NOW, "vetoes": [], "at": NOW,
        }  # fmt: skip
        return self.codec.sign(self.identities[seat], "release", fields).raw

    def vote(self, seat: int, revision: int, verdict: str, words: str = "") -> bytes:
        fields = {
            "epoch": 0, "seat": seat, "incarnation": 0, "seq": revision + 1, "prev": NOTHING,
            "claim": self.claim.id, "vault": NOTHING, "deal": NOTHING, "verdict": verdict,
            "how": "", "words": words, "revision": revision, "veto": NOTHING, "at": NOW,
        }  # fmt: skip
        return self.codec.sign(self.identities[seat], "vote", fields).raw

    def recovery(self) -> Recovery:
        return Recovery(self.codec, self.roster, self.claim, self.device)

    def open(self, recovery: Recovery, name: str = NAME) -> Recovered | None:
        for candidate in recovery.candidates():
            password = sealing.name_password(normalise(name), self.passphrase)
            key = recovering.unlock_name(
                candidate, sealing.stretch(password, candidate.pepper, Cost.TOY)
            )
            if key is not None:
                return recovering.decrypt(candidate, key, [candidate.whole])
        return None


WORLDS = [World(2, 2), World(5, 3), World(7, 5)]


@st.composite
def answers(draw: st.DrawFn) -> tuple[World, list[tuple[int, str]]]:
    world = draw(st.sampled_from(WORLDS))
    seats = draw(st.permutations(range(world.count)))
    told = draw(st.integers(0, world.count))
    return world, [(seat, draw(st.sampled_from(("", "", *LIES)))) for seat in seats[:told]]


@given(answers())
@settings(max_examples=60, deadline=None)
def test_a_threshold_of_good_pieces_is_what_it_takes(
    told: tuple[World, list[tuple[int, str]]],
) -> None:
    """Any t good releases among bad ones give the secret, t - 1 never; every bad one is named."""
    world, releases = told
    recovery = world.recovery()
    for seat, lie in releases:
        result = recovery.take_release(world.release(seat, lie))
        assert isinstance(result, Caught) == bool(lie)

    good = sorted(seat for seat, lie in releases if not lie)
    assert recovery.good == good
    assert [caught.guardian for caught in recovery.caught] == sorted(
        f"g{seat}" for seat, lie in releases if lie
    )
    opened = world.open(recovery)
    if len(good) >= world.threshold:
        assert recovery.missing() == 0
        assert opened is not None
        assert opened.payload.secret == world.secret
        assert opened.payload.owner == world.owner.seed
    else:
        assert opened is None
        assert recovery.candidates() == []


@given(st.permutations(range(5)), st.lists(st.integers(0, 4), max_size=8))
@settings(max_examples=20, deadline=None)
def test_order_and_repetition_do_not_matter(order: list[int], again: list[int]) -> None:
    """The same releases in any order, any number of times, come to the same candidates."""
    world = WORLDS[1]
    once, other = world.recovery(), world.recovery()
    for seat in range(5):
        once.take_release(world.release(seat))
    for seat in (*order, *again):
        other.take_release(world.release(seat))
    assert other.candidates() == once.candidates()
    restored = world.recovery()
    restored.restore(other.kept())
    assert restored.candidates() == once.candidates()


def test_a_release_for_another_claim_is_not_taken() -> None:
    """What belongs to another claim counts nothing and blames nobody."""
    world = WORLDS[1]
    recovery = world.recovery()
    assert recovery.take_release(world.release(0, claim=bytes(32))) is None
    assert recovery.caught == []


def test_a_changed_release_blames_nobody() -> None:
    """A release whose signature fails may have been damaged by whoever carried it."""
    world = WORLDS[1]
    recovery = world.recovery()
    raw = bytearray(world.release(0))
    raw[200] ^= 1
    assert recovery.take_release(bytes(raw)) is None
    assert recovery.caught == []


def test_the_newest_version_with_enough_holders_goes_first() -> None:
    """A version that only one guardian holds comes after one that a threshold holds."""
    world = World(5, 3)
    old = (world.backup.version, world.sealed.whole)
    payload = Payload(world.owner.seed, "raw", b"newer", "", (normalise(NAME),))
    stretched = backing_up.stretch_names((normalise(NAME),), None, world.backup.pepper, Cost.TOY)
    later, sealed = backing_up.seal_again(
        world.codec, world.backup, payload, stretched,
        passphrase=False, now=NOW, draws=Draws(seed(77)),
    )  # fmt: skip
    new = (later.version, sealed.whole)
    few, many = world.recovery(), world.recovery()
    for seat in range(4):
        few.take_release(world.release(seat, versions=[old, new] if seat == 0 else [old]))
        many.take_release(world.release(seat, versions=[old, new] if seat < 3 else [old]))

    first = [world.open(each) for each in (few, many)]

    assert [each.payload.secret for each in first if each] == [b"the key", b"newer"]


def test_two_liars_cannot_invent_a_deal() -> None:
    """A made-up deal for two passes in a federation of threshold three for nobody's."""
    world, small = World(5, 3), World(5, 2)
    small.codec, small.device, small.claim = world.codec, world.device, world.claim
    small.roster = replace(world.roster, threshold=2)
    small.backup, small.sealed = small.make_backup(SigningKey(seed(66)), 67)
    recovery = world.recovery()
    for seat in (3, 4):
        assert isinstance(recovery.take_release(small.release(seat)), Caught)
    assert recovery.candidates() == []


def test_the_highest_revision_of_a_vote_counts() -> None:
    """A vote that arrives late does not replace the change of mind that came before it."""
    world = WORLDS[1]
    recovery = world.recovery()
    later = recovery.take_vote(world.vote(1, 1, "approve"))
    assert later is not None
    assert later.guardian == "g1"
    assert recovery.take_vote(world.vote(1, 0, "ask", "which town?")) is None
    assert [vote.verdict for vote in recovery.votes] == ["approve"]


def test_a_wrong_name_opens_nothing_and_loses_nothing() -> None:
    """After a wrong name the same pieces open under the right one."""
    world = World(5, 3, passphrase="correct horse")
    recovery = world.recovery()
    for seat in range(3):
        recovery.take_release(world.release(seat))
    assert world.open(recovery, "Omar Haddad") is None
    world.passphrase = "another"
    assert world.open(recovery) is None
    world.passphrase = "correct horse"
    assert world.open(recovery) is not None


def test_a_claim_hides_the_name_from_all_but_guardians() -> None:
    """Each guardian opens the name with its own wrap, and its length does not show."""
    world = WORLDS[1]
    short = recovering.make_claim(
        world.codec, world.roster, world.device, "Bo Ek", now=NOW, draws=Draws(seed(8))
    )
    body = world.claim.body
    assert len(short.body["name"]) == len(body["name"])
    for seat in range(5):
        key = world.boxes[seat].open(body["wraps"][seat])
        assert sealing.unlock(key, body["name"]).rstrip(b"\0").decode() == NAME


def test_a_claim_for_nobody_is_refused() -> None:
    """A name with fewer than two letters is refused before anything is signed."""
    world = WORLDS[1]
    with pytest.raises(Refused, match="letters"):
        recovering.make_claim(
            world.codec, world.roster, world.device, "7", now=NOW, draws=Draws(seed(8))
        )


# --- large ones ------------------------------------------------------------------------

LARGE = World(5, 3, secret=bytes(range(256)) * 2500)


def large_recovery() -> Recovery:
    recovery = LARGE.recovery()
    for seat in range(5):
        recovery.take_release(LARGE.release(seat))
    return recovery


@given(st.permutations(range(5)), st.sets(st.integers(0, 4), max_size=2))
@settings(max_examples=10, deadline=None)
def test_fragments_of_a_threshold_give_a_large_secret(order: list[int], liars: set[int]) -> None:
    """False fragments are refused one by one, and any three honest holders suffice."""
    (candidate,) = large_recovery().candidates()
    gathering = Gathering(candidate)
    parts = {
        seat: backing_up.fragment_messages(deposit.parts)
        for seat, deposit in backing_up.deposits(
            LARGE.codec, LARGE.backup, LARGE.sealed.segments
        ).items()
    }
    for seat in order:
        for message in parts[seat]:
            data = message["data"]
            if seat in liars:
                with pytest.raises(FaultyPiece):
                    gathering.take(seat, message["index"], data[:-1] + b"!", message["path"])
            else:
                gathering.take(seat, message["index"], data, message["path"])

    key = sealing.unwrap_name_key(
        candidate.version.body["wraps"],
        backing_up.stretch_names((normalise(NAME),), None, candidate.pepper, Cost.TOY)[0],
    )
    assert key is not None
    opened = recovering.decrypt(candidate, key, gathering.segments())
    assert opened.payload.secret == LARGE.secret


def test_two_holders_are_not_enough_for_a_large_secret() -> None:
    """With fragments of two of three needed, nothing is put together."""
    (candidate,) = large_recovery().candidates()
    gathering = Gathering(candidate)
    due = backing_up.deposits(LARGE.codec, LARGE.backup, LARGE.sealed.segments)
    for seat in (0, 3):
        for message in backing_up.fragment_messages(due[seat].parts):
            gathering.take(seat, message["index"], message["data"], message["path"])
    with pytest.raises(NotEnough, match="0 of 3"):
        gathering.segments()


def test_other_ciphertext_is_never_decrypted() -> None:
    """Segments that are not the ones the owner signed are refused before the key is used."""
    world = WORLDS[1]
    recovery = world.recovery()
    for seat in range(3):
        recovery.take_release(world.release(seat))
    (candidate,) = recovery.candidates()
    with pytest.raises(FaultyPiece, match="not the one the owner signed"):
        recovering.decrypt(candidate, bytes(32), [bytes(300)])
    with pytest.raises(WrongSecret):
        recovering.decrypt(candidate, bytes(32), [candidate.whole])


def test_the_succession_names_claim_and_former_key() -> None:
    """The device that claimed signs that it follows the key that dealt."""
    world = WORLDS[1]
    deal = world.codec.read(world.backup.deal)
    statement = recovering.succeed(world.codec, world.device, world.claim, deal, NOW)
    assert statement.by == world.claim.by
    assert statement.body["former"] == world.owner.public
    assert statement.body["claim"] == world.claim.id
