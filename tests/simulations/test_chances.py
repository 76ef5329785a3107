"""Draws by integers: the right distributions, the same on every machine."""

from __future__ import annotations

import math
import statistics

import pytest

from simulations.chances import MILLION, Stream, exp

FIRST = [974, 439, 192]
NORMALS = [-20060, 39426, -30891]
WAITS = [1475, 495, 357]
SPREAD = [2300, 1457, 714]


def test_a_stream_is_the_same_everywhere() -> None:
    """These figures were computed once; another machine that differs gives other worlds."""
    stream = Stream(8123, "judge", 3, "claim 2")

    assert [stream.below(1000) for _ in range(3)] == FIRST
    assert [stream.normal() for _ in range(3)] == NORMALS
    assert [stream.exponential(1000) for _ in range(3)] == WAITS
    assert [stream.lognormal(1000, 500_000) for _ in range(3)] == SPREAD


def test_distributions_have_their_moments() -> None:
    """Mean and spread of ten thousand draws are those of the distribution."""
    stream = Stream(1, "moments")
    normal = [stream.normal() / 65536 for _ in range(10_000)]
    waits = [stream.exponential(1_000_000) for _ in range(10_000)]
    spread = [math.log(stream.lognormal(10**6, 1_200_000)) for _ in range(10_000)]

    assert abs(statistics.mean(normal)) < 0.03
    assert statistics.stdev(normal) == pytest.approx(1, abs=0.03)
    assert statistics.mean(waits) == pytest.approx(1_000_000, rel=0.03)
    assert statistics.mean(spread) == pytest.approx(math.log(10**6), abs=0.05)
    assert statistics.stdev(spread) == pytest.approx(1.2, abs=0.04)


@pytest.mark.parametrize("power", [-9.0, -1.0, 0.0, 0.5, 3.0, 12.0])
def test_exp_is_exp(power: float) -> None:
    """Within what sixteen bits after the point can tell."""
    found = exp(int(power * 65536)) / 65536

    assert found == pytest.approx(math.exp(power), rel=2e-4, abs=2e-5)


def test_streams_of_different_labels_are_independent() -> None:
    """One more draw for one entity moves nobody else's."""
    first, second = Stream(1, "a"), Stream(1, "b")
    expected = [Stream(1, "b").below(MILLION)]
    for _ in range(10):
        first.below(5)

    assert [second.below(MILLION)] == expected


def test_a_sample_holds_each_at_most_once() -> None:
    """And keeps the order."""
    taken = Stream(3, "sample").sample(list(range(20)), 8)

    assert len(set(taken)) == 8
    assert taken == sorted(taken)
    assert Stream(3, "sample").sample([1, 2], 5) == [1, 2]


def test_weights_weigh() -> None:
    """A key with nine tenths of the weight comes nine times of ten."""
    stream = Stream(4, "weights")
    heads = sum(stream.weighted({"head": 9, "tail": 1}) == "head" for _ in range(2000))

    assert 1700 < heads < 1900
