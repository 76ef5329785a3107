"""What a guardian keeps: one SQLite file, through APSW.

WAL with `synchronous=FULL` and an exclusive lock: what `transact` returned from survives a
power cut, and a second process on the same folder is refused. APSW rather than the standard
library's module, because its VFS lets a simulation put this very code on a disk that loses,
tears and fills up.

Everything here blocks and belongs on the store thread. The database's own exceptions end in
this module: callers see `StoreFailed`, `StoreFull` and `Refused`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw

from node.ports import Fragment, StoreFailed, StoreFull
from node.schema import APPLICATION, MIGRATIONS, ROWS, SCHEMA
from protocol.contract import Change, DropFragments, Id, Place, PutEntry, PutRow, Seat, Table
from protocol.errors import Refused

T = TypeVar("T")

PAGE_ROWS: Final = 512  # rows read at once in a scan: bounds memory, hides the cost of a query
FIRST_ROWS: Final = 32  # read at first: many a scan looks at the beginning only
CACHE_KIB: Final = 8 * 1024  # of pages in memory: what is held for some thousand open cases
HASH_BYTES: Final = 32  # of one step of a Merkle path
# Below this much free space deposits are refused, so that votes and releases still find room:
# it holds some two thousand releases.
RESERVE_BYTES: Final = 64 * 1024 * 1024


class SqliteStore:
    """The production `Store`; the same object is its own `Transaction` and `Ledger`."""

    def __init__(
        self,
        path: str,
        vfs: str = "",
        *,
        reserve_bytes: int = RESERVE_BYTES,
        bytes_max: int = 0,
    ) -> None:
        """Open or create the store at `path`, and hold it for this process alone.

        `vfs` names a registered SQLite VFS; empty is the system's disk. There is no room for
        deposits while less than `reserve_bytes` of the system's disk are free, or when the
        file has grown to `bytes_max`, if that is not 0; what is kept so serves votes.
        Raises `Refused` when another process has it open, when a newer release wrote it, or
        when the file is not a store of ours; `StoreFailed` when the disk fails.
        """
        self._path = path
        self._vfs = vfs
        self._reserve_bytes = reserve_bytes
        self._bytes_max = bytes_max
        self._tight: bool | None = None  # whether room is short; asked once a transaction
        self._counts: dict[Table, int] = {}
        # What was put in this transaction and is not written yet. Every call of the database
        # gives other threads a turn, which beside busy ones costs more than the call: so what
        # can be written at once is.
        self._entries: list[tuple[int, int, int, bytes]] = []
        self._rows: dict[Table, dict[bytes, bytes | None]] = {}
        with _mapped(path):
            self._db = self._open(path)
            try:
                self._prepare()
            except BaseException:
                self._db.close(True)
                raise

    def _open(self, path: str) -> apsw.Connection:
        if not self._vfs and not Path(path).exists():
            Path(path).touch(mode=0o600)  # the -wal file takes its mode from this one
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        return apsw.Connection(path, flags=flags, vfs=self._vfs or None)

    def _prepare(self) -> None:
        # Exclusive first: a WAL that was never shared needs no shared memory beside it.
        for pragma in (
            "locking_mode=exclusive",
            "journal_mode=wal",
            "synchronous=full",
            "temp_store=memory",
            f"cache_size=-{CACHE_KIB}",
            "trusted_schema=off",
        ):
            self._db.execute("PRAGMA " + pragma)
        self._db.execute("BEGIN IMMEDIATE")  # takes the lock now, not at the first write
        self._db.execute("COMMIT")
        found = int(self._pragma("user_version"))
        ours = self._pragma("application_id") == APPLICATION
        empty = found == 0 and self._one("SELECT count(*) FROM sqlite_schema", ()) == 0
        if not ours and not empty:
            raise Refused(f"{self._path} is a database, but not a store of Holdfast")
        if found > SCHEMA:
            raise Refused(
                f"this store has format {found} and this release knows up to {SCHEMA}",
                hint="install the release that wrote it, or a later one",
            )
        if 0 < found < SCHEMA:
            self._copy(f"{self._path}.format-{found}")
        for number in range(found, SCHEMA):
            self._migrate(number)

    def _migrate(self, number: int) -> None:
        self._db.execute(
            f"BEGIN IMMEDIATE; {MIGRATIONS[number]}; PRAGMA application_id = {APPLICATION};"
            f" PRAGMA user_version = {number + 1}; COMMIT"
        )

    # --- the ledger a core reads -------------------------------------------------------

    def get(self, table: Table, key: bytes) -> bytes | None:
        rows = self._rows.get(table)
        if rows is not None and key in rows:
            return rows[key]
        found: bytes | None = self._one(ROWS[table].get, (key,))
        return found

    def scan(self, table: Table, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Rows in the order of keys, read a page at a time, so that no statement stays open."""
        end, start, size = _after(prefix), prefix, FIRST_ROWS
        while True:
            self._write_rows(table)
            rows: list[tuple[bytes, bytes]] = (
                self._all(ROWS[table].scan_all, (start, size))
                if end is None
                else self._all(ROWS[table].scan_below, (start, end, size))
            )
            yield from rows
            if len(rows) < size:
                return
            size = min(2 * size, PAGE_ROWS)
            start = rows[-1][0] + b"\x00"  # the smallest key after the last one

    def count(self, table: Table) -> int:
        """How many rows; counted once, kept up to date from then on."""
        if table not in self._counts:
            self._write_rows(table)
            self._counts[table] = self._one(ROWS[table].count, ())
        return self._counts[table]

    def entry(self, place: Place) -> bytes | None:
        self._write_entries()
        raw: bytes | None = self._one(
            "SELECT raw FROM entry WHERE seat = ? AND incarnation = ? AND seq = ?",
            (place.seat, place.incarnation, place.seq),
        )
        return raw

    def entries(self) -> Iterator[tuple[Place, bytes]]:
        self._write_entries()
        last = 0
        while True:
            rows = self._all(
                "SELECT arrival, seat, incarnation, seq, raw FROM entry"
                " WHERE arrival > ? ORDER BY arrival LIMIT ?",
                (last, PAGE_ROWS),
            )
            for arrival, seat, incarnation, seq, raw in rows:
                last = arrival
                yield Place(seat, incarnation, seq), raw
            if len(rows) < PAGE_ROWS:
                return

    # --- the transaction ---------------------------------------------------------------

    @property
    def ledger(self) -> SqliteStore:
        return self

    def transact(self, work: Callable[[SqliteStore], T]) -> T:
        with self._transaction():
            return work(self)

    def apply(self, change: Change) -> None:
        match change:
            case PutEntry():
                self._put_entry(change)
            case PutRow():
                self._put_row(change)
            case DropFragments(version):
                self._db.execute("DELETE FROM fragment WHERE version = ?", (version,))

    def _put_entry(self, change: PutEntry) -> None:
        at = change.place
        self._entries.append((at.seat, at.incarnation, at.seq, change.raw))

    def _write_entries(self) -> None:
        entries, self._entries = self._entries, []
        if not entries:
            return
        try:
            self._db.executemany(
                "INSERT INTO entry (seat, incarnation, seq, raw) VALUES (?, ?, ?, ?)", entries
            )
        except apsw.ConstraintError:
            # Two entries at one place prove equivocation and are kept elsewhere: a core that
            # writes the second here has a bug.
            seat, incarnation = entries[-1][:2]
            raise ValueError(
                f"the place of an entry is taken, such as in log {seat}.{incarnation}"
            ) from None

    def _put_row(self, change: PutRow) -> None:
        if change.table in self._counts:
            held = self.get(change.table, change.key) is not None
            self._counts[change.table] += (change.value is not None) - held
        self._rows.setdefault(change.table, {})[change.key] = change.value

    def _write_rows(self, table: Table) -> None:
        rows = self._rows.pop(table, None)
        if rows is None:
            return
        puts = [(key, value) for key, value in rows.items() if value is not None]
        drops = [(key,) for key, value in rows.items() if value is None]
        if puts:
            self._db.executemany(ROWS[table].put, puts)
        if drops:
            self._db.executemany(ROWS[table].drop, drops)

    def has_room(self) -> bool:
        if self._tight is None:
            self._tight = self._is_grown() or self._is_disk_short()
        return not self._tight

    def _check_room(self) -> None:
        if not self.has_room():
            raise StoreFull(
                "the disk of this guardian is nearly full, and the rest is kept for votes",
                hint="ask the guardian to make room, or deposit with the others first",
            )

    def _is_grown(self) -> bool:
        size = int(self._pragma("page_count")) * int(self._pragma("page_size"))
        return 0 < self._bytes_max <= size

    def _is_disk_short(self) -> bool:
        if self._vfs:
            return False
        free = os.statvfs(Path(self._path).absolute().parent)
        return free.f_bavail * free.f_frsize < self._reserve_bytes

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        counts, self._tight = dict(self._counts), None
        with _mapped(self._path):
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._write_entries()
                for table in list(self._rows):
                    self._write_rows(table)
                self._db.execute("COMMIT")
            except BaseException:
                self._counts, self._entries, self._rows = counts, [], {}
                if self._db.in_transaction:  # a full disk may have rolled back by itself
                    self._db.execute("ROLLBACK")
                raise

    # --- everything else ---------------------------------------------------------------

    def read(self, work: Callable[[SqliteStore], T]) -> T:
        with _mapped(self._path):
            return work(self)

    def heads(self) -> list[Place]:
        with _mapped(self._path):
            rows = self._all(
                "SELECT seat, incarnation, max(seq) FROM entry"
                " GROUP BY seat, incarnation ORDER BY seat, incarnation",
                (),
            )
        return [Place(*row) for row in rows]

    def stream_entries(
        self, seat: Seat, incarnation: int, first: int, last: int, bytes_max: int
    ) -> list[bytes]:
        with _mapped(self._path):
            rows = self._all(
                "SELECT seq, raw FROM entry WHERE seat = ? AND incarnation = ?"
                " AND seq BETWEEN ? AND ? ORDER BY seq LIMIT ?",
                (seat, incarnation, first, last, PAGE_ROWS),
            )
        found: list[bytes] = []
        size = 0
        for expected, (seq, raw) in enumerate(rows, first):
            size += len(raw)
            if seq != expected or (found and size > bytes_max):
                break
            found.append(raw)
        return found

    def put_fragments(self, version: Id, items: Sequence[Fragment]) -> None:
        with self._transaction():
            self._check_room()
            self._db.executemany(
                "INSERT OR REPLACE INTO fragment (version, idx, data, path) VALUES (?, ?, ?, ?)",
                [(version, item.index, item.data, b"".join(item.path)) for item in items],
            )

    def fragments(self, version: Id, first: int, limit: int) -> list[Fragment]:
        with _mapped(self._path):
            rows = self._all(
                "SELECT idx, data, path FROM fragment WHERE version = ? AND idx >= ?"
                " ORDER BY idx LIMIT ?",
                (version, first, limit),
            )
        return [Fragment(index, data, _steps(path)) for index, data, path in rows]

    def fragment_count(self, version: Id) -> int:
        with _mapped(self._path):
            held: int = self._one("SELECT count(*) FROM fragment WHERE version = ?", (version,))
        return held

    def backup(self, path: str) -> None:
        """Copy the store, as of now, to a new file. Raises `Refused` when one is there."""
        if not self._vfs and Path(path).exists():
            raise Refused(f"{path} exists already and is not overwritten")
        with _mapped(path):
            self._copy(path)

    def _copy(self, path: str) -> None:
        copy = self._open(path)
        try:
            with copy.backup("main", self._db, "main") as whole:
                whole.step()
        finally:
            copy.close()

    def damage(self) -> list[str]:
        """Read every page; what is wrong with the file, a sentence each, or nothing."""
        with _mapped(self._path):
            found = [str(row[0]) for row in self._all("PRAGMA integrity_check(20)", ())]
        return [] if found == ["ok"] else found

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file, and empty it."""
        with _mapped(self._path):
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def close(self) -> None:
        """Let go of the file. What was committed is safe even if the disk fails just now."""
        try:
            self._db.close()
        except apsw.Error:
            self._db.close(True)

    def _one(self, sql: str, values: tuple[Any, ...]) -> Any:
        row = self._db.execute(sql, values).fetchone()
        return None if row is None else row[0]

    def _all(self, sql: str, values: tuple[Any, ...]) -> list[Any]:
        return self._db.execute(sql, values).fetchall()

    def _pragma(self, name: str) -> Any:
        return self._one("PRAGMA " + name, ())


@contextmanager
def _mapped(path: str) -> Iterator[None]:
    """Turn the database's exceptions into ours."""
    try:
        yield
    except apsw.FullError:
        raise StoreFull(f"there is no room left on the disk that holds {path}") from None
    except (apsw.BusyError, apsw.LockedError):
        raise Refused(
            f"{path} is in use: another process has opened this folder",
            hint="only one node may run on a folder; stop the other one first",
        ) from None
    except apsw.NotADBError:
        raise Refused(f"{path} is not a store of Holdfast, or its beginning is damaged") from None
    except apsw.Error as error:
        raise StoreFailed(f"the disk that holds {path} failed: {error}") from error


def _after(prefix: bytes) -> bytes | None:
    """The smallest key above every key with this prefix; None when there is no such key."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


def _steps(path: bytes) -> tuple[bytes, ...]:
    return tuple(path[at : at + HASH_BYTES] for at in range(0, len(path), HASH_BYTES))
