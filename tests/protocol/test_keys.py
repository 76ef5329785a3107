"""Keys, signatures and the wrapper of secrets."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import BadSignature, Malformed, WrongSecret
from protocol.keys import SealingKey, Secret, SigningKey, verify
from protocol.sealing import seal

VECTORS = Path(os.environ.get("HOLDFAST_VECTORS", Path(__file__).parents[3] / "shared" / "vectors"))
SEED = bytes(range(32))
ORDER = 2**252 + 27742317777372353535851937790883648493


def test_rfc8032() -> None:
    """The first example of RFC 8032, 7.1, comes out byte for byte."""
    key = SigningKey(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    assert key.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100), st.data())
def test_sign_and_verify(seed: bytes, message: bytes, data: st.DataObject) -> None:
    """A signature holds for its message and key, and for no changed byte of anything."""
    key = SigningKey(seed)
    signature = key.sign(message)
    verify(key.public, message, signature)
    bad = bytearray(signature)
    bad[data.draw(st.integers(0, 63))] ^= 1 << data.draw(st.integers(0, 7))
    for public, text, signed in (
        (key.public, message, bytes(bad)),
        (key.public, message + b"x", signature),
        (SigningKey(bytes(32)).public, message, signature + b"x"),
        (key.public[:31], message, signature),
        (key.public, message, signature[:63]),
    ):
        with pytest.raises(BadSignature):
            verify(public, text, signed)


def test_strict() -> None:
    """A second form of a good signature, and keys of small order, are refused."""
    key = SigningKey(SEED)
    signature = key.sign(b"m")
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    with pytest.raises(BadSignature):
        verify(key.public, b"m", signature[:32] + scalar.to_bytes(32, "little"))
    for small in (bytes(32), (1).to_bytes(32, "little")):
        with pytest.raises(BadSignature):
            verify(small, b"m", small + bytes(32))


def test_wycheproof() -> None:
    """The published hard cases for Ed25519 verify as their authors say."""
    path = VECTORS / "wycheproof-ed25519.json"
    if not path.exists():
        pytest.skip(f"no test vectors in {path.parent}")
    count = 0
    for group in json.loads(path.read_text())["testGroups"]:
        public = bytes.fromhex(group["publicKey"]["pk"])
        for test in group["tests"]:
            count += 1
            message, signature = bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"])
            if test["result"] == "valid":
                verify(public, message, signature)
            else:
                with pytest.raises(BadSignature):
                    verify(public, message, signature)
    assert count > 100


def test_seed_length() -> None:
    """A seed of another length is refused."""
    for make in (SigningKey, SealingKey):
        with pytest.raises(ValueError, match="32"):
            make(bytes(31))


@pytest.mark.parametrize("key", [SigningKey(SEED), SealingKey(SEED), Secret(SEED)])
def test_secrets_do_not_show(key: object) -> None:
    """No way of printing a key shows any of its secret."""
    shown = f"{key} {key!r} {key!s} {[key]} {(key, key)}"
    for leak in (SEED.hex()[:8], repr(SEED)[2:20], "\\x01"):
        assert leak not in shown
    assert type(key).__name__ in shown


def test_equality() -> None:
    """Keys and secrets compare by content, and copy well."""
    assert SigningKey(SEED) == SigningKey(SEED) != SigningKey(bytes(32))
    assert SealingKey(SEED) == copy.deepcopy(SealingKey(SEED))
    assert Secret(b"a") == Secret(b"a") != Secret(b"b")
    assert Secret(b"a") != b"a"
    assert len({Secret(b"a"), Secret(b"a")}) == 1
    assert len(Secret(b"abc")) == 3
    assert Secret(b"abc").raw == b"abc"


def test_open() -> None:
    """What is sealed to a key opens with it, not with another, not cut, not changed."""
    key = SealingKey(SEED)
    sealed = seal(key.public, b"hello", bytes(32))
    assert key.open(sealed) == b"hello"
    with pytest.raises(WrongSecret):
        SealingKey(bytes(32)).open(sealed)
    with pytest.raises(WrongSecret):
        key.open(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(WrongSecret):
        key.open(bytes(60))
    with pytest.raises(Malformed, match="48"):
        key.open(sealed[:47])
