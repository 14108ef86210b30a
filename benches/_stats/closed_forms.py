"""Peers that are one formula of the totals: naive tests, the mSPRT, a count test, and the oracle."""

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln

from benches._stats.streams import Arms, Look
from rollout.stats.betting import Bets, ratio_bets, settle

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Totals(Protocol):
    """The part of a look that these tests need."""

    @property
    def arms(self) -> Arms:
        """Moments of all that was seen so far."""

    @property
    def error(self) -> Floats:
        """Standard error of the difference if the arms are equal, (R,)."""


def z_score(seen: Totals, margin: float | None) -> Floats:
    """The z score for harm, or with a margin the one for "within it"; not a number while there is no variance."""
    arms = seen.arms
    gap = arms.mean_t - arms.mean_c
    with np.errstate(all="ignore"):
        if margin is None:
            return gap / np.where(seen.error > 0.0, seen.error, np.nan)
        error = np.sqrt(arms.var_t / arms.n_t + arms.var_c / arms.n_c)
        return (margin - gap) / np.where(error > 0.0, error, np.nan)


class Naive:
    """An ordinary test at each look, p < .05 one-sided, in the direction of harm or of an advance."""

    def __init__(self, name: str, margin: float | None = None, least: int = 0) -> None:
        self.lines: Mapping[str, float] = {name: 1.644854}
        self.margin, self.least = margin, least

    def look(self, seen: Totals, waiting: Ints) -> Floats:
        """The z score, (R,)."""
        return np.where(seen.arms.n_t >= self.least, z_score(seen, self.margin), np.nan)


class MixtureSPRT:
    """The normal-mixture SPRT (Johari et al., Oper. Res. 2022) on the difference, with its usual plug-in variance."""

    def __init__(self, name: str, tau: float, alpha: float = 0.05) -> None:
        self.lines: Mapping[str, float] = {name: math.log(1.0 / alpha)}
        self.tau2 = tau * tau

    def look(self, seen: Totals, waiting: Ints) -> Floats:
        """The log likelihood ratio where the candidate is the worse one, (R,)."""
        with np.errstate(all="ignore"):
            v = seen.error**2
            gap = seen.arms.mean_t - seen.arms.mean_c
            log_ratio = 0.5 * np.log(v / (v + self.tau2)) + self.tau2 * gap * gap / (2.0 * v * (v + self.tau2))
        return np.where((gap > 0.0) & (v > 0.0), log_ratio, np.nan)


class CountTest:
    """Lindon & Malek (NeurIPS 2022) on the labels of events alone, k = 100, two-sided."""

    def __init__(self, name: str, share: float, alpha: float = 0.05) -> None:
        self.lines: Mapping[str, float] = {name: math.log(1.0 / alpha)}
        self.share = share

    def look(self, seen: Look, waiting: Ints) -> Floats:
        """The log e where the candidate has more events than its share, (R,)."""
        a, b = 100.0 * self.share, 100.0 * (1.0 - self.share)
        x_t, x_c = np.asarray(seen.total.x_t), np.asarray(seen.total.x_c)
        log_e = betaln(a + x_t, b + x_c) - betaln(a, b) - x_t * math.log(self.share) - x_c * math.log1p(-self.share)
        return np.where(x_t > self.share * (x_t + x_c), log_e, np.nan)


class Oracle:
    """The SPRT that knows both rates, against the point of the line that is hardest to tell from them."""

    def __init__(self, name: str, share: float, rates: tuple[float, float], null_ratio: float = 1.0) -> None:
        self.lines: Mapping[str, float] = {name: math.log(20.0)}
        candidate, baseline = rates
        bets = ratio_bets(share, 1.0 - share, baseline, np.array([candidate / baseline]), null_ratio)
        self.bets = Bets(*(np.asarray(factor) for factor in bets))

    def look(self, seen: Look, waiting: Ints) -> Floats:
        """The log likelihood ratio, (R,)."""
        return settle(self.bets, seen.total)[..., 0]
