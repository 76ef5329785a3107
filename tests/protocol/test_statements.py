"""Statements: one encoding each, one signature each, and nothing else gets through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.contract import Place
from protocol.encoding import decode, encode
from protocol.errors import BadSignature, Malformed
from protocol.keys import SigningKey
from protocol.statements import (
    CARRIED,
    ENTRIES,
    ENTRY_BYTES_MAX,
    LOG,
    NOTHING,
    NOWHERE,
    OTHERS,
    Codec,
    is_entry,
    place_of,
)

VECTORS = Path(__file__).parents[3] / "shared" / "vectors" / "cose"
KEY = SigningKey(b"\x01" * 32)
OTHER = SigningKey(b"\x02" * 32)
CODEC = Codec(b"\x07" * 32)
HEAD = bytes.fromhex("d28443a10127a0")

VOTE: dict[str, Any] = {
    "epoch": 0,
    "seat": 2,
    "incarnation": 0,
    "seq": 1,
    "prev": NOTHING,
    "claim": b"\x11" * 32,
    "vault": b"\x12" * 32,
    "deal": b"\x13" * 32,
    "verdict": "approve",
    "how": "in person",
    "words": "we met at the market",
    "revision": 0,
    "veto": NOTHING,
    "at": 1_800_000_000_000,
}
SEEN: dict[str, Any] = {"vault": b"\x12" * 32, "at": 5}
LOGGED: dict[str, Any] = {key: VOTE[key] for key in LOG}


def wrap(payload: bytes, key: SigningKey = KEY, codec: Codec = CODEC) -> bytes:
    """Sign bytes as they are, whatever they hold."""
    framed = encode(payload)
    before = b"\x84\x6aSignature1\x43\xa1\x01\x27" + encode(b"holdfast/1/" + codec.federation)
    return HEAD + framed + b"\x58\x40" + key.sign(before + framed)


def test_a_statement_reads_back_as_it_was_signed() -> None:
    """What was signed, by whom, and its id come back from the bytes alone."""
    made = CODEC.sign(KEY, "vote", VOTE)

    read = CODEC.verify(made.raw, "vote")

    assert read == made
    assert read.by == KEY.public
    assert read.known
    assert place_of(read) == Place(2, 0, 1)
    assert {key: read.body[key] for key in VOTE} == VOTE


def test_a_statement_is_a_cose_sign1_message() -> None:
    """Tag 18, one protected header that says EdDSA, no unprotected one, our external data."""
    made = CODEC.sign(KEY, "seen", SEEN)

    assert made.raw[0] == 0xD2
    protected, unprotected, payload, signature = decode(made.raw[1:], limit=1000)
    assert protected == b"\xa1\x01\x27"
    assert unprotected == {}
    assert decode(payload, limit=1000) == {"type": "seen", "by": KEY.public, **SEEN}
    signed = encode(["Signature1", protected, b"holdfast/1/" + CODEC.federation, payload])
    assert KEY.sign(signed) == signature


def test_a_statement_holds_in_its_own_federation_only() -> None:
    """The federation is signed along, so nothing is carried from one to another."""
    made = CODEC.sign(KEY, "seen", SEEN)

    with pytest.raises(BadSignature):
        Codec(b"\x08" * 32).verify(made.raw)
    with pytest.raises(BadSignature):
        Codec(NOWHERE).verify(made.raw)
    assert Codec(b"\x08" * 32).sign(KEY, "seen", SEEN).id != made.id


def test_the_id_depends_on_the_signer_and_not_on_the_signature() -> None:
    """Two signatures of one statement make one statement; two signers make two."""
    mine, theirs = CODEC.sign(KEY, "seen", SEEN), CODEC.sign(OTHER, "seen", SEEN)
    changed = mine.raw[:-64] + bytes(64)

    assert mine.id != theirs.id
    assert CODEC.read(changed).id == mine.id
    with pytest.raises(BadSignature):
        CODEC.verify(changed)


def test_another_type_than_the_expected_is_refused() -> None:
    """A veto does not pass where a check-in is asked for."""
    made = CODEC.sign(KEY, "seen", SEEN)

    with pytest.raises(Malformed, match="a veto or check-in was expected and a seen came"):
        CODEC.verify(made.raw, "veto", "check-in")


def test_a_statement_with_wrong_fields_is_never_signed() -> None:
    """What does not fit its schema is a bug of ours, found before it is signed."""
    for fields in ({}, {**SEEN, "more": 1}, {**SEEN, "at": -1}, {**SEEN, "at": True}):
        with pytest.raises(ValueError, match="does not look like this"):
            CODEC.sign(KEY, "seen", fields)


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_refused_in_order(raw: bytes) -> None:
    """Whatever arrives, only `Malformed` comes out, with the right head or without."""
    for attempt in (raw, HEAD + raw, HEAD + encode(raw) + b"\x58\x40" + bytes(64)):
        with pytest.raises(Malformed):
            CODEC.verify(attempt)


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.binary(max_size=40)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)  # fmt: skip


@given(
    type_=st.sampled_from([*ENTRIES, *OTHERS, "later"]),
    extra=st.dictionaries(
        st.sampled_from(sorted({key for fields in [LOG, *ENTRIES.values(), *OTHERS.values()]
                                for key in fields})), JSON_LIKE, max_size=10),
    logged=st.booleans(),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_a_signed_payload_of_any_content_is_known_or_refused(
    type_: str, extra: dict[str, Any], logged: bool
) -> None:
    """A stranger can sign anything; what is let through has its fields or stands in a log."""
    body = {"type": type_, "by": KEY.public, **extra, **(LOGGED if logged else {})}
    try:
        read = CODEC.verify(wrap(encode(body)))
    except Malformed:
        return
    assert read.known or is_entry(read.body)


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_no_flipped_bit_is_let_through(place: int, bit: int) -> None:
    """Every single bit counts: in the envelope, the payload and the signature."""
    raw = bytearray(CODEC.sign(KEY, "vote", VOTE).raw)
    raw[place % len(raw)] ^= 1 << bit

    with pytest.raises(Malformed):
        CODEC.verify(bytes(raw))


@given(cut=st.integers(0, 10_000), more=st.binary(max_size=3))
@settings(max_examples=100, deadline=None)
def test_no_shortened_or_lengthened_statement_is_let_through(cut: int, more: bytes) -> None:
    """A statement has one length."""
    raw = CODEC.sign(KEY, "vote", VOTE).raw
    changed = raw[: cut % len(raw)] + more

    if changed != raw:
        with pytest.raises(Malformed):
            CODEC.verify(changed)
    if more:
        with pytest.raises(Malformed):
            CODEC.verify(raw + more)


def test_the_same_content_in_another_encoding_is_refused() -> None:
    """Keys in another order, longer numbers and lengths, tags, floats: all signed, all refused."""
    plain = encode({"type": "seen", "by": KEY.public, **SEEN})
    assert CODEC.verify(wrap(plain)).known
    at = plain.index(b"\x62at\x05")
    for other in (
        plain[:at] + b"\x62at\x18\x05" + plain[at + 4 :],
        plain[:at] + b"\x62at\xf9\x45\x00" + plain[at + 4 :],
        plain[:at] + b"\x62at\xc0\x05" + plain[at + 4 :],
        plain[:at] + b"\x78\x02at\x05" + plain[at + 4 :],
        b"\xa5" + plain[1:] + b"\x62at\x05",
        b"\xbf" + plain[1:] + b"\xff",
        b"\xb8\x04" + plain[1:],
        plain[:1] + plain[at : at + 4] + plain[1:at] + plain[at + 4 :],
    ):
        if other != plain:
            with pytest.raises(Malformed):
                CODEC.verify(wrap(other))


def test_the_envelope_has_one_form() -> None:
    """Longer lengths, other tags, a header more: refused before a signature is looked at."""
    raw = CODEC.sign(KEY, "seen", SEEN).raw
    framed = raw[len(HEAD) : -66]
    content = decode(framed, limit=1000)
    for other in (
        HEAD + b"\x59" + len(content).to_bytes(2, "big") + content + raw[-66:],
        HEAD + framed + b"\x59\x00\x40" + raw[-64:],
        b"\xd8\x12" + raw[1:],
        raw[1:],
        raw.replace(HEAD, bytes.fromhex("d28443a10126a0")),
        raw.replace(HEAD, bytes.fromhex("d28444a1011827a0")),
        raw.replace(HEAD, bytes.fromhex("d28443a10127a1044131")),
    ):
        with pytest.raises(Malformed, match="statement"):
            CODEC.verify(other)


def test_an_oversized_statement_is_refused_unread() -> None:
    """The cap is the first check of all."""
    with pytest.raises(Malformed, match="65000"):
        CODEC.verify(HEAD + bytes(70_000))


def test_an_entry_of_an_unknown_type_is_kept_and_not_acted_on() -> None:
    """Later versions may write entries that this one relays without understanding them."""
    body = {"type": "motion", "by": KEY.public, **LOGGED, "anything": [1, "two"]}

    read = CODEC.verify(wrap(encode(body)))

    assert not read.known
    assert place_of(read) == Place(2, 0, 1)


def test_a_known_entry_with_a_field_more_is_kept_and_not_acted_on() -> None:
    """A vote of a later minor version is not mistaken for one of ours."""
    body = {"type": "vote", "by": KEY.public, **VOTE, "more": 1}

    assert not CODEC.verify(wrap(encode(body))).known


def test_an_unknown_statement_outside_a_log_is_refused() -> None:
    """Only what has a place in a log can be kept without being understood."""
    with pytest.raises(Malformed, match="does not have the fields"):
        CODEC.verify(wrap(encode({"type": "motion", "by": KEY.public, "at": 1})))
    zero = {"type": "motion", "by": KEY.public, **LOGGED, "seq": 0}
    with pytest.raises(Malformed, match="does not have the fields"):
        CODEC.verify(wrap(encode(zero)))


@pytest.mark.parametrize("type_", [*OTHERS, *ENTRIES])
def test_who_asks_for_a_type_gets_its_fields(type_: str) -> None:
    """A statement dressed up as an entry of a later version is not handed out as a known one."""
    body = {"type": type_, "by": KEY.public, **LOGGED, "seq": 1, "odd": 1}

    with pytest.raises(Malformed, match="does not have the fields"):
        CODEC.verify(wrap(encode(body)), type_)


def test_two_entries_at_one_place_always_fit_a_proof() -> None:
    """No log entry is so large that its author could not be held to it."""
    body = {"type": "later", "by": KEY.public, **LOGGED}
    large = wrap(encode({**body, "filler": bytes(ENTRY_BYTES_MAX)}))
    fitting = wrap(encode({**body, "filler": bytes(ENTRY_BYTES_MAX - 400)}))

    with pytest.raises(Malformed, match="a log entry has"):
        CODEC.verify(large)
    assert CODEC.verify(fitting).type == "later"
    proof = {**LOGGED, "accused": KEY.public, "first": fitting, "second": fitting}
    made = CODEC.sign(OTHER, "misbehaviour", proof)
    assert CODEC.verify(made.raw, "misbehaviour").known


def test_what_guardians_carry_is_signed_by_members() -> None:
    """No entry of a log can itself be carried in one."""
    assert not [type_ for type_ in CARRIED if type_ in ENTRIES]
    assert all(type_ in OTHERS for type_ in CARRIED)


def test_a_statement_put_together_from_parts_is_checked() -> None:
    """A bare signature over a known body verifies, and a wrong one does not."""
    made = CODEC.sign(KEY, "seen", SEEN)

    again = CODEC.assemble("seen", KEY.public, SEEN, made.raw[-64:])

    assert again.raw == made.raw
    with pytest.raises(BadSignature):
        CODEC.assemble("seen", OTHER.public, SEEN, made.raw[-64:])


def test_a_key_of_small_order_signs_nothing() -> None:
    """A key for which any signature would hold is refused."""
    weak = b"\x01" + bytes(31)
    body = encode({"type": "seen", "by": weak, **SEEN})
    raw = HEAD + encode(body) + b"\x58\x40" + weak + bytes(32)

    with pytest.raises(BadSignature):
        CODEC.verify(raw)


# --- the published examples of COSE ------------------------------------------------------


def examples() -> list[dict[str, Any]]:
    if not VECTORS.is_dir():
        return []
    return [json.loads(path.read_text()) for path in sorted(VECTORS.glob("*.json"))]


needs_vectors = pytest.mark.skipif(
    not VECTORS.is_dir(), reason="the published COSE examples are not beside the repository"
)


@needs_vectors
def test_our_signatures_are_those_of_the_published_examples() -> None:
    """Over the published bytes to be signed, our key makes the published signature."""
    found = 0
    for example in examples():
        key = example["input"].get("sign0", {}).get("key", {})
        if key.get("crv") != "Ed25519":
            continue
        found += 1
        ours = SigningKey(bytes.fromhex(key["d_hex"]))
        signed = bytes.fromhex(example["intermediates"]["ToBeSign_hex"])
        assert ours.public.hex() == key["x_hex"]
        assert bytes.fromhex(example["output"]["cbor"])[-64:] == ours.sign(signed)
    assert found


@needs_vectors
def test_published_messages_that_are_none_of_ours_are_refused() -> None:
    """Valid COSE with other headers, keys or tags, and broken COSE: one answer for all."""
    for example in examples():
        with pytest.raises(Malformed):
            CODEC.verify(bytes.fromhex(example["output"]["cbor"]))
