"""The log score: the bet that uses most of what a shift of a lognormal-like number says.

z = clip((log X - a) / s, -4, 4) + 4 with a and s the mean and standard deviation of the baseline's log values, frozen
at calibration. A shift of every value by a factor moves z by log(factor) / s. Under stochastic order, which is the null
of a distribution test, the mean of any monotone score is ordered too, so the bets of `scores` are exact.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.stats.histogram import Histogram
from rollout.stats.margin import Direction, Margin, null_line
from rollout.stats.scores import ScoreBets, Scores, score_log_factors

Floats = NDArray[np.float64]

LAMBDAS = np.array([1.05, 1.1, 1.2, 1.35, 1.6, 2.0, 3.0])
WEIGHTS = np.full(7, 1.0 / 7.0)
CLIP = 4.0
LARGEST_STAKE = 0.2  # at the usual point m of about 4 no factor falls below 0.2
KEPT = 0.95  # where m is far from 4, because a shift is many standard deviations, a factor still keeps 0.05
SMALLEST_VALUE = 1e-9


def centre_and_scale(past: Histogram) -> tuple[Floats, Floats]:
    """Mean a and standard deviation s of the log values, each (...); s is kept above 0.001."""
    logs = np.log(np.maximum(past.values, SMALLEST_VALUE))
    n = past.n
    centre = (past.counts * logs).sum(axis=-1) / n
    variance = (past.counts * np.square(logs)).sum(axis=-1) / n - centre * centre
    return np.asarray(centre, np.float64), np.sqrt(np.maximum(variance, 1e-6))


def harm_log_factors(
    candidate: Histogram,
    baseline: Histogram,
    frozen: tuple[ArrayLike, ArrayLike],
    margin: Margin,
    direction: Direction,
) -> Floats:
    """Log e-factors (..., 7) for "worse than a shift by the margin".

    Args:
        candidate: the batch's histogram, not empty.
        baseline: the batch's histogram, not empty.
        frozen: centre a and scale s, each (...), from the baseline before the batch.
        margin: relative; its ratio is taken off the candidate's values first.
        direction: which way the metric is good.

    Raises:
        ValueError: for an absolute margin above 0, which is no shift of the log.
    """
    if not margin.relative and margin.size > 0.0:
        raise ValueError("a log score is shifted by a ratio; give a relative margin")
    ratio = null_line(margin, direction).ratio
    centre, scale = (np.asarray(value, np.float64) for value in frozen)
    sign = 1.0 if direction == "lower_is_better" else -1.0
    bets = log_score_bets(candidate.n, baseline.n, sign * np.log(LAMBDAS) / scale[..., None])
    return score_log_factors(bets, _scores(candidate, ratio, centre, scale), _scores(baseline, 1.0, centre, scale))


def log_score_bets(n_t: ArrayLike, n_c: ArrayLike, shifts: Floats) -> ScoreBets:
    """Bets on shifts (..., K) in standard deviations, signed, for n_t and n_c observations (...)."""
    t, c = np.asarray(n_t, np.float64)[..., None], np.asarray(n_c, np.float64)[..., None]
    w, d = t / (t + c), np.clip(shifts, -CLIP, CLIP)
    m = CLIP + w * d
    largest = np.minimum(LARGEST_STAKE, KEPT / np.maximum(m, 2.0 * CLIP - m))
    k_t = np.clip(d * (1.0 - w), -largest, largest)
    k_c = k_t * t / c
    share = np.minimum(1.0, largest / np.maximum(np.abs(k_c), 1e-300))
    return ScoreBets(k_t * share, k_c * share, m)


def _scores(histogram: Histogram, ratio: float, centre: Floats, scale: Floats) -> Scores:
    logs = np.log(np.maximum(histogram.values, SMALLEST_VALUE) / ratio)
    standard = (logs - centre[..., None]) / scale[..., None]
    return Scores(np.clip(standard, -CLIP, CLIP) + CLIP, histogram.counts)
