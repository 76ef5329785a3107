"""The effects of one event, and the ledger as it will be after them.

Within one call of a core, what was persisted a moment ago must be seen by what is decided
next, although the world performs the effects only when the call is over.
"""

from __future__ import annotations

from collections.abc import Iterator

from protocol.contract import (
    Effect,
    Ledger,
    Persist,
    Place,
    PutEntry,
    PutRow,
    Table,
)


class Pending:
    """A `Ledger` that shows the rows of an outbox over those of the ledger below."""

    def __init__(self, below: Ledger) -> None:
        self._below = below
        self.out: list[Effect] = []

    def _rows(self, table: Table) -> dict[bytes, bytes | None]:
        changes = (effect.change for effect in self.out if type(effect) is Persist)
        return {
            change.key: change.value
            for change in changes
            if type(change) is PutRow and change.table is table
        }

    def get(self, table: Table, key: bytes) -> bytes | None:
        if self.out:
            rows = self._rows(table)
            if key in rows:
                return rows[key]
        return self._below.get(table, key)

    def scan(self, table: Table, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        rows = {key: row for key, row in self._rows(table).items() if key.startswith(prefix)}
        if not rows:
            yield from self._below.scan(table, prefix)
            return
        merged: dict[bytes, bytes | None] = dict(self._below.scan(table, prefix))
        merged.update(rows)
        for key in sorted(merged):
            value = merged[key]
            if value is not None:
                yield key, value

    def count(self, table: Table) -> int:
        count = self._below.count(table)
        for key, value in self._rows(table).items():
            held = self._below.get(table, key) is not None
            count += (value is not None) - held
        return count

    def has_room(self) -> bool:
        return self._below.has_room()

    def entry(self, place: Place) -> bytes | None:
        changes = (effect.change for effect in self.out if type(effect) is Persist)
        for change in changes:
            if type(change) is PutEntry and change.place == place:
                return change.raw
        return self._below.entry(place)

    def entries(self) -> Iterator[tuple[Place, bytes]]:
        return self._below.entries()
