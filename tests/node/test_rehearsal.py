"""The rehearsal: everybody holds and releases, or whoever does not is named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio
import trio.testing

from node.framing import FrameReader, pack
from node.rehearsal import Outcome, rehearse
from protocol import sharing, vault
from protocol.casework import Casework
from protocol.contract import Verified
from protocol.custody import DealRow
from protocol.sealing import Cost
from simulations.hosts.bare import Bare

NAMES = ["ada", "ben", "cleo", "dev", "eve"]
Clock = trio.testing.MockClock  # a test has to ask for it itself, or it really sleeps


@dataclass
class Telephone:
    """Fill the Transport port: streams in memory to bare cores."""

    world: Bare
    nursery: trio.Nursery
    dialled: list[str] = field(default_factory=list)
    streams: dict[int, trio.abc.Stream] = field(default_factory=dict)
    told: dict[int, int] = field(default_factory=dict)

    async def dial(self, address: str, key: bytes, present: bool) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        assert not present
        self.dialled.append(address)
        number = next(
            n for n, h in enumerate(self.world.hosts) if h.introduction.body["transport"] == key
        )
        if self.world.hosts[number].core is None:
            raise OSError("nobody is there")
        near, far = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._serve, number, far)
        return near

    async def serve(self, handler: Any, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        raise AssertionError("a wallet does not listen")

    def retrust(self, trusted: object) -> None:
        raise AssertionError("a wallet trusts by key")

    async def _serve(self, number: int, stream: trio.abc.Stream) -> None:
        link = self.world.wallet(number)
        self.streams[link], self.told[link] = stream, 0
        reader = FrameReader(stream)
        await reader.read()
        hello = {"software": "holdfast 0", "protocol": 1, "federation": self.world.roster.id}
        await stream.send_all(pack(["hello", {**hello, "role": "guardian"}]))
        while (frame := await reader.read()) is not None:
            kind, fields = frame
            request = fields.pop("request")
            before = self.told[link]
            self.world.request(link, kind, **fields)
            for message in self.world.heard[link][before:]:
                if "request" in message.fields:
                    message.fields["request"] = request  # type: ignore[index]
            await self._deliver()

    async def _deliver(self) -> None:
        for link, stream in list(self.streams.items()):
            fresh = self.world.heard[link][self.told[link] :]
            self.told[link] += len(fresh)
            for message in fresh:
                try:
                    await stream.send_all(pack([message.kind, dict(message.fields)]))
                except trio.BrokenResourceError:
                    pass  # hung up meanwhile


class Draw:
    def draw(self, size: int) -> bytes:
        return bytes(range(size))


class Now:
    def __init__(self, world: Bare) -> None:
        self._world = world

    def now(self) -> int:
        return self._world.now

    async def sleep_until(self, at: int) -> None:
        await trio.lowlevel.checkpoint()


@dataclass
class Stage:
    world: Bare
    telephone: Telephone
    said: list[str] = field(default_factory=list)

    async def rehearse(self, listens: Sequence[str] = ()) -> Outcome:
        return await rehearse(
            self.world.roster,
            self.world.hosts[0].keys.identity,
            listens=listens,
            clock=Now(self.world),
            entropy=Draw(),
            tell=self.said.append,
            transport=self.telephone,
            cost=Cost.TOY,
        )


@pytest.fixture
async def stage(nursery: trio.Nursery) -> Stage:
    world = Bare()
    world.mesh()
    world.run()
    return Stage(world, Telephone(world, nursery))


async def test_all_hold_and_release(stage: Stage, autojump_clock: Clock) -> None:
    """When all is well everybody takes a piece and gives it back, and no case stays open."""
    outcome = await stage.rehearse()
    assert outcome.passed
    assert outcome.held == outcome.released == NAMES
    assert sorted(stage.said)[:2] == [
        "  ada holds a piece of the dummy key",
        "  ada released a good piece",
    ]
    for host in stage.world.hosts:
        assert not any(case.is_open for case in host.guardian.casework.docket.cases.values())


async def test_the_own_node_is_called_where_it_listens(stage: Stage, autojump_clock: Clock) -> None:
    """A public address need not work from inside, so the own node is called directly."""
    assert (await stage.rehearse(["0.0.0.0:7009"])).passed
    assert "127.0.0.1:7009" in stage.telephone.dialled
    assert "ada.example:7001" not in stage.telephone.dialled


async def test_a_locked_guardian_is_named(stage: Stage, autojump_clock: Clock) -> None:
    """Whoever is locked takes no piece, and the rehearsal says who and why."""
    stage.world.boot(3, locked=True)
    outcome = await stage.rehearse()
    assert not outcome.passed
    assert list(outcome.failed) == ["dev"]
    assert outcome.failed["dev"].startswith("did not take a piece: this guardian's node is locked")
    assert (outcome.held, outcome.released) == (["ada", "ben", "cleo", "eve"], [])


async def test_a_dead_guardian_is_named(stage: Stage, autojump_clock: Clock) -> None:
    """Whoever cannot be reached is tried for a while, and named."""
    stage.world.kill(1)
    outcome = await stage.rehearse()
    assert list(outcome.failed) == ["ben"]
    assert outcome.failed["ben"].startswith("did not take a piece: ben cannot be reached")


class Lying(Casework):
    """Releases a share that is off by one."""

    def own_piece(self, deal: Verified, row: DealRow) -> vault.Piece | None:
        piece = super().own_piece(deal, row)
        assert piece is not None
        share = (sharing.decode_scalar(piece.share) + 1) % sharing.L
        return replace(piece, share=sharing.encode_scalar(share))


async def test_a_false_piece_is_named(stage: Stage, autojump_clock: Clock) -> None:
    """A piece that came back wrong does not pass, though enough good ones did come back."""
    stage.world.hosts[4].guardian.casework.__class__ = Lying
    outcome = await stage.rehearse()
    assert outcome.false
    assert list(outcome.failed) == ["eve"]
    assert outcome.failed["eve"].startswith("released a false piece")
    assert outcome.released == NAMES[:4]


async def test_a_guardian_off_the_gossip_is_named(stage: Stage, autojump_clock: Clock) -> None:
    """Whoever is linked to nobody releases only to those who ask them, which is not enough."""
    world = stage.world
    world.boot(2)
    outcome = await stage.rehearse()
    assert list(outcome.failed) == ["cleo"]
    assert "linked" in outcome.failed["cleo"]
