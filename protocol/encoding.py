"""Turn values into bytes and text, one way only, and hash them.

Whatever is signed, hashed or kept is deterministic CBOR: equal values give equal bytes, and
bytes that are not the only encoding of their value are refused. No schema lives here; what a
map must hold is the business of `statements` and of the module that owns the map.

Rules of the CBOR used (RFC 8949): integers of 64 bits, byte strings, text, arrays, maps with
text keys, false, true and null. Shortest lengths and integers, definite lengths, keys ordered
by length and then by bytes. No floats, no tags, no `undefined`, at most `DEPTH_MAX` levels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn

import cbor2

from protocol.errors import Malformed
from protocol.limits import DEPTH_MAX

HASH_BYTES: Final = 32
DOMAIN_BYTES_MAX: Final = 16  # the personalisation field of BLAKE2b
INT_MAX: Final = 2**64 - 1  # CBOR's own integers; larger ones need tags
INT_MIN: Final = -(2**64)
ARMOUR_CHARS_MAX: Final = 1024 * 1024  # of armoured text: far more than anyone will type or scan

# --- CBOR ------------------------------------------------------------------------------


def encode(value: Any) -> bytes:
    """Return the one CBOR encoding of `value`.

    Takes int, bytes, str, bool, None, list, tuple (written as an array) and dict with str
    keys, of exactly these types: an enum member or another subclass must be made plain by
    the caller, so that what is decoded equals what was encoded.

    Raises TypeError for any other type (floats among them), ValueError for an integer beyond
    64 bits, text that is not valid Unicode, and nesting beyond `DEPTH_MAX`.
    """
    _inspect(value, 0)
    return cbor2.dumps(value, canonical=True)


def decode(raw: bytes, *, limit: int) -> Any:
    """Return the value that `raw` is the one encoding of.

    `limit` is in bytes. Arrays come back as lists. Raises Malformed, and nothing else,
    whatever the bytes are.
    """
    value = decode_loosely(raw, limit=limit)
    try:
        _inspect(value, 0)
        again = cbor2.dumps(value, canonical=True)
    except (TypeError, ValueError) as error:
        raise Malformed(f"This message holds something Holdfast never writes: {error}.") from error
    # SPEC 1.10: one encoding for each value, whatever rule was broken.
    if again != raw:
        raise _unusual()
    return value


def decode_loosely(raw: bytes, *, limit: int) -> Any:
    """Return a value that `raw` encodes, perhaps not in the one way that counts.

    Half of `decode`, in half the time: for what we wrote ourselves, and for whoever checks
    types and the order of keys against a schema and then calls `check_ordered`, which comes to
    the same. Raises Malformed as `decode` does.
    """
    if len(raw) > limit:
        raise Malformed(f"This message has {len(raw)} bytes, and at most {limit} are allowed.")
    try:
        return cbor2.loads(
            raw,
            max_depth=DEPTH_MAX,
            allow_indefinite=False,
            allow_duplicate_keys=False,
            tag_hook=_refuse_tag,
            semantic_decoders=_NO_TAGS,
        )
    except Exception as error:
        raise Malformed(
            "This message is damaged: its bytes are not in the form that Holdfast writes."
        ) from error


def check_ordered(value: dict[str, Any], raw: bytes) -> None:
    """Return if `raw` is the one encoding of a map, else raise Malformed.

    The caller has made sure that the keys of it, and of every map in it, stand in order (see
    `in_order`) and that there is nothing in it but what `encode` takes.
    """
    if cbor2.dumps(value) != raw:
        raise _unusual()


def encode_ordered(value: dict[str, Any]) -> bytes:
    """Return what `encode` does for a map whose keys stand in order, in a third of the time.

    For rows of our own, of plain values and no maps, on the way that every vote takes.
    """
    return cbor2.dumps(value)


def in_order(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the keys of a map in the order of its encoding."""
    return tuple(sorted(keys, key=lambda key: (len(key.encode()), key.encode())))


def _unusual() -> Malformed:
    return Malformed(
        "This message is written in an unusual way: "
        "the same content has a shorter or differently ordered form, and only that one counts."
    )


def _inspect(value: Any, depth: int) -> None:
    kind = type(value)
    if kind is str or kind is bytes or kind is bool or value is None:
        return
    if kind is int:
        if not INT_MIN <= value <= INT_MAX:
            raise ValueError("a number of more than 64 bits")
        return
    if depth == DEPTH_MAX:
        raise ValueError(f"lists within lists, more than {DEPTH_MAX} deep")
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise TypeError(f"a map with a key that is not text but {type(key).__name__}")
            _inspect(item, depth + 1)
    elif kind is list or kind is tuple:
        for item in value:
            _inspect(item, depth + 1)
    else:
        raise TypeError(f"a value of type {kind.__name__}")


def _refuse_tag(*_: object) -> NoReturn:
    raise ValueError("tags are not used")


class _NoTags(dict[int, Callable[..., Any]]):
    """Every tag that cbor2 knows, answered by a refusal.

    Without it the library would build dates, fractions and regular expressions from a
    stranger's bytes before anyone looks at them.
    """

    def __missing__(self, tag: int) -> Callable[..., Any]:
        return _refuse_tag


_NO_TAGS: Final = _NoTags()

# --- hash ------------------------------------------------------------------------------


def hash256(domain: str, *parts: bytes) -> bytes:
    """Return the 32 bytes of BLAKE2b-256 over `parts`, personalised with `domain`.

    Each part is preceded by its length (8 bytes, big-endian), so that no byte can move from
    one part to the next. `domain` is 1 to 16 ASCII bytes and says what is being hashed, so
    that a hash made for one purpose never serves another.
    """
    person = domain.encode("ascii")
    if not 0 < len(person) <= DOMAIN_BYTES_MAX:
        raise ValueError(f"a hash domain has 1 to {DOMAIN_BYTES_MAX} bytes, not {len(person)}")
    whole = b"".join([piece for part in parts for piece in (len(part).to_bytes(8, "big"), part)])
    return hashlib.blake2b(whole, digest_size=HASH_BYTES, person=person).digest()


# --- text for people: bech32m ----------------------------------------------------------

_ALPHABET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32M: Final = 0x2BC830A3  # BIP-350
_CHECKSUM_CHARS: Final = 6
_LOCATABLE_CHARS: Final = 1023  # beyond this length two places can share one syndrome


def to_text(prefix: str, data: bytes) -> str:
    """Return `data` as bech32m text (BIP-350), in capitals and of any length.

    `prefix` says what the text is: 1 to 83 printable ASCII characters. Capitals, because a
    QR code stores them in fewer modules. Raises ValueError for a bad prefix.
    """
    low = _checked_prefix(prefix)
    values = _regroup(data)
    check = _residue(_expand(low) + values + [0] * _CHECKSUM_CHARS) ^ _BECH32M
    values += [check >> 5 * (_CHECKSUM_CHARS - 1 - i) & 31 for i in range(_CHECKSUM_CHARS)]
    return (low + "1" + "".join(_ALPHABET[value] for value in values)).upper()


def from_text(prefix: str, text: str) -> bytes:
    """Return the data in bech32m `text` made with `prefix`.

    Spaces and line breaks are ignored; capitals and small letters are both fine, though not
    mixed. Raises Malformed with the place of the mistake where one character alone explains
    it. The place is never corrected: two mistakes can look like another one.
    """
    low = _checked_prefix(prefix)
    if len(text) > ARMOUR_CHARS_MAX:
        raise Malformed(f"This text has {len(text)} characters; at most {ARMOUR_CHARS_MAX} fit.")
    places = [place for place, letter in enumerate(text) if not letter.isspace()]
    clean = "".join(text[place] for place in places)
    if not clean:
        raise Malformed("The text is empty.")
    if clean != clean.upper() and clean != clean.lower():
        raise Malformed(
            "The text mixes capitals and small letters; all of one kind is needed.",
            hint="Copy it again as it was given.",
        )
    clean = clean.lower()
    start = len(low) + 1
    if not clean.startswith(low + "1"):
        raise Malformed(
            f"This is a different kind of text: it does not begin with {(low + '1').upper()}.",
            hint="Check that this is the text that was asked for.",
        )
    values = []
    for index in range(start, len(clean)):
        value = _VALUES.get(clean[index])
        if value is None:
            raise _mistyped("is not a character that can occur", text, places[index])
        values.append(value)
    _check(low, values, text, places[start:])
    return _join(values[:-_CHECKSUM_CHARS])


def _checked_prefix(prefix: str) -> str:
    if not 0 < len(prefix) <= 83 or any(not 33 <= ord(letter) <= 126 for letter in prefix):
        raise ValueError("a text prefix has 1 to 83 printable ASCII characters")
    if prefix != prefix.lower() and prefix != prefix.upper():
        raise ValueError("a text prefix is all capitals or all small letters")
    return prefix.lower()


def _check(low: str, values: list[int], text: str, places: list[int]) -> None:
    if len(values) < _CHECKSUM_CHARS:
        raise Malformed("The text is cut off: too few characters are left to check it.")
    syndrome = _residue(_expand(low) + values) ^ _BECH32M
    if not syndrome:
        return
    index = _locate(syndrome, len(values))
    if index is not None:
        raise _mistyped("looks mistyped", text, places[index])
    raise Malformed(
        "The text does not check out: something in it is mistyped, missing or swapped.",
        hint="Copy or scan it again.",
    )


def _mistyped(what: str, text: str, place: int) -> Malformed:
    # Only the place is told: the text itself may be a secret.
    lines = text[: place + 1].splitlines()
    where = f"character {len(lines[-1])}"
    if len(text.splitlines()) > 1:
        where = f"{where} of line {len(lines)}"
    return Malformed(f"In this text {where} {what}.", hint="Compare it with the original.")


def _locate(syndrome: int, length: int) -> int | None:
    """Return the index of the one value whose change explains `syndrome`, or None."""
    if length > _LOCATABLE_CHARS:
        return None
    effects = [1 << bit for bit in range(5)]
    for back in range(length):
        for error in range(1, 32):
            effect = 0
            for bit in range(5):
                if error >> bit & 1:
                    effect ^= effects[bit]
            if effect == syndrome:
                return length - 1 - back
        effects = [_step(effect, 0) for effect in effects]
    return None


def _expand(low: str) -> list[int]:
    codes = low.encode("ascii")
    return [code >> 5 for code in codes] + [0] + [code & 31 for code in codes]


def _step(residue: int, value: int) -> int:
    top = residue >> 25
    residue = (residue & 0x1FFFFFF) << 5 ^ value
    for bit in range(5):
        if top >> bit & 1:
            residue ^= _GENERATOR[bit]
    return residue


def _residue(values: list[int]) -> int:
    residue = 1
    for value in values:
        residue = _step(residue, value)
    return residue


def _regroup(data: bytes) -> list[int]:
    values = []
    held = bits = 0
    for byte in data:
        held = held << 8 | byte
        bits += 8
        while bits >= 5:
            bits -= 5
            values.append(held >> bits & 31)
        held &= (1 << bits) - 1
    if bits:
        values.append(held << 5 - bits & 31)
    return values


def _join(values: list[int]) -> bytes:
    data = bytearray()
    held = bits = 0
    for value in values:
        held = held << 5 | value
        bits += 5
        if bits >= 8:
            bits -= 8
            data.append(held >> bits)
            held &= (1 << bits) - 1
    if bits >= 5 or held:
        raise Malformed("The text checks out, but its last characters hold no whole byte.")
    return bytes(data)
