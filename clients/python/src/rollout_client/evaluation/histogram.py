"""Fixed histogram buckets, the same in every process, so that histograms merge by addition (decision record 0001).

Without bounds: log buckets of base 2^(1/64) (1.1 % wide) from 1e-9 to 1e12 and one zero bucket. With
bounds: 1,000 equal ones.
"""

from __future__ import annotations

from math import floor, isfinite, log2

STEPS = 64
"""Log buckets per doubling."""
ZERO_BUCKET = -1915
"""Holds [0, 1e-9)."""
LOWEST_BUCKET, HIGHEST_BUCKET = -1914, 2551
LOWEST, HIGHEST = 1e-9, 1e12
LINEAR_BUCKETS = 1000


def log_bucket(value: float) -> int:
    """Return the bucket of an unbounded value: bucket i holds [2^(i/64), 2^((i+1)/64)).

    Raises:
        ValueError: NaN, infinite, negative (a metric with negative values needs bounds), or above 1e12.
    """
    if not isfinite(value):
        raise ValueError(f"{value} is not a number that can be counted")
    if value < 0:
        raise ValueError(f"{value} is negative; give the metric bounds")
    if value > HIGHEST:
        raise ValueError(f"{value} is above {HIGHEST:g}; give the metric another unit or bounds")
    if value < LOWEST:
        return ZERO_BUCKET
    index = floor(log2(value) * STEPS)
    # log2 may round across an edge; the edges themselves decide, so that every process agrees.
    if value < _edge(index):
        index -= 1
    elif value >= _edge(index + 1):
        index += 1
    return min(max(index, LOWEST_BUCKET), HIGHEST_BUCKET)


def linear_bucket(value: float, low: float, high: float) -> int:
    """Return the bucket of a value of a metric with bounds, 0 to 999; `high` itself is in the last.

    Raises:
        ValueError: NaN, infinite, or outside the bounds.
    """
    if not isfinite(value):
        raise ValueError(f"{value} is not a number that can be counted")
    if not low <= value <= high:
        raise ValueError(f"{value} is outside the bounds {low:g} to {high:g}")
    return min(LINEAR_BUCKETS - 1, floor((value - low) / (high - low) * LINEAR_BUCKETS))


def log_edges(index: int) -> tuple[float, float]:
    """Return [low, high) of a log bucket; ValueError outside -1915..2551."""
    if index == ZERO_BUCKET:
        return 0.0, LOWEST
    if not LOWEST_BUCKET <= index <= HIGHEST_BUCKET:
        raise ValueError(f"{index} is no log bucket: they are {ZERO_BUCKET}..{HIGHEST_BUCKET}")
    return max(_edge(index), LOWEST), _edge(index + 1)


def linear_edges(index: int, low: float, high: float) -> tuple[float, float]:
    """Return [low, high) of a linear bucket; ValueError outside 0..999."""
    if not 0 <= index < LINEAR_BUCKETS:
        raise ValueError(f"{index} is no linear bucket: they are 0..{LINEAR_BUCKETS - 1}")
    width = (high - low) / LINEAR_BUCKETS
    return low + index * width, high if index == LINEAR_BUCKETS - 1 else low + (index + 1) * width


def _edge(index: int) -> float:
    return float(2.0 ** (index / STEPS))
