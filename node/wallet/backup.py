"""Back a secret up: deal it, send every guardian its piece, wait for receipts, settle.

Everything that is sent lies on the disk before its first byte leaves, so that `deposit` can
be cut off anywhere and run again: it sends the same bytes to whoever has not answered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from node.wallet.guardians import Link
from node.wallet.session import Wallet
from protocol import sealing, vault
from protocol.contract import Verified
from protocol.errors import HoldfastError, Malformed
from protocol.keys import SigningKey
from protocol.policy import Policy, policy_of
from protocol.vault import Payload, Sealed
from protocol.wallet import backing_up, preparing
from protocol.wallet.backing_up import Backup, Deposit
from protocol.wallet.standing import Standing, standing

SEED_BYTES = 32


@dataclass(frozen=True, repr=False)
class Wish:
    """What a member wants backed up. `names` are full names as typed, the first is shown to
    guardians; `waiting` is a waiting period in ms, None for the federation's usual one."""

    title: str
    form: str
    secret: bytes
    names: tuple[str, ...]
    file: str = ""
    hint: str = ""
    passphrase: str | None = None
    card_line: str = ""
    card_picture: bytes = b""
    waiting: int | None = None

    def __repr__(self) -> str:
        return f"Wish({self.title!r}, …)"


async def begin(wallet: Wallet, wish: Wish) -> bytes:
    """Deal a new vault and write it down; return its id. Nothing has been sent yet."""
    preparing.check_secret(wish.secret)
    preparing.check_passphrase(wish.passphrase)
    spellings = preparing.check_spellings(wish.names)
    owner = SigningKey(wallet.ports.entropy.draw(SEED_BYTES))
    payload = Payload(owner.seed, wish.form, wish.secret, wish.file, spellings)
    card = preparing.make_card(wish.card_line, wish.card_picture, wallet.draws())
    label = backing_up.make_label(wish.names[0].strip(), wish.hint, card)
    policy = backing_up.policy_for(wallet.roster, waiting=wish.waiting)
    backup, sealed = await _deal(
        wallet, owner, label, policy, payload, wish.title, wish.passphrase, None
    )
    if card is not None:
        wallet.folder.put(card.root.hex(), b"".join(card.chunks))
    vault_id = bytes(wallet.codec.read(backup.deal).body["vault"])
    _keep(wallet, vault_id, backup, sealed, payload)
    return vault_id


async def deal_again(
    wallet: Wallet, vault_id: bytes, passphrase: str | None, *, number: int = 0
) -> None:
    """Deal a vault anew, for the guardians of today and the owner key of this device.

    `number` is the highest number of a deal that guardians know of.
    """
    backup = wallet.backup(vault_id)
    earlier = wallet.codec.read(backup.deal)
    payload = replace(_payload(wallet, backup), owner=backup.owner)
    label = vault.read_label(backup.label)
    later, sealed = await _deal(
        wallet,
        SigningKey(backup.owner),
        label,
        policy_of(earlier),
        payload,
        backup.title,
        passphrase,
        backup,
        earlier,
        number,
    )
    _keep(wallet, vault_id, later, sealed, payload)


async def _deal(
    wallet: Wallet,
    owner: SigningKey,
    label: vault.Label,
    policy: Policy,
    payload: Payload,
    title: str,
    passphrase: str | None,
    after: Backup | None,
    earlier: Verified | None = None,
    above: int = 0,
) -> tuple[Backup, Sealed]:
    codec, roster, now, cost = wallet.codec, wallet.roster, wallet.now(), wallet.ports.cost
    draws = wallet.draws()

    def work() -> tuple[Backup, Sealed]:
        dealt = backing_up.deal(
            codec, roster, owner, label, policy, now=now, draws=draws, after=earlier, above=above
        )
        stretched = backing_up.stretch_names(
            payload.spellings, passphrase, backing_up.pepper_of(dealt), cost
        )
        return backing_up.seal(
            codec,
            roster,
            owner,
            dealt,
            payload,
            stretched,
            title=title,
            passphrase=passphrase is not None,
            now=now,
            draws=draws,
            after=after,
        )

    return await wallet.ports.workers.compute(work)


async def rename(
    wallet: Wallet, vault_id: bytes, spellings: tuple[str, ...], passphrase: str | None
) -> None:
    """Make the next version, which opens under these normal forms; nothing is sent yet.

    Raises `WrongSecret` when the passphrase is not the one of the version that stands.
    """
    backup, codec, cost = wallet.backup(vault_id), wallet.codec, wallet.ports.cost
    payload = replace(_payload(wallet, backup), spellings=spellings)
    draws, now = wallet.draws(), wallet.now()

    def work() -> tuple[Backup, Sealed]:
        known = backing_up.stretch_names(backup.spellings[:1], passphrase, backup.pepper, cost)
        backing_up.check_stretched(codec, backup, known[0])
        stretched = backing_up.stretch_names(spellings, passphrase, backup.pepper, cost)
        return backing_up.seal_again(
            codec,
            backup,
            payload,
            stretched,
            passphrase=passphrase is not None,
            now=now,
            draws=draws,
        )

    later, sealed = await wallet.ports.workers.compute(work)
    _keep(wallet, vault_id, later, sealed, payload)


def has_passphrase(wallet: Wallet, vault_id: bytes) -> bool:
    """Whether a backup was made with a passphrase."""
    return bool(wallet.codec.read(wallet.backup(vault_id).version).body["passphrase"])


# --- what lies beside the state --------------------------------------------------------


def payload_part(wallet: Wallet, backup: Backup) -> str:
    return f"{wallet.codec.read(backup.version).id.hex()}.payload"


def ciphertext_part(wallet: Wallet, backup: Backup) -> str:
    return f"{wallet.codec.read(backup.version).id.hex()}.ciphertext"


def payload(wallet: Wallet, vault_id: bytes) -> Payload:
    """Return what is backed up, from the copy that the wallet keeps."""
    return _payload(wallet, wallet.backup(vault_id))


def _payload(wallet: Wallet, backup: Backup) -> Payload:
    return vault.read_payload(wallet.folder.part(payload_part(wallet, backup)))


def _keep(
    wallet: Wallet, vault_id: bytes, backup: Backup, sealed: Sealed, payload: Payload
) -> None:
    """Write a new version down: first its parts, then the state that speaks of them."""
    before = wallet.folder.state.backups.get(vault_id)
    wallet.folder.put(payload_part(wallet, backup), payload.to_bytes())
    wallet.folder.put(ciphertext_part(wallet, backup), b"".join(sealed.segments))
    wallet.keep(vault_id, backup)
    if before is not None:
        wallet.folder.drop(payload_part(wallet, before))
        wallet.folder.drop(ciphertext_part(wallet, before))


# --- sending ---------------------------------------------------------------------------


async def deposit(wallet: Wallet, vault_id: bytes) -> Standing:
    """Send what has not been acknowledged yet, and say how the backup stands then.

    Tells "receipt" and "refused" events as they come. Never raises for a guardian's sake.
    """
    codec = wallet.codec
    backup = wallet.backup(vault_id)
    ciphertext = wallet.folder.part(ciphertext_part(wallet, backup))
    segments = sealing.split_ciphertext(ciphertext)
    due = await wallet.ports.workers.compute(lambda: backing_up.deposits(codec, backup, segments))
    cards = _card_chunks(wallet, backup)

    async def work(seat: int, link: Link) -> None:
        if seat in due and seat not in wallet.backup(vault_id).receipts:
            raw = await _send(link, due[seat])
            now = wallet.backup(vault_id)
            wallet.keep(vault_id, backing_up.take_receipt(codec, wallet.roster, now, seat, raw))
            wallet.tell({"event": "receipt", "guardian": wallet.roster.named(seat)})
        if cards and seat not in wallet.backup(vault_id).carded:
            await _send_card(link, vault_id, codec.read(backup.deal).id, cards)
            now = wallet.backup(vault_id)
            wallet.keep(vault_id, replace(now, carded=tuple(sorted({*now.carded, seat}))))

    held = wallet.backup(vault_id)
    wanting = [
        seat
        for seat in codec.read(held.deal).body["holders"]
        if seat in due or (cards and seat not in held.carded)
    ]
    failed = await wallet.each(work, wanting)
    for seat, error in sorted(failed.items()):
        tell_failure(wallet, seat, error)
    await _settle(wallet, vault_id)
    return standing(codec, wallet.roster, wallet.backup(vault_id))


def tell_failure(wallet: Wallet, seat: int, error: HoldfastError) -> None:
    """Say that a guardian did not do what was asked, and why."""
    wallet.tell(
        {"event": "unanswered", "guardian": wallet.roster.named(seat), "why": str(error)}
        | ({"hint": error.hint} if error.hint else {})
    )


async def _send(link: Link, due: Deposit) -> bytes:
    request = await link.begin(
        "deposit", {"deal": due.deal, "version": due.version, "box": due.box, "whole": due.whole}
    )
    answer = await link.answer(request)
    if answer.get("fragments") is True and due.parts:
        await link.send_fragments(request, backing_up.fragment_messages(due.parts))
        answer = await link.answer(request)
    receipt = answer.get("receipt")
    if type(receipt) is not bytes:
        raise Malformed(f"{link.name} took the piece and signed no receipt")
    return receipt


def _card_chunks(wallet: Wallet, backup: Backup) -> list[bytes]:
    label = vault.read_label(backup.label)
    if not label.card_count or not wallet.folder.has(label.card_root.hex()):
        return []
    sealed = wallet.folder.part(label.card_root.hex())
    size = vault.CARD_CHUNK_BYTES
    return [sealed[start : start + size] for start in range(0, len(sealed), size)]


async def _send_card(link: Link, vault_id: bytes, deal_id: bytes, chunks: list[bytes]) -> None:
    request = await link.begin("card", {"vault": vault_id, "deal": deal_id})
    answer = await link.answer(request)
    if answer.get("fragments") is True:
        await link.send_fragments(request, backing_up.fragment_messages(chunks))
        await link.answer(request)


async def _settle(wallet: Wallet, vault_id: bytes) -> None:
    """Sign and send that the old version may go, if enough hold the new one."""
    backup = backing_up.settle(wallet.codec, wallet.backup(vault_id))
    if not backup.settled:
        return
    if backup is not wallet.backup(vault_id):
        wallet.keep(vault_id, backup)

    async def work(seat: int, link: Link) -> None:
        await link.ask("settle", {"raw": backup.settled})
        now = wallet.backup(vault_id)
        wallet.keep(vault_id, replace(now, told=tuple(sorted({*now.told, seat}))))

    untold = [seat for seat in backup.receipts if seat not in backup.told]
    failed = await wallet.each(work, untold)
    for seat, error in sorted(failed.items()):
        tell_failure(wallet, seat, error)
