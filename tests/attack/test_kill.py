"""kill -9 of real guardians at any moment: what was vouched for is there, no vote contradicts.

Deposits, votes and releases flow while one process after another is killed at a time drawn
from the seed, and started again. A receipt, an answer at a desk and an entry that another
guardian holds are words that a guardian has given: each must be true afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import trio

from protocol.errors import HoldfastError
from protocol.wallet import owning

LOST = (HoldfastError, OSError, trio.BrokenResourceError, trio.ClosedResourceError)
ROUNDS_S = 0.25  # at most from one start to the next kill: the time of a few commits


@dataclass
class Vouched:
    """What guardians have given their word for."""

    receipts: dict[int, list[tuple[Any, bytes, bytes]]] = field(default_factory=dict)
    votes: dict[int, list[tuple[str, str]]] = field(default_factory=dict)  # case, words
    kills: int = 0
    deposits: int = 0
    voted: int = 0
    recovered: int = 0


async def insist(act: Callable[[], Awaitable[Any]]) -> Any:
    """Do it again and again, as a wallet or a person would, until a node that is on takes it."""
    with trio.fail_after(30):
        while True:
            try:
                return await act()
            except LOST:
                await trio.sleep(0.05)


class Storm:
    """Load on a federation, and kills in the middle of it."""

    def __init__(self, federation: Any, seed: int) -> None:
        self.federation = federation
        self.rng = random.Random(seed)
        self.vouched = Vouched()
        self.phones: list[tuple[Any, bytes, bytes]] = []  # with vault and secret
        self.talked: list[Any] = []  # claims that guardians only talk about
        self.spoken: dict[tuple[int, str], int] = {}

    async def deposits(self, seat: int) -> None:
        """Deposit with one guardian without end; now and then a second version."""
        link = None
        person, times = None, 0
        while True:
            try:
                if link is None or times % 40 == 39:
                    await self.federation.hang_up(link)
                    link = None
                    link = await self.federation.link(seat)
                if person is None or times % 3 == 2:
                    person = self.federation.member(f"Rosa Keller {self.rng.randrange(10**9)}")
                    person.prepare()
                elif person.backup is not None and seat in person.backup.receipts:
                    person.prepare()
                times += 1
                await person.deposit(seat, link)
            except LOST:
                await self.federation.hang_up(link)
                link, person = None, None
                await trio.sleep(0.02)
                continue
            version = self.federation.codec.read(person.backup.version).id
            deal = self.federation.codec.read(person.backup.deal).id
            self.vouched.receipts.setdefault(seat, []).append((person, deal, version))
            self.vouched.deposits += 1
            await trio.sleep(0.01)

    async def votes(self, seat: int) -> None:
        """Vote at one guardian's desk without end, on whatever is open there."""
        guardian = self.federation.guardians[seat]
        while True:
            await trio.sleep(0.01)
            if not self.talked:
                continue
            phone = self.talked[-1]
            case = phone.claim.id.hex()
            count = self.spoken.get((seat, case), 0)
            if count > 7:
                await trio.sleep(0.05)
                continue
            words = f"{self.rng.randrange(10**12)}"
            try:
                await guardian.ask("ask", case=case, words=words)
            except LOST:
                continue
            self.spoken[seat, case] = count + 1
            self.vouched.votes.setdefault(seat, []).append((case, words))
            self.vouched.voted += 1

    async def claims(self) -> None:
        """One person after another loses a phone and comes to guardians that vote."""
        ada, ben, _ = self.federation.guardians
        while True:
            self.talked.append(await self._claim("Nobody At All"))
            person = self.federation.member(f"Omar Haddad {self.rng.randrange(10**9)}")
            person.prepare()
            for seat in range(3):
                await insist(partial(person.deposit, seat))
            phone = await self._claim(person.name)
            self.phones.append((phone, person.vault, person.secret))
            for guardian in (ada, ben):
                await insist(partial(self._approve, guardian, phone, person.vault))
            await trio.sleep(0.2)

    async def _claim(self, name: str) -> Any:
        phone = await self.federation.member(name).claim([])
        for seat in range(3):
            await insist(partial(phone.send, seat))
        await insist(partial(self.federation.guardians[0].ask, "open", code=phone.code))
        return phone

    async def _approve(self, guardian: Any, phone: Any, vault: bytes) -> None:
        await guardian.ask("approve", code=phone.code, how="in person", vault=vault.hex())

    async def blow(self, kills: int) -> None:
        async with trio.open_nursery() as nursery:
            for seat in range(3):
                nursery.start_soon(self.deposits, seat)
                nursery.start_soon(self.votes, seat)
            nursery.start_soon(self.claims)
            for _ in range(kills):
                victim = self.federation.guardians[self.rng.randrange(3)]
                await trio.sleep(self.rng.uniform(0.0, ROUNDS_S))
                victim.kill()
                self.vouched.kills += 1
                victim.start()
                await victim.ready()
            nursery.cancel_scope.cancel()

    # --- judging ----------------------------------------------------------------------

    async def judge(self) -> None:
        await self.federation.agree()
        for seat, receipts in self.vouched.receipts.items():
            await self._hold(seat, receipts)
        for guardian in self.federation.guardians:
            status = await guardian.ask("status")
            assert not any(each["misbehaved"] for each in status["guardians"])
        for phone, vault, secret in self.phones:
            await self._returns(phone, vault, secret)
        await self.federation.agree()
        for phone in (*self.talked, *(phone for phone, _, _ in self.phones)):
            await self._same_everywhere(phone.claim.id.hex())
        for guardian in self.federation.guardians:
            for line in guardian.said.splitlines():
                assert "Traceback" not in line, line

    async def _returns(self, phone: Any, vault: bytes, secret: bytes) -> None:
        """A claim that was under way in the storm comes to its end after it."""
        for guardian in self.federation.guardians[:2]:
            await insist(partial(self._approve, guardian, phone, vault))
        with trio.fail_after(30):
            while (found := await phone.open(2)) is None:
                await trio.sleep(0.05)
        assert found.payload.secret == secret
        self.vouched.recovered += 1

    async def _hold(self, seat: int, receipts: list[tuple[Any, bytes, bytes]]) -> None:
        """Every version that a guardian signed a receipt for is there."""
        newest = {id(person): (person, deal) for person, deal, _ in receipts}
        link: Any = None
        for number, (person, deal) in enumerate(newest.values()):
            if number % 100 == 0:
                link = await self.federation.link(seat)
            seen = owning.seen(self.federation.codec, person.owner, person.vault, 1)
            answer = await link.ask("seen", {"raw": seen.raw})
            assert answer["deal"] == deal
            held = {row[0] for row in answer["versions"]}
            promised = {version for one, _, version in receipts if one is person}
            assert promised <= held

    async def _same_everywhere(self, case: str) -> None:
        """All nodes tell of the same votes and releases, those a desk answered for among them."""
        records = [await one.ask("record", case=case) for one in self.federation.guardians]
        for record in records[1:]:
            assert record["votes"] == records[0]["votes"]
            assert record["releases"] == records[0]["releases"]
        signed = [self.federation.codec.verify(raw, "vote").body for raw in records[0]["votes"]]
        places = [(vote["seat"], vote["revision"]) for vote in signed]
        assert len(places) == len(set(places))
        for seat in range(3):
            words = {vote["words"] for vote in signed if vote["seat"] == seat}
            told = {said for about, said in self.vouched.votes.get(seat, []) if about == case}
            assert told <= words


async def run(federation: Any, seed: int, kills: int) -> Vouched:
    await federation.start()
    storm = Storm(federation, seed)
    await storm.blow(kills)
    await storm.judge()
    await federation.hang_up()
    return storm.vouched


async def test_killed_at_any_moment(found: Callable[..., Any]) -> None:
    """Eight kills: every receipt and every vote outlives them."""
    vouched = await run(found(), 1, 8)

    assert vouched.kills == 8
    assert vouched.deposits > 20
    assert vouched.voted > 5
    assert vouched.recovered > 0


@pytest.mark.campaign
@pytest.mark.parametrize("seed", [2, 3])
async def test_killed_fifty_times(found: Callable[..., Any], seed: int) -> None:
    """The same, as often as a change has to stand it before it is merged."""
    vouched = await run(found(), seed, 25)

    assert vouched.kills == 25
    assert vouched.deposits > 100
    assert vouched.recovered > 3
