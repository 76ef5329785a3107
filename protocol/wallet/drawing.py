"""Stretch the 32 random bytes of one act into as many as it needs.

The seed is fresh for every act and never kept: what is made from it is kept, so that a
repetition sends the same bytes.
"""

from __future__ import annotations

from protocol.encoding import hash256

SEED_BYTES = 32


class Draws:
    """Random bytes of one act, one after another, all from `seed` (32 secret random bytes)."""

    __slots__ = ("_count", "_seed")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError(f"draws are made from {SEED_BYTES} random bytes, not {len(seed)}")
        self._seed = seed
        self._count = 0

    def draw(self, size: int) -> bytes:
        """Return the next `size` bytes; no two calls share any."""
        blocks = []
        for _ in range(-(-size // 32)):
            blocks.append(hash256("hf/draw", self._seed, self._count.to_bytes(8, "big")))
            self._count += 1
        return b"".join(blocks)[:size]

    def __repr__(self) -> str:
        return "Draws(…)"
