"""Backing up: what is sent never changes, receipts are checked, and the sentence is plain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import vault
from protocol.encoding import decode, encode
from protocol.errors import FaultyPiece, Refused, WrongSecret
from protocol.federation import draft, introduce
from protocol.keys import SealingKey, SigningKey
from protocol.limits import SECRET_BYTES_MAX
from protocol.sealing import Cost
from protocol.statements import Codec
from protocol.vault import Payload
from protocol.wallet import backing_up, preparing
from protocol.wallet.backing_up import Backup
from protocol.wallet.drawing import Draws
from protocol.wallet.standing import standing

NOW = 1_750_000_000_000
NAMES = ("ada", "ben", "cleo", "dev", "eve")
OWNER = SigningKey(bytes([1]) * 32)
IDENTITIES = [SigningKey(bytes([10 + seat]) * 32) for seat in range(5)]
BOXES = [SealingKey(bytes([20 + seat]) * 32) for seat in range(5)]
ROSTER = draft(
    "Keepers",
    3,
    [
        introduce(
            IDENTITIES[seat], name=name, sealing=BOXES[seat].public,
            transport=bytes([30 + seat]) * 32, certificate=bytes(64), address=f"h:{seat + 1}",
            contact="", languages=[], hours="", now=NOW,
        )
        for seat, name in enumerate(NAMES)
    ],
    now=NOW,
    nonce=bytes(16),
)  # fmt: skip
CODEC = Codec(ROSTER.id)


@dataclass
class Made:
    backup: Backup
    sealed: vault.Sealed


def make(secret: bytes = b"secret", *, after: Backup | None = None, seed: int = 7) -> Made:
    draws = Draws(bytes([seed]) * 32)
    earlier = CODEC.read(after.deal) if after else None
    dealt = backing_up.deal(
        CODEC, ROSTER, OWNER, backing_up.make_label("Rosa Keller"), backing_up.policy_for(ROSTER),
        now=NOW, draws=draws, after=earlier,
    )  # fmt: skip
    payload = Payload(OWNER.seed, "raw", secret, "", ("rosa keller",))
    stretched = backing_up.stretch_names(
        payload.spellings, None, backing_up.pepper_of(dealt), Cost.TOY
    )
    return Made(
        *backing_up.seal(
            CODEC, ROSTER, OWNER, dealt, payload, stretched, title="key", passphrase=False,
            now=NOW, draws=draws, after=after,
        )
    )  # fmt: skip


FIRST = make()


def receipt(backup: Backup, by: int, /, **other: object) -> bytes:
    deal, version = CODEC.read(backup.deal), CODEC.read(backup.version)
    fields = {"vault": deal.body["vault"], "deal": deal.id, "version": version.id, "seat": by}
    key = IDENTITIES[int(str(other.pop("signer", by)))]
    return CODEC.sign(key, "receipt", {**fields, "at": NOW, **other}).raw


def held_by(backup: Backup, *seats: int) -> Backup:
    for seat in seats:
        backup = backing_up.take_receipt(CODEC, ROSTER, backup, seat, receipt(backup, seat))
    return backup


@given(st.sets(st.integers(0, 4)), st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_repetition_sends_the_same_bytes(held: set[int], large: bool) -> None:
    """After any receipts and a restart, whoever has not answered is sent the same again."""
    made = LARGE if large else FIRST
    first = backing_up.deposits(CODEC, made.backup, made.sealed.segments)
    kept = encode(held_by(made.backup, *sorted(held)).to_map())
    again = backing_up.read_backup(decode(kept, limit=len(kept)))

    second = backing_up.deposits(CODEC, again, made.sealed.segments)

    assert second == {seat: first[seat] for seat in range(5) if seat not in held}


LARGE = make(b"x" * 300_000, seed=8)


def test_every_guardian_can_open_its_own_piece_and_no_other() -> None:
    """A piece is sealed to one guardian, and passes every check that this guardian makes."""
    deal = CODEC.read(FIRST.backup.deal)
    for seat in range(5):
        piece = vault.read_piece(BOXES[seat].open(FIRST.backup.pieces[seat]))
        assert vault.check_piece(deal, seat, piece).name == "Rosa Keller"
        with pytest.raises(WrongSecret):
            BOXES[(seat + 1) % 5].open(FIRST.backup.pieces[seat])


@pytest.mark.parametrize(
    ("seats", "sentence"),
    [
        ((0, 1, 2, 3, 4), "5 of 5 hold a piece; any 3 give your key back"),
        (
            (1, 2, 3, 4),
            "4 of 5 hold a piece; any 3 give your key back; "
            "ada has not answered, run `holdfast wallet resume`",
        ),
        (
            (1, 2),
            "2 of 5 hold a piece; 3 are needed, so this backup gives nothing back yet; "
            "ada, dev and eve have not answered, run `holdfast wallet resume`",
        ),
    ],
)
def test_the_sentence_says_what_it_means(seats: tuple[int, ...], sentence: str) -> None:
    """Who holds a piece, whether that is enough, and whom to ask again."""
    stands = standing(CODEC, ROSTER, held_by(FIRST.backup, *seats))
    assert stands.sentence == sentence
    assert stands.safe == (len(seats) >= 3)
    assert stands.complete == (len(seats) == 5)


@pytest.mark.parametrize(
    "wrong", [{"seat": 1}, {"version": bytes(32)}, {"deal": bytes(32)}, {"signer": 1}]
)
def test_a_receipt_for_something_else_is_refused_by_name(wrong: dict[str, object]) -> None:
    """Only the guardian's own signature under this very version counts as a receipt."""
    with pytest.raises(FaultyPiece, match="ada"):
        backing_up.take_receipt(CODEC, ROSTER, FIRST.backup, 0, receipt(FIRST.backup, 0, **wrong))
    with pytest.raises(FaultyPiece, match="ada"):
        backing_up.take_receipt(CODEC, ROSTER, FIRST.backup, 0, b"no receipt")


def test_the_first_version_settles_when_all_hold_it() -> None:
    """Four of five do not settle a first backup, five do, and once."""
    four = held_by(FIRST.backup, 0, 1, 2, 3)
    assert backing_up.settle(CODEC, four) is four
    settled = backing_up.settle(CODEC, held_by(four, 4))
    assert CODEC.verify(settled.settled, "settled").body["version"]
    assert backing_up.settle(CODEC, settled) is settled


def test_a_new_version_settles_when_as_many_hold_it() -> None:
    """After a version that four held and settled, four are enough; three are not."""
    before = backing_up.settle(CODEC, held_by(FIRST.backup, 0, 1, 2, 3, 4))
    four = backing_up.settle(CODEC, held_by(make(after=before, seed=9).backup, 0, 1, 2, 3))
    assert not four.settled
    fewer = replace(before, receipts={seat: before.receipts[seat] for seat in range(4)})
    again = make(after=fewer, seed=10).backup
    assert not backing_up.settle(CODEC, held_by(again, 0, 1, 2)).settled
    assert backing_up.settle(CODEC, held_by(again, 0, 1, 2, 4)).settled


def test_a_new_deal_has_a_higher_number_and_new_pieces() -> None:
    """Dealing anew counts on, keeps the vault, and shares another secret."""
    later = make(after=FIRST.backup, seed=11).backup
    old, new = CODEC.read(FIRST.backup.deal).body, CODEC.read(later.deal).body
    assert (new["vault"], new["number"]) == (old["vault"], old["number"] + 1)
    assert later.secret != FIRST.backup.secret
    assert CODEC.read(later.version).body["number"] == 2
    above = backing_up.deal(
        CODEC, ROSTER, OWNER, backing_up.make_label("Rosa Keller"), backing_up.policy_for(ROSTER),
        now=NOW, draws=Draws(bytes(32)), after=CODEC.read(later.deal), above=9,
    )  # fmt: skip
    assert above.deal.body["number"] == 10


def test_other_names_need_no_new_pieces() -> None:
    """A version under other spellings goes out without boxes to whoever has this deal."""
    held = held_by(FIRST.backup, 0, 1)
    payload = Payload(OWNER.seed, "raw", b"secret", "", ("rosa keller", "rosa lindqvist"))
    stretched = backing_up.stretch_names(payload.spellings, None, held.pepper, Cost.TOY)
    later, sealed = backing_up.seal_again(
        CODEC, held, payload, stretched, passphrase=False, now=NOW, draws=Draws(bytes(32))
    )
    due = backing_up.deposits(CODEC, later, sealed.segments)
    assert [bool(due[seat].box) for seat in range(5)] == [False, False, True, True, True]
    for one in stretched:
        backing_up.check_stretched(CODEC, later, one)
    with pytest.raises(WrongSecret):
        backing_up.check_stretched(CODEC, later, bytes(32))


def test_limits_are_refused_with_their_numbers() -> None:
    """Too large a secret, too many spellings, an empty passphrase: refused before any work."""
    with pytest.raises(Refused, match=str(SECRET_BYTES_MAX)):
        preparing.check_secret(bytes(SECRET_BYTES_MAX + 1))
    with pytest.raises(Refused, match="empty"):
        preparing.check_secret(b"")
    with pytest.raises(Refused, match="1 to 8"):
        preparing.check_spellings([f"Rosa Keller {word}" for word in "abcdefghi"])
    with pytest.raises(Refused, match="passphrase"):
        preparing.check_passphrase("")
    assert preparing.check_spellings(["Rosa Keller", "rosa  KELLER"]) == ("rosa keller",)


def test_a_card_of_the_largest_picture_fits() -> None:
    """A line and 256 KiB of picture make a card that opens again; more is refused."""
    picture = bytes(256 * 1024)
    card = preparing.make_card("We met in Lisbon", picture, Draws(bytes(32)))
    assert card is not None
    assert vault.open_card(card.key, card.chunks) == ("We met in Lisbon", picture)
    with pytest.raises(Refused, match="too large"):
        preparing.make_card("", bytes(400 * 1024), Draws(bytes(32)))
    assert preparing.make_card("", b"", Draws(bytes(32))) is None


def test_what_is_kept_never_shows_when_printed() -> None:
    """No secret of a backup appears in its printed form."""
    shown = repr(FIRST.backup) + repr(
        backing_up.deposits(CODEC, FIRST.backup, FIRST.sealed.segments)
    )
    for secret in (FIRST.backup.owner, FIRST.backup.secret):
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown


def test_draws_never_repeat() -> None:
    """One seed gives the same bytes in the same order, and no two draws are alike."""
    draws, again = Draws(bytes(32)), Draws(bytes(32))
    first = [draws.draw(size) for size in (32, 1, 64, 32)]
    assert first == [again.draw(size) for size in (32, 1, 64, 32)]
    assert len({first[0], first[3], first[2][:32], first[2][32:]}) == 4
