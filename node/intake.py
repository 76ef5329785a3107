"""Log entries as they come off a link: what is known is skipped, the rest verified.

A frame says where its entries stand, outside their signatures, so that those already held
are dropped undecoded. Nobody is believed for it: an entry must say the same of itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from node.ports import Verifier, Workers
from protocol.contract import Verified
from protocol.errors import Malformed
from protocol.statements import UINT_MAX

Log: TypeAlias = tuple[int, int]  # whose log, which incarnation of it

ITEM_BYTES: Final = 64  # what any value costs in memory besides its content


@dataclass(frozen=True, slots=True)
class Batch:
    """A run of entries of one log, as its frame claims."""

    log: Log
    first: int
    raws: Sequence[bytes]
    check: bool

    def after(self, head: int) -> Batch:
        """Without the entries up to `head`, unless they are wanted for a comparison."""
        known = 0 if self.check else max(0, head + 1 - self.first)
        return Batch(self.log, self.first + known, self.raws[known:], self.check)

    def parts(self, size: int) -> list[Batch]:
        return [
            Batch(self.log, self.first + at, self.raws[at : at + size], self.check)
            for at in range(0, len(self.raws), size)
        ]


def read_batch(fields: Mapping[str, Any]) -> Batch:
    """Read the fields of an `entries` frame. Raises `Malformed`."""
    raws, check = fields.get("raws"), fields.get("check")
    if type(raws) is not list or type(check) is not bool:
        raise Malformed("a frame of entries has none")
    if not all(type(raw) is bytes for raw in raws):
        raise Malformed("an entry is not made of bytes")
    log = (_number(fields, "seat"), _number(fields, "incarnation"))
    return Batch(log, _number(fields, "first"), raws, check)


def _number(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name)
    if type(value) is int and 0 <= value <= UINT_MAX:
        return value
    raise Malformed("a frame of entries does not say where they stand")


async def verify_batch(
    workers: Workers, codec: Verifier, batch: Batch
) -> tuple[tuple[Verified, ...], Malformed | None]:
    """Check signatures and places: the good entries up to the first bad one, and its error."""
    checked = await workers.each(lambda raws: verify_all(codec, raws), batch.raws)
    good: list[Verified] = []
    for seq, entry in enumerate(checked, batch.first):
        if isinstance(entry, Malformed):
            return tuple(good), entry
        if not _stands_at(entry, *batch.log, seq):
            return tuple(good), Malformed("an entry does not stand where its frame says")
        good.append(entry)
    return tuple(good), None


def verify_all(codec: Verifier, raws: Sequence[bytes]) -> list[Verified | Malformed]:
    """Verify entries, on whatever thread; what is no good comes back as its error."""
    result: list[Verified | Malformed] = []
    for raw in raws:
        try:
            result.append(codec.verify(raw))
        except Malformed as error:
            result.append(error)
    return result


def _stands_at(entry: Verified, seat: int, incarnation: int, seq: int) -> bool:
    where = entry.body.get  # a statement that stands in no log has none of these
    return bool(
        where("seq") == seq and where("seat") == seat and where("incarnation") == incarnation
    )


def weigh(value: Any) -> int:
    """About how many bytes the fields of a message hold in memory."""
    if isinstance(value, (bytes, str)):
        return ITEM_BYTES + len(value)
    if isinstance(value, dict):
        return ITEM_BYTES + sum(map(weigh, value.values()))
    return ITEM_BYTES + sum(map(weigh, value)) if isinstance(value, list) else ITEM_BYTES
