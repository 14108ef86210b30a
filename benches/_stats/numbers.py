"""What can be seen of numbers: histograms of two arms, look by look, R replications at a time.

An arm with few requests in a look is drawn value by value; one with many as a Poisson count in each bucket. Either way
requests arrive as a Poisson process, except that an arm is never empty in a look.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benches._stats.shapes import Change, Name, Pair, pair
from benches._stats.streams import Arms
from rollout.stats.histogram import Histogram
from rollout.stats.margin import Direction

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FEW = 32.0  # expected requests in a look up to which values are drawn one by one


@dataclass(frozen=True, slots=True)
class World:
    """A shape of values, what the candidate does to it, and the traffic.

    Attributes:
        name: of the shape.
        change: by the candidate.
        share: the candidate's part of the requests.
        looks: how many.
        units: expected candidate requests in a look.
    """

    name: Name
    change: Change
    share: float
    looks: int
    units: float = 10.0

    @property
    def pair(self) -> Pair:
        """Both arms' bucket probabilities."""
        return pair(self.name, self.change)


class Draws(Histogram):
    """A histogram whose replications each have their own buckets: `index` and `counts` are (R, n), one value each."""

    def beyond(self, thresholds: ArrayLike, direction: Direction, *, doubtful: bool = False) -> Floats:
        """As for any histogram; the buckets get an axis for the thresholds."""
        apart = Histogram(self.grid, self.index[..., None, :], self.counts)
        return apart.beyond(thresholds, direction, doubtful=doubtful)


def rows_of(histogram: Histogram, rows: Ints) -> Histogram:
    """Some of the replications."""
    index = histogram.index[rows] if isinstance(histogram, Draws) else histogram.index
    return replace(histogram, index=index, counts=histogram.counts[rows])


def dense(histogram: Histogram, index: Ints) -> Floats:
    """Counts in the buckets `index`, which are consecutive, (R, B)."""
    if not isinstance(histogram, Draws):
        return histogram.counts
    size, buckets = len(histogram.counts), index.size
    place = np.arange(size)[:, None] * buckets + histogram.index - index[0]
    counted = np.bincount(place.ravel(), histogram.counts.ravel(), size * buckets)
    return counted.reshape(size, buckets)


def power_sums(histogram: Histogram) -> Floats:
    """n, the sum and the sum of squares of each replication, (3, R)."""
    values, counts = histogram.values, histogram.counts
    if isinstance(histogram, Draws):
        return np.stack([(counts * values**power).sum(axis=-1) for power in range(3)])
    return np.stack([counts @ values**power for power in range(3)])


@dataclass(frozen=True)
class Look:
    """What one look shows.

    Attributes:
        number: 0, 1, ...
        candidate: the tick's histogram.
        baseline: likewise.
        sums: n, sum and sum of squares since the start, of the candidate and the baseline, (2, 3, R).
        stage: of the rollout.
    """

    number: int
    candidate: Histogram
    baseline: Histogram
    sums: Floats
    stage: int = 0

    @cached_property
    def arms(self) -> Arms:
        """The totals as moments; variances with divisor n - 1."""
        moments = []
        for n, total, squares in self.sums:
            with np.errstate(invalid="ignore", divide="ignore"):
                moments += [n, total / n, (squares - total * total / n) / (n - 1.0)]
        return Arms(*moments)

    @cached_property
    def error(self) -> Floats:
        """Welch's standard error of the difference of means, (R,)."""
        arms = self.arms
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(arms.var_t / arms.n_t + arms.var_c / arms.n_c)

    @property
    def units(self) -> Ints:
        """Candidate requests so far, (R,)."""
        return self.sums[0, 0].astype(np.int64)


class Arm:
    """Draws one arm's ticks."""

    def __init__(self, both: Pair, probabilities: Floats) -> None:
        self.grid, self.index, self.probabilities = both.grid, both.index, probabilities
        self.cumulated = np.cumsum(probabilities)[:-1]

    def tick(self, expected: float, replications: int, rng: np.random.Generator) -> Histogram:
        """The histogram of one look."""
        if expected > FEW:
            counts = rng.poisson(expected * self.probabilities, (replications, self.index.size))
            return Histogram(self.grid, self.index, counts.astype(np.float64))
        n = np.maximum(rng.poisson(expected, replications), 1)
        place = np.searchsorted(self.cumulated, rng.random((replications, int(n.max()))), side="right")
        present = np.arange(place.shape[1]) < n[:, None]
        return Draws(self.grid, self.index[place], present.astype(np.float64))


def stream(world: World, replications: int, rng: np.random.Generator) -> Iterator[Look]:
    """The looks of a world."""
    both = world.pair
    candidate, baseline = Arm(both, both.candidate), Arm(both, both.baseline)
    sums = np.zeros((2, 3, replications))
    for number in range(world.looks):
        t = candidate.tick(world.units, replications, rng)
        c = baseline.tick(world.units * (1.0 - world.share) / world.share, replications, rng)
        sums = sums + np.stack([power_sums(t), power_sums(c)])
        yield Look(number, t, c, sums)
