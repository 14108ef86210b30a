"""How much evidence a candidate request is worth, and how many more a gate needs."""

import math

from scipy.special import rel_entr

from rollout.stats.margin import Direction, Margin, NullLine, null_line


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

    The distance of log e to its threshold, divided by the growth of the best possible bet. Measured from a
    cold start, the real mixture takes 1.05 to 1.4 times as many. Where log e is divided by a design effect,
    so is its
    growth: multiply the result by D.

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


def _divergence(p: float, q: float) -> float:
    """KL(p | q) of two yes/no outcomes, in nats; infinite if q rules out what p allows."""
    q = min(max(q, 0.0), 1.0)
    value = float(rel_entr(p, q) + rel_entr(1.0 - p, 1.0 - q))
    return value if math.isfinite(value) else math.inf
