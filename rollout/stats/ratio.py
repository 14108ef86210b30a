"""Ratios per unit (cost per request, retries per session): R = sum y / sum d, compared between two arms.

| | harm null (tolerated) | advance null (not yet shown tolerable) |
|---|---|---|
| lower_is_better | R_t <= r R_c + delta | R_t >= r R_c + delta |
| higher_is_better | R_t >= r R_c + delta | R_t <= r R_c + delta |

Units are randomised and come back, so the variance is that between clusters: the 256 cells of a fixed hash of the
unit. Sums over cells add up to sums over units, and residuals of cells have the variance of residuals of units. One
look takes the *totals* of the running stage; nothing is bet batch by batch.

Unlike the tests of proportions this one is asymptotic: the one-sided normal mixture of `normal`, on D = R_t - (r R_c +
delta). Its dangerous side is where a skewed y makes a small arm's mean low and its variance low at the same time: an
advance, or harm seen from a small baseline. Simulated (tests/validity/test_validity_of_ratios.py: 96 looks, alpha .05,
shares of 2 to 98 %, ICC .05 and .2, 300 to 1,000 replications), the largest wrong rate over both sides, y per request
with a coefficient of variation of 1.3 / 2.9:

- the plain mixture from 45 cells .083 / .140, from 139 cells .033 / .087; the t mixture with Welch's degrees of freedom
  .077 / .140 and .033 / .083: it is skewness that does it, not heavy tails, so the mixture is the normal one;
- with the skewness correction (`_skew_corrected`) .053 / .090, and .020 / .043;
- and when an arm also borrows variance from the other (`_at_least_like`) .047 / .050 for harm from 45 cells (without a
  small baseline .023 / .013), .027 / .050 for an advance from 139. Both are needed: borrowing alone gave .063 / .067.
  With fresh seeds and 1,000 replications the worst of these worlds gave .037.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.stats.design_effect import CELLS
from rollout.stats.margin import Direction, Margin, NullLine, null_line
from rollout.stats.mixture import log_mixture
from rollout.stats.normal import check_level, normal_mixture_log_e

Floats = NDArray[np.float64]

RatioCells = Mapping[int, tuple[float, float]]

HARM_CELLS = 45  # in use in each arm: about 50 units, spread over 256 cells
ADVANCE_CELLS = 139  # about 200 units
SUPPORT = 10.0  # effective number of cells that y must rest on, in one arm at least
SMALLEST_HARM = 0.2  # harm worth finding fast, as a part of the ratio, however small the margin
EQUAL = 1e-9  # a deviation below this part of the ratio is rounding
_BORROWED = 0.5


class RatioEstimate(NamedTuple):
    """The ratio of one arm and what is known about it.

    Attributes:
        ratio: sum y / sum d; 0 where the denominator is 0.
        variance: of `ratio`, between cells; infinite where fewer than two cells or a denominator of 0 cannot tell.
        cells: in use.
        support: the effective number of cells that y rests on, (sum |y|)^2 / sum y^2 (Kish 1965): the number of events
            if they are rare, about `cells` / (1 + the squared coefficient of variation) if they are amounts.
    """

    ratio: float
    variance: float
    cells: int
    support: float


class CellSums(NamedTuple):
    """Sums of y and of d in every cell of one arm, each of shape (..., CELLS); a cell not in use holds zeros."""

    y: Floats
    d: Floats


class _Arm(NamedTuple):
    """One arm, each (...): total d (1 where it is 0), ratio, variance, third cumulant of it, cells, support."""

    total: Floats
    ratio: Floats
    variance: Floats
    third: Floats
    cells: Floats
    support: Floats


class _Contrast(NamedTuple):
    """What a look has seen, each (...)."""

    deviation: Floats  # D, positive beyond the line
    variance: Floats
    skewness: Floats
    scale: Floats  # the ratio as both arms see it


def ratio_estimate(cells: RatioCells) -> RatioEstimate:
    """The ratio of one arm with its variance by the delta method.

    var(R) = m / (m - 1) sum (y - R d)^2 / (sum d)^2 over the m cells in use (linearisation of a ratio of cluster
    totals; Cochran, Sampling Techniques, 1977, 6.19).

    Args:
        cells: cell (0 to 255) -> (sum y, sum d).

    Raises:
        ValueError: if a number of a cell, a sum or a denominator is impossible.
    """
    return estimate(_dense(cells))


def ratio_harm_log_e(
    candidate: RatioCells, baseline: RatioCells, margin: Margin, direction: Direction, alpha: float
) -> float:
    """Log e for "the candidate is worse than the margin tolerates", from the totals of one stage.

    It is that of the present look, to be merged over stages by `merge_stages`. It is 0, so that nothing is said, until
    each arm has `HARM_CELLS` cells in use and y rests on `SUPPORT` cells in one arm at least (not in both: a
    catastrophe must be found against a baseline without a single event).

    Args:
        candidate: cell -> (sum y, sum d) of the candidate's arm.
        baseline: likewise.
        margin: the worst tolerated change; size 0 tolerates none.
        direction: which way the ratio is good.
        alpha: the level that the mixture is tuned for, inside (0, 1/2).

    Raises:
        ValueError: if a number of a cell, a sum or a denominator is impossible, or alpha is outside its range.
    """
    return float(harm_log_e(_dense(candidate), _dense(baseline), margin, direction, alpha))


def ratio_advance_log_e(
    candidate: RatioCells, baseline: RatioCells, margin: Margin, direction: Direction, alpha: float
) -> float:
    """Log e for "the candidate is within the margin", from the totals of the present stage; arguments as for harm.

    The caller keeps the largest of the stage (Ville). It is 0 until each arm has `ADVANCE_CELLS` cells in use and y
    rests on `SUPPORT` cells in one arm at least. Two arms without a single event therefore never pass: nothing bounds
    what the next event will be. What is counted once per attempt belongs into a proportion, whose test is exact.

    Raises:
        ValueError: as for harm, or if the margin is 0: no amount of data can show a change of at most nothing.
    """
    return float(advance_log_e(_dense(candidate), _dense(baseline), margin, direction, alpha))


def merge_stages(log_es: Sequence[float], stages: int) -> float:
    """One log e for the whole rollout: the mean of the stages' e-values, in which one not begun counts 1.

    A mean, not a product: the same units recur, so the stages are not independent (Vovk & Wang, Ann. Stat. 2021).

    Args:
        log_es: log e of stage 0, 1, ...: of the running one its present value, of those before their last one.
            (Never a stage's largest: the maximum of an e-process is not an e-value.)
        stages: number of stages of the rollout.

    Raises:
        ValueError: if there is no stage, or more have begun than there are.
    """
    missing = stages - len(log_es)
    if stages < 1 or missing < 0:
        raise ValueError(f"{len(log_es)} stages have begun in a rollout of {stages} stages")
    return log_mixture([*log_es, *([0.0] * missing)], [1.0 / stages] * stages)


def estimate(sums: CellSums) -> RatioEstimate:
    """`ratio_estimate` of one arm whose cells are all given, each (CELLS,)."""
    arm = _arm(sums)
    known = bool(sums.d.sum() > 0.0 and arm.cells >= 2.0)
    return RatioEstimate(
        float(arm.ratio), float(arm.variance) if known else math.inf, int(arm.cells), float(arm.support)
    )


def harm_log_e(candidate: CellSums, baseline: CellSums, margin: Margin, direction: Direction, alpha: float) -> Floats:
    """`ratio_harm_log_e` for many rollouts at once, shape (...).

    The mixture is tuned to the harm that is worth finding fast: as large as the margin again, and `SMALLEST_HARM` of
    the ratio at least ("any regression" has no size of its own). Tuned to a margin of 1 % it would need ten times the
    data for a doubling; tuned to 20 % it costs a small harm little, as the price grows with the logarithm only.
    """
    contrast, ready = _look(candidate, baseline, margin, direction, HARM_CELLS)
    effect = np.maximum(_excess(margin, contrast.scale), SMALLEST_HARM * contrast.scale)
    return _log_e(contrast, effect, ready, alpha)


def advance_log_e(
    candidate: CellSums, baseline: CellSums, margin: Margin, direction: Direction, alpha: float
) -> Floats:
    """`ratio_advance_log_e` for many rollouts at once, shape (...); tuned to a candidate equal to the baseline."""
    if margin.size == 0.0:
        raise ValueError(
            "a margin of 0 leaves nothing to show: no data can prove that a change is at most zero; "
            "give the gate a margin above 0"
        )
    contrast, ready = _look(candidate, baseline, margin, direction, ADVANCE_CELLS)
    inward = contrast._replace(deviation=-contrast.deviation, skewness=-contrast.skewness)
    return _log_e(inward, _excess(margin, contrast.scale), ready, alpha)


def _look(
    candidate: CellSums, baseline: CellSums, margin: Margin, direction: Direction, cells: int
) -> tuple[_Contrast, NDArray[np.bool_]]:
    """The contrast, and whether there is enough to judge it by."""
    line, t, c = null_line(margin, direction), _arm(candidate), _arm(baseline)
    r, outward = line.ratio, 1.0 if direction == "lower_is_better" else -1.0
    deviation = t.ratio - (r * c.ratio + line.difference)
    # On the line both terms are R_c. Their mean stays a scale where one arm has no event: a clean baseline, or a
    # candidate without a single success.
    scale = 0.5 * (np.abs(c.ratio) + np.abs(t.ratio - line.difference) / r)
    rounding = np.square(EQUAL * scale)
    variance = _at_least_like(t, c) + r * r * _at_least_like(c, t)
    variance = np.where(variance > rounding, variance, _null_variance(candidate, baseline, line))
    ready = (
        (np.minimum(t.cells, c.cells) >= cells)
        & (np.maximum(t.support, c.support) >= SUPPORT)
        & (np.minimum(candidate.d.sum(-1), baseline.d.sum(-1)) > 0.0)
        & (np.square(deviation) > rounding)  # else rounding would be divided by rounding
        & (variance > 0.0)
    )
    if margin.relative and margin.size > 0.0:
        ready &= c.ratio >= 0.0  # a part of a negative ratio would tolerate less than no change
    third = t.third - r**3 * c.third
    skewness = third / np.where(variance > 0.0, variance, 1.0) ** 1.5
    return _Contrast(outward * deviation, variance, outward * skewness, scale), ready


def _log_e(contrast: _Contrast, effect: Floats, ready: NDArray[np.bool_], alpha: float) -> Floats:
    """The normal mixture of the corrected deviation, tuned to find `effect`; 0 where there is nothing to judge by."""
    check_level(alpha)
    ready = ready & (effect > 0.0)
    variance = np.where(ready, contrast.variance, 1.0)
    z = _skew_corrected(np.where(ready, contrast.deviation, 0.0) / np.sqrt(variance), contrast.skewness)
    v_opt = -2.0 * math.log(alpha) / np.square(np.where(ready, effect, 1.0))
    return np.where(ready, normal_mixture_log_e(z / np.sqrt(variance), 1.0 / variance, v_opt, alpha), 0.0)


def _excess(margin: Margin, scale: Floats) -> Floats:
    return np.asarray(margin.size * (scale if margin.relative else np.ones_like(scale)), np.float64)


def _at_least_like(arm: _Arm, other: _Arm) -> Floats:
    """The variance of an arm's ratio, but no less than half of what the other arm's would be with as much data.

    A small arm of a skewed y often has a low mean and a low variance together, by luck; a clean arm has none at all. An
    arm whose y rests on fewer than `SUPPORT` cells cannot tell and takes the other's in full. (Only half otherwise: a
    candidate twice as dear has four times the variance, which must not cost the test its power.)
    """
    part = np.where(arm.support < SUPPORT, 1.0, _BORROWED)
    return np.maximum(arm.variance, part * other.variance * other.total / arm.total)


def _null_variance(candidate: CellSums, baseline: CellSums, line: NullLine) -> Floats:
    """The variance of the deviation from residuals around the line, where neither arm varies around its own ratio.

    All bad against all good has no variance of its own, and is the clearest case of all. The common ratio on the line
    is (Y_t - delta D_t + Y_c) / (r D_t + D_c), as for Poisson counts; |z| is then the root of the effective number of
    cells. It is not used elsewhere: it costs power in small arms (a doubling seen by 60 units found in .45 instead of
    .59 of the rollouts) and, given the correction and the borrowing, it made no difference to any error rate.
    """
    total_t, total_c = candidate.d.sum(-1), baseline.d.sum(-1)
    both = line.ratio * total_t + total_c
    events = candidate.y.sum(-1) - line.difference * total_t + baseline.y.sum(-1)
    common = events / np.where(both > 0.0, both, 1.0)
    on_line = line.ratio * common + line.difference
    return _between(candidate, on_line) + line.ratio**2 * _between(baseline, common)


def _skew_corrected(z: Floats, skewness: Floats) -> Floats:
    """Hall's monotone transformation of a studentised mean where it lowers z, otherwise z itself.

    z + G z^2 / 3 + G^2 z^3 / 27 + G / 6 with G the skewness of the mean, already divided by sqrt(m) (P. Hall, "On the
    removal of skewness by transformation", JRSSB 1992). In the other direction it would raise z beyond what the few
    cells vouch for: measured .060 instead of .027.
    """
    corrected = z + skewness * z**2 / 3.0 + skewness**2 * z**3 / 27.0 + skewness / 6.0
    return np.minimum(z, corrected)


def _arm(sums: CellSums) -> _Arm:
    y, d = sums
    total, events, squares = d.sum(-1), np.abs(y).sum(-1), np.square(y).sum(-1)
    safe = np.where(total > 0.0, total, 1.0)
    ratio = np.where(total > 0.0, y.sum(-1) / safe, 0.0)
    residuals = y - ratio[..., None] * d
    support = np.square(events) / np.where(squares > 0.0, squares, 1.0)
    third = (residuals * residuals * residuals).sum(-1) / safe**3  # numpy is slow to cube
    return _Arm(safe, ratio, _between(sums, ratio), third, _in_use(sums), support)


def _between(sums: CellSums, ratio: Floats) -> Floats:
    """Sum m / (m - 1) (y - ratio d)^2 / (sum d)^2 over the m cells in use; 0 where there is nothing to sum."""
    m, total = _in_use(sums), sums.d.sum(-1)
    squares = np.square(sums.y - ratio[..., None] * sums.d).sum(-1)
    spread = squares / np.square(np.where(total > 0.0, total, 1.0))
    return np.asarray(m / np.maximum(m - 1.0, 1.0) * spread, np.float64)


def _in_use(sums: CellSums) -> Floats:
    return np.asarray(((sums.d > 0.0) | (sums.y != 0.0)).sum(-1), np.float64)


def _dense(cells: RatioCells) -> CellSums:
    """The sums by cell number, shape (CELLS,).

    Raises:
        ValueError: if a cell is not 0 to 255, a number is not finite, or a denominator is negative.
    """
    index = np.fromiter(cells.keys(), np.intp, len(cells))
    pairs = np.fromiter(chain.from_iterable(cells.values()), np.float64, 2 * len(cells)).reshape(-1, 2)
    numbered = not index.size or (index.min() >= 0 and index.max() < CELLS)
    if not (numbered and np.isfinite(pairs).all() and (pairs[:, 1] >= 0.0).all()):
        raise ValueError(f"cells are numbered 0 to {CELLS - 1} and hold finite sums with a denominator of at least 0")
    y, d = np.zeros(CELLS), np.zeros(CELLS)
    y[index], d[index] = pairs[:, 0], pairs[:, 1]
    return CellSums(y, d)
