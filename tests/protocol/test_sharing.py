"""Sharing a secret, checking every part of a deal, and giving the secret back."""

from __future__ import annotations

import hashlib
import itertools

import nacl.bindings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import FaultyPiece, Malformed, NotEnough, Refused
from protocol.sharing import (
    Dealing,
    L,
    add_points,
    check_dealing,
    check_point,
    check_share,
    combine,
    deal,
    decode_scalar,
    encode_scalar,
    expected_point,
    lagrange,
    multiply,
    scalar_from,
    secret_point,
)

IDENTITY = (1).to_bytes(32, "little")
ORDER_TWO = (2**255 - 20).to_bytes(32, "little")
scalars = st.integers(1, L - 1)


def stream(label: str, size: int) -> bytes:
    """Return bytes that look random and are the same every time."""
    return hashlib.shake_256(label.encode()).digest(size)


def dealt(secret: int, threshold: int, seats: list[int], label: str = "r") -> Dealing:
    """Deal with randomness made from a label."""
    return deal(secret, threshold, seats, stream(label, 64 * (threshold - 1)))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Dealing, int, list[int]]:
    """Draw a dealing with its secret and seats."""
    seats = draw(st.lists(st.integers(0, 400), min_size=2, max_size=8, unique=True))
    threshold = draw(st.integers(2, len(seats)))
    secret = draw(scalars)
    return dealt(secret, threshold, seats, str(draw(st.integers()))), secret, seats


@settings(max_examples=40, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_any_threshold_gives_back(case: tuple[Dealing, int, list[int]], random: object) -> None:
    """Any threshold of good shares gives back the secret, and the checks all pass."""
    dealing, secret, seats = case
    check_dealing(dealing.commitments, dealing.points, seats)
    for seat, point in zip(seats, dealing.points, strict=True):
        check_share(dealing.shares[seat], point)
        assert expected_point(dealing.commitments, seat) == point
    chosen = seats[:]
    random.shuffle(chosen)  # type: ignore[attr-defined]
    shares = {seat: dealing.shares[seat] for seat in chosen[: dealing.threshold]}
    assert combine(dealing.threshold, shares) == secret
    assert secret_point(secret) == dealing.commitments[0]


def test_every_subset() -> None:
    """Of five guardians any three give back the secret, and two together do not."""
    dealing = dealt(12345, 3, [0, 1, 2, 3, 4])
    for subset in itertools.combinations(range(5), 3):
        assert combine(3, {seat: dealing.shares[seat] for seat in subset}) == 12345
    for pair in itertools.combinations(range(5), 2):
        shares = {seat: dealing.shares[seat] for seat in pair}
        assert combine(2, shares) != 12345
        with pytest.raises(NotEnough, match="2 shares are here, and 3 are needed"):
            combine(3, shares)


def test_lowest_seats_are_used() -> None:
    """With more shares than needed the lowest seats decide, so results repeat."""
    dealing = dealt(99, 2, [3, 1, 7])
    assert combine(2, {**dealing.shares, 7: encode_scalar(5)}) == 99
    assert combine(2, {**dealing.shares, 1: encode_scalar(5)}) != 99


@settings(max_examples=40, deadline=None)
@given(cases(), st.data())
def test_changed_parts_are_found(case: tuple[Dealing, int, list[int]], data: st.DataObject) -> None:
    """A dealer who announces one point, commitment or seat that does not fit is found out."""
    dealing, _, seats = case
    commitments, points = list(dealing.commitments), list(dealing.points)
    where = data.draw(st.sampled_from(["commitment", "point", "seat", "share"]))
    other = secret_point(data.draw(scalars))
    if where == "commitment":
        place = data.draw(st.integers(0, len(commitments) - 1))
        commitments[place] = add_points([commitments[place], other])
    elif where == "point":
        place = data.draw(st.integers(0, len(points) - 1))
        points[place] = add_points([points[place], other])
    elif where == "seat":
        place = data.draw(st.integers(0, len(seats) - 1))
        seats = [*seats]
        seats[place] = 401
    else:
        share = decode_scalar(dealing.shares[seats[0]])
        with pytest.raises(FaultyPiece):
            check_share(encode_scalar(share % (L - 1) + 1), points[0])
        return
    with pytest.raises((FaultyPiece, Malformed)):
        check_dealing(commitments, points, seats)


def test_swapped_points_are_found() -> None:
    """Points handed to the wrong seats do not pass."""
    dealing = dealt(7, 3, [0, 1, 2, 3])
    points = list(dealing.points)
    points[0], points[1] = points[1], points[0]
    with pytest.raises(FaultyPiece, match="contradicts itself"):
        check_dealing(dealing.commitments, points, [0, 1, 2, 3])


def test_too_high_a_degree_is_found() -> None:
    """Shares of a polynomial of higher degree than committed do not pass."""
    high = dealt(7, 4, [0, 1, 2, 3, 4])
    with pytest.raises(FaultyPiece):
        check_dealing(high.commitments[:3], high.points, [0, 1, 2, 3, 4])
    check_dealing(high.commitments, high.points, [0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    "bad",
    [
        IDENTITY,
        ORDER_TWO,
        bytes(32),
        b"\xff" * 32,
        b"",
        b"\x01" * 31,
        b"\x02" + bytes(31),
        (2**255 - 18).to_bytes(32, "little"),
    ],
)
def test_bad_points(bad: bytes) -> None:
    """The identity, points outside the prime-order group and other bytes are refused."""
    dealing = dealt(7, 2, [0, 1, 2])
    with pytest.raises(Malformed):
        check_point(bad)
    with pytest.raises(Malformed):
        multiply(5, bad)
    for place in range(2):
        commitments = [*dealing.commitments]
        commitments[place] = bad
        with pytest.raises(Malformed):
            check_dealing(commitments, dealing.points, [0, 1, 2])
    for place in range(3):
        points = [*dealing.points]
        points[place] = bad
        with pytest.raises(Malformed):
            check_dealing(dealing.commitments, points, [0, 1, 2])


def test_hidden_small_order() -> None:
    """A good point plus one of order two is refused (libsodium before CVE-2025-69277 took it)."""
    mixed = nacl.bindings.crypto_core_ed25519_add(secret_point(5), ORDER_TWO)
    with pytest.raises(Malformed):
        check_point(mixed)
    with pytest.raises(Malformed):
        multiply(5, mixed)
    dealing = dealt(7, 2, [0, 1])
    with pytest.raises(Malformed):
        check_dealing(dealing.commitments, [mixed, dealing.points[1]], [0, 1])


def test_shapes_of_a_dealing() -> None:
    """Numbers that do not fit together are Malformed, not a crash."""
    dealing = dealt(7, 2, [0, 1, 2])
    commitments, points = dealing.commitments, dealing.points
    for args in (
        (commitments[:1], points, [0, 1, 2]),
        ((), points, [0, 1, 2]),
        (commitments, points[:2], [0, 1, 2]),
        (commitments, points[:1], [0]),
        (commitments, (), ()),
        (commitments, points, [0, 1, 1]),
        (commitments, points, [0, 1, 65_536]),
        (commitments, points, [-1, 0, 1]),
        (commitments, points * 11, list(range(33))),
    ):
        with pytest.raises(Malformed):
            check_dealing(*args)


def test_deal_refuses() -> None:
    """A threshold of one, or above the number of seats, or a seat twice cannot be dealt."""
    for threshold, seats in ((1, [0, 1]), (0, [0, 1]), (3, [0, 1]), (2, list(range(33)))):
        with pytest.raises(Refused):
            deal(7, threshold, seats, bytes(64 * max(threshold - 1, 0)))
    with pytest.raises(ValueError):
        dealt(7, 2, [0, 0])
    with pytest.raises(ValueError):
        dealt(7, 2, [0, -1])
    with pytest.raises(ValueError):
        deal(7, 2, [0, 1], bytes(63))
    for secret in (0, L, -1):
        with pytest.raises(ValueError):
            dealt(secret, 2, [0, 1])
    with pytest.raises(Refused):
        deal(7, 2, [0, 1], bytes(64))
    # f(x) = 7 - 7x is zero for seat 0
    with pytest.raises(Refused, match="zero"):
        deal(7, 2, [0, 1], (L - 7).to_bytes(64, "little"))


@pytest.mark.parametrize("raw", [bytes(32), L.to_bytes(32, "little"), b"\xff" * 32, b"\x01" * 31])
def test_bad_scalars(raw: bytes) -> None:
    """Zero, scalars from L on and other lengths are refused, as a share too."""
    with pytest.raises(Malformed):
        decode_scalar(raw)
    with pytest.raises(FaultyPiece):
        check_share(raw, secret_point(1))
    with pytest.raises(Malformed):
        combine(2, {0: raw, 1: encode_scalar(1)})


def test_scalars() -> None:
    """Scalars are made from 64 bytes, written in 32, and never zero."""
    assert scalar_from((L + 5).to_bytes(64, "little")) == 5
    with pytest.raises(Refused):
        scalar_from(L.to_bytes(64, "little"))
    with pytest.raises(ValueError):
        scalar_from(bytes(32))
    assert decode_scalar(encode_scalar(L - 1)) == L - 1
    for scalar in (0, L, -1):
        with pytest.raises(ValueError):
            encode_scalar(scalar)


@settings(max_examples=30, deadline=None)
@given(cases(), st.integers(0, 65_535))
def test_lagrange_anywhere(case: tuple[Dealing, int, list[int]], seat: int) -> None:
    """The shares of a threshold give the share of any other seat, which is what repair does."""
    dealing, _, seats = case
    chosen = seats[: dealing.threshold]
    weights = lagrange(chosen, seat + 1)
    share = sum(weights[each] * decode_scalar(dealing.shares[each]) for each in chosen) % L
    if share:
        check_share(encode_scalar(share), expected_point(dealing.commitments, seat))
    points = [
        multiply(weight, dealing.points[seats.index(each)])
        for each, weight in weights.items()
        if weight
    ]
    assert add_points(points) == expected_point(dealing.commitments, seat)


def test_shares_do_not_show() -> None:
    """Printing a dealing shows no share."""
    dealing = dealt(7, 2, [0, 1])
    assert "shares" not in repr(dealing)


def test_sums() -> None:
    """A sum may be the identity, needs one point at least, and takes no other bytes."""
    point = secret_point(5)
    assert add_points([point, secret_point(L - 5)]) == IDENTITY
    assert add_points([point]) == point
    with pytest.raises(ValueError):
        add_points([])
    with pytest.raises(Malformed):
        add_points([point, b"\x02" + bytes(31)])
    with pytest.raises(Malformed):
        add_points([point[:31]])
