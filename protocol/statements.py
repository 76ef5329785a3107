"""Statements: everything that is signed, as COSE_Sign1 (RFC 9052) over deterministic CBOR.

A statement is ``18([<<{1: -8}>>, {}, payload, signature])``: EdDSA, one protected header,
no unprotected one. The payload is a map with text keys; `by` holds the signer's key, so
that a statement verifies without knowing anyone. The external data ``holdfast/1/`` ‖
federation id binds it to one federation (32 zero bytes before there is one).

A statement's id is a hash over what is signed, and the signer, never over the signature: a
signer can make two valid signatures of one statement. Who *may* sign what is decided
elsewhere; here is only what a statement looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from protocol.contract import Place, Verified
from protocol.encoding import check_ordered, decode, decode_loosely, encode, hash256, in_order
from protocol.errors import Malformed
from protocol.keys import SigningKey, verify
from protocol.limits import (
    CONTACT_BYTES_MAX,
    NAME_BYTES_MAX,
    SEATS_MAX,
    SPELLINGS_MAX,
    STATEMENT_BYTES_MAX,
    TEXT_CHARS_MAX,
)

Check = Callable[[Any], bool]

NOWHERE: Final = bytes(32)  # the federation id before there is a federation
NOTHING: Final = bytes(32)  # an id field that names nothing

ENTRY_BYTES_MAX: Final = 32_000  # of a log entry, so that two of them fit a proof of misbehaviour

# --- the shapes of fields --------------------------------------------------------------

UINT_MAX: Final = 2**53 - 1  # what every language reads exactly


def uint(value: Any) -> bool:
    return type(value) is int and 0 <= value <= UINT_MAX


def flag(value: Any) -> bool:
    return type(value) is bool


def _any(value: Any) -> bool:
    return True  # checked before the type is known


def octets(size: int) -> Check:
    return lambda value: type(value) is bytes and len(value) == size


def octets_up_to(size: int) -> Check:
    return lambda value: type(value) is bytes and len(value) <= size


def text(size: int) -> Check:
    """At most `size` bytes of UTF-8."""
    return lambda value: type(value) is str and len(value.encode()) <= size


def one_of(*words: str) -> Check:
    return lambda value: type(value) is str and value in words


def list_of(check: Check, most: int) -> Check:
    return lambda value: type(value) is list and len(value) <= most and all(map(check, value))


def shape(fields: Mapping[str, Check]) -> Check:
    def holds(value: Any) -> bool:
        return type(value) is dict and fits(value, fields)

    return holds


def fits(body: Mapping[str, Any], fields: Mapping[str, Check]) -> bool:
    return body.keys() == fields.keys() and all(fields[key](body[key]) for key in fields)


key32 = octets(32)
id32 = octets(32)
words = text(TEXT_CHARS_MAX * 4)  # characters of up to four bytes

# --- the statements --------------------------------------------------------------------

POLICY: Final = {"quorum": uint, "waiting": uint, "override": uint, "rehearsal": flag}

# An entry of a guardian's log says where it stands; `prev` is the id of the entry before.
LOG: Final[dict[str, Check]] = {
    "epoch": uint,
    "seat": uint,
    "incarnation": uint,
    "seq": uint,
    "prev": id32,
}

ENTRIES: Final[dict[str, dict[str, Check]]] = {
    "carry": {"raw": octets_up_to(16 * 1024)},
    "vote": {
        "claim": id32,
        "vault": id32,
        "deal": id32,
        "verdict": one_of("approve", "reject", "ask"),
        "how": one_of("in person", "by video", "other", ""),
        "words": words,
        "revision": uint,
        "veto": id32,
        "at": uint,
    },
    "release": {
        "claim": id32,
        "vault": id32,
        "deal": id32,
        "box": octets_up_to(28 * 1024),
        "votes": list_of(id32, SEATS_MAX),
        "since": uint,
        "vetoes": list_of(id32, SEATS_MAX),
        "at": uint,
    },
    "address": {
        "number": uint,
        "address": text(CONTACT_BYTES_MAX),
        "transport": key32,
        "certificate": octets(64),
    },
    "admit": {"member": key32, "at": uint},
    "misbehaviour": {
        "accused": key32,
        "first": octets_up_to(ENTRY_BYTES_MAX),
        "second": octets_up_to(ENTRY_BYTES_MAX),
    },
}

OTHERS: Final[dict[str, dict[str, Check]]] = {
    "introduction": {
        "name": text(NAME_BYTES_MAX),
        "sealing": key32,
        "transport": key32,
        "certificate": octets(64),
        "address": text(CONTACT_BYTES_MAX),
        "contact": text(CONTACT_BYTES_MAX),
        "languages": list_of(text(NAME_BYTES_MAX), 16),
        "hours": text(CONTACT_BYTES_MAX),
        "created": uint,
    },
    "roster": {"body": octets_up_to(STATEMENT_BYTES_MAX // 2)},
    "deal": {
        "vault": id32,
        "first": key32,
        "salt": octets(16),
        "number": uint,
        "holders": list_of(uint, SEATS_MAX),
        "commitments": list_of(octets(32), SEATS_MAX),
        "points": list_of(octets(32), SEATS_MAX),
        "label": id32,
        "pepper": id32,
        "policy": shape(POLICY),
        "created": uint,
    },
    "version": {
        "vault": id32,
        "deal": id32,
        "number": uint,
        "salt": octets(32),
        "ciphertext": id32,
        "size": uint,
        "segments": uint,
        "roots": list_of(id32, SEATS_MAX),
        "wraps": list_of(octets(72), SPELLINGS_MAX),
        "passphrase": flag,
        "created": uint,
    },
    "receipt": {"vault": id32, "deal": id32, "version": id32, "seat": uint, "at": uint},
    "settled": {
        "vault": id32,
        "deal": id32,
        "version": id32,
        "receipts": list_of(octets_up_to(1024), SEATS_MAX),
    },
    "claim": {
        "kind": one_of("recovery", "estate", "rehearsal"),
        "device": key32,
        "name": octets_up_to(512),
        "seats": list_of(uint, SEATS_MAX),
        "wraps": list_of(octets(80), SEATS_MAX),
        "vault": id32,
        "nonce": octets(16),
        "evidence": list_of(id32, 16),
        "created": uint,
        "expires": uint,
    },
    "seen": {"vault": id32, "at": uint},
    "check-in": {"vault": id32, "claim": id32, "at": uint},
    "veto": {"vault": id32, "claim": id32, "words": words, "at": uint},
    "succession": {"vault": id32, "claim": id32, "former": key32, "at": uint},
    "handover": {"vault": id32, "to": key32, "at": uint},
    "leave": {"vault": id32, "stay": flag, "at": uint},
    "erased": {"vault": id32, "seat": uint, "at": uint},
}

SCHEMAS: Final[dict[str, dict[str, Check]]] = {
    **{type_: LOG | fields for type_, fields in ENTRIES.items()},
    **OTHERS,
}
# Keys in the order of the encoding, and their checks in that order; the same for maps inside.
_ORDERED: Final = {
    type_: (order, tuple(({"type": _any, "by": _any} | SCHEMAS[type_])[key] for key in order))
    for type_, order in ((each, in_order(["type", "by", *SCHEMAS[each]])) for each in SCHEMAS)
}
_POLICY_ORDER: Final = in_order(POLICY)

# What a member signs and a guardian carries in its log.
CARRIED: Final = ("claim", "veto", "check-in", "succession", "handover")

# --- the envelope ----------------------------------------------------------------------

_HEAD: Final = bytes.fromhex("d28443a10127a0")  # 18([<<{1: -8}>>, {}, …
_TAIL: Final = 2 + 64  # a byte string of 64
_SIGNED: Final = b"\x84\x6aSignature1\x43\xa1\x01\x27"


class Codec:
    """Sign and verify the statements of one federation."""

    def __init__(self, federation: bytes = NOWHERE) -> None:
        self.federation = federation
        self._before = _SIGNED + encode(b"holdfast/1/" + federation)

    def sign(self, key: SigningKey, type_: str, fields: Mapping[str, Any]) -> Verified:
        """Make a statement. A field that does not fit the schema is a bug of ours."""
        body = {"type": type_, "by": key.public, **fields}
        if not _known(body):
            raise ValueError(f"a {type_} statement does not look like this: {sorted(fields)}")
        payload = encode(encode(body))
        signed = self._before + payload
        raw = _HEAD + payload + b"\x58\x40" + key.sign(signed)
        return Verified(type_, _id(signed, key.public), key.public, body, raw)

    def assemble(
        self, type_: str, by: bytes, fields: Mapping[str, Any], signature: bytes
    ) -> Verified:
        """Put a statement together from its parts and check the signature.

        For lists of signatures over one body, where each statement whole would be a waste.
        """
        payload = encode(encode({"type": type_, "by": by, **fields}))
        return self.verify(_HEAD + payload + b"\x58\x40" + signature, type_)

    def verify(self, raw: bytes, *types: str) -> Verified:
        """Read a statement and check its signature; `types` are those expected, if any.

        Raises `Malformed` for bytes that are no statement, `BadSignature` for a signature
        that does not hold.
        """
        statement, signed = self._read(raw, types)
        verify(statement.by, signed, raw[-64:])
        return statement

    def read(self, raw: bytes) -> Verified:
        """Read a statement from our own ledger, where its signature was checked before."""
        return self._read(raw, ())[0]

    def _read(self, raw: bytes, types: tuple[str, ...]) -> tuple[Verified, bytes]:
        payload = _payload(raw)
        content = _unframe(payload)
        body = decode_loosely(content, limit=STATEMENT_BYTES_MAX)
        if type(body) is not dict:
            raise Malformed("a statement's payload is not a map")
        type_, by = body.get("type"), body.get("by")
        if type(type_) is not str or type(by) is not bytes or len(by) != 32:
            raise Malformed("a statement does not say what it is and who signed it")
        if types and type_ not in types:
            raise Malformed(f"a {' or '.join(types)} was expected and a {type_[:40]} came")
        if _is_ordered(type_, body):
            known = True
            check_ordered(body, content)
        else:
            body = decode(content, limit=STATEMENT_BYTES_MAX)
            known = _known(body)
        # Whoever asks for a type reads its fields; only logs keep what nobody understands yet.
        if not known and (types or not is_entry(body)):
            raise Malformed(f"a {type_[:40]} statement does not have the fields it should have")
        if len(raw) > ENTRY_BYTES_MAX and type_ != "misbehaviour" and is_entry(body):
            raise Malformed(f"a log entry has {len(raw)} bytes, the most is {ENTRY_BYTES_MAX}")
        signed = self._before + payload
        return Verified(type_, _id(signed, by), by, body, raw, known), signed


def is_entry(body: Mapping[str, Any]) -> bool:
    """Whether a payload stands in a log, whatever its type."""
    return all(key in body and check(body[key]) for key, check in LOG.items()) and body["seq"] > 0


def place_of(entry: Verified) -> Place:
    """Where a log entry says it stands."""
    body = entry.body
    return Place(body["seat"], body["incarnation"], body["seq"])


def _known(body: Mapping[str, Any]) -> bool:
    fields = SCHEMAS.get(body["type"])
    return (
        fields is not None
        and len(body) == len(fields) + 2
        and all(key in body and check(body[key]) for key, check in fields.items())
    )


def _is_ordered(type_: str, body: dict[Any, Any]) -> bool:
    """Whether a statement is of a known type and has all its fields, in order."""
    order, checks = _ORDERED.get(type_, ((), ()))
    if tuple(body) != order:
        return False
    for check, value in zip(checks, body.values(), strict=True):
        if not check(value):
            return False
    return type_ != "deal" or tuple(body["policy"]) == _POLICY_ORDER


def _id(signed: bytes, by: bytes) -> bytes:
    # SPEC 3.6: never over the signature.
    return hash256("hf/statement", signed, by)


def _payload(raw: bytes) -> bytes:
    """The framed payload: the envelope has one form only, so it is compared and sliced."""
    if len(raw) > STATEMENT_BYTES_MAX:
        raise Malformed(f"a statement has {len(raw)} bytes, the most is {STATEMENT_BYTES_MAX}")
    end = len(raw) - _TAIL
    # SPEC 3.1: the one form of the envelope.
    if not raw.startswith(_HEAD) or raw[end : end + 2] != b"\x58\x40":
        raise Malformed("this is not a statement in the form of COSE_Sign1 that is used here")
    return raw[len(_HEAD) : end]


def _unframe(framed: bytes) -> bytes:
    """The content of a byte string that fills `framed`, its length in the shortest form."""
    size = len(framed)
    head = 3 if size > 257 else 2 if size > 25 else 1
    if size >= head and framed[:head] == _bytes_head(size - head):
        return framed[head:]
    raise Malformed("a statement's payload is not one byte string")


def _bytes_head(size: int) -> bytes:
    if size < 24:
        return bytes((0x40 + size,))
    return b"\x58" + bytes((size,)) if size < 256 else b"\x59" + size.to_bytes(2, "big")
