"""What an owner does with vaults that stand: look, object, check in, hand over, leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from node.wallet import backup as backups
from node.wallet.guardians import Link
from node.wallet.session import Wallet
from protocol import sealing, vault
from protocol.contract import Verified
from protocol.encoding import decode, encode, from_text, to_text
from protocol.errors import HoldfastError, Malformed, Refused
from protocol.keys import SealingKey, SigningKey
from protocol.statements import NOTHING, fits, key32, octets
from protocol.wallet import backing_up, owning
from protocol.wallet.backing_up import Backup
from protocol.wallet.owning import Held, OpenCase
from protocol.wallet.standing import Standing, standing

MOVE_PREFIX: Final = "hfmove"  # of the line that a new device shows to the old one
MOVE_BYTES_MAX: Final = 64 * 1024 * 1024
SEED_BYTES: Final = 32
VETO_TRIES: Final = 5  # a claim spreads within a second; some may yet have to hear of it


@dataclass(frozen=True)
class Look:
    """How one vault stands: by our own receipts, and by what guardians say now.

    `held` and `failed` are by seat; `claims` pairs each claim under way with who told of it.
    """

    vault: bytes
    backup: Backup
    standing: Standing
    held: Mapping[int, Held]
    failed: Mapping[int, HoldfastError]

    @property
    def claims(self) -> list[tuple[OpenCase, tuple[int, ...]]]:
        return owning.claims_on(self.held)

    @property
    def leaving(self) -> int:
        """When the vault is to be erased, in ms; 0 when it stays."""
        return max((held.leaving for held in self.held.values()), default=0)

    @property
    def number(self) -> int:
        """The highest number of a deal that a guardian named; for orientation only."""
        return max((held.number for held in self.held.values()), default=0)


def _owner(backup: Backup) -> SigningKey:
    return SigningKey(backup.owner)


async def look(wallet: Wallet, vault_id: bytes) -> Look:
    """Ask every guardian what it holds of a vault and whether somebody claims it."""
    backup = wallet.backup(vault_id)
    seen = owning.seen(wallet.codec, _owner(backup), vault_id, wallet.now())
    held: dict[int, Held] = {}

    async def work(seat: int, link: Link) -> None:
        held[seat] = owning.read_held(await link.ask("seen", {"raw": seen.raw}))

    failed = await wallet.each(work, tries=2)
    stands = standing(wallet.codec, wallet.roster, backup)
    return Look(vault_id, backup, stands, held, failed)


async def tell_all(wallet: Wallet, statement: Verified, tries: int = 3) -> list[int]:
    """Send an owner's statement to every guardian; the seats that took it.

    Those that did not are told of as "unanswered" events.
    """
    taken: list[int] = []

    async def work(seat: int, link: Link) -> None:
        await link.ask("owner", {"raw": statement.raw})
        taken.append(seat)

    failed = await wallet.each(work, tries=tries, patient=True)
    for seat, error in sorted(failed.items()):
        backups.tell_failure(wallet, seat, error)
    return sorted(taken)


async def veto(wallet: Wallet, vault_id: bytes, claim: bytes, words: str) -> list[int]:
    """Say that a claim is not ours."""
    owner = _owner(wallet.backup(vault_id))
    statement = owning.veto(wallet.codec, owner, vault_id, claim, words, wallet.now())
    return await tell_all(wallet, statement, VETO_TRIES)


async def check_in(wallet: Wallet, vault_id: bytes, claim: bytes = NOTHING) -> list[int]:
    """Say that the owner is alive."""
    owner = _owner(wallet.backup(vault_id))
    statement = owning.check_in(wallet.codec, owner, vault_id, wallet.now(), claim=claim)
    return await tell_all(wallet, statement)


async def leave(wallet: Wallet, vault_id: bytes, *, stay: bool) -> list[int]:
    """Ask for the vault to be erased in seven days, or take that back."""
    owner = _owner(wallet.backup(vault_id))
    statement = owning.leave(wallet.codec, owner, vault_id, wallet.now(), stay=stay)
    return await tell_all(wallet, statement)


def erased_by(wallet: Wallet, seen: Look) -> list[int]:
    """The seats that have signed that they erased the vault."""
    return [
        seat
        for seat, held in sorted(seen.held.items())
        if held.erased
        and owning.take_erased(wallet.codec, wallet.roster, seat, seen.vault, held.erased)
    ]


def forget(wallet: Wallet, vault_id: bytes) -> None:
    """Drop what this device keeps of a vault."""
    backup = wallet.folder.state.backups.pop(vault_id)
    wallet.folder.save()
    wallet.folder.drop(backups.payload_part(wallet, backup))
    wallet.folder.drop(backups.ciphertext_part(wallet, backup))
    wallet.folder.drop(vault.read_label(backup.label).card_root.hex())


# --- moving to another device ----------------------------------------------------------


def expect_move(wallet: Wallet) -> str:
    """Return the line by which this device takes vaults from an old one."""
    state = wallet.folder.state
    if not state.arrival:
        state.arrival = [wallet.ports.entropy.draw(SEED_BYTES) for _ in range(2)]
        wallet.folder.save()
    signing, opening = SigningKey(state.arrival[0]), SealingKey(state.arrival[1])
    return to_text(MOVE_PREFIX, encode({"owner": signing.public, "box": opening.public}))


def pack_move(wallet: Wallet, line: str) -> tuple[bytes, bytes]:
    """Return the new device's owner key, and all vaults sealed for it alone."""
    keys = decode(from_text(MOVE_PREFIX, "".join(line.split())), limit=256)
    if type(keys) is not dict or not fits(keys, {"owner": key32, "box": key32}):
        raise Malformed("this is not the line that a new device shows")
    if not wallet.folder.state.backups:
        raise Refused("this wallet has no backup to move")
    bundle = []
    for vault_id, backup in sorted(wallet.folder.state.backups.items()):
        payload = wallet.folder.part(backups.payload_part(wallet, backup))
        bundle.append({"vault": vault_id, "backup": backup.to_map(), "payload": payload})
    plain = encode({"federation": wallet.roster.id, "vaults": bundle})
    sealed = sealing.seal(keys["box"], plain, wallet.ports.entropy.draw(SEED_BYTES))
    return keys["owner"], sealed


async def hand_over(wallet: Wallet, vault_id: bytes, to: bytes) -> list[int]:
    """Make another device's key the owner key of a vault."""
    owner = _owner(wallet.backup(vault_id))
    statement = owning.hand_over(wallet.codec, owner, vault_id, to, wallet.now())
    return await tell_all(wallet, statement)


def take_move(wallet: Wallet, sealed: bytes) -> list[bytes]:
    """Take the vaults that an old device packed; they are to be dealt anew then.

    Raises `Refused` when they were packed for another device or federation.
    """
    state = wallet.folder.state
    if not state.arrival:
        raise Refused(
            "this device has not asked for a move yet", hint="run: holdfast wallet move --new"
        )
    owner = SigningKey(state.arrival[0])
    try:
        found: Any = decode(SealingKey(state.arrival[1]).open(sealed), limit=MOVE_BYTES_MAX)
        ours = type(found) is dict and found["federation"] == wallet.roster.id
    except (HoldfastError, KeyError) as error:
        raise Refused(
            "this file was packed for another device, or is damaged; nothing was changed",
            hint="give the old device the line that this one shows: holdfast wallet move --new",
        ) from error
    if not ours:
        raise Refused("this file belongs to another federation than this wallet has joined")
    taken = []
    for each in found["vaults"]:
        if not octets(32)(each["vault"]) or each["vault"] in state.backups:
            continue
        backup = _taken(wallet, backing_up.read_backup(each["backup"]), owner)
        wallet.folder.put(backups.payload_part(wallet, backup), each["payload"])
        state.backups[each["vault"]] = backup
        taken.append(each["vault"])
    state.arrival = []
    wallet.folder.save()
    return taken


def _taken(wallet: Wallet, old: Backup, owner: SigningKey) -> Backup:
    payload = vault.Payload(owner.seed, "", b"", "", old.spellings)
    return backing_up.adopt(
        wallet.codec.read(old.deal),
        wallet.codec.read(old.version),
        old.secret,
        old.pepper,
        owner,
        payload,
        title=old.title,
        full_name=vault.read_label(old.label).name,
    )
