"""Error rates of ratios per unit: a cost per request, units that return, looks that go on for ever.

Each unit has a level of its own (lognormal, intra-class correlation `icc`), an activity of its own (exponential) and
keeps its arm; the costs of its requests are gamma distributed around its level, or a rare event has the level as its
rate. `spread` is the coefficient of variation of one request's cost. A look follows every 200 requests. The candidate
lies exactly on each line: its costs are scaled. R is a few hundred, so a rate is allowed two standard errors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from rollout.stats.design_effect import CELLS
from rollout.stats.margin import Direction, Margin, null_line
from rollout.stats.ratio import CellSums, advance_log_e, harm_log_e

REPLICATIONS, LOOKS, REQUESTS = 300, 96, 200
ALPHA = 0.05
LINE = ALPHA + 2.0 * math.sqrt(ALPHA * (1.0 - ALPHA) / REPLICATIONS)
Floats = NDArray[np.float64]

LOWER: Direction = "lower_is_better"
HIGHER: Direction = "higher_is_better"
TESTS = {
    "harm, any regression": (harm_log_e, Margin(0.0, relative=True), LOWER),
    "harm, at most 25 % more": (harm_log_e, Margin(0.25, relative=True), LOWER),
    "harm, at most 20 % less": (harm_log_e, Margin(0.2, relative=True), HIGHER),
    "advance, at most 25 % more": (advance_log_e, Margin(0.25, relative=True), LOWER),
    "advance, at most 20 % less": (advance_log_e, Margin(0.2, relative=True), HIGHER),
    "advance, at most 0.25 more": (advance_log_e, Margin(0.25, relative=False), LOWER),
}


@dataclass(frozen=True)
class World:
    """`units` units, `share` of them with the candidate; the baseline's ratio is 1."""

    units: int
    share: float
    icc: float
    spread: float = 1.3
    rate: float | None = None  # of events that cost 1 / rate each, instead of costs
    factor: float | None = None  # the candidate's ratio, if it is not on the line


def crossings(world: World, names: Sequence[str] = tuple(TESTS)) -> dict[str, float]:
    """Fraction of rollouts whose log e ever reaches log(1 / alpha), for each test."""
    rng = np.random.default_rng(40)
    square = world.icc * world.spread**2  # of the levels' coefficient of variation
    width, shape = math.log1p(square), (1.0 + square) / (world.spread**2 * (1.0 - world.icc))
    population = (REPLICATIONS, world.units)
    place = (np.arange(REPLICATIONS)[:, None] * CELLS + rng.integers(0, CELLS, population)).ravel()
    side = (rng.random(population) < world.share).ravel()
    level = rng.lognormal(-0.5 * width, math.sqrt(width), population).ravel()
    active = rng.gamma(1.0, 1.0, population).cumsum(axis=1)
    ladder = (active / active[:, -1:] + np.arange(REPLICATIONS)[:, None]).ravel()
    first = np.repeat(np.arange(REPLICATIONS), REQUESTS)
    y, d = np.zeros((2, REPLICATIONS * CELLS)), np.zeros((2, REPLICATIONS * CELLS))
    found = {name: np.zeros(REPLICATIONS, bool) for name in names}
    for _ in range(LOOKS):
        unit = np.minimum(np.searchsorted(ladder, first + rng.random(first.size)), ladder.size - 1)
        if world.rate is None:
            cost = level[unit] * rng.gamma(shape, 1.0 / shape, unit.size)
        else:
            cost = (rng.random(unit.size) < world.rate * level[unit]) / world.rate
        for arm in (0, 1):
            mine = side[unit] == arm
            y[arm] += np.bincount(place[unit[mine]], cost[mine], y.shape[1])
            d[arm] += np.bincount(place[unit[mine]], minlength=y.shape[1])
        (y_c, y_t), (d_c, d_t) = (sums.reshape(2, REPLICATIONS, CELLS) for sums in (y, d))
        for name in names:
            test, margin, direction = TESTS[name]
            line = null_line(margin, direction)
            factor = line.ratio + line.difference if world.factor is None else world.factor
            log_e = test(CellSums(factor * y_t, d_t), CellSums(y_c, d_c), margin, direction, ALPHA)
            found[name] |= log_e >= -math.log(ALPHA)
    return {name: float(hit.mean()) for name, hit in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("icc", [0.05, 0.2])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_300_units_give_wrong_verdicts_at_most_at_alpha(share: float, icc: float) -> None:
    """2 and 10 % of them are 6 and 30 units, of which nothing is said."""
    highest = max(crossings(World(300, share, icc)).values())
    assert highest <= LINE if share == 0.5 else highest == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.98])
@pytest.mark.parametrize("icc", [0.05, 0.2])
@pytest.mark.parametrize("spread", [1.3, 2.9])
def test_3000_units_give_wrong_verdicts_at_most_at_alpha(share: float, icc: float, spread: float) -> None:
    """A holdback of 10 and of 2 % too: then the baseline is the small arm, and its luck looks like harm."""
    assert max(crossings(World(3_000, share, icc, spread)).values()) <= LINE


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
@pytest.mark.parametrize("rate", [0.002, 0.02])
def test_rare_events_give_wrong_verdicts_at_most_at_alpha(share: float, rate: float) -> None:
    assert max(crossings(World(3_000, share, 0.2, rate=rate)).values()) <= LINE


def test_an_equal_candidate_is_seldom_rolled_back_for_any_regression() -> None:
    assert crossings(World(3_000, 0.1, 0.2), ["harm, any regression"])["harm, any regression"] <= LINE


@pytest.mark.parametrize(("units", "share", "power"), [(300, 0.5, 0.95), (3_000, 0.1, 0.99), (3_000, 0.02, 0.4)])
def test_a_doubled_ratio_is_found(units: int, share: float, power: float) -> None:
    """The last has some 60 units with the candidate, whose ratio is known to a quarter of itself and no better."""
    name = "harm, at most 25 % more"
    assert crossings(World(units, share, 0.2, factor=2.0), [name])[name] >= power


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_candidate_like_the_baseline_passes_its_gate(share: float) -> None:
    found = crossings(World(3_000, share, 0.05, factor=1.0))
    assert min(rate for name, rate in found.items() if name.startswith("advance")) >= 0.95
