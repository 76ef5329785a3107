"""How sure a counted share is: Wilson's interval, and exact binomial probabilities.

Everything here is for independent trials. Claims on one federation share its guardians and
are not; claims on federations of their own, or runs of different seeds, are.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb, sqrt
from typing import Final

Z95: Final = 1.959963984540054  # of the standard normal distribution, for an interval of 95 %
ALIKE: Final = 1 + 1e-9  # two probabilities this close are equal but for rounding


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `of` trials: a probability as it was counted, and its 95 % interval."""

    hits: int
    of: int

    @property
    def value(self) -> float | None:
        return self.hits / self.of if self.of else None

    @property
    def low(self) -> float:
        return wilson(self.hits, self.of)[0]

    @property
    def high(self) -> float:
        return wilson(self.hits, self.of)[1]

    def agrees(self, other: Share) -> bool:
        """Whether the two intervals overlap, so that both may be of one probability."""
        return self.low <= other.high and other.low <= self.high

    def __str__(self) -> str:
        if not self.of:
            return "0/0"
        low, high = 100 * self.low, 100 * self.high
        return f"{self.hits}/{self.of} = {100 * self.hits / self.of:.3g} % (95 %: {low:.3g} to {high:.3g})"  # noqa: E501


def wilson(hits: int, of: int, z: float = Z95) -> tuple[float, float]:
    """Return the interval of a probability after `hits` of `of` trials; 0 to 1 after none.

    `z` is the quantile of the normal distribution, 95 % unless told. Never leaves 0 to 1, and
    is right near both, where the usual interval is empty (Wilson 1927). Raises ValueError
    for counts that cannot be.
    """
    if not 0 <= hits <= of:
        raise ValueError(f"{hits} of {of} cannot have been counted")
    if not of:
        return 0.0, 1.0
    share, square = hits / of, z * z
    middle = share + square / (2 * of)
    half = z * sqrt(share * (1 - share) / of + square / (4 * of * of))
    scale = 1 + square / of
    # At the ends the formula is exact, and only rounding would leave them.
    low = 0.0 if hits == 0 else (middle - half) / scale
    high = 1.0 if hits == of else (middle + half) / scale
    return low, high


def exactly(hits: int, of: int, chance: float) -> float:
    """Return the probability of exactly `hits` of `of` trials that each succeed by `chance`."""
    return float(comb(of, hits)) * chance**hits * (1 - chance) ** (of - hits)


def at_least(hits: int, of: int, chance: float) -> float:
    """Return the probability of `hits` or more of `of` trials.

    What independent guardians give a stranger: `at_least(threshold, guardians, deceived)`.
    """
    return min(1.0, sum(exactly(number, of, chance) for number in range(max(hits, 0), of + 1)))


def surprise(hits: int, of: int, chance: float) -> float:
    """Return how likely a count at most as likely as `hits` is: the exact two-sided test.

    A small value says that the trials did not succeed by `chance`, or were not independent.
    """
    likely = exactly(hits, of, chance)
    counts = (exactly(number, of, chance) for number in range(of + 1))
    return min(1.0, sum(count for count in counts if count <= likely * ALIKE))
