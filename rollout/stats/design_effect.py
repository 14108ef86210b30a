"""The design effect of sticky units: how much less a request says because its unit made others.

Requests of one unit are correlated, so log e of a request-level test grows too fast. Units are kept only as
256 cluster cells per arm, a fixed hash of the unit; sums over cells show the same extra variance as sums over
units, without a table of units. log e is divided by the *current* D: past values of D were measured to be
anti-conservative.

Any score can be asked: yes or no (0 or 1), a capped value, how many thresholds a value is beyond. `clusters` sums up
one attempt, `+` joins attempts of one arm, `design_effects` compares the arms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

CELLS = 256

Floats = NDArray[np.float64]
Cells = Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class ArmsCells:
    """Totals of one attempt: cell (0 to 255) -> (n units, x events), sparse, for each arm."""

    candidate: Cells
    baseline: Cells


@dataclass(frozen=True, slots=True)
class Clusters:
    """What the cells of one arm show, over one attempt or several, for J scores.

    Attributes:
        counts: observations of each cell, shape (256,).
        residuals: sum of (score - the arm's mean in that attempt) in each cell, shape (256, J).
        independent: the variance these sums would add up to if observations were independent, shape (J,).
        part: the same, but never 0 for a yes-or-no score: the arm's weight in the comparison, shape (J,).
    """

    counts: Floats
    residuals: Floats
    independent: Floats
    part: Floats

    def __add__(self, other: "Clusters") -> "Clusters":
        """Attempts join cell by cell, because a unit is always in the same one."""
        return Clusters(
            self.counts + other.counts,
            self.residuals + other.residuals,
            self.independent + other.independent,
            self.part + other.part,
        )


def no_clusters(scores: int) -> Clusters:
    """The clusters of an arm without observations."""
    return Clusters(np.zeros(CELLS), np.zeros((CELLS, scores)), np.zeros(scores), np.zeros(scores))


def clusters(counts: ArrayLike, sums: ArrayLike, squares: ArrayLike, *, binary: bool = False) -> Clusters:
    """The clusters of one arm in one attempt.

    Args:
        counts: observations n of each cell, (256,).
        sums: of each score in each cell, (256, J).
        squares: sum of squared scores over all cells, (J,); for yes or no that is the number of events.
        binary: whether scores are 0 or 1; an arm without variation is then given half an event, so that it keeps its
            weight.
    """
    n, s, q = (np.asarray(a, np.float64) for a in (counts, sums, squares))
    total = float(n.sum())
    if total == 0.0:
        return no_clusters(s.shape[1])
    mean = s.sum(axis=0) / total
    independent = np.maximum(q - total * mean * mean, 0.0)
    share = (s.sum(axis=0) + 0.5) / (total + 1.0)
    return Clusters(n, s - n[:, None] * mean, independent, total * share * (1.0 - share) if binary else independent)


def rate_clusters(exposure: ArrayLike, events: ArrayLike) -> Clusters:
    """The clusters of one arm in one attempt for events counted against exposure, both (256,): Poisson variance.

    Exposure can be divided at will, so it counts in billionths: no cell holds just one observation.
    """
    e, x = np.asarray(exposure, np.float64), np.asarray(events, np.float64)
    total = float(e.sum())
    if total == 0.0:
        return no_clusters(1)
    seen = float(x.sum())
    independent = seen if seen > 1.0 else 0.0  # one event cannot tell how events cluster
    return Clusters(1e9 * e, (x - seen / total * e)[:, None], np.array([independent]), np.array([seen + 0.5]))


def requests_per_unit(counts: ArrayLike) -> float:
    """How many requests the unit of a request makes, on average over requests; at least 1. From the cells alone.

    C/(C-1) sum_c (n_c - N/C)^2 / N over all C = 256 cells: units fall into cells at random, so its expectation is
    sum_u m_u^2 / sum_u m_u for units with m_u requests. Heavy units count by what they weigh, which the mean number of
    requests hides.

    Args:
        counts: observations of each cell, shape (256,).
    """
    n = np.asarray(counts, np.float64)
    total = float(n.sum())
    if total <= 0.0:
        return 1.0
    return max(1.0, CELLS / (CELLS - 1.0) * float(np.square(n - total / CELLS).sum()) / total)


def support(sums: ArrayLike) -> float:
    """The effective number of cells that a sum rests on, (sum x)^2 / sum x^2 (Kish, Survey Sampling, 1965).

    Rare independent events: their number. All of one unit: 1, however many they are.
    """
    x = np.asarray(sums, np.float64)
    squares = float(np.square(x).sum())
    return float(x.sum()) ** 2 / squares if squares > 0.0 else 0.0


def design_effects(candidate: Clusters, baseline: Clusters, unknown: float = 1.0) -> Floats:
    """D >= 1 for each score, shape (J,), by which log e of the bets on it is to be divided.

    Per arm D = max(1, C/(C-1) sum_cells residual^2 / (N/(N-1) independent)), C being the number of cells in use and N
    that of observations. (Cluster-robust over independent variance; both small-sample corrections are needed: with
    every observation in a cell of its own D is then exactly 1.) The arms are weighted by their parts in the variance
    of the difference of means.

    An arm that cannot tell (one cell only; or all its outcomes equal) borrows the D of the other arm, since
    units are randomised and return equally often; if neither can tell, D is `unknown`. An arm with no two
    observations in one cell has nothing to correlate: D is 1. So a catastrophe is judged at once: ten
    requests that all fail are divided by 1 if the cells differ, otherwise by what the baseline shows. Below
    some fifty units D is noisy: a single coincidence of two failures in one cell can double it for a
    moment, it never falls below 1.
    """
    (effect_t, part_t), (effect_c, part_c) = _arm(candidate), _arm(baseline)
    effect_t, effect_c = _borrowed(effect_t, effect_c), _borrowed(effect_c, effect_t)
    total = part_t + part_c
    weighted = (part_t * effect_t + part_c * effect_c) / np.where(total > 0.0, total, 1.0)
    silent = np.isnan(effect_t) & np.isnan(effect_c) & (total > 0.0)
    known = (total > 0.0) & ~np.isnan(weighted)
    return np.where(known, np.maximum(weighted, 1.0), np.where(silent, max(unknown, 1.0), 1.0))


def design_effect(attempts: Sequence[ArmsCells]) -> float:
    """D >= 1 of yes-or-no outcomes over all of `attempts`, in any order; see `design_effects`.

    Raises:
        ValueError: if a cell is not 0 to 255, or x > n.
    """
    candidate, baseline = no_clusters(1), no_clusters(1)
    for attempt in attempts:
        candidate, baseline = candidate + _binary(attempt.candidate), baseline + _binary(attempt.baseline)
    return float(design_effects(candidate, baseline)[0])


def _arm(arm: Clusters) -> tuple[Floats, Floats]:
    """One arm's own D (NaN where its cells cannot tell) and its part in the variance of the difference, each (J,)."""
    total, used = float(arm.counts.sum()), int(np.count_nonzero(arm.counts))
    scores = arm.independent.size
    if total == 0.0:
        return np.full(scores, np.nan), np.zeros(scores)
    part = arm.part / (total * total)
    if used == total:
        return np.ones(scores), part
    if used < 2 or total <= 1.0:
        return np.full(scores, np.nan), part
    between = used / (used - 1.0) * np.square(arm.residuals).sum(axis=0)
    alone = total / (total - 1.0) * arm.independent
    ratio = between / np.where(alone > 0.0, alone, 1.0)
    return np.where(alone > 0.0, np.maximum(ratio, 1.0), np.nan), part


def _borrowed(own: Floats, other: Floats) -> Floats:
    return np.where(np.isnan(own), other, own)


def _binary(cells: Cells) -> Clusters:
    index = np.fromiter(cells.keys(), np.intp, len(cells))
    pairs = np.array(list(cells.values()), np.float64).reshape(-1, 2)
    n, x = pairs[:, 0], pairs[:, 1]
    if index.size and not (index.min() >= 0 and index.max() < CELLS and (x >= 0.0).all() and (x <= n).all()):
        raise ValueError(f"cells are numbered 0 to {CELLS - 1} and hold 0 <= x <= n")
    counts, sums = np.zeros(CELLS), np.zeros((CELLS, 1))
    counts[index], sums[index, 0] = n, x
    return clusters(counts, sums, [x.sum()], binary=True)
