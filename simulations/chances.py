"""Random draws by whole numbers alone, one stream for each (seed, entity, purpose).

A float's last bit depends on the C library that computed it, and one changed bit is another
run. So distributions come from tables of integers: a run is the same everywhere. Streams are
independent, so that one knob changed, or one fault taken away, moves nobody else's draws.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final, TypeVar

from simulations.determinism import draws
from simulations.trace import Field

T = TypeVar("T")

MILLION: Final = 1_000_000  # chances are parts of a million
_ONE: Final = 1 << 16  # fixed point of the tables
_CELLS: Final = 128
_LN2: Final = 45_426  # ln 2 in 1/65536

# |z| of the normal distribution at k/128 of its half, in 1/65536; the last stands for the tail
# beyond 127/128 and ends at the quantile of 1/4096 on either side.
_NORMAL: Final = (
    0, 642, 1283, 1925, 2567, 3210, 3852, 4495, 5139, 5783, 6427, 7072, 7718, 8365, 9012, 9660,
    10310, 10960, 11611, 12263, 12917, 13572, 14228, 14886, 15545, 16206, 16869, 17533, 18199,
    18867, 19536, 20208, 20882, 21559, 22237, 22918, 23601, 24287, 24976, 25668, 26362, 27059,
    27759, 28463, 29170, 29880, 30594, 31311, 32032, 32758, 33487, 34220, 34958, 35700, 36446,
    37198, 37954, 38715, 39482, 40254, 41032, 41816, 42605, 43401, 44203, 45012, 45828, 46651,
    47482, 48320, 49166, 50021, 50884, 51756, 52637, 53528, 54428, 55340, 56262, 57195, 58140,
    59097, 60067, 61051, 62048, 63060, 64087, 65131, 66191, 67268, 68364, 69480, 70616, 71774,
    72954, 74159, 75389, 76647, 77933, 79250, 80600, 81985, 83408, 84871, 86377, 87931, 89536,
    91196, 92917, 94704, 96565, 98507, 100540, 102675, 104924, 107304, 109834, 112540, 115453,
    118613, 122076, 125918, 130248, 135235, 141156, 148519, 158437, 174330, 228531,
)  # fmt: skip


class Stream:
    """The draws that belong to one entity and purpose: `Stream(seed, "judge", 3, "claim 2")`."""

    __slots__ = ("_rng",)

    def __init__(self, seed: int, *labels: Field) -> None:
        self._rng = draws(seed, *labels)

    @classmethod
    def over(cls, rng: random.Random) -> Stream:
        """The same draws from a generator that is there already."""
        stream = cls.__new__(cls)
        stream._rng = rng
        return stream

    def bits(self, count: int) -> int:
        return self._rng.getrandbits(count)

    def octets(self, count: int) -> bytes:
        return self._rng.getrandbits(8 * count).to_bytes(count, "big")

    def below(self, bound: int) -> int:
        """A whole number from 0 to `bound` - 1, all alike."""
        return self._rng.randrange(bound)

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return self._rng.randrange(low, high + 1)

    def chance(self, millionths: int) -> bool:
        return self._rng.randrange(MILLION) < millionths

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """`count` of the items, each at most once, in their own order."""
        left = list(range(len(items)))
        taken = [left.pop(self.below(len(left))) for _ in range(min(count, len(left)))]
        return [items[index] for index in sorted(taken)]

    def weighted(self, weights: Mapping[T, int]) -> T:
        """One of the keys, each as often as its weight says."""
        left = self.below(sum(weights.values()))
        for key, weight in weights.items():
            left -= weight
            if left < 0:
                return key
        raise AssertionError("weights add up to more than was drawn from")

    def normal(self) -> int:
        """A draw of the standard normal distribution, in 1/65536."""
        drawn = self._rng.getrandbits(24)
        cell, within, sign = drawn >> 17, (drawn >> 1) & 0xFFFF, drawn & 1
        low = _NORMAL[cell]
        size = low + ((_NORMAL[cell + 1] - low) * within >> 16)
        return -size if sign else size

    def lognormal(self, median: int, sigma_ppm: int) -> int:
        """A draw around `median`; `sigma_ppm` is that of its logarithm, in millionths."""
        return median * exp(self.normal() * sigma_ppm // MILLION) >> 16

    def exponential(self, mean: int) -> int:
        """The wait for something that happens every `mean` on average."""
        drawn = self._rng.getrandbits(24)
        table, cell, within = _exponential(), drawn >> 16, drawn & 0xFFFF
        return mean * (table[cell] + ((table[cell + 1] - table[cell]) * within >> 16)) >> 16


def exp(power: int) -> int:
    """e to the power, both in 1/65536; 0 below e^-11, and never above e^20."""
    power = min(power, 20 * _ONE)
    twos, rest = divmod(power, _LN2)
    total = term = 1 << 32
    for step in range(1, 12):
        term = term * rest // (step << 16)
        total += term
    shift = 16 - twos
    return total >> shift if shift >= 0 else total << -shift


@cache
def _exponential() -> tuple[int, ...]:
    """-ln(1 - k/256) in 1/65536; the last cell ends where one in 4096 lies beyond."""
    return (*(_minus_ln(256 - k, 256) for k in range(256)), _minus_ln(1, 4096))


def _minus_ln(part: int, whole: int) -> int:
    # ln x = 2 artanh((x-1)/(x+1)), after halving `whole` until it is near `part`.
    halvings = 0
    while part * 2 <= whole:
        part, halvings = part * 2, halvings + 1
    ratio = ((whole - part) << 40) // (whole + part)
    square = ratio * ratio >> 40
    total, power = 0, ratio
    for odd in range(1, 40, 2):
        total += power // odd
        power = power * square >> 40
    return (2 * total >> 24) + halvings * _LN2
