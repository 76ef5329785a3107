"""The tables of a guardian's store, and how an older store becomes a newer one.

`MIGRATIONS[n]` takes a store from schema number n to n + 1; the first makes an empty one.
What is released is never edited: a change is one more migration. SQLite keeps the number in
the header of the file, as `user_version`.

Log entries have a number of arrival as their key and one row each: a random 32-byte key
costs five times as much to insert.
"""

from __future__ import annotations

from typing import Final

from protocol.contract import Table

# In the header of the file, so that nobody mistakes another programme's database for ours.
APPLICATION: Final = int.from_bytes(b"HFst", "big")

_FIRST: Final = """
CREATE TABLE entry (
    arrival INTEGER PRIMARY KEY,
    seat INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    raw BLOB NOT NULL,
    UNIQUE (seat, incarnation, seq)
) STRICT;
CREATE TABLE fragment (
    version BLOB NOT NULL,
    idx INTEGER NOT NULL,
    data BLOB NOT NULL,
    path BLOB NOT NULL,
    PRIMARY KEY (version, idx)
) STRICT;
CREATE TABLE row_meta (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE row_claim (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE row_case (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE row_vault (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE row_deal (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE row_version (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE row_label (key BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""

MIGRATIONS: Final[tuple[str, ...]] = (_FIRST,)
SCHEMA: Final = len(MIGRATIONS)


class RowSql:
    """The statements for the rows of one table, written once."""

    __slots__ = ("count", "drop", "get", "put", "scan_all", "scan_below")

    def __init__(self, table: Table) -> None:
        name = f"row_{table.value}"  # one of our own words, never anyone's input
        self.get = f"SELECT value FROM {name} WHERE key = ?"  # noqa: S608
        self.put = f"INSERT OR REPLACE INTO {name} VALUES (?, ?)"  # noqa: S608
        self.drop = f"DELETE FROM {name} WHERE key = ?"  # noqa: S608
        self.count = f"SELECT count(*) FROM {name}"  # noqa: S608
        self.scan_all = f"SELECT key, value FROM {name} WHERE key >= ? ORDER BY key LIMIT ?"  # noqa: S608
        self.scan_below = (
            f"SELECT key, value FROM {name} "  # noqa: S608
            "WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"
        )


ROWS: Final = {table: RowSql(table) for table in Table}
