"""The two-sample bet on a batch of yes/no outcomes: candidate t against baseline c.

For a batch with n_t and n_c units, a null line p_t = r p_c + d, and numbers k_t, k_c, m chosen before the
outcomes are seen,

    e = prod_{i in t} (1 + s k_t ((x_i - d) / r - m)) * prod_{j in c} (1 - s k_c (x_j - m)),   n_t k_t = n_c
    k_c,

with every factor >= 0. s = +1 bets on "above the line", s = -1 on "below it".

Valid: 1 + u <= exp(u) gives E[e | past] <= exp(s n_t k_t ((p_t - d) / r - p_c)), which is <= 1 wherever the
null holds (s = +1: p_t <= r p_c + d; s = -1: p_t >= r p_c + d), on the line and everywhere behind it. Only
batch averages of p enter, so a drift common to both arms is harmless and the allocation may change at every
batch.

Strong: with the guess g of the baseline's rate and an alternative p_1 for the candidate, m is the reverse
information projection of (p_1, g) on the line. That makes e the likelihood ratio of (p_1, g) against
(r m + d, m): the growth-optimal bet if the guess is right (Turner, Ly & Gruenwald, JSPI 2024,
arXiv:2106.02693; other nulls arXiv:2203.09785), and still a valid one if it is wrong.

All functions are vectorised over leading axes; the last axis of a result holds the K alternatives.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

SMALLEST_RATE = 1e-9
SMALLEST_RATE_DIFFERENCE = 1e-6
CEILING = 0.98  # an alternative of 1 would be ruined by a single success
SMALLEST_FACTOR = 1e-9
NEWTON_STEPS = 60


class Batch(NamedTuple):
    """Units and events of the candidate (t) and the baseline (c) in one batch; arrays of one shape (...)."""

    n_t: ArrayLike
    x_t: ArrayLike
    n_c: ArrayLike
    x_c: ArrayLike


class Bets(NamedTuple):
    """Log factor of one outcome, each (..., K): with and without event, of the candidate and the baseline."""

    event_t: Floats
    no_event_t: Floats
    event_c: Floats
    no_event_c: Floats


def settle(bets: Bets, batch: Batch) -> Floats:
    """The log e-factors of a batch, shape (..., K): bets are linear in the four counts."""
    n_t, x_t, n_c, x_c = (np.asarray(count, np.float64)[..., None] for count in batch)
    return np.asarray(
        x_t * bets.event_t + (n_t - x_t) * bets.no_event_t + x_c * bets.event_c + (n_c - x_c) * bets.no_event_c,
        np.float64,
    )


def ratio_bets(
    n_t: ArrayLike, n_c: ArrayLike, guess: ArrayLike, alternatives: ArrayLike, null_ratio: ArrayLike
) -> Bets:
    """Bets against the line p_t = null_ratio * p_c.

    The projection m solves r m^2 - B m + C = 0 in closed form.

    Args:
        n_t: candidate units of the batch, > 0, shape (...).
        n_c: baseline units of the batch, > 0, shape (...).
        guess: of the baseline's rate, made from earlier batches only, shape (...).
        alternatives: ratios p_t / p_c to bet on, shape (K,) or (..., K); above `null_ratio` the bet is on
        "above
            the line", below it on "below". An alternative that no rate can reach is not bet on.
        null_ratio: r > 0; one for all, or one for each alternative.
    """
    null_ratio = np.asarray(null_ratio, np.float64)
    t, c, guessed = (np.asarray(value, np.float64)[..., None] for value in (n_t, n_c, guess))
    ratios = np.asarray(alternatives, np.float64)
    w = t / (t + c)
    g = np.clip(guessed, SMALLEST_RATE, 1.0 - SMALLEST_RATE_DIFFERENCE)
    p1 = np.minimum(ratios * g, _ceiling(g))
    live = np.where(ratios > null_ratio, p1 > null_ratio * g, p1 < null_ratio * g)
    B = w * null_ratio + (1.0 - w) + w * p1 + (1.0 - w) * null_ratio * g
    C = w * p1 + (1.0 - w) * g
    m = 2.0 * C / (B + np.sqrt(np.maximum(B * B - 4.0 * null_ratio * C, 0.0)))
    return Bets(
        np.where(live, np.log(p1 / (null_ratio * m)), 0.0),
        np.where(live, np.log1p(-p1) - np.log1p(-null_ratio * m), 0.0),
        np.where(live, np.log(g / m), 0.0),
        np.where(live, np.log1p(-g) - np.log1p(-m), 0.0),
    )


def difference_bets(
    n_t: ArrayLike, n_c: ArrayLike, guess: ArrayLike, alternatives: ArrayLike, null_difference: ArrayLike
) -> Bets:
    """Bets against the line p_t = p_c + null_difference.

    Args:
        n_t: candidate units of the batch, > 0, shape (...).
        n_c: baseline units of the batch, > 0, shape (...).
        guess: of the baseline's rate, made from earlier batches only, shape (...).
        alternatives: differences p_t - p_c to bet on, shape (K,) or (..., K); above `null_difference` the
        bet is
            on "above the line", below it on "below". One that no rate can reach is not bet on.
        null_difference: d, between -1 and 1; one for all, or one for each alternative.
    """
    t, c, guessed = (np.asarray(value, np.float64)[..., None] for value in (n_t, n_c, guess))
    d, wanted = np.asarray(null_difference, np.float64), np.asarray(alternatives, np.float64)
    w = t / (t + c)
    g = np.clip(guessed, SMALLEST_RATE_DIFFERENCE, 1.0 - SMALLEST_RATE_DIFFERENCE)
    p1 = np.clip(g + wanted, SMALLEST_RATE_DIFFERENCE, _ceiling(g))
    w, g, p1 = np.broadcast_arrays(w, g, p1)
    moved = p1 - d  # the candidate's alternative, moved back by the margin
    low = np.maximum(np.minimum(g, moved), np.maximum(0.0, -d) + SMALLEST_RATE)
    high = np.minimum(np.maximum(g, moved), 1.0 - np.maximum(0.0, d) - SMALLEST_RATE)
    live = np.where(wanted > d, moved > g, moved < g) & (low < high)
    m = np.where(live, _projection(w, p1, g, d, (low, high)), 0.5)
    k_c = (m - g) / (m * (1.0 - m))
    k_t = k_c * (1.0 - w) / w  # balanced exactly, whatever the precision of m
    factors = (1.0 + k_t * (1.0 - m - d), 1.0 - k_t * (m + d), 1.0 - k_c * (1.0 - m), 1.0 + k_c * m)
    live = live & (np.minimum.reduce(factors) > SMALLEST_FACTOR)
    return Bets(*(np.log(np.where(live, factor, 1.0)) for factor in factors))


def ratio_log_factors(batch: Batch, guess: ArrayLike, alternatives: ArrayLike, null_ratio: float) -> Floats:
    """The log e-factors (..., K) of a batch against the line p_t = null_ratio * p_c; see `ratio_bets`."""
    return settle(ratio_bets(batch.n_t, batch.n_c, guess, alternatives, null_ratio), batch)


def difference_log_factors(batch: Batch, guess: ArrayLike, alternatives: ArrayLike, null_difference: float) -> Floats:
    """The log e-factors (..., K) of a batch against p_t = p_c + null_difference; see `difference_bets`."""
    return settle(difference_bets(batch.n_t, batch.n_c, guess, alternatives, null_difference), batch)


def _ceiling(guess: Floats) -> Floats:
    """The largest alternative: 0.98, or half-way from the guess to 1 for rates that are higher still."""
    return np.maximum(CEILING, 0.5 * (1.0 + guess))


def _projection(w: Floats, p1: Floats, g: Floats, d: Floats, bracket: tuple[Floats, Floats]) -> Floats:
    """The m that minimises w KL(p1 | m + d) + (1 - w) KL(g | m): a root of a cubic, by guarded Newton steps.

    The first-order condition is increasing in m, so a step that leaves the bracket is replaced by halving it.
    """
    low, high = bracket
    m = np.clip(w * (p1 - d) + (1.0 - w) * g, low, high)
    u = 1.0 - w
    for _ in range(NEWTON_STEPS):
        t = m + d
        vt, vm = t * (1.0 - t), m * (1.0 - m)
        from_t, from_c = w * (t - p1), u * (m - g)
        slope = from_t * vm + from_c * vt
        curvature = w * vm + u * vt + from_t * (1.0 - 2.0 * m) + from_c * (1.0 - 2.0 * t)
        below = slope < 0.0
        low, high = np.where(below, m, low), np.where(below, high, m)
        new = m - slope / np.where(curvature == 0.0, 1.0, curvature)
        new = np.where((new >= low) & (new <= high), new, 0.5 * (low + high))
        done = (np.abs(new - m) <= 1e-13 * new) | (high - low <= 1e-15)
        m = new
        if done.all():
            break
    return m
