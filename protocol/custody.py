"""What one guardian keeps: deposits, versions, receipts, and when they may go.

1. Nothing is kept that was not checked against what the owner signed: share, points, label,
   pepper, ciphertext or the root of its fragments. The receipt is signed after the write.
2. A vault's statements count only under its owner key of now.
3. A new version, or deal, replaces the old one by a `settled` statement alone, and while a
   case on the vault is under way nothing replaces anything. A replaced deal stays votable
   for 30 days, and so long the version that stood before others is released beside them.
4. What a guardian knows of names stays here: labels lie sealed, and are found again through
   hashes under a key of this node's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from protocol import names, vault
from protocol.contract import (
    DropFragments,
    Effect,
    Id,
    Ledger,
    Persist,
    PutRow,
    Seat,
    Table,
    Verified,
)
from protocol.encoding import decode_loosely, encode, hash256
from protocol.errors import FaultyPiece, HoldfastError, Locked, NotYet, Refused, WrongSecret
from protocol.federation import Roster
from protocol.keys import SealingKey
from protocol.limits import DAY, HOUR
from protocol.policy import policy_of
from protocol.statements import Codec

VERSIONS_MAX: Final = 3  # of one deal: the settled one and two that are on their way
DEALS_MAX: Final = 4  # of one vault: the same, and one that was replaced
REPLACED_DEAL_STAYS: Final = 30 * DAY  # so that a thief's new deal cannot bury the old one
REPLACED_VERSION_STAYS: Final = 30 * DAY  # the same, for a new version under the old deal
DEALS_SKIPPED_MAX: Final = 1_000  # numbers left out: a thief must not use up those there are
LEAVING_TAKES: Final = 7 * DAY  # time for the owner to notice that someone else said so
REHEARSAL_STAYS: Final = 1 * HOUR
SEEN_EVERY: Final = 1 * HOUR  # how exactly "last seen" is written down
TOKEN_BYTES: Final = 6  # of a keyed hash of a name or trigram; clashes only cost a look
VAULT_PREFIX_BYTES: Final = 10  # of a vault's id in the index
DEALS_READ: Final = 2048  # deals kept in memory, 5 KB each: those of all cases that are open
LIKE_PER_MILLE: Final = 450  # trigram overlap from which two names are shown side by side
LIKE_MAX: Final = 24  # vaults shown for one name, and opened to look
LIKE_ROWS_MAX: Final = 128  # vaults read for one trigram; a name has a dozen


@dataclass(frozen=True)
class Settings:
    """What the operator of this node allows. Counts of vaults; 0 bytes means no bound."""

    admission: str = "invite"  # or "admitted": only members that a guardian has admitted
    vaults_max: int = 1_000_000


@dataclass(frozen=True)
class VaultRow:
    """What is kept of a vault itself. Times in ms, 0 for never."""

    owner: bytes
    first: bytes
    since: int
    seen: int
    deal: Id
    settled: int = 0  # receipts that the settled version had
    leaving: int = 0
    left: int = 0  # the time in the owner's latest word on leaving; older ones are replays

    def to_bytes(self) -> bytes:
        return encode({name: getattr(self, name) for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class DealRow:
    raw: bytes
    box: bytes
    at: int
    beside: bool = False  # came while a case was under way: replaces nothing
    replaced: int = 0

    def to_bytes(self) -> bytes:
        return encode({name: getattr(self, name) for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class VersionRow:
    raw: bytes
    whole: bytes
    at: int
    settled: bool = False
    beside: bool = False  # came while a case was under way: is not released
    replaced: int = 0

    def to_bytes(self) -> bytes:
        return encode({name: getattr(self, name) for name in self.__dataclass_fields__})


@dataclass(frozen=True)
class Deposit:
    """A deposit whose every part was checked; fragments may still have to come."""

    deal: Verified
    version: Verified
    box: bytes
    whole: bytes
    tokens: tuple[bytes, ...]  # by which the vault is found

    def __repr__(self) -> str:
        return "Deposit(…)"


class Custody:
    """The vaults of this node, read through the ledger, changed by effects."""

    def __init__(
        self,
        codec: Codec,
        roster: Roster,
        seat: Seat,
        sealing: Sequence[SealingKey],
        ledger: Ledger,
        settings: Settings,
        index_key: bytes,
    ) -> None:
        self._codec = codec
        self._roster = roster
        self._seat = seat
        self._sealing = tuple(sealing)
        self._ledger = ledger
        self._settings = settings
        self.index_key = index_key
        # By content, so that no change of a row can be missed: each vote looks at its deal.
        self._read_deal = lru_cache(DEALS_READ)(self._parse_deal)
        self.is_admitted: Callable[[bytes], bool] = lambda first: True

    # --- reading ----------------------------------------------------------------------

    def row(self, vault_id: Id) -> VaultRow | None:
        raw = self._ledger.get(Table.VAULT, vault_id)
        return None if raw is None else VaultRow(**decode_loosely(raw, limit=4096))

    def deals(self, vault_id: Id) -> list[tuple[Verified, DealRow]]:
        """The deals held of a vault, by their numbers."""
        rows = [self._read_deal(raw) for _, raw in self._ledger.scan(Table.DEAL, vault_id)]
        return sorted(rows, key=lambda pair: (pair[0].body["number"], pair[0].id))

    def deal(self, vault_id: Id, deal_id: Id) -> tuple[Verified, DealRow] | None:
        raw = self._ledger.get(Table.DEAL, vault_id + deal_id)
        return None if raw is None else self._read_deal(raw)

    def _parse_deal(self, raw: bytes) -> tuple[Verified, DealRow]:
        row = DealRow(**decode_loosely(raw, limit=32 * 1024))
        return self._codec.read(row.raw), row

    def versions(self, deal_id: Id) -> list[tuple[Verified, VersionRow]]:
        """The versions held of a deal, oldest first."""
        rows = []
        for _, raw in self._ledger.scan(Table.VERSION, deal_id):
            row = VersionRow(**decode_loosely(raw, limit=32 * 1024))
            rows.append((self._codec.read(row.raw), row))
        return sorted(rows, key=lambda pair: (pair[0].body["number"], pair[0].id))

    def piece(self, row: DealRow) -> vault.Piece:
        """Open our own piece of a deal. Raises `Locked` without the keys."""
        if not self._sealing:
            raise Locked(
                "this node is locked and cannot open what it keeps",
                hint="unlock it: holdfast guardian unlock",
            )
        for key in self._sealing:
            try:
                return vault.read_piece(key.open(row.box))
            except (WrongSecret, HoldfastError):
                continue
        raise FaultyPiece("a piece cannot be opened with the sealing key of this guardian")

    def label(self, row: DealRow) -> vault.Label:
        return vault.read_label(self.piece(row).label)

    # --- names ------------------------------------------------------------------------

    def _token(self, text: str) -> bytes:
        return hash256("hf/index", self.index_key, text.encode())[:TOKEN_BYTES]

    def _tokens(self, name: str) -> list[bytes]:
        normal = names.normalise(name)
        return [self._token(" " + normal), *(self._token(tri) for tri in names.trigrams(normal))]

    def like(self, name: str) -> list[tuple[int, Id, vault.Label, DealRow]]:
        """Vaults under a name or similar ones: likeness per mille, best first."""
        normal = names.normalise(name)
        found = []
        for prefix in self._sharing(self._tokens(name)):
            found.extend(self._alike(normal, prefix))
        found.sort(key=lambda match: (-match[0], match[1]))
        return found

    def _sharing(self, tokens: Sequence[bytes]) -> list[bytes]:
        """The vaults that share most tokens with a name, as many as may be looked into.

        Of a token that very many vaults have, only the beginning of the list is read: it
        tells little. Whoever is found by the whole name, or by rarer tokens, comes first.
        """
        counts: dict[bytes, int] = {}
        telling: dict[bytes, int] = {}
        least = -(-LIKE_PER_MILLE * len(tokens) // 2000)
        for token in tokens:
            rows = islice(self._ledger.scan(Table.LABEL, token), LIKE_ROWS_MAX)
            vaults = [key[TOKEN_BYTES:] for key, _ in rows]
            is_common = len(vaults) == LIKE_ROWS_MAX
            if is_common:
                least = 0  # a count that is not whole excludes nobody
            tells = len(tokens) if token == tokens[0] else not is_common
            for prefix in vaults:
                counts[prefix] = counts.get(prefix, 0) + 1
                telling[prefix] = telling.get(prefix, 0) + tells
        shared = [prefix for prefix in counts if counts[prefix] >= least]
        shared.sort(key=lambda prefix: (-telling[prefix], -counts[prefix], prefix))
        return shared[:LIKE_MAX]

    def _alike(self, normal: str, prefix: bytes) -> list[tuple[int, Id, vault.Label, DealRow]]:
        matches = []
        for vault_id, raw in self._ledger.scan(Table.VAULT, prefix):
            row = VaultRow(**decode_loosely(raw, limit=4096))
            held = self._ledger.get(Table.DEAL, vault_id + row.deal)
            if held is None:
                continue
            deal = DealRow(**decode_loosely(held, limit=32 * 1024))
            try:
                label = self.label(deal)
            except FaultyPiece:
                continue  # one damaged row must not hide the vaults of others
            likeness = names.similarity(names.normalise(label.name), normal)
            if likeness >= LIKE_PER_MILLE:
                matches.append((likeness, vault_id, label, deal))
        return matches

    # --- deposits ---------------------------------------------------------------------

    def check_deposit(
        self,
        deal_raw: bytes,
        version_raw: bytes,
        box: bytes,
        whole: bytes,
        examined: vault.Examined | None = None,
    ) -> Deposit:
        """Check a deposit wholly; raises what the wallet is to be told. Changes nothing."""
        if not self._ledger.has_room():
            raise NotYet(
                "the disk of this guardian is nearly full, and the rest is kept for votes",
                hint="ask the guardian to make room, or go on with the others",
            )
        if examined is None or (examined.deal.raw, examined.version.raw) != (deal_raw, version_raw):
            examined = None
            deal = self._codec.verify(deal_raw, "deal")
            version = self._codec.verify(version_raw, "version")
        else:
            deal, version = examined.deal, examined.version
        known = self.deal(deal.body["vault"], deal.id)
        if known is None:
            is_examined = examined is not None
            vault.check_deal(deal, self._codec.federation, self._roster, examined=is_examined)
            self._check_new(deal)
        else:
            self._check_owner(deal)
            box = box or known[1].box
        piece = self.piece(DealRow(deal.raw, box, 0))
        label = vault.check_piece(deal, self._seat, piece)
        tokens = tuple(self._tokens(label.name))
        vault.check_version(version, deal, whole)
        self._check_number(deal, version)
        return Deposit(deal, version, box, whole, tokens)

    def _check_owner(self, deal: Verified) -> None:
        row = self.row(deal.body["vault"])
        if row is not None and deal.by != row.owner:
            raise Refused(
                "this backup is signed with a key that no longer owns the vault; "
                "a newer device does"
            )

    def _check_new(self, deal: Verified) -> None:
        row = self.row(deal.body["vault"])
        if policy_of(deal).rehearsal and self._roster.by_identity(deal.by) is None:
            raise Refused("only a guardian of this federation may rehearse")
        if row is None:
            self._check_admission(deal)
            return
        self._check_owner(deal)
        deals = self.deals(deal.body["vault"])
        newest = max(held.body["number"] for held, _ in deals)
        if deal.body["number"] <= newest:
            raise Refused(
                f"another device has dealt number {newest} of this vault already, "
                f"so number {deal.body['number']} is refused; nothing was lost",
                hint="look at both devices and back up again from the one you keep",
            )
        if deal.body["number"] > newest + DEALS_SKIPPED_MAX:
            raise Refused(
                f"a deal with the number {deal.body['number']} cannot follow number {newest}",
            )
        # Those of a former owner go by themselves; until then they must not shut the new one out.
        mine = sum(held.by == deal.by for held, _ in deals)
        if mine >= DEALS_MAX:
            raise Refused(
                f"{mine} deals of this vault are kept already and none is settled",
                hint="wait until more guardians can be reached and run holdfast wallet resume",
            )

    def _check_admission(self, deal: Verified) -> None:
        if deal.by != deal.body["first"]:
            raise Refused("the first deal of a vault must be signed with its first owner key")
        if self._ledger.count(Table.VAULT) >= self._settings.vaults_max:
            raise Refused(
                f"this guardian keeps {self._settings.vaults_max} vaults and takes no more",
                hint="ask the guardian to make room",
            )
        by_admission = self._settings.admission == "admitted" and not policy_of(deal).rehearsal
        if by_admission and not self.is_admitted(deal.body["first"]):
            raise Refused(
                "this federation admits its members one by one; your number is "
                f"{member_number(deal.body['first'])}",
                hint="read it to a guardian, who runs holdfast guardian admit",
            )

    def _check_number(self, deal: Verified, version: Verified) -> None:
        held = self.versions(deal.id)
        if any(other.id == version.id for other, _ in held):
            return
        newest = max((other.body["number"] for other, _ in held), default=0)
        if version.body["number"] <= newest:
            raise Refused(
                f"another device has written version {newest} of this vault already, "
                f"so version {version.body['number']} is refused; nothing was lost",
                hint="look at both devices and back up again from the one you keep",
            )
        standing = sum(not row.replaced for _, row in held)
        if standing >= VERSIONS_MAX:
            raise Refused(
                f"{standing} versions of this vault are kept already and the newest is not settled",
                hint="run holdfast wallet resume when more guardians can be reached",
            )

    def keep(self, deposit: Deposit, frozen: bool, now: int, out: list[Effect]) -> None:
        """Write a checked deposit down. `frozen`: a case on the vault is under way."""
        deal, version = deposit.deal, deposit.version
        vault_id = deal.body["vault"]
        row = self.row(vault_id)
        if row is None:
            row = VaultRow(deal.by, deal.body["first"], now, now, deal.id)
            out.append(_put(Table.VAULT, vault_id, row.to_bytes()))
        if self.deal(vault_id, deal.id) is None:
            kept = DealRow(deal.raw, deposit.box, now, beside=frozen)
            out.append(_put(Table.DEAL, vault_id + deal.id, kept.to_bytes()))
            if not policy_of(deal).rehearsal:
                self._index(deposit.tokens, vault_id, out)
        if self._ledger.get(Table.VERSION, deal.id + version.id) is None:
            held = VersionRow(version.raw, deposit.whole, now, beside=frozen)
            out.append(_put(Table.VERSION, deal.id + version.id, held.to_bytes()))

    def _index(self, tokens: Sequence[bytes], vault_id: Id, out: list[Effect]) -> None:
        out.extend(
            _put(Table.LABEL, token + vault_id[:VAULT_PREFIX_BYTES], b"") for token in tokens
        )

    def receipt(self, deposit: Deposit, now: int) -> dict[str, Any]:
        """The fields of the receipt for a deposit."""
        return {
            "vault": deposit.deal.body["vault"],
            "deal": deposit.deal.id,
            "version": deposit.version.id,
            "seat": self._seat,
            "at": now,
        }

    # --- what the owner says ----------------------------------------------------------

    def owned(self, statement: Verified) -> VaultRow:
        """The vault that a statement of its owner is about; refuses anyone else's."""
        row = self.row(statement.body["vault"])
        if row is None:
            raise Refused("this guardian keeps nothing of that vault")
        if statement.by != row.owner:
            raise Refused(
                "this is signed with a key that does not own the vault, or no longer; "
                "a newer device does"
            )
        return row

    def settle(
        self, statement: Verified, frozen: bool, now: int, out: list[Effect]
    ) -> list[tuple[Id, Id]]:
        """Let the old versions go, once enough guardians hold the new one.

        Returns the deals replaced: vault and deal, to be dropped when their time is over.
        """
        row = self.owned(statement)
        body = statement.body
        vault_id = body["vault"]
        pair = self.deal(vault_id, body["deal"])
        version_raw = self._ledger.get(Table.VERSION, body["deal"] + body["version"])
        if pair is None or version_raw is None:
            raise Refused("this guardian has not received the version that is to be settled")
        count = self._count_receipts(statement, pair[0])
        needed = min(len(pair[0].body["holders"]), row.settled or len(pair[0].body["holders"]))
        if count < needed:
            raise Refused(f"{count} guardians hold the new version; {needed} must, first")
        self._check_not_older(row, pair[0])
        if frozen or pair[1].beside:
            raise Refused(
                "a claim on this vault is under way, and until it ends nothing is replaced"
            )
        version = VersionRow(**decode_loosely(version_raw, limit=32 * 1024))
        key = body["deal"] + body["version"]
        out.append(_put(Table.VERSION, key, replace(version, settled=True).to_bytes()))
        new = replace(row, deal=body["deal"], settled=count, seen=now)
        out.append(_put(Table.VAULT, vault_id, new.to_bytes()))
        self._replace_older_versions(body["deal"], body["version"], now, out)
        return list(self._replace_older_deals(vault_id, pair[0], now, out))

    def _check_not_older(self, row: VaultRow, deal: Verified) -> None:
        # Anyone may send an old statement of the owner's once more.
        current = self.deal(deal.body["vault"], row.deal) if row.settled else None
        if current is not None and deal.body["number"] < current[0].body["number"]:
            raise Refused(
                f"deal {current[0].body['number']} of this vault has taken the place of "
                f"deal {deal.body['number']}; nothing was changed"
            )

    def _replace_older_deals(
        self, vault_id: Id, new: Verified, now: int, out: list[Effect]
    ) -> Iterator[tuple[Id, Id]]:
        for deal, row in self.deals(vault_id):
            if deal.body["number"] < new.body["number"] and not row.replaced:
                gone = replace(row, replaced=now)
                out.append(_put(Table.DEAL, vault_id + deal.id, gone.to_bytes()))
                yield vault_id, deal.id

    def _count_receipts(self, statement: Verified, deal: Verified) -> int:
        seats = {}
        for raw in statement.body["receipts"]:
            receipt = self._codec.verify(raw, "receipt")
            guardian = self._roster.by_identity(receipt.by)
            same = all(receipt.body[key] == statement.body[key] for key in ("deal", "version"))
            if guardian is not None and same and guardian.seat in deal.body["holders"]:
                seats[guardian.seat] = True
        return len(seats)

    def _replace_older_versions(self, deal_id: Id, keep: Id, now: int, out: list[Effect]) -> None:
        """Let older versions go, but for one: the settled one that others replaced first.

        Whoever holds the owner key can write a new one every day, and still not bury it.
        """
        held = self.versions(deal_id)
        number = next(v.body["number"] for v, _ in held if v.id == keep)
        older = [pair for pair in held if pair[0].body["number"] < number]
        first = next((v.id for v, row in older if row.replaced), None)
        first = first or next((v.id for v, row in reversed(older) if row.settled), None)
        for version, row in older:
            if version.id != first:
                self._drop_version(deal_id, version, out)
            elif not row.replaced:
                kept = replace(row, replaced=now)
                out.append(_put(Table.VERSION, deal_id + version.id, kept.to_bytes()))

    def replaced_version(self, deal_id: Id) -> Id | None:
        """The version of a deal that was replaced and is still kept."""
        return next((v.id for v, row in self.versions(deal_id) if row.replaced), None)

    def drop_version(self, deal_id: Id, version_id: Id, out: list[Effect]) -> None:
        for version, _ in self.versions(deal_id):
            if version.id == version_id:
                self._drop_version(deal_id, version, out)

    def releasable(self, deal_id: Id) -> list[tuple[Verified, VersionRow]]:
        """The versions that a release holds, at most `VERSIONS_MAX`, oldest first.

        What came after a case's first approval may be a thief's and is left out. Where there
        are more than fit, the settled ones go before those that were only deposited.
        """
        held = self.versions(deal_id)
        standing = [pair for pair in held if not pair[1].beside] or held
        sure = [pair for pair in standing if pair[1].settled][-VERSIONS_MAX:]
        unsure = [pair for pair in standing if not pair[1].settled]
        room = VERSIONS_MAX - len(sure)
        chosen = sure + (unsure[-room:] if room else [])
        return sorted(chosen, key=lambda pair: (pair[0].body["number"], pair[0].id))

    def _drop_version(self, deal_id: Id, version: Verified, out: list[Effect]) -> None:
        out.append(_put(Table.VERSION, deal_id + version.id, None))
        if not vault.is_whole(version):
            out.append(Persist(DropFragments(version.id)))

    def seen(self, row: VaultRow, vault_id: Id, now: int, out: list[Effect]) -> None:
        """Note that the owner's wallet was on."""
        if now - row.seen >= SEEN_EVERY:
            out.append(_put(Table.VAULT, vault_id, replace(row, seen=now).to_bytes()))

    def hand_over(self, vault_id: Id, row: VaultRow, owner: bytes, out: list[Effect]) -> None:
        # What the former owner said about leaving ends with that key.
        new = replace(row, owner=owner, leaving=0, left=0)
        out.append(_put(Table.VAULT, vault_id, new.to_bytes()))

    def leave(self, statement: Verified, row: VaultRow, now: int, out: list[Effect]) -> None:
        vault_id, stay = statement.body["vault"], statement.body["stay"]
        if statement.body["at"] <= row.left:
            raise Refused("the owner has said something newer about leaving since")
        leaving = 0 if stay else (row.leaving or now + LEAVING_TAKES)
        out.append(
            _put(
                Table.VAULT,
                vault_id,
                replace(row, leaving=leaving, left=statement.body["at"]).to_bytes(),
            )
        )

    # --- what goes --------------------------------------------------------------------

    def erase(self, vault_id: Id, out: list[Effect]) -> None:
        """Erase everything of a vault but its row in the index of owners."""
        for deal, row in self.deals(vault_id):
            self._drop_deal(vault_id, deal, row, out)
        out.append(_put(Table.VAULT, vault_id, None))

    def drop_deal(self, vault_id: Id, deal: Verified, row: DealRow, out: list[Effect]) -> None:
        self._drop_deal(vault_id, deal, row, out)

    def _drop_deal(self, vault_id: Id, deal: Verified, row: DealRow, out: list[Effect]) -> None:
        for version, _ in self.versions(deal.id):
            self._drop_version(deal.id, version, out)
        if not policy_of(deal).rehearsal and self._sealing:
            label = self.label(row)
            others = [
                self.label(other) for held, other in self.deals(vault_id) if held.id != deal.id
            ]
            if all(other.name != label.name for other in others):
                out.extend(
                    _put(Table.LABEL, token + vault_id[:VAULT_PREFIX_BYTES], None)
                    for token in self._tokens(label.name)
                )
            if label.card_count:
                out.append(Persist(DropFragments(label.card_root)))
        out.append(_put(Table.DEAL, vault_id + deal.id, None))

    def unfreeze(self, vault_id: Id, out: list[Effect]) -> None:
        """A case ended without a release: what was kept beside counts as any deposit."""
        for deal, row in self.deals(vault_id):
            if row.beside:
                kept = replace(row, beside=False)
                out.append(_put(Table.DEAL, vault_id + deal.id, kept.to_bytes()))
            for version, held in self.versions(deal.id):
                if held.beside:
                    raw = replace(held, beside=False).to_bytes()
                    out.append(_put(Table.VERSION, deal.id + version.id, raw))

    def drop_beside(self, vault_id: Id, out: list[Effect]) -> None:
        """The vault has a new owner: what the former one deposited meanwhile goes."""
        for deal, row in self.deals(vault_id):
            if row.beside:
                self._drop_deal(vault_id, deal, row, out)
                continue
            for version, held in self.versions(deal.id):
                if held.beside:
                    self._drop_version(deal.id, version, out)


def member_number(first: bytes) -> str:
    """Ten digits by which a guardian admits a member."""
    return str(int.from_bytes(hash256("hf/member", first)[:8], "big") % 10**10).zfill(10)


def _put(table: Table, key: bytes, value: bytes | None) -> Persist:
    return Persist(PutRow(table, key, value))
