"""The service: every request of a wallet is answered, by a reply or in a sentence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import messages, service
from protocol.contract import LinkDown, Message, Notify, Received, Table
from protocol.custody import Settings, member_number
from protocol.errors import BadSignature, FaultyPiece, Locked, Malformed, NotYet, Refused
from protocol.federation import read_signed
from protocol.keys import SigningKey
from protocol.limits import DAY, HOUR
from protocol.statements import NOTHING
from protocol.wallet import owning
from simulations.hosts.bare import Bare
from simulations.hosts.member import Claimant, Member


@pytest.fixture
def world() -> Bare:
    bare = Bare()
    bare.mesh()
    bare.run()
    return bare


def backed_up(world: Bare, name: str = "Rosa Keller") -> Member:
    member = Member(world, name)
    member.back_up()
    return member


def approve(world: Bare, device: Claimant, *seats: int) -> None:
    for seat in seats:
        world.tell(seat, "approve", code=device.code, how="in person")


GOOD: dict[str, dict[str, Any]] = {
    "roster": {},
    "deposit": {"deal": b"", "version": b"", "box": b"", "whole": b""},
    "card": {"vault": NOTHING, "deal": NOTHING},
    "settle": {"raw": b""},
    "seen": {"raw": b""},
    "owner": {"raw": b""},
    "claim": {"raw": b"", "code": ""},
    "follow": {"claim": NOTHING},
    "succeed": {"raw": b""},
    "fragments": {"claim": NOTHING, "version": NOTHING},
    "through": {"seat": 9, "kind": "seen", "fields": {}},
}
SIGNED = [kind for kind, fields in GOOD.items() if {"raw", "whole"} & fields.keys()]


@pytest.mark.parametrize("kind", messages.REQUESTS)
def test_every_request_is_answered(world: Bare, kind: str) -> None:
    """Even one that holds nothing sensible gets a word, and the link stays."""
    answer = world.request(world.wallet(0), kind, **GOOD[kind])

    assert answer["kind"] in ("reply", "malformed", "refused", "not yet")
    assert answer["kind"] == "reply" or answer["sentence"]
    assert not world.hosts[0].dropped


@given(kind=st.sampled_from(SIGNED), raw=st.binary(max_size=60))
@settings(max_examples=40, deadline=None)
def test_statements_of_any_bytes_are_answered(kind: str, raw: bytes) -> None:
    """What is no statement is called malformed, whatever it is."""
    world = Bare()
    fields = {name: raw if name in ("raw", "deal", "version") else value
              for name, value in GOOD[kind].items()}  # fmt: skip

    answer = world.request(world.wallet(0), kind, **fields)

    assert answer["kind"] == "malformed"
    assert not any(world.hosts[0].ledger.count(table) for table in Table if table.value != "meta")


@pytest.mark.parametrize("kind", SIGNED)
def test_statements_of_another_kind_are_refused(world: Bare, kind: str) -> None:
    """A signed statement where another was expected changes nothing."""
    other = world.codec.sign(
        SigningKey(bytes(32)), "erased", {"vault": NOTHING, "seat": 0, "at": 1}
    )
    fields = {name: other.raw if name in ("raw", "deal", "version") else value
              for name, value in GOOD[kind].items()}  # fmt: skip

    answer = world.request(world.wallet(0), kind, **fields)

    assert answer["kind"] == "malformed"
    assert "was expected and a erased came" in answer["sentence"]


def test_refusals_say_of_what_kind_they_are() -> None:
    """A wallet that reads the kind knows whether to try again."""
    for error, kind in (
        (Refused("x", hint="y"), "refused"),
        (NotYet("x"), "not yet"),
        (Locked("x"), "locked"),
        (Malformed("x"), "malformed"),
        (BadSignature("x"), "malformed"),
        (FaultyPiece("x"), "refused"),
    ):
        sent = messages.refusal(3, 7, error)
        assert sent.link == 3
        assert sent.message.fields == {
            "request": 7, "sentence": "x", "hint": error.hint, "kind": kind,
        }  # fmt: skip


def test_the_roster_is_shown_to_anyone(world: Bare) -> None:
    """A wallet checks it by the federation's id; addresses that changed come with it."""
    answer = world.request(world.wallet(0), "roster")

    assert read_signed(answer["signed"], world.roster.id).roster == world.roster
    assert answer["addresses"] == []


def test_every_claim_gets_the_same_answer(world: Bare) -> None:
    """Nobody learns from a guardian whether a name is known."""
    backed_up(world)
    answers = []
    for name in ("Rosa Keller", "Nobody Atall"):
        device = Claimant(world, name, [])
        link = world.wallet(0)
        for _ in range(2):
            world.request(link, "claim", raw=device.claim.raw, code=device.code)
        answers.append([
            (message.kind, sorted(message.fields)) for message in world.heard[link]
        ])  # fmt: skip

    assert answers[0] == answers[1]
    assert world.hosts[0].ledger.count(Table.CLAIM) == 2


def test_an_unopened_claim_is_forgotten_in_a_month(world: Bare) -> None:
    """The table of claims that wait for their codes empties itself."""
    device = Claimant(world, "Rosa Keller", [0])
    assert world.hosts[0].ledger.count(Table.CLAIM) == 1
    world.pass_time(31 * DAY)

    assert world.hosts[0].ledger.count(Table.CLAIM) == 0
    world.request(world.wallet(0), "claim", raw=device.claim.raw, code=device.code)
    world.tell(0, "open", code=device.code)
    assert world.hosts[0].ledger.count(Table.CLAIM) == 0


def test_the_table_of_waiting_claims_has_an_end(
    world: Bare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers cannot fill a guardian's disk with claims."""
    monkeypatch.setattr(service, "CLAIMS_WAITING_MAX", 2)
    for _ in range(2):
        Claimant(world, "Rosa Keller", [0])
    third = Claimant(world, "Rosa Keller", [])

    answer = world.request(world.wallet(0), "claim", raw=third.claim.raw, code=third.code)

    assert answer["kind"] == "not yet"
    assert world.hosts[0].ledger.count(Table.CLAIM) == 2


def test_who_follows_a_case_hears_each_release_once(world: Bare) -> None:
    """News at every change, each piece a single time, and nothing after hanging up."""
    rosa = backed_up(world)
    device = rosa.claim([0])
    link = device.links[0]
    world.tell(0, "open", code=device.code)
    approve(world, device, 0, 1, 2)
    releases = [message for message in world.heard[link] if message.kind == "release"]
    states = [m.fields["state"] for m in world.heard[link] if m.kind == "case"]

    assert len(releases) == 5
    assert states[0] == "waiting for code"
    assert "open" in states
    assert states[-1] == "released"
    before = len(world.heard[link])
    world.queue.append((0, LinkDown(link)))
    world.tell(0, "ask", case=device.code, words="still there?")
    assert len(world.heard[link]) == before


def test_one_link_follows_only_so_many_claims(world: Bare) -> None:
    """A stranger cannot make a guardian remember claims without end."""
    link = world.wallet(0)
    answers = [
        world.request(link, "follow", claim=bytes([number]) * 32)["kind"] for number in range(20)
    ]

    assert answers.count("reply") == service.FOLLOWS_MAX
    assert answers[-1] == "not yet"
    assert world.request(link, "follow", claim=bytes(32))["kind"] == "reply"


def test_only_so_many_links_follow(world: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of who waits for news has an end."""
    monkeypatch.setattr(service, "FOLLOWERS_MAX", 2)
    links = [world.wallet(0) for _ in range(3)]
    kinds = [world.request(link, "follow", claim=NOTHING)["kind"] for link in links]
    assert kinds == ["reply", "reply", "not yet"]

    world.queue.append((0, LinkDown(links[0])))
    assert world.request(links[2], "follow", claim=NOTHING)["kind"] == "reply"


def test_who_knocks_can_be_admitted_though_many_knock(
    world: Bare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers that are refused push out each other, not the one who asks again."""
    monkeypatch.setattr(service, "KNOCKING_MAX", 3)
    world.settings = Settings(admission="admitted")
    world.boot(0)
    knocks = world.hosts[0].guardian.service.knocking
    for number in range(5):
        Member(world, f"Stranger {'abcde'[number]}").prepare()
    members = [Member(world, "Rosa Keller") for _ in range(5)]
    for member in members:
        member.prepare()
        assert "one by one" in member.deposit([0])[0]

    assert len(knocks) == 3
    assert member_number(members[-1].owner.public) in knocks


def test_the_owner_hears_who_claims_the_vault(world: Bare) -> None:
    """`seen` answers with deal, versions and every case on the vault, also one voted down."""
    rosa = backed_up(world)
    device = rosa.claim([0])
    world.tell(0, "open", code=device.code)
    approve(world, device, 0)
    word = owning.seen(world.codec, rosa.owner, rosa.vault, world.now)

    held = owning.read_held(world.request(rosa.link(1), "seen", raw=word.raw))
    assert [(case.claim, case.approvals, case.quorum) for case in held.cases] == [
        (device.claim.id, 1, 3)
    ]
    world.tell(0, "reject", case=device.code, words="no")
    held = owning.read_held(world.request(rosa.link(1), "seen", raw=word.raw))
    assert [case.approvals for case in held.cases] == [0]


def test_a_strangers_question_about_a_vault_is_refused(world: Bare) -> None:
    """Whether a vault exists is told to its owner only."""
    rosa = backed_up(world)
    stranger = SigningKey(bytes(32))
    for vault in (rosa.vault, bytes(32)):
        word = owning.seen(world.codec, stranger, vault, world.now)
        assert world.request(world.wallet(0), "seen", raw=word.raw)["kind"] == "refused"


def test_a_check_in_is_written_down_to_the_hour(world: Bare) -> None:
    """Guardians see when the owner was last on, roughly."""
    rosa = backed_up(world)
    world.now += 5 * HOUR
    for _ in range(2):
        word = owning.check_in(world.codec, rosa.owner, rosa.vault, world.now)
        assert world.request(rosa.link(0), "owner", raw=word.raw)["taken"]
    row = world.hosts[0].guardian.custody.row(rosa.vault)

    assert row is not None
    assert row.seen == world.now


def test_a_card_is_taken_only_where_the_label_names_one(world: Bare) -> None:
    """Nobody can leave a picture at a guardian that the owner did not commit to."""
    rosa = backed_up(world)
    deal = world.hosts[0].guardian.custody.deals(rosa.vault)[0][0].id

    answer = world.request(rosa.link(0), "card", vault=rosa.vault, deal=deal)
    assert "names no verification card" in answer["sentence"]
    answer = world.request(rosa.link(0), "card", vault=rosa.vault, deal=bytes(32))
    assert "does not hold the deal" in answer["sentence"]


def test_a_locked_node_answers_what_needs_no_key(world: Bare) -> None:
    """Claims are kept for later, deposits and vetoes are refused as locked."""
    rosa = backed_up(world)
    world.boot(0, locked=True)
    device = Claimant(world, "Rosa Keller", [0])
    assert world.hosts[0].ledger.count(Table.CLAIM) == 1
    assert world.request(world.wallet(0), "roster")["kind"] == "reply"
    rosa.prepare(again=True)
    rosa.links.clear()
    assert "locked" in rosa.deposit([0])[0]
    news = [m for m in world.heard[device.links[0]] if m.kind == "case"]
    assert news[-1].fields["locked"] is True


def test_a_guardian_is_rung_without_naming_anybody(world: Bare) -> None:
    """Notices name no member and hold no secret."""
    rosa = backed_up(world)
    device = rosa.claim([0])
    world.tell(0, "open", code=device.code)
    approve(world, device, 0, 1, 2)
    notices = [effect for _, effect in world.notices if isinstance(effect, Notify)]

    assert {notice.notice for notice in notices} >= {"claim", "opened", "released"}
    assert all(notice.case in (b"", device.claim.id) for notice in notices)


def test_messages_of_the_founding_are_answered_or_ignored(world: Bare) -> None:
    """A straggler's call gets the roster; drafts and signatures come too late."""
    link = world.wallet(0)
    for message in (
        Message("join", {"introduction": b""}),
        Message("draft", {"body": b""}),
        Message("signature", {"draft": NOTHING, "by": NOTHING, "signature": bytes(64)}),
        Message("founded", {"signed": b""}),
    ):
        world.queue.append((0, Received(link, message)))
    world.run()

    assert [message.kind for message in world.heard[link]] == ["founded"]
    assert not world.hosts[0].dropped
