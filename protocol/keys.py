"""Hold the keys of a person or a device, and check signatures.

Ed25519 to sign, X25519 to open what was sealed. Which statement a key may sign, and who it
belongs to, is decided elsewhere. No object here shows its secret when printed.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Final

import nacl.bindings
import nacl.exceptions

from protocol.errors import BadSignature, Malformed, WrongSecret

SEED_BYTES: Final = 32
PUBLIC_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
SEAL_BYTES: Final = 48  # what sealing adds: the ephemeral key and the authenticator


@dataclass(frozen=True, repr=False, slots=True)
class SigningKey:
    """Sign with the Ed25519 key made from a 32-byte seed.

    `public` is 32 bytes. Signing is deterministic (RFC 8032). Raises ValueError for a seed
    of another length.
    """

    seed: bytes
    public: bytes = field(init=False, compare=False)
    _pair: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        public, pair = nacl.bindings.crypto_sign_seed_keypair(self.seed)
        object.__setattr__(self, "public", public)
        object.__setattr__(self, "_pair", pair)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`."""
        return nacl.bindings.crypto_sign(message, self._pair)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()[:8]}…)"


@dataclass(frozen=True, repr=False, slots=True)
class SealingKey:
    """Open what was sealed to the X25519 key whose secret is a 32-byte seed.

    `public` is 32 bytes: the address for `sealing.seal`. Raises ValueError for a seed of
    another length.
    """

    seed: bytes
    public: bytes = field(init=False, compare=False)

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        object.__setattr__(self, "public", nacl.bindings.crypto_scalarmult_base(self.seed))

    def open(self, sealed: bytes) -> bytes:
        """Return what was sealed to this key in a libsodium sealed box.

        Raises Malformed when `sealed` is shorter than any sealed box, WrongSecret when it was
        sealed to another key or damaged: the two cannot be told apart.
        """
        if len(sealed) < SEAL_BYTES:
            raise Malformed(
                f"A sealed message has at least {SEAL_BYTES} bytes; this one has {len(sealed)}."
            )
        try:
            return nacl.bindings.crypto_box_seal_open(sealed, self.public, self.seed)
        except nacl.exceptions.CryptoError as error:
            raise WrongSecret(
                "A sealed message does not open: it was sealed for another device, or is damaged."
            ) from error

    def __repr__(self) -> str:
        return f"SealingKey(public={self.public.hex()[:8]}…)"


class Secret:
    """Carry secret bytes without showing them when printed, logged or compared.

    `raw` gives them out; `len()` gives their number. Comparison takes the same time wherever
    two secrets of one length differ.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw: Final = bytes(raw)

    def __len__(self) -> int:
        return len(self.raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self.raw, other.raw)

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"Secret({len(self.raw)} bytes)"


def verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Return if `signature` is the signature of `message` by `public`, else raise BadSignature.

    Strict as libsodium is: signature scalars beyond the group order, keys and points of small
    order and encodings that are not canonical are refused.
    """
    if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        raise BadSignature("A signature does not hold: it or its key has the wrong length.")
    try:
        nacl.bindings.crypto_sign_open(signature + message, public)
    except nacl.exceptions.BadSignatureError as error:
        raise BadSignature(
            "A signature does not hold: the message was changed, or signed by someone else."
        ) from error


def _check_seed(seed: bytes) -> None:
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a key seed has {SEED_BYTES} bytes, not {len(seed)}")
