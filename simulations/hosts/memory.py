"""A ledger in memory, with the semantics of the store."""

from __future__ import annotations

from collections.abc import Iterator

from protocol.contract import Change, DropFragments, Place, PutEntry, PutRow, Table
from protocol.encoding import decode, encode


class MemoryLedger:
    """Rows and entries in dictionaries. `copy` is what a crash leaves."""

    def __init__(self) -> None:
        self._rows: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}
        self._entries: dict[Place, bytes] = {}
        self.dropped: list[bytes] = []
        self.full = False

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._rows[table].get(key)

    def scan(self, table: Table, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        rows = self._rows[table]
        for key in sorted(key for key in rows if key.startswith(prefix)):
            yield key, rows[key]

    def count(self, table: Table) -> int:
        return len(self._rows[table])

    def has_room(self) -> bool:
        return not self.full

    def entry(self, place: Place) -> bytes | None:
        return self._entries.get(place)

    def entries(self) -> Iterator[tuple[Place, bytes]]:
        yield from list(self._entries.items())

    def apply(self, change: Change) -> None:
        match change:
            case PutEntry(place, raw):
                if place in self._entries:
                    raise ValueError(f"there is an entry at {place} already")
                self._entries[place] = raw
            case PutRow(table, key, None):
                self._rows[table].pop(key, None)
            case PutRow(table, key, value) if value is not None:
                self._rows[table][key] = value
            case DropFragments(version):
                self.dropped.append(version)

    def rot(self) -> None:
        """Damage the sealed piece in every deal held, as a disk that rots would."""
        for key, raw in self._rows[Table.DEAL].items():
            row = decode(raw, limit=32 * 1024)
            row["box"] = row["box"][:-1] + bytes((row["box"][-1] ^ 1,))
            self._rows[Table.DEAL][key] = encode(row)

    def copy(self) -> MemoryLedger:
        other = MemoryLedger()
        other._rows = {table: dict(rows) for table, rows in self._rows.items()}
        other._entries = dict(self._entries)
        return other
