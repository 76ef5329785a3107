"""Share a secret, check the shares, and give it back; beside packages that cannot check.

Ours deals with commitments and points, checks as many shares as are needed and combines
them. A peer splits and combines the same 32 bytes and checks nothing. The floor is the
fastest of the peers that are installed (dependency group `bench`); without any there is no
floor. Each figure is the time of the whole, in milliseconds.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from benchmarks import staging
from benchmarks.measuring import AT_MOST, ROUNDS, Figure, Size, alternate
from protocol import sharing
from protocol.sharing import UNIFORM_BYTES, L

GOAL: Final = 1.0  # faster than the fastest
SIZES: Final = ((7, 5), (20, 14), (32, 22))
SECRET: Final = bytes(range(1, 33))

Round = Callable[[], object]


def ours(count: int, threshold: int) -> Round:
    """Deal, check and combine once."""
    randomness = staging.draws("sharing").draw(UNIFORM_BYTES * (threshold - 1))
    secret = int.from_bytes(SECRET, "little") % L
    seats = range(count)

    def run() -> object:
        dealing = sharing.deal(secret, threshold, seats, randomness)
        back = dict(list(dealing.shares.items())[-threshold:])
        for seat, share in back.items():
            sharing.check_share(share, dealing.points[seat])
        return sharing.combine(threshold, back)

    assert run() == secret
    return run


# --- peers -----------------------------------------------------------------------------


def _shamirs(count: int, threshold: int) -> Round:
    shamirs = importlib.import_module("shamirs")
    value = int.from_bytes(SECRET, "little") % L

    def run() -> object:
        shares = shamirs.shares(value, quantity=count, modulus=L, threshold=threshold)
        return shamirs.interpolate(shares[:threshold], threshold=threshold)

    assert run() == value
    return run


def _sslib(count: int, threshold: int) -> Round:
    shamir = importlib.import_module("sslib.shamir")

    def run() -> object:
        dealt = shamir.split_secret(SECRET, threshold, count)
        return shamir.recover_secret({**dealt, "shares": dealt["shares"][:threshold]})

    assert run() == SECRET
    return run


def _pycryptodome(count: int, threshold: int) -> Round:
    shamir = importlib.import_module("Crypto.Protocol.SecretSharing").Shamir
    halves = (SECRET[:16], SECRET[16:])

    def run() -> object:
        dealt = [shamir.split(threshold, count, half) for half in halves]
        return b"".join(shamir.combine(shares[:threshold]) for shares in dealt)

    assert run() == SECRET
    return run


def _slip39(count: int, threshold: int) -> Round:
    slip39 = importlib.import_module("shamir_mnemonic")

    def run() -> object:
        words = slip39.generate_mnemonics(
            1, [(threshold, count)], SECRET, b"", iteration_exponent=0
        )[0]
        return slip39.combine_mnemonics(words[:threshold])

    assert run() == SECRET
    return run


PEERS: Final[Mapping[str, Callable[[int, int], Round]]] = {
    "shamirs": _shamirs,
    "sslib": _sslib,
    "pycryptodome": _pycryptodome,
    "shamir-mnemonic": _slip39,
}


def fastest(count: int, threshold: int) -> tuple[str, Round] | None:
    """The peer that takes least time, of those that are here and can do this at all."""
    found: list[tuple[float, str, Round]] = []
    for name, make in PEERS.items():
        run = _tried(make, count, threshold)
        if run is None:
            continue
        found.append((min(_timed(run, 1) for _ in range(3)), name, run))
    if not found:
        return None
    _, name, run = min(found, key=lambda each: each[0])
    return name, run


def _tried(make: Callable[[int, int], Round], count: int, threshold: int) -> Round | None:
    try:
        return make(count, threshold)
    except Exception:  # not installed, or it cannot take these numbers, in whatever words
        return None


def _timed(run: Round, times: int) -> float:
    begun = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - begun) / times * 1e3


# --- all -------------------------------------------------------------------------------


def measure(size: Size, rounds: int = 3 * ROUNDS) -> Figure:
    """Measure every size of federation; the first is the headline."""
    first, *others = [_measure(count, threshold, size, rounds) for count, threshold in SIZES]
    return Figure(
        "sharing", first.measured, first.floor, first.unit, GOAL, AT_MOST,
        more=first.more, parts=tuple(others),
    )  # fmt: skip


def _measure(count: int, threshold: int, size: Size, rounds: int) -> Figure:
    run, times = ours(count, threshold), size.pick(1, 20, 100)
    peer = fastest(count, threshold)
    more: dict[str, Any] = {"n": count, "t": threshold, "peer": None}
    if peer is None:
        (measured,) = alternate(size.pick(1, rounds, rounds), lambda: _timed(run, times))
        floor = None
    else:
        name, theirs = peer
        more["peer"] = f"{name} {importlib.metadata.version(name)}"
        measured, floor = alternate(
            size.pick(1, rounds, rounds),
            lambda: _timed(run, times),
            lambda: _timed(theirs, times),
        )
    dealing = sharing.deal(1, threshold, range(count), bytes([1]) * 64 * (threshold - 1))
    points, seats = dealing.points, list(range(count))
    more["check_dealing_ms"] = round(
        _timed(lambda: sharing.check_dealing(dealing.commitments, points, seats), times), 3
    )
    name = f"sharing ({count}, {threshold})"
    return Figure(name, measured, floor, "ms", GOAL, AT_MOST, more=more)
