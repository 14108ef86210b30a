"""Histograms on fixed buckets: counts that merge by addition, and edges that are the same everywhere.

A value is known to its bucket only, 1.1 % wide on the log grid. Both arms are rounded alike, so a comparison of the
arms is exact for the rounded values; a threshold on an edge is exact for the values themselves (DDSketch, Masson, Rim
& Lee, VLDB 2019, without its collapsing of buckets: thresholds must not move with the data).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.stats.margin import Direction

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NEAR = 1e-9  # relative; an edge met to this precision is met
LOWEST, HIGHEST = 1e-9, 1e12  # of the log grid, above its zero bucket


class Grid(Protocol):
    """Where the buckets lie."""

    @property
    def floor(self) -> float:
        """The lowest value that can occur."""

    @property
    def ceiling(self) -> float:
        """The highest value that can occur; infinite where there is none."""

    def edges(self, index: Ints) -> tuple[Floats, Floats]:
        """Lower edge (inside) and upper edge (outside) of buckets, each of the shape of `index`."""

    def middle(self, index: Ints) -> Floats:
        """The value that stands for a bucket."""

    def snap(self, value: ArrayLike) -> Floats:
        """The edge nearest to a value."""


@dataclass(frozen=True, slots=True)
class LogGrid:
    """Bucket i holds [2^(i/steps), 2^((i+1)/steps)); everything below 1e-9 is in the zero bucket, which is 0.

    Attributes:
        steps: buckets per doubling.
        zero: index of the zero bucket.
    """

    steps: int = 64
    zero: int = -1915

    @property
    def floor(self) -> float:
        """Nothing is below 0."""
        return 0.0

    @property
    def ceiling(self) -> float:
        """There is none."""
        return math.inf

    def edges(self, index: Ints) -> tuple[Floats, Floats]:
        """Edges of buckets; the zero bucket is [0, 1e-9), where the next one begins."""
        edges = _log_edges(self.steps, self.zero)
        return edges[index - self.zero], edges[index - self.zero + 1]

    def middle(self, index: Ints) -> Floats:
        """The geometric middle; 0 for the zero bucket."""
        return np.where(index == self.zero, 0.0, np.exp2((index + 0.5) / self.steps))

    def snap(self, value: ArrayLike) -> Floats:
        """The nearest edge on the log scale; 0 for what is nearer to it than to the zero bucket's upper edge."""
        at, edges = np.asarray(value, np.float64), _log_edges(self.steps, self.zero)
        above = np.clip(np.searchsorted(edges, at), 1, edges.size - 1)
        low, high = edges[above - 1], edges[above]
        return np.where(np.where(low > 0.0, at * at < low * high, at < 0.5 * high), low, high)


@dataclass(frozen=True, slots=True)
class LinearGrid:
    """`buckets` equal buckets over [low, high], numbered from 0; `high` itself is in the last."""

    low: float
    high: float
    buckets: int = 1000

    @property
    def floor(self) -> float:
        """The lower bound."""
        return self.low

    @property
    def ceiling(self) -> float:
        """The upper bound."""
        return self.high

    @property
    def _width(self) -> float:
        return (self.high - self.low) / self.buckets

    def edges(self, index: Ints) -> tuple[Floats, Floats]:
        """Edges of buckets."""
        return self._edge(index), self._edge(index + 1)

    def middle(self, index: Ints) -> Floats:
        """The middle of a bucket."""
        return np.asarray(self.low + (index + 0.5) * self._width, np.float64)

    def snap(self, value: ArrayLike) -> Floats:
        """The nearest edge within the bounds."""
        steps = np.clip(np.round((np.asarray(value, np.float64) - self.low) / self._width), 0, self.buckets)
        return self._edge(steps)

    def _edge(self, index: Ints | Floats) -> Floats:
        return np.where(index == self.buckets, self.high, self.low + index * self._width)


@lru_cache(maxsize=8)
def _log_edges(steps: int, zero: int) -> Floats:
    """All edges from 0 up, in the arithmetic of the clients, which decides to which bucket a value belongs."""
    last = math.floor(math.log2(HIGHEST) * steps)
    edges = [0.0, *(max(2.0 ** (index / steps), LOWEST) for index in range(zero + 1, last + 2))]
    return np.array(edges, np.float64)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts in some buckets of a grid.

    Attributes:
        grid: where the buckets lie.
        index: numbers of the buckets, ascending, shape (B,).
        counts: shape (..., B); leading axes are replications.
    """

    grid: Grid
    index: Ints
    counts: Floats

    @classmethod
    def of(cls, grid: Grid, counts: Mapping[int, float]) -> "Histogram":
        """From bucket -> count."""
        index = sorted(counts)
        return cls(grid, np.array(index, np.int64), np.array([counts[i] for i in index], np.float64))

    @property
    def n(self) -> Floats:
        """Observations, shape (...)."""
        return np.asarray(self.counts.sum(axis=-1), np.float64)

    @property
    def values(self) -> Floats:
        """The values that stand for the buckets, shape (B,)."""
        return self.grid.middle(self.index)

    def quantile(self, level: float, direction: Direction, *, inner: bool = False) -> Floats:
        """An edge with about `1 - level` of the observations beyond it, on the bad side of the metric, shape (...).

        lower_is_better: the upper edge of the first bucket that brings the share from below to `level`; at or above it
        lie at most 1 - level. higher_is_better: likewise from above, so that below it lie at most `level`. `inner`: the
        other edge of that bucket, beyond which the bucket lies as well.

        Raises:
            ValueError: if the histogram is empty.
        """
        total = self.counts.sum(axis=-1, keepdims=True)
        if self.index.size == 0 or (total <= 0.0).any():
            raise ValueError("an empty histogram has no quantile")
        low, high = self.grid.edges(self.index)
        if direction == "lower_is_better":
            share = np.cumsum(self.counts, axis=-1) / total
            return np.asarray((low if inner else high)[np.argmax(share >= level - NEAR, axis=-1)], np.float64)
        share = np.cumsum(self.counts[..., ::-1], axis=-1) / total
        edge = (high if inner else low)[::-1]
        return np.asarray(edge[np.argmax(share >= 1.0 - level - NEAR, axis=-1)], np.float64)

    def beyond(self, thresholds: ArrayLike, direction: Direction, *, doubtful: bool = False) -> Floats:
        """Observations beyond thresholds on the bad side, (..., T) for thresholds (T,) or (..., T).

        lower_is_better: at or above; higher_is_better: below. A bucket that holds a threshold inside is counted only
        if `doubtful`: harm leaves it out (rounded outward), a gate counts it (rounded inward).
        """
        at = np.asarray(thresholds, np.float64)[..., None]
        slack = NEAR * np.abs(at)
        low, high = self.grid.edges(self.index)
        if direction == "lower_is_better":
            beyond = high > at + slack if doubtful else low >= at - slack
        else:
            beyond = low < at - slack if doubtful else high <= at + slack
        return np.asarray((beyond @ self.counts[..., None])[..., 0], np.float64)
