"""Guardians' cores in conversation: from a claim to a release, without sockets."""

from __future__ import annotations

import pytest

from protocol import cases
from protocol.errors import HoldfastError, NotYet, Refused
from protocol.limits import DAY, HOUR
from simulations.hosts.bare import Bare
from simulations.hosts.member import Claimant, Member


def approve(world: Bare, seat: int, code: str, **more: object) -> None:
    world.tell(seat, "approve", code=code, how="in person", **more)


def opened(world: Bare, seat: int, claimant: Claimant) -> None:
    world.tell(seat, "open", code=claimant.code)


@pytest.fixture
def world() -> Bare:
    bare = Bare()
    bare.mesh()
    bare.run()
    return bare


def test_a_lost_key_comes_back(world: Bare) -> None:
    """Three of five approve and the member's new device reads the secret."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0, 1])
    opened(world, 0, device)
    for seat in (0, 1):
        approve(world, seat, device.code)
    assert device.open() is None

    approve(world, 2, device.code)

    recovered = device.open()
    assert recovered is not None
    assert recovered.payload.secret == rosa.secret
    assert recovered.payload.owner == rosa.owner.seed


def test_one_reachable_guardian_is_enough(world: Bare) -> None:
    """Releases are gossiped, so a wallet that reaches one guardian gets them all."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([4])
    opened(world, 4, device)

    for seat in (1, 2, 4):
        approve(world, seat, device.code)

    assert len(device.recovery().good) == 5
    assert device.open() is not None


def test_a_claim_stays_where_it_was_sent_until_its_code_is_typed(world: Bare) -> None:
    """Nobody hears of a claim before a guardian has opened it."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()

    device = rosa.claim([0])

    assert all(not host.guardian.casework.docket.cases for host in world.hosts)
    with pytest.raises(NotYet, match="no claim with this code"):
        world.tell(1, "open", code=device.code)


def test_a_guardian_sees_similar_names_and_no_code(world: Bare) -> None:
    """A typo in the name opens the case all the same; no answer shows the code."""
    Member(world, "Rosa Keller").back_up()
    Member(world, "Omar Haddad").back_up()
    device = Claimant(world, "Roza Keler", [0])

    view = world.tell(0, "open", code=device.code)

    assert [vault["name"] for vault in view["vaults"]] == ["Rosa Keller"]
    assert device.code not in repr(view)


def test_approving_takes_the_code(world: Bare) -> None:
    """A wrong code approves nothing."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    opened(world, 0, device)
    wrong = str((int(device.code) + 1) % 10**15).zfill(15)

    with pytest.raises(Refused, match="no open case"):
        approve(world, 0, wrong)


def test_namesakes_are_told_apart(world: Bare) -> None:
    """Two members of one name: guardians choose, and votes on different vaults never add up."""
    first, second = Member(world, "Rosa Keller"), Member(world, "Rosa Keller", secret=b"other")
    first.back_up()
    second.back_up()
    device = first.claim([0])
    opened(world, 0, device)
    with pytest.raises(Refused, match="2 vaults"):
        approve(world, 0, device.code)

    approve(world, 0, device.code, vault=first.vault.hex())
    approve(world, 1, device.code, vault=second.vault.hex())
    approve(world, 2, device.code, vault=first.vault.hex())
    assert device.open() is None

    approve(world, 1, device.code, vault=first.vault.hex())

    recovered = device.open()
    assert recovered is not None
    assert recovered.payload.secret == first.secret


def test_a_question_and_a_reason_reach_the_claimant(world: Bare) -> None:
    """What a guardian asks, or why one rejects, is shown on the new device."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    opened(world, 0, device)

    world.tell(0, "ask", case=device.code, words="Where did we meet?")
    world.tell(1, "reject", case=device.claim.id.hex()[:8], words="I do not know you")

    said = {vote.guardian: (vote.verdict, vote.words) for vote in device.recovery().votes}
    assert said == {"ada": ("ask", "Where did we meet?"), "ben": ("reject", "I do not know you")}
    with pytest.raises(Refused, match="280"):
        world.tell(0, "ask", case=device.code, words="x" * 281)


def test_the_waiting_period_is_served_before_a_release() -> None:
    """With a day to wait, nothing is released an hour early."""
    world = Bare(waiting=DAY)
    world.mesh()
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    opened(world, 0, device)
    for seat in (0, 1, 2):
        approve(world, seat, device.code)

    world.pass_time(23 * HOUR)
    assert device.open() is None

    world.pass_time(2 * HOUR)
    assert device.open() is not None


def test_a_crash_while_waiting_neither_shortens_nor_restarts_the_wait() -> None:
    """A node that comes back goes on with the waiting period where it was."""
    world = Bare(waiting=DAY)
    world.mesh()
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    opened(world, 0, device)
    for seat in (0, 1, 2):
        approve(world, seat, device.code)
    world.pass_time(12 * HOUR)

    for seat in range(5):
        world.boot(seat)
    world.mesh()
    world.pass_time(11 * HOUR)
    assert not any(case.releases for case in _cases(world, device))

    world.pass_time(2 * HOUR)
    assert all(case.releases for case in _cases(world, device))


def _cases(world: Bare, device: Claimant) -> list[cases.Case]:
    return [host.guardian.casework.docket.cases[device.claim.id] for host in world.hosts]


def test_a_lapsed_quorum_pauses_the_clock() -> None:
    """When an approval is taken back the clock stops, and goes on when it returns."""
    world = Bare(waiting=DAY)
    world.mesh()
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    opened(world, 0, device)
    for seat in (0, 1, 2):
        approve(world, seat, device.code)
    world.pass_time(12 * HOUR)
    world.tell(2, "reject", case=device.code, words="I was wrong")
    world.pass_time(10 * DAY)
    assert device.open() is None

    approve(world, 2, device.code)
    world.pass_time(11 * HOUR)
    assert device.open() is None
    world.pass_time(2 * HOUR)
    assert device.open() is not None


def test_a_veto_stops_a_claim_until_it_is_overridden() -> None:
    """The owner's veto contests; one vote more than the quorum, naming it, goes on."""
    world = Bare(waiting=DAY)
    world.mesh()
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    opened(world, 0, device)
    for seat in (0, 1, 2):
        approve(world, seat, device.code)

    assert rosa.veto(device.claim, 3)["kind"] == "reply"
    world.pass_time(3 * DAY)
    assert {world.tell(seat, "show", case=device.code)["state"] for seat in range(5)} == {
        "contested"
    }
    with pytest.raises(Refused, match="not theirs"):
        approve(world, 3, device.code)
    for seat in (0, 1, 2):
        approve(world, seat, device.code, despite_veto=True)
    world.pass_time(3 * DAY)
    assert device.open() is None

    approve(world, 3, device.code, despite_veto=True)
    world.pass_time(2 * DAY)

    assert device.open() is not None


def test_a_veto_falls_to_the_quorum_after_sixty_days() -> None:
    """A thief with the old phone cannot block for ever."""
    world = Bare(waiting=DAY)
    world.mesh()
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    opened(world, 0, device)
    approve(world, 0, device.code)
    rosa.veto(device.claim, 3)
    for seat in (0, 1, 2):
        approve(world, seat, device.code, despite_veto=True)

    world.pass_time(59 * DAY)
    assert device.open() is None
    world.pass_time(3 * DAY)
    assert device.open() is not None


def test_two_claims_on_one_vault_never_both_count(world: Bare) -> None:
    """An approval of one claim retracts the same guardian's approval of another."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    thief, device = rosa.claim([0]), rosa.claim([0])
    opened(world, 0, thief)
    opened(world, 0, device)
    for seat in (0, 1):
        approve(world, seat, thief.code)

    for seat in (0, 1, 2):
        approve(world, seat, device.code)

    assert thief.open() is None
    assert device.open() is not None
    approve(world, 3, thief.code)
    assert thief.open() is None


def test_the_new_device_becomes_the_owner(world: Bare) -> None:
    """After a recovery the old key signs nothing, and the new one deals anew."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    opened(world, 0, device)
    early = device.claim
    for seat in (0, 1, 2):
        approve(world, seat, device.code)
    recovered = device.open()
    assert recovered is not None
    assert device.succeed(recovered, 0)["kind"] == "reply"

    old = rosa.veto(early, 1)
    assert "newer device" in str(old["sentence"])
    rosa.prepare(again=True)
    assert all("newer device" in word for word in rosa.deposit().values())

    rosa.owner = device.device.signing
    rosa.prepare(again=True)
    assert set(rosa.deposit().values()) == {"held"}
    assert set(rosa.settle()) == {"settled"}


def test_a_thief_cannot_bury_the_vault(world: Bare) -> None:
    """From the first approval on, a new deal by the old key replaces nothing."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    held = rosa.backup
    device = rosa.claim([0])
    opened(world, 0, device)
    approve(world, 0, device.code)

    thief = rosa
    thief.secret = b"junk"
    thief.prepare(again=True)
    assert set(thief.deposit().values()) == {"held"}
    assert all("under way" in word for word in thief.settle())
    for seat in (1, 2):
        approve(world, seat, device.code)

    recovered = device.open()
    assert held is not None
    assert recovered is not None
    assert recovered.payload.secret == b"the key to everything"


def test_two_devices_that_write_one_version_are_both_told(world: Bare) -> None:
    """The second deal of one number is refused with a sentence, and nothing is lost."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    other = Member(world, "Rosa Keller", secret=b"from the other phone")
    other.owner, other.backup = rosa.owner, rosa.backup
    rosa.prepare(again=True)
    rosa.deposit([0, 1])
    other.prepare(again=True)

    answers = other.deposit()

    assert "another device has dealt number 2" in answers[0]
    assert answers[3] == "held"


def test_leaving_erases_after_a_week(world: Bare) -> None:
    """A member who leaves is erased after seven days, with a receipt."""
    from protocol.wallet import owning

    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    goodbye = owning.leave(world.codec, rosa.owner, rosa.vault, world.now)
    for seat in range(5):
        assert world.request(rosa.link(seat), "owner", raw=goodbye.raw)["kind"] == "reply"

    world.pass_time(6 * DAY)
    assert world.tell(0, "status")["vaults"] == 1
    world.pass_time(2 * DAY)

    assert world.tell(0, "status")["vaults"] == 0
    seen = owning.seen(world.codec, rosa.owner, rosa.vault, world.now)
    answer = world.request(rosa.link(0), "seen", raw=seen.raw)
    assert owning.take_erased(world.codec, world.roster, 0, rosa.vault, answer["erased"])


def test_an_old_goodbye_cannot_be_played_again(world: Bare) -> None:
    """After the owner has said "stay", nobody can leave for them with their earlier word."""
    from protocol.wallet import owning

    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    goodbye = owning.leave(world.codec, rosa.owner, rosa.vault, world.now)
    stay = owning.leave(world.codec, rosa.owner, rosa.vault, world.now + 1, stay=True)
    assert world.request(rosa.link(0), "owner", raw=goodbye.raw)["kind"] == "reply"
    assert world.request(rosa.link(0), "owner", raw=stay.raw)["kind"] == "reply"

    again = world.request(rosa.link(0), "owner", raw=goodbye.raw)

    assert "something newer" in again["sentence"]
    world.pass_time(9 * DAY)
    assert world.tell(0, "status")["vaults"] == 1


def test_a_locked_node_relays_and_does_nothing_else(world: Bare) -> None:
    """Without its keys a node passes entries on, and neither votes nor takes deposits."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    world.boot(2, locked=True)
    for seat in (0, 1, 3, 4):
        world.link(2, seat)
    world.run()
    device = rosa.claim([2])
    with pytest.raises(HoldfastError, match="locked"):
        opened(world, 2, device)
    device = rosa.claim([0, 2])
    opened(world, 0, device)
    for seat in (0, 1, 3):
        approve(world, seat, device.code)

    heard = {seat for link, seat in ((link, seat) for seat, link in device.links.items())
             if any(m.kind == "release" for m in world.heard[link])}  # fmt: skip
    assert heard == {0, 2}
    assert 2 not in device.recovery().good

    world.boot(2)
    world.mesh()
    world.run()
    assert 2 in device.recovery().good


def test_a_release_is_never_made_twice(world: Bare) -> None:
    """After a crash the same bytes are there, and no second release."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    opened(world, 0, device)
    for seat in (0, 1, 2):
        approve(world, seat, device.code)
    before = _cases(world, device)[0].releases[0].raw

    world.boot(0)
    world.mesh()
    world.run()

    assert _cases(world, device)[0].releases[0].raw == before
    mine = [entry for entry in world.hosts[0].guardian.gossip.heads if entry[0] == 0]
    assert mine == [(0, 0)]
