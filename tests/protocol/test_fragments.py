"""Erasure code and Merkle trees, the code also against one written from its description."""

from __future__ import annotations

import hashlib
import itertools
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import FaultyPiece, NotEnough, Refused
from protocol.fragments import Coder, check_path, code, path, root, roots

# --- the description in the module, written out ----------------------------------------


def times(a: int, b: int) -> int:
    """Multiply in GF(256) modulo 0x11d."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a & 0x100:
            a ^= 0x11D
        b >>= 1
    return product


INVERSE = [0] + [next(b for b in range(1, 256) if times(a, b) == 1) for a in range(1, 256)]


def described(segment: bytes, threshold: int, holders: int) -> list[bytes]:
    """Code a segment exactly as the module's text says."""
    length = -(-len(segment) // threshold)
    padded = segment + bytes(length * threshold - len(segment))
    pieces = [padded[at : at + length] for at in range(0, len(padded), length)]
    for holder in range(threshold, holders):
        total = bytearray(length)
        for j in range(threshold):
            factor = INVERSE[holder ^ j]
            for k in range(length):
                total[k] ^= times(factor, pieces[j][k])
        pieces.append(bytes(total))
    return pieces


shapes = st.integers(2, 32).flatmap(lambda n: st.tuples(st.integers(2, n), st.just(n)))


@settings(max_examples=40, deadline=None)
@given(shapes, st.integers(1, 130))
def test_code_is_the_described_one(shape: tuple[int, int], size: int) -> None:
    """The codec's fragments are those that a stranger computes from the description."""
    segment = hashlib.shake_256(b"%d" % size).digest(size)
    assert Coder(*shape).encode_segment(segment) == described(segment, *shape)


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(1, 5000), st.randoms(use_true_random=False))
def test_any_threshold_gives_back(shape: tuple[int, int], size: int, random: object) -> None:
    """Any threshold of fragments gives back the segment, and more do no harm."""
    threshold, holders = shape
    segment = hashlib.shake_256(b"%d" % size).digest(size)
    coder = Coder(threshold, holders)
    fragments = coder.encode_segment(segment)
    assert {len(each) for each in fragments} == {coder.fragment_size(size)}
    chosen = random.sample(range(holders), threshold)  # type: ignore[attr-defined]
    assert coder.decode_segment({each: fragments[each] for each in chosen}, size) == segment
    assert coder.decode_segment(dict(enumerate(fragments)), size) == segment


def test_every_subset() -> None:
    """Of seven fragments every five give back the segment."""
    segment = bytes(range(256)) * 8 + b"xyz"
    coder = Coder(5, 7)
    fragments = coder.encode_segment(segment)
    for chosen in itertools.combinations(range(7), 5):
        found = coder.decode_segment({each: fragments[each] for each in chosen}, len(segment))
        assert found == segment


def test_every_shape_of_cauchy() -> None:
    """At the largest federation the last holders alone give back the segment."""
    segment = bytes(range(251)) * 40
    coder = Coder(16, 32)
    fragments = coder.encode_segment(segment)
    assert coder.decode_segment({i: fragments[i] for i in range(16, 32)}, len(segment)) == segment


def test_sizes_in_turn() -> None:
    """One coder serves segments of different sizes, as the last of a payload is shorter."""
    coder = Coder(3, 5)
    for size in (1000, 7, 1000, 1):
        segment = b"s" * size
        fragments = coder.encode_segment(segment)
        assert coder.decode_segment({4: fragments[4], 3: fragments[3], 1: fragments[1]}, size) == (
            segment
        )


def test_too_few_and_wrong_lengths() -> None:
    """Too few fragments, and fragments of a wrong length, are told apart."""
    coder = Coder(3, 5)
    fragments = dict(enumerate(coder.encode_segment(b"x" * 100)))
    with pytest.raises(NotEnough, match="2 fragments are here, and 3"):
        coder.decode_segment({0: fragments[0], 4: fragments[4]}, 100)
    with pytest.raises(FaultyPiece, match="34 bytes"):
        coder.decode_segment({0: b"", 1: fragments[1], 4: fragments[4]}, 100)
    with pytest.raises(FaultyPiece):
        coder.decode_segment(fragments, 200)
    for bad, size in (({5: b"", 0: b"", 1: b""}, 100), ({-1: b""}, 100), (fragments, 0)):
        with pytest.raises(ValueError):
            coder.decode_segment(bad, size)
    with pytest.raises(ValueError):
        coder.encode_segment(b"")


@pytest.mark.parametrize("shape", [(1, 3), (0, 0), (4, 3), (2, 33)])
def test_shapes_refused(shape: tuple[int, int]) -> None:
    """Shapes outside the limits are a mistake of ours."""
    with pytest.raises(ValueError):
        Coder(*shape)


def test_without_the_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the codec the plain fragments still give back a segment; others get a sentence."""
    fragments = Coder(2, 3).encode_segment(b"abcde")
    monkeypatch.setitem(sys.modules, "pyeclib.ec_iface", None)
    bare = Coder(2, 3)
    assert bare.decode_segment({0: fragments[0], 1: fragments[1]}, 5) == b"abcde"
    with pytest.raises(Refused, match="lacks the part"):
        bare.decode_segment({0: fragments[0], 2: fragments[2]}, 5)
    with pytest.raises(Refused):
        bare.encode_segment(b"abcde")
    assert Coder(3, 3).encode_segment(b"abcde") == [b"ab", b"cd", b"e\0"]


def test_code() -> None:
    """Each holder gets one fragment of every segment, and a root over its own."""
    segments = [b"a" * 100, b"b" * 100, b"c" * 5]
    coded = code(segments, 2, 4)
    assert len(coded) == 4
    assert [len(each) for each in coded[3]] == [50, 50, 3]
    assert roots(coded) == [root(each) for each in coded]
    coder = Coder(2, 4)
    for n, segment in enumerate(segments):
        assert coder.decode_segment({1: coded[1][n], 3: coded[3][n]}, len(segment)) == segment


# --- Merkle trees ----------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=8), min_size=1, max_size=20), st.data())
def test_paths(leaves: list[bytes], data: st.DataObject) -> None:
    """Every leaf is proved by its path, and by nothing that differs from it in one place."""
    count = len(leaves)
    index = data.draw(st.integers(0, count - 1))
    top, steps = root(leaves), path(leaves, index)
    leaf = leaves[index]
    check_path(leaf, index, count, steps, top)
    bad = [
        (leaf + b"x", index, count, steps, top),
        (leaf, index, count, [*steps, bytes(32)], top),
        (leaf, index, count, steps, bytes(32)),
        (leaf, index, index, steps, top),
        (leaf, -1, count, steps, top),
        (leaf, count, count, steps, top),
    ]
    if steps:
        place = data.draw(st.integers(0, len(steps) - 1))
        changed = [*steps]
        changed[place] = bytes(32)
        bad.append((leaf, index, count, changed, top))
        bad.append((leaf, index, count, steps[:-1], top))
        bad.append((leaf, index, count, [*steps[:-1], steps[-1][:31]], top))
        other = data.draw(
            st.integers(0, count - 1).filter(lambda i: leaves[i] != leaf or i == index)
        )
        if other != index:
            bad.append((leaf, other, count, steps, top))
    for args in bad:
        with pytest.raises(FaultyPiece):
            check_path(*args)


def test_shape_of_the_tree() -> None:
    """The tree has the shape of RFC 6962, with its left side full."""

    def hashed(domain: str, *parts: bytes) -> bytes:
        state = hashlib.blake2b(digest_size=32, person=domain.encode())
        for part in parts:
            state.update(len(part).to_bytes(8, "big") + part)
        return state.digest()

    a, b, c, d, e = (hashed("holdfast leaf", bytes([n])) for n in range(5))
    ab, cd = hashed("holdfast node", a, b), hashed("holdfast node", c, d)
    abcd = hashed("holdfast node", ab, cd)
    leaves = [bytes([n]) for n in range(5)]
    assert root(leaves[:1]) == a
    assert root(leaves[:3]) == hashed("holdfast node", ab, c)
    assert root(leaves) == hashed("holdfast node", abcd, e)
    assert path(leaves, 2) == [d, ab, e]
    assert path(leaves, 4) == [abcd]
    assert path(leaves[:1], 0) == []


def test_a_node_is_no_leaf() -> None:
    """The content of an inner node does not pass for a leaf of a smaller tree."""
    leaves = [b"a", b"b"]
    inner = b"".join(root([each]) for each in leaves)
    assert root([inner]) != root(leaves)


def test_no_leaves() -> None:
    """An empty tree, and a leaf that is not there, are a mistake of ours."""
    with pytest.raises(ValueError):
        root([])
    for index in (-1, 1):
        with pytest.raises(ValueError):
            path([b"a"], index)
