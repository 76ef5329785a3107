"""A vault: how one secret is dealt, encrypted, checked and put together again.

A *deal* shares a random scalar among the holders and commits to label and pepper. A
*version* is ciphertext under a key made from that scalar and the *name key*, which is
wrapped under every spelling of the member's name. Nothing in a shard is unauthenticated:
what does not match the owner's signed commitments is refused on arrival by a guardian, and
named on release by a wallet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from protocol import fragments, sealing, sharing
from protocol.contract import Verified
from protocol.encoding import decode, encode, hash256
from protocol.errors import FaultyPiece, HoldfastError, Malformed, Refused
from protocol.federation import Roster
from protocol.keys import SigningKey
from protocol.limits import (
    CIPHERTEXT_WHOLE_MAX,
    FULL_NAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    SPELLINGS_MAX,
    TEXT_CHARS_MAX,
)
from protocol.policy import Policy, check_policy, policy_of
from protocol.statements import (
    NOTHING,
    Codec,
    fits,
    id32,
    list_of,
    octets,
    octets_up_to,
    one_of,
    text,
    uint,
)

FORMS: Final = ("words", "hex", "raw", "file", "owner")
CARD_CHUNK_BYTES: Final = 64 * 1024  # a card travels as fragments of this size
CARD_CHUNKS_MAX: Final = 5  # 256 KiB of picture, a line of text, and the seals


def vault_id(first_owner: bytes, federation: bytes, salt: bytes) -> bytes:
    return hash256("hf/vault", first_owner, federation, salt)


# --- labels and cards ------------------------------------------------------------------


@dataclass(frozen=True)
class Label:
    """What guardians see of a vault once its case is open.

    `card_key`, `card_root` and `card_count` locate the verification card, zeros and 0 when
    there is none.
    """

    name: str
    hint: str = ""
    card_key: bytes = NOTHING
    card_root: bytes = NOTHING
    card_count: int = 0

    def to_bytes(self) -> bytes:
        return encode({"name": self.name, "hint": self.hint, "card_key": self.card_key,
                       "card_root": self.card_root, "card_count": self.card_count})  # fmt: skip


_LABEL: Final = {
    "name": text(FULL_NAME_BYTES_MAX),
    "hint": text(TEXT_CHARS_MAX),
    "card_key": id32,
    "card_root": id32,
    "card_count": uint,
}


def read_label(raw: bytes) -> Label:
    fields = decode(raw, limit=4096)
    if type(fields) is not dict or not fits(fields, _LABEL):
        raise Malformed("this is not a label")
    if fields["card_count"] > CARD_CHUNKS_MAX:
        raise Malformed("a verification card is larger than it may be")
    return Label(**fields)


def make_card(key: bytes, line: str, picture: bytes) -> tuple[list[bytes], bytes]:
    """Seal a verification card under `key`, used for this card alone: chunks and root."""
    sealed = sealing.lock(key, encode({"line": line, "picture": picture}), bytes(24))
    chunks = [
        sealed[start : start + CARD_CHUNK_BYTES]
        for start in range(0, len(sealed), CARD_CHUNK_BYTES)
    ]
    return chunks, fragments.root(chunks)


_CARD: Final = {
    "line": text(TEXT_CHARS_MAX * 4),
    "picture": octets_up_to(CARD_CHUNKS_MAX * CARD_CHUNK_BYTES),
}


def open_card(key: bytes, chunks: Sequence[bytes]) -> tuple[str, bytes]:
    """The line and the picture of a verification card."""
    plain = sealing.unlock(key, b"".join(chunks))
    fields = decode(plain, limit=CARD_CHUNKS_MAX * CARD_CHUNK_BYTES)
    if type(fields) is not dict or not fits(fields, _CARD):
        raise Malformed("this is not a verification card")
    return fields["line"], fields["picture"]


# --- deals -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """What is sealed to one guardian under a deal."""

    share: bytes
    label: bytes
    label_salt: bytes
    pepper: bytes
    pepper_salt: bytes

    def to_bytes(self) -> bytes:
        return encode({"share": self.share, "label": self.label, "label_salt": self.label_salt,
                       "pepper": self.pepper, "pepper_salt": self.pepper_salt})  # fmt: skip

    def __repr__(self) -> str:
        return "Piece(…)"


_PIECE: Final = {
    "share": octets(32),
    "label": octets_up_to(4096),
    "label_salt": octets(32),
    "pepper": octets(16),
    "pepper_salt": octets(32),
}


@dataclass(frozen=True)
class Dealt:
    """A fresh deal: the statement, the piece of each seat, and the shared secret."""

    deal: Verified
    pieces: Mapping[int, Piece]
    secret: bytes

    def __repr__(self) -> str:
        return "Dealt(…)"


def deal_entropy(threshold: int) -> int:
    """Bytes of randomness that `make_deal` needs."""
    return 64 * threshold + 32 + 16 + 32


def make_deal(
    codec: Codec,
    owner: SigningKey,
    roster: Roster,
    label: Label,
    policy: Policy,
    *,
    first: bytes,
    salt: bytes,
    number: int,
    now: int,
    entropy: bytes,
) -> Dealt:
    """Share a fresh random secret among all guardians of the roster.

    `first` is the vault's first owner key and `salt` (16 bytes) its salt; `entropy` has
    `deal_entropy(threshold)` bytes.
    """
    threshold = roster.threshold
    secret = sharing.scalar_from(entropy[:64])
    rest = entropy[64 * threshold :]
    label_salt, pepper, pepper_salt = rest[:32], rest[32:48], rest[48:80]
    dealing = sharing.deal(secret, threshold, roster.seats, entropy[64 : 64 * threshold])
    label_raw = label.to_bytes()
    deal = codec.sign(
        owner,
        "deal",
        {
            "vault": vault_id(first, codec.federation, salt),
            "first": first,
            "salt": salt,
            "number": number,
            "holders": list(roster.seats),
            "commitments": list(dealing.commitments),
            "points": list(dealing.points),
            "label": commitment("hf/label", label_raw, label_salt),
            "pepper": commitment("hf/pepper", pepper, pepper_salt),
            "policy": policy.to_map(),
            "created": now,
        },
    )
    pieces = {
        seat: Piece(dealing.shares[seat], label_raw, label_salt, pepper, pepper_salt)
        for seat in roster.seats
    }
    return Dealt(deal, pieces, sharing.encode_scalar(secret))


def commitment(domain: str, value: bytes, salt: bytes) -> bytes:
    return hash256(domain, value, salt)


def threshold_of(deal: Verified) -> int:
    return len(deal.body["commitments"])


@dataclass(frozen=True)
class Examined:
    """A deal and a version whose signatures hold, and whose sharing is in order."""

    deal: Verified
    version: Verified


def examine(verify: Callable[..., Verified], deal: object, version: object) -> Examined | None:
    """Check of a deposit what takes longest and needs nothing but its bytes.

    `verify` is `Codec.verify` of the federation. None when something is not in order, which
    `check_deal` then puts into words.
    """
    if type(deal) is not bytes or type(version) is not bytes:
        return None
    try:
        found = Examined(verify(deal, "deal"), verify(version, "version"))
        _check_sharing(found.deal)
    except HoldfastError:
        return None
    return found


def check_deal(
    deal: Verified, federation: bytes, roster: Roster | None = None, *, examined: bool = False
) -> None:
    """Hold a deal against the rules: identity of the vault, holders, sharing, policy.

    With `roster` it must be a deal that this roster's guardians may accept now; `examined`
    says that `examine` has looked at the sharing.
    """
    body = deal.body
    # SPEC 8.4, in this order.
    if body["vault"] != vault_id(body["first"], federation, body["salt"]):
        raise FaultyPiece("a deal names a vault that its owner key does not make")
    holders = body["holders"]
    if holders != sorted(set(holders)) or len(body["points"]) != len(holders):
        raise FaultyPiece("a deal does not name its holders once each, in order")
    if roster is not None:
        if tuple(holders) != roster.seats or threshold_of(deal) != roster.threshold:
            raise Refused(
                "the backup was dealt for other guardians than those of today",
                hint="update the wallet's list of guardians and back up again",
            )
        check_policy(policy_of(deal), roster.bounds, roster.threshold, len(holders))
    if not examined:
        _check_sharing(deal)


def _check_sharing(deal: Verified) -> None:
    body = deal.body
    sharing.check_dealing(body["commitments"], body["points"], body["holders"])


def read_piece(raw: bytes) -> Piece:
    fields = decode(raw, limit=8192)
    if type(fields) is not dict or not fits(fields, _PIECE):
        raise Malformed("a piece does not have the parts it should have")
    return Piece(**fields)


def check_piece(deal: Verified, seat: int, piece: Piece) -> Label:
    """Check every part of a piece against what the owner signed; the label on success."""
    check_share(deal, seat, piece.share)
    if commitment("hf/label", piece.label, piece.label_salt) != deal.body["label"]:
        raise FaultyPiece("the label is not the one the owner committed to")
    check_pepper(deal, piece.pepper, piece.pepper_salt)
    return read_label(piece.label)


def check_share(deal: Verified, seat: int, share: bytes) -> None:
    holders = deal.body["holders"]
    if seat not in holders:
        raise FaultyPiece("this guardian is not among the holders of the deal")
    sharing.check_share(share, deal.body["points"][holders.index(seat)])


def check_pepper(deal: Verified, pepper: bytes, salt: bytes) -> None:
    if commitment("hf/pepper", pepper, salt) != deal.body["pepper"]:
        raise FaultyPiece("the pepper is not the one the owner committed to")


# --- versions --------------------------------------------------------------------------


@dataclass(frozen=True)
class Payload:
    """What a vault holds: the secret in the form it came in, and the owner key beside it.

    `form` is one of FORMS, `title` a file's name; `spellings` are the names it opens under.
    """

    owner: bytes
    form: str
    secret: bytes
    title: str = ""
    spellings: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        return encode({"owner": self.owner, "form": self.form, "secret": self.secret,
                       "title": self.title, "spellings": list(self.spellings)})  # fmt: skip

    def __repr__(self) -> str:
        return f"Payload({self.form}, …)"


_PAYLOAD: Final = {
    "owner": octets(32),
    "form": one_of(*FORMS),
    "secret": octets_up_to(PAYLOAD_BYTES_MAX),
    "title": text(PAYLOAD_BYTES_MAX),
    "spellings": list_of(text(PAYLOAD_BYTES_MAX), SPELLINGS_MAX),
}


def read_payload(raw: bytes) -> Payload:
    """Read what a vault holds. Raises `Malformed` when another release wrote it otherwise."""
    fields = decode(raw, limit=PAYLOAD_BYTES_MAX)
    if type(fields) is not dict or not fits(fields, _PAYLOAD):
        raise Malformed("a payload does not have the parts it should have")
    return Payload(**{**fields, "spellings": tuple(fields["spellings"])})


@dataclass(frozen=True)
class Sealed:
    """A fresh version: the statement and the ciphertext's segments.

    `coded` maps a seat to its fragments, one a segment, and is empty when the ciphertext
    travels whole.
    """

    version: Verified
    segments: tuple[bytes, ...]
    coded: Mapping[int, Sequence[bytes]]

    @property
    def whole(self) -> bytes:
        return b"" if self.coded else self.segments[0]


def make_version(
    codec: Codec,
    owner: SigningKey,
    deal: Verified,
    secret: bytes,
    payload: Payload,
    *,
    number: int,
    name_key: bytes,
    wraps: Sequence[bytes],
    passphrase: bool,
    salt: bytes,
    now: int,
) -> Sealed:
    """Encrypt a payload under a deal's secret. `salt` is 32 fresh bytes for this call."""
    if not 1 <= len(wraps) <= SPELLINGS_MAX:
        raise Refused(f"a vault opens under 1 to {SPELLINGS_MAX} spellings, not {len(wraps)}")
    vault = deal.body["vault"]
    key = sealing.payload_key(name_key, secret, vault, salt)
    segments = sealing.encrypt_payload(key, payload.to_bytes())
    size = sum(map(len, segments))
    holders = deal.body["holders"]
    coded: dict[int, Sequence[bytes]] = {}
    if size > CIPHERTEXT_WHOLE_MAX:
        per_holder = fragments.code(segments, threshold_of(deal), len(holders))
        coded = dict(zip(holders, per_holder, strict=True))
    version = codec.sign(
        owner,
        "version",
        {
            "vault": vault,
            "deal": deal.id,
            "number": number,
            "salt": salt,
            "ciphertext": ciphertext_hash(segments),
            "size": size,
            "segments": len(segments),
            "roots": [fragments.root(coded[seat]) for seat in holders] if coded else [],
            "wraps": list(wraps),
            "passphrase": passphrase,
            "created": now,
        },
    )
    return Sealed(version, tuple(segments), coded)


def ciphertext_hash(segments: Sequence[bytes]) -> bytes:
    return hash256("hf/ciphertext", *segments)


def is_whole(version: Verified) -> bool:
    """Whether the ciphertext travels whole in every shard."""
    return int(version.body["size"]) <= CIPHERTEXT_WHOLE_MAX


def check_version(version: Verified, deal: Verified, whole: bytes) -> None:
    """Check a version against its deal, and the ciphertext where it travels whole."""
    body = version.body
    # SPEC 8.12: of this deal, and by its signer.
    if (body["deal"], body["vault"], version.by) != (deal.id, deal.body["vault"], deal.by):
        raise FaultyPiece("a version belongs to another deal than the one it came with")
    if body["size"] > PAYLOAD_BYTES_MAX:
        raise Refused(f"a backup has at most {PAYLOAD_BYTES_MAX} bytes, this one {body['size']}")
    if is_whole(version):
        if body["roots"] or body["segments"] != 1:
            raise FaultyPiece("a small version names fragments it does not have")
        if len(whole) != body["size"] or ciphertext_hash([whole]) != body["ciphertext"]:
            raise FaultyPiece("the ciphertext is not the one the owner signed")
        return
    segments = -(-body["size"] // sealing.SEALED_SEGMENT_BYTES)
    if whole or len(body["roots"]) != len(deal.body["holders"]) or body["segments"] != segments:
        raise FaultyPiece("a large version does not name the fragments of every holder")


def root_for(version: Verified, deal: Verified, seat: int) -> bytes:
    """The Merkle root of a seat's fragments."""
    root: bytes = version.body["roots"][deal.body["holders"].index(seat)]
    return root


# --- releases --------------------------------------------------------------------------


@dataclass(frozen=True)
class Opened:
    """A release as the wallet reads it: one guardian's share and the versions it holds."""

    seat: int
    share: bytes
    pepper: bytes
    deal: Verified
    versions: tuple[tuple[Verified, bytes], ...]  # with the whole ciphertext, or empty

    def __repr__(self) -> str:
        return f"Opened(seat={self.seat}, …)"


def release_plain(piece: Piece, deal: bytes, versions: Sequence[tuple[bytes, bytes]]) -> bytes:
    """What a guardian seals to the claimant's device: never the label."""
    return encode(
        {
            "share": piece.share,
            "pepper": piece.pepper,
            "pepper_salt": piece.pepper_salt,
            "deal": deal,
            "versions": [[raw, whole] for raw, whole in versions],
        }
    )


_RELEASE: Final = {
    "share": octets(32),
    "pepper": octets(16),
    "pepper_salt": octets(32),
    "deal": octets_up_to(8192),
    "versions": lambda value: (
        type(value) is list
        and 1 <= len(value) <= 4
        and all(
            type(pair) is list
            and len(pair) == 2
            and octets_up_to(8192)(pair[0])
            and octets_up_to(CIPHERTEXT_WHOLE_MAX)(pair[1])
            for pair in value
        )
    ),
}


def read_release(
    codec: Codec,
    seat: int,
    plain: bytes,
    deal_id: bytes,
    checked: dict[bytes, Verified] | None = None,
) -> Opened:
    """Read and check a release; whatever is wrong with it is the sender's fault.

    `checked` remembers deals and versions that passed, by their bytes, from one release to
    the next: checking a deal takes most of the time.
    """
    known = {} if checked is None else checked
    try:
        fields = decode(plain, limit=48 * 1024)
        if type(fields) is not dict or not fits(fields, _RELEASE):
            raise Malformed("a released piece does not have the parts it should have")
        deal = known.get(fields["deal"]) or codec.verify(fields["deal"], "deal")
        if deal.type != "deal" or deal.id != deal_id:
            raise FaultyPiece("a piece of another deal was released than the one voted on")
        if deal.raw not in known:
            check_deal(deal, codec.federation)
            known[deal.raw] = deal
        check_share(deal, seat, fields["share"])
        check_pepper(deal, fields["pepper"], fields["pepper_salt"])
        versions = []
        for raw, whole in fields["versions"]:
            version = known.get(raw) or codec.verify(raw, "version")
            if version.type != "version":
                raise FaultyPiece("a piece has something else in the place of a version")
            known[raw] = version
            check_version(version, deal, whole)
            versions.append((version, whole))
    except HoldfastError as error:
        raise FaultyPiece(str(error)) from error
    return Opened(seat, fields["share"], fields["pepper"], deal, tuple(versions))
