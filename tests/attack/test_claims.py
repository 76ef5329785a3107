"""Claims as attackers make them: replayed, by the thousand, under another's code, to find out who
is a member; and guardians that keep to themselves what they are given."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from node.store import SqliteStore
from protocol import cases
from protocol.cases import CLAIM_LIFE_MAX
from protocol.contract import (
    Effect,
    Heard,
    Message,
    Moment,
    Notify,
    Persist,
    PutRow,
    Received,
    Send,
    Table,
    Verified,
)
from protocol.custody import Settings
from protocol.errors import HoldfastError, NotYet, Refused
from protocol.founding import FEDERATION_KEY, ROSTER_KEY
from protocol.guardian import GuardianCore
from protocol.keys import SigningKey
from protocol.limits import DAY
from protocol.service import CLAIMS_WAITING_MAX
from simulations.hosts import member
from simulations.hosts.bare import START, Bare
from simulations.hosts.member import Claimant, Member

FLOOD = 10_000


@pytest.fixture
def world() -> Bare:
    bare = Bare()
    bare.mesh()
    bare.run()
    return bare


def approve(world: Bare, device: Claimant, seats: tuple[int, ...]) -> None:
    for seat in seats:
        world.tell(seat, "approve", code=device.code, how="in person")


def entries_of(world: Bare, seat: int) -> list[Verified]:
    return [world.codec.verify(raw) for _, raw in world.hosts[seat].ledger.entries()]


def releases(world: Bare) -> int:
    return sum(entry.type == "release" for entry in entries_of(world, 0))


# --- replays --------------------------------------------------------------------------


def test_a_claim_replayed_when_all_of_it_is_over(world: Bare) -> None:
    """Claim and stored votes of an expired case, sent in once more, start nothing."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    thief = rosa.claim([0])
    world.tell(0, "open", code=thief.code)
    approve(world, thief, (0, 1))
    stored = entries_of(world, 0)
    world.pass_time(CLAIM_LIFE_MAX + DAY)
    for seat in range(5):
        world.boot(seat)
    world.mesh()
    world.run()

    answer = world.request(world.wallet(3), "claim", raw=thief.claim.raw, code=thief.code)
    assert "expired" in answer["sentence"]
    for host in world.hosts:
        for link in list(host.links):
            world.queue.append((world.hosts.index(host), Heard(link, tuple(stored), True)))
    world.run()
    with pytest.raises(HoldfastError):
        approve(world, thief, (2,))
    with pytest.raises(HoldfastError):
        world.tell(2, "open", code=thief.code)
    world.pass_time(DAY)

    assert releases(world) == 0
    assert not any(host.guardian.casework.docket.case(thief.claim.id).is_open
                   for host in world.hosts)  # fmt: skip


def test_a_claim_replayed_to_a_guardian_that_never_heard_of_it(world: Bare) -> None:
    """An expired claim and its votes mean nothing to a node that was away all the time."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    world.kill(4)
    thief = rosa.claim([0])
    world.tell(0, "open", code=thief.code)
    approve(world, thief, (0, 1, 2))
    assert releases(world) == 4
    world.pass_time(CLAIM_LIFE_MAX + DAY)

    world.boot(4)
    world.mesh()
    world.pass_time(DAY)

    assert releases(world) == 4


def test_a_claim_replayed_after_its_release(world: Bare) -> None:
    """What was released once is not released again, and the new owner's vault is not touched."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    world.tell(0, "open", code=device.code)
    approve(world, device, (0, 1, 2))
    recovered = device.open()
    assert recovered is not None
    device.succeed(recovered, 0)
    world.run()
    for seat in range(5):
        world.boot(seat)
    world.mesh()
    world.run()

    for seat in range(5):
        world.request(world.wallet(seat), "claim", raw=device.claim.raw, code=device.code)
    with pytest.raises(HoldfastError):
        approve(world, device, (3,))
    world.pass_time(DAY)

    assert releases(world) == 5


# --- ten thousand ---------------------------------------------------------------------


class Alone:
    """One guardian's core on a real store, without neighbours."""

    def __init__(self, world: Bare, path: Path) -> None:
        self.host = world.hosts[0]
        self.store = SqliteStore(str(path))
        rows = {ROSTER_KEY: world.signed.to_bytes(), FEDERATION_KEY: world.roster.id}
        for key, value in rows.items():
            self._apply(Persist(PutRow(Table.META, key, value)))
        self.core = GuardianCore(
            self.store, self.host.introduction, self.host.keys, Settings(), world.roster,
            world.signed.to_bytes(),
        )  # fmt: skip
        for effect in self.core.resume(Moment(START, bytes(32))):
            self._apply(effect)

    def _apply(self, effect: Effect) -> None:
        if isinstance(effect, Persist):
            self.store.transact(lambda transaction: transaction.apply(effect.change))

    def asked(self, messages: list[Message]) -> tuple[list[list[Effect]], list[float]]:
        """What comes of requests, and how long each took; in one transaction, as the driver."""
        answers, seconds = [], []

        def work(transaction: SqliteStore) -> None:
            for message in messages:
                begun = time.perf_counter()
                effects = self.core.handle(Moment(START, bytes(32)), Received(1, message))
                seconds.append(time.perf_counter() - begun)
                for effect in effects:
                    if isinstance(effect, Persist):
                        transaction.apply(effect.change)
                answers.append(list(effects))

        self.store.transact(work)
        return answers, seconds


def cheap_claim(world: Bare, number: int) -> Verified:
    """A claim whose insides are noise: nobody looks at them before a guardian opens it."""
    key = SigningKey(number.to_bytes(32, "big"))
    fields = {
        "kind": "recovery", "device": bytes(32), "name": os.urandom(240), "seats": [0, 1, 2, 3, 4],
        "wraps": [os.urandom(80) for _ in range(5)], "vault": bytes(32),
        "nonce": os.urandom(16), "evidence": [], "created": START, "expires": START + DAY,
    }  # fmt: skip
    return world.codec.sign(key, "claim", fields)


def message(claim: Verified, code: str) -> Message:
    return Message("claim", {"raw": claim.raw, "code": code, "request": 7})


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_ten_thousand_claims_under_random_names(world: Bare, tmp_path: Path) -> None:
    """The core keeps none of them in memory, is no slower at the end, and answers all alike."""
    alone = Alone(world, tmp_path / "guardian.db")
    claims = [cheap_claim(world, number + 1) for number in range(FLOOD)]
    before = resident()

    medians, replies = [], []
    for start in range(0, FLOOD, 1000):
        batch = [message(claim, f"{start:015}") for claim in claims[start : start + 1000]]
        answers, seconds = alone.asked(batch)
        medians.append(statistics.median(seconds))
        replies += [
            [effect.message for effect in effects if isinstance(effect, Send)]
            for effects in answers
        ]

    same = [Message("reply", {"request": 7, "received": True})]
    assert all(reply == same for reply in replies)
    assert alone.store.count(Table.CLAIM) == FLOOD < CLAIMS_WAITING_MAX
    assert alone.core.casework.docket.cases == {}
    assert resident() - before < 32 * 1024 * 1024
    assert medians[-1] < 5 * min(medians)
    begun = time.perf_counter()
    alone.core.resume(Moment(START, bytes(32)))
    assert time.perf_counter() - begun < 1
    alone.store.close()


def test_the_claims_that_wait_are_bounded(
    world: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When very many wait, the next is told to come later, and nothing else changes."""
    from protocol import service

    monkeypatch.setattr(service, "CLAIMS_WAITING_MAX", 3)
    alone = Alone(world, tmp_path / "guardian.db")
    batch = [message(cheap_claim(world, number + 1), "1" * 15) for number in range(5)]

    answers, _ = alone.asked(batch)

    kinds = [e.message.kind for effects in answers for e in effects if isinstance(e, Send)]
    assert kinds == ["reply"] * 3 + ["refusal"] * 2
    assert alone.store.count(Table.CLAIM) == 3
    alone.store.close()


def test_claims_nobody_opens_go_by_themselves(world: Bare) -> None:
    """After a month they are forgotten; no other guardian has ever heard of them."""
    for number in range(20):
        Claimant(world, f"Nobody {'abcdefghijklmnopqrst'[number]}", [0])
    assert world.tell(0, "status")["waiting_for_code"] == 20
    assert world.tell(1, "status")["waiting_for_code"] == 0

    world.pass_time(31 * DAY)

    assert world.tell(0, "status")["waiting_for_code"] == 0


# --- another's code -------------------------------------------------------------------


@pytest.fixture
def short_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes with so few different values that an attacker finds a second claim for one."""

    def short(stretched: bytes) -> str:
        return str(int.from_bytes(stretched, "big") % 20).zfill(15)

    monkeypatch.setattr(cases, "claim_code", short)
    monkeypatch.setattr(member, "claim_code", short)


def ground(world: Bare, name: str, code: str, seats: list[int]) -> Claimant:
    """A claim of the attacker's that has this code."""
    for _ in range(1_000):
        if (found := Claimant(world, name, [])).code == code:
            for seat in seats:
                link = found.links[seat] = world.wallet(seat)
                world.request(link, "claim", raw=found.claim.raw, code=code)
                world.request(link, "follow", claim=found.claim.id)
            return found
    raise AssertionError("no second claim with this code was found")


@pytest.mark.usefixtures("short_codes")
def test_two_claims_with_one_code_open_neither(world: Bare) -> None:
    """Before it is opened: the code that a person reads out fits two claims, so none is opened."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    ground(world, "Rosa Keller", device.code, [0])

    with pytest.raises(Refused, match="2 claims have this code"):
        world.tell(0, "open", code=device.code)


@pytest.mark.usefixtures("short_codes")
def test_two_open_cases_with_one_code_block_each_other(world: Bare) -> None:
    """Opened at two guardians, each of one of them: no approval by code, at either, counts."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    thief = ground(world, "Rosa Keller", device.code, [1])
    world.tell(0, "open", code=device.code)
    with pytest.raises(Refused):
        world.tell(1, "open", code=thief.code)
    for seat in range(5):
        try:
            world.tell(seat, "approve", code=device.code, how="in person")
        except HoldfastError:
            pass

    assert thief.open() is None
    # Neither does a case that came with the neighbours' logs.
    out: list[Effect] = []
    world.hosts[1].guardian.casework.carry(Moment(world.now, bytes(32)), thief.claim, out)
    world._perform(1, out)
    world.run()
    with pytest.raises(Refused, match="block each other"):
        world.tell(3, "approve", code=device.code, how="in person")
    assert thief.open() is None


def test_claims_that_only_pretend_a_code_do_not_hide_the_true_one(world: Bare) -> None:
    """However many claims say that they have the code just read out, the first is found."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0])
    world.now += 1000
    sent = 0
    while sent < 40:
        liar = Claimant(world, "Rosa Keller", [])
        if liar.claim.id < device.claim.id or sent >= 20:
            world.request(world.wallet(0), "claim", raw=liar.claim.raw, code=device.code)
            sent += 1

    view = world.tell(0, "open", code=device.code)

    assert view["claim"] == device.claim.id.hex()


# --- guardians that keep things to themselves -----------------------------------------


def test_a_claim_withheld_by_the_guardian_that_opened_it(world: Bare) -> None:
    """A guardian that writes a claim into its log and shows nobody holds up nobody."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = rosa.claim([0, 1])
    for link in list(world.hosts[0].links):
        other, theirs = world.hosts[0].links.pop(link)
        world._unlink(other, theirs)
    world.tell(0, "open", code=device.code)
    with pytest.raises(NotYet):
        world.tell(2, "open", code=device.code)

    world.tell(1, "open", code=device.code)
    approve(world, device, (1, 2, 3))

    assert device.open() is not None


def test_a_veto_withheld_by_the_guardian_that_took_it() -> None:
    """The owner tells every guardian; one that swallows the veto changes nothing."""
    world = Bare(waiting=DAY)
    world.mesh()
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    thief = rosa.claim([0, 1])
    world.tell(1, "open", code=thief.code)
    approve(world, thief, (1, 2, 3))
    for link in list(world.hosts[0].links):
        other, theirs = world.hosts[0].links.pop(link)
        world._unlink(other, theirs)
    assert rosa.veto(thief.claim, 0)["kind"] == "reply"
    assert rosa.veto(thief.claim, 4)["kind"] == "reply"

    world.pass_time(30 * DAY)

    heard = {entry.type for entry in entries_of(world, 1)}
    assert "release" not in heard
    assert thief.open() is None


# --- probing --------------------------------------------------------------------------


def test_nobody_learns_who_is_a_member_by_answers(world: Bare) -> None:
    """A claim under a member's name and one under nobody's are answered with the same bytes."""
    Member(world, "Rosa Keller").back_up()
    told = {}
    for name in ("Rosa Keller", "Omar Haddad"):
        world.notices.clear()
        device = Claimant(world, name, [0])
        link = device.links[0]
        heard = [
            {key: value for key, value in one.fields.items() if key not in ("request", "claim")}
            for one in world.heard[link]
        ]
        rung = [effect for _, effect in world.notices if isinstance(effect, Notify)]
        world.tell(0, "open", code=device.code)
        world.request(link, "follow", claim=device.claim.id)
        after = {**world.heard[link][-1].fields, "claim": b"", "opened": 0}
        told[name] = (heard, rung, after)

    assert told["Rosa Keller"] == told["Omar Haddad"]


def test_nobody_learns_who_is_a_member_by_time(world: Bare, tmp_path: Path) -> None:
    """No work done for a claim depends on whose name is in it: not what is read, nor how long."""
    Member(world, "Rosa Keller").back_up()
    alone = Alone(world, tmp_path / "guardian.db")
    for table in Table:
        for key, value in world.hosts[0].ledger.scan(table):
            alone._apply(Persist(PutRow(table, key, value)))
    alone.core = GuardianCore(
        alone.store, alone.host.introduction, alone.host.keys, Settings(), world.roster,
        world.signed.to_bytes(),
    )  # fmt: skip
    alone.asked([])
    reads: dict[str, list[Any]] = {}
    seconds: dict[str, list[float]] = {"Rosa Keller": [], "Omar Haddad": []}
    honest = alone.store._one
    for turn in range(150):
        for name in sorted(seconds, reverse=bool(turn % 2)):
            seen: list[Any] = []

            def noting(sql: str, values: Any, seen: list[Any] = seen) -> Any:
                seen.append(sql)
                return honest(sql, values)

            claim = Claimant(world, name, []).claim
            alone.store._one = noting  # type: ignore[method-assign]
            _, (took,) = alone.asked([message(claim, "1" * 15)])
            seconds[name].append(took)
            if turn == 10:
                reads[name] = seen
    alone.store.close()

    assert reads["Rosa Keller"] == reads["Omar Haddad"] != []
    fast, slow = sorted(statistics.median(each) for each in seconds.values())
    spread = statistics.stdev(sorted(seconds["Rosa Keller"] + seconds["Omar Haddad"])[:200])
    assert slow - fast < max(0.3 * fast, spread)
