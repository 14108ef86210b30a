"""Shapes of latencies and costs, what a candidate does to them, and the limits that follow from that.

Values are counted in log buckets, 16 to a doubling instead of the judge's 64: a quarter of the work, and both arms are
rounded alike. What lies further out than one in ten thousand below, or in a hundred million above, is in the outermost
buckets.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, rel_entr

from rollout.stats.histogram import LogGrid

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Name = Literal["latency, lognormal s = 1", "cost, lognormal s = 1.5", "cost, Pareto (Lomax) 2.5"]

LATENCY: Name = "latency, lognormal s = 1"
COST: Name = "cost, lognormal s = 1.5"
PARETO: Name = "cost, Pareto (Lomax) 2.5"
SIGMAS = {LATENCY: 1.0, COST: 1.5}
INDEX = 2.5
LOWEST, HIGHEST = 1e-4, 1e-8  # probabilities of what lies beyond the outermost buckets
LARGEST_FACTOR = 2.0  # of any change, so that a shape has the same buckets whatever the change
STEPS = 16


def cdf(name: Name, x: Floats) -> Floats:
    """P(X < x) of a baseline's value; medians are 1 for the lognormals, Lomax starts at 0."""
    if name == PARETO:
        return np.asarray(1.0 - (1.0 + x) ** -INDEX, np.float64)
    return np.asarray(ndtr(np.log(np.maximum(x, 1e-300)) / SIGMAS[name]), np.float64)


def quantile(name: Name, level: float) -> float:
    """The inverse of `cdf`."""
    if name == PARETO:
        return float((1.0 - level) ** (-1.0 / INDEX) - 1.0)
    return math.exp(SIGMAS[name] * float(ndtri(level)))


@dataclass(frozen=True, slots=True)
class Change:
    """What the candidate does: all values times `factor`, or only those above the q99."""

    factor: float = 1.0
    tail_only: bool = False

    def __str__(self) -> str:
        """As in the tables."""
        if self.tail_only:
            return f"only above the p99, x {self.factor:g}"
        return f"mean x {self.factor:g}" if self.factor != 1.0 else "no difference"


UNCHANGED = Change()


class Pair(NamedTuple):
    """Both arms' probabilities (B,) of the buckets `index` of a grid."""

    grid: LogGrid
    index: Ints
    baseline: Floats
    candidate: Floats

    @property
    def values(self) -> Floats:
        """The value that stands for each bucket."""
        return self.grid.middle(self.index)


def pair(name: Name, change: Change, steps: int = STEPS) -> Pair:
    """The probabilities of a shape and its change."""
    low, high = quantile(name, LOWEST), quantile(name, 1.0 - HIGHEST) * LARGEST_FACTOR
    index = np.arange(math.floor(math.log2(low) * steps), math.ceil(math.log2(high) * steps))
    edges = np.exp2(np.append(index, index[-1] + 1) / steps)
    below = cdf(name, edges)
    if change.tail_only:
        border = quantile(name, 0.99)
        moved = np.where(edges < border, below, np.maximum(0.99, cdf(name, edges / change.factor)))
    else:
        moved = cdf(name, edges / change.factor)
    return Pair(LogGrid(steps), index, _masses(below), _masses(moved))


def _masses(below: Floats) -> Floats:
    inner = below[1:-1]
    return np.diff(np.concatenate([[0.0], inner, [1.0]]))


def full_limit(both: Pair, share: float, alpha: float) -> float:
    """Candidate requests that the best test of "the arms are equal" needs when it knows both distributions.

    log(1 / alpha) over inf_q KL(P_t | q) + (1 - w) / w KL(P_c | q), whose minimum is at q = w P_t + (1 - w) P_c.
    """
    middle = share * both.candidate + (1.0 - share) * both.baseline
    growth = rel_entr(both.candidate, middle).sum() + (1.0 - share) / share * rel_entr(both.baseline, middle).sum()
    return float(math.log(1.0 / alpha) / growth)


def mean_limit(both: Pair, share: float, ratio: float, alpha: float) -> float:
    """Candidate requests that a test which goes by means alone needs to show an equal candidate within x `ratio`.

    2 log(1 / alpha) (var / ratio^2 + w / (1 - w) var) / (mean - mean / ratio)^2: the growth rate of a normal bet.
    """
    mean = float(both.baseline @ both.values)
    variance = float(both.baseline @ both.values**2) - mean * mean
    spread = variance / ratio**2 + share / (1.0 - share) * variance
    return 2.0 * math.log(1.0 / alpha) * spread / (mean - mean / ratio) ** 2
