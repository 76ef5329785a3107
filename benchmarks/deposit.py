"""Vaults that one guardian takes in, durably, in a second.

A node of a federation of seven, and wallets in another process that send over TLS: each has
one deposit under way and sends the next when the receipt is here. Before that the guardian
holds thousands of vaults already. The floor writes the same rows into a copy of the same
store, without a check and without a network, in transactions of as many deposits as the
node's had on average.

With thousands of vaults held, also: the memory of the node, and how long it looks for the
vaults under a name.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import apsw
import trio

from benchmarks import staging, wallets
from benchmarks.measuring import AT_MOST, ROUNDS, Figure, Size, collected, resident, tuned
from benchmarks.processes import start
from benchmarks.sitting import sit_down
from benchmarks.staging import LOOPBACK, STORE, Stage
from node.clock import SystemClock
from node.framing import pack
from node.store import SqliteStore
from protocol import sealing, vault
from protocol.contract import Change, PutRow, Table
from protocol.custody import Custody, DealRow, Settings, VaultRow
from protocol.guardian import INDEX_KEY
from protocol.limits import DAY

GOAL: Final = 0.5
MEMORY_MIB: Final = 150.0
LOOK_UP_MS: Final = 5.0
SEATS: Final = 7
THRESHOLD: Final = 5
WALLETS: Final = 32
ROWS_AT_ONCE: Final = 50_000
FIRST: Final = (
    "anna", "ben", "carla", "david", "elena", "farid", "greta", "hassan", "irene", "jonas",
    "katya", "luis", "maria", "nadia", "omar", "petra", "quentin", "rosa", "samir", "teresa",
    "ulrich", "vera", "walter", "xenia", "yusuf", "zoe", "mehmet", "ingrid", "pablo", "sofia",
)  # fmt: skip
SYLLABLES: Final = (
    "ba", "ber", "co", "dal", "de", "fi", "gar", "go", "hal", "ha", "jo", "kel", "ka", "lan",
    "le", "mar", "mi", "mo", "nov", "ne", "or", "pe", "po", "ri", "ros", "sa", "sen", "so",
    "tan", "to", "ul", "va", "vic", "wei", "wo", "za",
)  # fmt: skip
ENDINGS: Final = ("mann", "son", "ez", "ini", "ov", "er", "i", "ak", "dottir", "ssi", "ller", "")


def name(number: int) -> str:
    """A person's name, unevenly spread as names are."""
    drawn = staging.seed("name", number)
    syllables = "".join(SYLLABLES[byte * byte % len(SYLLABLES)] for byte in drawn[:2])
    last = syllables + ENDINGS[drawn[3] % len(ENDINGS)]
    return f"{FIRST[drawn[4] * drawn[5] % len(FIRST)]} {last}"


# --- what is there before --------------------------------------------------------------


class Held:
    """A store with vaults in it: real rows, of deals that nobody will open but some."""

    def __init__(self, folder: Path, stage: Stage, count: int) -> None:
        self.path = folder / STORE
        self.stage = stage
        store = staging.open_store(folder)
        index_key = staging.seed("index")
        staging.write(store, [*stage.rows(), PutRow(Table.META, INDEX_KEY, index_key)])
        own = stage.seats[0]
        self._custody = Custody(
            stage.codec, stage.roster, 0, own.keys.sealing, store, Settings(), index_key
        )
        changes = self._vaults(count)
        while batch := [row for _, row in zip(range(ROWS_AT_ONCE), changes, strict=False)]:
            staging.write(store, batch)
        store.checkpoint()
        self.rows = sum(store.count(table) for table in Table)
        store.close()

    def _vaults(self, count: int) -> Iterator[Change]:
        """Rows of vaults: all have one deal, under ids of their own, and a label each."""
        now = SystemClock().now()
        member = wallets.enrol(self.stage.codec, self.stage.roster, -1, now)
        raw, to = member.deposits[0].deal, self.stage.roster.guardians[0].sealing
        for number in range(count):
            vault_id, deal_id = staging.seed("vault", number), staging.seed("deal", number)
            row = VaultRow(vault_id, vault_id, now, now, deal_id, settled=SEATS)
            yield PutRow(Table.VAULT, vault_id, row.to_bytes())
            label = vault.Label(name(number)).to_bytes()
            piece = vault.Piece(bytes(32), label, bytes(32), bytes(16), bytes(32))
            box = sealing.seal(to, piece.to_bytes(), vault_id)
            yield PutRow(Table.DEAL, vault_id + deal_id, DealRow(raw, box, now).to_bytes())
            out: list[Any] = []
            self._custody._index(self._custody._tokens(name(number)), vault_id, out)
            yield from (effect.change for effect in out)

    def look_up(self, folder: Path, tries: int) -> float:
        """Median milliseconds to find the vaults under a name, as opening a claim does."""
        shutil.copy(self.path, folder)
        store = staging.open_store(folder)
        own = self.stage.seats[0]
        index_key = staging.seed("index")
        custody = Custody(
            self.stage.codec, self.stage.roster, 0, own.keys.sealing, store, Settings(), index_key
        )
        taken = []
        for number in range(tries):
            wanted = name(number * 17)
            begun = time.perf_counter()
            custody.like(wanted)
            taken.append((time.perf_counter() - begun) * 1e3)
        store.close()
        return statistics.median(taken)


# --- what comes ------------------------------------------------------------------------


def _write_deposits(stage: Stage, folder: Path, count: int) -> None:
    now = SystemClock().now()
    with (folder / "deposits").open("wb") as file:
        for number in range(count):
            one = wallets.enrol(stage.codec, stage.roster, number, now).deposits[0]
            fields = {"deal": one.deal, "version": one.version, "box": one.box, "whole": one.whole}
            file.write(pack(["deposit", {**fields, "request": number + 1}]))
    (folder / "federation").write_bytes(stage.roster.id)


async def _take(held: Held, folder: Path, count: int, wallets_: int) -> tuple[float, float]:
    """Run a node until it has taken every deposit: seconds, and deposits a transaction."""
    store = staging.open_store(folder)
    running = staging.make_node(held.stage.seats[0], store)
    async with trio.open_nursery() as nursery:
        await nursery.start(running.node.run)
        file = str(held.path.parent / "deposits")
        far = await start("benchmarks.depositor", running.address, file, str(wallets_))
        await far.line()
        commits, begun = running.node.commits, time.perf_counter()
        await far.say(b"go")
        await far.line()
        taken = time.perf_counter() - begun
        commits = running.node.commits - commits
        await far.leave()
        nursery.cancel_scope.cancel()
    store.close()
    return taken, count / max(1, commits)


def _new_rows(held: Held, folder: Path) -> list[list[tuple[str, bytes, bytes]]]:
    """What the node wrote, row by row, together by deposit."""
    before, after = SqliteStore(str(held.path)), staging.open_store(folder)
    groups: dict[bytes, list[tuple[str, bytes, bytes]]] = {}
    of_deal: dict[bytes, bytes] = {}
    for table in (Table.VAULT, Table.DEAL, Table.VERSION, Table.LABEL):
        for key, value in after.scan(table):
            if before.get(table, key) is not None:
                continue
            about = key[:10] if table in (Table.VAULT, Table.DEAL) else key[-10:]
            if table is Table.DEAL:
                of_deal[key[32:]] = about
            if table is Table.VERSION:
                about = of_deal[key[:32]]
            groups.setdefault(about, []).append((table.value, key, value))
    before.close()
    after.close()
    return list(groups.values())


def _bare(folder: Path, deposits: list[list[tuple[str, bytes, bytes]]], at_once: int) -> float:
    """Write the rows, `at_once` deposits a transaction; the seconds it takes."""
    db = apsw.Connection(str(folder / STORE))
    for pragma in ("locking_mode=exclusive", "journal_mode=wal", "synchronous=full"):
        db.execute("PRAGMA " + pragma)
    begun = time.perf_counter()
    for at in range(0, len(deposits), at_once):
        with db:
            for table, key, value in (row for one in deposits[at : at + at_once] for row in one):
                db.execute(f"INSERT INTO row_{table} VALUES (?, ?)", (key, value))  # noqa: S608
    taken = time.perf_counter() - begun
    db.close()
    return taken


# --- all -------------------------------------------------------------------------------


def measure(size: Size, rounds: int = ROUNDS) -> Figure:
    """Measure deposits, and what many vaults cost."""
    rounds = size.pick(1, rounds, rounds)
    count, wallets_ = size.pick(6, 400, 1000), size.pick(2, WALLETS, WALLETS)
    stage = staging.found(SEATS, THRESHOLD, waiting=DAY)
    with tempfile.TemporaryDirectory() as base, tuned():
        home = Path(base)
        held = Held(home, stage, size.pick(20, 20_000, 100_000))
        _write_deposits(stage, home, count)
        taken, bare, batches = [], [], []
        for _ in range(rounds):
            with collected(), _copy(held) as folder:
                seconds, at_once = trio.run(_take, held, folder, count, wallets_)
                rows = _new_rows(held, folder)
            with collected(), _copy(held) as folder:
                bare.append(_bare(folder, rows, max(1, round(at_once))))
            taken.append(seconds)
            batches.append(at_once)
        parts = (_memory(held), _look_up(held, size))
    return Figure(
        "deposit",
        count / statistics.median(taken),
        count / statistics.median(bare),
        "vaults a second",
        GOAL,
        more={"held": held.rows, "a_transaction": round(statistics.median(batches), 1)},
        parts=parts,
    )


def _copy(held: Held) -> Any:
    class Copy(tempfile.TemporaryDirectory[str]):
        def __enter__(self) -> Path:  # type: ignore[override]
            folder = Path(super().__enter__())
            shutil.copy(held.path, folder)
            return folder

    return Copy(dir=held.path.parent)


def _memory(held: Held) -> Figure:
    """Memory of a node that holds so many vaults, once it has answered."""

    async def sit() -> float:
        with _copy(held) as folder:
            sitter = await sit_down(0, f"{LOOPBACK}:0", folder)
            await sitter.ask("status")
            used = resident(sitter.pid)
            await sitter.leave()
        return used or 0.0

    used = trio.run(sit)
    return Figure(
        "deposit: memory", used, None, "MiB", MEMORY_MIB, AT_MOST, "measured",
        more={"rows": held.rows},
    )  # fmt: skip


def _look_up(held: Held, size: Size) -> Figure:
    with tempfile.TemporaryDirectory(dir=held.path.parent) as folder:
        taken = held.look_up(Path(folder), size.pick(3, 25, 100))
    return Figure(
        "deposit: look-up by name", taken, None, "ms", LOOK_UP_MS, AT_MOST, "measured",
        more={"rows": held.rows},
    )  # fmt: skip
