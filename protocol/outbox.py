"""The effects of one event, and the ledger as it will be after them.

Within one call of a core, what was persisted a moment ago must be seen by what is decided
next, although the world performs the effects only when the call is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from protocol.contract import (
    Change,
    Effect,
    Ledger,
    Persist,
    Place,
    PutEntry,
    PutRow,
    Table,
)

# Rows that are read again and again: each vote looks at its deal, each deposit at its vault.
HELD: Final = (Table.DEAL, Table.VAULT)
ROWS_HELD: Final = 2048  # of them, 2 KB each: those of all cases open in a large federation


class Pending:
    """A `Ledger` that shows the rows of an outbox over those of the ledger below.

    Rows of some tables are held in memory once read. Only this core writes them.
    """

    def __init__(self, below: Ledger) -> None:
        self._below = below
        self._out: list[Effect] = []
        self._length = 0  # how much of it was read
        self._last: Effect | None = None  # the last effect read
        self._rows_of: dict[Table, dict[bytes, bytes | None]] = {}
        self._entries: dict[Place, bytes] = {}
        self._held: dict[tuple[Table, bytes], bytes | None] = {}

    @property
    def out(self) -> list[Effect]:
        return self._out

    @out.setter
    def out(self, out: list[Effect]) -> None:
        # The former outbox has become durable, as it was in the end, read or not.
        for effect in self._out:
            change = effect.change if type(effect) is Persist else None
            if type(change) is PutRow:
                self._held.pop((change.table, change.key), None)
        self._out = out
        self._rows_of, self._entries = {}, {}
        self._length = 0

    def _rows(self, table: Table) -> dict[bytes, bytes | None]:
        self._catch_up()
        return self._rows_of.get(table, {})

    def _catch_up(self) -> None:
        """Read what was added to the outbox; all of it, when something was taken back."""
        out, length = self._out, self._length
        if length > len(out) or (length and out[length - 1] is not self._last):
            self._rows_of, self._entries = {}, {}
            length = 0
        for place in range(length, len(out)):
            effect = out[place]
            if type(effect) is Persist:
                self._note(effect.change)
        self._length = len(out)
        self._last = out[-1] if out else None

    def _note(self, change: Change) -> None:
        if type(change) is PutRow:
            self._rows_of.setdefault(change.table, {})[change.key] = change.value
        elif type(change) is PutEntry:
            self._entries[change.place] = change.raw

    def get(self, table: Table, key: bytes) -> bytes | None:
        rows = self._rows(table)
        if key in rows:
            return rows[key]
        if table not in HELD:
            return self._below.get(table, key)
        where = (table, key)
        if where not in self._held:
            if len(self._held) >= ROWS_HELD:
                del self._held[next(iter(self._held))]
            self._held[where] = self._below.get(table, key)
        return self._held[where]

    def scan(self, table: Table, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        rows = {key: row for key, row in self._rows(table).items() if key.startswith(prefix)}
        if not rows:
            yield from self._below.scan(table, prefix)
            return
        # Row by row, since who asks may want the first only, of very many.
        mine = sorted(rows)
        for key, value in self._below.scan(table, prefix):
            while mine and mine[0] < key:
                yield from _shown(mine[0], rows[mine.pop(0)])
            if mine and mine[0] == key:
                yield from _shown(key, rows[mine.pop(0)])
            else:
                yield key, value
        for key in mine:
            yield from _shown(key, rows[key])

    def count(self, table: Table) -> int:
        count = self._below.count(table)
        for key, value in self._rows(table).items():
            held = self._below.get(table, key) is not None
            count += (value is not None) - held
        return count

    def has_room(self) -> bool:
        return self._below.has_room()

    def entry(self, place: Place) -> bytes | None:
        self._catch_up()
        return self._entries.get(place) or self._below.entry(place)

    def entries(self) -> Iterator[tuple[Place, bytes]]:
        return self._below.entries()


def _shown(key: bytes, value: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    if value is not None:
        yield key, value
