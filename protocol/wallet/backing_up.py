"""Back up: from a secret and the names it opens under to receipts, and what they are worth.

1. `deal` shares a fresh random secret among all guardians of today. The pepper it draws is
   needed before the names can be stretched, which takes seconds and happens outside.
2. `seal` encrypts the payload under names and deal. The `Backup` that results holds the
   sealed pieces: they are made once, and a repetition sends the same bytes.
3. `take_receipt` checks what guardians sign. `settle` lets the old version go once the new
   one is held as well as the old one was.

A new version under the same deal needs no new pieces; a new deal has new ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from protocol import fragments, sealing, vault
from protocol.contract import Verified
from protocol.errors import FaultyPiece, WrongSecret
from protocol.federation import Roster
from protocol.keys import SigningKey
from protocol.names import composed
from protocol.policy import Policy, policy_of, usual_policy
from protocol.statements import NOTHING, Codec
from protocol.vault import Dealt, Label, Payload
from protocol.wallet.drawing import Draws
from protocol.wallet.preparing import Card

SALT_BYTES: Final = 16  # of a vault


@dataclass(frozen=True, repr=False)
class Backup:
    """What a wallet keeps of one vault: its keys, the newest version, and who holds it.

    `owner` is the seed of the owner key; `secret` what the deal shares; `pieces` maps a seat
    to its sealed piece; `receipts` maps a seat to its receipt for this version, and `dealt`
    lists the seats that have acknowledged this deal under any version. `before` is how many
    held the version before this one, 0 for the first. `foreign` marks a deal that another
    device made: it was recovered or moved here and is to be dealt anew. The payload, the
    segments of the ciphertext and the chunks of the card are large and lie beside this.
    """

    title: str
    owner: bytes
    deal: bytes
    secret: bytes
    pepper: bytes
    version: bytes
    spellings: tuple[str, ...]
    label: bytes
    pieces: Mapping[int, bytes]
    receipts: Mapping[int, bytes] = field(default_factory=dict)
    dealt: tuple[int, ...] = ()
    carded: tuple[int, ...] = ()
    before: int = 0
    settled: bytes = b""
    told: tuple[int, ...] = ()
    foreign: bool = False

    def __repr__(self) -> str:
        return f"Backup({self.title!r}, …)"

    def to_map(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("pieces", "receipts"):
            fields[name] = [[seat, raw] for seat, raw in sorted(fields[name].items())]
        for name in ("spellings", "dealt", "carded", "told"):
            fields[name] = list(fields[name])
        return fields


def read_backup(fields: Mapping[str, Any]) -> Backup:
    """Read what `Backup.to_map` wrote."""
    found = dict(fields)
    for name in ("pieces", "receipts"):
        found[name] = dict(found[name])
    for name in ("spellings", "dealt", "carded", "told"):
        found[name] = tuple(found[name])
    return Backup(**found)


# --- dealing and sealing ---------------------------------------------------------------


def make_label(full_name: str, hint: str = "", card: Card | None = None) -> Label:
    """Return what guardians will see of the vault once somebody claims it."""
    if card is None:
        return Label(composed(full_name), hint)
    return Label(composed(full_name), hint, card.key, card.root, len(card.chunks))


def policy_for(roster: Roster, *, waiting: int | None = None) -> Policy:
    """Return the federation's usual policy, with another waiting period in ms if given."""
    policy = usual_policy(roster.bounds, len(roster.guardians))
    return policy if waiting is None else replace(policy, waiting=waiting)


def deal(
    codec: Codec,
    roster: Roster,
    owner: SigningKey,
    label: Label,
    policy: Policy,
    *,
    now: int,
    draws: Draws,
    after: Verified | None = None,
    above: int = 0,
) -> Dealt:
    """Deal a vault anew, or a new vault when there is no deal it comes `after`.

    `above` is the highest number of a deal of it that guardians are known to hold.
    """
    number = max(after.body["number"] if after else 0, above) + 1
    dealt = vault.make_deal(
        codec,
        owner,
        roster,
        label,
        policy,
        first=after.body["first"] if after else owner.public,
        salt=after.body["salt"] if after else draws.draw(SALT_BYTES),
        number=number,
        now=now,
        entropy=draws.draw(vault.deal_entropy(roster.threshold)),
    )
    # What is not right here would be refused by every guardian: better to find it at once.
    vault.check_deal(dealt.deal, codec.federation, roster)
    return dealt


def pepper_of(dealt: Dealt) -> bytes:
    """Return the 16 bytes that salt the names of a deal."""
    return next(iter(dealt.pieces.values())).pepper


def stretch_names(
    spellings: Sequence[str], passphrase: str | None, pepper: bytes, cost: sealing.Cost
) -> list[bytes]:
    """Stretch each spelling: 0.4 s and 256 MiB apiece at the cost used in earnest."""
    return [
        sealing.stretch(sealing.name_password(spelling, passphrase), pepper, cost)
        for spelling in spellings
    ]


def seal(
    codec: Codec,
    roster: Roster,
    owner: SigningKey,
    dealt: Dealt,
    payload: Payload,
    stretched: Sequence[bytes],
    *,
    title: str,
    passphrase: bool,
    now: int,
    draws: Draws,
    after: Backup | None = None,
) -> tuple[Backup, vault.Sealed]:
    """Encrypt a payload under a fresh deal and seal every guardian's piece.

    `stretched` are the payload's spellings, stretched with the deal's pepper. `after` is the
    backup that this one is to replace.
    """
    earlier = codec.read(after.version).body["number"] if after else 0
    name_key = draws.draw(sealing.KEY_BYTES)
    sealed = vault.make_version(
        codec,
        owner,
        dealt.deal,
        dealt.secret,
        payload,
        number=earlier + 1,
        name_key=name_key,
        wraps=_wrap(name_key, stretched, draws),
        passphrase=passphrase,
        salt=draws.draw(32),
        now=now,
    )
    pieces = {}
    for guardian in roster.guardians:
        plain = dealt.pieces[guardian.seat].to_bytes()
        pieces[guardian.seat] = sealing.seal(guardian.sealing, plain, draws.draw(32))
    backup = Backup(
        title=title,
        owner=owner.seed,
        deal=dealt.deal.raw,
        secret=dealt.secret,
        pepper=pepper_of(dealt),
        version=sealed.version.raw,
        spellings=payload.spellings,
        label=dealt.pieces[roster.seats[0]].label,
        pieces=pieces,
        before=_held_before(after),
    )
    return backup, sealed


def seal_again(
    codec: Codec,
    backup: Backup,
    payload: Payload,
    stretched: Sequence[bytes],
    *,
    passphrase: bool,
    now: int,
    draws: Draws,
) -> tuple[Backup, vault.Sealed]:
    """Make the next version under the deal that stands: new content, names or passphrase.

    The name key is drawn anew, so that a spelling taken away opens nothing made later.
    """
    name_key = draws.draw(sealing.KEY_BYTES)
    sealed = vault.make_version(
        codec,
        SigningKey(backup.owner),
        codec.read(backup.deal),
        backup.secret,
        payload,
        number=codec.read(backup.version).body["number"] + 1,
        name_key=name_key,
        wraps=_wrap(name_key, stretched, draws),
        passphrase=passphrase,
        salt=draws.draw(32),
        now=now,
    )
    later = replace(
        backup,
        version=sealed.version.raw,
        spellings=payload.spellings,
        receipts={},
        before=_held_before(backup),
        settled=b"",
        told=(),
    )
    return later, sealed


def check_stretched(codec: Codec, backup: Backup, stretched: bytes) -> None:
    """Raise `WrongSecret` unless a stretched name opens the version that stands."""
    if sealing.unwrap_name_key(codec.read(backup.version).body["wraps"], stretched) is None:
        raise WrongSecret(
            "the passphrase is not the one this backup was made with; nothing was changed"
        )


def _wrap(name_key: bytes, stretched: Sequence[bytes], draws: Draws) -> list[bytes]:
    return [
        sealing.wrap_name_key(name_key, each, draws.draw(sealing.NONCE_BYTES)) for each in stretched
    ]


def _held_before(after: Backup | None) -> int:
    """How many held what a new version replaces: a version never settled replaced nothing."""
    if after is None:
        return 0
    return len(after.receipts) if after.settled else after.before


# --- depositing ------------------------------------------------------------------------


@dataclass(frozen=True)
class Deposit:
    """What goes to one guardian. `parts` are its fragments, one a segment, or empty."""

    deal: bytes
    version: bytes
    box: bytes
    whole: bytes
    parts: tuple[bytes, ...]

    def __repr__(self) -> str:
        return f"Deposit({len(self.box)} + {len(self.whole)} bytes, {len(self.parts)} fragments)"


def deposits(codec: Codec, backup: Backup, segments: Sequence[bytes]) -> dict[int, Deposit]:
    """Return what each guardian that has not yet signed a receipt is to be sent.

    The bytes depend on the backup and its ciphertext alone: a repetition is the same.
    """
    statement, version = codec.read(backup.deal), codec.read(backup.version)
    holders = statement.body["holders"]
    whole = vault.is_whole(version)
    coded: Mapping[int, Sequence[bytes]] = {}
    if not whole:
        per_holder = fragments.code(segments, vault.threshold_of(statement), len(holders))
        coded = dict(zip(holders, per_holder, strict=True))
    return {
        seat: Deposit(
            deal=backup.deal,
            version=backup.version,
            box=b"" if seat in backup.dealt else backup.pieces[seat],
            whole=segments[0] if whole else b"",
            parts=() if whole else tuple(coded[seat]),
        )
        for seat in holders
        if seat not in backup.receipts
    }


def fragment_messages(parts: Sequence[bytes]) -> list[dict[str, Any]]:
    """Return the parts as they travel: number, count, bytes and Merkle path of each."""
    return [
        {"index": index, "count": len(parts), "data": data, "path": fragments.path(parts, index)}
        for index, data in enumerate(parts)
    ]


def take_receipt(codec: Codec, roster: Roster, backup: Backup, seat: int, raw: bytes) -> Backup:
    """Add a guardian's receipt. Raises `FaultyPiece` naming the guardian when it is not good."""
    name = roster.named(seat)
    guardian = roster.at(seat)
    try:
        receipt = codec.verify(raw, "receipt")
    except Exception as error:
        raise FaultyPiece(f"{name} answered with a receipt that is not signed rightly") from error
    statement, version = codec.read(backup.deal), codec.read(backup.version)
    expected = (statement.body["vault"], statement.id, version.id, seat)
    body = receipt.body
    if guardian is None or receipt.by != guardian.identity:
        raise FaultyPiece(f"{name} answered with a receipt signed by somebody else")
    if (body["vault"], body["deal"], body["version"], body["seat"]) != expected:
        raise FaultyPiece(f"{name} signed a receipt for something else than was sent")
    return replace(
        backup,
        receipts={**backup.receipts, seat: raw},
        dealt=tuple(sorted({*backup.dealt, seat})),
    )


def adopt(
    deal: Verified,
    version: Verified,
    secret: bytes,
    pepper: bytes,
    owner: SigningKey,
    payload: Payload,
    *,
    title: str,
    full_name: str,
) -> Backup:
    """Return the backup that another device made, for this one's owner key to deal anew.

    The label never comes back with a release: it is made from the full name.
    """
    return Backup(
        title=title,
        owner=owner.seed,
        deal=deal.raw,
        secret=secret,
        pepper=pepper,
        version=version.raw,
        spellings=payload.spellings,
        label=make_label(full_name).to_bytes(),
        pieces={},
        foreign=True,
    )


def has_card(backup: Backup) -> bool:
    """Whether guardians are to be sent a verification card."""
    return vault.read_label(backup.label).card_root != NOTHING


def settle(codec: Codec, backup: Backup) -> Backup:
    """Sign that the old version may go, if enough guardians hold the new one.

    Enough are all holders, or as many as held the version before; the backup comes back
    unchanged while they are not.
    """
    statement, version = codec.read(backup.deal), codec.read(backup.version)
    everyone = len(statement.body["holders"])
    least = max(policy_of(statement).quorum, vault.threshold_of(statement))
    enough = max(min(backup.before, everyone), least) if backup.before else everyone
    if backup.settled or len(backup.receipts) < enough:
        return backup
    fields = {
        "vault": statement.body["vault"],
        "deal": statement.id,
        "version": version.id,
        "receipts": [raw for _, raw in sorted(backup.receipts.items())],
    }
    settled = codec.sign(SigningKey(backup.owner), "settled", fields)
    return replace(backup, settled=settled.raw)
