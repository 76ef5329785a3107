"""A guardian that only dials out is reached through the links it holds."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.wallet import backing_up
from simulations.hosts.bare import Bare
from simulations.hosts.member import Claimant, Member


@pytest.fixture
def world() -> Bare:
    bare = Bare()
    bare.mesh()
    bare.run()
    return bare


def through(world: Bare, link: int, seat: int, kind: str, **fields: Any) -> dict[str, Any]:
    return dict(world.request(link, "through", seat=seat, kind=kind, fields=fields))


def test_a_deposit_reaches_a_guardian_that_nobody_can_call(world: Bare) -> None:
    """A wallet that reaches one guardian leaves pieces with all five, and gets receipts."""
    rosa = Member(world, "Rosa Keller")
    rosa.prepare()
    assert rosa.backup is not None
    link = world.wallet(0)
    for seat, one in backing_up.deposits(world.codec, rosa.backup, rosa.sealed.segments).items():
        fields = {"deal": one.deal, "version": one.version, "box": one.box, "whole": one.whole}
        if seat == 0:
            answer = dict(world.request(link, "deposit", **fields))
        else:
            answer = through(world, link, seat, "deposit", **fields)
        rosa.backup = backing_up.take_receipt(
            world.codec, world.roster, rosa.backup, seat, answer["receipt"]
        )

    assert len(rosa.backup.receipts) == 5


def test_news_of_a_case_comes_back_the_same_way(world: Bare) -> None:
    """A claim made and followed through another guardian brings votes and releases."""
    rosa = Member(world, "Rosa Keller")
    rosa.back_up()
    device = Claimant(world, rosa.name, [])
    link = world.wallet(1)
    device.links[1] = link
    answer = through(world, link, 3, "claim", raw=device.claim.raw, code=device.code)
    assert answer["received"] is True
    through(world, link, 3, "follow", claim=device.claim.id)

    world.tell(3, "open", code=device.code)
    for seat in (2, 3, 4):
        world.tell(seat, "approve", code=device.code, how="in person")

    assert device.open() is not None


def test_what_cannot_be_passed_on_is_said_so(world: Bare) -> None:
    """A guardian that is away, and a request that is not for passing on, get a sentence."""
    link = world.wallet(0)
    away = through(world, link, 17, "seen", raw=b"")
    assert "not connected" in away["sentence"]
    refused = through(world, link, 1, "fragments", claim=bytes(32))
    assert "not passed on" in refused["sentence"]
    assert not world.hosts[0].dropped
