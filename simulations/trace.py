"""The trace: everything that happened in a run, folded into one hash.

Two runs of one seed are the same run exactly when their traces are equal. The trace takes
integers, text, bytes, truth values and None only: an object's `repr` may hold a memory
address, and a float its rounding. Times are integers of nanoseconds.

Secrets do not belong here: whoever traces bytes that may hold one traces a digest of them.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Final

Field = int | str | bytes | None

MARK_EVERY: Final = 256  # events; fine enough to bisect, 8 bytes each to keep
MARK_BYTES: Final = 4
HASH_BYTES: Final = 16  # traces are compared, never defended against an attacker


def encode(fields: Sequence[Field]) -> bytes:
    """Turn fields into bytes so that no two different sequences give the same bytes.

    Every field carries a tag and its length. Raises TypeError for any other type of field.
    """
    return b"%d;" % len(fields) + b"".join([_encode_field(field) for field in fields])


def _encode_field(field: Field) -> bytes:
    # Exact types: an enum or a subclass of str would be taken for what it is not.
    if field is None:
        return b"n"
    if isinstance(field, bool):
        return b"t" if field else b"f"
    if isinstance(field, int) and type(field) is int:
        return b"i%d;" % field
    if isinstance(field, bytes) and type(field) is bytes:
        return b"b%d:" % len(field) + field
    if isinstance(field, str) and type(field) is str:
        raw = field.encode("utf-8", "surrogatepass")
        return b"s%d:" % len(raw) + raw
    raise TypeError(
        f"a trace takes whole numbers, text, bytes, truth values and None; it was given a "
        f"{type(field).__name__}, which may look different in the next run"
    )


class Trace:
    """Fold events into a running BLAKE2b hash; call it with the fields of one event.

    `keep` is how many of the first events are also kept as they are, in `lines`, to be
    read by people. `count` is the number of events so far. `marks` holds a short hash
    after every `MARK_EVERY` events, so that `divergence` can say where two runs part.
    """

    def __init__(self, keep: int = 0) -> None:
        self.count = 0
        self.marks: list[bytes] = []
        self.lines: list[tuple[Field, ...]] = []
        self._keep = keep
        self._hash = hashlib.blake2b(digest_size=HASH_BYTES)

    def __call__(self, *fields: Field) -> None:
        self._hash.update(encode(fields))
        self.count += 1
        if self.count % MARK_EVERY == 0:
            self.marks.append(self._hash.digest()[:MARK_BYTES])
        if self.count <= self._keep:
            self.lines.append(fields)

    def hexdigest(self) -> str:
        """Return the hash of everything so far: 32 hexadecimal characters."""
        return self._hash.hexdigest()


def divergence(first: Trace, second: Trace) -> int | None:
    """Return the index of an event at or before which two traces surely still agree.

    The index is exact where both traces kept their lines; otherwise it is the start of the
    stretch of `MARK_EVERY` events in which they part. None when the traces are equal.
    """
    if first.count == second.count and first.hexdigest() == second.hexdigest():
        return None
    pairs = itertools.zip_longest(first.marks, second.marks)
    stretch = next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), None)
    start = MARK_EVERY * (len(first.marks) if stretch is None else stretch)
    both = min(len(first.lines), len(second.lines))
    for index in range(start, both):
        # As encoded: in Python True equals 1, in a trace it does not.
        if encode(first.lines[index]) != encode(second.lines[index]):
            return index
    return max(start, both) if both >= start else start
