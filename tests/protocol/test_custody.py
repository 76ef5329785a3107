"""Custody: what is checked before a receipt, what replaces what, and what goes when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from protocol import fragments, sealing, sharing, vault
from protocol.contract import Done, LinkDown, Message, PutRow, Receive, Received, Table, Verified
from protocol.custody import DEALS_MAX, VERSIONS_MAX, Settings, member_number
from protocol.encoding import decode, encode
from protocol.keys import SealingKey, SigningKey
from protocol.limits import DAY, HOUR, MINUTE
from protocol.names import normalise
from protocol.policy import Policy
from protocol.statements import NOTHING
from protocol.vault import Label, Payload, Piece
from protocol.wallet import backing_up, owning, recovering
from protocol.wallet.drawing import Draws
from simulations.hosts.bare import Bare
from simulations.hosts.member import Claimant, Member


@pytest.fixture
def world() -> Bare:
    bare = Bare()
    bare.mesh()
    bare.run()
    return bare


def approve(world: Bare, device: Claimant, *seats: int) -> None:
    world.tell(seats[0], "open", code=device.code)
    for seat in seats:
        world.tell(seat, "approve", code=device.code, how="in person")


def body_of(statement: Verified) -> dict[str, Any]:
    return {key: value for key, value in statement.body.items() if key not in ("type", "by")}


class Deal:
    """A deal and a version whose every part can be spoilt before they are sent."""

    def __init__(self, world: Bare, name: str = "Rosa Keller", number: int = 1,
                 owner: SigningKey | None = None, salt: bytes = bytes(16),
                 first: bytes | None = None) -> None:  # fmt: skip
        self.world = world
        self.owner = owner or SigningKey(b"\x31" * 32)
        draws = Draws(world.rng.randbytes(32))
        self.made = vault.make_deal(
            world.codec, self.owner, world.roster, Label(name, "a hint"),
            backing_up.policy_for(world.roster), first=first or self.owner.public, salt=salt,
            number=number, now=world.now,
            entropy=draws.draw(vault.deal_entropy(world.roster.threshold)),
        )  # fmt: skip
        self.draws = draws
        self.version(1)

    @property
    def vault(self) -> bytes:
        vault_id: bytes = self.made.deal.body["vault"]
        return vault_id

    def version(self, number: int, secret: bytes = b"the key") -> Verified:
        key = self.draws.draw(32)
        stretched = sealing.stretch(
            sealing.name_password(normalise("Rosa Keller"), None),
            self.made.pieces[0].pepper, sealing.Cost.TOY,
        )  # fmt: skip
        self.sealed = vault.make_version(
            self.world.codec, self.owner, self.made.deal, self.made.secret,
            Payload(self.owner.seed, "raw", secret), number=number, name_key=key,
            wraps=[sealing.wrap_name_key(key, stretched, self.draws.draw(24))],
            passphrase=False, salt=self.draws.draw(32), now=self.world.now,
        )  # fmt: skip
        return self.sealed.version

    def redeal(self, **changes: Any) -> Verified:
        """The same deal with other fields, signed all the same."""
        fields = {**body_of(self.made.deal), **changes}
        return self.world.codec.sign(self.owner, "deal", fields)

    def reversion(self, deal: Verified | None = None, **changes: Any) -> Verified:
        fields = {**body_of(self.sealed.version), **changes}
        if deal is not None:
            fields["deal"] = deal.id
        return self.world.codec.sign(self.owner, "version", fields)

    def send(self, seat: int = 0, *, piece: Piece | None = None, **parts: Any) -> Mapping[str, Any]:
        """Deposit at a guardian; the answer."""
        world, guardian = self.world, self.world.roster.guardians[seat]
        plain = (piece or self.made.pieces[seat]).to_bytes()
        fields = {
            "deal": self.made.deal.raw,
            "version": self.sealed.version.raw,
            "box": sealing.seal(guardian.sealing, plain, self.draws.draw(32)),
            "whole": self.sealed.whole,
            **parts,
        }
        link = world.wallet(seat)
        return world.request(link, "deposit", **fields)

    def settle(self, receipts: Mapping[int, bytes], seat: int = 0) -> Mapping[str, Any]:
        world = self.world
        statement = settled(world, self, receipts)
        return world.request(world.wallet(seat), "settle", raw=statement.raw)


def settled(world: Bare, deal: Deal, receipts: Mapping[int, bytes]) -> Verified:
    fields = {
        "vault": deal.vault, "deal": deal.made.deal.id, "version": deal.sealed.version.id,
        "receipts": list(receipts.values()),
    }  # fmt: skip
    return world.codec.sign(deal.owner, "settled", fields)


def everywhere(world: Bare, deal: Deal, seats: tuple[int, ...] = (0, 1, 2, 3, 4)) -> dict[int, Any]:
    return {seat: deal.send(seat)["receipt"] for seat in seats}


def keeps_nothing(world: Bare, seat: int = 0) -> bool:
    tables = (Table.VAULT, Table.DEAL, Table.VERSION, Table.LABEL)
    return not any(world.hosts[seat].ledger.count(table) for table in tables)


# --- the checks of a deposit ---------------------------------------------------------------


def test_a_receipt_vouches_for_what_was_deposited(world: Bare) -> None:
    """The receipt names vault, deal, version and seat, and outlives a crash together with them."""
    deal = Deal(world)
    receipt = world.codec.verify(deal.send()["receipt"], "receipt")

    assert receipt.by == world.hosts[0].keys.identity.public
    assert body_of(receipt) == {
        "vault": deal.vault, "deal": deal.made.deal.id, "version": deal.sealed.version.id,
        "seat": 0, "at": world.now,
    }  # fmt: skip
    world.boot(0)
    custody = world.hosts[0].guardian.custody
    pair = custody.deal(deal.vault, deal.made.deal.id)
    assert pair is not None
    assert custody.piece(pair[1]) == deal.made.pieces[0]
    assert [held.whole for _, held in custody.versions(deal.made.deal.id)] == [deal.sealed.whole]


def test_a_repeated_deposit_gets_a_receipt_again(world: Bare) -> None:
    """A lost answer costs nothing: the same deposit is vouched for again, and kept once."""
    deal = Deal(world)
    deal.send()
    again = deal.send(box=b"")

    assert world.codec.verify(again["receipt"]).body["version"] == deal.sealed.version.id
    assert world.hosts[0].ledger.count(Table.VERSION) == 1


def bad_share(deal: Deal) -> Mapping[str, Any]:
    return {"piece": replace(deal.made.pieces[0], share=deal.made.pieces[1].share)}


def zero_share(deal: Deal) -> Mapping[str, Any]:
    return {"piece": replace(deal.made.pieces[0], share=bytes(32))}


def large_share(deal: Deal) -> Mapping[str, Any]:
    share = int.from_bytes(deal.made.pieces[0].share, "little") + sharing.L
    return {"piece": replace(deal.made.pieces[0], share=share.to_bytes(32, "little"))}


def bad_point(deal: Deal) -> Mapping[str, Any]:
    points = list(deal.made.deal.body["points"])
    points[1] = points[2]
    return {"deal": deal.redeal(points=points).raw}


def no_point(deal: Deal) -> Mapping[str, Any]:
    points = [b"\x01" + bytes(31), *deal.made.deal.body["points"][1:]]
    return {"deal": deal.redeal(points=points).raw}


def too_few_points(deal: Deal) -> Mapping[str, Any]:
    return {"deal": deal.redeal(points=deal.made.deal.body["points"][:4]).raw}


def bad_commitment(deal: Deal) -> Mapping[str, Any]:
    commitments = list(deal.made.deal.body["commitments"])
    commitments.reverse()
    return {"deal": deal.redeal(commitments=commitments).raw}


def other_threshold(deal: Deal) -> Mapping[str, Any]:
    return {"deal": deal.redeal(commitments=deal.made.deal.body["commitments"][:2]).raw}


def other_label(deal: Deal) -> Mapping[str, Any]:
    return {"piece": replace(deal.made.pieces[0], label=Label("Someone Else").to_bytes())}


def other_label_salt(deal: Deal) -> Mapping[str, Any]:
    return {"piece": replace(deal.made.pieces[0], label_salt=bytes(32))}


def other_pepper(deal: Deal) -> Mapping[str, Any]:
    return {"piece": replace(deal.made.pieces[0], pepper=bytes(16))}


def sealed_to_another(deal: Deal) -> Mapping[str, Any]:
    other = deal.world.roster.guardians[1]
    plain = deal.made.pieces[0].to_bytes()
    return {"box": sealing.seal(other.sealing, plain, bytes(32))}


def no_box(deal: Deal) -> Mapping[str, Any]:
    return {"box": b""}


def other_ciphertext(deal: Deal) -> Mapping[str, Any]:
    return {"whole": bytes(len(deal.sealed.whole))}


def shorter_ciphertext(deal: Deal) -> Mapping[str, Any]:
    return {"whole": deal.sealed.whole[:-1]}


def other_deals_version(deal: Deal) -> Mapping[str, Any]:
    return {"version": Deal(deal.world, salt=b"\x01" * 16).sealed.version.raw}


def anothers_version(deal: Deal) -> Mapping[str, Any]:
    stranger = SigningKey(b"\x66" * 32)
    body = body_of(deal.sealed.version)
    return {"version": deal.world.codec.sign(stranger, "version", body).raw}


def fragments_of_a_small_one(deal: Deal) -> Mapping[str, Any]:
    return {"version": deal.reversion(roots=[bytes(32)] * 5).raw}


def too_large(deal: Deal) -> Mapping[str, Any]:
    return {"version": deal.reversion(size=2**40, roots=[bytes(32)] * 5, segments=2**22).raw}


def endless_segments(deal: Deal) -> Mapping[str, Any]:
    changed = deal.reversion(size=10_000, roots=[bytes(32)] * 5, segments=2**40)
    return {"version": changed.raw, "whole": b""}


def other_vault(deal: Deal) -> Mapping[str, Any]:
    return {"deal": deal.redeal(vault=bytes(32)).raw}


def holders_twice(deal: Deal) -> Mapping[str, Any]:
    return {"deal": deal.redeal(holders=[0, 0, 1, 2, 3]).raw}


def other_holders(deal: Deal) -> Mapping[str, Any]:
    fewer = deal.redeal(holders=[0, 1, 2, 3], points=deal.made.deal.body["points"][:4])
    return {"deal": fewer.raw}


def not_the_first_owner(deal: Deal) -> Mapping[str, Any]:
    thief = SigningKey(b"\x77" * 32)
    deal2 = deal.world.codec.sign(thief, "deal", body_of(deal.made.deal))
    fields = {**body_of(deal.sealed.version), "deal": deal2.id}
    return {"deal": deal2.raw, "version": deal.world.codec.sign(thief, "version", fields).raw}


def low_quorum(deal: Deal) -> Mapping[str, Any]:
    return {"deal": deal.redeal(policy=Policy(2, DAY, 4).to_map()).raw}


def endless_waiting(deal: Deal) -> Mapping[str, Any]:
    return {"deal": deal.redeal(policy=Policy(3, 91 * DAY, 4).to_map()).raw}


def unreachable_override(deal: Deal) -> Mapping[str, Any]:
    return {"deal": deal.redeal(policy=Policy(3, DAY, 5).to_map()).raw}


def a_rehearsal_by_a_stranger(deal: Deal) -> Mapping[str, Any]:
    return {"deal": deal.redeal(policy=Policy(3, 0, 4, True).to_map()).raw}


def bad_deal_signature(deal: Deal) -> Mapping[str, Any]:
    return {"deal": deal.made.deal.raw[:-64] + bytes(64)}


def no_deal(deal: Deal) -> Mapping[str, Any]:
    return {"deal": deal.sealed.version.raw}


WRONG: list[tuple[Callable[[Deal], Mapping[str, Any]], str]] = [
    (bad_share, "share"),
    (zero_share, "share is zero"),
    (large_share, "too large"),
    (bad_point, ""),
    (no_point, ""),
    (too_few_points, "holders"),
    (bad_commitment, ""),
    (other_threshold, "other guardians"),
    (other_label, "label"),
    (other_label_salt, "label"),
    (other_pepper, "pepper"),
    (sealed_to_another, "cannot be opened"),
    (no_box, "cannot be opened"),
    (other_ciphertext, "ciphertext"),
    (shorter_ciphertext, "ciphertext"),
    (other_deals_version, "another deal"),
    (anothers_version, "another deal"),
    (fragments_of_a_small_one, "fragments"),
    (too_large, "at most"),
    (endless_segments, "fragments"),
    (other_vault, "vault"),
    (holders_twice, "once each"),
    (other_holders, "other guardians"),
    (not_the_first_owner, "first owner key"),
    (low_quorum, "from 3 to 5"),
    (endless_waiting, "waiting period"),
    (unreachable_override, "override"),
    (a_rehearsal_by_a_stranger, "rehearse"),
    (bad_deal_signature, "signature"),
    (no_deal, "a deal was expected"),
]


@pytest.mark.parametrize(("spoil", "word"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_a_spoilt_deposit_is_refused_and_leaves_nothing(
    world: Bare, spoil: Callable[[Deal], Mapping[str, Any]], word: str
) -> None:
    """Each part is held against what the owner signed, and a sentence says which is wrong."""
    deal = Deal(world)

    answer = deal.send(**spoil(deal))

    assert "receipt" not in answer
    assert word in answer["sentence"]
    assert keeps_nothing(world)
    assert deal.send()["receipt"]


def test_a_full_guardian_takes_no_new_vault() -> None:
    """The operator's bound is kept, and those who are in can still back up."""
    world = Bare(settings=Settings(vaults_max=1))
    deal, other = Deal(world), Deal(world, salt=b"\x01" * 16)
    deal.send()

    assert "keeps 1 vaults and takes no more" in other.send()["sentence"]
    deal.version(2)
    assert deal.send()["receipt"]


def test_where_members_are_admitted_one_by_one_a_number_is_asked_for() -> None:
    """The refusal says the number, and typing it anywhere admits the member everywhere."""
    world = Bare(settings=Settings(admission="admitted"))
    world.mesh()
    deal = Deal(world)
    number = member_number(deal.owner.public)

    assert number in deal.send(1)["sentence"]
    assert keeps_nothing(world, 1)
    world.tell(1, "admit", number=f"{number[:5]} {number[5:]}")

    assert all(deal.send(seat)["receipt"] for seat in range(5))
    world.boot(2)
    deal.version(2)
    assert deal.send(2)["receipt"]


# --- numbers and owners --------------------------------------------------------------------


def test_a_lower_number_of_a_deal_is_refused(world: Bare) -> None:
    """Another device that deals under a number already taken is told so."""
    Deal(world, number=2).send()

    for number in (1, 2):
        assert "has dealt number 2" in Deal(world, number=number).send()["sentence"]
    assert Deal(world, number=3).send()["receipt"]


def test_a_lower_number_of_a_version_is_refused(world: Bare) -> None:
    """Versions of one deal only go up."""
    deal = Deal(world)
    deal.version(5)
    deal.send()

    for number in (4, 5):
        deal.version(number)
        assert "has written version 5" in deal.send()["sentence"]


def test_what_is_not_settled_piles_up_to_a_limit(world: Bare) -> None:
    """Only so many deals and versions are on their way at once."""
    deal = Deal(world)
    for number in range(1, VERSIONS_MAX + 1):
        deal.version(number)
        assert deal.send()["receipt"]
    deal.version(VERSIONS_MAX + 1)
    assert "3 versions of this vault are kept already" in deal.send()["sentence"]

    for number in range(2, DEALS_MAX + 1):
        assert Deal(world, number=number).send()["receipt"]
    assert "4 deals of this vault" in Deal(world, number=9).send()["sentence"]


def test_after_a_handover_the_former_owner_adds_nothing(world: Bare) -> None:
    """Neither a new deal nor a new version under the old one."""
    deal = Deal(world)
    everywhere(world, deal)
    heir = SigningKey(b"\x44" * 32)
    over = owning.hand_over(world.codec, deal.owner, deal.vault, heir.public, world.now)
    assert world.request(world.wallet(0), "owner", raw=over.raw)["taken"]

    deal.version(2)
    assert "newer device" in deal.send(1)["sentence"]
    assert "newer device" in Deal(world, number=2).send(1)["sentence"]
    late = Deal(world, number=2, owner=heir, first=deal.owner.public)
    assert late.send(1)["receipt"]


# --- settling ------------------------------------------------------------------------------


def test_the_old_version_stays_until_the_new_one_is_settled(world: Bare) -> None:
    """Only the owner's word, with enough receipts, lets the old version go."""
    deal = Deal(world)
    first = deal.sealed.version
    deal.settle(everywhere(world, deal))
    deal.version(2)
    receipts = everywhere(world, deal, (0, 1, 2, 3))
    custody = world.hosts[0].guardian.custody

    assert "4 guardians hold the new version; 5 must" in deal.settle(receipts)["sentence"]
    assert next(held.id for held, _ in custody.versions(deal.made.deal.id)) == first.id

    receipts[4] = deal.send(4)["receipt"]
    assert deal.settle(receipts)["settled"]
    held = custody.versions(deal.made.deal.id)
    assert [version.id for version, _ in held] == [first.id, deal.sealed.version.id]
    assert [row.replaced > 0 for _, row in held] == [True, False]

    world.pass_time(31 * DAY)
    assert [held.id for held, _ in custody.versions(deal.made.deal.id)] == [deal.sealed.version.id]


def test_receipts_are_counted_once_and_only_good_ones(world: Bare) -> None:
    """One guardian's receipt five times over is one; a stranger's is none."""
    deal = Deal(world)
    receipts = everywhere(world, deal, (0,))
    stranger = SigningKey(bytes(32))
    body = body_of(world.codec.read(receipts[0]))
    fake = {seat: world.codec.sign(stranger, "receipt", body).raw for seat in range(1, 5)}

    assert "1 guardians hold" in deal.settle(dict.fromkeys(range(5), receipts[0]))["sentence"]
    assert "1 guardians hold" in deal.settle({**receipts, **fake})["sentence"]
    deal.version(2)
    assert "has not received the version" in deal.settle(receipts)["sentence"]


def test_only_the_owner_settles(world: Bare) -> None:
    """Receipts alone move nothing."""
    deal = Deal(world)
    receipts = everywhere(world, deal)
    body = body_of(settled(world, deal, receipts))
    other = world.codec.sign(SigningKey(bytes(32)), "settled", body)

    answer = world.request(world.wallet(0), "settle", raw=other.raw)

    assert "does not own the vault" in answer["sentence"]


def test_a_replaced_deal_stays_for_thirty_days(world: Bare) -> None:
    """So that a thief's new deal cannot bury the old one at once; then it goes."""
    old = Deal(world)
    old.settle(everywhere(world, old))
    new = Deal(world, number=2)
    new.settle(everywhere(world, new))
    custody = world.hosts[0].guardian.custody

    world.pass_time(29 * DAY)
    assert custody.deal(old.vault, old.made.deal.id) is not None
    world.pass_time(2 * DAY)

    assert custody.deal(old.vault, old.made.deal.id) is None
    assert custody.versions(old.made.deal.id) == []
    assert custody.deal(old.vault, new.made.deal.id) is not None
    assert [match[1] for match in custody.like("Rosa Keller")] == [old.vault]


def test_a_replaced_deal_goes_after_a_case_that_held_it(world: Bare) -> None:
    """A case on the vault keeps every deal; when it is over they go after all."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    rosa.prepare(again=True)
    rosa.deposit()
    rosa.settle()
    world.pass_time(20 * DAY)
    approve(world, rosa.claim([0]), 0)
    world.pass_time(200 * DAY)
    world.pass_time(40 * DAY)

    assert len(world.hosts[0].guardian.custody.deals(rosa.vault)) == 1


def test_an_old_settlement_sent_again_reverts_nothing(world: Bare) -> None:
    """Whoever kept the owner's old words cannot turn the vault back with them."""
    old = Deal(world)
    first = settled(world, old, everywhere(world, old))
    world.request(world.wallet(0), "settle", raw=first.raw)
    new = Deal(world, number=2)
    new.settle(everywhere(world, new))

    answer = world.request(world.wallet(0), "settle", raw=first.raw)

    assert "taken the place" in answer["sentence"]
    row = world.hosts[0].guardian.custody.row(old.vault)
    assert row is not None
    assert row.deal == new.made.deal.id


# --- while a case is under way -------------------------------------------------------------


def test_a_new_version_by_a_thief_is_not_released(world: Bare) -> None:
    """From the first approval on, a later version under the same deal is kept beside, too."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    approve(world, device, 0)
    _next_version(rosa, b"junk")
    assert set(rosa.deposit().values()) == {"held"}
    for seat in (1, 2):
        world.tell(seat, "approve", code=device.code, how="in person")

    recovered = device.open()

    assert recovered is not None
    assert recovered.payload.secret == b"the key to everything"
    assert device.succeed(recovered, 0)["kind"] == "reply"
    custody = world.hosts[3].guardian.custody
    assert len(custody.versions(recovered.deal.id)) == 1


def _next_version(member: Member, secret: bytes) -> None:
    assert member.backup is not None
    world = member.world
    spellings = (normalise(member.name),)
    stretched = backing_up.stretch_names(spellings, None, member.backup.pepper, sealing.Cost.TOY)
    member.backup, member.sealed = backing_up.seal_again(
        world.codec, member.backup, Payload(member.owner.seed, "raw", secret, "", spellings),
        stretched, passphrase=False, now=world.now, draws=Draws(world.rng.randbytes(32)),
    )  # fmt: skip


def test_what_was_kept_beside_counts_when_the_case_ends_without_a_release(world: Bare) -> None:
    """An honest owner whose claim somebody tried goes on where they were."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    approve(world, device, 0)
    rosa.prepare(again=True)
    rosa.deposit()
    assert all("under way" in word for word in rosa.settle())

    world.pass_time(181 * DAY)

    assert set(rosa.settle()) == {"settled"}


@pytest.mark.parametrize("verdict", ["reject", "ask"])
def test_an_approval_taken_back_still_ends_with_the_case(world: Bare, verdict: str) -> None:
    """Deposits made meanwhile are not kept beside for ever when guardians change their minds."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    approve(world, device, 0)
    rosa.prepare(again=True)
    rosa.deposit()
    world.tell(0, verdict, case=device.code, words="hm")
    assert all("under way" in word for word in rosa.settle())

    world.pass_time(181 * DAY)

    assert set(rosa.settle()) == {"settled"}


def test_a_case_that_expired_while_the_node_was_off_is_closed(world: Bare) -> None:
    """What was kept beside comes free although no timer rang."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    approve(world, device, 0)
    rosa.prepare(again=True)
    rosa.deposit()
    for seat in range(5):
        world.hosts[seat].timers.clear()
    world.now += 181 * DAY
    for seat in range(5):
        world.boot(seat)
    world.mesh()
    world.run()

    assert set(rosa.settle()) == {"settled"}


def test_a_restarted_node_still_closes_its_cases(world: Bare) -> None:
    """The end of a claim is among what is owed after a restart."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    approve(world, device, 0)
    world.boot(0)
    world.pass_time(181 * DAY)

    case = world.hosts[0].guardian.casework.docket.cases[device.claim.id]
    assert not case.is_open
    assert case.facts is not None
    assert case.facts.closed == "expired"


# --- fragments -----------------------------------------------------------------------------


def large(world: Bare, number: int = 1, deal: Deal | None = None) -> Deal:
    made = deal or Deal(world)
    made.version(number, world.rng.randbytes(300_000))
    return made


def receives(world: Bare, seat: int = 0) -> list[Receive]:
    name = world.hosts[seat].name
    return [effect for who, effect in world.notices if who == name and isinstance(effect, Receive)]


def test_a_large_version_gets_its_receipt_when_its_fragments_are_here(world: Bare) -> None:
    """No receipt before the fragments are durable."""
    deal = large(world)
    answer = deal.send()
    assert answer["fragments"] is True
    wanted = receives(world)[-1]
    assert wanted.root == fragments.root(deal.sealed.coded[0])
    assert wanted.count == deal.sealed.version.body["segments"]
    assert keeps_nothing(world)

    world.queue.append((0, Done(wanted.id)))
    world.run()

    last = world.heard[wanted.link][-1]
    assert world.codec.verify(last.fields["receipt"]).body["version"] == deal.sealed.version.id


def test_fragments_that_fail_are_refused_in_a_sentence(world: Bare) -> None:
    """A broken transfer leaves nothing but the reason."""
    deal = large(world)
    deal.send()
    wanted = receives(world)[-1]

    world.queue.append((0, Done(wanted.id, error="the connection broke")))
    world.run()

    assert world.heard[wanted.link][-1].fields["sentence"] == "the connection broke"
    assert keeps_nothing(world)


def test_two_transfers_of_one_number_are_not_both_kept(world: Bare) -> None:
    """Of two devices that send fragments at once, the later is told about the other."""
    deal = large(world)
    deal.send()
    large(world, deal=deal)
    deal.send()
    one, other = receives(world)
    for wanted in (one, other):
        world.queue.append((0, Done(wanted.id)))
    world.run()

    assert "receipt" in world.heard[one.link][-1].fields
    assert "has written version 1" in world.heard[other.link][-1].fields["sentence"]
    assert world.hosts[0].ledger.count(Table.VERSION) == 1
    assert world.hosts[0].ledger.dropped == [other.version]


def test_a_transfer_dies_with_its_link(world: Bare) -> None:
    """Fragments that arrive for a link that is gone make no deposit."""
    deal = large(world)
    deal.send()
    wanted = receives(world)[-1]
    world.queue.append((0, LinkDown(wanted.link)))
    world.queue.append((0, Done(wanted.id)))
    world.run()

    assert keeps_nothing(world)


def test_old_fragments_are_dropped_with_their_version(world: Bare) -> None:
    """The node is told which fragments nobody needs any more."""
    deal = large(world)
    first = deal.sealed.version.id
    receipts = {}
    for round_ in (1, 2):
        if round_ == 2:
            deal.version(2)
        for seat in range(5):
            answer = deal.send(seat)
            if "receipt" in answer:
                receipts[seat] = answer["receipt"]
                continue
            wanted = receives(world, seat)[-1]
            world.queue.append((seat, Done(wanted.id)))
            world.run()
            receipts[seat] = world.heard[wanted.link][-1].fields["receipt"]
        assert deal.settle(receipts)["settled"]

    assert world.hosts[0].ledger.dropped == []
    world.pass_time(31 * DAY)
    assert world.hosts[0].ledger.dropped == [first]


def test_a_fragment_is_asked_for_in_vain_before_a_release(world: Bare) -> None:
    """Nobody gets ciphertext of a case that has not been decided."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    link = device.links[0]

    answer = world.request(link, "fragments", claim=device.claim.id, version=NOTHING)
    assert "has not released" in answer["sentence"]
    approve(world, device, 0, 1, 2)
    answer = world.request(link, "fragments", claim=device.claim.id, version=NOTHING)
    assert "holds no fragments" in answer["sentence"]


# --- leaving, rehearsing -------------------------------------------------------------------


def test_staying_after_all_keeps_the_vault(world: Bare) -> None:
    """Within seven days a member can take the goodbye back."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    for stay in (False, True):
        word = owning.leave(world.codec, rosa.owner, rosa.vault, world.now, stay=stay)
        world.request(rosa.link(0), "owner", raw=word.raw)
        world.pass_time(3 * DAY)
    world.pass_time(30 * DAY)

    assert world.hosts[0].ledger.count(Table.VAULT) == 1


def test_who_left_leaves_nothing_behind(world: Bare) -> None:
    """Deals, versions and every trace in the index of names go; the signed word stays."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    word = owning.leave(world.codec, rosa.owner, rosa.vault, world.now)
    world.request(rosa.link(0), "owner", raw=word.raw)
    world.pass_time(8 * DAY)

    assert keeps_nothing(world)
    assert not keeps_nothing(world, 1)


def test_nobody_leaves_in_the_middle_of_a_case(world: Bare) -> None:
    """A thief with the owner key cannot have the vault erased while it is being recovered."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    word = owning.leave(world.codec, rosa.owner, rosa.vault, world.now)
    world.request(rosa.link(0), "owner", raw=word.raw)
    world.pass_time(6 * DAY)
    device = rosa.claim([0])
    approve(world, device, 0)
    world.pass_time(3 * DAY)
    assert world.hosts[0].ledger.count(Table.VAULT) == 1

    again = owning.leave(world.codec, rosa.owner, rosa.vault, world.now)
    answer = world.request(rosa.link(1), "owner", raw=again.raw)
    assert "under way" in answer["sentence"]
    for seat in (1, 2):
        world.tell(seat, "approve", code=device.code, how="in person")
    assert 0 in device.recovery().good


def test_a_rehearsal_gives_a_dummy_back_and_leaves_nothing(world: Bare) -> None:
    """Nodes vote by themselves on a guardian's rehearsal vault, which is gone in an hour."""
    owner = world.hosts[0].keys.identity
    deal = Deal(world, owner=owner)
    policy = Policy(3, 0, 4, True).to_map()
    rehearsal = deal.redeal(policy=policy)
    version = deal.reversion(deal=rehearsal)
    for seat in range(5):
        answer = deal.send(seat, deal=rehearsal.raw, version=version.raw)
        assert answer["receipt"]
        assert world.hosts[seat].ledger.count(Table.LABEL) == 0
    device = _rehearsal_claim(world, deal.vault)

    for seat in range(5):
        case = world.hosts[seat].guardian.casework.docket.cases[device.id]
        assert sorted(case.releases) == [0, 1, 2, 3, 4]
    world.pass_time(59 * MINUTE)
    assert world.hosts[0].ledger.count(Table.VAULT) == 1
    world.pass_time(1 * HOUR)
    assert all(keeps_nothing(world, seat) for seat in range(5))


def _rehearsal_claim(world: Bare, vault_id: bytes) -> Verified:
    device = recovering.Device(SigningKey(b"\x51" * 32), SealingKey(b"\x52" * 32))
    claim = recovering.make_claim(
        world.codec, world.roster, device, "Rehearsal", now=world.now, draws=Draws(bytes(32)),
        kind="rehearsal", vault_id=vault_id,
    )  # fmt: skip
    message = Message("claim", {"raw": claim.raw, "code": "", "request": 1})
    world.queue.append((0, Received(world.wallet(0), message)))
    world.run()
    return claim


def test_no_node_votes_by_itself_on_a_real_vault(world: Bare) -> None:
    """A claim that calls itself a rehearsal gets nothing from a member's vault."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()

    claim = _rehearsal_claim(world, rosa.vault)
    assert claim.id not in world.hosts[0].guardian.casework.docket.cases

    # Even a guardian that carries such a claim moves nobody's node to vote.
    host = world.hosts[4]
    out: list[Any] = []
    host.guardian.handle(world._moment(), Done("none"))
    host.guardian.casework.carry(world._moment(), claim, out)
    world._perform(4, out)
    world.run()
    for other in world.hosts:
        assert not other.guardian.casework.docket.cases[claim.id].votes


# --- names ---------------------------------------------------------------------------------


def test_names_are_found_by_their_likeness(world: Bare) -> None:
    """A misspelt name finds its vault and not everybody's; the index holds no plain name."""
    for name in ("Rosa Keller", "Omar Haddad", "Rosi Kehler"):
        Member(world, name).back_up()
    custody = world.hosts[0].guardian.custody

    found = [label.name for _, _, label, _ in custody.like("Roza Keller")]

    assert found[0] == "Rosa Keller"
    assert "Omar Haddad" not in found
    rows = [key for key, _ in world.hosts[0].ledger.scan(Table.LABEL)]
    assert rows
    assert not any(b"rosa" in key or b"ros" in key for key in rows)
    theirs = {key for key, _ in world.hosts[1].ledger.scan(Table.LABEL)}
    assert not any(key in theirs for key in rows)


def test_one_damaged_row_does_not_hide_the_others(world: Bare) -> None:
    """A piece that rotted on the disk is passed over when names are looked up."""
    first, second = Member(world, "Rosa Keller"), Member(world, "Rosa Kellner")
    first.back_up()
    second.back_up()
    ledger = world.hosts[0].ledger
    key, raw = next(iter(ledger.scan(Table.DEAL, first.vault)))
    row = decode(raw, limit=100_000)
    row["box"] = bytes(len(row["box"]))
    ledger.apply(PutRow(Table.DEAL, key, encode(row)))
    world.boot(0)
    device = second.claim([0])

    view = world.tell(0, "open", code=device.code)

    assert [vault["name"] for vault in view["vaults"]] == ["Rosa Kellner"]
    world.tell(0, "approve", code=device.code, how="in person")
