"""The two-sample bet on bounded scores: the engine of `betting`, for numbers instead of yes and no.

For a batch whose candidate scores y_i (already moved by the margin, so that the null line is equality of means) and
baseline scores y_j are bounded,

    e = prod_{i in t} (1 + k_t (y_i - m)) * prod_{j in c} (1 - k_c (y_j - m)),   n_t k_t = n_c k_c,   all factors > 0.

k > 0 bets on "the candidate's mean is higher", k < 0 on "lower". E[e | past] <= exp(n_t k_t (mean_t - mean_c)) by
1 + u <= exp(u), which is <= 1 wherever the null holds (k > 0: mean_t <= mean_c). k and m are chosen before the batch's
outcomes are seen. Only batch averages enter: drift common to both arms and changing allocations are harmless.

All functions are vectorised over leading axes; the last axis of a bet holds the K alternatives.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

RESERVE = 0.25  # a factor never falls below this: no single outcome can ruin a bet
HIGHEST_POINT = (
    0.999  # part of the baseline's range: where a mean lies near its end, so must the point, or the bet loses
)
SMALLEST = 1e-300


class Scores(NamedTuple):
    """Scores of one arm as values (B,) or (..., B), and how many observations have each, (..., B)."""

    values: Floats
    counts: Floats


class Moments(NamedTuple):
    """Mean and variance of a score, from earlier batches of the baseline only, each (...)."""

    mean: ArrayLike
    variance: ArrayLike


class Alternatives(NamedTuple):
    """What the candidate's score is supposed to have under each alternative, each (..., K)."""

    mean: Floats
    variance: Floats


class Range(NamedTuple):
    """The lowest and the highest score of the candidate and of the baseline, each (...)."""

    low_t: ArrayLike
    high_t: ArrayLike
    low_c: ArrayLike
    high_c: ArrayLike


class ScoreBets(NamedTuple):
    """Signed stakes of the two arms and the point that parts gain from loss, each (..., K)."""

    k_t: Floats
    k_c: Floats
    m: Floats


def mean_bets(n_t: ArrayLike, n_c: ArrayLike, baseline: Moments, supposed: Alternatives, bounds: Range) -> ScoreBets:
    """The bets that grow fastest to second order if an alternative is true.

    The stake n_t k_t = n_c k_c is (mean_t - mean_c) / (var_t / n_t + var_c / n_c) and m the precision-weighted mean of
    the two means (the normal approximation of the reverse information projection); both are then cut so that every
    factor stays at or above RESERVE.

    Args:
        n_t: candidate observations of the batch, > 0, shape (...).
        n_c: baseline observations of the batch, > 0, shape (...).
        baseline: guess of the baseline's moments from earlier batches.
        supposed: the alternatives for the candidate's moved score.
        bounds: of the scores.
    """
    t, c, mean, variance = (np.asarray(a, np.float64)[..., None] for a in (n_t, n_c, *baseline))
    low_t, high_t, low_c, high_c = (np.asarray(a, np.float64)[..., None] for a in bounds)
    stake = (supposed.mean - mean) / (supposed.variance / t + variance / c)
    weight_t, weight_c = t / supposed.variance, c / variance
    m = (weight_t * supposed.mean + weight_c * mean) / (weight_t + weight_c)
    m = np.minimum(m, low_c + HIGHEST_POINT * (high_c - low_c))
    k_t, k_c = stake / t, stake / c
    # The most that one outcome of each arm can take.
    worst_t = np.where(stake > 0.0, k_t * (m - low_t), -k_t * (high_t - m))
    worst_c = np.where(stake > 0.0, k_c * (high_c - m), -k_c * (m - low_c))
    share = np.minimum(1.0, (1.0 - RESERVE) / np.maximum(np.maximum(worst_t, worst_c), SMALLEST))
    return ScoreBets(k_t * share, k_c * share, m)


def score_log_factors(bets: ScoreBets, candidate: Scores, baseline: Scores) -> Floats:
    """The log e-factors (..., K) of a batch."""
    m = bets.m[..., None]
    gains = np.log1p(bets.k_t[..., None] * (candidate.values[..., None, :] - m))
    losses = np.log1p(-bets.k_c[..., None] * (baseline.values[..., None, :] - m))
    settled = gains @ candidate.counts[..., None] + losses @ baseline.counts[..., None]
    return np.asarray(settled[..., 0], np.float64)


def moments(scores: Scores) -> Moments:
    """Mean and variance (with divisor n) of some scores, each (...); a variance is kept above 0."""
    n = scores.counts.sum(axis=-1)
    mean = (scores.values * scores.counts).sum(axis=-1) / n
    variance = (np.square(scores.values) * scores.counts).sum(axis=-1) / n - mean * mean
    return Moments(mean, np.maximum(variance, 1e-12 * np.maximum(mean * mean, SMALLEST)))
