"""Deterministic CBOR, hashes and text for people."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.encoding import decode, encode, from_text, hash256, to_text
from protocol.errors import HoldfastError, Malformed

VECTORS = Path(os.environ.get("HOLDFAST_VECTORS", Path(__file__).parents[3] / "shared" / "vectors"))
LIMIT = 64 * 1024

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=5)
    ),
    max_leaves=25,
)


@settings(max_examples=200, deadline=None)
@given(values)
def test_round_trip(value: Any) -> None:
    """What is encoded comes back equal."""
    assert decode(encode(value), limit=LIMIT) == value


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(raw: bytes) -> None:
    """Any bytes at all are either the one encoding of a value, or Malformed."""
    try:
        value = decode(raw, limit=LIMIT)
    except Malformed:
        return
    assert encode(value) == raw


@settings(max_examples=200, deadline=None)
@given(values, st.data())
def test_changed_bytes(value: Any, data: st.DataObject) -> None:
    """Bytes that differ by one from an encoding never decode to the same value."""
    raw = bytearray(encode(value))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    try:
        other = decode(bytes(raw), limit=LIMIT)
    except Malformed:
        return
    assert encode(other) == bytes(raw) != encode(value)


def test_key_order_does_not_matter() -> None:
    """Two maps with equal content have equal bytes, whatever order they were built in."""
    assert encode({"b": 1, "aa": 2, "a": 3}) == encode({"a": 3, "aa": 2, "b": 1})
    assert encode({"b": 1, "aa": 2, "a": 3}).hex() == "a361610361620162616102"
    assert encode((1, [2])) == encode([1, (2,)])


@pytest.mark.parametrize(
    "value", [1.0, {1: 2}, {b"k": 1}, {1, 2}, bytearray(b"x"), object(), [0.5], {"a": {2: 3}}]
)
def test_encode_refuses_types(value: Any) -> None:
    """Floats, keys that are not text and foreign types are refused before anything is signed."""
    with pytest.raises(TypeError):
        encode(value)


@pytest.mark.parametrize("value", [2**64, -(2**64) - 1, "\ud800", [[]] * 3 + [2**70]])
def test_encode_refuses_values(value: Any) -> None:
    """Integers beyond 64 bits and text that is not Unicode are refused."""
    with pytest.raises(ValueError):
        encode(value)


def nested(levels: int) -> list[Any]:
    """Build lists within lists."""
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_depth() -> None:
    """Sixteen levels pass both ways and seventeen neither way."""
    assert decode(encode(nested(16)), limit=LIMIT) == nested(16)
    with pytest.raises(ValueError):
        encode(nested(17))
    with pytest.raises(Malformed):
        decode(b"\x81" * 16 + b"\x80", limit=LIMIT)
    with pytest.raises(Malformed):
        decode(b"\x81" * 60_000, limit=LIMIT)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("empty", ""),
        ("trailing byte", "0000"),
        ("long integer", "1800"),
        ("long length", "7800"),
        ("duplicate key", "a2616101616102"),
        ("unordered keys", "a2616201616100"),
        ("longer key first", "a262616101616202"),
        ("indefinite list", "9fff"),
        ("float", "f93c00"),
        ("undefined", "f7"),
        ("simple value", "f0"),
        ("tag: date", "c11a514b67b0"),
        ("tag: bignum", "c249010000000000000000"),
        ("tag: bignum that fits", "c24101"),
        ("tag: shared", "d81c80"),
        ("tag: self-described", "d9d9f700"),
        ("tag: regular expression", "d8236161"),
        ("tag: fraction of huge exponent", "c5821b7fffffffffffffff01"),
        ("tag: unknown", "da7fffffff00"),
        ("integer key", "a10102"),
        ("null key", "a1f6f6"),
        ("broken text", "62c328"),
        ("huge announced list", "9b7fffffffffffffff"),
        ("huge announced bytes", "5bffffffffffffffff"),
        ("reserved length", "1c"),
        ("break alone", "ff"),
    ],
)
def test_decode_refuses(name: str, raw: str) -> None:
    """Everything that is not the one encoding of an allowed value is Malformed."""
    with pytest.raises(Malformed):
        decode(bytes.fromhex(raw), limit=LIMIT)


def test_limit() -> None:
    """The limit is met exactly, and the refusal names both numbers."""
    raw = encode(b"x" * 10)
    assert decode(raw, limit=len(raw)) == b"x" * 10
    with pytest.raises(Malformed, match="11 bytes, and at most 10"):
        decode(raw, limit=len(raw) - 1)


def test_appendix_a() -> None:
    """The examples of RFC 8949 decode to what it says, or are refused for a rule of ours."""
    path = VECTORS / "cbor-appendix-a.json"
    if not path.exists():
        pytest.skip(f"no test vectors in {path.parent}")
    taken = 0
    for vector in json.loads(path.read_text()):
        raw = bytes.fromhex(vector["hex"])
        head, kinds = raw[0] >> 5, vector["hex"]
        special = head == 6 or (head == 7 and raw[0] not in (0xF4, 0xF5, 0xF6))
        if special or not vector["roundtrip"] or kinds == "a201020304":
            with pytest.raises(Malformed):
                decode(raw, limit=LIMIT)
            continue
        taken += 1
        value = decode(raw, limit=LIMIT)
        assert encode(value) == raw
        if "decoded" in vector:
            assert value == vector["decoded"]
    assert taken == 36


def test_no_library_error_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the library raises, the caller sees Malformed."""

    def explode(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(cbor2, "loads", explode)
    with pytest.raises(Malformed):
        decode(b"\x00", limit=LIMIT)


# --- hash ------------------------------------------------------------------------------


def test_hash_parts_do_not_shift() -> None:
    """No byte can move from one part to the next, nor a hash from one purpose to another."""
    seen = [
        hash256("a", b"ab", b"c"),
        hash256("a", b"a", b"bc"),
        hash256("a", b"abc"),
        hash256("a", b"abc", b""),
        hash256("b", b"abc"),
        hash256("a"),
    ]
    assert len(set(seen)) == len(seen)
    assert {len(each) for each in seen} == {32}


def test_hash_pinned() -> None:
    """The hash of one example never changes."""
    assert hash256("holdfast test", b"abc", b"").hex() == PINNED_HASH


@pytest.mark.parametrize("domain", ["", "x" * 17, "ü"])
def test_hash_domain(domain: str) -> None:
    """A domain is 1 to 16 ASCII bytes."""
    with pytest.raises(ValueError):
        hash256(domain, b"")


PINNED_HASH = "f352c33acd3182290b4dd9f81e8819ab376934a7da6fb88b618d1583b765191a"

# --- text ------------------------------------------------------------------------------

SPLIT = "split1checkupstagehandshakeupstreamerranterredcaperredlc445v"
LONG = "an83characterlonghumanreadablepartthatcontainsthetheexcludedcharactersbioandnumber1"


@pytest.mark.parametrize(
    ("prefix", "text", "data"),
    [
        ("A", "A1LQFN3A", ""),
        ("a", "a1lqfn3a", ""),
        (LONG, LONG + "1sg7hg6", ""),
        (
            "abcdef",
            "abcdef1l7aum6echk45nj3s0wdvt2fg8x9yrzpqzd3ryx",
            "ffbbcdeb38bdab49ca307b9ac5a928398a418820",
        ),
        ("split", SPLIT, "c5f38b70305f519bf66d85fb6cf03058f3dde463ecd7918f2dc743918f2d"),
        ("?", "?1v759aa", ""),
    ],
)
def test_bip350_valid(prefix: str, text: str, data: str) -> None:
    """The valid examples of BIP-350 are read and written."""
    assert from_text(prefix, text).hex() == data
    assert to_text(prefix, bytes.fromhex(data)) == text.upper()


def test_bip350_bits_left_over() -> None:
    """A checksum that holds over bits that make no whole byte is refused."""
    with pytest.raises(Malformed, match="whole byte"):
        from_text("1", "11" + "l" * 82 + "ludsr8")


@pytest.mark.parametrize(
    ("prefix", "text"),
    [
        ("q", "qyrz8wqd2c9m"),
        ("y", "y1b0jsk6g"),
        ("lt", "lt1igcx5c0"),
        ("in", "in1muywd"),
        ("mm", "mm1crxm3i"),
        ("au", "au1s5cgom"),
        ("m", "M1VUXWEZ"),
        ("p", "1p2gdwpf"),
        ("a", "a1LQFN3A"),
        ("a", "a12uel5l"),  # bech32, not bech32m
        ("a", ""),
        ("a", " \n"),
        ("a", "a1"),
        ("a", "a"),
        ("ab", "a1lqfn3a"),
        ("a", "ａ1lqfn3a"),
    ],
)
def test_bip350_invalid(prefix: str, text: str) -> None:
    """The invalid examples of BIP-350, mixed case and foreign letters are refused."""
    with pytest.raises(Malformed):
        from_text(prefix, text)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300), st.booleans(), st.integers(1, 50))
def test_text_round_trip(data: bytes, small: bool, width: int) -> None:
    """Text is read back in either case, however it was broken into lines."""
    text = to_text("HF", data)
    assert text == text.upper()
    shown = "\r\n ".join(text[at : at + width] for at in range(0, len(text), width))
    assert from_text("hf", shown.lower() if small else shown) == data


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=200), st.data())
def test_one_mistake_is_located(data: bytes, draw: st.DataObject) -> None:
    """One mistyped character is found and its place told, by line and by column."""
    text = to_text("hf", data)
    place = draw.draw(st.integers(3, len(text) - 1))
    letters = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L1BIO"
    letter = draw.draw(st.sampled_from(sorted(set(letters) - {text[place]})))
    wrong = text[:place] + letter + text[place + 1 :]
    with pytest.raises(Malformed, match=f"character {place + 1} "):
        from_text("hf", wrong)
    lines = "\n".join(wrong[at : at + 10] for at in range(0, len(wrong), 10))
    if len(wrong) > 10:
        with pytest.raises(
            Malformed, match=f"character {place % 10 + 1} of line {place // 10 + 1} "
        ):
            from_text("hf", lines)


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=8, max_size=100), st.randoms(use_true_random=False))
def test_mistakes_are_found(data: bytes, random: Any) -> None:
    """Up to four mistyped characters are always noticed in a text of this length."""
    text = list(to_text("hf", data[:40]))
    for place in random.sample(range(3, len(text)), random.randint(1, 4)):
        text[place] = random.choice(sorted(set("QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L") - {text[place]}))
    with pytest.raises(Malformed):
        from_text("hf", "".join(text))


@pytest.mark.parametrize("prefix", ["", "a b", "aB", "ü", "x" * 84])
def test_prefix(prefix: str) -> None:
    """A prefix that could not be written is a mistake of ours."""
    with pytest.raises(ValueError):
        to_text(prefix, b"")


def test_sentences_hold_no_content() -> None:
    """A refusal of a text never repeats what the text holds."""
    secret = to_text("hf", b"very secret bytes")
    for text in (secret[:-1], secret[:9] + "BB" + secret[11:], "X" + secret, secret[::-1]):
        with pytest.raises(HoldfastError) as caught:
            from_text("hf", text)
        assert secret[5:15] not in str(caught.value)


def test_long_text() -> None:
    """A long text is refused in time linear in its length, and beyond the limit at once."""
    with pytest.raises(Malformed):
        from_text("hf", "HF1" + "Q" * 5000)
    with pytest.raises(Malformed, match="at most"):
        from_text("hf", "HF1" + "Q" * 1024 * 1024)
