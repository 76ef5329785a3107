"""Gossip: entries reach everyone once, liars are found out, strangers are left alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from protocol.contract import Heard, LinkUp, Message, Place, Received, Verified
from protocol.encoding import encode
from protocol.gossip import conflict
from protocol.keys import SigningKey
from protocol.limits import DAY, HOUR, MINUTE, SECOND
from protocol.statements import NOTHING
from simulations.hosts.bare import Bare
from simulations.hosts.member import Claimant, Member


@pytest.fixture
def world() -> Bare:
    bare = Bare()
    bare.mesh()
    bare.run()
    return bare


def heal(world: Bare, rounds: int = 4) -> None:
    """Time enough for digests to find what is missing."""
    world.mesh()
    for _ in range(rounds):
        world.pass_time(20 * SECOND)


def digests(world: Bare) -> list[bytes]:
    return [host.guardian.gossip.digest() for host in world.hosts if host.core is not None]


def forge(
    world: Bare, seat: int, seq: int, type_: str, fields: dict[str, Any], prev: bytes = NOTHING,
    incarnation: int = 0, key: SigningKey | None = None,
) -> Verified:  # fmt: skip
    """An entry in a guardian's name, signed with its key unless another is given."""
    place = {"epoch": 0, "seat": seat, "incarnation": incarnation, "seq": seq, "prev": prev}
    return world.codec.sign(
        key or world.hosts[seat].keys.identity, type_, {**place, **fields}
    )  # fmt: skip


def vote(world: Bare, seat: int, seq: int = 1, prev: bytes = NOTHING, **more: Any) -> Verified:
    fields = {
        "claim": b"\x21" * 32, "vault": NOTHING, "deal": NOTHING, "verdict": "ask", "how": "",
        "words": "who are you?", "revision": 0, "veto": NOTHING, "at": world.now, **more,
    }  # fmt: skip
    return forge(world, seat, seq, "vote", fields, prev)


def later(world: Bare, seat: int, seq: int, prev: bytes = NOTHING, **more: Any) -> Verified:
    """An entry of a type that this version does not know."""
    head = {"epoch": 0, "seat": seat, "incarnation": 0, "seq": seq, "prev": prev, **more}
    key = world.hosts[seat].keys.identity
    body = encode({"type": "later", "by": key.public, **head})
    framed = encode(body)
    signed = b"\x84\x6aSignature1\x43\xa1\x01\x27" + encode(b"holdfast/1/" + world.codec.federation)
    raw = bytes.fromhex("d28443a10127a0") + framed + b"\x58\x40" + key.sign(signed + framed)
    return world.codec.verify(raw)


def feed(world: Bare, to: int, via: int, *entries: Verified, check: bool = False) -> None:
    """Let a guardian hear entries over the link it has with another."""
    link = next(link for link, (other, _) in world.hosts[to].links.items() if other == via)
    world.queue.append((to, Heard(link, entries, check)))


def pipe(world: Bare, seats: list[tuple[int, int]]) -> None:
    for one, other in seats:
        world.link(one, other)
    world.run()


def claimed(world: Bare) -> tuple[Member, Claimant]:
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    world.tell(0, "open", code=device.code)
    return rosa, device


class Counting(Bare):
    """Counts the copies of each entry that arrive at each guardian."""

    def __init__(self, **more: Any) -> None:
        self.copies: Counter[tuple[int, bytes]] = Counter()
        super().__init__(**more)

    def _step(self, number: int, event: Any) -> None:
        if isinstance(event, Heard):
            for entry in event.entries:
                self.copies[number, entry.id] += 1
        super()._step(number, event)


# --- spreading -----------------------------------------------------------------------------


def test_with_all_links_every_entry_travels_once() -> None:
    """In a full mesh nobody is sent anything twice."""
    world = Counting()
    world.mesh()
    _, device = claimed(world)
    for seat in (0, 1, 2):
        world.tell(seat, "approve", code=device.code, how="in person")
    world.run()

    assert len(set(digests(world))) == 1
    assert set(world.copies.values()) == {1}
    assert len(world.copies) == 4 * len(list(world.hosts[0].ledger.entries()))


@pytest.mark.parametrize(
    ("missing", "most"),
    [
        ([(0, 1)], 2),
        ([(1, 4)], 2),
        ([(0, 1), (0, 2)], 2),
        ([(0, 1), (2, 3)], 3),  # the relays are not all linked, and cannot quite agree
    ],
)
def test_a_missing_link_is_bridged_at_once(missing: list[tuple[int, int]], most: int) -> None:
    """Two others relay unasked, so an entry arrives without waiting, about once."""
    world = Counting()
    for one in range(5):
        for other in range(one + 1, 5):
            if (one, other) not in missing:
                world.link(one, other)
    world.run()
    world.copies.clear()

    _, device = claimed(world)
    for seat in (0, 1, 2):
        world.tell(seat, "approve", code=device.code, how="in person")

    assert len(set(digests(world))) == 1
    assert max(world.copies.values()) <= most
    assert sum(world.copies.values()) / len(world.copies) < 1.5


def test_a_chain_of_links_is_enough() -> None:
    """Where no relay can know that it is one, digests carry entries on, hop by hop."""
    world = Bare()
    pipe(world, [(0, 1), (1, 2), (2, 3), (3, 4)])
    claimed(world)

    for _ in range(6):
        world.pass_time(20 * SECOND)

    assert len(set(digests(world))) == 1


def test_a_partition_heals() -> None:
    """Two halves go on by themselves, and know the same once they are linked again."""
    world = Bare()
    pipe(world, [(0, 1), (2, 3), (3, 4), (2, 4)])
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0, 2])
    world.tell(0, "open", code=device.code)
    world.tell(2, "open", code=device.code)
    world.tell(0, "approve", code=device.code, how="in person")
    world.tell(2, "approve", code=device.code, how="in person")
    world.tell(3, "approve", code=device.code, how="in person")
    assert device.open() is None

    heal(world)

    assert len(set(digests(world))) == 1
    assert device.open() is not None


def test_who_comes_late_catches_up(world: Bare) -> None:
    """A guardian that was off learns everything when it is back, from one neighbour."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    world.kill(4)
    device = rosa.claim([0])
    world.tell(0, "open", code=device.code)
    for seat in (0, 1, 2):
        world.tell(seat, "approve", code=device.code, how="in person")

    world.boot(4)
    world.link(4, 3)
    world.pass_time(20 * SECOND)

    assert len(set(digests(world))) == 1
    assert 4 in device.recovery().good


def test_lost_clocks_and_entries_are_made_up_for(world: Bare) -> None:
    """What was dropped on the way is found by the next digests."""
    _, device = claimed(world)
    world.link(0, 1)
    world.queue = [item for item in world.queue if not isinstance(item[1], LinkUp)]
    entry = vote(world, 3)
    feed(world, 0, 3, entry)
    world.queue = [item for item in world.queue if item[0] != 1]
    world.run()

    heal(world)

    assert len(set(digests(world))) == 1
    assert device.open() is None


def test_an_entry_of_a_later_version_is_relayed() -> None:
    """What this version does not understand is kept, passed on, and changes nothing."""
    world = Bare()
    pipe(world, [(0, 1), (1, 2), (0, 2), (2, 3), (1, 3), (3, 4), (2, 4)])
    entry = later(world, 0, 1, anything=[1, 2, 3])
    feed(world, 1, 0, entry)
    world.run()
    heal(world)

    # Ada's own node has lost it in this story and learns it back from the others.
    assert {host.guardian.gossip.heads[0, 0] for host in world.hosts} == {(1, entry.id)}
    world.boot(3)
    assert world.hosts[3].guardian.gossip.heads[0, 0] == (1, entry.id)


def test_entries_before_which_some_are_missing_wait(world: Bare) -> None:
    """A log has no holes: what comes too early is asked for again with what is before it."""
    first = vote(world, 3)
    second = vote(world, 3, 2, first.id, revision=1)

    feed(world, 0, 3, second)
    world.run()
    assert (3, 0) not in world.hosts[0].guardian.gossip.heads

    feed(world, 0, 3, first, second)
    world.run()
    heal(world)
    assert {host.guardian.gossip.heads[3, 0][0] for host in world.hosts} == {2}


# --- whose fault ---------------------------------------------------------------------------


def test_an_entry_in_anothers_name_costs_the_link(world: Bare) -> None:
    """Who passes on what its author did not sign has not checked it."""
    fake = forge(world, 2, 1, "address", {
        "number": 1, "address": "evil.example:1", "transport": bytes(32), "certificate": bytes(64),
    }, key=world.hosts[3].keys.identity)  # fmt: skip

    feed(world, 0, 3, fake)
    world.run()

    assert world.hosts[0].dropped == ["it passed on an entry that its author did not sign"]
    assert 3 not in world.hosts[0].guardian.gossip.linked_seats()
    assert not list(world.hosts[0].ledger.entries())


def test_an_entry_of_nobodys_seat_costs_the_link(world: Bare) -> None:
    """A seat that the roster does not have writes nothing."""
    stray = forge(world, 3, 1, "admit", {"member": bytes(32), "at": 1})
    body = {**{key: value for key, value in stray.body.items() if key not in ("type", "by")}}
    body["seat"] = 300
    stray = world.codec.sign(world.hosts[3].keys.identity, "admit", body)

    feed(world, 0, 3, stray)
    world.run()

    assert len(world.hosts[0].dropped) == 1


def test_a_statement_that_stands_in_no_log_costs_the_link(world: Bare) -> None:
    """A member's bare statement is no entry, whoever sends it as one."""
    bare = world.codec.sign(SigningKey(bytes(32)), "seen", {"vault": NOTHING, "at": 1})

    feed(world, 0, 3, bare)
    world.run()

    assert len(world.hosts[0].dropped) == 1


def test_good_entries_before_a_bad_one_are_kept_and_passed_on(world: Bare) -> None:
    """One neighbour's fault loses nothing that was right."""
    good = vote(world, 2)
    bad = forge(world, 3, 1, "admit", {"member": bytes(32), "at": 1},
                key=world.hosts[2].keys.identity)  # fmt: skip

    feed(world, 0, 2, good, bad)
    world.run()
    heal(world)

    assert {host.guardian.gossip.heads.get((2, 0)) for host in world.hosts} == {(1, good.id)}


MALFORMED = [
    Message("nonsense", {}),
    Message("clock", {}),
    Message("clock", {"heads": [[1, 2, 3]], "reply": False}),
    Message("clock", {"heads": [[1, 0, 1, b"short"]], "reply": False}),
    Message("clock", {"heads": [[0, 0, 1, bytes(8)]] * 513, "reply": False}),
    Message("clock", {"heads": [], "reply": 1}),
    Message("digest", {"digest": bytes(15)}),
    Message("digest", {"digest": "text"}),
    Message("ping", {"now": -1, "linked": [], "digest": bytes(16)}),
    Message("ping", {"now": 1, "linked": [0] * 33, "digest": bytes(16)}),
    Message("ping", {"now": 1, "linked": [True], "digest": bytes(16)}),
    Message("compare", {"seat": 0, "incarnation": 0}),
    Message("compare", {"seat": 0, "incarnation": 0, "upto": 2**60}),
    Message("roster", {}),
    Message("roster", {"request": -1}),
    Message("deposit", {"request": 1, "deal": b"", "version": b"", "box": b""}),
    Message("claim", {"request": 1, "raw": bytes(65_001), "code": "1"}),
    Message("claim", {"request": 1, "raw": b"", "code": "1" * 16}),
    Message("follow", {"request": 1, "claim": bytes(31)}),
    Message("draft", {"body": "text"}),
    Message("signature", {"draft": bytes(32), "by": bytes(32), "signature": bytes(63)}),
    Message("founded", {"signed": None}),
    Message("join", {"introduction": b"", "more": 1}),
]


@pytest.mark.parametrize("message", MALFORMED, ids=lambda message: message.kind)
def test_a_malformed_message_costs_the_link_and_nothing_else(world: Bare, message: Message) -> None:
    """Bytes that break a rule end the link they came over, and the node goes on."""
    link = next(iter(world.hosts[0].links))

    world.queue.append((0, Received(link, message)))
    world.run()

    assert len(world.hosts[0].dropped) == 1
    assert len(world.hosts[0].links) == 3
    claimed(world)
    heal(world)
    assert len(set(digests(world))) == 1


def test_well_formed_nonsense_changes_nothing(world: Bare) -> None:
    """Clocks of logs that nobody has, comparisons of nothing: no answer, no harm."""
    claimed(world)
    link = next(iter(world.hosts[0].links))
    for message in (
        Message("clock", {"heads": [[999, 7, 2**53 - 1, bytes(8)]], "reply": False}),
        Message("clock", {"heads": [[1, 0, 2**53 - 1, bytes(8)]] * 2, "reply": True}),
        Message("ping", {"now": 2**53 - 1, "linked": [77, 77, 0], "digest": bytes(16)}),
        Message("compare", {"seat": 9, "incarnation": 0, "upto": 5}),
        Message("compare", {"seat": 0, "incarnation": 0, "upto": 2**53 - 1}),
        Message("digest", {"digest": bytes(16)}),
    ):
        world.queue.append((0, Received(link, message)))
    world.run()
    heal(world)

    assert not world.hosts[0].dropped
    assert len(set(digests(world))) == 1


def test_strangers_are_told_nothing(world: Bare) -> None:
    """A link without a seat gets no entries, no clocks, and cannot bring any."""
    claimed(world)
    link = world.wallet(0)
    entry = vote(world, 3)
    world.queue.append((0, Heard(link, (entry,))))
    for message in (
        Message("clock", {"heads": [], "reply": True}),
        Message("ping", {"now": world.now, "linked": [], "digest": bytes(16)}),
        Message("digest", {"digest": bytes(16)}),
        Message("compare", {"seat": 0, "incarnation": 0, "upto": 1}),
    ):
        world.queue.append((0, Received(link, message)))
    world.run()
    world.tell(0, "rehearsed")
    heal(world)

    assert world.heard[link] == []
    assert (3, 0) not in world.hosts[0].guardian.gossip.heads


# --- liars ---------------------------------------------------------------------------------


def equivocate(world: Bare, seat: int, one: Verified, other: Verified, to: dict[int, int]) -> None:
    """Tell some guardians one thing and the others another, at the same place."""
    for guardian, which in to.items():
        feed(world, guardian, seat, (one, other)[which])
    world.run()


@pytest.mark.parametrize("to", [{0: 0, 1: 1}, {0: 0, 1: 0, 2: 1, 3: 1}, {0: 1, 1: 0, 2: 0, 3: 0}])
def test_two_entries_at_one_place_are_proven_everywhere(world: Bare, to: dict[int, int]) -> None:
    """Whoever heard which, all guardians end with the proof, and agree."""
    one, other = vote(world, 4), vote(world, 4, words="another thing")
    equivocate(world, 4, one, other, to)

    heal(world)

    for host in world.hosts[:4]:
        proof = host.guardian.gossip.proven[4]
        first, second = proof.body["first"], proof.body["second"]
        assert conflict(world.codec.verify(first), world.codec.verify(second))
    assert len(set(digests(world)[:4])) == 1


def test_a_fork_followed_by_more_entries_is_proven(world: Bare) -> None:
    """A liar that goes on on both branches is found out all the same."""
    base = vote(world, 4)
    left = [base, vote(world, 4, 2, base.id, revision=1)]
    right = [base, vote(world, 4, 2, base.id, revision=1, words="no")]
    for seq in range(3, 8):
        left.append(vote(world, 4, seq, left[-1].id, revision=seq - 1))
    right.append(vote(world, 4, 3, right[-1].id, revision=2))
    feed(world, 0, 4, *left)
    feed(world, 1, 4, *right)
    world.run()

    heal(world)

    assert all(4 in host.guardian.gossip.proven for host in world.hosts[:4])
    assert len(set(digests(world)[:4])) == 1


def test_two_votes_of_one_revision_are_proven_likewise(world: Bare) -> None:
    """At two places of one log: a guardian has one vote for each revision."""
    first = vote(world, 4)
    second = vote(world, 4, 2, first.id, words="another thing")
    feed(world, 0, 4, first, second)
    world.run()

    heal(world)

    assert all(4 in host.guardian.gossip.proven for host in world.hosts[:4])


@pytest.mark.parametrize("size", [100, 20_000, 29_000])
def test_a_liar_cannot_hide_behind_large_entries(world: Bare, size: int) -> None:
    """Two entries of any size that one place can hold make a proof."""
    one, other = (later(world, 4, 1, filler=bytes([kind]) * size) for kind in range(2))
    equivocate(world, 4, one, other, {0: 0, 1: 1})

    heal(world)

    assert all(4 in host.guardian.gossip.proven for host in world.hosts[:4])


def test_a_liar_with_two_accusations_at_one_place_is_shut_out(world: Bare) -> None:
    """Accusations are too large to be proven with: whoever sees both believes its own eyes."""
    entry = later(world, 3, 1, filler=bytes(20_000))
    fields = {"accused": world.hosts[0].keys.identity.public, "first": entry.raw}
    one = forge(world, 4, 1, "misbehaviour", {**fields, "second": entry.raw})
    other = forge(world, 4, 1, "misbehaviour", {**fields, "second": entry.raw[:-1]})
    equivocate(world, 4, one, other, {0: 0, 1: 1, 2: 0, 3: 1})

    heal(world)

    assert all(host.guardian.gossip.is_excluded(4) for host in world.hosts[:4])
    assert len(set(digests(world)[:4])) == 1


def test_a_proven_liars_votes_do_not_count(world: Bare) -> None:
    """A quorum that rests on a liar lapses."""
    _, device = claimed(world)
    for seat in (0, 4):
        world.tell(seat, "approve", code=device.code, how="in person")
    head = world.hosts[4].guardian.gossip.heads[4, 0]
    lie = vote(world, 4, 1, words="never said")
    assert head[0] == 1
    feed(world, 1, 4, lie, check=True)
    world.run()

    world.tell(1, "approve", code=device.code, how="in person")

    heal(world)
    for host in world.hosts[:4]:
        case = host.guardian.casework.docket.cases[device.claim.id]
        standing = host.guardian.casework.standings(case, world.now)[0][0]
        assert standing.approvals == (0, 1)
        assert not any(seat < 4 for seat in case.releases)
    assert device.open() is None


def test_a_quorum_that_loses_a_liar_stops_the_clock_at_once() -> None:
    """The waiting period is not served while too few honest votes stand."""
    world = Bare(waiting=DAY)
    world.mesh()
    _, device = claimed(world)
    for seat in (0, 1, 4):
        world.tell(seat, "approve", code=device.code, how="in person")
    world.pass_time(12 * HOUR)
    feed(world, 2, 4, vote(world, 4, 1, words="never said"), check=True)
    world.run()
    heal(world)

    world.pass_time(10 * HOUR)
    world.tell(3, "approve", code=device.code, how="in person")
    world.pass_time(10 * HOUR)
    assert not _released(world, device)

    world.pass_time(3 * HOUR)
    assert _released(world, device)


def _released(world: Bare, device: Claimant) -> bool:
    """Whether an honest guardian has released; the liar of these tests has seat 4."""
    return any(
        seat < 4
        for host in world.hosts[:4]
        for seat in host.guardian.casework.docket.cases[device.claim.id].releases
    )


def test_what_a_liar_carried_and_released_stays_good(world: Bare) -> None:
    """A member's claim counts by the member's signature, a release by its bytes."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([4, 0])
    world.tell(4, "open", code=device.code)
    for seat in (0, 1, 4):
        world.tell(seat, "approve", code=device.code, how="in person")
    assert all(len(_case(world, seat, device).releases) == 5 for seat in range(5))
    feed(world, 2, 4, vote(world, 4, 1, words="never said"), check=True)
    world.run()
    heal(world)

    assert 4 in world.hosts[0].guardian.gossip.proven
    for seat in range(4):
        world.boot(seat)
    heal(world)

    assert all(4 in _case(world, seat, device).releases for seat in range(4))
    assert 4 in device.recovery().good


def _case(world: Bare, seat: int, device: Claimant) -> Any:
    return world.hosts[seat].guardian.casework.docket.cases[device.claim.id]


def test_a_claim_that_only_a_liar_carried_reaches_all(world: Bare) -> None:
    """Whoever has a claim from a liar's log carries it for those who shut the liar out."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([4, 0])
    one, other = later(world, 4, 1, word="a"), later(world, 4, 1, word="b")
    carry = forge(world, 4, 2, "carry", {"raw": device.claim.raw}, one.id)
    feed(world, 0, 4, one, carry)
    feed(world, 1, 4, other)
    world.run()
    heal(world)
    assert device.claim.id in world.hosts[1].guardian.casework.docket.cases

    world.tell(0, "open", code=device.code)
    for seat in (0, 1, 2):
        world.tell(seat, "approve", code=device.code, how="in person")

    assert device.open() is not None


def test_an_accusation_that_proves_nothing_changes_nothing(world: Bare) -> None:
    """Anyone may cry wolf; two statements that may both be signed accuse nobody."""
    first = vote(world, 3)
    second = vote(world, 3, 2, first.id, revision=1)
    stranger = SigningKey(bytes(32)).public
    good = {"accused": world.hosts[3].keys.identity.public, "first": first.raw}
    odd = later(world, 3, 5, type="x").raw
    prev, seq = NOTHING, 1
    for fields in (
        {**good, "second": second.raw},
        {**good, "second": first.raw},
        {**good, "second": vote(world, 3, words="never said").raw[:-64] + bytes(64)},
        {**good, "second": b"\x00"},
        {**good, "second": odd},
        {**good, "accused": stranger, "second": vote(world, 3, words="other").raw},
        {**good, "second": vote(world, 2, words="other").raw},
    ):
        entry = forge(world, 4, seq, "misbehaviour", fields, prev)
        feed(world, 0, 4, entry)
        prev, seq = entry.id, seq + 1
    world.run()
    heal(world)

    assert not any(host.guardian.gossip.proven for host in world.hosts)
    for seat in range(4):
        world.boot(seat)
    assert not any(host.guardian.gossip.proven for host in world.hosts)


def test_two_votes_of_a_later_kind_prove_nothing(world: Bare) -> None:
    """What this version cannot read it does not hold against its author, nor trip over."""
    key = world.hosts[3].keys.identity

    def odd(seq: int) -> bytes:
        head = {"epoch": 0, "seat": 3, "incarnation": 0, "seq": seq, "prev": NOTHING}
        framed = encode(encode({"type": "vote", "by": key.public, **head}))
        before = b"\x84\x6aSignature1\x43\xa1\x01\x27" + encode(
            b"holdfast/1/" + world.codec.federation
        )
        return bytes.fromhex("d28443a10127a0") + framed + b"\x58\x40" + key.sign(before + framed)

    fields = {"accused": key.public, "first": odd(1), "second": odd(2)}
    feed(world, 0, 4, forge(world, 4, 1, "misbehaviour", fields))
    world.run()
    heal(world)

    assert not world.hosts[0].guardian.gossip.proven
    assert len(set(digests(world)[:4])) == 1


def test_many_incarnations_do_not_break_the_conversation(world: Bare) -> None:
    """A guardian cannot make everyone's clocks larger than a message may be."""
    entries = [
        forge(world, 4, 1, "admit", {"member": bytes(32), "at": 1}, incarnation=number)
        for number in range(600)
    ]
    feed(world, 0, 4, *entries)
    world.run()
    heal(world)

    assert not any(host.dropped for host in world.hosts[:4])
    assert len(set(digests(world)[:4])) == 1


@pytest.mark.parametrize("wrong", ["garbage", "forged", "type", "life", "veto"])
def test_nonsense_that_a_guardian_carries_means_nothing(world: Bare, wrong: str) -> None:
    """One guardian cannot trip up the others with what it carries, now or at their restart."""
    rosa, device = claimed(world)
    stranger = SigningKey(b"\x55" * 32)
    body = {key: value for key, value in device.claim.body.items() if key not in ("type", "by")}
    other = world.codec.sign(stranger, "claim", {**body, "nonce": b"\x01" * 16})
    raws = {
        "garbage": b"\xff" * 40,
        "forged": other.raw[:-64] + bytes(64),
        "type": world.codec.sign(stranger, "seen", {"vault": rosa.vault, "at": 1}).raw,
        "life": world.codec.sign(
            stranger, "claim", {**body, "expires": world.now + 900 * DAY}
        ).raw,
        "veto": world.codec.sign(stranger, "veto", {
            "vault": rosa.vault, "claim": device.claim.id, "words": "", "at": 1}).raw,
    }  # fmt: skip
    feed(world, 1, 4, forge(world, 4, 1, "carry", {"raw": raws[wrong]}))
    world.run()
    heal(world)
    before = world.tell(1, "claims")

    world.boot(1)
    heal(world)

    assert world.tell(1, "claims") == before
    assert not _case(world, 1, device).vetoes
    for seat in (0, 1, 2):
        world.tell(seat, "approve", code=device.code, how="in person")
    assert device.open() is not None


def test_a_locked_node_relays_and_accuses_nobody(world: Bare) -> None:
    """Without its keys a node shuts a liar out, and writes it down when it is unlocked."""
    world.boot(0, locked=True)
    world.mesh()
    world.run()
    one, other = vote(world, 4), vote(world, 4, words="another thing")
    feed(world, 0, 4, one)
    world.run()
    feed(world, 0, 4, other, check=True)
    feed(world, 1, 4, other)
    world.run()

    assert world.hosts[0].guardian.gossip.is_excluded(4)
    assert Place(0, 0, 1) not in dict(world.hosts[0].ledger.entries())
    world.boot(0)
    heal(world)
    assert 4 in world.hosts[1].guardian.gossip.proven


# --- clocks --------------------------------------------------------------------------------


def test_the_median_of_the_neighbours_clocks_is_believed(world: Bare) -> None:
    """One neighbour with a wrong clock, however many links it holds, moves nothing."""
    gossip = world.hosts[0].guardian.gossip
    assert gossip.skew() == 0
    for link, (other, _) in list(world.hosts[0].links.items()):
        if other == 4:
            ping = {"now": world.now + DAY, "linked": [], "digest": gossip.digest()}
            world.queue.append((0, Received(link, Message("ping", ping))))
    for number in range(1000, 1005):
        world.queue.append((0, LinkUp(number, 4)))
        ping = {"now": world.now + DAY, "linked": [], "digest": gossip.digest()}
        world.queue.append((0, Received(number, Message("ping", ping))))
    world.run()

    assert abs(gossip.skew() or 0) < MINUTE


def test_too_few_clocks_are_no_witness() -> None:
    """With fewer than half of the others linked, nobody vouches for the time."""
    world = Bare()
    world.link(0, 1)
    world.run()

    assert world.hosts[0].guardian.gossip.skew() is None
