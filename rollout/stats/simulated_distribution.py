"""Distributions to draw values from: a probability for each of 60 to 150 buckets of the metric's grid.

The judge counts in buckets 1.1 % wide. Here the probability of a few neighbours lies in the middle one of them: four
where that suffices, 2^(1/16) or 4.4 % in all, and more where the values spread too far (eight for a lognormal with
sigma 1.5). What is simulated is thus a discrete distribution, the same for both arms; the buckets themselves, and with
them every cap, threshold and rounding, are the judge's. What a candidate does moves whole fine buckets: a factor is met
to half of 1.1 %.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from rollout.stats.histogram import NEAR, Grid, LinearGrid, LogGrid

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST_WIDTH = 4  # buckets that are drawn as one
MOST_GROUPS = 150
REST_BELOW, REST_ABOVE = 1e-3, 1e-6  # probabilities of what lies outside all groups, and is put into the outermost
LARGEST = 1e12  # where the log grid ends


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """Where one value falls.

    Attributes:
        grid: the metric's buckets.
        index: numbers of the buckets that can occur, ascending, (B,).
        probabilities: of them, (B,), summing to 1.
        width: buckets that were drawn together into one; a drift moves by whole widths.

    Raises:
        ValueError: if the buckets do not ascend, or the probabilities are no distribution over them.
    """

    grid: Grid
    index: Ints
    probabilities: Floats
    width: int = 1

    def __post_init__(self) -> None:
        if self.index.shape != self.probabilities.shape or not (np.diff(self.index) > 0).all():
            raise ValueError("a distribution has a probability for each of its buckets, which ascend")
        if (self.probabilities < 0.0).any() or abs(float(self.probabilities.sum()) - 1.0) > NEAR:
            raise ValueError("probabilities are at least 0 and sum to 1")

    @property
    def mean(self) -> float:
        """The mean of the bucketed values."""
        return float(self.grid.middle(self.index) @ self.probabilities)

    def scaled(self, factor: float) -> "Distribution":
        """Every value times `factor`, cut off at the bounds if there are any."""
        moved = bucket_of(self.grid, self.grid.middle(self.index) * factor)
        return _collected(self.grid, moved, self.probabilities, self.width)

    def tail_scaled(self, factor: float, level: float = 0.99) -> "Distribution":
        """Only the part above the quantile at `level` times `factor`: with 2 and 0.99, 'p99 doubled'."""
        above = np.cumsum(self.probabilities[::-1])[::-1]
        tail = np.clip(1.0 - level - (above - self.probabilities), 0.0, self.probabilities)
        moved = bucket_of(self.grid, self.grid.middle(self.index) * factor)
        index = np.concatenate([self.index, moved])
        return _collected(self.grid, index, np.concatenate([self.probabilities - tail, tail]), self.width)

    def drifted(self, multiplier: float) -> "Distribution":
        """Every value times `multiplier`, on the log grid to a whole number of widths: no new buckets in between."""
        if not isinstance(self.grid, LogGrid):
            return self if multiplier == 1.0 else self.scaled(multiplier)
        step = self.width * round(math.log2(multiplier) * self.grid.steps / self.width)
        return self if step == 0 else self.scaled(2.0 ** (step / self.grid.steps))


def lognormal(sigma: float, *, median: float | None = None, mean: float | None = None) -> Distribution:
    """Values whose natural logarithm is normal with standard deviation `sigma`.

    Raises:
        ValueError: unless exactly one of median and mean is given.
    """
    if (median is None) == (mean is None):
        raise ValueError("give the median or the mean of a lognormal, one of them")
    middle = median if median is not None else (mean or 0.0) * math.exp(-0.5 * sigma * sigma)
    low, high = (middle * math.exp(sigma * float(ndtri(level))) for level in (REST_BELOW, 1.0 - REST_ABOVE))
    return _of_cdf(lambda x: np.asarray(ndtr(np.log(x / middle) / sigma), np.float64), low, high)


def pareto(exponent: float, scale: float) -> Distribution:
    """Values with P(X > x) = (1 + x / scale)^-exponent (Lomax), from 0 on; the mean is scale / (exponent - 1)."""
    low, high = (scale * (above ** (-1.0 / exponent) - 1.0) for above in (1.0 - REST_BELOW, REST_ABOVE))
    return _of_cdf(lambda x: 1.0 - (1.0 + x / scale) ** -exponent, low, high)


def observed(values: ArrayLike, grid: Grid | None = None) -> Distribution:
    """What was observed, each value with the same probability; on the log grid if there is no other.

    Raises:
        ValueError: if there is no value.
    """
    chosen = grid or LogGrid()
    numbers = np.asarray(values, np.float64)
    if numbers.size == 0:
        raise ValueError("a distribution needs at least one observed value")
    index, counts = np.unique(bucket_of(chosen, numbers), return_counts=True)
    apart = index == chosen.zero if isinstance(chosen, LogGrid) else np.zeros(index.size, np.bool_)
    width = 1 if index.size <= MOST_GROUPS else _width(index[~apart])
    middles = np.minimum(index // width * width + width // 2, index[-1])
    return _collected(chosen, np.where(apart, index, middles), counts / numbers.size, width)


def bucket_of(grid: Grid, values: ArrayLike) -> Ints:
    """The numbers of the buckets that values lie in, of the same shape.

    Raises:
        ValueError: for a grid of another kind.
    """
    numbers = np.asarray(values, np.float64)
    if isinstance(grid, LogGrid):
        index = np.floor(np.log2(np.clip(numbers, 1e-300, LARGEST)) * grid.steps + NEAR)
        return np.maximum(index, grid.zero).astype(np.int64)
    if isinstance(grid, LinearGrid):
        steps = (numbers - grid.low) / (grid.high - grid.low) * grid.buckets
        return np.clip(np.floor(steps + NEAR), 0, grid.buckets - 1).astype(np.int64)
    raise ValueError(f"no values can be drawn on a {type(grid).__name__}")


def _of_cdf(cdf: Callable[[Floats], Floats], low: float, high: float) -> Distribution:
    """Groups of the log grid from `low` to `high`; what lies further out is in the outermost."""
    grid = LogGrid()
    ends = bucket_of(grid, [low, high])
    width = _width(ends)
    starts = np.arange(ends[0], ends[1] + 1, width, dtype=np.int64)
    below: Floats = np.concatenate([np.zeros(1), cdf(grid.edges(starts[1:])[0]), np.ones(1)])
    return Distribution(grid, starts + width // 2, below[1:] - below[:-1], width)


def _width(index: Ints) -> int:
    """Buckets per group, so that MOST_GROUPS reach from the first to the last of `index`, which is ascending."""
    return max(LEAST_WIDTH, math.ceil((int(index[-1]) - int(index[0]) + 1) / MOST_GROUPS))


def _collected(grid: Grid, index: Ints, probabilities: Floats, width: int) -> Distribution:
    """Buckets that occur twice become one, those without probability none."""
    distinct, place = np.unique(index, return_inverse=True)
    sums = np.asarray(np.bincount(place, probabilities), np.float64)
    return Distribution(grid, distinct[sums > 0.0], sums[sums > 0.0], width)
