"""Cases: the clock of the waiting period, vetoes and overrides, rivals, succession."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import cases
from protocol.cases import Case, Docket, Facts, Standing
from protocol.contract import Heard, LinkUp, Message, Moment, Received, TimerFired, Verified
from protocol.errors import NotYet, Refused
from protocol.keys import SigningKey
from protocol.limits import DAY, HOUR, MINUTE
from protocol.policy import Policy
from protocol.statements import NOTHING, Codec
from protocol.wallet import owning, recovering
from protocol.wallet.drawing import Draws
from simulations.hosts.bare import Bare
from simulations.hosts.member import Claimant, Member

VAULT, DEAL, OTHER = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32


@pytest.fixture
def world() -> Bare:
    bare = Bare()
    bare.mesh()
    bare.run()
    return bare


def slow() -> Bare:
    bare = Bare(waiting=DAY)
    bare.mesh()
    bare.run()
    return bare


def backed_up(world: Bare, name: str = "Rosa Keller") -> Member:
    member = Member(world, name)
    member.back_up()
    return member


def opened(world: Bare, device: Claimant, seat: int = 0) -> Claimant:
    world.tell(seat, "open", code=device.code)
    return device


def approve(world: Bare, device: Claimant, *seats: int, **more: Any) -> None:
    for seat in seats:
        world.tell(seat, "approve", code=device.code, how="in person", **more)


def case_at(world: Bare, device: Claimant, seat: int = 0) -> Case:
    return world.hosts[seat].guardian.casework.docket.cases[device.claim.id]


def facts_at(world: Bare, device: Claimant, seat: int = 0) -> Facts:
    facts = case_at(world, device, seat).facts
    assert facts is not None
    return facts


def released(world: Bare, device: Claimant) -> bool:
    return any(case_at(world, device, seat).releases for seat in range(5))


# --- codes ---------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32))
@settings(max_examples=50, deadline=None)
def test_a_code_has_fifteen_digits_and_reads_back(stretched: bytes) -> None:
    """As people read it, with spaces, dashes or nothing between."""
    code = cases.claim_code(stretched)

    assert len(code) == 15
    assert code.isdecimal()
    assert cases.read_code(cases.group(code)) == code
    assert cases.read_code(cases.group(code).replace(" ", "-")) == code
    assert cases.read_code(code[:-1]) is None
    assert cases.read_code(code + "0") is None
    assert cases.read_code("١٢٣" * 5) is None


# --- the clock -----------------------------------------------------------------------------


def standing(approvals: int = 3, *, naming: int = 0, vetoed: bool = False, vault: bytes = VAULT,
             override: int = 4) -> Standing:  # fmt: skip
    return Standing(
        vault=vault, deal=DEAL, policy=Policy(3, DAY, 4), approvals=tuple(range(approvals)),
        naming=tuple(range(naming)), vetoed=vetoed, override=override,
    )  # fmt: skip


def test_the_clock_starts_with_the_quorum_and_pauses_without() -> None:
    """A pause neither restarts the waiting period nor counts."""
    facts = cases.advance(Facts(opened=0), standing(2), 100)
    assert cases.due(facts, standing().policy) is None
    facts = cases.advance(facts, standing(3), 200)
    assert cases.due(facts, standing().policy) == 200 + DAY
    facts = cases.advance(facts, standing(2), 200 + HOUR)
    assert cases.due(facts, standing().policy) is None
    facts = cases.advance(facts, standing(3), 10 * DAY)

    assert cases.due(facts, standing().policy) == 11 * DAY - HOUR
    assert facts.stood == 200
    assert cases.state_of(facts, standing()) == cases.WAITING


def test_the_clock_never_runs_backwards() -> None:
    """A clock that was put back takes nothing away from what was served."""
    facts = cases.advance(Facts(opened=0), standing(3), 1000)
    facts = cases.advance(facts, standing(2), 500)

    assert facts.served == 0
    assert facts.since == 0


@given(
    turns=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2 * HOUR)), max_size=20),
)
@settings(max_examples=80, deadline=None)
def test_only_time_with_a_quorum_is_served(turns: list[tuple[int, int]]) -> None:
    """However votes come and go, the time served is the time the quorum stood."""
    facts, now, served = Facts(opened=1), 1, 0
    before = 0
    for approvals, wait in turns:
        now += wait
        served += wait if before >= 3 else 0
        facts = cases.advance(facts, standing(approvals), now)
        facts = cases.advance(facts, standing(approvals), now)
        before = approvals

    running = now - facts.since if facts.since else 0
    assert facts.served + running == served


def test_a_complete_override_is_final() -> None:
    """Votes that come back afterwards do not contest the claim anew."""
    facts = cases.advance(Facts(opened=0), standing(3, vetoed=True, naming=3), 5)
    assert cases.state_of(facts, standing(3, vetoed=True)) == cases.CONTESTED
    facts = cases.advance(facts, standing(4, vetoed=True, naming=4), 6)
    assert facts.final
    facts = cases.advance(facts, standing(3, vetoed=True, naming=0), 7)

    assert facts.final
    assert cases.state_of(facts, standing(3, vetoed=True)) == cases.WAITING


def test_a_mix_up_of_vaults_serves_no_time_for_the_right_one() -> None:
    """When guardians turn to another vault, its owner has the whole time to object."""
    facts = cases.advance(Facts(opened=0, code="1"), standing(3), 5)
    facts = cases.advance(facts, standing(4, vetoed=True, naming=4), 6)
    facts = cases.advance(facts, standing(3, vault=OTHER), DAY)

    assert cases.due(facts, standing().policy) == 2 * DAY
    assert not facts.final
    assert facts.code == "1"


def test_facts_survive_being_written_down() -> None:
    """What a guardian alone knows of a case reads back as it was."""
    facts = Facts(1, "123", 2, 3, 4, 5, True, 6, 7, "released", VAULT)

    assert cases.read_facts(facts.to_bytes()) == facts


# --- folding -------------------------------------------------------------------------------


def made_vote(seat: int, seq: int, **more: Any) -> Verified:
    fields = {
        "epoch": 0, "seat": seat, "incarnation": 0, "seq": seq, "prev": NOTHING,
        "claim": OTHER, "vault": VAULT, "deal": DEAL, "verdict": "approve", "how": "in person",
        "words": "", "revision": 0, "veto": NOTHING, "at": 0, **more,
    }  # fmt: skip
    return Codec().sign(SigningKey(bytes([seat]) * 32), "vote", fields)


@given(order=st.permutations(range(6)))
@settings(max_examples=50, deadline=None)
def test_the_latest_revision_counts_in_any_order(order: list[int]) -> None:
    """Approve, reject, approve: what was said last is what stands."""
    verdicts = ["approve", "reject", "approve", "ask", "approve", "reject"]
    votes = [
        made_vote(1, number + 1, revision=number, verdict=verdict)
        for number, verdict in enumerate(verdicts)
    ]
    docket = Docket()
    for number in order:
        assert docket.take_vote(votes[number]) is None
        assert docket.take_vote(votes[number]) is None

    assert docket.case(OTHER).latest()[1].body["verdict"] == "reject"
    assert cases.next_revision(docket.case(OTHER), 1) == 6


def test_revisions_beyond_the_limit_are_noise() -> None:
    """A vote numbered higher than anyone may go does not count."""
    docket = Docket()
    assert docket.take_vote(made_vote(1, 1, revision=cases.REVISIONS_MAX + 1)) is None

    assert docket.case(OTHER).latest() == {}


def test_a_second_vote_of_one_revision_is_handed_back() -> None:
    """The first that came is kept; the other is the proof."""
    docket = Docket()
    first, second = made_vote(1, 1), made_vote(1, 2, words="other")
    docket.take_vote(first)

    assert docket.take_vote(second) == first
    assert docket.case(OTHER).latest()[1] == first


def test_only_holders_of_the_deal_are_counted(world: Bare) -> None:
    """A guardian that has no piece of it has no voice either; nor one shut out."""
    rosa = backed_up(world)
    device = opened(world, rosa.claim([0]))
    approve(world, device, 0, 1)
    docket = world.hosts[0].guardian.casework.docket
    case = case_at(world, device)
    deal = world.hosts[0].guardian.custody.deals(rosa.vault)[0][0]

    assert docket.standing(case, deal, [], world.now).approvals == (0, 1)
    assert docket.standing(case, deal, [1], world.now).approvals == (0,)
    body = {key: value for key, value in deal.body.items() if key not in ("type", "by")}
    fewer = world.codec.sign(rosa.owner, "deal", {**body, "holders": [1, 2]})
    assert docket.standing(case, fewer, [], world.now).approvals == ()


# --- in conversation -----------------------------------------------------------------------


def test_ninth_thoughts_are_refused(world: Bare) -> None:
    """Eight changes of mind on one claim are enough for anyone."""
    device = opened(world, backed_up(world).claim([0]))
    for number in range(9):
        world.tell(0, "ask", case=device.code, words=f"question {number}")

    with pytest.raises(Refused, match="8 times"):
        world.tell(0, "ask", case=device.code, words="once more")


def test_who_catches_up_does_not_act_on_a_vote_taken_back(world: Bare) -> None:
    """An approval and its withdrawal that arrive together count as withdrawn."""
    device = opened(world, backed_up(world).claim([0]))
    approve(world, device, 0, 1)
    deal = case_at(world, device).latest()[0].body
    said = {"claim": device.claim.id}
    first = made_vote(2, 1, **said, vault=deal["vault"], deal=deal["deal"])
    key = world.hosts[2].keys.identity
    log = [world.codec.sign(key, "vote", _fields(first))]
    second = made_vote(2, 2, **said, vault=NOTHING, deal=NOTHING, verdict="reject", how="",
                       words="no", revision=1, prev=log[0].id)  # fmt: skip
    log.append(world.codec.sign(key, "vote", _fields(second)))
    link = next(link for link, (other, _) in world.hosts[3].links.items() if other == 2)

    world.queue.append((3, Heard(link, tuple(log))))
    world.run()
    world.pass_time(MINUTE)

    assert not released(world, device)


def _fields(vote: Verified) -> dict[str, Any]:
    return {key: value for key, value in vote.body.items() if key not in ("type", "by")}


def test_a_rival_that_loses_its_quorum_frees_the_other_at_once() -> None:
    """A rejection of one claim is news for the other claim on that vault."""
    world = Bare(threshold=2, waiting=DAY)
    world.mesh()
    rosa = backed_up(world)
    first, second = rosa.claim([0]), rosa.claim([0])
    opened(world, first)
    opened(world, second)
    approve(world, first, 0, 1)
    approve(world, second, 2, 3)
    world.pass_time(3 * DAY)
    assert not released(world, first)
    assert not released(world, second)

    world.tell(2, "reject", case=second.code, words="a fraud")

    assert released(world, first)
    assert not released(world, second)


def test_a_rival_that_expires_frees_the_other() -> None:
    """The end of a claim is news for the other claim on that vault."""
    world = Bare(threshold=2, waiting=DAY)
    world.mesh()
    rosa = backed_up(world)
    first = opened(world, rosa.claim([0]))
    world.pass_time(100 * DAY)
    second = opened(world, rosa.claim([0]))
    approve(world, first, 0, 1)
    approve(world, second, 2, 3)
    world.pass_time(70 * DAY)
    assert not released(world, second)

    world.pass_time(20 * DAY)

    assert released(world, second)
    assert not released(world, first)


def test_many_vetoes_do_not_block_more_than_one() -> None:
    """A thief with the old phone may shout as often as it likes."""
    world = slow()
    rosa = backed_up(world)
    device = opened(world, rosa.claim([0]))
    approve(world, device, 0)
    for number in range(3):
        world.now += 1
        assert rosa.veto(device.claim, number)["kind"] == "reply"
    assert len(case_at(world, device).vetoes) == 1
    # A guardian that is in it with the thief carries many all the same.
    for number in range(40):
        word = owning.veto(
            world.codec, rosa.owner, rosa.vault, device.claim.id, str(number), world.now
        )
        out: list[Any] = []
        world.hosts[4].guardian.casework.carry(world._moment(), word, out)
        world._perform(4, out)
    world.run()

    approve(world, device, 0, 1, 2, 3, despite_veto=True)
    world.pass_time(2 * DAY)

    assert device.open() is not None


def test_a_veto_by_another_key_is_refused(world: Bare) -> None:
    """Only the owner key of now says that a claim is not the owner's."""
    rosa = backed_up(world)
    device = opened(world, rosa.claim([0]))
    stranger = owning.veto(
        world.codec, SigningKey(bytes(32)), rosa.vault, device.claim.id, "no", world.now
    )

    answer = world.request(rosa.link(0), "owner", raw=stranger.raw)

    assert "does not own the vault" in answer["sentence"]
    early = owning.veto(world.codec, rosa.owner, rosa.vault, bytes(32), "no", world.now)
    answer = world.request(rosa.link(0), "owner", raw=early.raw)
    assert answer["kind"] == "not yet"


def test_a_claim_for_too_long_or_of_the_past_is_refused(world: Bare) -> None:
    """Claims live for 180 days at most, and end."""
    rosa = backed_up(world)
    device = rosa.claim([0])
    body = {key: value for key, value in device.claim.body.items() if key not in ("type", "by")}
    link = world.wallet(0)
    for expires, word in ((world.now, "has expired"), (world.now + 181 * DAY, "180 days")):
        claim = world.codec.sign(device.device.signing, "claim", {**body, "expires": expires})
        assert word in world.request(link, "claim", raw=claim.raw, code="1" * 15)["sentence"]
    odd = world.codec.sign(device.device.signing, "claim", {**body, "wraps": body["wraps"][:2]})
    answer = world.request(link, "claim", raw=odd.raw, code="1" * 15)
    assert "which guardian" in answer["sentence"]


def test_after_180_days_an_unfinished_claim_is_over(world: Bare) -> None:
    """Votes after the end change nothing."""
    device = opened(world, backed_up(world).claim([0]))
    approve(world, device, 0, 1)

    world.pass_time(181 * DAY)

    assert facts_at(world, device).closed == cases.EXPIRED
    with pytest.raises(Refused, match="no open case"):
        approve(world, device, 2)
    with pytest.raises(Refused, match="closed"):
        world.tell(2, "ask", case=device.claim.id.hex()[:8], words="still there?")


def test_a_clock_far_from_the_others_holds_back() -> None:
    """A node whose clock runs ahead does not cut the waiting period short."""
    world = slow()
    device = opened(world, backed_up(world).claim([0]))
    approve(world, device, 0, 1, 2)
    world.pass_time(HOUR)
    core = world.hosts[0].guardian
    for link in list(world.hosts[0].links):
        ping = {"now": world.now, "linked": [0, 1, 2, 3, 4], "digest": bytes(16)}
        core.handle(_moment_at(world, 2 * DAY), Received(link, Message("ping", ping)))
    due = f"due:{device.claim.id.hex()}"
    effects = core.handle(_moment_at(world, 2 * DAY), TimerFired(due))

    assert "clock" in {getattr(effect, "notice", "") for effect in effects}
    assert 0 not in case_at(world, device).releases


def _moment_at(world: Bare, ahead: int) -> Any:
    return Moment(world.now + ahead, world.rng.randbytes(32))


def test_time_off_does_not_count_when_nobody_vouches_for_the_clock() -> None:
    """A node alone after a stop waits as long again as it was off."""
    world = slow()
    device = opened(world, backed_up(world).claim([0]))
    approve(world, device, 0, 1, 2)
    world.pass_time(HOUR)
    for seat in range(1, 5):
        world.kill(seat)
    world.hosts[0].timers.clear()
    world.now += 30 * HOUR
    world.boot(0)
    world.pass_time(10 * MINUTE)
    assert 0 not in case_at(world, device).releases

    world.pass_time(30 * HOUR)

    assert 0 in case_at(world, device).releases


# --- succession ----------------------------------------------------------------------------


def finished(world: Bare) -> tuple[Member, Claimant, recovering.Recovered]:
    rosa = backed_up(world)
    device = opened(world, rosa.claim([0]))
    approve(world, device, 0, 1, 2)
    recovered = device.open()
    assert recovered is not None
    return rosa, device, recovered


def test_a_succession_waits_for_the_releases(world: Bare) -> None:
    """Only a claim that was answered makes an owner, and only its own device."""
    rosa = backed_up(world)
    device = opened(world, rosa.claim([0]))
    deal = world.hosts[0].guardian.custody.deals(rosa.vault)[0][0]
    word = recovering.succeed(world.codec, device.device, device.claim, deal, world.now)
    answer = world.request(device.links[0], "succeed", raw=word.raw)
    assert "0 released pieces; 3 are needed" in answer["sentence"]

    approve(world, device, 0, 1, 2)
    body = {key: value for key, value in word.body.items() if key not in ("type", "by")}
    thief = world.codec.sign(SigningKey(bytes(32)), "succession", body)
    answer = world.request(device.links[0], "succeed", raw=thief.raw)
    assert "only the device that made the claim" in answer["sentence"]
    unheard = world.codec.sign(device.device.signing, "succession", {**body, "claim": bytes(32)})
    answer = world.request(device.links[0], "succeed", raw=unheard.raw)
    assert answer["kind"] == "not yet"
    assert world.request(device.links[0], "succeed", raw=word.raw)["taken"]
    assert world.request(device.links[0], "succeed", raw=word.raw)["taken"]


def test_a_succession_heard_before_its_claim_counts_when_the_claim_comes() -> None:
    """Logs arrive in any order; the owner of a vault does not depend on it."""
    world = Bare()
    for one in range(4):
        for other in range(one + 1, 4):
            world.link(one, other)
    rosa = backed_up(world)
    device = opened(world, rosa.claim([1]), 1)
    approve(world, device, 0, 1, 2)
    recovered = device.open()
    assert recovered is not None
    device.links[2] = world.wallet(2)
    assert device.succeed(recovered, 2)["kind"] == "reply"
    # Eve hears every log, the one that carries the claim last.
    logs: dict[int, list[Verified]] = {}
    for place, raw in world.hosts[0].ledger.entries():
        logs.setdefault(place.seat, []).append(world.codec.verify(raw))
    world.boot(4, locked=True)
    world.link(4, 0)
    link = next(iter(world.hosts[4].links))
    world._step(4, LinkUp(link, 0))
    world.queue.clear()
    for seat in (2, 0, 3, 1):
        world._step(4, Heard(link, tuple(logs.get(seat, ()))))

    row = world.hosts[4].guardian.custody.row(rosa.vault)
    assert row is not None
    assert row.owner == device.device.signing.public


def test_after_a_succession_the_claim_is_over_and_nobody_else_gets_the_vault(
    world: Bare,
) -> None:
    """What was recovered cannot be released once more to another claim by old votes."""
    rosa, device, recovered = finished(world)
    device.succeed(recovered, 0)

    assert all(facts_at(world, device, seat).closed == cases.RELEASED for seat in range(5))
    word = owning.hand_over(world.codec, rosa.owner, rosa.vault, rosa.owner.public, world.now)
    answer = world.request(rosa.link(0), "owner", raw=word.raw)
    assert "newer device" in answer["sentence"]


def test_a_handover_moves_the_vault_unless_a_case_is_under_way(world: Bare) -> None:
    """A new phone takes over from the old one; a thief cannot do so in the middle of a case."""
    rosa = backed_up(world)
    heir = SigningKey(b"\x44" * 32)
    word = owning.hand_over(world.codec, rosa.owner, rosa.vault, heir.public, world.now)
    assert world.request(rosa.link(1), "owner", raw=word.raw)["taken"]
    for host in world.hosts:
        row = host.guardian.custody.row(rosa.vault)
        assert row is not None
        assert row.owner == heir.public
    device = opened(world, rosa.claim([0]))
    approve(world, device, 0)
    back = owning.hand_over(world.codec, heir, rosa.vault, rosa.owner.public, world.now)

    answer = world.request(rosa.link(1), "owner", raw=back.raw)

    assert "under way" in answer["sentence"]


def test_a_claim_that_guardians_never_heard_of_is_not_yet(world: Bare) -> None:
    """A code typed before its claim arrived is an answer for later."""
    with pytest.raises(NotYet):
        world.tell(0, "open", code="123 456 789 012 345")


def test_two_claims_made_for_one_code_block_each_other(world: Bare) -> None:
    """A claim that pretends to another's code is found out by working the code out."""
    rosa = backed_up(world)
    device = rosa.claim([0])
    other = recovering.make_claim(
        world.codec, world.roster, device.device, "Rosa Keller",
        now=world.now + 1, draws=Draws(b"\x09" * 32),
    )  # fmt: skip
    world.request(world.wallet(0), "claim", raw=other.raw, code=device.code)

    view = world.tell(0, "open", code=device.code)

    assert view["claim"] == device.claim.id.hex()
    wrong = Claimant(world, "Rosa Keller", [])
    world.request(world.wallet(1), "claim", raw=wrong.claim.raw, code="9" * 15)
    with pytest.raises(Refused, match="pretends"):
        world.tell(1, "open", code="9" * 15)
