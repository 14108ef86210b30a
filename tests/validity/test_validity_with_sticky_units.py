"""Error rates when units return: correlated requests, log e divided by the design effect of the cluster cells.

Each unit has a rate of its own (beta distributed, intra-class correlation `icc`) and keeps its arm; a look
follows every 200 requests. R is a few hundred, so a rate is allowed two Monte-Carlo standard errors.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from rollout.stats.betting import Batch, settle
from rollout.stats.design_effect import CELLS, ArmsCells, design_effect
from rollout.stats.guess import YOUNG, mix_guesses, settled_guess, young_guesses
from rollout.stats.margin import Direction, Margin, null_line
from rollout.stats.mixture import log_tempered
from rollout.stats.proportion import ADVANCE_WEIGHTS, HARM_WEIGHTS, advance_bets, harm_bets

REPLICATIONS, LOOKS, REQUESTS = 300, 96, 200
UNITS = {0.01: 3_000, 0.1: 600, 0.5: 600}  # by share: so few that each makes many requests
ALPHA = 0.05
LINE = ALPHA + 2.0 * math.sqrt(ALPHA * (1.0 - ALPHA) / REPLICATIONS)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Null scenario: the candidate's units have the rate that `null` makes of the baseline's."""

    share: float
    rate: float
    icc: float
    null: Margin
    direction: Direction = "lower_is_better"


def crossings(world: World, bets: Callable, margin: Margin, weights: Floats, seed: int) -> tuple[float, float]:
    """Fraction of rollouts whose log e ever reaches log(1 / alpha): divided by D, and as it is."""
    rng, threshold = np.random.default_rng(seed), math.log(1.0 / ALPHA)
    arm, cell, rates = population(world, rng)
    wealth, history = np.zeros((REPLICATIONS, weights.size)), np.zeros((2, REPLICATIONS))
    totals = np.zeros((2, 2, REPLICATIONS, CELLS), np.int64)  # arm, (n, x), replication, cell
    tempered, raw = np.zeros(REPLICATIONS, bool), np.zeros(REPLICATIONS, bool)
    replication = np.arange(REPLICATIONS)[:, None]
    for _ in range(LOOKS):
        unit = rng.integers(0, UNITS[world.share], (REPLICATIONS, REQUESTS))
        event = rng.random((REPLICATIONS, REQUESTS)) < rates[replication, unit]
        tick = np.zeros_like(totals)
        for side in (0, 1):
            for which, chosen in ((0, arm[replication, unit] == side), (1, event & (arm[replication, unit] == side))):
                place = (replication * CELLS + cell[replication, unit])[chosen]
                tick[side, which] = np.bincount(place, minlength=REPLICATIONS * CELLS).reshape(REPLICATIONS, CELLS)
        totals += tick
        (n_c, x_c), (n_t, x_t) = tick.sum(axis=-1)
        ready = (n_t > 0) & (n_c > 0)
        batch = Batch(n_t[ready], x_t[ready], n_c[ready], x_c[ready])
        wealth[ready] += log_factors(bets, batch, history[:, ready], margin, world.direction)
        history += (n_c, x_c)
        top = wealth.max(axis=1)
        log_e = top + np.log(np.exp(wealth - top[:, None]) @ weights)
        raw |= log_e >= threshold
        for index in np.flatnonzero((log_e >= threshold) & ~tempered):
            effect = design_effect([cells(totals[:, :, index])])
            tempered[index] = log_tempered(wealth[index], weights, effect) >= threshold
    return float(tempered.mean()), float(raw.mean())


def population(world: World, rng: np.random.Generator) -> tuple[NDArray, NDArray, Floats]:
    shape, spread = (REPLICATIONS, UNITS[world.share]), (1.0 - world.icc) / world.icc
    arm = (rng.random(shape) < world.share).astype(np.int64)
    cell = rng.integers(0, CELLS, shape)
    own = rng.beta(world.rate * spread, (1.0 - world.rate) * spread, shape)
    line = null_line(world.null, world.direction)
    # The arm's mean lies on the line and the spread within it stays: each unit's rate is scaled.
    scale = (line.ratio * world.rate + line.difference) / world.rate
    return arm, cell, np.where(arm == 1, np.minimum(own * scale, 1.0), own)


def log_factors(bets: Callable, batch: Batch, history: Floats, margin: Margin, direction: Direction) -> Floats:
    outcomes, events = history
    if (outcomes >= YOUNG).all():
        return settle(bets(batch.n_t, batch.n_c, settled_guess(events, outcomes), margin, direction), batch)
    rates, weights = young_guesses(events, outcomes)
    columns = Batch(*(np.asarray(count)[:, None] for count in batch))
    return mix_guesses(settle(bets(columns.n_t, columns.n_c, rates, margin, direction), columns), weights)


def cells(totals: NDArray) -> ArmsCells:
    baseline, candidate = ({i: (int(n[i]), int(x[i])) for i in np.flatnonzero(n).tolist()} for n, x in totals)
    return ArmsCells(candidate, baseline)


NOTHING = Margin(0.0, relative=True)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("icc", [0.05, 0.2])
def test_a_harmless_candidate_is_rolled_back_at_most_at_alpha(share: float, icc: float) -> None:
    tempered, _ = crossings(World(share, 0.1, icc, NOTHING), harm_bets, NOTHING, HARM_WEIGHTS, 30)
    assert tempered <= LINE


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("icc", [0.05, 0.2])
def test_a_candidate_on_the_margin_is_let_through_at_most_at_alpha(share: float, icc: float) -> None:
    margin = Margin(0.25, relative=True)
    tempered, _ = crossings(World(share, 0.1, icc, margin), advance_bets, margin, ADVANCE_WEIGHTS, 31)
    assert tempered <= LINE


def test_an_absolute_margin_of_a_quality_metric_holds_too() -> None:
    margin = Margin(0.05, relative=False)
    world = World(0.1, 0.35, 0.1, margin, "higher_is_better")
    tempered, _ = crossings(world, advance_bets, margin, ADVANCE_WEIGHTS, 32)
    assert tempered <= LINE


def test_without_the_design_effect_returning_units_would_be_mistaken_for_harm() -> None:
    tempered, raw = crossings(World(0.1, 0.1, 0.2, NOTHING), harm_bets, NOTHING, HARM_WEIGHTS, 33)
    assert raw > 2.0 * ALPHA
    assert tempered <= LINE
