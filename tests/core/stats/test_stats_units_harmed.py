"""Units that meet an event too many: as many as when each of their requests is drawn."""

import numpy as np
import pytest

from rollout.stats.population import Population
from rollout.stats.units_harmed import Harm, units_harmed

REQUESTS = np.array([[[300.0, 2700.0]], [[2000.0, 2000.0]]])
POPULATION = Population(1000.0, (10.0, 50.0))


def drawn(harm: Harm, rng: np.random.Generator) -> float:
    """Candidate units that met an event that they would not have met, once."""
    if harm.law == "beta":
        spread = 1.0 / harm.stickiness - 1.0
        own = rng.beta(harm.rate * spread, (1.0 - harm.rate) * spread, 500)
        other = np.minimum(1.0, own * harm.times)
    else:
        shape = harm.rate * (1.0 - harm.stickiness) / harm.stickiness
        own = rng.gamma(shape, harm.rate / shape, 500)
        other = own * harm.times
    made = np.zeros(500)
    for n, first in ((300, 100), (2000, 500)):
        made[:first] += np.bincount(rng.integers(0, first, n), minlength=first)
    excess = np.abs(other - own)
    met = rng.binomial(made.astype(int), excess) if harm.law == "beta" else rng.poisson(made * excess)
    return float(np.count_nonzero(met))


@pytest.mark.parametrize(
    "harm",
    [
        Harm("beta", 0.1, 1.5, 0.2),
        Harm("beta", 0.6, 1.9, 0.3),
        Harm("beta", 0.8, 0.7, 0.1, good=True),
        Harm("gamma", 0.3, 2.0, 0.4),
    ],
)
def test_as_many_units_are_harmed_as_when_each_request_is_drawn(harm: Harm) -> None:
    rng = np.random.default_rng(4)
    found = [drawn(harm, rng) for _ in range(500)]
    assert units_harmed(harm, POPULATION, REQUESTS)[0] == pytest.approx(np.mean(found), rel=0.02)


def test_requests_of_units_of_their_own_are_counted_each() -> None:
    assert units_harmed(Harm("beta", 0.1, 1.5), None, REQUESTS)[0] == pytest.approx(2300 * 0.05)
    assert units_harmed(Harm("gamma", 0.1, 1.5), None, REQUESTS)[0] == pytest.approx(2300 * (1 - np.exp(-0.05)))


def test_what_is_better_harms_nobody() -> None:
    assert units_harmed(Harm("beta", 0.1, 0.5, 0.2), POPULATION, REQUESTS)[0] == 0.0
    assert units_harmed(Harm("beta", 0.8, 1.1, 0.2, good=True), POPULATION, REQUESTS)[0] == 0.0
