"""A disk in memory under SQLite, which loses power, fills up, fails and rots from a seed.

The production store opens its database on it by naming its VFS. Until a file is synced a
write may be lost or torn at the next crash, each sector on its own, so that a later write
may survive an earlier one; a file that was created or deleted may come back as it was
before. What has been synced stays, unless the disk was told to lie or to rot.

A power cut raises PowerCut from the operation it strikes and from every one after it, until
`crash` has settled what survives. Handles opened before stay dead for good.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import apsw

from simulations.trace import Trace, encode

SECTOR_BYTES: Final = 512  # what real disks promise to write whole, at best
LOST: Final = 0.5  # chance that an unsynced sector, length or name never reached the platter
TORN: Final = 0.1  # chance that an unsynced sector that did is there only in part
HASH_BYTES: Final = 16
ENDLESS_BYTES: Final = 2**62  # room on a disk without a capacity
LOCK_SHARED: Final = 1
LOCK_RESERVED: Final = 2
LOCK_PENDING: Final = 3
LOCK_EXCLUSIVE: Final = 4


class PowerCut(BaseException):
    """The power of this machine is gone: nothing of the process may run on.

    Not an Exception, so that production code cannot catch it by accident as it would an
    error of the disk. Whoever runs the machine catches it and calls `Disk.crash`.
    """


def reset_sqlite_randomness() -> None:
    """Make SQLite forget its random state; it then draws from the VFS that is the default."""
    apsw.randomness(0)


@contextmanager
def silent_power_cuts() -> Iterator[None]:
    """Let connections to a dark disk be dropped without a report.

    A connection that is dropped unclosed closes itself, which the dark disk refuses; nobody
    is left to hear of it, so Python would print it, and the tests take that for an error.
    """
    report = sys.unraisablehook

    def report_others(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, PowerCut):
            report(unraisable)

    sys.unraisablehook = report_others
    try:
        yield
    finally:
        sys.unraisablehook = report


class _File:
    """The bytes of one file: as the process sees them, and as the platter holds them."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.platter = bytearray()
        self.pending: list[tuple[int, bytes | None]] = []  # (offset, bytes), or (length, None)
        self.locks: dict[int, int] = {}  # number of the handle -> level

    def apply(self, offset: int, data: bytes | None) -> None:
        self.pending.append((offset, data))
        _apply(self.seen, offset, data)

    def sync(self) -> None:
        for offset, data in self.pending:
            _apply(self.platter, offset, data)
        self.pending.clear()

    def settle(self, rng: random.Random) -> None:
        """Keep what a crash leaves of the unsynced changes."""
        for offset, data in self.pending:
            for start, piece in _sectors(offset, data):
                if rng.random() < LOST:
                    continue
                if piece is not None and rng.random() < TORN:
                    piece = piece[: rng.randrange(len(piece))]
                _apply(self.platter, start, piece)
        self.pending.clear()
        self.seen = bytearray(self.platter)
        self.locks.clear()


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _sectors(offset: int, data: bytes | None) -> Iterator[tuple[int, bytes | None]]:
    if data is None:
        yield offset, None
        return
    start = offset
    while start < offset + len(data):
        end = min(offset + len(data), (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
        yield start, data[start - offset : end - offset]
        start = end


class Disk:
    """One machine's disk, reached by SQLite as the VFS `vfs_name`.

    `name` must be unique among the disks registered at one time. `rng` decides what a crash
    leaves and what SQLite's own random source gives. Every sync and deletion goes into
    `trace` with a hash of the changes so far. The VFS becomes SQLite's default, because
    SQLite seeds its random source from the default alone. Use as a context manager, or
    call `close` when the last connection is gone.

    Faults, all off at first: `cut_at` (the operation at which the power goes, counted in
    `ops`), `capacity_bytes` (of all files together; beyond it the disk is full), `lies`
    (chance that a sync does nothing and says it did), `fail_next` and `rot`.
    """

    def __init__(self, name: str, rng: random.Random, *, trace: Trace | None = None) -> None:
        self.vfs_name = f"disk-{name}"
        self.ops = 0  # writes, truncations, syncs and deletions so far
        self.crashes = 0
        self.cut_at: int | None = None
        self.capacity_bytes: int | None = None
        self.lies = 0.0
        self._name = name
        self._rng = rng
        self._trace = trace
        self._dark = False
        self._retired = False
        self._failures = 0
        self._handles = 0
        self._changes = hashlib.blake2b(digest_size=HASH_BYTES)
        self._names: dict[str, _File] = {}
        self._durable_names: dict[str, _File] = {}
        if self.vfs_name in apsw.vfs_names():
            raise ValueError(f"a disk named {name} exists already; close it first")
        self._vfs = _Vfs(self, rng.randbytes(64))

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the VFS out of SQLite. Connections left over do no harm and mean nothing."""
        if not self._retired:
            self._retired = True
            self._vfs.unregister()

    def cut_power(self) -> None:
        """Cut the power now: every operation raises PowerCut until `crash`."""
        self._dark = True

    def crash(self) -> None:
        """Decide what survives of everything unsynced, then give power back.

        Connections opened before stay dead; those faults that name an operation are over.
        """
        for path in sorted({**self._names, **self._durable_names}):
            now, before = self._names.get(path), self._durable_names.get(path)
            if now is not before and self._rng.random() < LOST:
                _link(self._names, path, before)
        for path in sorted(self._names):
            self._names[path].settle(self._rng)
        self._durable_names = dict(self._names)
        self.crashes += 1
        self.cut_at, self._failures, self._dark = None, 0, False
        self._report("crash", "")

    def fail_next(self, times: int = 1) -> None:
        """Let the next writes, truncations or syncs fail with an input/output error (EIO)."""
        self._failures = times

    def rot(self, path: str) -> None:
        """Flip one random bit of what the platter holds of `path`, and of what is read."""
        file = self._names[path]
        if not file.platter:
            return
        at, bit = self._rng.randrange(len(file.platter)), 1 << self._rng.randrange(8)
        file.platter[at] ^= bit
        if at < len(file.seen):
            file.seen[at] ^= bit
        self._report("rot", path)

    def image(self) -> dict[str, bytes]:
        """Copy what the platter holds, as a snapshot of a virtual machine would."""
        return {path: bytes(file.platter) for path, file in sorted(self._durable_names.items())}

    def restore(self, image: dict[str, bytes]) -> None:
        """Set a disk without power back to an image, without anybody being told."""
        self._names = {}
        for path, content in image.items():
            self._names[path] = _File()
            self._names[path].seen = bytearray(content)
            self._names[path].platter = bytearray(content)
        self._durable_names = dict(self._names)
        self._report("restore", "")

    def damage(self, path: str, content: bytes) -> bool:
        """Flip a bit of what the platter holds where it holds `content`; false if nowhere."""
        file = self._names.get(path)
        at = -1 if file is None else file.platter.find(content)
        if file is None or at < 0:
            return False
        file.platter[at] ^= 1
        if at < len(file.seen):
            file.seen[at] ^= 1
        self._report("damage", path)
        return True

    def room(self) -> int:
        """Return the bytes that are free; a very large number when the disk has no capacity."""
        if self.capacity_bytes is None:
            return ENDLESS_BYTES
        return max(0, self.capacity_bytes - self.used())

    def used(self) -> int:
        """Return the bytes of all files together."""
        return sum(len(self._names[path].seen) for path in self._names)

    def paths(self) -> list[str]:
        """Return the names of the files there are, sorted."""
        return sorted(self._names)

    def content_hash(self) -> bytes:
        """Hash the names and bytes of all files as the process sees them: 16 bytes."""
        digest = hashlib.blake2b(digest_size=HASH_BYTES)
        for path in self.paths():
            digest.update(encode((path, bytes(self._names[path].seen))))
        return digest.digest()

    # What the VFS below calls.

    def check_power(self, crashes: int) -> None:
        if not self._retired and (self._dark or crashes != self.crashes):
            raise PowerCut(f"the power of {self._name} is cut")

    def operate(self, what: str, path: str, offset: int = 0, data: bytes = b"") -> None:
        """Count one changing operation, and let a fault strike it before it has any effect."""
        self.ops += 1
        if self._retired:
            return
        if self.cut_at is not None and self.ops >= self.cut_at:
            self._dark = True
            raise PowerCut(f"the power of {self._name} went at operation {self.ops}")
        if self._failures > 0:
            self._failures -= 1
            raise apsw.IOError(f"the disk of {self._name} failed at operation {self.ops}")
        self._changes.update(encode((what, path, offset, data)))

    def check_room(self, file: _File, end: int) -> None:
        growth = end - len(file.seen)
        if self.capacity_bytes is None or growth <= 0:
            return
        used = self.used()
        if used + growth > self.capacity_bytes:
            raise apsw.FullError(f"the disk of {self._name} is full: {used} bytes are used")

    def open(self, path: str | None, create: bool) -> tuple[_File, int]:
        self._handles += 1
        if path is None:  # a temporary file of SQLite's own, gone when closed
            return _File(), self._handles
        if path not in self._names:
            if not create:
                raise apsw.CantOpenError(f"{path} is not on the disk of {self._name}")
            self._names[path] = _File()
        return self._names[path], self._handles

    def exists(self, path: str) -> bool:
        return path in self._names

    def delete(self, path: str, sync: bool) -> None:
        if path not in self._names:
            raise apsw.IOError(f"{path} is not on the disk of {self._name}")
        self.operate("delete", path)
        del self._names[path]
        if sync:
            self._durable_names.pop(path, None)
        self._report("delete", path)

    def sync(self, file: _File, path: str) -> None:
        self.operate("sync", path)
        if not (self.lies and self._rng.random() < self.lies):
            file.sync()
            # To sync a file that is new also makes its name durable, and with it the others
            # of its folder.
            if self._names.get(path) is file and self._durable_names.get(path) is not file:
                self._durable_names = dict(self._names)
        self._report("sync", path)

    def _report(self, what: str, path: str) -> None:
        if self._trace is not None and not self._retired:
            self._trace("disk", self._name, what, path, self.ops, self._changes.digest())


def _link(names: dict[str, _File], path: str, file: _File | None) -> None:
    if file is None:
        del names[path]
    else:
        names[path] = file


class _Vfs(apsw.VFS):
    """SQLite's view of one Disk. Inherits from no other VFS: nothing real may shine through."""

    def __init__(self, disk: Disk, salt: bytes) -> None:
        self._disk = disk
        self._salt = salt
        super().__init__(disk.vfs_name, base=None, makedefault=True)

    def xFullPathname(self, name: str) -> str:
        return name

    def xAccess(self, pathname: str, flags: int) -> bool:
        self._disk.check_power(self._disk.crashes)
        return self._disk.exists(pathname)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self._disk.check_power(self._disk.crashes)
        self._disk.delete(filename, syncdir)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        self._disk.check_power(self._disk.crashes)
        flags[1] = flags[0]
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        create = bool(flags[0] & apsw.SQLITE_OPEN_CREATE)
        file, number = self._disk.open(path, create)
        # apsw takes any object with these methods; its own class would need a real file.
        return cast(apsw.VFSFile, _Handle(self._disk, file, path, number))

    def xRandomness(self, numbytes: int) -> bytes:
        return hashlib.shake_256(self._salt).digest(numbytes)

    def xCurrentTimeInt64(self) -> int:
        raise apsw.VFSNotImplementedError(
            "SQL asked for the time in a simulated run; pass a time of the Clock port instead"
        )

    def xCurrentTime(self) -> float:
        return float(self.xCurrentTimeInt64())

    def xSleep(self, microseconds: int) -> int:
        return microseconds

    def xGetLastError(self) -> tuple[int, str]:
        return 0, ""


class _Handle:
    """One open file; dead for good once the disk has lost power."""

    def __init__(self, disk: Disk, file: _File, path: str | None, number: int) -> None:
        self._disk = disk
        self._file = file
        self._path = path
        self._number = number
        self._crashes = disk.crashes

    def xRead(self, amount: int, offset: int) -> bytes:
        self._disk.check_power(self._crashes)
        return bytes(self._file.seen[offset : offset + amount])

    def xWrite(self, data: Any, offset: int) -> None:
        self._change("write", offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:
        self._change("truncate", newsize, None)

    def _change(self, what: str, offset: int, data: bytes | None) -> None:
        self._disk.check_power(self._crashes)
        if self._path is not None:
            self._disk.check_room(self._file, offset + len(data or b""))
            # The write that the cut strikes is unsynced like those before it, so it may
            # survive, wholly or in part.
            try:
                self._disk.operate(what, self._path, offset, data or b"")
            except PowerCut:
                self._file.pending.append((offset, data))
                raise
        self._file.apply(offset, data)

    def xSync(self, flags: int) -> None:
        self._disk.check_power(self._crashes)
        if self._path is not None:
            self._disk.sync(self._file, self._path)

    def xFileSize(self) -> int:
        self._disk.check_power(self._crashes)
        return len(self._file.seen)

    def xClose(self) -> None:
        self._file.locks.pop(self._number, None)

    def xLock(self, level: int) -> None:
        self._disk.check_power(self._crashes)
        strongest = max((v for k, v in self._file.locks.items() if k != self._number), default=0)
        allowed = {LOCK_SHARED: LOCK_RESERVED, LOCK_RESERVED: LOCK_SHARED}.get(level, 0)
        if level == LOCK_PENDING:
            allowed = LOCK_SHARED
        if strongest > allowed:
            raise apsw.BusyError(f"another connection holds {self._path}")
        self._file.locks[self._number] = level

    def xUnlock(self, level: int) -> None:
        if level:
            self._file.locks[self._number] = level
        else:
            self._file.locks.pop(self._number, None)

    def xCheckReservedLock(self) -> bool:
        return any(level >= LOCK_RESERVED for level in self._file.locks.values())

    def xFileControl(self, op: int, ptr: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:
        return 0  # promise nothing: SQLite must then assume the worst of a write
