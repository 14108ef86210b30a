"""How much evidence a candidate request is worth, and how many more a gate needs."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy.special import rel_entr

from rollout.stats.margin import Direction, Margin, NullLine, null_line, risk_scaled

# What the mixtures of bets take from a cold start, over the limit. Measured over gates and rollbacks of rates from
# 0.2 to 95 %, shares from 1 to 50 %: 1.2 to 1.6 on average, 2.3 to 3.0 until nine rollouts in ten are through. (The
# upper end: absolute margins of common events, whose first batch is bet before the baseline's rate is known.)
AVERAGE_OVERHEAD, TAIL_OVERHEAD = 1.4, 2.7
EQUALITY = NullLine(1.0, 0.0)


class SampleNeeded(NamedTuple):
    """Candidate requests.

    Attributes:
        limit: no test of this level and power one needs fewer on average.
        average: what the judge's tests take on average, to within some 15 %.
        nine_in_ten: by then nine rollouts in ten have got there.
    """

    limit: float
    average: float
    nine_in_ten: float


class Spread(NamedTuple):
    """Mean and variance of the outcomes of one arm."""

    mean: float
    variance: float


def information(p_t: float, p_c: float, share: float, null: NullLine) -> float:
    """The best growth of log e per candidate request against everything behind the line, in nats, >= 0.

    inf over the line p = ratio * q + difference of KL(p_t | p) + ((1 - w) / w) KL(p_c | q), w = share. No
    test of level alpha and power one can do with fewer than log(1 / alpha) / information requests on
    average (Wald). If the rates are on the line itself, the information is 0.

    Args:
        p_t: the candidate's rate, 0 to 1.
        p_c: the baseline's rate, 0 to 1.
        share: the candidate's share of the requests, inside (0, 1).
        null: the line, as `margin.null_line` draws it.

    Raises:
        ValueError: if a rate or the share is outside its range.
    """
    if not (0.0 <= p_t <= 1.0 and 0.0 <= p_c <= 1.0 and 0.0 < share < 1.0):
        raise ValueError(f"rates lie in [0, 1] and the share in (0, 1); got {p_t}, {p_c} and {share}")
    r, d = null
    odds = (1.0 - share) / share
    low, high = max(0.0, -d / r), min(1.0, (1.0 - d) / r)
    moved = min(max((p_t - d) / r, low), high)
    start = min(max(p_c, low), high)

    def slope(q: float) -> float:
        p = r * q + d
        # Multiplied by p(1-p)q(1-q), which keeps its sign, so that the ends 0 and 1 are finite.
        return r * (p - p_t) * q * (1.0 - q) + odds * (q - p_c) * p * (1.0 - p)

    from scipy.optimize import brentq  # a second of import that a starting service need not wait for

    nearest, furthest = min(moved, start), max(moved, start)
    inside = slope(nearest) < 0.0 < slope(furthest)
    candidates = [float(brentq(slope, nearest, furthest, xtol=1e-15))] if inside else [nearest, furthest]
    return max(0.0, min(_divergence(p_t, r * q + d) + odds * _divergence(p_c, q) for q in candidates))


def units_needed(
    log_e_now: float,
    log_threshold: float,
    p_c_estimate: float,
    margin: Margin,
    direction: Direction,
    share: float,
) -> float | None:
    """Candidate requests that an advance gate still needs, if the arms are equal.

    The distance of log e to its threshold, divided by the growth of the best possible bet. From a cold start the real
    mixture takes more, see `sample_needed`. Where log e is divided by a design effect, so is its growth: multiply the
    result by D.

    Args:
        log_e_now: log e for advance, as judged (after rounding and design effect).
        log_threshold: log(1 / alpha_advance).
        p_c_estimate: the baseline's rate.
        margin: of this gate.
        direction: which way the metric is good.
        share: the candidate's share of the requests, inside (0, 1).

    Returns:
        Requests, 0.0 if the threshold is reached; None if requests at these rates say nothing about the
        margin (a margin of 0, or a relative margin of an event that never happens).
    """
    missing = log_threshold - log_e_now
    if missing <= 0.0:
        return 0.0
    growth = information(p_c_estimate, p_c_estimate, share, null_line(margin, direction))
    return missing / growth if growth > 0.0 else None


def mean_information(candidate: Spread, baseline: Spread, share: float, null: NullLine) -> float:
    """The growth of log e per candidate request about a mean, in nats, >= 0, on either side of the line.

    gap^2 / (2 (var_t + r^2 w / (1 - w) var_c)), gap = mean_t - r mean_c - d: one candidate request brings (1 - w) / w
    baseline requests with it. It is `information` for normal outcomes, and for small gaps of any outcomes.

    Args:
        candidate: supposed outcomes; variance >= 0. For a capped mean, those of min(outcome, cap).
        baseline: likewise.
        share: the candidate's share w of the requests, inside (0, 1).
        null: the line mean_t = r mean_c + d.

    Returns:
        Nats; inf if neither arm varies but the gap is not 0.

    Raises:
        ValueError: if a variance is negative or the share is outside its range.
    """
    if not (candidate.variance >= 0.0 and baseline.variance >= 0.0 and 0.0 < share < 1.0):
        raise ValueError(f"variances are at least 0 and the share lies in (0, 1); got {candidate}, {baseline}, {share}")
    r, d = null
    gap = candidate.mean - r * baseline.mean - d
    variance = candidate.variance + r * r * share / (1.0 - share) * baseline.variance
    if variance == 0.0:
        return math.inf if gap != 0.0 else 0.0
    return gap * gap / (2.0 * variance)


def quantile_information(quantile: float, tail: float, share: float) -> float:
    """The growth of log e per candidate request for the gate of a quantile, if the arms are equal, in nats, >= 0.

    The gate compares P(candidate > (1 + m) q) with P(baseline > q) (`exceedance`): two proportions, tested at
    equality. For higher_is_better read "below" for "above" and 1 - quantile for quantile.

    Args:
        quantile: inside (0, 1), such as 0.99.
        tail: share of outcomes above the widened threshold (1 + m) q, as the baseline shows it, 0 to 1.
        share: the candidate's share of the requests, inside (0, 1).

    Returns:
        Nats; 0 if as many outcomes lie above the widened threshold as above the quantile: nothing can be shown.

    Raises:
        ValueError: if an argument is outside its range.
    """
    if not 0.0 < quantile < 1.0:
        raise ValueError(f"a quantile lies between 0 and 1, not {quantile}")
    growth = information(tail, 1.0 - quantile, share, EQUALITY)
    return growth if tail < 1.0 - quantile else 0.0


def sample_needed(growth: float, alpha: float, effect: float = 1.0) -> SampleNeeded | None:
    """Candidate requests until log e reaches log(1 / alpha), from a cold start.

    D log(1 / alpha) / growth (Wald), and that times the measured overheads. Growth is what `information`,
    `mean_information` or `quantile_information` say: about the gate's line for an advance, about the rollback's line
    for a detection.

    Args:
        growth: nats per candidate request, >= 0.
        alpha: of the test, inside (0, 1); for one guardrail of several, alpha_rollback * its share of the weights.
        effect: design effect D >= 1.

    Returns:
        None if there is no growth: these rates say nothing about the line.

    Raises:
        ValueError: if an argument is outside its range.
    """
    if not (growth >= 0.0 and 0.0 < alpha < 1.0 and effect >= 1.0):
        raise ValueError(f"growth >= 0, a level between 0 and 1 and D >= 1, please; got {growth}, {alpha}, {effect}")
    if growth == 0.0:
        return None
    limit = -effect * math.log(alpha) / growth
    return SampleNeeded(limit, AVERAGE_OVERHEAD * limit, TAIL_OVERHEAD * limit)


def stage_samples(
    percentages: Sequence[float],
    rate: float,
    margin: Margin,
    direction: Direction,
    alpha: float,
    effect: float = 1.0,
) -> tuple[SampleNeeded | None, ...]:
    """What the gate of each stage needs for a proportion, if the arms are equal; margins are risk-scaled.

    Args:
        percentages: exposure of the stages with a baseline, rising, each above 0 and below 100. The gate of the last
            one has the margin as it is.
        rate: of the events, in both arms.
        margin: the worst change accepted at the end.
        direction: which way the metric is good.
        alpha: of each gate, inside (0, 1).
        effect: design effect D >= 1.

    Raises:
        ValueError: if an argument is outside its range.
    """
    found = []
    for percentage, following in zip(percentages, [*percentages[1:], percentages[-1]], strict=True):
        line = null_line(risk_scaled(margin, direction, following, percentages[-1]), direction)
        found.append(sample_needed(information(rate, rate, percentage / 100.0, line), alpha, effect))
    return tuple(found)


def _divergence(p: float, q: float) -> float:
    """KL(p | q) of two yes/no outcomes, in nats; infinite if q rules out what p allows."""
    q = min(max(q, 0.0), 1.0)
    value = float(rel_entr(p, q) + rel_entr(1.0 - p, 1.0 - q))
    return value if math.isfinite(value) else math.inf


def prepare() -> None:
    """Import what sizes are solved with now, a second of work, and not in the middle of the first look."""
    import scipy.optimize  # noqa: F401
