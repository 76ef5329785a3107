"""Vaults: what is in a piece, a version and a release, and what each is checked against."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import sealing, sharing, vault
from protocol.contract import Verified
from protocol.encoding import decode, encode
from protocol.errors import FaultyPiece, Malformed, Refused, WrongSecret
from protocol.federation import Roster, draft
from protocol.keys import SigningKey
from protocol.limits import CIPHERTEXT_WHOLE_MAX, PAYLOAD_BYTES_MAX
from protocol.policy import Policy, usual_policy
from protocol.statements import NOTHING, Codec
from protocol.vault import Label, Payload, Sealed
from simulations.hosts.bare import START, make_host

OWNER = SigningKey(b"\x31" * 32)


def roster(count: int = 5, threshold: int = 3) -> Roster:
    hosts = [make_host(f"guardian {number}", number) for number in range(count)]
    return draft(
        "Elm Street", threshold, [host.introduction for host in hosts], now=START, nonce=bytes(16)
    )


ROSTER = roster()
CODEC = Codec(ROSTER.id)


def deal(made: Roster = ROSTER, seed: int = 1, policy: Policy | None = None) -> vault.Dealt:
    rng = random.Random(seed)
    return vault.make_deal(
        Codec(made.id), OWNER, made, Label("Rosa Keller", "a hint"),
        policy or usual_policy(made.bounds, len(made.guardians)), first=OWNER.public,
        salt=bytes(16), number=1, now=START,
        entropy=rng.randbytes(vault.deal_entropy(made.threshold)),
    )  # fmt: skip


def seal(dealt: vault.Dealt, secret: bytes = b"the key", made: Roster = ROSTER) -> Sealed:
    return vault.make_version(
        Codec(made.id), OWNER, dealt.deal, dealt.secret, Payload(OWNER.seed, "raw", secret),
        number=1, name_key=b"\x05" * 32, wraps=[bytes(72)], passphrase=False, salt=b"\x06" * 32,
        now=START,
    )  # fmt: skip


DEALT = deal()
SEALED = seal(DEALT)


def body_of(statement: Verified) -> dict[str, Any]:
    return {key: value for key, value in statement.body.items() if key not in ("type", "by")}


@given(seats=st.sets(st.integers(0, 4), min_size=3, max_size=5), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_any_threshold_of_pieces_gives_the_secret(seats: set[int], seed: int) -> None:
    """Three of five, whichever: and every piece passes its checks."""
    dealt = deal(seed=seed)
    vault.check_deal(dealt.deal, ROSTER.id, ROSTER)
    for seat in sorted(seats):
        assert vault.check_piece(dealt.deal, seat, dealt.pieces[seat]).name == "Rosa Keller"

    shares = {seat: dealt.pieces[seat].share for seat in sorted(seats)[:3]}
    assert sharing.encode_scalar(sharing.combine(3, shares)) == dealt.secret


def test_a_piece_of_one_seat_is_none_of_another() -> None:
    """Each seat has a share of its own, and strangers to the deal have none."""
    with pytest.raises(FaultyPiece):
        vault.check_piece(DEALT.deal, 1, DEALT.pieces[0])
    with pytest.raises(FaultyPiece, match="not among the holders"):
        vault.check_piece(DEALT.deal, 7, DEALT.pieces[0])


def test_secrets_do_not_show() -> None:
    """Nothing that holds a share, a pepper or a payload prints it."""
    payload = Payload(OWNER.seed, "raw", b"the key")
    opened = vault.Opened(0, b"share" * 6, b"pepper", DEALT.deal, ())
    for thing, hidden in (
        (DEALT, DEALT.secret),
        (DEALT.pieces[0], DEALT.pieces[0].share),
        (payload, b"the key"),
        (opened, b"share"),
    ):
        for shown in (repr(thing), str(thing), f"{thing}"):
            assert repr(hidden)[2:-1] not in shown
            assert hidden.hex() not in shown


@given(raw=st.binary(max_size=120))
@settings(max_examples=80, deadline=None)
def test_no_bytes_make_a_reader_stumble(raw: bytes) -> None:
    """Pieces, labels and releases of any bytes are refused in order."""
    with pytest.raises(Malformed):
        vault.read_piece(raw)
    with pytest.raises(Malformed):
        vault.read_label(raw)
    with pytest.raises(FaultyPiece):
        vault.read_release(CODEC, 0, raw, DEALT.deal.id)


def test_labels_and_pieces_read_back() -> None:
    """What a guardian keeps is what the owner wrote."""
    label = Label("Rosa Keller", "a hint", b"\x01" * 32, b"\x02" * 32, 3)
    piece = DEALT.pieces[2]

    assert vault.read_label(label.to_bytes()) == label
    assert vault.read_piece(piece.to_bytes()) == piece
    payload = Payload(OWNER.seed, "file", b"bytes", "will.pdf", ("rosa keller",))
    assert vault.read_payload(payload.to_bytes()) == payload
    large = Label("Rosa", card_count=vault.CARD_CHUNKS_MAX + 1)
    with pytest.raises(Malformed, match="larger than it may be"):
        vault.read_label(large.to_bytes())


def test_a_card_opens_with_its_key_alone() -> None:
    """The picture that guardians look at; what is no card says so."""
    key = b"\x08" * 32
    chunks, root = vault.make_card(key, "the scar on my left hand", bytes(200_000))
    assert len(chunks) <= vault.CARD_CHUNKS_MAX
    assert len(root) == 32
    assert vault.open_card(key, chunks) == ("the scar on my left hand", bytes(200_000))
    with pytest.raises(WrongSecret):
        vault.open_card(b"\x09" * 32, chunks)
    for content in ([1, 2], {"line": 5, "picture": b""}, {"line": "x"}):
        with pytest.raises(Malformed, match="not a verification card"):
            vault.open_card(key, [sealing.lock(key, encode(content), bytes(24))])


def test_a_small_secret_travels_whole_and_a_large_one_in_fragments() -> None:
    """The border is the size of the ciphertext, and both kinds pass their checks."""
    small, large = SEALED, seal(DEALT, bytes(5000))

    assert vault.is_whole(small.version)
    vault.check_version(small.version, DEALT.deal, small.whole)
    assert not vault.is_whole(large.version)
    assert large.whole == b""
    vault.check_version(large.version, DEALT.deal, b"")
    assert vault.root_for(large.version, DEALT.deal, 3) == large.version.body["roots"][3]


@pytest.mark.parametrize(
    "changes",
    [
        {"size": CIPHERTEXT_WHOLE_MAX + 1},
        {"segments": 2},
        {"roots": [NOTHING] * 5},
        {"ciphertext": NOTHING},
        {"deal": NOTHING},
        {"vault": NOTHING},
        {"size": 5000, "roots": [NOTHING] * 4},
        {"size": 5000, "roots": [NOTHING] * 5, "segments": 0},
        {"size": 5000, "roots": [NOTHING] * 5, "segments": 2**50},
        {"size": PAYLOAD_BYTES_MAX + 1, "roots": [NOTHING] * 5, "segments": 9},
    ],
)  # fmt: skip
def test_a_version_that_does_not_add_up_is_refused(changes: dict[str, Any]) -> None:
    """Sizes, segments and roots have to fit one another and the deal."""
    version = CODEC.sign(OWNER, "version", {**body_of(SEALED.version), **changes})
    for whole in (SEALED.whole, b""):
        with pytest.raises((FaultyPiece, Refused)):
            vault.check_version(version, DEALT.deal, whole)


@pytest.mark.parametrize(("count", "threshold"), [(2, 2), (3, 2), (32, 2), (32, 32)])
def test_every_size_of_federation_fits(count: int, threshold: int) -> None:
    """A release with three versions at 32 seats still fits an entry of a log."""
    made = roster(count, threshold)
    dealt = deal(made)
    vault.check_deal(dealt.deal, made.id, made)
    sealed = vault.make_version(
        Codec(made.id), OWNER, dealt.deal, dealt.secret, Payload(OWNER.seed, "raw", bytes(1500)),
        number=1, name_key=bytes(32), wraps=[bytes(72)] * 8, passphrase=False, salt=bytes(32),
        now=START,
    )  # fmt: skip
    assert sealed.whole
    plain = vault.release_plain(
        dealt.pieces[0], dealt.deal.raw, [(sealed.version.raw, sealed.whole)] * 3
    )
    largest = vault.release_plain(
        dealt.pieces[0], dealt.deal.raw, [(sealed.version.raw, bytes(CIPHERTEXT_WHOLE_MAX))] * 3
    )
    fields = {
        "epoch": 0, "seat": 0, "incarnation": 0, "seq": 1, "prev": NOTHING, "claim": NOTHING,
        "vault": NOTHING, "deal": NOTHING, "box": sealing.seal(OWNER_BOX, largest, bytes(32)),
        "votes": [NOTHING] * count, "since": 1, "vetoes": [NOTHING] * 32, "at": START,
    }  # fmt: skip

    release = Codec(made.id).sign(OWNER, "release", fields)

    assert Codec(made.id).verify(release.raw, "release").known
    opened = vault.read_release(Codec(made.id), 0, plain, dealt.deal.id)
    assert len(opened.versions) == 3


OWNER_BOX = make_host("device", 40).introduction.body["sealing"]


def test_a_vault_opens_under_one_to_eight_spellings() -> None:
    """No spelling would lock everybody out; more than eight help nobody."""
    for count in (0, 9):
        with pytest.raises(Refused, match="1 to 8 spellings"):
            vault.make_version(
                CODEC, OWNER, DEALT.deal, DEALT.secret, Payload(OWNER.seed, "raw", b""),
                number=1, name_key=bytes(32), wraps=[bytes(72)] * count, passphrase=False,
                salt=bytes(32), now=START,
            )  # fmt: skip


def plain_of(**changes: Any) -> bytes:
    plain = vault.release_plain(
        DEALT.pieces[0], DEALT.deal.raw, [(SEALED.version.raw, SEALED.whole)]
    )
    return encode({**decode(plain, limit=60_000), **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"share": DEALT.pieces[1].share},
        {"share": bytes(32)},
        {"pepper": bytes(16)},
        {"pepper_salt": bytes(32)},
        {"deal": deal(seed=2).deal.raw},
        {"deal": DEALT.deal.raw[:-1] + b"\x00"},
        {"versions": []},
        {"versions": [[SEALED.version.raw, b""]]},
        {"versions": [[SEALED.version.raw, bytes(len(SEALED.whole))]]},
        {"versions": [[seal(deal(seed=2)).version.raw, SEALED.whole]]},
        {"versions": [[SEALED.version.raw]]},
        {"versions": 5},
        {"label": b"never"},
    ],
)
def test_a_spoilt_release_is_its_guardians_fault(changes: dict[str, Any]) -> None:
    """Every part is held against what the owner signed; the label is not even there."""
    assert vault.read_release(CODEC, 0, plain_of(), DEALT.deal.id).share == DEALT.pieces[0].share
    assert DEALT.pieces[0].label not in plain_of()

    with pytest.raises(FaultyPiece):
        vault.read_release(CODEC, 0, plain_of(**changes), DEALT.deal.id)


def test_a_deal_binds_its_vault_to_federation_and_owner() -> None:
    """A vault's id says whose it is and where; another federation is another vault."""
    with pytest.raises(FaultyPiece, match="names a vault"):
        vault.check_deal(DEALT.deal, bytes(32))
    ids = {
        vault.vault_id(first, federation, salt)
        for first in (OWNER.public, bytes(32))
        for federation in (ROSTER.id, bytes(32))
        for salt in (bytes(16), b"\x01" * 16)
    }
    assert len(ids) == 8
