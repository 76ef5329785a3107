"""Intervals and binomial probabilities, against published values and by exhaustion."""

from __future__ import annotations

from math import isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations.intervals import Share, at_least, exactly, surprise, wilson

counts = st.integers(1, 400).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of)))


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_intervals(hits: int, of: int, low: float, high: float) -> None:
    """The intervals are those that Newcombe printed."""
    assert [round(end, 4) for end in wilson(hits, of)] == [low, high]


@settings(max_examples=200, deadline=None)
@given(counts)
def test_an_interval_holds_its_share(count: tuple[int, int]) -> None:
    """The share counted lies in its interval, the interval between 0 and 1, mirrored alike."""
    hits, of = count
    low, high = wilson(hits, of)

    assert 0 <= low <= hits / of <= high <= 1
    mirrored = wilson(of - hits, of)
    assert isclose(low, 1 - mirrored[1], abs_tol=1e-12)
    assert isclose(high, 1 - mirrored[0], abs_tol=1e-12)


def test_nothing_counted_says_nothing() -> None:
    """Without a trial any probability is possible, and impossible counts are refused."""
    assert wilson(0, 0) == (0.0, 1.0)
    assert Share(0, 0).value is None
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)


@pytest.mark.parametrize("chance", [0.02, 0.1, 0.3, 0.5])
def test_intervals_cover_as_often_as_they_say(chance: float) -> None:
    """Over all counts of 60 trials the true probability lies inside about 95 times of 100."""
    covered = sum(
        exactly(hits, 60, chance)
        for hits in range(61)
        if wilson(hits, 60)[0] <= chance <= wilson(hits, 60)[1]
    )

    assert 0.92 <= covered <= 0.985


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 12), st.floats(0, 1))
def test_probabilities_add_up(of: int, chance: float) -> None:
    """All counts together are certain, and more is never likelier."""
    assert isclose(at_least(0, of, chance), 1, abs_tol=1e-9)
    tails = [at_least(hits, of, chance) for hits in range(of + 2)]
    assert tails == sorted(tails, reverse=True)
    assert tails[-1] == 0


def test_surprise() -> None:
    """What is expected surprises nobody; three of three where one of a thousand is does."""
    assert isclose(surprise(5, 10, 0.5), 1)
    assert isclose(surprise(0, 4, 0.5), 2 / 16)
    assert surprise(3, 3, 0.001) < 1e-8


def test_shares_agree_when_their_intervals_meet() -> None:
    """Shares of many trials must lie closer together than those of few."""
    assert Share(3, 10).agrees(Share(6, 10))
    assert not Share(300, 1000).agrees(Share(600, 1000))
    assert str(Share(1, 20)) == "1/20 = 5 % (95 %: 0.888 to 23.6)"
