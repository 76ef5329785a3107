"""Federations: introductions, rosters and invites, and what is no such thing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.encoding import decode, encode, from_text, to_text
from protocol.errors import Malformed, Refused
from protocol.federation import (
    INTRODUCTION_PREFIX,
    INVITE_PREFIX,
    Endpoint,
    draft,
    introduce,
    introduction_text,
    invite,
    read_introduction,
    read_invite,
    read_roster,
    read_signed,
    sign_roster,
)
from protocol.keys import SigningKey
from simulations.hosts.bare import START, make_host


def test_an_introduction_says_what_is_too_long() -> None:
    """Names and contacts have limits, told in a sentence."""
    key = SigningKey(bytes(32))
    fields: dict[str, Any] = {
        "sealing": bytes(32), "transport": bytes(32), "certificate": bytes(64),
        "address": "", "contact": "", "languages": [], "hours": "", "now": START,
    }  # fmt: skip
    with pytest.raises(Refused, match="needs a name"):
        introduce(key, name=" ", **fields)
    with pytest.raises(Refused, match="too long"):
        introduce(key, name="x" * 65, **fields)
    with pytest.raises(Refused, match="too long"):
        introduce(key, name="x", **{**fields, "contact": "x" * 201})


def test_an_introduction_reads_back_from_its_line() -> None:
    """In capitals or small letters, broken over lines."""
    made = make_host("ada", 1).introduction
    line = introduction_text(made)

    assert read_introduction(line) == made
    assert read_introduction(line.lower()) == made
    assert read_introduction("\n".join([line[:50], line[50:]])) == made


@given(raw=st.binary(max_size=200))
@settings(max_examples=80, deadline=None)
def test_no_bytes_make_a_reader_stumble(raw: bytes) -> None:
    """What is no roster, introduction or invite is called so."""
    for read in (read_roster, read_signed):
        with pytest.raises(Malformed):
            read(raw)
    with pytest.raises(Malformed):
        read_introduction(to_text(INTRODUCTION_PREFIX, raw))
    with pytest.raises(Malformed):
        read_invite(to_text(INVITE_PREFIX, raw))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_changed_roster_is_taken_for_the_same(data: st.DataObject) -> None:
    """Every byte of a roster counts: another body is malformed, or another federation."""
    hosts = [make_host(name, number) for number, name in enumerate(("ada", "ben", "cleo"))]
    made = draft("Elm Street", 2, [host.introduction for host in hosts], now=START, nonce=bytes(16))
    body = bytearray(made.body)
    body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        other = read_roster(bytes(body))
    except (Malformed, Refused):
        return
    assert other.id != made.id
    assert other.phrase != made.phrase


def test_a_roster_needs_each_signature_at_its_place() -> None:
    """One missing, one twice, two swapped: none of it is a founded federation."""
    hosts = [make_host(name, number) for number, name in enumerate(("ada", "ben", "cleo"))]
    made = draft("Elm Street", 2, [host.introduction for host in hosts], now=START, nonce=bytes(16))
    good = [sign_roster(host.keys.identity, made).raw[-64:] for host in hosts]
    assert read_signed(encode({"body": made.body, "signatures": good}), made.id).roster == made

    for signatures in (good[:2], [*good, good[0]], [good[0], good[0], good[2]], good[::-1]):
        with pytest.raises(Malformed):
            read_signed(encode({"body": made.body, "signatures": signatures}))
    with pytest.raises(Refused, match="another federation"):
        read_signed(encode({"body": made.body, "signatures": good}), bytes(32))


# --- invites -------------------------------------------------------------------------------


def test_an_invite_names_enough_guardians_for_one_to_be_honest() -> None:
    """Federation, epoch, roster and endpoints read back; nobody reachable is a refusal."""
    hosts = [make_host(name, number) for number, name in enumerate("abcde")]
    made = draft("Elm Street", 3, [host.introduction for host in hosts], now=START, nonce=bytes(16))
    points = {guardian.seat: Endpoint(guardian.address, guardian.transport)
              for guardian in made.guardians}  # fmt: skip

    line = invite(made.id, made, points).to_text()

    read = read_invite(line.lower())
    assert (read.federation, read.epoch, read.roster) == (made.id, 0, made.id)
    assert read.endpoints == tuple(points[seat] for seat in range(3))
    assert line == line.upper()
    with pytest.raises(Refused, match="reached from outside"):
        invite(made.id, made, {})
    with pytest.raises(Malformed):
        read_invite(to_text("hf", encode({"f": made.id})))
    assert decode(from_text("hf", line), limit=4096)["e"] == 0
