"""Verbs: what guardians may ask their node for, and what they are told."""

from __future__ import annotations

from typing import Any

import pytest

from protocol import verbs
from protocol.cases import group
from protocol.contract import Done, Run, Stretch
from protocol.errors import HoldfastError, NotYet, Refused
from protocol.federation import read_invite, read_signed
from protocol.limits import DAY
from protocol.sealing import Cost
from simulations.hosts.bare import Bare
from simulations.hosts.member import Claimant, Member


@pytest.fixture
def world() -> Bare:
    bare = Bare()
    bare.mesh()
    bare.run()
    return bare


def opened(world: Bare, name: str = "Rosa Keller") -> Claimant:
    member = Member(world, name)
    member.back_up()
    device = member.claim([0])
    world.tell(0, "open", code=device.code)
    return device


def test_an_unknown_verb_is_refused(world: Bare) -> None:
    """A typing error is a sentence."""
    with pytest.raises(Refused, match="does not know how to dance"):
        world.tell(0, "dance")


@pytest.mark.parametrize("typed", ["", "123", "1" * 14, "1" * 16, "one two three"])
def test_a_code_has_fifteen_digits(world: Bare, typed: str) -> None:
    """Anything else is noticed before anything is worked out."""
    with pytest.raises(Refused, match="fifteen digits"):
        world.tell(0, "open", code=typed)
    with pytest.raises(Refused, match="fifteen digits"):
        world.tell(0, "approve", code=typed, how="in person")


def test_a_code_may_be_typed_as_it_is_read(world: Bare) -> None:
    """Spaces between the groups make no difference, when opening and when approving."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])

    world.tell(0, "open", code=group(device.code))
    world.tell(0, "approve", code=group(device.code), how="in person")
    again = world.tell(0, "open", code=device.code)

    assert again["approvals"] == 1


def test_no_answer_shows_a_code(world: Bare) -> None:
    """What a guardian types comes from the person's own screen, not from the node."""
    device = opened(world)
    world.tell(0, "approve", code=device.code, how="by video")
    case = device.claim.id.hex()[:8]
    shown = [
        world.tell(seat, verb, **args)
        for seat in range(5)
        for verb, args in (("claims", {}), ("show", {"case": case}), ("status", {}),
                           ("record", {"case": case}))
    ]  # fmt: skip

    assert device.code not in repr(shown)
    assert group(device.code) not in repr(shown)


def test_how_it_was_checked_must_be_said(world: Bare) -> None:
    """In person, by video, or in words."""
    device = opened(world)
    for how in ("", "telepathy"):
        with pytest.raises(Refused, match="say how you checked"):
            world.tell(0, "approve", code=device.code, how=how)
    with pytest.raises(Refused, match="say in words"):
        world.tell(0, "approve", code=device.code, how="other")
    view = world.tell(0, "approve", code=device.code, how="other", words="her voice")
    assert view["votes"][0]["words"] == "her voice"


def test_saying_no_or_asking_takes_words(world: Bare) -> None:
    """A reason and a question are read by the person who waits."""
    device = opened(world)
    with pytest.raises(Refused, match="needs a reason"):
        world.tell(0, "reject", case=device.code, words="  ")
    with pytest.raises(Refused, match="needs a question"):
        world.tell(0, "ask", case=device.code)
    with pytest.raises(Refused, match="no text"):
        world.tell(0, "ask", case=device.code, words="\udc80")
    with pytest.raises(Refused, match="at most 280"):
        world.tell(0, "reject", case=device.code, words="x" * 281)
    world.tell(0, "reject", case=device.code, words="é" * 280)


def test_a_case_is_found_by_its_first_letters(world: Bare) -> None:
    """As `claims` lists it; nothing or too little finds nothing or is ambiguous."""
    device = opened(world)
    listed = world.tell(3, "claims")["cases"][0]

    assert listed["claim"] == device.claim.id.hex()
    assert listed["name"] == "Rosa Keller"
    assert world.tell(3, "show", case=listed["case"].upper())["name"] == "Rosa Keller"
    for asked in ("", "zz", "0" * 15):
        with pytest.raises(Refused, match="no open case"):
            world.tell(3, "show", case=asked)


def test_two_cases_with_one_beginning_block_each_other(
    world: Bare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than guess, the node asks for more."""
    first, second = opened(world, "Rosa Keller"), opened(world, "Omar Haddad")
    docket = world.hosts[0].guardian.casework.docket
    for claim in (first.claim.id, second.claim.id):
        case = docket.cases[claim]
        assert case.facts is not None
        world.hosts[0].guardian.casework.coded(claim, "1" * 15, [])

    with pytest.raises(Refused, match="block each other"):
        world.tell(0, "approve", code="1" * 15, how="in person")


def test_a_name_that_nobody_keeps_a_vault_under_is_said(world: Bare) -> None:
    """Approving needs a vault; a claim under a strange name shows none."""
    device = Claimant(world, "Nobody Atall", [0])
    view = world.tell(0, "open", code=device.code)

    assert view["vaults"] == []
    with pytest.raises(Refused, match="no vault here"):
        world.tell(0, "approve", code=device.code, how="in person")


def test_a_vault_is_chosen_by_number_or_id(world: Bare) -> None:
    """Among namesakes the guardian says which; numbers that are not there are refused."""
    for _ in range(2):
        Member(world, "Rosa Keller").back_up()
    device = opened(world)
    vaults = world.tell(0, "show", case=device.code)["vaults"]
    assert [vault["number"] for vault in vaults] == [1, 2, 3]
    with pytest.raises(Refused, match="there is no vault 4"):
        world.tell(0, "approve", code=device.code, how="in person", vault="4")

    world.tell(0, "approve", code=device.code, how="in person", vault="2")
    world.tell(1, "approve", code=device.code, how="in person", vault=vaults[1]["vault"])
    view = world.tell(2, "show", case=device.code)
    by_vault = {vault["vault"]: vault["approvals"] for vault in view["vaults"]}
    assert by_vault[vaults[1]["vault"]] == 2


def test_a_claim_whose_name_nobody_can_read_shows_that(world: Bare) -> None:
    """A broken claim is listed with a sentence in the place of its name."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([])
    body = {key: value for key, value in device.claim.body.items() if key not in ("type", "by")}
    spoilt: tuple[dict[str, Any], ...] = (
        {"wraps": [bytes(80)] * 5},
        {"seats": [1, 2, 3, 4, 5]},
        {"name": b""},
        {"seats": [], "wraps": []},
    )
    for changes in spoilt:
        claim = world.codec.sign(device.device.signing, "claim", {**body, **changes})
        out: list[Any] = []
        world.hosts[4].guardian.casework.carry(world._moment(), claim, out)
        world._perform(4, out)
        world.run()
        shown = world.tell(0, "show", case=claim.id.hex())
        assert "cannot be read" in shown["name"]
        assert shown["vaults"] == []
    assert len(world.tell(0, "claims")["cases"]) == 4


def test_a_claim_that_fits_nobody_is_never_opened(world: Bare) -> None:
    """Fewer wraps than seats: such a claim means nothing, whoever carries it."""
    device = Claimant(world, "Rosa Keller", [])
    body = {key: value for key, value in device.claim.body.items() if key not in ("type", "by")}
    claim = world.codec.sign(device.device.signing, "claim", {**body, "wraps": []})
    out: list[Any] = []
    world.hosts[4].guardian.casework.carry(world._moment(), claim, out)
    world._perform(4, out)
    world.run()

    assert all(world.tell(seat, "claims")["cases"] == [] for seat in range(5))


def test_the_status_tells_who_is_there(world: Bare) -> None:
    """Links, members and open cases, and who has been caught lying."""
    opened(world)
    world.kill(3)
    world.run()

    status = world.tell(0, "status")

    assert status["phase"] == "live"
    assert [guardian["linked"] for guardian in status["guardians"]] == [
        True, True, True, False, True,
    ]  # fmt: skip
    assert (status["vaults"], status["open_cases"], status["waiting_for_code"]) == (1, 1, 0)
    assert not any(guardian["misbehaved"] for guardian in status["guardians"])
    world.pass_time(200 * DAY)
    assert world.tell(0, "status")["open_cases"] == 0


def test_nobody_is_invited_before_a_rehearsal(world: Bare) -> None:
    """A federation that has never given anything back takes nobody in."""
    with pytest.raises(Refused, match="nobody has seen"):
        world.tell(0, "invite")
    world.tell(0, "rehearsed")

    shown = world.tell(0, "invite")

    assert read_invite(shown["invite"]).federation == world.roster.id
    assert len(read_invite(shown["invite"]).endpoints) == 3
    world.boot(0)
    assert world.tell(0, "invite") == shown


def test_the_federation_is_shown_as_it_was_signed(world: Bare) -> None:
    """Roster, seat and the phrase to compare."""
    shown = world.tell(2, "federation")

    assert shown["seat"] == 2
    assert read_signed(shown["signed"]).roster.phrase == shown["phrase"]


def test_a_number_nobody_knocked_with_is_for_later(world: Bare) -> None:
    """Admission follows a refused deposit."""
    with pytest.raises(NotYet, match="asked for admission"):
        world.tell(0, "admit", number="12345 67890")


def test_a_record_proves_itself(world: Bare) -> None:
    """Everything about a finished case verifies from its bytes alone."""
    device = opened(world)
    for seat in (0, 1, 2):
        world.tell(seat, "approve", code=device.code, how="in person")

    record = world.tell(4, "record", case=device.claim.id.hex()[:8])

    assert world.codec.verify(record["claim"], "claim").id == device.claim.id
    votes = {world.codec.verify(raw, "vote").id for raw in record["votes"]}
    releases = [world.codec.verify(raw, "release") for raw in record["releases"]]
    assert len(releases) == 5
    assert all(set(release.body["votes"]) <= votes for release in releases)


def test_a_stretch_that_failed_is_for_later(world: Bare) -> None:
    """When the code cannot be worked out the guardian is told why, and can try again."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    core = world.hosts[0].guardian
    out: list[Any] = []
    core.verbs.handle(world._moment(), 5, "open", {"code": device.code}, out)
    run = next(effect for effect in out if isinstance(effect, Run))

    answer = core.handle(world._moment(), Done(run.id, error="no memory left"))

    refusals = [str(getattr(effect, "refusal", "")) for effect in answer]
    assert "no memory left" in refusals
    world.tell(0, "open", code=device.code)


def test_codes_are_worked_out_from_the_claims_alone() -> None:
    """Fifteen digits for each claim, the same every time."""
    job = Stretch((bytes(32), b"\x01" * 32))

    made = verbs.codes(job, Cost.TOY)

    assert made == verbs.codes(job, Cost.TOY)
    assert [claim for claim, _ in made] == list(job.claims)
    assert len({code for _, code in made}) == 2


def test_a_veto_is_shown_and_must_be_named(world: Bare) -> None:
    """Its words are on the page, and an approval afterwards says that it knows."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    world.tell(0, "open", code=device.code)
    rosa.veto(device.claim, 2)

    view = world.tell(1, "show", case=device.code)
    assert [veto["words"] for veto in view["vetoes"]] == ["not me"]
    with pytest.raises(Refused, match="old device says"):
        world.tell(1, "approve", code=device.code, how="in person")
    view = world.tell(1, "approve", code=device.code, how="in person", despite_veto=True)
    assert view["votes"][0]["despite_veto"]


def test_a_refusal_leaves_nothing_behind(world: Bare) -> None:
    """After any refused command the guardian's log is as long as before."""
    device = opened(world)
    heads = dict(world.hosts[0].guardian.gossip.heads)
    for verb, args in (
        ("approve", {"code": device.code, "how": "telepathy"}),
        ("approve", {"code": device.code, "how": "in person", "vault": "9"}),
        ("reject", {"case": device.code, "words": ""}),
        ("open", {"code": "0" * 15}),
        ("admit", {"number": "1"}),
        ("invite", {}),
    ):
        with pytest.raises(HoldfastError):
            world.tell(0, verb, **args)
    assert world.hosts[0].guardian.gossip.heads == heads
