"""Make the one kind of TLS certificate there is, and the contexts that accept no other.

A certificate here carries a transport key and nothing else worth reading: name, serial number
and identifiers follow from the key, it is valid from 1970 to 9999, and it is signed with the
key it carries. There is no authority and no expiry that could stand in the way of a recovery.
Since only the 64-byte signature cannot be computed from the key, a roster names both and
everybody rebuilds everybody's certificate byte for byte. Who may talk to whom is decided by
the trust store and by comparing keys, never by what a certificate says about itself.

The transport key is not the identity key: it lies unsealed in the guardian's folder, so that a
node whose keys are still locked can relay. It signs certificates and handshakes only.
"""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from protocol.errors import BadSignature
from protocol.keys import PUBLIC_BYTES, SIGNATURE_BYTES, SigningKey, verify

ALPN: Final = "holdfast/1"  # a later, incompatible protocol takes another name

# DER, as RFC 5280 and RFC 8410 lay it down. Only what differs between keys is computed.
_ED25519: Final = bytes.fromhex("300506032b6570")
_PUBLIC_HEAD: Final = bytes.fromhex("302a300506032b6570032100")
_PRIVATE_HEAD: Final = bytes.fromhex("302e020100300506032b657004220420")
_VERSION_3: Final = bytes.fromhex("a003020102")
_COMMON_NAME: Final = bytes.fromhex("0603550403")
_NOT_AN_AUTHORITY: Final = bytes.fromhex("300c0603551d130101ff04023000")
_SIGNS_ONLY: Final = bytes.fromhex("300e0603551d0f0101ff040403020780")
_SUBJECT_KEY: Final = bytes.fromhex("0603551d0e")
_AUTHORITY_KEY: Final = bytes.fromhex("0603551d23")
_SEQUENCE: Final = 0x30
_SERIAL_BYTES: Final = 16  # RFC 5280 allows 20
_KEY_ID_BYTES: Final = 20  # the length everybody uses


def certificate(key: SigningKey) -> bytes:
    """Return the DER certificate of a transport key: about 440 bytes, always the same."""
    return certificate_from(key.public, certificate_signature(key))


def certificate_signature(key: SigningKey) -> bytes:
    """Return the 64 bytes of the certificate that only the key's owner can make."""
    return key.sign(_body(key.public))


def certificate_from(public: bytes, signature: bytes) -> bytes:
    """Return the DER certificate of a key from its 32 bytes and the certificate's signature.

    Nothing is verified: `holds` does that. Raises ValueError for other lengths.
    """
    if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        raise ValueError(
            f"a certificate is made from {PUBLIC_BYTES} and {SIGNATURE_BYTES} bytes, "
            f"not {len(public)} and {len(signature)}"
        )
    signed = _body(public) + _ED25519 + _der(0x03, b"\0" + signature)
    return _der(_SEQUENCE, signed)


def holds(public: bytes, signature: bytes) -> bool:
    """Say whether `signature` is what `certificate_signature` makes with the key of `public`.

    Ask before a roster is agreed: a guardian whose entry is wrong can be reached, but is
    turned away wherever it dials.
    """
    try:
        verify(public, _body(public), signature)
    except BadSignature:
        return False
    return True


def key_of(der: bytes | None) -> bytes | None:
    """Return the transport key in a certificate of exactly our shape, or None for any other.

    Possession of the key is for the TLS handshake to prove.
    """
    if der is None:
        return None
    start = der.find(_PUBLIC_HEAD) + len(_PUBLIC_HEAD)
    public = der[start : start + PUBLIC_BYTES]
    if start < len(_PUBLIC_HEAD) or len(public) < PUBLIC_BYTES:
        return None
    return public if certificate_from(public, der[-SIGNATURE_BYTES:]) == der else None


def context_server(key: SigningKey, trusted: Sequence[tuple[bytes, bytes]]) -> ssl.SSLContext:
    """Return the context for incoming connections, to be shared by all of them.

    `trusted` are pairs of transport key and certificate signature. Whoever presents a
    certificate must present one of these; whoever presents none is let in without a name.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0  # nothing is resumed: every connection proves its keys anew
    # Python's servers ask for a certificate only if they also verify it, hence not CERT_NONE.
    context.verify_mode = ssl.CERT_OPTIONAL
    _trust(context, trusted)
    _present(context, key)
    return context


def context_client(
    key: SigningKey | None = None, trusted: Sequence[tuple[bytes, bytes]] = ()
) -> ssl.SSLContext:
    """Return the context for outgoing connections, to be shared by all of them.

    With `key` its certificate is presented. With `trusted` the server must present one of
    these certificates; without, any: the handshake then proves that the server holds the key
    in its certificate, and the caller MUST compare that key with the one it dialled. With or
    without, for being trusted does not mean being the one that was dialled.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    if trusted:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, trusted)
    else:
        context.verify_mode = ssl.CERT_NONE
    if key is not None:
        _present(context, key)
    return context


def _context(side: ssl._SSLMethod) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.check_hostname = False  # identity is a key, not a name
    context.set_alpn_protocols([ALPN])
    return context


def _trust(context: ssl.SSLContext, trusted: Sequence[tuple[bytes, bytes]]) -> None:
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    ders = [certificate_from(public, signature) for public, signature in trusted]
    if ders:
        context.load_verify_locations(cadata=b"".join(ders))


def _present(context: ssl.SSLContext, key: SigningKey) -> None:
    """Give the context our key and certificate, which the library takes from a path only."""
    pem = _pem("PRIVATE KEY", _PRIVATE_HEAD + key.seed) + _pem("CERTIFICATE", certificate(key))
    # A file in memory keeps the key off the disk: /proc names it without giving it a place.
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        handle = os.memfd_create("holdfast", os.MFD_CLOEXEC)
        with os.fdopen(handle, "wb", buffering=0) as file:
            file.write(pem)
            context.load_cert_chain(f"/proc/self/fd/{handle}")
        return
    with tempfile.NamedTemporaryFile(buffering=0) as file:  # mode 0600, and gone with the block
        file.write(pem)
        context.load_cert_chain(file.name)


def _pem(kind: str, der: bytes) -> bytes:
    text = base64.encodebytes(der).decode("ascii")
    return f"-----BEGIN {kind}-----\n{text}-----END {kind}-----\n".encode("ascii")


def _body(public: bytes) -> bytes:
    """The part of a certificate that is signed."""
    name = _der(_SEQUENCE, _COMMON_NAME + _der(0x0C, public.hex().encode("ascii")))
    name = _der(_SEQUENCE, _der(0x31, name))
    # A leading 1 keeps the number positive, without a zero in front, at one length.
    serial = b"\1" + hashlib.sha256(b"holdfast serial" + public).digest()[: _SERIAL_BYTES - 1]
    validity = _der(0x17, b"700101000000Z") + _der(0x18, b"99991231235959Z")
    identifier = hashlib.sha256(public).digest()[:_KEY_ID_BYTES]
    # Strict verification asks for both identifiers, though they can only be equal here.
    extensions = (
        _NOT_AN_AUTHORITY
        + _SIGNS_ONLY
        + _der(_SEQUENCE, _SUBJECT_KEY + _der(0x04, _der(0x04, identifier)))
        + _der(_SEQUENCE, _AUTHORITY_KEY + _der(0x04, _der(_SEQUENCE, _der(0x80, identifier))))
    )
    fields = (
        _VERSION_3
        + _der(0x02, serial)
        + _ED25519
        + name
        + _der(_SEQUENCE, validity)
        + name
        + _PUBLIC_HEAD
        + public
        + _der(0xA3, _der(_SEQUENCE, extensions))
    )
    return _der(_SEQUENCE, fields)


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    if size < 0x100:
        return bytes([tag, 0x81, size]) + content
    return bytes([tag, 0x82]) + size.to_bytes(2, "big") + content
