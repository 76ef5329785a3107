"""Certificates follow from keys, and nothing else is taken for one."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node import certificate
from node.certificate import (
    certificate_from,
    certificate_signature,
    context_client,
    context_server,
    holds,
    key_of,
)
from protocol.keys import SigningKey

KEY = SigningKey(b"k" * 32)
OTHER = SigningKey(b"o" * 32)


def entry(key: SigningKey) -> tuple[bytes, bytes]:
    return key.public, certificate_signature(key)


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Bring two contexts together in memory; raises what either side raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    far = server.wrap_bio(to_server, to_client, server_side=True)
    near = client.wrap_bio(to_client, to_server)
    waiting = [near, far]
    for _ in range(8):
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
        if not waiting:
            return near, far
    raise AssertionError("the handshake goes round in circles")


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_rebuilt(seed: bytes) -> None:
    """Anybody rebuilds a certificate from its key and signature, and reads the key out of it."""
    key = SigningKey(seed)
    made = certificate.certificate(key)
    assert made == certificate_from(*entry(key))
    assert key_of(made) == key.public
    assert holds(*entry(key))


def test_vector() -> None:
    """The shape is fixed: another byte would lock every guardian out of every roster."""
    made = certificate.certificate(KEY)
    assert len(made) == 442
    assert made.hex().startswith("308201b630820168a003020102021001")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_other_shapes(data: st.DataObject) -> None:
    """A certificate that differs anywhere but in key and signature carries no key."""
    made = bytearray(certificate.certificate(KEY))
    place = data.draw(st.integers(0, len(made) - 65))
    made[place] ^= data.draw(st.integers(1, 255))
    assert key_of(bytes(made)) is None
    assert key_of(bytes(made[:place])) is None


@given(st.binary(max_size=600))
def test_noise(raw: bytes) -> None:
    """Bytes that are no certificate carry no key."""
    assert key_of(raw) is None


def test_absent() -> None:
    """Whoever shows no certificate has no key, and wrong lengths are an error of ours."""
    assert key_of(None) is None
    with pytest.raises(ValueError, match="31"):
        certificate_from(bytes(31), bytes(64))


def test_holds() -> None:
    """A signature by another key, or of another length, does not hold."""
    assert not holds(KEY.public, certificate_signature(OTHER))
    assert not holds(KEY.public, b"short")


def test_both_known() -> None:
    """Two guardians of one roster learn each other's key."""
    roster = [entry(KEY), entry(OTHER)]
    near, far = shake(context_server(KEY, roster), context_client(OTHER, roster))
    assert key_of(near.getpeercert(binary_form=True)) == KEY.public
    assert key_of(far.getpeercert(binary_form=True)) == OTHER.public
    assert near.version() == "TLSv1.3"
    assert near.selected_alpn_protocol() == far.selected_alpn_protocol() == "holdfast/1"


def test_wallet() -> None:
    """A wallet shows nothing, is let in, and still learns whom it reached."""
    near, far = shake(context_server(KEY, [entry(OTHER)]), context_client())
    assert key_of(near.getpeercert(binary_form=True)) == KEY.public
    assert far.getpeercert(binary_form=True) is None


def test_stranger_shows_certificate() -> None:
    """A certificate that is not in the roster is refused in the handshake."""
    with pytest.raises(ssl.SSLError, match="self-signed"):
        shake(context_server(KEY, [entry(KEY)]), context_client(OTHER))


def test_stranger_serves() -> None:
    """A guardian refuses a server that is not in its roster."""
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(context_server(OTHER, []), context_client(KEY, [entry(KEY)]))


def test_signature_in_roster_is_wrong() -> None:
    """A certificate is compared whole: the right key with another signature is refused."""
    false = (OTHER.public, certificate_signature(KEY))
    with pytest.raises(ssl.SSLError):
        shake(context_server(KEY, [false]), context_client(OTHER))


def test_older_tls() -> None:
    """TLS 1.2 is refused."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname = False
    old.verify_mode = ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake(context_server(KEY, []), old)


def test_key_stays_off_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no file in memory, the key's file has mode 0600 and is gone at once."""
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    modes: list[int] = []
    load = ssl.SSLContext.load_cert_chain

    def watch(context: ssl.SSLContext, path: str) -> None:
        modes.append(Path(path).stat().st_mode & 0o777)
        load(context, path)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watch)
    context_server(KEY, [])
    assert modes == [0o600]
    assert list(tmp_path.iterdir()) == []
