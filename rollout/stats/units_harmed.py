"""How many units meet an event that the baseline would have spared them, when it is known what is true."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, gammaincinv

from rollout.stats.population import CANDIDATE, Population

Floats = NDArray[np.float64]

LEVELS = (np.arange(100) + 0.5) / 100.0  # of the distribution of a unit's own rate, at equal probabilities


class Harm(NamedTuple):
    """Rates of a bad event in the baseline, on average over units, and the candidate's as a multiple of a unit's own.

    `law` is "beta" for the events of a proportion, "gamma" for those counted against exposure; see `sticky_rates`.
    """

    law: Literal["beta", "gamma"]
    rate: float
    times: float
    stickiness: float = 0.0
    good: bool = False
    """Whether the event is a good one, which the candidate withholds."""

    def excess(self) -> Floats:
        """Events too many in a request of a unit, for units at `LEVELS`."""
        own = self._rates()
        other = own * self.times
        if self.law == "beta":
            other = np.minimum(other, 1.0)
        return np.maximum(0.0, own - other if self.good else other - own)

    def _rates(self) -> Floats:
        sticky, rate = self.stickiness, self.rate
        if sticky == 0.0 or rate <= 0.0 or (self.law == "beta" and rate >= 1.0):
            return np.full(LEVELS.size, rate)
        if self.law == "gamma":
            shape = rate * (1.0 - sticky) / sticky
            return np.asarray(gammaincinv(shape, LEVELS) * rate / shape, np.float64)
        spread = 1.0 / sticky - 1.0
        return np.asarray(betaincinv(rate * spread, (1.0 - rate) * spread, LEVELS), np.float64)


def units_harmed(harm: Harm, population: Population | None, requests: Floats) -> Floats:
    """Units that met at least one event too many, (r,), from the requests of both arms by stage, (S, r, 2).

    The requests of a unit are Poisson, and each harms with some probability, so a unit is spared with probability
    exp(-visits x probability). Without a population each request is of a unit of its own.
    """
    excess = harm.excess()
    harms = excess if harm.law == "beta" else -np.expm1(-excess)
    if population is None:
        return np.asarray(requests[..., CANDIDATE].sum(axis=0) * harms.mean(), np.float64)
    visits = population.visits(requests)[CANDIDATE]  # (S + 1, r)
    met = -np.expm1(-visits[..., None] * harms)
    return np.asarray(population.groups @ met.mean(axis=-1), np.float64)
