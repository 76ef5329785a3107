"""Gather the fragments of a large version from guardians, and put its ciphertext together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from protocol import fragments, sealing, vault
from protocol.errors import FaultyPiece, NotEnough
from protocol.wallet.recovering import Candidate

_LARGE: Final = sealing.SEALED_SEGMENT_BYTES


def _check_shape(candidate: Candidate) -> None:
    """Refuse a large version whose numbers do not fit together, before any of it is fetched."""
    body: Mapping[str, Any] = candidate.version.body
    if body["segments"] != -(-body["size"] // _LARGE):
        raise FaultyPiece("the version's size and its number of parts do not fit together")


class Gathering:
    """The fragments of one large version, taken from guardians one by one, each checked.

    Raises `FaultyPiece` for a version whose size and number of parts do not fit together.
    """

    def __init__(self, candidate: Candidate) -> None:
        _check_shape(candidate)
        self._deal, self._version = candidate.deal, candidate.version
        self._holders: list[int] = candidate.deal.body["holders"]
        self._coder = fragments.Coder(vault.threshold_of(candidate.deal), len(self._holders))
        self._parts: list[dict[int, bytes]] = [{} for _ in range(self.count)]

    @property
    def count(self) -> int:
        """How many fragments each guardian holds: one a segment."""
        return int(self._version.body["segments"])

    def size(self, index: int) -> int:
        """The bytes of a segment, from the size the owner signed."""
        total = int(self._version.body["size"])
        return min(_LARGE, total - index * _LARGE)

    def take(self, seat: int, index: int, data: bytes, path: Sequence[bytes]) -> None:
        """Keep a fragment, or raise `FaultyPiece`: whoever served it is to be named."""
        if seat not in self._holders:
            raise FaultyPiece("a guardian that holds nothing of this vault served a fragment")
        root = vault.root_for(self._version, self._deal, seat)
        fragments.check_path(data, index, self.count, path, root)
        if len(data) != self._coder.fragment_size(self.size(index)):
            raise FaultyPiece(f"fragment {index + 1} has a length that the owner cannot have made")
        self._parts[index][self._holders.index(seat)] = data

    @property
    def done(self) -> int:
        """How many segments can be put together."""
        return sum(len(parts) >= self._coder.threshold for parts in self._parts)

    @property
    def is_complete(self) -> bool:
        return self.done == self.count

    def segments(self) -> list[bytes]:
        """Put all segments together. Raises `NotEnough` while some are missing."""
        if not self.is_complete:
            raise NotEnough(
                f"{self.done} of {self.count} parts of the backup are here",
                hint="wait for more guardians, then run: holdfast wallet resume",
            )
        return [
            self._coder.decode_segment(parts, self.size(index))
            for index, parts in enumerate(self._parts)
        ]
