"""Intervals of means that people read: asymptotic, at all looks together, from moments per attempt.

As in `interval`: each end has its own level, attempts are strata that are never pooled, and no decision is taken
here. The normal approximation needs many outcomes, more of them the heavier the tail; a capped mean is what decides.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.stats.interval import ENDS, End, Interval, Levels, check_level, crossing
from rollout.stats.normal import Moments, normal_mixture_log_e, normal_mixture_radius

Floats = NDArray[np.float64]

FEWEST_UNITS = 50.0  # per arm and attempt, before a mean is taken to be normal
TUNED_UNITS = 1_000.0  # at which the interval of one arm's mean is tightest, relative to what is possible


class MeansStratum(NamedTuple):
    """Moments (scalars) of both arms in one attempt, and the design effect D >= 1 of the attempt's outcomes."""

    candidate: Moments
    baseline: Moments
    effect: float = 1.0


def mean_interval(arm: Moments, alpha: float, effect: float = 1.0) -> Interval | None:
    """The mean of one arm, at all times together with probability 1 - alpha, up to the normal approximation.

    Args:
        arm: moments of the outcomes.
        alpha: of both ends together, inside (0, 1); each end gets half.
        effect: design effect D >= 1; the outcomes count as n / D.

    Returns:
        None below 50 effective outcomes, or if all are equal: that says nothing about the next one.

    Raises:
        ValueError: if level or effect is outside its range.
    """
    known = _mean(arm, effect)
    check_level(alpha)
    if known is None or known.variance == 0.0:
        return None
    tuned = TUNED_UNITS / (known.variance * float(np.asarray(arm.n)) / effect)
    radius = float(normal_mixture_radius(1.0 / known.variance, tuned, 0.5 * alpha))
    return Interval(known.mean - radius, known.mean + radius)


def difference_of_means_interval(
    attempts: Sequence[MeansStratum], alphas: Levels, resolution: float
) -> Interval | None:
    """mean_t - mean_c, at all times together with probability 1 - both alphas, up to the normal approximation.

    The attempts' differences are weighted by their inverse variances; each end is that of the one-sided normal
    mixture (`normal`).

    Args:
        attempts: moments per attempt; those below 50 effective outcomes in an arm, or without variation, are left out.
        alphas: level of each end, inside (0, 1/2).
        resolution: the difference, > 0, that is to be told apart soonest: the margin. Fixed beforehand.

    Returns:
        None if no attempt is left.

    Raises:
        ValueError: if a level, an effect or the resolution is outside its range.
    """
    _check_resolution(resolution)
    arms = _arms(attempts)
    if arms is None:
        return None
    (mean_t, variance_t), (mean_c, variance_c) = arms
    information = 1.0 / (variance_t + variance_c)
    total = float(information.sum())
    estimate = float((information * (mean_t - mean_c)).sum()) / total
    below, above = (
        float(normal_mixture_radius(total, -2.0 * math.log(level) / resolution**2, level)) for level in alphas
    )
    return Interval(estimate - below, estimate + above)


def ratio_of_means_interval(attempts: Sequence[MeansStratum], alphas: Levels, resolution: float) -> Interval | None:
    """mean_t / mean_c, at all times together with probability 1 - both alphas, up to the normal approximation.

    A ratio r is rejected where the one-sided normal mixture rejects "mean_t - r mean_c = 0" (Fieller 1954), as the
    judge does on its line; no linearisation of the ratio.

    Args:
        attempts: as for `difference_of_means_interval`; means must be positive.
        alphas: level of each end, inside (0, 1/2).
        resolution: the relative change, > 0, that is to be told apart soonest: the margin.

    Returns:
        None if no attempt is left, or a mean is not above 0, where a ratio means nothing.

    Raises:
        ValueError: if a level, an effect or the resolution is outside its range.
    """
    _check_resolution(resolution)
    arms = _arms(attempts)
    if arms is None or min(arms[0].mean.min(), arms[1].mean.min()) <= 0.0:
        return None
    lower, upper = (
        crossing(_mixture_of_ratio(arms, end, level, resolution), "ratio", end, level)
        for end, level in zip(ENDS, alphas, strict=True)
    )
    return Interval(min(lower, upper), max(lower, upper))


class _Means(NamedTuple):
    """Means and their variances, design effect included: (attempts,)."""

    mean: Floats
    variance: Floats


class _Mean(NamedTuple):
    mean: float
    variance: float


def _mixture_of_ratio(
    arms: tuple[_Means, _Means], end: End, level: float, resolution: float
) -> Callable[[Floats], Floats]:
    (mean_t, variance_t), (mean_c, variance_c) = arms
    sign = 1.0 if end == "lower" else -1.0
    usual = float(np.average(mean_c, weights=1.0 / variance_c)) if (variance_c > 0.0).all() else float(mean_c.mean())

    def log_e(lines: Floats) -> Floats:
        r = lines[:, None]
        information = 1.0 / (variance_t + r * r * variance_c)
        score = sign * (information * (mean_t - r * mean_c)).sum(axis=1)
        # For large ratios the resolution is one of the candidate's mean, else the information would vanish beside it.
        found = resolution * usual * np.maximum(lines, 1.0)
        return normal_mixture_log_e(score, information.sum(axis=1), -2.0 * math.log(level) / found**2, level)

    return log_e


def _arms(attempts: Sequence[MeansStratum]) -> tuple[_Means, _Means] | None:
    known = [(_mean(candidate, effect), _mean(baseline, effect)) for candidate, baseline, effect in attempts]
    used = [(t, c) for t, c in known if t is not None and c is not None and t.variance + c.variance > 0.0]
    if not used:
        return None
    columns = np.array(used, np.float64)  # (attempts, arm, mean or variance)
    return _Means(*columns[:, 0].T), _Means(*columns[:, 1].T)


def _mean(arm: Moments, effect: float) -> _Mean | None:
    n, total, squares = (float(np.asarray(value)) for value in arm)
    if not effect >= 1.0:
        raise ValueError(f"a design effect is at least 1; got {effect}")
    if n / effect < FEWEST_UNITS:
        return None
    mean = total / n
    return _Mean(mean, effect * max(0.0, squares - n * mean * mean) / (n - 1.0) / n)


def _check_resolution(resolution: float) -> None:
    if not (math.isfinite(resolution) and resolution > 0.0):
        raise ValueError(f"a resolution is a finite number above 0, not {resolution}")
