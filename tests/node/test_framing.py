"""Frames come out as they went in, however the network cuts them."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import msgpack
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from node.framing import (
    COUNT_MAX,
    DEPTH_MAX,
    ELEMENTS_MAX,
    FRAME_BYTES_MAX,
    FrameReader,
    pack,
)
from protocol.errors import Malformed

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=20)
    | st.binary(max_size=40)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)
MESSAGES = st.lists(VALUES, max_size=6) | st.dictionaries(st.text(max_size=6), VALUES, max_size=6)


class Scripted(trio.abc.ReceiveStream):
    """Gives out prepared pieces, then the end."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = list(pieces)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    async def aclose(self) -> None:
        pass


def split(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(raw) + 1) for cut in cuts} | {0, len(raw)})
    pieces = [raw[start:end] for start, end in itertools.pairwise(places)]
    return [piece for piece in pieces if piece]


async def drain(reader: FrameReader, batches: list[bool]) -> list[Any]:
    """Read to the end, one by one or in batches as told."""
    frames: list[Any] = []
    turn = 0
    while True:
        turn += 1
        if batches and batches[turn % len(batches)]:
            some = await reader.read_some()
            frames += some
            if not some:
                return frames
        else:
            one = await reader.read()
            if one is None:
                return frames
            frames.append(one)


def framed(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


def read_one(raw: bytes) -> Any:
    async def main() -> Any:
        return await FrameReader(Scripted([raw])).read()

    return trio.run(main)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(MESSAGES, max_size=6),
    st.lists(st.integers(0, 10_000), max_size=12),
    st.lists(st.booleans(), max_size=4),
)
def test_any_split(messages: list[Any], cuts: list[int], batches: list[bool]) -> None:
    """However bytes are cut on the way, the same frames arrive."""
    raw = b"".join(pack(message) for message in messages)
    reader = FrameReader(Scripted(split(raw, cuts)))
    assert trio.run(drain, reader, batches) == messages


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=200).map(framed), st.lists(st.integers(0, 200)))
def test_noise(raw: bytes, cuts: list[int]) -> None:
    """Whatever arrives, the reader gives frames, ends, or raises Malformed."""
    try:
        trio.run(drain, FrameReader(Scripted(split(raw, cuts))), [True, False])
    except Malformed:
        pass


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not in the form|incomplete"),
        (b"\x01", "neither"),
        (b"\xc0", "neither"),
        (b"\x90\x90", "form"),
        (b"\x92\x01", "incomplete"),
        (b"\xc1", "form"),
        (b"\x91\xa1\xff", "form"),
        (msgpack.packb([1.5]), "never writes"),
        (msgpack.packb([msgpack.ExtType(5, b"")]), "never writes"),
        (msgpack.packb([msgpack.ExtType(5, b"x")]), "max_ext_len"),
        (msgpack.packb([msgpack.Timestamp(1)]), "max_ext_len"),
        (b"\x81\x01\x02", "map key"),
        (b"\x81\xc4\x01a\x02", "not text"),
        (b"\x82\xa1a\x01\xa1a\x02", "twice"),
        (b"\x91" * DEPTH_MAX + b"\x90", "deep"),
        (b"\x91" * 2000 + b"\xc0", "form"),
        (b"\xdd\xff\xff\xff\xff", "max_array_len"),
        (msgpack.packb([[None] * COUNT_MAX] * 9), f"more than {ELEMENTS_MAX}"),
    ],
)
def test_refused(body: bytes, words: str) -> None:
    """Frames of another form are refused with a sentence."""
    with pytest.raises(Malformed, match=words):
        read_one(framed(body))


def test_deepest_and_fullest() -> None:
    """What is just within the limits passes."""
    deep = b"\x91" * (DEPTH_MAX - 1) + b"\x90"
    assert read_one(framed(deep)) == msgpack.unpackb(deep)
    full = [[None] * (COUNT_MAX - 1)] * 7
    assert read_one(pack(full)) == full


def test_too_long() -> None:
    """A frame beyond the limit is refused at its length, before its bytes are waited for."""
    with pytest.raises(Malformed, match="1048577"):
        read_one(struct.pack("!I", FRAME_BYTES_MAX + 1))
    with pytest.raises(ValueError, match="exceeds"):
        pack([bytes(FRAME_BYTES_MAX)])
    largest = [bytes(FRAME_BYTES_MAX - 6)]
    assert read_one(pack(largest)) == largest


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 7])
def test_cut_off(cut: int) -> None:
    """A stream that ends inside a frame is told from one that ends between frames."""
    with pytest.raises(Malformed, match="middle"):
        read_one(pack({"a": 1})[:cut])
    assert read_one(b"") is None


async def test_good_before_bad() -> None:
    """Frames in front of a bad one are given out before the error."""
    reader = FrameReader(Scripted([pack([1]) + pack([2]) + framed(b"\xc1")]))
    assert await reader.read_some() == [[1], [2]]
    for _ in range(2):
        with pytest.raises(Malformed):
            await reader.read_some()


async def test_broken_stream_passes() -> None:
    """A connection that breaks is no fault of the bytes, and raises trio's own error."""
    left, right = trio.testing.memory_stream_pair()
    reader = FrameReader(right)
    await left.send_all(pack([1])[:3])
    await right.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await reader.read()


def test_strict_types() -> None:
    """Tuples are refused, since they would come back as lists."""
    with pytest.raises(TypeError):
        pack([(1, 2)])


def test_error_keeps_the_content_to_itself() -> None:
    """What a frame holds shows nowhere in the error about it."""
    with pytest.raises(Malformed) as caught:
        read_one(framed(b"\x91\xa8canary\xff\xff"))
    assert "canary" not in repr(caught.value)
    assert caught.value.__suppress_context__
