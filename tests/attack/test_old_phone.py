"""The old phone in a thief's hands, owner key and all; and one guardian that alters its piece."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from protocol import sealing, vault
from protocol.cases import RELEASED
from protocol.contract import PutRow, Table
from protocol.custody import DEALS_MAX, REPLACED_DEAL_STAYS
from protocol.errors import HoldfastError, Refused
from protocol.limits import DAY
from protocol.names import normalise
from protocol.policy import OVERRIDE_FALLS_AFTER
from protocol.sealing import Cost
from protocol.vault import Payload, Piece
from protocol.wallet import backing_up, owning
from protocol.wallet.drawing import Draws
from protocol.wallet.recovering import Recovered
from simulations.hosts.bare import Bare
from simulations.hosts.member import Claimant, Member

NAME = "Rosa Keller"
SECRET = b"the key to everything"
YEARS = 100 * 365 * DAY


@pytest.fixture
def world() -> Bare:
    bare = Bare(waiting=DAY)
    bare.mesh()
    bare.run()
    return bare


@pytest.fixture
def thief(world: Bare) -> Member:
    """The phone on which Rosa made her backup, and which she has no more."""
    rosa = Member(world, NAME, secret=SECRET)
    rosa.back_up()
    return rosa


def approve(world: Bare, device: Claimant, seats: tuple[int, ...], **more: Any) -> None:
    for seat in seats:
        world.tell(seat, "approve", code=device.code, how="in person", **more)


def claimed(thief: Member) -> Claimant:
    """Rosa's new device, its claim opened at the first guardian."""
    device = thief.claim([0])
    thief.world.tell(0, "open", code=device.code)
    return device


def write(thief: Member, secret: bytes) -> None:
    """The next version under the deal that stands, with a content of the thief's choice."""
    assert thief.backup is not None
    world = thief.world
    spellings = (normalise(NAME),)
    stretched = backing_up.stretch_names(spellings, None, thief.backup.pepper, Cost.TOY)
    thief.backup, thief.sealed = backing_up.seal_again(
        world.codec, thief.backup, Payload(thief.owner.seed, "raw", secret, "", spellings),
        stretched, passphrase=False, now=world.now, draws=Draws(world.rng.randbytes(32)),
    )  # fmt: skip


def everything(device: Claimant) -> list[Recovered]:
    """What every version that came with the releases holds, the newest first."""
    found = []
    from protocol.wallet import recovering

    for candidate in device.recovery().candidates():
        stretched = backing_up.stretch_names((normalise(NAME),), None, candidate.pepper, Cost.TOY)
        key = recovering.unlock_name(candidate, stretched[0])
        if key is not None:
            found.append(recovering.decrypt(candidate, key, [candidate.whole]))
    return found


def true(found: list[Recovered]) -> Recovered:
    (one,) = (each for each in found if each.payload.secret == SECRET)
    return one


# --- the thief writes -----------------------------------------------------------------


def test_junk_as_a_new_version_that_is_not_settled(world: Bare, thief: Member) -> None:
    """Versions of the thief's that nobody settled leave the true one where it is."""
    for junk in (b"junk", b"more junk"):
        write(thief, junk)
        assert set(thief.deposit().values()) == {"held"}
    device = claimed(thief)
    approve(world, device, (0, 1, 2))
    world.pass_time(2 * DAY)

    assert [each.payload.secret for each in everything(device)] == [b"more junk", b"junk", SECRET]


def test_junk_settled_before_the_claim_buries_nothing_for_thirty_days(
    world: Bare, thief: Member
) -> None:
    """What the owner key replaced comes back beside what replaced it, however often it did."""
    for junk in (b"junk", b"more junk", b"still more"):
        write(thief, junk)
        assert set(thief.deposit().values()) == {"held"}
        assert set(thief.settle()) == {"settled"}
        world.pass_time(2 * DAY)
    device = claimed(thief)
    approve(world, device, (0, 1, 2))
    world.pass_time(2 * DAY)

    assert true(everything(device))


def test_what_was_replaced_goes_after_thirty_days(world: Bare, thief: Member) -> None:
    """A replaced version does not stay for ever, nor do replaced deals."""
    write(thief, b"new")
    thief.deposit()
    thief.settle()
    thief.prepare(again=True)
    thief.deposit()
    thief.settle()

    world.pass_time(REPLACED_DEAL_STAYS + DAY)

    custody = world.hosts[0].guardian.custody
    (only,) = custody.deals(thief.vault)
    assert len(custody.versions(only[0].id)) == 1


def test_a_deal_that_was_replaced_can_still_be_voted_for(world: Bare, thief: Member) -> None:
    """Guardians who are told so by the member choose the backup that stood before the theft."""
    old = thief.backup
    thief.secret = b"junk"
    thief.prepare(again=True)
    thief.deposit()
    assert set(thief.settle()) == {"settled"}
    device = claimed(thief)
    shown = world.tell(0, "show", case=device.code)["vaults"]
    assert [view["replaced"] > 0 for view in shown] == [False, True]

    approve(world, device, (0, 1, 2), vault=str(shown[1]["number"]))
    world.pass_time(2 * DAY)

    assert old is not None
    assert true(everything(device)).deal.raw == old.deal


def test_a_number_that_nobody_can_exceed(world: Bare, thief: Member) -> None:
    """A deal numbered so high that no later one could follow is refused."""
    held = thief.backup
    assert held is not None
    body = world.codec.read(held.deal).body
    dealt = backing_up.deal(
        world.codec, world.roster, thief.owner, backing_up.make_label(NAME),
        backing_up.policy_for(world.roster), now=world.now, draws=Draws(bytes(32)),
        after=world.codec.read(held.deal), above=2**53 - 2,
    )  # fmt: skip
    assert dealt.deal.body["number"] == 2**53 - 1 > body["number"]
    payload = Payload(thief.owner.seed, "raw", b"junk", "", (normalise(NAME),))
    stretched = backing_up.stretch_names((normalise(NAME),), None, bytes(16), Cost.TOY)
    thief.backup, thief.sealed = backing_up.seal(
        world.codec, world.roster, thief.owner, dealt, payload, stretched, title="",
        passphrase=False, now=world.now, draws=Draws(bytes(31) + b"x"), after=held,
    )  # fmt: skip

    assert all("number" in answer for answer in thief.deposit().values())


def test_a_policy_of_a_hundred_years(world: Bare, thief: Member) -> None:
    """No deal makes its member wait longer than the roster allows."""
    held = thief.backup
    assert held is not None
    policy = replace(backing_up.policy_for(world.roster), waiting=YEARS)
    with pytest.raises(Refused, match="waiting period"):
        backing_up.deal(
            world.codec, world.roster, thief.owner, backing_up.make_label(NAME), policy,
            now=world.now, draws=Draws(bytes(32)), after=world.codec.read(held.deal),
        )  # fmt: skip
    # Not the thief's wallet has to refuse it, but every guardian.
    dealt = vault.make_deal(
        world.codec, thief.owner, world.roster, backing_up.make_label(NAME), policy,
        first=world.codec.read(held.deal).body["first"],
        salt=world.codec.read(held.deal).body["salt"],
        number=2, now=world.now, entropy=world.rng.randbytes(vault.deal_entropy(3)),
    )  # fmt: skip
    payload = Payload(thief.owner.seed, "raw", b"junk", "", (normalise(NAME),))
    stretched = backing_up.stretch_names((normalise(NAME),), None, bytes(16), Cost.TOY)
    thief.backup, thief.sealed = backing_up.seal(
        world.codec, world.roster, thief.owner, dealt, payload, stretched, title="",
        passphrase=False, now=world.now, draws=Draws(bytes(32)), after=held,
    )  # fmt: skip
    answers = thief.deposit()
    assert len(answers) == 5
    assert all("36500 days" in answer for answer in answers.values())

    device = claimed(thief)
    approve(world, device, (0, 1, 2))
    world.pass_time(2 * DAY)
    assert true(everything(device))


def test_an_update_in_the_middle_of_a_case(world: Bare, thief: Member) -> None:
    """From the first approval on neither a version nor a deal of the old key is released."""
    device = claimed(thief)
    approve(world, device, (0,))
    write(thief, b"junk")
    thief.deposit()
    assert all("under way" in word for word in thief.settle())
    thief.secret = b"junk"
    thief.prepare(again=True)
    thief.deposit()
    assert all("under way" in word for word in thief.settle())

    approve(world, device, (1, 2))
    world.pass_time(2 * DAY)

    assert [each.payload.secret for each in everything(device)] == [SECRET]


# --- the thief objects ----------------------------------------------------------------


def test_a_veto_after_every_override(world: Bare, thief: Member) -> None:
    """An override once complete is final: no later veto, at any guardian, stops the release."""
    device = claimed(thief)
    approve(world, device, (0, 1, 2))
    assert thief.veto(device.claim, 0)["kind"] == "reply"
    for seat in (0, 1, 2, 3):
        approve(world, device, (seat,), despite_veto=True)
        for other in range(5):
            thief.veto(device.claim, other)
    world.now += 1000  # a veto with another time is another statement
    for other in range(5):
        thief.veto(device.claim, other)
    world.pass_time(2 * DAY)

    assert true(everything(device))


def test_many_vetoes_block_no_longer_than_sixty_days(world: Bare, thief: Member) -> None:
    """With no more than a quorum to approve, vetoes at every guardian hold it for sixty days."""
    device = claimed(thief)
    approve(world, device, (0, 1, 2))
    for seat in range(5):
        thief.veto(device.claim, seat)
        world.now += 1000
    approve(world, device, (0, 1, 2), despite_veto=True)
    world.pass_time(OVERRIDE_FALLS_AFTER - 2 * DAY)
    assert everything(device) == []

    for _ in range(3):
        for seat in range(5):
            thief.veto(device.claim, seat)
        world.pass_time(2 * DAY)

    assert true(everything(device))


# --- and after it ---------------------------------------------------------------------


def test_after_the_recovery_the_old_key_signs_nothing(world: Bare, thief: Member) -> None:
    """Deposits, settling, vetoes, hand-overs, leaving: all refused; the new device deals anew."""
    old = thief.owner
    device = claimed(thief)
    approve(world, device, (0, 1, 2))
    world.pass_time(2 * DAY)
    recovered = true(everything(device))
    assert device.succeed(recovered, 0)["kind"] == "reply"
    world.run()

    said = [
        owning.seen(world.codec, old, thief.vault, world.now),
        owning.veto(world.codec, old, thief.vault, device.claim.id, "mine", world.now),
        owning.check_in(world.codec, old, thief.vault, world.now),
        owning.hand_over(world.codec, old, thief.vault, old.public, world.now),
        owning.leave(world.codec, old, thief.vault, world.now),
    ]
    for seat in range(5):
        for statement in said:
            kind = "seen" if statement.type == "seen" else "owner"
            answer = world.request(thief.link(seat), kind, raw=statement.raw)
            assert "newer device" in str(answer["sentence"])
    write(thief, b"junk")
    assert all("newer device" in word for word in thief.deposit().values())
    thief.prepare(again=True)
    assert all("newer device" in word for word in thief.deposit().values())

    thief.owner = device.device.signing
    thief.prepare(again=True)
    assert set(thief.deposit().values()) == {"held"}
    assert set(thief.settle()) == {"settled"}


def test_deals_of_the_former_owner_leave_room_for_the_new(world: Bare, thief: Member) -> None:
    """However many deals a thief has made, the recovered device can deal anew at once."""
    for _ in range(DEALS_MAX - 1):
        thief.prepare(again=True)
        thief.deposit()
        thief.settle()
    device = claimed(thief)
    approve(world, device, (0, 1, 2), vault="1")
    world.pass_time(2 * DAY)
    recovered = everything(device)[0]
    assert device.succeed(recovered, 0)["kind"] == "reply"

    thief.owner = device.device.signing
    thief.prepare(again=True)
    assert set(thief.deposit().values()) == {"held"}


def test_a_goodbye_of_the_old_phone_ends_with_it(world: Bare, thief: Member) -> None:
    """A thief who said that the member leaves has not erased the vault of the new owner."""
    goodbye = owning.leave(world.codec, thief.owner, thief.vault, 2**53 - 1)
    for seat in range(5):
        assert world.request(thief.link(seat), "owner", raw=goodbye.raw)["kind"] == "reply"
    device = claimed(thief)
    approve(world, device, (0, 1, 2))
    world.pass_time(2 * DAY)
    assert device.succeed(true(everything(device)), 0)["kind"] == "reply"

    world.pass_time(30 * DAY)

    assert [world.tell(seat, "status")["vaults"] for seat in range(5)] == [1] * 5
    mine = owning.leave(world.codec, device.device.signing, thief.vault, world.now)
    assert world.request(thief.link(0), "owner", raw=mine.raw)["kind"] == "reply"


def test_a_vault_handed_over_by_the_thief_still_comes_back(world: Bare, thief: Member) -> None:
    """Moving the vault to another device of the thief's changes nothing about the recovery."""
    stolen = Claimant(world, "Nobody At All", []).device.signing
    moved = owning.hand_over(world.codec, thief.owner, thief.vault, stolen.public, world.now)
    assert world.request(thief.link(0), "owner", raw=moved.raw)["kind"] == "reply"
    device = claimed(thief)
    approve(world, device, (0, 1, 2))
    world.pass_time(2 * DAY)

    assert device.succeed(true(everything(device)), 0)["kind"] == "reply"
    rows = [host.guardian.custody.row(thief.vault) for host in world.hosts]
    assert {row.owner for row in rows if row} == {device.device.signing.public}
    case = world.hosts[0].guardian.casework.docket.cases[device.claim.id]
    assert case.facts is not None
    assert case.facts.closed == RELEASED


# --- a guardian that alters what it keeps ----------------------------------------------


@pytest.mark.parametrize("part", ["pepper", "label", "share", "ciphertext", "version"])
def test_who_alters_a_part_is_named(world: Bare, thief: Member, part: str) -> None:
    """Whatever one guardian changes in its release, it is named and the key comes back.

    The label leaves no guardian at all: an altered one only costs that guardian its release.
    """
    liar = world.hosts[4]
    casework = liar.guardian.casework
    custody = liar.guardian.custody
    honest = casework.own_piece
    if part == "ciphertext":
        ((deal, _),) = custody.deals(thief.vault)
        ((version, row),) = custody.versions(deal.id)
        bent = replace(row, whole=row.whole[:-1] + bytes((row.whole[-1] ^ 1,)))
        liar.ledger.apply(PutRow(Table.VERSION, deal.id + version.id, bent.to_bytes()))
    elif part == "version":
        ((deal, _),) = custody.deals(thief.vault)
        ((version, row),) = custody.versions(deal.id)
        forged = world.codec.sign(
            liar.keys.identity, "version",
            {key: value for key, value in version.body.items() if key not in ("type", "by")},
        )  # fmt: skip
        bent = replace(row, raw=forged.raw)
        liar.ledger.apply(PutRow(Table.VERSION, deal.id + version.id, bent.to_bytes()))
    else:

        def altered(deal: Any, row: Any) -> Piece | None:
            piece = honest(deal, row)
            assert piece is not None
            value = getattr(piece, part)
            return replace(piece, **{part: bytes((value[0] ^ 1,)) + value[1:]})

        casework.own_piece = altered  # type: ignore[method-assign]
    device = claimed(thief)
    approve(world, device, (0, 1, 2))
    world.pass_time(2 * DAY)

    caught = [one.guardian for one in device.recovery().caught]
    assert caught == ([] if part == "label" else ["eve"])
    assert true(everything(device))


@pytest.mark.parametrize("part", ["pepper", "label", "share"])
def test_an_altered_part_is_refused_at_the_deposit(world: Bare, thief: Member, part: str) -> None:
    """A dealer, or a guardian's disk, that changes one part of one piece is found out there."""
    deal, row = world.hosts[4].guardian.custody.deals(thief.vault)[0]
    piece = world.hosts[4].guardian.custody.piece(row)
    value = getattr(piece, part)
    bent = replace(piece, **{part: bytes((value[0] ^ 1,)) + value[1:]})

    with pytest.raises(HoldfastError):
        vault.check_piece(deal, 4, bent)


# --- two devices ----------------------------------------------------------------------


def test_two_writers_of_one_version(world: Bare, thief: Member) -> None:
    """Two devices write version 2: no key and nonce serve twice, both hear of it, none is lost."""
    first, second = Member(world, NAME), Member(world, NAME)
    for one in (first, second):
        one.owner, one.backup = thief.owner, thief.backup
    used: list[tuple[bytes, bytes]] = []
    honest = sealing.encrypt_payload

    def noting(key: bytes, plain: bytes) -> list[bytes]:
        segments = honest(key, plain)
        used.extend((key, index.to_bytes(2, "big")) for index in range(len(segments)))
        return segments

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "encrypt_payload", noting)
        write(first, b"from the first phone")
        write(second, b"from the second phone")
    assert len(used) == len(set(used)) == 2
    bodies = [world.codec.read(one.backup.version).body for one in (first, second)]  # type: ignore[union-attr]
    assert bodies[0]["number"] == bodies[1]["number"] == 2
    nonces = [wrap[: sealing.NONCE_BYTES] for body in bodies for wrap in body["wraps"]]
    assert len(nonces) == len(set(nonces)) == 2
    assert bodies[0]["salt"] != bodies[1]["salt"]

    told_first = first.deposit([0, 1, 2]) | {}
    told_second = second.deposit()
    told_first |= first.deposit([3, 4])

    assert set(told_second.values()) == {"held", told_second[0]}
    assert "another device has written version 2" in told_second[0]
    assert "nothing was lost" in told_first[3]
    device = claimed(thief)
    approve(world, device, (0, 1, 2))
    world.pass_time(2 * DAY)
    found = {each.payload.secret for each in everything(device)}
    assert found == {b"from the first phone", b"from the second phone", SECRET}
