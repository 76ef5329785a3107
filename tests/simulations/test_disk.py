"""The simulated disk: what was committed stays, what was not may be lost, torn or reordered."""

from __future__ import annotations

from collections.abc import Iterator

import apsw
import pytest

from simulations.disk import Disk, PowerCut, reset_sqlite_randomness, silent_power_cuts
from simulations.kernel import draws
from simulations.trace import Trace

LIVES = 4


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with silent_power_cuts():
        yield


@pytest.fixture
def disk() -> Iterator[Disk]:
    with Disk("test", draws(1, "disk")) as made:
        yield made


def connect(disk: Disk, synchronous: str = "full") -> apsw.Connection:
    database = apsw.Connection("node.db", vfs=disk.vfs_name)
    database.execute("pragma locking_mode=exclusive; pragma journal_mode=wal")
    database.execute(f"pragma synchronous={synchronous}; pragma temp_store=memory")
    database.execute("create table if not exists t(i integer primary key, b blob)")
    return database


def close(database: apsw.Connection) -> None:
    """Let go of a connection as the end of a process does, whatever the disk says."""
    try:
        database.close(True)
    except (PowerCut, apsw.Error):
        pass


def count(database: apsw.Connection) -> int:
    return int(database.execute("select count(*) from t").get)


def life(disk: Disk, number: int, committed: int, synchronous: str) -> tuple[int, int]:
    """Write rows until the power goes; return the rows found at the start and at the end."""
    rng = draws(number, "rows", committed)
    found = committed
    database = None
    try:
        database = connect(disk, synchronous)
        found = committed = count(database)
        assert database.execute("pragma integrity_check").get == "ok"
        while True:
            database.execute("insert into t values(?, ?)", (committed, rng.randbytes(300)))
            committed += 1
    except PowerCut:
        pass
    finally:
        if database is not None:
            close(database)
    return found, committed


def rows_lost(seed: int, *, lies: float = 0.0, synchronous: str = "full") -> int:
    """Write rows through several power cuts; return how many committed ones were forgotten."""
    rng = draws(seed, "cuts")
    committed = lost = 0
    with Disk(f"s{seed}", draws(seed, "disk")) as disk:
        disk.lies = lies
        for number in range(LIVES):
            disk.cut_at = disk.ops + rng.randrange(5, 150)
            found, after = life(disk, number, committed, synchronous)
            lost += max(0, committed - found)
            committed = after
            disk.crash()
        lost += max(0, committed - count(database := connect(disk)))
        close(database)
    return lost


def test_no_committed_row_is_lost() -> None:
    """Through four power cuts at any operation, in 150 worlds, every committed row survives."""
    assert [seed for seed in range(150) if rows_lost(seed)] == []


@pytest.mark.parametrize("fault", [{"lies": 0.5}, {"synchronous": "off"}])
def test_the_disk_bites(fault: dict[str, object]) -> None:
    """A disk that lies, or a store that does not sync, does lose rows: the test above can fail."""
    outcomes = []
    for seed in range(15):
        try:
            outcomes.append(rows_lost(seed, **fault))  # type: ignore[arg-type]
        except (apsw.Error, AssertionError):  # not even a sound database is left
            outcomes.append(1)
    assert any(outcomes)


def test_a_cut_on_demand_ends_everything_until_the_crash(disk: Disk) -> None:
    """Nothing of a machine without power reaches its disk, and old connections stay dead."""
    database = connect(disk)
    disk.cut_power()
    for _ in range(2):
        with pytest.raises(PowerCut):
            database.execute("insert into t values(1, x'')")
    disk.crash()
    with pytest.raises(PowerCut):
        database.execute("insert into t values(1, x'')")
    close(database)

    database = connect(disk)
    assert count(database) == 0
    close(database)
    assert disk.crashes == 1


def test_unsynced_sectors_are_kept_lost_and_torn_each_on_its_own(disk: Disk) -> None:
    """Of one long unsynced write, parts survive, parts do not, and a part may be cut short."""
    vfs_file = disk._vfs.xOpen("plain", [apsw.SQLITE_OPEN_CREATE, 0])
    vfs_file.xWrite(bytes(512 * 200), 0)
    vfs_file.xSync(0)
    vfs_file.xWrite(b"\xff" * 512 * 200, 0)
    disk.crash()

    content = disk._names["plain"].seen
    sectors = [content[at : at + 512].count(0xFF) for at in range(0, len(content), 512)]
    assert sectors.count(0) > 50
    assert sectors.count(512) > 50
    assert any(0 < written < 512 for written in sectors)


def test_an_unsynced_name_may_vanish_or_come_back() -> None:
    """A file made or deleted without a sync of its folder may be as before after a crash."""
    made, back = [], []
    for seed in range(12):
        with Disk(f"names{seed}", draws(seed, "disk")) as disk:
            disk._vfs.xOpen("kept", [apsw.SQLITE_OPEN_CREATE, 0]).xSync(0)
            disk._vfs.xDelete("kept", False)
            disk._vfs.xOpen("new", [apsw.SQLITE_OPEN_CREATE, 0])
            disk.crash()
            made.append("new" in disk.paths())
            back.append("kept" in disk.paths())
    assert {True, False} == set(made) == set(back)


def test_a_full_disk_refuses_and_loses_nothing(disk: Disk) -> None:
    """Beyond its capacity a disk says it is full; with room again, writing goes on."""
    database = connect(disk)
    database.execute("insert into t values(1, x'01')")
    disk.capacity_bytes = disk.used() + 10_000
    assert disk.room() == 10_000
    with pytest.raises(apsw.FullError):
        database.execute("insert into t values(2, zeroblob(100000))")
    disk.capacity_bytes = None
    database.execute("insert into t values(3, zeroblob(100000))")
    assert count(database) == 2
    close(database)


def test_an_error_of_the_disk_voids_the_transaction(disk: Disk) -> None:
    """A write that failed leaves nothing behind, and the next one may succeed."""
    database = connect(disk)
    disk.fail_next()
    with pytest.raises(apsw.IOError):
        database.execute("insert into t values(1, x'01')")
    assert count(database) == 0
    database.execute("insert into t values(1, x'01')")
    assert count(database) == 1
    close(database)


def test_rot_changes_what_is_read(disk: Disk) -> None:
    """A bit that flips on the platter changes the content, and SQLite can be asked to notice."""
    database = connect(disk)
    database.execute("insert into t values(1, zeroblob(200000)); pragma wal_checkpoint(truncate)")
    close(database)
    before = disk.content_hash()
    disk.rot("node.db")
    assert disk.content_hash() != before


def test_a_second_connection_is_shut_out(disk: Disk) -> None:
    """Two nodes cannot use one disk's database at once."""
    first = connect(disk)
    with pytest.raises(apsw.BusyError):
        connect(disk)
    close(first)
    close(connect(disk))


def test_sql_cannot_read_the_real_time(disk: Disk) -> None:
    """A query for the time of day fails instead of leaking the wall clock into a run."""
    database = connect(disk)
    with pytest.raises(apsw.Error, match="Clock port"):
        database.execute("select datetime('now')").get  # noqa: B018
    close(database)


def test_one_seed_writes_the_same_bytes() -> None:
    """SQLite's own random source and every byte on disk follow the seed, and the trace sees it."""
    seen = []
    for seed in (1, 1, 2):
        trace = Trace()
        with Disk("same", draws(seed, "disk"), trace=trace) as disk:
            reset_sqlite_randomness()
            database = connect(disk)
            database.execute("insert into t values(1, randomblob(9))")
            seen.append((trace.hexdigest(), disk.content_hash()))
            close(database)
    assert seen[0] == seen[1] != seen[2]


def test_two_disks_cannot_share_a_name(disk: Disk) -> None:
    """SQLite would silently replace the first by the second; the disk refuses."""
    with pytest.raises(ValueError, match="exists already"):
        Disk("test", draws(2, "disk"))
