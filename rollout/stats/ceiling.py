"""Absolute ceilings: hold while the candidate's own level is shown to be above a limit, and clear by itself.

A test of the candidate alone, so it sees an outage that hits both arms. "Ceiling" stands for both sides:
lower_is_better tolerates a level <= the ceiling, higher_is_better a level >= it (a floor).

Each look brings K log factors, of which E[factor | past] <= 1 wherever the level, averaged over the look's
observations, is tolerated:

| observed | alternatives | factor |
|---|---|---|
| proportion, x of n | p_1: odds of c times lambda | (p_1 / c)^x ((1 - p_1) / (1 - c))^(n - x) |
| mean of values in [0, cap] | stakes k, parts of the largest possible | product of 1 + k (x - c) |
| count rate, x in exposure e | c times lambda | lambda^x exp(-e c (lambda - 1)) |

with c the ceiling; for a floor lambda is inverted and k negative. (Odds rather than rates, so that no alternative
ever needs a cap. The first is the second with k = (p_1 - c) / (c (1 - c)); Waudby-Smith & Ramdas, JRSS B 2024,
arXiv:2010.09686.) The alternatives are fixed beforehand, hence predictable.

They are added up as an e-CUSUM per alternative, mixed with fixed weights (Shin, Ramdas & Rinaldo, NEJSDS 2024,
arXiv:2203.03532): W <- max(W, 0) + log factor, log M = log sum_k w_k exp(W_k), and the level is shown to be above
the ceiling while M >= 1 / alpha. The zero forgets the good days before, so that a change is found as fast late as
early.

Guaranteed: e^W_n <= L_n (e^W_n-1 + 1), the Shiryaev-Roberts form, so M_n - n is at most a supermartingale and
E[M_tau] <= E[tau] for every stopping time; M is 1 / alpha or more at an alarm. Hence, **while the level is tolerated
at every look, the average number of looks from a fresh start to the first alarm is at least 1 / alpha**. That is a
rate of false alarms, not the probability of ever having one (which is 1 on the ceiling, in the long run), and it
counts looks, not requests: looking twice as often at the same data may alarm twice as often. (Measured with levels
exactly on a ceiling of 5 %: 8 to 17 times 1 / alpha; below the ceiling far more.) It holds from a fresh start:
right after clearing, M lies close below the threshold and the next alarm may come sooner; whoever wants the full run
again starts from `FRESH`. Restarts happen between looks only, so an outage inside a large batch of good outcomes is
averaged with them.

Clearing: after a long outage W would be in the thousands, and as many good requests would be needed to come back.
`restarted` therefore caps every W_k at log(HEADROOM / (alpha w_k)): HEADROOM times what this alternative alone
needs for an alarm. That keeps the guarantee (it only lowers M), loses no alarm, and fixes the price of clearing:
outcomes since then that are HEADROOM times likelier on the ceiling than under the alternative. Less headroom would
clear faster and flap more: with a level at an alternative, the alarm is off some 1 / HEADROOM of the time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.stats.count_rate import Exposed
from rollout.stats.margin import Direction
from rollout.stats.mixture import log_mixture
from rollout.stats.proportion import Counts

Floats = NDArray[np.float64]

ALPHA = 0.001  # at least a thousand looks between false alarms
HEADROOM = 100.0

# Chosen by hand: half as much again up to a catastrophe; the first is the last to alarm and the last to clear.
LAMBDAS = np.array([1.5, 2.0, 3.0, 6.0, 15.0, 100.0])
STAKES = np.array([0.03, 0.08, 0.2, 0.4, 0.65, 0.9])  # parts of the stake that the best value would ruin
WEIGHTS = np.array([0.15, 0.2, 0.2, 0.2, 0.15, 0.1])

FRESH: tuple[float, ...] = (0.0,) * len(WEIGHTS)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The worst level that is tolerated: at most `level` if lower is better, at least `level` if higher is.

    Raises:
        ValueError: if the level is not a finite number above 0.
    """

    level: float
    direction: Direction

    def __post_init__(self) -> None:
        if not (math.isfinite(self.level) and self.level > 0.0):
            raise ValueError(f"a ceiling is a finite number above 0, not {self.level}")

    @property
    def sign(self) -> float:
        """+1 where more is worse, -1 where less is."""
        return 1.0 if self.direction == "lower_is_better" else -1.0


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """A histogram of bounded values: values (B,), how often each was observed (B,), and the cap of the mean.

    Values above the cap count as the cap, so the level is the mean of min(x, cap). Where that exceeds a ceiling, so
    does the plain mean; a floor must be stated for the capped one.

    Raises:
        ValueError: if shapes differ, the cap is not a finite number above 0, or a value or count is negative or not
            finite.
    """

    values: Floats
    counts: Floats
    cap: float

    def __post_init__(self) -> None:
        if self.values.shape != self.counts.shape or self.values.ndim != 1:
            raise ValueError(f"one count per value; got {self.counts.shape} for {self.values.shape}")
        if not (math.isfinite(self.cap) and self.cap > 0.0):
            raise ValueError(f"a cap is a finite number above 0, not {self.cap}")
        if not all(bool(np.isfinite(column).all() and (column >= 0.0).all()) for column in (self.values, self.counts)):
            raise ValueError("values and counts are finite and at least 0")


def ceiling_log_factors(observed: Counts | Levels | Exposed, ceiling: Ceiling) -> Floats:
    """The log factors of one look at the candidate, shape (6,); all 0 for a look without observations.

    With sticky units, divide them by the design effect of the candidate before they are added up.

    Args:
        observed: outcomes since the last look: of a proportion, a mean, or a count rate.
        ceiling: of the proportion (strictly between 0 and 1), of the mean (below the cap), or of the rate.

    Raises:
        ValueError: if the ceiling is no level that can be exceeded.
    """
    if isinstance(observed, Counts):
        return proportion_log_factors(observed.n, observed.x, ceiling)
    if isinstance(observed, Exposed):
        return rate_log_factors(observed.exposure, observed.events, ceiling)
    return mean_log_factors(observed.counts, observed.values, observed.cap, ceiling)


def proportion_log_factors(n: ArrayLike, x: ArrayLike, ceiling: Ceiling) -> Floats:
    """Log factors (..., 6) of x events in n outcomes, both (...).

    Raises:
        ValueError: if the ceiling is not below 1.
    """
    c = ceiling.level
    if not c < 1.0:
        raise ValueError(f"a ceiling of a proportion lies between 0 and 1, not at {c}")
    units, events = (np.asarray(count, np.float64)[..., None] for count in (n, x))
    odds = c / (1.0 - c) * LAMBDAS**ceiling.sign
    p1 = odds / (1.0 + odds)
    return np.asarray(events * np.log(p1 / c) + (units - events) * -np.log((1.0 + odds) * (1.0 - c)), np.float64)


def mean_log_factors(counts: ArrayLike, values: ArrayLike, cap: float, ceiling: Ceiling) -> Floats:
    """Log factors (..., 6) of histograms: counts (..., B) of values (B,), each at least 0, cut off at `cap`.

    Raises:
        ValueError: if the ceiling is not below the cap: nothing could exceed it.
    """
    c = ceiling.level
    if not c < cap:
        raise ValueError(f"a ceiling of a mean lies between 0 and the cap {cap}, not at {c}")
    best = c if ceiling.sign > 0.0 else cap - c  # how far the best value lies on the good side
    bad = ceiling.sign * (np.minimum(np.asarray(values, np.float64), cap) - c)
    return np.asarray(np.asarray(counts, np.float64) @ np.log1p(bad[:, None] * (STAKES / best)), np.float64)


def rate_log_factors(exposure: ArrayLike, events: ArrayLike, ceiling: Ceiling) -> Floats:
    """Log factors (..., 6) of events in an exposure, both (...); Poisson, or conservative for [0, 1] summands."""
    e, x = (np.asarray(value, np.float64)[..., None] for value in (exposure, events))
    u = LAMBDAS**ceiling.sign
    return np.asarray(x * np.log(u) - e * ceiling.level * (u - 1.0), np.float64)


def restarted(wealth: Sequence[float], log_factors: ArrayLike, alpha: float = ALPHA) -> list[float]:
    """The state after a look: W <- min(max(W, 0) + log factor, cap). Pure; the state is the list itself.

    Args:
        wealth: the state before, W_k of the 6 alternatives; `FRESH` at first.
        log_factors: of the look, shape (6,).
        alpha: 1 / alpha is the guaranteed average number of looks to a false alarm; sets the cap.
    """
    cap = np.log(HEADROOM / (alpha * WEIGHTS))
    grown = np.maximum(np.asarray(wealth, np.float64), 0.0) + np.asarray(log_factors, np.float64)
    return [float(w) for w in np.minimum(grown, cap)]


def log_detector(wealth: Sequence[float]) -> float:
    """Log M of a state, to be compared with log(1 / alpha)."""
    return log_mixture(wealth, WEIGHTS)


def is_exceeded(wealth: Sequence[float], alpha: float = ALPHA) -> bool:
    """Whether the level is shown to be beyond the ceiling now: log M >= log(1 / alpha)."""
    return log_detector(wealth) >= math.log(1.0 / alpha)
