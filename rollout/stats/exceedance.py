"""Quantiles and tails: how often an arm lies beyond thresholds that were frozen from the baseline.

"The p95 of the candidate is at most r q + d" is tested where it can be tested exactly: P(X_t beyond r q + d) against
P(X_c beyond q), with q the baseline's p95 *as frozen at calibration*. Each threshold makes a proportion, and the bets
are those of `betting` against a ratio of 1. A *ladder* of thresholds (the quantile and 1.5, 2 and 3 times it) sees both
a shift and a tail that only a few requests are in.

Beyond is the bad side: at or above for lower_is_better, below for higher_is_better. The candidate's threshold is
rounded to a bucket's edge outward for harm and inward for a gate, so rounding never makes evidence.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.stats.betting import Batch, ratio_log_factors
from rollout.stats.histogram import Histogram
from rollout.stats.margin import Direction, Margin, null_line
from rollout.stats.proportion import HARM_LAMBDAS

Floats = NDArray[np.float64]

LADDER = np.array([1.0, 1.5, 2.0, 3.0])
# Ratios of the shares beyond that a gate bets on. What equality looks like depends on the shape of the tail.
QUANTILE_RATIOS = 0.01 ** np.array([0.05, 0.1, 0.15, 0.25, 0.4, 0.6])
ADVANCE_WEIGHTS = np.array([0.1, 0.2, 0.3, 0.2, 0.1, 0.1])
# A mean's gate tolerates less than this many times the baseline's share beyond the tail threshold. The excess over once
# is widened like the margin of an early gate: with 1 % exposed, a strict tail would take most of the rollout's time.
TAIL_LIMIT, LARGEST_TAIL_LIMIT = 1.5, 6.0
TAIL_RATIOS = np.array([0.8, 2.0 / 3.0, 8.0 / 15.0, 0.4, 4.0 / 15.0, 2.0 / 15.0])  # times the limit


def thresholds_of(thresholds: ArrayLike, margin: Margin, direction: Direction) -> Floats:
    """The candidate's thresholds r q + d for the baseline's q, same shape."""
    ratio, difference = null_line(margin, direction)
    return np.asarray(thresholds, np.float64) * ratio + difference


def harm_log_factors(
    candidate: Histogram,
    baseline: Histogram,
    past: Histogram,
    thresholds: ArrayLike,
    margin: Margin,
    direction: Direction,
) -> Floats:
    """Log e-factors (..., T, 12) for "beyond more often than the margin tolerates", for thresholds (T,) or (..., T).

    Args:
        candidate: the batch's histogram, not empty.
        baseline: the batch's histogram, not empty.
        past: the baseline's histogram of earlier batches only.
        thresholds: the baseline's, frozen, on edges of the grid.
        margin: the worst tolerated change of the value itself; size 0 tolerates none.
        direction: which way the metric is good.
    """
    beyond_t = candidate.beyond(thresholds_of(thresholds, margin, direction), direction)
    batch = Batch(candidate.n[..., None], beyond_t, baseline.n[..., None], baseline.beyond(thresholds, direction))
    return ratio_log_factors(batch, _share(past, thresholds, direction), HARM_LAMBDAS, 1.0)


def advance_log_factors(
    candidate: Histogram,
    baseline: Histogram,
    past: Histogram,
    threshold: ArrayLike,
    margin: Margin,
    direction: Direction,
) -> Floats:
    """Log e-factors (..., 6) for "the quantile is within the margin", one threshold (...); arguments as for harm.

    Raises:
        ValueError: if the margin is 0.
    """
    if margin.size == 0.0:
        raise ValueError("a margin of 0 leaves nothing to show; give the gate a margin above 0")
    return _gate((candidate, baseline, past), threshold, margin, direction, (1.0, QUANTILE_RATIOS))


def tail_log_factors(
    candidate: Histogram,
    baseline: Histogram,
    past: Histogram,
    threshold: ArrayLike,
    margin: Margin,
    direction: Direction,
) -> Floats:
    """Log e-factors (..., 6) for "no heavier tail": beyond r q + d less often than `tail_limit` times the baseline.

    It watches what a capped mean does not see; arguments as for harm, one threshold (...).
    """
    limit = tail_limit(margin)
    return _gate((candidate, baseline, past), threshold, margin, direction, (limit, limit * TAIL_RATIOS))


def tail_limit(margin: Margin) -> float:
    """How many times the baseline's share beyond the tail threshold is too much for a gate of this margin."""
    return min(1.0 + (TAIL_LIMIT - 1.0) * margin.widening, LARGEST_TAIL_LIMIT)


def _gate(
    arms: tuple[Histogram, Histogram, Histogram],
    threshold: ArrayLike,
    margin: Margin,
    direction: Direction,
    bets: tuple[float, Floats],
) -> Floats:
    candidate, baseline, past = arms
    at = np.asarray(threshold, np.float64)[..., None]
    beyond_t = candidate.beyond(thresholds_of(at, margin, direction), direction, doubtful=True)
    batch = Batch(candidate.n, beyond_t[..., 0], baseline.n, baseline.beyond(at, direction)[..., 0])
    null_ratio, alternatives = bets
    return ratio_log_factors(batch, _share(past, at, direction)[..., 0], alternatives, null_ratio)


def _share(past: Histogram, thresholds: ArrayLike, direction: Direction) -> Floats:
    """The guess of the baseline's share beyond, shrunk like a young proportion."""
    return np.asarray((past.beyond(thresholds, direction) + 0.5) / (past.n[..., None] + 50.0), np.float64)
