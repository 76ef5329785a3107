"""Sealed boxes, passwords, names and payloads."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nacl.bindings
import nacl.exceptions
import nacl.public
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.encoding import encode
from protocol.errors import FaultyPiece, Malformed, Refused, WrongSecret
from protocol.keys import SealingKey
from protocol.limits import PAYLOAD_BYTES_MAX, SEGMENT_BYTES
from protocol.sealing import (
    DOUBLING_BYTES_MAX,
    SEALED_SEGMENT_BYTES,
    WRAP_BYTES,
    Cost,
    decrypt_payload,
    encrypt_payload,
    lock,
    name_password,
    open_keystore,
    padded_size,
    payload_key,
    seal,
    seal_keystore,
    split_ciphertext,
    stretch,
    unlock,
    unwrap_name_key,
    wrap_name_key,
)

VECTORS = Path(os.environ.get("HOLDFAST_VECTORS", Path(__file__).parents[3] / "shared" / "vectors"))
KEY = bytes(range(32))
SALT = bytes(range(16))
NONCE = bytes(range(24))


# --- sealed boxes ----------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=500), st.binary(min_size=32, max_size=32))
def test_libsodium_opens_ours(plain: bytes, seed: bytes) -> None:
    """libsodium's own sealed box opens what we seal, and we open what it seals."""
    key = nacl.public.PrivateKey(KEY)
    sealed = seal(bytes(key.public_key), plain, seed)
    assert nacl.public.SealedBox(key).decrypt(sealed) == plain
    assert SealingKey(KEY).open(nacl.public.SealedBox(key.public_key).encrypt(plain)) == plain


def test_seal_is_deterministic_and_never_repeats_a_nonce() -> None:
    """One seed gives the same bytes again, and another ephemeral key for other content."""
    to = SealingKey(KEY).public
    other = SealingKey(bytes(32)).public
    assert seal(to, b"a", KEY) == seal(to, b"a", KEY)
    heads = [
        seal(to, b"a", KEY),
        seal(to, b"b", KEY),
        seal(other, b"a", KEY),
        seal(to, b"a", SALT * 2),
    ]
    assert len({head[:32] for head in heads}) == 4


def test_seal_refuses() -> None:
    """Keys of small order or wrong length cannot be sealed to."""
    for bad in (bytes(32), b"\1" + bytes(31), bytes(31)):
        with pytest.raises(Malformed):
            seal(bad, b"x", KEY)
    with pytest.raises(ValueError):
        seal(SealingKey(KEY).public, b"x", b"short")


# --- passwords -------------------------------------------------------------------------


def test_stretch_pinned() -> None:
    """Argon2id gives the same bytes for ever, and others for every other input."""
    first = stretch(b"password", SALT, Cost.TOY)
    assert first.hex() == PINNED_STRETCH
    assert first != stretch(b"passwore", SALT, Cost.TOY)
    assert first != stretch(b"password", SALT[::-1], Cost.TOY)
    with pytest.raises(ValueError):
        stretch(b"password", b"", Cost.TOY)


def test_costs() -> None:
    """The costs meant for real use are libsodium's."""
    for cost, name in ((Cost.INTERACTIVE, "INTERACTIVE"), (Cost.MODERATE, "MODERATE")):
        assert cost.passes == getattr(nacl.bindings, f"crypto_pwhash_argon2id_OPSLIMIT_{name}")
        assert cost.memory == getattr(nacl.bindings, f"crypto_pwhash_argon2id_MEMLIMIT_{name}")
    assert stretch(b"p", SALT, Cost.INTERACTIVE) != stretch(b"p", SALT, Cost.TOY)


PINNED_STRETCH = "3a008963c65f7ffa7331a90babd1fd17ea9f03bd05356b857ceb43f7b7080adc"


def test_keystore() -> None:
    """A keystore opens with its password, says so with another, and tells damage apart."""
    raw = seal_keystore(b"keys", b"pass", SALT, NONCE, Cost.TOY)
    assert open_keystore(raw, b"pass") == b"keys"
    with pytest.raises(WrongSecret, match="passphrase does not open"):
        open_keystore(raw, b"Pass")
    with pytest.raises(Malformed):
        open_keystore(raw[:-1], b"pass")
    with pytest.raises(Refused):
        seal_keystore(bytes(70_000), b"pass", SALT, NONCE, Cost.TOY)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"version": 2, "cost": "toy", "salt": SALT, "box": bytes(40)},
        {"version": True, "cost": "toy", "salt": SALT, "box": bytes(40)},
        {"version": 1, "cost": "free", "salt": SALT, "box": bytes(40)},
        {"version": 1, "cost": ["toy"], "salt": SALT, "box": bytes(40)},
        {"version": 1, "cost": "toy", "salt": "text", "box": bytes(40)},
        {"version": 1, "cost": "toy", "salt": SALT, "box": 7},
        {"version": 1, "cost": "toy", "salt": SALT[1:], "box": bytes(40)},
        {"version": 1, "cost": "toy", "salt": SALT, "box": bytes(39)},
        {"version": 1, "cost": "toy", "salt": SALT, "box": bytes(40), "more": 1},
    ],
)
def test_keystore_malformed(value: object) -> None:
    """A file that is no keystore of ours is Malformed, never a wrong passphrase or a crash."""
    with pytest.raises(Malformed):
        open_keystore(encode(value), b"pass")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_keystore_damage(data: st.DataObject) -> None:
    """No changed byte of a keystore goes unnoticed."""
    raw = bytearray(seal_keystore(b"keys", b"pass", SALT, NONCE, Cost.TOY))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises((Malformed, WrongSecret)):
        open_keystore(bytes(raw), b"pass")


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200), st.data())
def test_lock(plain: bytes, data: st.DataObject) -> None:
    """A locked box opens with its key alone and only unchanged."""
    box = lock(KEY, plain, NONCE)
    assert unlock(KEY, box) == plain
    changed = bytearray(box)
    changed[data.draw(st.integers(0, len(box) - 1))] ^= data.draw(st.integers(1, 255))
    for key, raw in ((KEY, bytes(changed)), (bytes(32), box), (KEY, box[:39]), (KEY, box[:-1])):
        with pytest.raises(WrongSecret):
            unlock(key, raw)


def test_lock_arguments() -> None:
    """Keys and nonces of another length are a mistake of ours."""
    for key, nonce in ((b"", NONCE), (KEY, b"")):
        with pytest.raises(ValueError):
            lock(key, b"", nonce)
    with pytest.raises(ValueError):
        unlock(b"", bytes(40))


# --- names -----------------------------------------------------------------------------


def test_name_password_is_unambiguous() -> None:
    """No name with a passphrase can be taken for another name."""
    pairs = [("a b", None), ("a", "b"), ("a b", ""), ("a", " b"), ("", "a b"), ("a", None)]
    assert len({name_password(*pair) for pair in pairs}) == len(pairs)


def test_wraps() -> None:
    """Any one of several spellings opens the name key; a stranger's name does not."""
    keys = [stretch(name_password(name, None), SALT, Cost.TOY) for name in ("anna", "ana", "hanna")]
    wraps = [wrap_name_key(KEY, key, bytes([n]) * 24) for n, key in enumerate(keys)]
    assert {len(wrap) for wrap in wraps} == {WRAP_BYTES} == {72}
    for key in keys:
        assert unwrap_name_key(wraps, key) == KEY
    assert unwrap_name_key(wraps, stretch(name_password("bert", None), SALT, Cost.TOY)) is None
    assert unwrap_name_key([], keys[0]) is None
    assert unwrap_name_key([b"", wraps[0][:-1], wraps[0]], keys[0]) == KEY
    with pytest.raises(ValueError):
        wrap_name_key(b"short", keys[0], NONCE)


# --- payloads --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "size"),
    [
        (0, 256),
        (1, 256),
        (256, 256),
        (257, 512),
        (512, 512),
        (4096, 4096),
        (4097, 8192),
        (65_536, 65_536),
        (65_537, 65_536 + 2048),
        (65_536 + 2048, 65_536 + 2048),
        (131_072, 131_072),
        (131_073, 131_072 + 4096),
        (1024 * 1024 + 1, 1024 * 1024 + 32_768),
    ],
)
def test_padded_size(n: int, size: int) -> None:
    """Sizes double up to 64 KiB and then follow Padmé."""
    assert padded_size(n) == size


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**40))
def test_padded_size_rules(n: int) -> None:
    """Padding never shrinks, is its own padding, and costs little above 64 KiB."""
    size = padded_size(n)
    assert size >= n
    assert padded_size(size) == size
    assert padded_size(n + 1) >= size
    if n > DOUBLING_BYTES_MAX:
        assert size <= n * 1.032


def test_payload_key() -> None:
    """Every one of the four parts changes the key."""
    parts = [bytes([n]) * 32 for n in range(4)]
    seen = [payload_key(*parts)]
    for place in range(4):
        changed = [*parts]
        changed[place] = KEY
        seen.append(payload_key(*changed))
    assert len(set(seen)) == 5
    assert seen[0].hex() == PINNED_PAYLOAD_KEY
    with pytest.raises(ValueError):
        payload_key(b"", *parts[1:])


PINNED_PAYLOAD_KEY = "aaf13fb4887cf7f4927098b2411f15b351f7d4f11748fc03b39436233cd14ca5"


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=600), st.sampled_from([b"", b"\0", b"\x80", b"\x80\0\0"]))
def test_payload_round_trip(plain: bytes, tail: bytes) -> None:
    """A payload comes back whole, whatever bytes it ends with."""
    segments = encrypt_payload(KEY, plain + tail)
    assert decrypt_payload(KEY, segments) == plain + tail
    assert split_ciphertext(b"".join(segments)) == segments


@pytest.mark.parametrize(
    "size", [0, 255, 256, 65_535, SEGMENT_BYTES - 1, SEGMENT_BYTES, 3 * SEGMENT_BYTES, 1024 * 1024]
)
def test_payload_sizes(size: int) -> None:
    """Payloads on either side of every border come back, with the padded size outside."""
    plain = bytes(size)
    segments = encrypt_payload(KEY, plain)
    padded = padded_size(size + 1)
    assert len(segments) == -(-padded // SEGMENT_BYTES)
    assert sum(map(len, segments)) == padded + 16 * len(segments)
    assert decrypt_payload(KEY, segments) == plain
    assert split_ciphertext(b"".join(segments)) == segments


def test_payload_damage() -> None:
    """Truncation, reordering, repetition, extension and damage are all found and told apart."""
    a, b, c, d = encrypt_payload(KEY, b"x" * (3 * SEGMENT_BYTES + 5))
    assert len(d) < SEALED_SEGMENT_BYTES
    whole = [a, b, c, d]
    for bad in (
        [],
        [a],
        [a, b],
        [a, b, c],
        [b, a, c, d],
        [a, c, b, d],
        [a, a, b, c, d],
        [a, b, c, d, d],
        [a, b, c, d[:-1]],
        [a, b, c, d[:16]],
        [a, b, c, d + b"x"],
        [a, b[:-1], c, d],
        [a, b, c[:-1] + bytes([c[-1] ^ 1]), d],
        [d],
    ):
        with pytest.raises((FaultyPiece, WrongSecret)) as caught:
            decrypt_payload(KEY, bad)
        if bad and bad[0] == a:
            assert caught.type is FaultyPiece
    with pytest.raises(WrongSecret, match="name or passphrase"):
        decrypt_payload(bytes(32), whole)
    with pytest.raises(FaultyPiece):
        decrypt_payload(KEY, [*encrypt_payload(KEY, bytes(SEGMENT_BYTES - 1)), d])


def test_payload_padding() -> None:
    """A payload padded in another way than ours is refused though it opens."""
    for padded in (bytes(256), b"x" * 256, b"x\x80" + bytes(300), b"x\x80", b"\x80" + bytes(511)):
        raw = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
            padded, None, bytes(23) + b"\1", KEY
        )
        with pytest.raises(Malformed):
            decrypt_payload(KEY, [raw])


def test_payload_too_large() -> None:
    """What does not fit with its padding is refused with both numbers."""
    assert len(encrypt_payload(KEY, bytes(PAYLOAD_BYTES_MAX - 1))) == 8
    with pytest.raises(Refused, match=str(PAYLOAD_BYTES_MAX)):
        encrypt_payload(KEY, bytes(PAYLOAD_BYTES_MAX))


def test_wycheproof() -> None:
    """The published hard cases for XChaCha20-Poly1305 come out as their authors say."""
    path = VECTORS / "wycheproof-xchacha20-poly1305.json"
    if not path.exists():
        pytest.skip(f"no test vectors in {path.parent}")
    count = 0
    for group in json.loads(path.read_text())["testGroups"]:
        if group["ivSize"] != 192:
            continue
        for test in group["tests"]:
            count += 1
            key, nonce, aad, plain, cipher, tag = (
                bytes.fromhex(test[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
            )
            args = (aad or None, nonce, key)
            if test["result"] == "valid":
                opened = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(
                    cipher + tag, *args
                )
                assert opened == plain
                sealed = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plain, *args)
                assert sealed == cipher + tag
            else:
                with pytest.raises(nacl.exceptions.CryptoError):
                    nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(cipher + tag, *args)
    assert count > 100
