"""Keep what a wallet knows in an encrypted folder that survives a power cut at any moment.

    <home>/              0700
        lock             held by the one process that uses the folder
        keystore         the folder's key, locked with the wallet's password
        state            one document, locked with the folder's key
        parts/<name>     what is large: payloads, ciphertext, cards; locked likewise

A part is written before the state that speaks of it, and dropped after the state that no
longer does. The password may be empty: then only the permissions of the files protect them.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from node import keystore
from node.ports import Entropy
from protocol.encoding import decode, encode
from protocol.errors import Locked, Malformed, Refused, WrongSecret
from protocol.federation import Invite, Signed, read_invite, read_signed
from protocol.keys import SealingKey, SigningKey
from protocol.sealing import KEY_BYTES, NONCE_BYTES, lock, unlock
from protocol.wallet.backing_up import Backup, read_backup
from protocol.wallet.joining import Membership
from protocol.wallet.recovering import Device

STATE_VERSION: Final = 1
STATE_BYTES_MAX: Final = 64 * 1024 * 1024  # a thousand vaults of 32 guardians
PART_BYTES_MAX: Final = 8 * 1024 * 1024  # a payload has 2 MiB at most
_LOCK, _KEYSTORE, _STATE, _PARTS = "lock", "keystore", "state", "parts"


@dataclass(repr=False)
class ClaimRecord:
    """A claim of this device: its keys, what guardians answered, and how it ended.

    `outcome` is empty while it goes on, else "recovered" or "given up"; `told` lists the
    seats that have taken the succession.
    """

    raw: bytes
    code: str
    signing: bytes
    opening: bytes
    name: str
    started: int
    heard: dict[str, list[bytes]] = field(
        default_factory=lambda: {"votes": [], "vetoes": [], "releases": []}
    )
    outcome: str = ""
    vault: bytes = b""
    succession: bytes = b""
    told: list[int] = field(default_factory=list)

    @property
    def device(self) -> Device:
        return Device(SigningKey(self.signing), SealingKey(self.opening))

    def __repr__(self) -> str:
        return "ClaimRecord(…)"


@dataclass(repr=False)
class State:
    """All that a wallet knows. `backups` are keyed by vault id; `arrival` are the keys of a
    device to which vaults are to be moved, empty or two seeds."""

    membership: Membership | None = None
    backups: dict[bytes, Backup] = field(default_factory=dict)
    claims: list[ClaimRecord] = field(default_factory=list)
    arrival: list[bytes] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        return encode(
            {
                "version": STATE_VERSION,
                "membership": _membership_map(self.membership),
                "backups": [
                    {"vault": vault, "backup": backup.to_map()}
                    for vault, backup in sorted(self.backups.items())
                ],
                "claims": [
                    {key.name: getattr(claim, key.name) for key in fields(claim)}
                    for claim in self.claims
                ],
                "arrival": self.arrival,
            }
        )

    def __repr__(self) -> str:
        return "State(…)"


class Folder:
    """An open wallet folder. Change `state`, then `save`: nothing is sent before it returns."""

    def __init__(self, home: Path, key: bytes, state: State, entropy: Entropy, held: int) -> None:
        self.home = home
        self.state = state
        self._key = key
        self._entropy = entropy
        self._held = held

    def __repr__(self) -> str:
        return f"Folder({str(self.home)!r})"

    def save(self) -> None:
        """Write the state, durable when this returns. Raises `Refused` when the disk says no."""
        self._write(self.home / _STATE, self.state.to_bytes())

    def put(self, name: str, data: bytes) -> None:
        """Write a part, durable when this returns."""
        folder = self.home / _PARTS
        folder.mkdir(mode=0o700, exist_ok=True)
        self._write(folder / name, data)

    def part(self, name: str) -> bytes:
        """Read a part. Raises `Malformed` when it is missing or damaged."""
        return _unlocked(self.home / _PARTS / name, self._key)

    def has(self, name: str) -> bool:
        return (self.home / _PARTS / name).exists()

    def drop(self, name: str) -> None:
        """Forget a part; nothing happens when there is none."""
        (self.home / _PARTS / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Let another process use the folder."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def _write(self, path: Path, plain: bytes) -> None:
        keystore.write_durably(path, lock(self._key, plain, self._entropy.draw(NONCE_BYTES)))


def exists(home: Path) -> bool:
    """Whether there is a wallet in this folder."""
    return (home / _KEYSTORE).exists()


def create(home: Path, password: bytes, entropy: Entropy) -> Folder:
    """Make the folder of a new wallet. Raises `Refused` when there is one already."""
    if exists(home):
        raise Refused(
            f"there is a wallet in {home} already; nothing in it was changed",
            hint="choose another folder with --home",
        )
    # A folder left half-made by a power cut has no keystore and may be taken again.
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    strangers = [each.name for each in home.iterdir() if each.name not in (_LOCK, _STATE)]
    if strangers:
        raise Refused(
            f"the folder {home} holds other things ({strangers[0]}), and nothing was changed",
            hint="choose an empty folder with --home",
        )
    home.chmod(0o700)
    held = _hold(home)
    try:
        folder = Folder(home, entropy.draw(KEY_BYTES), State(), entropy, held)
        folder.save()
        fresh = entropy.draw(keystore.FRESH_BYTES)
        keystore.create_sealed(home / _KEYSTORE, folder._key, password, fresh)
    except BaseException:
        os.close(held)
        raise
    return folder


def open_folder(home: Path, password: bytes, entropy: Entropy) -> Folder:
    """Open a wallet. Raises `Refused` when there is none or another process uses it,
    `WrongSecret` when the password is another, `Malformed` when a file is damaged."""
    if not exists(home):
        raise Refused(
            f"there is no wallet in {home}",
            hint="make one with: holdfast wallet join",
        )
    held = _hold(home)
    try:
        key = keystore.read_sealed(home / _KEYSTORE, password)
        state = _read_state(_unlocked(home / _STATE, key))
    except WrongSecret as error:
        os.close(held)
        raise WrongSecret("the password does not open this wallet; nothing was changed") from error
    except BaseException:
        os.close(held)
        raise
    return Folder(home, key, state, entropy, held)


def _hold(home: Path) -> int:
    """Take the folder's lock; the kernel lets go of it when the process ends, however it does."""
    held = os.open(home / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        raise Locked(
            f"another window or programme is using the wallet in {home}",
            hint="finish there first, or close it",
        ) from error
    return held


def _unlocked(path: Path, key: bytes) -> bytes:
    try:
        return unlock(key, path.read_bytes())
    except FileNotFoundError:
        raise Malformed(
            f"the wallet is damaged: {path} is missing", hint="put it back from a backup"
        ) from None
    except WrongSecret:
        raise Malformed(
            f"the wallet is damaged: {path} does not open", hint="put it back from a backup"
        ) from None


# --- the state as a document -----------------------------------------------------------


def _membership_map(membership: Membership | None) -> dict[str, Any] | None:
    if membership is None:
        return None
    return {
        "invite": membership.invite.to_text(),
        "signed": membership.signed.to_bytes(),
        "addresses": [[seat, raw] for seat, raw in sorted(membership.addresses.items())],
    }


def _read_membership(found: Mapping[str, Any] | None) -> Membership | None:
    if found is None:
        return None
    invite: Invite = read_invite(found["invite"])
    signed: Signed = read_signed(found["signed"], invite.federation)
    return Membership(invite, signed, dict(found["addresses"]))


def _read_state(raw: bytes) -> State:
    found = decode(raw, limit=STATE_BYTES_MAX)
    if type(found) is not dict or found.get("version") != STATE_VERSION:
        raise Malformed(
            "this wallet was written by another version of Holdfast",
            hint="install the newest version and try again; nothing was changed",
        )
    return State(
        membership=_read_membership(found["membership"]),
        backups={each["vault"]: read_backup(each["backup"]) for each in found["backups"]},
        claims=[ClaimRecord(**each) for each in found["claims"]],
        arrival=found["arrival"],
    )


def membership_of(state: State) -> Membership:
    """Return the federation. Raises `Refused` when the wallet has not joined yet."""
    if state.membership is None:
        raise Refused(
            "this wallet has not joined a federation yet",
            hint="ask a guardian for an invite and run: holdfast wallet join",
        )
    return state.membership
