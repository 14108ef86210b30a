"""What is remembered of the baseline's values: a histogram that fades, coarse once thresholds are frozen.

It serves the guesses of later bets only, so four buckets may be kept as one, and the older values may lose weight.
"""

import numpy as np
from numpy.typing import NDArray

from rollout.stats.histogram import Grid, LogGrid

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MEMORY = 20_000.0  # values
SLACK = 0.1  # part of the memory that may come on top before the older values fade: not at every tick
DIGITS = 1  # of a faded count: the state stays small, and a replay exact
GROUP = 4  # buckets that are kept as one


def grouped(grid: Grid, index: Ints) -> Ints:
    """The bucket that stands for each bucket and its neighbours, same shape; the zero bucket stays apart."""
    middle = index // GROUP * GROUP + GROUP // 2
    return np.where(index == grid.zero, index, middle) if isinstance(grid, LogGrid) else middle


def faded(counts: Floats) -> Floats:
    """Counts (..., B) that add up to not much more than MEMORY."""
    total = counts.sum(axis=-1, keepdims=True)
    smaller = np.round(counts * MEMORY / np.maximum(total, 1.0), DIGITS)
    return np.where(total > MEMORY * (1.0 + SLACK), smaller, counts)
