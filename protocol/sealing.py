"""Lock bytes to a key, a password or a name, and open them again.

The only place for sealed boxes, secret boxes, Argon2id and the encryption of payloads.
Nothing here draws randomness or knows what it encrypts: seeds, salts and nonces are arguments
and must be fresh for every use. Splitting a payload's key is the business of `sharing`.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from typing import Final

import nacl.bindings
import nacl.exceptions

from protocol.encoding import decode, encode, hash256
from protocol.errors import FaultyPiece, Malformed, Refused, WrongSecret
from protocol.keys import PUBLIC_BYTES, SEED_BYTES
from protocol.limits import PAYLOAD_BYTES_MAX, SEGMENT_BYTES

KEY_BYTES: Final = 32
SALT_BYTES: Final = 16  # Argon2id's
NONCE_BYTES: Final = 24
TAG_BYTES: Final = 16
LOCK_BYTES: Final = NONCE_BYTES + TAG_BYTES  # what `lock` adds
WRAP_BYTES: Final = LOCK_BYTES + KEY_BYTES
SEALED_SEGMENT_BYTES: Final = SEGMENT_BYTES + TAG_BYTES
PADDED_BYTES_MIN: Final = 256  # a seed phrase and a short will look alike from outside
DOUBLING_BYTES_MAX: Final = 64 * 1024  # up to here padding doubles, beyond it follows Padmé
KEYSTORE_BYTES_MAX: Final = 64 * 1024  # a handful of keys, and room to grow
KEYSTORE_VERSION: Final = 1
_MARK: Final = b"\x80"

# --- to a public key -------------------------------------------------------------------


def seal(to: bytes, plain: bytes, seed: bytes) -> bytes:
    """Return `plain` sealed to the X25519 key `to`; `SealingKey.open` opens it.

    The result is libsodium's sealed box: ephemeral public key (32 bytes) ‖ box, with the
    nonce BLAKE2b-192(ephemeral ‖ to). `seed` is 32 secret random bytes; the ephemeral secret
    is hashed from seed, key and content, so that a seed used twice by mistake still never
    repeats a nonce. Raises Malformed when `to` is no usable key.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a sealing seed has {SEED_BYTES} bytes, not {len(seed)}")
    if len(to) != PUBLIC_BYTES:
        raise Malformed(f"A sealing key has {PUBLIC_BYTES} bytes; this one has {len(to)}.")
    secret = hash256("holdfast seal", seed, to, plain)
    ephemeral = nacl.bindings.crypto_scalarmult_base(secret)
    nonce = hashlib.blake2b(ephemeral + to, digest_size=NONCE_BYTES).digest()
    try:
        return ephemeral + nacl.bindings.crypto_box(plain, nonce, to, secret)
    except nacl.exceptions.CryptoError as error:
        raise Malformed("A sealing key is one that nobody can own.") from error


# --- to a password ---------------------------------------------------------------------


class Cost(enum.Enum):
    """How much one guess at a password costs: passes over memory, and its bytes."""

    INTERACTIVE = ("interactive", 2, 64 * 1024 * 1024)
    """libsodium's value for a person who waits: about 0.06 s."""
    MODERATE = ("moderate", 3, 256 * 1024 * 1024)
    """libsodium's value for what is guessed at leisure: about 0.4 s."""
    TOY = ("toy", 1, 8 * 1024)
    """For simulations and tests only: stops nobody."""

    def __init__(self, label: str, passes: int, memory: int) -> None:
        self.label = label
        self.passes = passes
        self.memory = memory


def stretch(password: bytes, salt: bytes, cost: Cost) -> bytes:
    """Return 32 bytes of Argon2id (version 1.3, one lane) over `password` and a 16-byte salt."""
    if len(salt) != SALT_BYTES:
        raise ValueError(f"a password salt has {SALT_BYTES} bytes, not {len(salt)}")
    return nacl.bindings.crypto_pwhash_alg(
        KEY_BYTES,
        password,
        salt,
        cost.passes,
        cost.memory,
        nacl.bindings.crypto_pwhash_ALG_ARGON2ID13,
    )


def seal_keystore(plain: bytes, password: bytes, salt: bytes, nonce: bytes, cost: Cost) -> bytes:
    """Return a file that `password` opens: a CBOR map of version, cost, salt and box.

    `salt` is 16 and `nonce` 24 fresh random bytes.
    """
    box = lock(stretch(password, salt, cost), plain, nonce)
    raw = encode({"version": KEYSTORE_VERSION, "cost": cost.label, "salt": salt, "box": box})
    if len(raw) > KEYSTORE_BYTES_MAX:
        raise Refused(f"A keystore of {len(raw)} bytes is too large; {KEYSTORE_BYTES_MAX} fit.")
    return raw


def open_keystore(raw: bytes, password: bytes) -> bytes:
    """Return what `seal_keystore` put in.

    Raises Malformed when the file is none of ours or damaged in its outer form, WrongSecret
    when the password does not open it.
    """
    found = decode(raw, limit=KEYSTORE_BYTES_MAX)
    if not isinstance(found, dict) or sorted(found) != ["box", "cost", "salt", "version"]:
        raise Malformed("This file is not a keystore.")
    if found["version"] != KEYSTORE_VERSION or isinstance(found["version"], bool):
        raise Malformed(
            "This keystore was written by another version of Holdfast.",
            hint="Install the newest version and try again.",
        )
    cost = next((each for each in Cost if each.label == found["cost"]), None)
    salt, box = found["salt"], found["box"]
    if cost is None or not isinstance(salt, bytes) or not isinstance(box, bytes):
        raise Malformed("This keystore is damaged: a part of it is not what it should be.")
    if len(salt) != SALT_BYTES or len(box) < LOCK_BYTES:
        raise Malformed("This keystore is damaged: a part of it is too short.")
    try:
        return unlock(stretch(password, salt, cost), box)
    except WrongSecret as error:
        raise WrongSecret("The passphrase does not open this keystore.") from error


# --- to a secret key -------------------------------------------------------------------


def lock(key: bytes, plain: bytes, nonce: bytes) -> bytes:
    """Return nonce ‖ secretbox (XSalsa20-Poly1305) of `plain` under a 32-byte key.

    `nonce` is 24 bytes and must never serve twice under one key.
    """
    if len(key) != KEY_BYTES or len(nonce) != NONCE_BYTES:
        raise ValueError(f"locking takes a key of {KEY_BYTES} and a nonce of {NONCE_BYTES} bytes")
    return nonce + nacl.bindings.crypto_secretbox(plain, nonce, key)


def unlock(key: bytes, box: bytes) -> bytes:
    """Return what `lock` put in. Raises WrongSecret when the key is wrong or the box damaged."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"unlocking takes a key of {KEY_BYTES} bytes")
    if len(box) < LOCK_BYTES:
        raise WrongSecret("A locked box does not open: it is cut off.")
    try:
        return nacl.bindings.crypto_secretbox_open(box[NONCE_BYTES:], box[:NONCE_BYTES], key)
    except nacl.exceptions.CryptoError as error:
        raise WrongSecret(
            "A locked box does not open: the key is another, or it is damaged."
        ) from (error)


# --- to a name -------------------------------------------------------------------------


def name_password(name: str, passphrase: str | None) -> bytes:
    """Return the bytes that stand for a normalised name and an optional passphrase.

    CBOR of the list [name, passphrase or null], so that no pair can be mistaken for another.
    The passphrase is taken as it is: whoever reads it from a person normalises it.
    """
    return encode([name, passphrase])


def wrap_name_key(name_key: bytes, stretched: bytes, nonce: bytes) -> bytes:
    """Return the 72-byte wrap of a 32-byte name key under a stretched `name_password`."""
    if len(name_key) != KEY_BYTES:
        raise ValueError(f"a name key has {KEY_BYTES} bytes, not {len(name_key)}")
    return lock(stretched, name_key, nonce)


def unwrap_name_key(wraps: Sequence[bytes], stretched: bytes) -> bytes | None:
    """Return the name key from the first wrap that `stretched` opens, or None."""
    for wrap in wraps:
        if len(wrap) != WRAP_BYTES:
            continue
        try:
            return unlock(stretched, wrap)
        except WrongSecret:
            continue
    return None


# --- payloads --------------------------------------------------------------------------


def padded_size(n: int) -> int:
    """Return the size in bytes that `n` bytes are padded to: the least allowed size ≥ n.

    Allowed are powers of two from 256 to 64 KiB, then the sizes of Padmé (Nikitin et al.,
    "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", 2019),
    which add at most 3.2 % there and tell an observer O(log log n) bits.
    """
    if n <= PADDED_BYTES_MIN:
        return PADDED_BYTES_MIN
    if n <= DOUBLING_BYTES_MAX:
        return 1 << (n - 1).bit_length()
    exponent = n.bit_length() - 1
    low = exponent - exponent.bit_length()
    return -(-n >> low) << low


def payload_key(name_key: bytes, secret: bytes, vault: bytes, salt: bytes) -> bytes:
    """Return the 32-byte key of one payload.

    BLAKE2b-256 keyed with the name key, personalised "holdfast payload", over the shared
    secret ‖ the vault id ‖ the version's salt, all of 32 bytes. Whoever lacks the name or
    the threshold of shares lacks the key; a new salt for every encryption makes it new.
    """
    if any(len(part) != KEY_BYTES for part in (name_key, secret, vault, salt)):
        raise ValueError(f"a payload key is made from parts of {KEY_BYTES} bytes each")
    return hashlib.blake2b(
        secret + vault + salt, digest_size=KEY_BYTES, key=name_key, person=b"holdfast payload"
    ).digest()


def encrypt_payload(key: bytes, plain: bytes) -> list[bytes]:
    """Return the ciphertext of `plain` as segments of at most 256 KiB + 16 bytes.

    `key` is a fresh `payload_key`: it encrypts one payload in its life, for nonces begin at
    zero every time. Byte by byte:

    - padded = plain ‖ 0x80 ‖ as many 0x00 as `padded_size(len(plain) + 1)` needs;
    - padded is cut into parts of 256 KiB, the last one shorter if need be;
    - segment i is XChaCha20-Poly1305 (IETF) of part i, without additional data, under the
      nonce i (23 bytes, big-endian) ‖ 0x01 for the last segment, 0x00 for the others.

    Raises Refused when the padded payload exceeds `PAYLOAD_BYTES_MAX`.
    """
    size = padded_size(len(plain) + 1)
    if size > PAYLOAD_BYTES_MAX:
        raise Refused(
            f"This secret of {len(plain)} bytes is too large: "
            f"with its padding at most {PAYLOAD_BYTES_MAX} bytes can be kept.",
            hint="Keep a smaller file.",
        )
    padded = (plain + _MARK).ljust(size, b"\0")
    starts = range(0, size, SEGMENT_BYTES)
    return [
        nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
            padded[start : start + SEGMENT_BYTES],
            None,
            _nonce(index, index + 1 == len(starts)),
            key,
        )
        for index, start in enumerate(starts)
    ]


def split_ciphertext(ciphertext: bytes) -> list[bytes]:
    """Return the segments whose concatenation is `ciphertext`."""
    starts = range(0, len(ciphertext), SEALED_SEGMENT_BYTES)
    return [ciphertext[start : start + SEALED_SEGMENT_BYTES] for start in starts]


def decrypt_payload(key: bytes, segments: Sequence[bytes]) -> bytes:
    """Return the payload; nothing of it unless all of it is whole and in order.

    Raises WrongSecret when the key does not open the first segment (name, passphrase or
    shares differ from those it was encrypted with, or that segment is damaged), FaultyPiece
    when segments are damaged, missing, added or out of order, Malformed when the payload was
    put together wrongly by whoever encrypted it.
    """
    if not segments or any(len(each) != SEALED_SEGMENT_BYTES for each in segments[:-1]):
        raise FaultyPiece("The encrypted payload is incomplete: parts are missing or cut off.")
    if not TAG_BYTES < len(segments[-1]) <= SEALED_SEGMENT_BYTES:
        raise FaultyPiece("The encrypted payload is incomplete: its last part has a wrong size.")
    parts = []
    for index, segment in enumerate(segments):
        last = index + 1 == len(segments)
        part = _open_segment(key, segment, index, last)
        # SPEC 7.14: nothing is given out before all segments are open.
        if part is None and index == 0 and _open_segment(key, segment, 0, not last) is None:
            raise WrongSecret(
                "The payload does not open: the name or passphrase is not the one it was made with."
            )
        if part is None:
            raise FaultyPiece(
                f"Part {index + 1} of the {len(segments)} parts of the encrypted payload is "
                "damaged, out of order, or not the last one."
            )
        parts.append(part)
    return _unpad(b"".join(parts))


def _nonce(index: int, last: bool) -> bytes:
    return index.to_bytes(NONCE_BYTES - 1, "big") + (b"\1" if last else b"\0")


def _open_segment(key: bytes, segment: bytes, index: int, last: bool) -> bytes | None:
    try:
        return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
            segment, None, _nonce(index, last), key
        )
    except nacl.exceptions.CryptoError:
        return None


def _unpad(padded: bytes) -> bytes:
    plain = padded.rstrip(b"\0")
    # SPEC 7.14: exactly the padding of 7.10.
    if not plain.endswith(_MARK) or len(padded) != padded_size(len(plain)):
        raise Malformed("The payload opens, but its padding is not what Holdfast writes.")
    return plain[:-1]
