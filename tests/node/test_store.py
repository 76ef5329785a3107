"""What the store keeps, in which order, and what it refuses."""

from __future__ import annotations

import stat
from pathlib import Path

import apsw
import pytest

from node.ports import Fragment, StoreFull, Transaction
from node.schema import SCHEMA
from node.store import PAGE_ROWS, SqliteStore
from protocol.contract import DropFragments, Ledger, Place, PutEntry, PutRow, Table
from protocol.errors import Refused

VERSION = b"v" * 32


def put(store: SqliteStore, *changes: PutEntry | PutRow | DropFragments) -> None:
    def work(transaction: Transaction) -> None:
        for change in changes:
            transaction.apply(change)

    store.transact(work)


def entry(seat: int, seq: int, raw: bytes = b"", incarnation: int = 0) -> PutEntry:
    return PutEntry(Place(seat, incarnation, seq), raw or b"%d.%d" % (seat, seq))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "guardian.db")


def test_second_process_refused(path: str) -> None:
    """Two nodes on one folder would sign twice: the second is refused with a sentence."""
    store = SqliteStore(path)

    with pytest.raises(Refused, match="in use") as refused:
        SqliteStore(path)

    assert "one node" in refused.value.hint
    store.close()
    SqliteStore(path).close()


def test_nobody_else_reads(path: str) -> None:
    """The files of the store are for their owner only."""
    store = SqliteStore(path)
    put(store, entry(1, 1))

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in Path(path).parent.iterdir()}

    assert modes == {"guardian.db": 0o600, "guardian.db-wal": 0o600}


def test_entries_in_order_of_arrival(path: str) -> None:
    """A core replays the log as it came, across pages and after a restart."""
    store = SqliteStore(path)
    changes = [entry(seq % 3, seq) for seq in range(1, PAGE_ROWS + 100)]
    put(store, *changes)
    store.close()

    replayed = SqliteStore(path).read(lambda ledger: list(ledger.entries()))

    assert replayed == [(change.place, change.raw) for change in changes]


def test_transaction_sees_itself(path: str) -> None:
    """Within a transaction the ledger shows what was changed a moment ago."""
    store = SqliteStore(path)

    def work(transaction: Transaction) -> tuple[bytes | None, int]:
        transaction.apply(PutRow(Table.CASE, b"a", b"1"))
        return transaction.ledger.get(Table.CASE, b"a"), transaction.ledger.count(Table.CASE)

    assert store.transact(work) == (b"1", 1)


def test_rollback_leaves_nothing(path: str) -> None:
    """Work that raises leaves no entry, no row and no count behind."""
    store = SqliteStore(path)
    put(store, PutRow(Table.CASE, b"kept", b"1"))
    assert store.read(lambda ledger: ledger.count(Table.CASE)) == 1

    def work(transaction: Transaction) -> None:
        transaction.apply(entry(1, 1))
        transaction.apply(PutRow(Table.CASE, b"kept", None))
        transaction.apply(PutRow(Table.CASE, b"new", b"2"))
        raise KeyError("poison")

    with pytest.raises(KeyError):
        store.transact(work)

    assert store.heads() == []
    assert store.read(lambda ledger: list(ledger.scan(Table.CASE))) == [(b"kept", b"1")]
    assert store.read(lambda ledger: ledger.count(Table.CASE)) == 1


def test_place_taken_once(path: str) -> None:
    """No second entry ever replaces one that stands in a log."""
    store = SqliteStore(path)
    put(store, entry(1, 1, b"first"))

    with pytest.raises(ValueError, match="taken"):
        put(store, entry(1, 1, b"second"))

    assert store.read(lambda ledger: ledger.entry(Place(1, 0, 1))) == b"first"
    assert store.read(lambda ledger: ledger.entry(Place(1, 1, 1))) is None


def test_scan_by_prefix(path: str) -> None:
    """A scan gives the rows of a prefix in the order of their keys, however many pages."""
    store = SqliteStore(path)
    keys = sorted([b"a", b"b", b"b\x00", b"b\xff", b"b\xff\xff", b"c", b"\xff", b"\xff\x01"])
    keys += [b"d" + number.to_bytes(2, "big") for number in range(PAGE_ROWS + 3)]
    put(store, *(PutRow(Table.VAULT, key, b"x") for key in reversed(keys)))

    def under(prefix: bytes) -> list[bytes]:
        def work(ledger: Ledger) -> list[bytes]:
            return [key for key, _ in ledger.scan(Table.VAULT, prefix)]

        return store.read(work)

    for prefix in (b"", b"b", b"b\xff", b"\xff", b"d", b"nothing"):
        assert under(prefix) == sorted(key for key in keys if key.startswith(prefix))


def test_stream_stops_at_gap_and_size(path: str) -> None:
    """A range is read without a gap and within its size, but never less than one entry."""
    store = SqliteStore(path)
    put(store, *(entry(1, seq, b"x" * 100) for seq in (1, 2, 3, 5)))

    assert len(store.stream_entries(1, 0, 1, 9, 1000)) == 3
    assert len(store.stream_entries(1, 0, 1, 2, 1000)) == 2
    assert len(store.stream_entries(1, 0, 1, 9, 250)) == 2
    assert len(store.stream_entries(1, 0, 2, 9, 1)) == 1
    assert store.stream_entries(1, 0, 4, 9, 1000) == []
    assert store.heads() == [Place(1, 0, 5)]


def test_fragments(path: str) -> None:
    """Fragments come back with their paths, are replaced when sent again, and can be dropped."""
    store = SqliteStore(path)
    items = [Fragment(index, b"d" * index, (b"p" * 32, b"q" * 32)) for index in range(5)]
    store.put_fragments(VERSION, items)
    store.put_fragments(VERSION, items[:2])

    assert store.fragments(VERSION, 1, 2) == items[1:3]
    assert store.fragment_count(VERSION) == 5

    put(store, DropFragments(VERSION))
    assert store.fragments(VERSION, 0, 9) == []


def test_full_disk_keeps_room_for_votes(path: str) -> None:
    """With little room left there is none for deposits, and votes are still written."""
    store = SqliteStore(path, reserve_bytes=2**62)

    assert not store.transact(lambda transaction: transaction.ledger.has_room())
    with pytest.raises(StoreFull, match="nearly full"):
        store.put_fragments(VERSION, [Fragment(0, b"", ())])
    put(store, entry(1, 1), PutRow(Table.CASE, b"case", b"x"), PutRow(Table.DEAL, b"deal", None))

    assert store.heads() == [Place(1, 0, 1)]


def test_grown_store_has_no_room(path: str) -> None:
    """A store that has reached the size its guardian set takes no more deposits."""
    store = SqliteStore(path, bytes_max=4096)

    assert not store.transact(lambda transaction: transaction.ledger.has_room())


def test_newer_store_refused(path: str) -> None:
    """An older release does not touch what a newer one wrote."""
    SqliteStore(path).close()
    raw = apsw.Connection(path)
    raw.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    raw.close()

    with pytest.raises(Refused, match=f"format {SCHEMA + 1}"):
        SqliteStore(path)


def test_foreign_file_refused(path: str) -> None:
    """Somebody else's database, or no database at all, is left alone."""
    raw = apsw.Connection(path)
    raw.execute("CREATE TABLE theirs (x)")
    raw.close()
    with pytest.raises(Refused, match="not a store of Holdfast"):
        SqliteStore(path)

    Path(path).write_bytes(b"My dear diary, " * 100)
    with pytest.raises(Refused, match="not a store of Holdfast"):
        SqliteStore(path)


def test_migration_keeps_a_copy(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older store becomes a newer one, and a copy of it stays beside."""
    store = SqliteStore(path)
    put(store, PutRow(Table.META, b"federation", b"x"))
    store.close()
    later = ("", "CREATE TABLE later (x INTEGER) STRICT")
    monkeypatch.setattr("node.store.MIGRATIONS", later)
    monkeypatch.setattr("node.store.SCHEMA", 2)

    migrated = SqliteStore(path)

    assert migrated.read(lambda ledger: ledger.get(Table.META, b"federation")) == b"x"
    assert migrated.damage() == []
    copy = apsw.Connection(path + ".format-1")
    assert copy.execute("SELECT value FROM row_meta").fetchall() == [(b"x",)]
    assert copy.execute("PRAGMA user_version").fetchall() == [(1,)]
    copy.close()


def test_backup(path: str) -> None:
    """A backup is a whole store of its own and never overwrites anything."""
    store = SqliteStore(path)
    put(store, entry(1, 1))
    store.backup(path + ".copy")
    put(store, entry(1, 2))

    with pytest.raises(Refused, match="exists already"):
        store.backup(path + ".copy")
    assert SqliteStore(path + ".copy").heads() == [Place(1, 0, 1)]


def test_checkpoint_empties_the_log(path: str) -> None:
    """After a checkpoint everything is in the one file."""
    store = SqliteStore(path)
    put(store, entry(1, 1))

    store.checkpoint()

    assert Path(path + "-wal").stat().st_size == 0
