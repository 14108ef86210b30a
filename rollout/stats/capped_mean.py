"""Means of heavy-tailed or bounded numbers: harm and advance from a histogram per arm.

The mean that is tested is the *capped* one, E min(X, cap), with the cap frozen from the baseline (`calibration`) before
anything is bet on it: a single request that costs a thousand times the usual must not decide. Bounded metrics need no
cap, theirs is the upper bound. The candidate's values are first moved by the margin, Y = min((X - d) / r, cap), so the
null line is E Y_t = E min(X_c, cap); that is, the cap of the candidate lies at r cap + d.

| | harm null (tolerated) | advance null (not yet shown tolerable) |
|---|---|---|
| lower_is_better | E Y_t <= E min(X_c, cap) | E Y_t >= E min(X_c, cap) |
| higher_is_better | E Y_t >= E min(X_c, cap) | E Y_t <= E min(X_c, cap) |

Exact for the capped mean of the bucketed values, at any number of looks. What lies beyond the cap is not in it: whoever
tests a mean that should be low watches the tail as well (`values`).
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.stats.histogram import Grid, Histogram
from rollout.stats.margin import Direction, Margin, NullLine, null_line
from rollout.stats.scores import Alternatives, Moments, Range, Scores, mean_bets, moments, score_log_factors

Floats = NDArray[np.float64]

# Chosen by hand: the smallest finds +5 %, the largest meets a runaway loop.
HARM_LAMBDAS = np.array([1.05, 1.1, 1.2, 1.35, 1.6, 2.0, 3.0, 6.0])
HARM_WEIGHTS = np.full(8, 1.0 / 8.0)
# How far from equality (0) to the line (1) an alternative lies; below 0 the candidate is the better one.
ADVANCE_FRACTIONS = np.array([0.5, 0.25, 0.0, -0.5, -1.5])
ADVANCE_WEIGHTS = np.full(5, 1.0 / 5.0)
SMALLEST_GUESS = 1e-6  # part of the cap
LEAST_SHARE = 0.05  # an alternative keeps at least this part of the baseline's mean above the floor


def harm_log_factors(
    candidate: Histogram, baseline: Histogram, past: Histogram, cap: ArrayLike, margin: Margin, direction: Direction
) -> Floats:
    """Log e-factors (..., 8) of one batch for "the candidate's capped mean is worse than the margin tolerates".

    Args:
        candidate: the batch's histogram, not empty.
        baseline: the batch's histogram, not empty.
        past: the baseline's histogram of earlier batches only, not empty.
        cap: frozen, in the units of the values, shape (...).
        margin: the worst tolerated change; size 0 tolerates none.
        direction: which way the metric is good.
    """
    return _log_factors((candidate, baseline, past), cap, margin, direction, advance=False)


def advance_log_factors(
    candidate: Histogram, baseline: Histogram, past: Histogram, cap: ArrayLike, margin: Margin, direction: Direction
) -> Floats:
    """Log e-factors (..., 5) for "the candidate's capped mean is within the margin"; arguments as for harm.

    Raises:
        ValueError: if the margin is 0: no amount of data can show a change of at most nothing.
    """
    if margin.size == 0.0:
        raise ValueError("a margin of 0 leaves nothing to show; give the gate a margin above 0")
    return _log_factors((candidate, baseline, past), cap, margin, direction, advance=True)


def line_above_floor(margin: Margin, direction: Direction, floor: float) -> NullLine:
    """The null line for values counted from `floor`: x_t - floor = r (x_c - floor) + d + (r - 1) floor."""
    ratio, difference = null_line(margin, direction)
    return NullLine(ratio, difference + (ratio - 1.0) * floor)


def _log_factors(
    arms: tuple[Histogram, Histogram, Histogram],
    cap: ArrayLike,
    margin: Margin,
    direction: Direction,
    *,
    advance: bool,
) -> Floats:
    candidate, baseline, past = arms
    floor = past.grid.floor
    seen = np.asarray(cap, np.float64) - floor
    top = np.where(seen > 0.0, seen, 1.0)  # a cap at the floor leaves nothing to bet on
    line = line_above_floor(margin, direction, floor)
    # An upper bound is no cap: what the margin moves beyond it counts in full, or the moved mean would be too low.
    top_t = top if math.isinf(past.grid.ceiling) else (top - line.difference) / line.ratio
    history = _guessed(moments(_scores(past, NullLine(1.0, 0.0), top)), top)
    make = _advance_alternatives if advance else _harm_alternatives
    supposed = make(history, margin, direction, line, past.grid)
    low_t = np.asarray((0.0 - line.difference) / line.ratio)
    bounds = Range(np.broadcast_to(low_t, top.shape), top_t, np.zeros(top.shape), top)
    bets = mean_bets(candidate.n, baseline.n, history, supposed, bounds)
    factors = score_log_factors(bets, _scores(candidate, line, top_t), _scores(baseline, NullLine(1.0, 0.0), top))
    return np.where(seen[..., None] > 0.0, factors, 0.0)


def _guessed(history: Moments, top: Floats) -> Moments:
    """The baseline's moments, kept off zero: where all that is remembered is the floor itself, a ratio says nothing."""
    return Moments(
        np.maximum(history.mean, SMALLEST_GUESS * top), np.maximum(history.variance, np.square(SMALLEST_GUESS * top))
    )


def _scores(histogram: Histogram, line: NullLine, top: Floats) -> Scores:
    """Values counted from the floor, moved by the line, capped: (..., B) where the cap has leading axes."""
    moved = (histogram.values - histogram.grid.floor - line.difference) / line.ratio
    return Scores(np.minimum(moved, top[..., None]), histogram.counts)


def _harm_alternatives(
    history: Moments, margin: Margin, direction: Direction, line: NullLine, grid: Grid
) -> Alternatives:
    """Moved means strictly beyond the line: lambda times the baseline's, or that much of the margin if it is larger."""
    mean = np.asarray(history.mean, np.float64)[..., None]
    if direction == "higher_is_better":
        means = mean / HARM_LAMBDAS
    elif margin.relative:
        means = mean * HARM_LAMBDAS
    else:
        means = mean + np.maximum(mean, margin.size) * (HARM_LAMBDAS - 1.0)
    return _spread(means, history, scaled=margin.relative and grid.floor == 0.0)


def _advance_alternatives(
    history: Moments, margin: Margin, direction: Direction, line: NullLine, grid: Grid
) -> Alternatives:
    """Moved means between equality and the line, and beyond equality on the good side."""
    mean = np.asarray(history.mean, np.float64)[..., None]
    if margin.relative:
        ratio = null_line(margin, direction).ratio
        means = (mean + grid.floor) * ratio ** (ADVANCE_FRACTIONS - 1.0) - grid.floor
    else:
        means = mean + line.difference * (ADVANCE_FRACTIONS - 1.0)
    return _spread(np.maximum(means, LEAST_SHARE * mean), history, scaled=margin.relative and grid.floor == 0.0)


def _spread(means: Floats, history: Moments, *, scaled: bool) -> Alternatives:
    """Costs and latencies spread in proportion to their mean; what is moved by a difference keeps its spread."""
    mean, variance = (np.asarray(value, np.float64)[..., None] for value in history)
    factor = np.square(means / mean) if scaled else np.ones_like(means)
    return Alternatives(means, variance * factor)
