"""The design effect of sticky units: how much less a request says because its unit made others.

Requests of one unit are correlated, so log e of a request-level test grows too fast. Units are kept only as
256 cluster cells per (attempt, arm), a fixed hash of the unit; sums over cells show the same extra variance
as sums over units, without a table of units. log e is divided by the *current* D: past values of D were
measured to be anti-conservative.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

CELLS = 256

Cells = Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class ArmsCells:
    """Totals of one attempt: cell (0 to 255) -> (n units, x events), sparse, for each arm."""

    candidate: Cells
    baseline: Cells


@dataclass(frozen=True, slots=True)
class _Arm:
    """One arm over all attempts: its own D (None if its cells cannot tell) and its part in var(p_t - p_c)."""

    effect: float | None
    variance: float


def design_effect(attempts: Sequence[ArmsCells]) -> float:
    """D >= 1, by which log e of the whole of `attempts` is to be divided.

    Per arm D = max(1, C/(C-1) sum_cells r^2 / (N/(N-1) sum n p (1-p))) with residuals r = x - p n, p the
    rate of the arm *in that attempt*, summed over attempts within a cell because a unit is always in the
    same cell; C is the number of cells in use and N that of observations. (Cluster-robust over binomial
    variance; both small-sample corrections are needed: with every observation in a cell of its own D is
    then exactly 1.) The arms are weighted by their parts in the variance of p_t - p_c, from rates shrunk by
    half an event so that an arm without variation keeps its weight.

    An arm that cannot tell (one cell only; or all its outcomes equal) borrows the D of the other arm, since
    units are randomised and return equally often; if neither can tell, D is 1. An arm with no two
    observations in one cell has nothing to correlate: D is 1. So a catastrophe is judged at once: ten
    requests that all fail are divided by 1 if the cells differ, otherwise by what the baseline shows. Below
    some fifty units D is noisy: a single coincidence of two failures in one cell can double it for a
    moment, it never falls below 1.

    Args:
        attempts: the cells of every attempt that the log e covers, in any order.
    """
    candidate = _arm([attempt.candidate for attempt in attempts])
    baseline = _arm([attempt.baseline for attempt in attempts])
    known = [arm.effect for arm in (candidate, baseline) if arm.effect is not None]
    total = candidate.variance + baseline.variance
    if not known or total == 0.0:
        return 1.0
    borrowed = known[0]  # used only where one arm is unknown, and then the other's is the first
    weighted = sum(arm.variance * (borrowed if arm.effect is None else arm.effect) for arm in (candidate, baseline))
    return max(1.0, weighted / total)


def _arm(attempts: Sequence[Cells]) -> _Arm:
    residuals, counts = np.zeros(CELLS), np.zeros(CELLS)
    binomial = shrunk = 0.0
    for cells in attempts:
        index, n, x = _columns(cells)
        units, events = float(n.sum()), float(x.sum())
        if units == 0.0:
            continue
        p, q = events / units, (events + 0.5) / (units + 1.0)
        residuals += np.bincount(index, x - p * n, CELLS)
        counts += np.bincount(index, n, CELLS)
        binomial += units * p * (1.0 - p)
        shrunk += units * q * (1.0 - q)
    total, used = float(counts.sum()), int(np.count_nonzero(counts))
    if total == 0.0:
        return _Arm(None, 0.0)
    variance = shrunk / (total * total)
    if used == total:
        return _Arm(1.0, variance)
    if used < 2 or binomial <= 0.0:
        return _Arm(None, variance)
    between = used / (used - 1.0) * float(residuals @ residuals)
    return _Arm(max(1.0, between / (total / (total - 1.0) * binomial)), variance)


def _columns(cells: Cells) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Cell numbers, n and x as arrays.

    Raises:
        ValueError: if a cell is not 0 to 255, or x > n.
    """
    index = np.fromiter(cells.keys(), np.intp, len(cells))
    pairs = np.fromiter(chain.from_iterable(cells.values()), np.float64, 2 * len(cells)).reshape(-1, 2)
    n, x = pairs[:, 0], pairs[:, 1]
    if index.size and not (index.min() >= 0 and index.max() < CELLS and (x >= 0.0).all() and (x <= n).all()):
        raise ValueError(f"cells are numbered 0 to {CELLS - 1} and hold 0 <= x <= n")
    return index, n, x
