"""Keep a guardian's keys in its folder, and write files that survive a power cut.

    <home>/              0700
        keystore         0600  identity seed and sealing seeds, locked with the passphrase
        transport.key    0600  seed of the transport key, not locked: see `node.certificate`

The folders of wallets keep their files through `create_sealed`, `replace_sealed` and
`read_sealed`. Randomness is an argument everywhere. Every change is written beside the file,
made durable, and only then put in its place: at any moment either the old or the new is there.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.encoding import decode, encode
from protocol.errors import Locked, Malformed, Refused
from protocol.keys import SEED_BYTES, SealingKey, SigningKey
from protocol.limits import PASSPHRASE_BYTES_MAX
from protocol.sealing import (
    KEYSTORE_BYTES_MAX,
    NONCE_BYTES,
    SALT_BYTES,
    Cost,
    seal_keystore,
)
from protocol.sealing import open_keystore as _unlock

KEYSTORE: Final = "keystore"
TRANSPORT_KEY: Final = "transport.key"
CREDENTIAL: Final = "passphrase"  # its name in systemd's LoadCredential=
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
FRESH_BYTES: Final = SALT_BYTES + NONCE_BYTES  # what locking a file once takes
SEEDS_BYTES: Final = 3 * SEED_BYTES + FRESH_BYTES
"""What `create` takes: seeds of identity, first sealing and transport key, salt, nonce."""
_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_PLAIN_BYTES_MAX: Final = 32 * 1024  # of a keystore: six hundred sealing keys


@dataclass(frozen=True, slots=True)
class Keys:
    """A guardian's unlocked keys. The sealing keys stand in the order of their generations.

    `generations` numbers them, from 0 upwards; the newest comes last, and those whose shards
    are all replaced have been dropped from the front.
    """

    identity: SigningKey
    sealing: tuple[SealingKey, ...]
    generations: tuple[int, ...]


# --- a guardian's folder ---------------------------------------------------------------


def create(home: Path, passphrase: bytes, seeds: bytes, *, cost: Cost = Cost.INTERACTIVE) -> None:
    """Make the folder of a new guardian, readable by its owner only.

    `seeds` are `SEEDS_BYTES` fresh random bytes. Raises Refused when the folder already holds
    something: nothing is ever overwritten. An empty folder is taken as it is.
    """
    if len(seeds) != SEEDS_BYTES:
        raise ValueError(f"a folder is made from {SEEDS_BYTES} random bytes, not {len(seeds)}")
    identity, sealing, transport, fresh = _cut(seeds, SEED_BYTES, SEED_BYTES, SEED_BYTES)
    create_folder(home)
    # The keystore comes last: with it, the folder is a guardian's.
    write_durably(home / TRANSPORT_KEY, transport, replace=False)
    plain = _plain(Keys(SigningKey(identity), (SealingKey(sealing),), (0,)))
    create_sealed(home / KEYSTORE, plain, passphrase, fresh, cost=cost)


def create_folder(home: Path) -> None:
    """Make an empty folder with mode 0700, or take one that is there and empty.

    Raises Refused when it holds something, is no folder, or cannot be made.
    """
    try:
        home.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        if any(home.iterdir()):
            raise Refused(
                f"The folder {home} already holds something, and nothing in it was changed.",
                hint="Choose another folder, or move this one aside first.",
            )
        home.chmod(_FOLDER_MODE)
        _sync_folder(home.parent)
    except OSError as error:
        raise Refused(f"The folder {home} cannot be made: {error.strerror}.") from error


def open_keystore(home: Path, passphrase: bytes) -> Keys:
    """Return a guardian's keys. Takes about 0.06 s and 64 MiB: not for the event loop.

    Raises Refused when there are none or others can read them, WrongSecret when the
    passphrase is another, Malformed when the file is damaged.
    """
    return _keys(read_sealed(home / KEYSTORE, passphrase))


def transport_key(home: Path) -> SigningKey:
    """Return the transport key, for which no passphrase is needed.

    Raises Refused when it is missing or others can read it, Malformed when it is damaged.
    """
    path = home / TRANSPORT_KEY
    seed = _read_private(path, SEED_BYTES)
    if len(seed) != SEED_BYTES:
        raise Malformed(
            f"The file {path} is damaged: it has {len(seed)} bytes instead of {SEED_BYTES}.",
            hint="Put it back from a backup of this folder.",
        )
    return SigningKey(seed)


def change_passphrase(
    home: Path, old: bytes, new: bytes, fresh: bytes, *, cost: Cost = Cost.INTERACTIVE
) -> None:
    """Lock the keystore with another passphrase. Copies made before still open with the old one.

    `fresh` are `FRESH_BYTES` random bytes. Raises as `open_keystore` does.
    """
    plain = read_sealed(home / KEYSTORE, old)
    replace_sealed(home / KEYSTORE, plain, new, fresh, cost=cost)


def add_sealing_key(
    home: Path, passphrase: bytes, seed: bytes, fresh: bytes, *, cost: Cost = Cost.INTERACTIVE
) -> Keys:
    """Add the sealing key of the next generation, durably, and return all keys."""
    keys = open_keystore(home, passphrase)
    later = Keys(
        keys.identity,
        (*keys.sealing, SealingKey(seed)),
        (*keys.generations, keys.generations[-1] + 1),
    )
    replace_sealed(home / KEYSTORE, _plain(later), passphrase, fresh, cost=cost)
    return later


def drop_sealing_keys(
    home: Path, passphrase: bytes, before: int, fresh: bytes, *, cost: Cost = Cost.INTERACTIVE
) -> Keys:
    """Forget the sealing keys of generations below `before`, and return the others.

    What is still sealed to them can never be opened again. The newest is always kept.
    """
    keys = open_keystore(home, passphrase)
    newest = keys.generations[-1]
    kept = [
        (key, generation)
        for key, generation in zip(keys.sealing, keys.generations, strict=True)
        if generation >= before or generation == newest
    ]
    later = Keys(keys.identity, tuple(k for k, _ in kept), tuple(g for _, g in kept))
    replace_sealed(home / KEYSTORE, _plain(later), passphrase, fresh, cost=cost)
    return later


# --- files locked with a passphrase ----------------------------------------------------


def create_sealed(
    path: Path, plain: bytes, passphrase: bytes, fresh: bytes, *, cost: Cost = Cost.INTERACTIVE
) -> None:
    """Write a new file that `passphrase` opens, mode 0600.

    `fresh` are `FRESH_BYTES` random bytes. Raises Refused when the file is already there.
    """
    write_durably(path, _sealed(plain, passphrase, fresh, cost), replace=False)


def replace_sealed(
    path: Path, plain: bytes, passphrase: bytes, fresh: bytes, *, cost: Cost = Cost.INTERACTIVE
) -> None:
    """Write a file that `passphrase` opens in the place of the one that is there."""
    write_durably(path, _sealed(plain, passphrase, fresh, cost))


def read_sealed(path: Path, passphrase: bytes) -> bytes:
    """Return what a sealed file holds. Raises as `open_keystore` does."""
    return _unlock(_read_private(path, KEYSTORE_BYTES_MAX), passphrase)


def write_durably(path: Path, data: bytes, *, replace: bool = True) -> None:
    """Write a file with mode 0600, so that after any power cut it is there whole or not at all.

    With `replace` an older file gives way; without, Refused is raised and it stays. Raises
    Refused, too, when the disk says no.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.unlink(missing_ok=True)  # left by a power cut; two writers at once are not meant
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)
            if replace:
                beside.replace(path)
            else:
                _place(beside, path)
        finally:
            beside.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except FileExistsError:
        raise Refused(
            f"There is already a file {path}, and it was not changed.",
            hint="Choose another name, or move that file aside first.",
        ) from None
    except OSError as error:
        raise Refused(f"The file {path} cannot be written: {error.strerror}.") from error


# --- the passphrase --------------------------------------------------------------------


def find_passphrase(
    file: Path | None = None,
    *,
    environment: Mapping[str, str],
    prompt: Callable[[], str] | None = None,
) -> bytes:
    """Return the passphrase: from `file`, else systemd's credential, else the person asked.

    One line ending at the end of a file is not part of it. Text is brought to Unicode's NFC,
    since keyboards differ in how they write an accent. Raises Locked when there is nowhere
    to take it from, Refused when it is empty, too long or cannot be read.
    """
    if file is not None:
        return _passphrase(_read(file, PASSPHRASE_BYTES_MAX + 3))
    folder = environment.get(CREDENTIALS_VARIABLE)
    if folder and (credential := Path(folder) / CREDENTIAL).exists():
        return _passphrase(_read(credential, PASSPHRASE_BYTES_MAX + 3))
    if prompt is None:
        raise Locked(
            "The passphrase is needed, and there is nobody to ask for it.",
            hint="Give it with --passphrase-file, or as the systemd credential “passphrase”.",
        )
    return _passphrase(prompt().encode("utf-8", "surrogateescape"))


def _passphrase(raw: bytes) -> bytes:
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    try:
        raw = unicodedata.normalize("NFC", raw.decode()).encode()
    except UnicodeDecodeError:
        pass  # random bytes are as good a passphrase as words
    if not raw:
        raise Refused("The passphrase is empty.", hint="Use at least four or five random words.")
    if len(raw) > PASSPHRASE_BYTES_MAX:
        raise Refused(f"The passphrase has more than {PASSPHRASE_BYTES_MAX} bytes.")
    return raw


# --- inside ----------------------------------------------------------------------------


def _cut(raw: bytes, *sizes: int) -> list[bytes]:
    parts = []
    for size in sizes:
        parts.append(raw[:size])
        raw = raw[size:]
    return [*parts, raw]


def _sealed(plain: bytes, passphrase: bytes, fresh: bytes, cost: Cost) -> bytes:
    if len(fresh) != FRESH_BYTES:
        raise ValueError(f"locking takes {FRESH_BYTES} random bytes, not {len(fresh)}")
    return seal_keystore(plain, passphrase, fresh[:SALT_BYTES], fresh[SALT_BYTES:], cost)


def _plain(keys: Keys) -> bytes:
    pairs = zip(keys.generations, keys.sealing, strict=True)
    sealing = [[generation, key.seed] for generation, key in pairs]
    return encode({"identity": keys.identity.seed, "sealing": sealing})


def _keys(plain: bytes) -> Keys:
    try:
        fields = decode(plain, limit=_PLAIN_BYTES_MAX)
        generations = tuple(int(generation) for generation, _ in fields["sealing"])
        sealing = tuple(SealingKey(seed) for _, seed in fields["sealing"])
        identity = SigningKey(fields["identity"])
    except (TypeError, ValueError, KeyError, Malformed):
        # Not chained: the message of the cause could hold what the keystore holds.
        raise _other_version() from None
    if not sealing or list(generations) != sorted(set(generations)):
        raise _other_version()
    return Keys(identity, sealing, generations)


def _other_version() -> Malformed:
    return Malformed(
        "The keystore opens, but what it holds was written by another version of Holdfast.",
        hint="Install the newest version and try again.",
    )


def _read_private(path: Path, limit: int) -> bytes:
    raw = _read(path, limit + 1)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Refused(
            f"Other people on this machine can read {path}, which holds a key.",
            hint=f"Close it with: chmod 600 {path}",
        )
    return raw


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except FileNotFoundError:
        raise Refused(
            f"There is no file {path}.", hint="Is this the right folder? If so, look for a backup."
        ) from None
    except OSError as error:
        raise Refused(f"The file {path} cannot be read: {error.strerror}.") from error


def _place(beside: Path, path: Path) -> None:
    """Rename, but raise FileExistsError when something is there."""
    try:
        path.hardlink_to(beside)
    except FileExistsError:
        raise
    except OSError:  # a memory stick's file system knows no hard links
        if path.exists():
            raise FileExistsError(path) from None
        beside.replace(path)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
