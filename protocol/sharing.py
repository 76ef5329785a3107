"""Share a secret among seats so that any threshold of them can give it back.

Feldman's scheme over the scalar field of Ed25519: the secret is f(0) of a random polynomial
f of degree t - 1, seat s holds f(s + 1), and everyone sees the commitments c·B of the
coefficients and the points f(s + 1)·B of the seats. A guardian checks its share against its
point with one multiplication; `check_dealing` ties all points to the commitments.

Scalars are Python integers, measured faster than the bindings. Their arithmetic takes a time
that depends on the numbers. It runs on the owner's own device and, for a repair or a refresh,
in a guardian's node, never in answer to a stranger's chosen number. Points are libsodium's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import nacl.bindings
import nacl.exceptions

from protocol.encoding import hash256
from protocol.errors import FaultyPiece, Malformed, NotEnough, Refused
from protocol.limits import SEATS_MAX, THRESHOLD_MIN

L: Final = 2**252 + 27742317777372353535851937790883648493  # order of the group, RFC 8032
SCALAR_BYTES: Final = 32
POINT_BYTES: Final = 32
UNIFORM_BYTES: Final = 64  # reduced mod L: a bias of less than 2^-250
SEAT_MAX: Final = 65_535  # seats are never renumbered, so numbers outgrow the roster; 2 bytes
_WEIGHT_BYTES: Final = 16  # a faulty dealing passes with probability 2^-128

# --- scalars ---------------------------------------------------------------------------


def scalar_from(seed64: bytes) -> int:
    """Return 64 uniform bytes (little-endian) reduced mod L, never zero.

    Raises Refused when they reduce to zero, which honest randomness never does, and
    ValueError for another length.
    """
    if len(seed64) != UNIFORM_BYTES:
        raise ValueError(f"a scalar is made from {UNIFORM_BYTES} bytes, not {len(seed64)}")
    scalar = int.from_bytes(seed64, "little") % L
    if scalar == 0:
        raise Refused(
            "The random numbers of this device came out as zero, so nothing was shared.",
            hint="Restart the device and try again.",
        )
    return scalar


def encode_scalar(scalar: int) -> bytes:
    """Return the 32 little-endian bytes of `scalar`; ValueError unless 0 < scalar < L."""
    if not 0 < scalar < L:
        raise ValueError("a scalar lies between 1 and the group order less one")
    return scalar.to_bytes(SCALAR_BYTES, "little")


def decode_scalar(raw: bytes) -> int:
    """Return the scalar in 32 little-endian bytes.

    Raises Malformed unless 0 < scalar < L: libsodium would take s and s + L for the same.
    """
    if len(raw) != SCALAR_BYTES:
        raise Malformed(f"A share has {SCALAR_BYTES} bytes; this one has {len(raw)}.")
    # SPEC 6.2: neither zero nor beyond the group order.
    scalar = int.from_bytes(raw, "little")
    if not 0 < scalar < L:
        raise Malformed("A share is zero or too large, which no honest dealer makes.")
    return scalar


# --- points ----------------------------------------------------------------------------


def secret_point(secret: int) -> bytes:
    """Return secret·B, 32 bytes, to compare with the first commitment (or a seat's point)."""
    return nacl.bindings.crypto_scalarmult_ed25519_base_noclamp(encode_scalar(secret))


def check_point(point: bytes) -> None:
    """Return if `point` is canonical, in the prime-order group and not the identity.

    Raises Malformed otherwise.
    """
    if len(point) != POINT_BYTES or not nacl.bindings.crypto_core_ed25519_is_valid_point(point):
        raise _bad_point()


def multiply(scalar: int, point: bytes) -> bytes:
    """Return scalar·point for 0 < scalar < L. Raises Malformed as `check_point` does."""
    if len(point) != POINT_BYTES:
        raise _bad_point()
    try:
        return nacl.bindings.crypto_scalarmult_ed25519_noclamp(encode_scalar(scalar), point)
    except nacl.exceptions.RuntimeError as error:
        raise _bad_point() from error


def add_points(points: Iterable[bytes]) -> bytes:
    """Return the sum of at least one point. The points must have been checked before.

    The sum may be the identity, which `check_point` refuses. Raises Malformed for bytes that
    are no point at all; membership in the prime-order group is not looked at.
    """
    total = b""
    for point in points:
        if len(point) != POINT_BYTES:
            raise _bad_point()
        try:
            total = nacl.bindings.crypto_core_ed25519_add(total, point) if total else point
        except nacl.exceptions.RuntimeError as error:
            raise _bad_point() from error
    if not total:
        raise ValueError("the sum of no points is not defined here")
    return total


def _bad_point() -> Malformed:
    return Malformed("A commitment or point is not one that an honest dealer can make.")


# --- dealing ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Dealing:
    """What a dealer makes: public commitments and points, and one share for each seat.

    `commitments[j]` belongs to the coefficient of x^j; `points[k]` to the k-th seat dealt to.
    A share is 32 bytes and is not shown when this is printed.
    """

    threshold: int
    commitments: tuple[bytes, ...]
    points: tuple[bytes, ...]
    shares: dict[int, bytes] = field(repr=False)


def deal(secret: int, threshold: int, seats: Sequence[int], randomness: bytes) -> Dealing:
    """Share `secret` among `seats` so that any `threshold` of them can give it back.

    `secret` is a scalar, 0 < secret < L. `randomness` is 64·(threshold - 1) fresh bytes, the
    other coefficients. Raises Refused for a threshold below 2 or above the number of seats
    and in the case, not met in practice, that a share comes out as zero; ValueError for
    doubled or impossible seats and randomness of another length.
    """
    if not THRESHOLD_MIN <= threshold <= len(seats) <= SEATS_MAX:
        raise Refused(
            f"A secret among {len(seats)} guardians with {threshold} needed cannot be shared: "
            f"at least {THRESHOLD_MIN} must be needed, and at most as many as there are, "
            f"of whom there can be {SEATS_MAX}."
        )
    _check_seats(seats)
    if len(randomness) != UNIFORM_BYTES * (threshold - 1):
        raise ValueError(f"dealing takes {UNIFORM_BYTES * (threshold - 1)} random bytes")
    chunks = range(0, len(randomness), UNIFORM_BYTES)
    coefficients = [secret, *(scalar_from(randomness[at : at + UNIFORM_BYTES]) for at in chunks)]
    commitments = tuple(secret_point(scalar) for scalar in coefficients)
    values = [_evaluate(coefficients, seat + 1) for seat in seats]
    if 0 in values:
        raise Refused("A share came out as zero, so nothing was shared.", hint="Try again.")
    return Dealing(
        threshold=threshold,
        commitments=commitments,
        points=tuple(secret_point(value) for value in values),
        shares={seat: encode_scalar(value) for seat, value in zip(seats, values, strict=True)},
    )


def check_dealing(
    commitments: Sequence[bytes], points: Sequence[bytes], seats: Sequence[int]
) -> None:
    """Return if `points[k]` is the point of `seats[k]` under `commitments`, for all k.

    Then any `len(commitments)` shares that match their points give back the one secret
    behind `commitments[0]`. One random linear combination decides: weights of 128 bits are
    hashed from everything checked, so a dealer cannot choose points after weights and every
    guardian comes to the same answer. Raises Malformed for wrong numbers, seats or points,
    FaultyPiece when the points do not lie on the committed polynomial.
    """
    if not THRESHOLD_MIN <= len(commitments) <= len(points) == len(seats) <= SEATS_MAX:
        raise Malformed(
            f"A deal with {len(commitments)} commitments, {len(points)} points "
            f"and {len(seats)} seats does not fit together."
        )
    try:
        _check_seats(seats)
    except ValueError as error:
        raise Malformed("A deal names a guardian twice, or one that cannot exist.") from error
    rows = _weights(commitments, points, seats)
    # Each multiplication also checks its point: order, canonical form, not the identity.
    left = add_points([multiply(weight, point) for weight, point in zip(rows, points, strict=True)])
    right = []
    for commitment in commitments:
        right.append(multiply(sum(rows) % L, commitment))
        rows = [row * (seat + 1) for row, seat in zip(rows, seats, strict=True)]
    # SPEC 6.8: all points lie on the committed polynomial.
    if left != add_points(right):
        raise FaultyPiece(
            "This deal contradicts itself: the shares it announces would not all give back "
            "one and the same secret.",
            hint="Whoever made the deal must make it again.",
        )


def check_share(share: bytes, point: bytes) -> None:
    """Return if `share` belongs to `point`, a point of a checked dealing.

    Raises FaultyPiece when it does not, or is no scalar at all.
    """
    try:
        fits = secret_point(decode_scalar(share)) == point
    except Malformed as error:
        raise FaultyPiece(f"A share cannot be right. {error}") from error
    if not fits:
        raise FaultyPiece("A share does not match what its dealer announced for this seat.")


def expected_point(commitments: Sequence[bytes], seat: int) -> bytes:
    """Return the point f(seat + 1)·B that `commitments` fix for any seat, dealt to or not."""
    _check_seats([seat])
    powers = [pow(seat + 1, exponent, L) for exponent in range(len(commitments))]
    return add_points(
        [multiply(power, each) for power, each in zip(powers, commitments, strict=True)]
    )


def _weights(
    commitments: Sequence[bytes], points: Sequence[bytes], seats: Sequence[int]
) -> list[int]:
    bound = hash256(
        "holdfast degree",
        b"".join(commitments),
        b"".join(points),
        b"".join(seat.to_bytes(2, "big") for seat in seats),
    )
    hashes = [hash256("holdfast weight", bound, k.to_bytes(2, "big")) for k in range(len(seats))]
    return [int.from_bytes(each[:_WEIGHT_BYTES], "little") + 1 for each in hashes]


# --- giving back -----------------------------------------------------------------------


def combine(threshold: int, shares: Mapping[int, bytes]) -> int:
    """Return the secret from `threshold` of `shares`, which are keyed by seat.

    The lowest seats are used. The shares must have passed `check_share`; compare
    `secret_point` of the result with the first commitment all the same. Raises NotEnough
    with fewer shares than `threshold`, Malformed for a share that is no scalar.
    """
    if len(shares) < threshold:
        raise NotEnough(
            f"{len(shares)} shares are here, and {threshold} are needed.",
            hint=f"Ask {threshold - len(shares)} more guardians.",
        )
    seats = sorted(shares)[:threshold]
    weights = lagrange(seats, 0)
    return sum(weights[seat] * decode_scalar(shares[seat]) for seat in seats) % L


def lagrange(seats: Sequence[int], at: int) -> dict[int, int]:
    """Return for each seat the weight mod L that its share has in the value of f at `at`.

    `at` is an evaluation point: 0 for the secret, seat + 1 for a seat's share. f(at) is the
    sum of weight times share, mod L. Raises ValueError for doubled or impossible seats.
    """
    _check_seats(seats)
    xs = [seat + 1 for seat in seats]
    tops = [math.prod(at - other for other in xs if other != x) for x in xs]
    bottoms = [math.prod(x - other for other in xs if other != x) for x in xs]
    # Small integers are kept whole, so that one inversion serves all weights.
    common = math.lcm(*bottoms)
    inverse = pow(common, -1, L)
    return {
        seat: top * (common // bottom) % L * inverse % L
        for seat, top, bottom in zip(seats, tops, bottoms, strict=True)
    }


def _evaluate(coefficients: Sequence[int], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % L
    return value


def _check_seats(seats: Sequence[int]) -> None:
    if len(set(seats)) != len(seats):
        raise ValueError("a seat is named twice")
    if not all(0 <= seat <= SEAT_MAX for seat in seats):
        raise ValueError(f"a seat is a number from 0 to {SEAT_MAX}")
