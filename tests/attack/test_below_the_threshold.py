"""What an attacker with one guardian too few can work out, and what not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node.keystore import SEEDS_BYTES, Keys, create, open_keystore
from node.store import SqliteStore
from protocol import sealing, sharing, vault
from protocol.contract import PutRow, Table
from protocol.custody import Custody, Settings
from protocol.errors import HoldfastError, NotEnough, WrongSecret
from protocol.keys import SealingKey
from protocol.names import normalise
from protocol.sealing import Cost
from protocol.wallet import backing_up, recovering
from simulations.hosts.bare import Bare
from simulations.hosts.member import Member

PASSPHRASE = b"five random words are enough"
NAME = "Rosa Keller"


def _seize(folder: Path, world: Bare, seat: int) -> tuple[Keys, SqliteStore]:
    """A guardian's folder as a thief carries it off, opened with its passphrase."""
    keys = world.hosts[seat].keys
    home = folder / world.hosts[seat].name
    seeds = keys.identity.seed + keys.sealing[0].seed + os.urandom(SEEDS_BYTES - 64)
    create(home, PASSPHRASE, seeds, cost=Cost.TOY)
    store = SqliteStore(str(home / "guardian.db"))

    def fill(transaction: SqliteStore) -> None:
        for table in Table:
            for key, value in world.hosts[seat].ledger.scan(table):
                transaction.apply(PutRow(table, key, value))

    store.transact(fill)
    return open_keystore(home, PASSPHRASE), store


def _interpolate(points: dict[int, int], at: int) -> int:
    """The value at `at` of the one polynomial through these points, mod the group order."""
    total = 0
    for x, y in points.items():
        for other in points:
            if other != x:
                y = y * (at - other) * pow(x - other, -1, sharing.L) % sharing.L
        total += y
    return total % sharing.L


def test_two_of_three_learn_the_name_and_nothing_of_the_secret(tmp_path: Path) -> None:
    """Complete folders, passphrases and the name give label and shares; the rest stays shut."""
    world = Bare()
    world.mesh()
    rosa = Member(world, NAME)
    rosa.back_up()

    shares: dict[int, bytes] = {}
    for seat in (1, 3):
        keys, store = _seize(tmp_path, world, seat)
        custody = Custody(
            world.codec, world.roster, seat, keys.sealing, store, Settings(), bytes(32)
        )
        deal, row = custody.deals(rosa.vault)[0]
        version, kept = custody.versions(deal.id)[0]
        piece = custody.piece(row)
        # What they have: the member's name, their own shares, the whole ciphertext, and even
        # the name key, since they know the name and hold the pepper.
        assert vault.read_label(piece.label).name == NAME
        shares[seat] = piece.share
        stretched = backing_up.stretch_names([normalise(NAME)], None, piece.pepper, Cost.TOY)[0]
        name_key = sealing.unwrap_name_key(version.body["wraps"], stretched)
        store.close()

    with pytest.raises(NotEnough, match="2 shares are here, and 3 are needed"):
        sharing.combine(vault.threshold_of(deal), shares)

    # Every secret is as likely as any other: through their two points and any claimed secret
    # there is exactly one polynomial of the right degree, and it gives every other guardian
    # a share. (Only the owner's commitments tell which, and they hide it as a public key does.)
    known = {seat + 1: sharing.decode_scalar(share) for seat, share in shares.items()}
    assert name_key is not None
    secret = sharing.decode_scalar(rosa_secret(rosa))
    for claimed in (1, 2, 12345, sharing.L - 1, sharing.scalar_from(os.urandom(64)), secret):
        curve = {0: claimed, **known}
        for x, y in known.items():
            assert _interpolate(curve, x) == y
        completed = {seat: _interpolate(curve, seat + 1) for seat in (0, 1, 2, 3, 4)}
        given = {seat: sharing.encode_scalar(value) for seat, value in completed.items()}
        assert {given[seat] for seat in shares} == set(shares.values())
        assert sharing.combine(3, {seat: given[seat] for seat in (0, 1, 2)}) == claimed
        # Trying one out does not help either: the deal and the ciphertext accept only the true.
        candidate = recovering.Candidate(
            deal, version, kept.whole, piece.pepper, (1, 3), {s: given[s] for s in (0, 1, 3)}
        )
        if claimed != secret:
            with pytest.raises(HoldfastError):
                recovering.decrypt(candidate, name_key, [kept.whole])
            key = sealing.payload_key(
                name_key, sharing.encode_scalar(claimed), rosa.vault, version.body["salt"]
            )
            with pytest.raises(WrongSecret):
                sealing.decrypt_payload(key, [kept.whole])
        else:
            found = recovering.decrypt(candidate, name_key, [kept.whole])
            assert found.payload.secret == rosa.secret


def rosa_secret(member: Member) -> bytes:
    assert member.backup is not None
    return member.backup.secret


def test_the_others_pieces_and_releases_stay_sealed(tmp_path: Path) -> None:
    """With two guardians' keys neither another's piece nor any release can be opened."""
    world = Bare()
    world.mesh()
    rosa = Member(world, NAME)
    rosa.back_up()
    device = rosa.claim([0])
    for seat in (0, 1, 2):
        world.tell(seat, "open", code=device.code) if seat == 0 else None
        world.tell(seat, "approve", code=device.code, how="in person")
    assert device.open() is not None
    seized: list[SealingKey] = [key for seat in (1, 3) for key in world.hosts[seat].keys.sealing]

    boxes = [
        row.box
        for seat in (0, 2, 4)
        for _, row in world.hosts[seat].guardian.custody.deals(rosa.vault)
    ]
    case = world.hosts[1].guardian.casework.docket.cases[device.claim.id]
    boxes += [release.body["box"] for release in case.releases.values()]

    assert len(boxes) == 3 + 5
    for key in seized:
        for box in boxes:
            with pytest.raises(WrongSecret):
                key.open(box)


def test_without_the_name_a_threshold_of_shares_does_not_open_it() -> None:
    """Three releases in a stranger's hands give the shared secret, and the name is still a lock."""
    world = Bare()
    world.mesh()
    rosa = Member(world, NAME)
    rosa.back_up()
    device = rosa.claim([0])
    world.tell(0, "open", code=device.code)
    for seat in (0, 1, 2):
        world.tell(seat, "approve", code=device.code, how="in person")
    candidate = device.recovery().candidates()[0]

    assert recovering.combine(candidate) == rosa_secret(rosa)
    for guess in ("Rosa Kelly", "Omar Haddad"):
        stretched = backing_up.stretch_names([normalise(guess)], None, candidate.pepper, Cost.TOY)
        assert recovering.unlock_name(candidate, stretched[0]) is None
