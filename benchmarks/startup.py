"""How soon a node is ready and a command answers, and what a node that waits takes up.

`guardian run` is timed from the start of its process until it listens and answers at its
desk; the time to open a keystore, which is made to take long, is measured alone and taken
off. The floors are the same interpreter: importing, for the node, the libraries it needs;
for `--help`, nothing.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks import staging
from benchmarks.measuring import AT_MOST, ROUNDS, Figure, Size, alternate, resident
from node.daemon import STORE
from node.desk import SOCKET
from node.keystore import open_keystore
from node.store import SqliteStore
from protocol.contract import PutRow, Table
from protocol.federation import Signed, draft, read_introduction, sign_roster
from protocol.founding import FEDERATION_KEY, ROSTER_KEY
from protocol.limits import DAY

READY_S: Final = 0.5
HELP_S: Final = 0.25
IDLE_MIB: Final = 60.0
WAIT_S: Final = 30.0  # for a node to be ready, before we give up
PASSPHRASE: Final = "a promise is a promise\n"  # noqa: S105  # of a guardian made up here
LIBRARIES: Final = "import apsw, cbor2, msgpack, nacl.bindings, ssl, structlog, trio, unicodedata2"


def _seconds(*words: str) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - begun


class Home:
    """The folder of a guardian of seven."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "home"
        self.passphrase = folder / "passphrase"
        self.passphrase.touch(mode=0o600)
        self.passphrase.write_text(PASSPHRASE)
        words = ["init", "ada", "--listen", "127.0.0.1:0", "--dials-out-only", "--yes"]
        _seconds("-m", "node", "guardian", *words, *self._options())
        keys = open_keystore(self.path, PASSPHRASE.strip().encode())
        own = read_introduction((self.path / "introduction").read_text().strip())
        others = staging.found(7, 5, waiting=DAY).seats[1:]
        roster = draft(
            "Elm Street", 5, [own, *(seat.introduction for seat in others)],
            now=own.body["created"], nonce=bytes(16),
        )  # fmt: skip
        signers = [keys.identity, *(seat.keys.identity for seat in others)]
        signed = Signed(roster, tuple(sign_roster(key, roster).raw[-64:] for key in signers))
        store = SqliteStore(str(self.path / STORE))
        rows = [(ROSTER_KEY, signed.to_bytes()), (FEDERATION_KEY, roster.id)]
        staging.write(store, [PutRow(Table.META, key, value) for key, value in rows])
        store.close()

    def _options(self) -> list[str]:
        return ["--home", str(self.path), "--passphrase-file", str(self.passphrase)]

    def unlock(self) -> float:
        """Seconds to open the keystore."""
        begun = time.perf_counter()
        open_keystore(self.path, PASSPHRASE.strip().encode())
        return time.perf_counter() - begun

    @contextmanager
    def running(self) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
        """A node's process and the seconds it took to be ready."""
        desk = self.path / SOCKET
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "node", "guardian", "run", *self._options()],
            stderr=subprocess.DEVNULL,
        )
        try:
            while not desk.exists():
                if process.poll() is not None or time.perf_counter() - begun > WAIT_S:
                    raise RuntimeError("the node did not start")
                time.sleep(0.002)
            yield process, time.perf_counter() - begun
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()

    def ready(self) -> float:
        with self.running() as (_, seconds):
            return seconds

    def idle(self, seconds: float) -> float:
        """MiB in RAM of a node that has nothing to do."""
        with self.running() as (process, _):
            time.sleep(seconds)
            return resident(process.pid) or 0.0


def measure(size: Size, rounds: int = ROUNDS) -> Figure:
    """Measure the start of a node and of the command, and the memory of a node at rest."""
    rounds = size.pick(1, rounds, 3 * rounds)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        bare, libraries, unlock, ready, helped = alternate(
            rounds,
            lambda: _seconds("-c", "pass"),
            lambda: _seconds("-c", LIBRARIES),
            home.unlock,
            home.ready,
            lambda: _seconds("-m", "node", "--help"),
        )
        idle = home.idle(size.pick(0, 2, 5))
    parts = (
        Figure("startup: --help", helped, bare, "s", HELP_S, AT_MOST, "measured"),
        Figure("startup: idle node", idle, None, "MiB", IDLE_MIB, AT_MOST, "measured"),
    )
    more = {"unlock_s": round(unlock, 3)}
    return Figure(
        "startup", ready - unlock, libraries, "s", READY_S, AT_MOST, "measured",
        more=more, parts=parts,
    )  # fmt: skip
