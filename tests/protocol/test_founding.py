"""Founding: everybody signs the same roster, whoever is off meanwhile."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.contract import Message, Notify, Received, Table
from protocol.encoding import encode, from_text, to_text
from protocol.errors import BadSignature, HoldfastError, Locked, Malformed, Refused
from protocol.federation import (
    INTRODUCTION_PREFIX,
    draft,
    introduce,
    introduction_text,
    read_introduction,
    read_signed,
    sign_roster,
)
from protocol.founding import ROSTER_KEY
from protocol.keys import SigningKey
from protocol.limits import DAY
from simulations.hosts.bare import START, make_host
from simulations.hosts.founders import Founders
from simulations.hosts.member import Member


def signed_bodies(world: Founders) -> list[bytes | None]:
    return [host.ledger.get(Table.META, ROSTER_KEY) for host in world.hosts]


def all_live(world: Founders) -> bool:
    return world.live() == list(range(len(world.hosts))) and len(set(signed_bodies(world))) == 1


# --- signing -------------------------------------------------------------------------------


@given(order=st.permutations(range(5)), organiser=st.integers(0, 4))
@settings(max_examples=15, deadline=None)
def test_all_sign_in_any_order(order: list[int], organiser: int) -> None:
    """With the last signature the federation is live, whoever signs last and organises."""
    world = Founders()
    world.draft(organiser)
    world.meet(1)
    for number in order:
        assert not world.live()
        world.accept(number)

    world.meet(2)

    assert all_live(world)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15, deadline=None)
def test_a_founding_survives_crashes_and_missed_calls(seed: int) -> None:
    """Whoever goes off and comes back when, the others' signatures are never lost."""
    rng = random.Random(seed)
    world = Founders(quiet=[4], seed=seed)
    world.draft()
    waiting = list(range(5))
    for _ in range(200):
        if not waiting:
            break
        number = rng.randrange(5)
        act = rng.random()
        if act < 0.3:
            world.boot(number)
        elif act < 0.6:
            world.meet(1)
        elif number in waiting:
            try:
                if world.hosts[number].links == {} and number == 4:
                    world.tell(4, "join", organiser=world.lines()[0])
                world.accept(number)
                waiting.remove(number)
            except HoldfastError:
                world.dial()
    assert not waiting

    world.meet(4)

    assert all_live(world)


def test_the_draft_shows_who_has_signed() -> None:
    """Everybody sees whom they would found it with; the organiser sees who is missing."""
    world = Founders()
    shown = world.draft()
    assert shown["organiser"]
    world.meet(1)
    world.accept(2)

    view = world.tell(0, "drafted")

    assert [guardian["name"] for guardian in view["guardians"]] == [
        "ada", "ben", "cleo", "dev", "eve",
    ]  # fmt: skip
    assert [guardian["signed"] for guardian in view["guardians"]] == [
        False, False, True, False, False,
    ]  # fmt: skip
    assert len({world.tell(number, "drafted")["phrase"] for number in range(5)}) == 1
    assert ("ben", Notify("draft")) in world.notices
    assert world.tell(1, "status")["phase"] == "founding"


def test_the_organiser_may_die_half_way() -> None:
    """Signatures given before and during its absence count when it is back."""
    world = Founders()
    world.draft()
    world.meet(1)
    for number in (1, 2):
        world.accept(number)
    world.kill(0)
    for number in (3, 4):
        world.accept(number)
    assert not world.live()

    world.boot(0)
    world.accept(0)
    world.meet()

    assert all_live(world)


def test_a_guardian_that_only_dials_out_founds_with_the_others() -> None:
    """It calls the organiser with the organiser's introduction, and need not stay on."""
    world = Founders(quiet=[3])
    world.draft()
    world.meet(1)
    assert not world.hosts[3].links
    with pytest.raises(Refused, match="no draft has arrived"):
        world.tell(3, "drafted")

    world.tell(3, "join", organiser=world.lines()[0])
    world.meet(1)
    world.accept(3)
    world.kill(3)
    for number in (0, 1, 2, 4):
        world.accept(number)
    world.meet(2)
    assert world.live() == [0, 1, 2, 4]

    world.boot(3)
    world.meet(2)
    assert all_live(world)


def test_a_straggler_hears_of_the_founding_from_whom_it_reaches() -> None:
    """A node that was off at the last signature gets the roster from a live guardian."""
    world = Founders()
    world.draft()
    world.meet(1)
    world.accept(4)
    world.kill(4)
    for number in range(4):
        world.accept(number)
    world.meet(2)
    assert world.live() == [0, 1, 2, 3]

    world.boot(4)
    world.link(2, 4)
    world.run()

    assert all_live(world)


def test_a_founded_federation_gives_a_key_back() -> None:
    """What was founded by messages alone is a federation like any other."""
    world = Founders()
    world.draft(waiting_default=0)
    world.meet(1)
    for number in range(5):
        world.accept(number)
    world.meet()
    world.roster = read_signed(signed_bodies(world)[0] or b"").roster
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([1])
    world.tell(1, "open", code=device.code)
    for number in (1, 3, 4):
        world.tell(number, "approve", code=device.code, how="in person")

    assert device.open() is not None


def test_a_changed_draft_needs_every_signature_anew() -> None:
    """What was signed is void when the draft changes, and that must be said on purpose."""
    world = Founders()
    world.draft()
    world.meet(1)
    for number in (1, 2):
        world.accept(number)
    world.run()
    with pytest.raises(Refused, match="2 guardians have signed the draft already"):
        world.draft(threshold=2)

    seen = world.tell(3, "drafted")["id"]
    world.draft(threshold=2, discard=True)
    world.meet(1)
    with pytest.raises(Refused, match="has changed since you looked"):
        world.tell(3, "accept", draft=seen)
    for number in (0, 3, 4):
        world.accept(number)
    world.meet(1)
    assert not world.live()

    for number in (1, 2):
        world.accept(number)
    world.meet(2)
    assert all_live(world)
    assert read_signed(signed_bodies(world)[0] or b"").roster.threshold == 2


def test_a_locked_node_signs_nothing() -> None:
    """Without its keys a node shows the draft and cannot accept it."""
    world = Founders()
    world.draft()
    world.boot(1, locked=True)
    world.meet(1)

    with pytest.raises(Locked, match="locked"):
        world.accept(1)


def test_one_who_organises_does_not_join_another() -> None:
    """A node is in one founding at a time; whoever only dials out cannot be called."""
    world = Founders(quiet=[2])
    world.draft()

    with pytest.raises(Refused, match="a draft of its own"):
        world.tell(0, "join", organiser=world.lines()[1])
    with pytest.raises(Refused, match="cleo cannot be called"):
        world.tell(1, "join", organiser=world.lines()[2])


def test_before_the_founding_nothing_else_is_answered() -> None:
    """Wallets and people get a sentence, not silence."""
    world = Founders()

    answer = world.request(world.wallet(0), "roster")

    assert answer["sentence"] == "this guardian is not in a federation yet"
    with pytest.raises(Refused, match="not in a federation yet"):
        world.tell(0, "claims")


# --- forgeries -----------------------------------------------------------------------------


def drafted(**more: Any) -> Founders:
    world = Founders()
    world.draft(**more)
    world.meet(1)
    return world


def received(world: Founders, number: int, message: Message) -> list[str]:
    """What a node says when it hangs up on a message, if it does."""
    link = next(iter(world.hosts[number].links))
    world.queue.append((number, Received(link, message)))
    world.run()
    return world.hosts[number].dropped


def test_a_forged_signature_costs_the_link() -> None:
    """A signature that does not hold is the fault of whoever sent it."""
    world = drafted()
    made = world.tell(0, "drafted")["id"]
    key = world.hosts[1].keys.identity.public
    fields = {"draft": made, "by": key, "signature": bytes(64)}

    assert received(world, 0, Message("signature", fields))
    assert not any(guardian["signed"] for guardian in world.tell(0, "drafted")["guardians"])


def test_signatures_of_strangers_and_of_other_drafts_count_for_nothing() -> None:
    """Late mail of an earlier draft is no fault, and no signature either."""
    world = drafted()
    made = world.tell(0, "drafted")["id"]
    key = world.hosts[1].keys.identity.public
    for fields in (
        {"draft": bytes(32), "by": key, "signature": bytes(64)},
        {"draft": made, "by": bytes(32), "signature": bytes(64)},
    ):
        assert not received(world, 0, Message("signature", fields))
    assert not any(guardian["signed"] for guardian in world.tell(0, "drafted")["guardians"])


@pytest.mark.parametrize("kind", ["draft", "founded"])
def test_garbage_costs_the_link(kind: str) -> None:
    """Bytes that are no roster end the link they came over."""
    world = drafted()
    field = {"draft": "body", "founded": "signed"}[kind]

    assert received(world, 1, Message(kind, {field: b"\xff" * 9}))


def test_a_draft_with_another_key_of_ours_is_refused() -> None:
    """An organiser cannot slip another sealing key under a guardian's name."""
    world = drafted()
    fake = [host.introduction for host in world.hosts]
    body = {key: value for key, value in fake[1].body.items() if key not in ("type", "by")}
    fake[1] = introduce(
        world.hosts[1].keys.identity,
        **{**{key: body[key] for key in body if key != "created"}, "sealing": b"\x09" * 32},
        now=START,
    )
    made = draft("Elm Street", 3, fake, now=START, nonce=bytes(16))

    assert "other keys" in received(world, 1, Message("draft", {"body": made.body}))[0]


def test_a_draft_of_others_is_none_of_our_business() -> None:
    """A node shows no draft that it is not part of."""
    world = Founders()
    world.link(0, 1)
    world.run()
    others = [make_host(name, 10 + number).introduction for number, name in enumerate("xyz")]
    made = draft("Oak Street", 2, others, now=START, nonce=bytes(16))

    assert not received(world, 1, Message("draft", {"body": made.body}))
    with pytest.raises(Refused, match="no draft"):
        world.tell(1, "drafted")


def test_a_roster_that_this_node_did_not_accept_founds_nothing() -> None:
    """However many others have signed: without its own word a node joins nothing."""
    world = drafted()
    hosts = world.hosts[:5]
    made = draft("Elm Street", 2, [host.introduction for host in hosts], now=START, nonce=bytes(16))
    signatures = [sign_roster(host.keys.identity, made).raw[-64:] for host in hosts]
    raw = encode({"body": made.body, "signatures": signatures})

    assert not received(world, 1, Message("founded", {"signed": raw}))
    assert not world.live()


# --- refusals ------------------------------------------------------------------------------


def lines(count: int) -> list[str]:
    return [
        introduction_text(make_host(f"guardian {number}", number).introduction)
        for number in range(count)
    ]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ({"threshold": 1}, "a threshold of 1 would let one guardian alone take every key"),
        ({"threshold": 0}, "a threshold of 0"),
        ({"threshold": -1}, "a threshold of -1"),
        ({"threshold": 6}, "can never be reached by 5 guardians"),
        ({"name": "  "}, "needs a name"),
        ({"name": "ü" * 33}, "up to 64 bytes"),
        ({"introductions": []}, "from 2 to 32 guardians, this one 1"),
        ({"introductions": lines(33)}, "from 2 to 32 guardians, this one 33"),
        ({"quorum": 2}, "a quorum lies between the threshold, 3"),
        ({"quorum": 6}, "a quorum lies between the threshold, 3"),
        ({"waiting_default": 91 * DAY}, "waiting period"),
    ],
)  # fmt: skip
def test_a_draft_against_the_rules_is_refused_with_the_numbers(
    args: dict[str, Any], sentence: str
) -> None:
    """The organiser is told which rule, and nothing is kept of the attempt."""
    world = Founders()

    with pytest.raises(Refused, match=sentence):
        world.draft(**args)

    assert world.tell(0, "status")["draft"] is None


def test_nobody_sits_twice() -> None:
    """The same introduction, name, key or address twice is refused by name."""
    world = Founders()
    body = dict(world.hosts[1].introduction.body)
    for change, word in (
        ({}, "same name"),
        ({"name": "benjamin"}, "same identity key"),
        ({"name": "x", "identity": 1}, "same sealing key"),
        ({"name": "x", "identity": 1, "sealing": b"\x01" * 32}, "same transport key"),
        (
            {"name": "x", "identity": 1, "sealing": b"\x01" * 32, "transport": b"\x02" * 32},
            r"same address \(ben.example:7001\)",
        ),
    ):
        key = SigningKey(b"\x03" * 32) if "identity" in change else world.hosts[1].keys.identity
        fields: dict[str, Any] = {
            name: change.get(name, body[name])
            for name in ("name", "sealing", "transport", "certificate", "address", "contact")
        }
        twin = introduce(key, **fields, languages=[], hours="", now=START)
        with pytest.raises(Refused, match=word):
            world.draft(introductions=[*world.lines(), introduction_text(twin)])


def test_two_that_only_dial_out_share_no_address() -> None:
    """Having no address is no address in common."""
    world = Founders(quiet=[1, 2])

    assert world.draft()["threshold"] == 3


def test_a_spoilt_introduction_is_refused() -> None:
    """A line with a wrong signature, a wrong letter or of another kind is told apart."""
    world = Founders()
    raw = from_text(INTRODUCTION_PREFIX, world.lines()[1])
    forged = to_text(INTRODUCTION_PREFIX, raw[:-64] + bytes(64))
    with pytest.raises(BadSignature, match="signature does not hold"):
        world.draft(introductions=[world.lines()[0], forged])
    line = world.lines()[1]
    wrong = line[:40] + ("Q" if line[40] != "Q" else "P") + line[41:]
    with pytest.raises(Malformed, match="character 41"):
        read_introduction(wrong)
    with pytest.raises(Malformed, match="different kind"):
        read_introduction("HF1QQQQQQQ")
