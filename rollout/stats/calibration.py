"""What is frozen from the baseline before anything is bet on it: cap, thresholds, centre and scale of the logs.

Frozen means once for the life of a rollout: a threshold that moves with the data would be chosen by the outcomes it
judges. The first CALIBRATION baseline values are spent on it; they are history for the guesses of later bets, and no
evidence. With 500 values a q99 is known to about a third of its exceedances: what is tested is the frozen threshold,
not the true quantile.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rollout.stats.exceedance import LADDER
from rollout.stats.histogram import Histogram
from rollout.stats.log_score import centre_and_scale
from rollout.stats.margin import Direction

Floats = NDArray[np.float64]

CALIBRATION = 500
CALIBRATION_BOUNDED = 50  # a bounded mean freezes nothing; it needs a first guess of mean and variance only
BODY = np.array([0.5, 0.75, 0.9, 0.95])
TAIL = 0.99
CAP = 0.995


@dataclass(frozen=True, slots=True)
class Calibration:
    """Frozen numbers of one metric in one rollout; leading axes (...) are replications.

    Attributes:
        cap: of the capped mean, (...); the upper bound where the metric has bounds.
        centre: mean of the baseline's log values, (...).
        scale: their standard deviation, (...).
        body: thresholds at the body quantiles, (..., 4).
        ladder: thresholds at the focus or tail quantile and 1.5, 2 and 3 times it, (..., at most 4).
        gate: threshold of the gate on a quantile or the tail, (...).
    """

    cap: Floats
    centre: Floats
    scale: Floats
    body: Floats
    ladder: Floats
    gate: Floats


def calibrate(past: Histogram, direction: Direction, *, ladder: float, gate: float, high: float | None) -> Calibration:
    """Freeze a calibration from a baseline histogram.

    Args:
        past: the baseline's histogram, shape (..., B), each with CALIBRATION observations or so.
        direction: which way the metric is good; its bad side is where the thresholds lie.
        ladder: level q of the quantile at the foot of the ladder, inside (0, 1): 0.99 for a tail of large values, 0.01
            for one of small values.
        gate: level of the gate's threshold, inside (0, 1).
        high: the upper bound of the metric, None if it has none.
    """
    levels = BODY if direction == "lower_is_better" else 1.0 - BODY
    centre, scale = centre_and_scale(past)
    cap = _cap(past) if high is None else np.full(past.n.shape, float(high))
    body = np.stack([past.quantile(float(level), direction) for level in levels], axis=-1)
    foot, floor = past.quantile(ladder, direction)[..., None], past.grid.floor
    above = (
        foot - floor
    )  # multiples are those of the distance from the floor, or a negative foot would go the other way
    rungs = floor + (above * LADDER if direction == "lower_is_better" else above / LADDER)
    rungs = np.concatenate([foot, past.grid.snap(rungs[..., 1:])], axis=-1)
    return Calibration(cap, centre, scale, body, rungs, _gate(past, gate, direction))


def _cap(past: Histogram) -> Floats:
    """The value of the bucket in which the quantile lies; the largest that was seen where that is zero."""
    share = np.cumsum(past.counts, axis=-1) / past.n[..., None]
    cap = past.values[np.argmax(share >= CAP, axis=-1)]
    largest = np.where(past.counts > 0.0, past.values, 0.0).max(axis=-1)
    return np.asarray(np.where(cap > 0.0, cap, largest), np.float64)


def _gate(past: Histogram, level: float, direction: Direction) -> Floats:
    """The outer edge of the quantile's bucket; the inner one where far too little lies beyond the outer.

    Where many values are equal (a time-out, the most tokens an answer may have) nothing lies beyond the outer edge, and
    a gate could never show that the candidate is no worse there.
    """
    outer, inner = past.quantile(level, direction), past.quantile(level, direction, inner=True)
    wanted = 1.0 - level if direction == "lower_is_better" else level
    beyond, with_it = (past.beyond(edge[..., None], direction)[..., 0] / past.n for edge in (outer, inner))
    few = (beyond < 0.5 * wanted) & (beyond * with_it < wanted * wanted)
    return np.where(few, inner, outer)
