"""Cut ciphertext into fragments, any threshold of which give it back, and prove each one.

Reed-Solomon over GF(2^8), systematic, with ISA-L's Cauchy matrix. The code corrects losses and
not errors: from a changed fragment it makes garbage without complaint, so a fragment is
checked against its holder's Merkle root before it is decoded. Which root is the right one is
said by the signed version, not here.

What a stranger needs to write the same code, for threshold t, n holders and a segment of
size bytes:

- the field is GF(256) modulo x^8 + x^4 + x^3 + x^2 + 1 (0x11d);
- a fragment has ceil(size / t) bytes; the segment, filled up with zeros, cut into t pieces of
  that length is the fragments of holders 0 to t - 1;
- byte k of the fragment of holder i ≥ t is the sum over j < t of byte k of fragment j times
  the inverse of (i XOR j). With n = t there are no such fragments.

Fragments are bare: the headers that liberasurecode puts before them are taken off and put back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from protocol.encoding import HASH_BYTES, hash256
from protocol.errors import FaultyPiece, NotEnough, Refused
from protocol.limits import SEATS_MAX, THRESHOLD_MIN

_CODE: Final = "isa_l_rs_cauchy"

# --- coding ----------------------------------------------------------------------------


class Coder:
    """Code segments for `holders` so that any `threshold` of their fragments suffice.

    Holders are counted from 0 in the order of the deal. Raises ValueError for a threshold
    below 2 or above the number of holders, and for more than `SEATS_MAX` holders.
    """

    def __init__(self, threshold: int, holders: int) -> None:
        if not THRESHOLD_MIN <= threshold <= holders <= SEATS_MAX:
            raise ValueError(f"no code makes {threshold} of {holders} fragments suffice")
        self.threshold: Final = threshold
        self.holders: Final = holders
        self._codec: Any = None
        self._headers: dict[int, list[bytes]] = {}

    def fragment_size(self, size: int) -> int:
        """Return the bytes of each fragment of a segment of `size` bytes."""
        return -(-size // self.threshold)

    def encode_segment(self, segment: bytes) -> list[bytes]:
        """Return one fragment for each holder. `segment` has at least one byte.

        Raises Refused on a computer without the codec, unless all holders are needed.
        """
        if not segment:
            raise ValueError("an empty segment has no fragments")
        length = self.fragment_size(len(segment))
        if self.holders == self.threshold:
            padded = segment.ljust(length * self.threshold, b"\0")
            return [padded[at : at + length] for at in range(0, len(padded), length)]
        return [coded[-length:] for coded in self._open_codec().encode(segment)]

    def decode_segment(self, fragments: Mapping[int, bytes], size: int) -> bytes:
        """Return the segment of `size` bytes from fragments keyed by holder.

        Of more than `threshold` fragments the first holders' are used. The fragments must
        have passed `check_path`. Raises NotEnough with fewer than `threshold`, FaultyPiece
        for a fragment of a wrong length, Refused on a computer without the codec when the
        fragments of the first `threshold` holders are not all there.
        """
        if size < 1 or not all(0 <= holder < self.holders for holder in fragments):
            raise ValueError("a segment has a byte at least, and fragments belong to holders")
        if len(fragments) < self.threshold:
            raise NotEnough(
                f"{len(fragments)} fragments are here, and {self.threshold} are needed.",
                hint=f"Ask {self.threshold - len(fragments)} more guardians.",
            )
        chosen = sorted(fragments)[: self.threshold]
        length = self.fragment_size(size)
        if any(len(fragments[holder]) != length for holder in chosen):
            raise FaultyPiece(f"A fragment has a wrong length; {length} bytes were expected.")
        if chosen[-1] == self.threshold - 1:
            return b"".join(fragments[holder] for holder in chosen)[:size]
        codec = self._open_codec()
        headers = self._headers_for(size)
        decoded: bytes = codec.decode([headers[each] + fragments[each] for each in chosen])
        return decoded

    def _open_codec(self) -> Any:
        if self._codec is None:
            try:
                from pyeclib.ec_iface import ECDriver
            except ImportError as error:
                raise Refused(
                    "This computer lacks the part of Holdfast that handles larger secrets.",
                    hint="Use a computer with Linux, or ask for more pieces.",
                ) from error
            self._codec = ECDriver(ec_type=_CODE, k=self.threshold, m=self.holders - self.threshold)
        return self._codec

    def _headers_for(self, size: int) -> list[bytes]:
        # liberasurecode's headers depend on holder and size alone, so coding zeros yields them.
        if size not in self._headers:
            length = self.fragment_size(size)
            coded = self._open_codec().encode(bytes(size))
            self._headers = {size: [each[:-length] for each in coded]}
        return self._headers[size]


def code(segments: Sequence[bytes], threshold: int, holders: int) -> list[list[bytes]]:
    """Return for each holder its fragments, one of each of `segments` in order."""
    coder = Coder(threshold, holders)
    coded = [coder.encode_segment(segment) for segment in segments]
    return [[fragments[holder] for fragments in coded] for holder in range(holders)]


def roots(coded: Sequence[Sequence[bytes]]) -> list[bytes]:
    """Return the Merkle root of each holder's fragments."""
    return [root(fragments) for fragments in coded]


# --- Merkle trees ----------------------------------------------------------------------
#
# The shape is RFC 6962's: a tree of n > 1 leaves has the largest power of two below n at its
# left. Leaves and nodes are hashed under different domains, so neither passes for the other.


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the 32-byte root of the tree over at least one leaf."""
    return _join([_leaf(leaf) for leaf in leaves])


def path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the hashes that lead from leaf `index` to the root, the leaf's neighbour first."""
    if not 0 <= index < len(leaves):
        raise ValueError(f"there is no leaf {index} among {len(leaves)}")
    hashes = [_leaf(leaf) for leaf in leaves]
    steps = []
    while len(hashes) > 1:
        split = _split(len(hashes))
        if index < split:
            steps.append(_join(hashes[split:]))
            hashes = hashes[:split]
        else:
            steps.append(_join(hashes[:split]))
            hashes, index = hashes[split:], index - split
    return steps[::-1]


def check_path(leaf: bytes, index: int, count: int, path: Sequence[bytes], root: bytes) -> None:
    """Return if `path` leads from `leaf`, number `index` of `count`, to `root`.

    `count` and `root` are what the owner signed. Raises FaultyPiece otherwise.
    """
    wrong = FaultyPiece(
        f"Fragment {index + 1} of {count} is not the one that its owner made: "
        "it was damaged or exchanged."
    )
    if not 0 <= index < count or any(len(step) != HASH_BYTES for step in path):
        raise wrong
    sides = _sides(index, count)
    if len(path) != len(sides):
        raise wrong
    found = _leaf(leaf)
    for step, left in zip(path, sides, strict=True):
        found = _node(step, found) if left else _node(found, step)
    # SPEC 8.16: the leaf is the one that the owner signed.
    if found != root:
        raise wrong


def _sides(index: int, count: int) -> list[bool]:
    """Say for each step from leaf to root whether the neighbour stands to the left."""
    sides = []
    while count > 1:
        split = _split(count)
        sides.append(index >= split)
        if index < split:
            count = split
        else:
            index, count = index - split, count - split
    return sides[::-1]


def _split(count: int) -> int:
    return 1 << (count - 1).bit_length() - 1


def _leaf(leaf: bytes) -> bytes:
    return hash256("holdfast leaf", leaf)


def _node(left: bytes, right: bytes) -> bytes:
    return hash256("holdfast node", left, right)


def _join(hashes: Sequence[bytes]) -> bytes:
    if not hashes:
        raise ValueError("a tree has at least one leaf")
    if len(hashes) == 1:
        return hashes[0]
    split = _split(len(hashes))
    return _node(_join(hashes[:split]), _join(hashes[split:]))
