"""Quantiles and tails by the share beyond frozen thresholds: exact over the whole null, and rounding that is safe."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.stats.exceedance import (
    QUANTILE_RATIOS,
    TAIL_LIMIT,
    TAIL_RATIOS,
    advance_log_factors,
    harm_log_factors,
    tail_limit,
    tail_log_factors,
    thresholds_of,
)
from rollout.stats.histogram import Grid, Histogram, LinearGrid, LogGrid
from rollout.stats.margin import Direction, Margin, risk_scaled
from rollout.stats.proportion import HARM_LAMBDAS
from tests.core.stats.three_points import SIZES, batches, expectations, whole_null

LOG = LogGrid()
LOWER: Direction = "lower_is_better"
HIGHER: Direction = "higher_is_better"


class World(NamedTuple):
    """Three buckets, of which the frozen threshold parts one or two from the others."""

    grid: Grid
    index: tuple[int, int, int]
    past: tuple[int, int, int]
    threshold: float
    margin: Margin


WORLDS = [
    World(LOG, (0, 64, 100), (450, 40, 10), 2.0, Margin(0.3, True)),
    World(LOG, (0, 64, 100), (450, 40, 10), 2.0, Margin(0.0, True)),
    World(LOG, (0, 64, 100), (10, 40, 450), 2.0, Margin(0.5, False)),
    World(LinearGrid(-1.0, 1.0), (100, 600, 990), (300, 150, 50), 0.2, Margin(0.1, False)),
    World(LinearGrid(1.0, 5.0), (0, 500, 999), (5, 95, 400), 3.0, Margin(0.2, True)),
]


def beyond(world: World, direction: Direction) -> tuple[np.ndarray, np.ndarray]:
    """Whether a value of each bucket is beyond the candidate's threshold, and the baseline's; by its middle."""
    values = world.grid.middle(np.array(world.index))
    moved = float(thresholds_of(world.threshold, world.margin, direction))
    if direction == LOWER:
        return (values >= moved).astype(float), (values >= world.threshold).astype(float)
    return (values < moved).astype(float), (values < world.threshold).astype(float)


@pytest.mark.parametrize(("n_t", "n_c"), SIZES)
@pytest.mark.parametrize("direction", [LOWER, HIGHER])
@pytest.mark.parametrize("world", WORLDS)
def test_no_bet_gains_on_average_anywhere_in_its_null(world: World, direction: Direction, n_t: int, n_c: int) -> None:
    arms = batches(world.grid, world.index, n_t, n_c)
    past = Histogram(world.grid, np.array(world.index), np.array(world.past, np.float64))
    t, c = beyond(world, direction)
    harm = harm_log_factors(*arms, past, [world.threshold], world.margin, direction)[..., 0, :]
    assert expectations(harm, (n_t, n_c), *whole_null(t, c, at_most=True)).max() <= 1 + 1e-9
    tail = tail_log_factors(*arms, past, world.threshold, world.margin, direction)
    assert expectations(tail, (n_t, n_c), *whole_null(t, TAIL_LIMIT * c, at_most=False)).max() <= 1 + 1e-9
    if world.margin.size:
        gate = advance_log_factors(*arms, past, world.threshold, world.margin, direction)
        assert expectations(gate, (n_t, n_c), *whole_null(t, c, at_most=False)).max() <= 1 + 1e-9


def ratio_factor(counts: tuple[int, int, int, int], guess: float, ratio: float, null: float) -> float:
    """Log of the likelihood ratio of (p1, g) against its projection (r m, m): Turner, Ly & Gruenwald."""
    n_t, x_t, n_c, x_c = counts
    w, p1 = n_t / (n_t + n_c), min(ratio * guess, 0.98)
    b, c = w * null + 1 - w + w * p1 + (1 - w) * null * guess, w * p1 + (1 - w) * guess
    m = (b - math.sqrt(b * b - 4 * null * c)) / (2 * null)
    return (
        x_t * math.log(p1 / (null * m))
        + (n_t - x_t) * math.log((1 - p1) / (1 - null * m))
        + x_c * math.log(guess / m)
        + (n_c - x_c) * math.log((1 - guess) / (1 - m))
    )


def test_each_threshold_is_a_proportion_against_its_guess() -> None:
    past = Histogram.of(LOG, {0: 460, 64: 30, 128: 10})
    candidate, baseline = Histogram.of(LOG, {0: 10, 70: 3, 128: 2}), Histogram.of(LOG, {0: 90, 64: 4, 200: 1})
    found = harm_log_factors(candidate, baseline, past, [2.0, 4.0], Margin(0.05, True), LOWER)
    for row, guess, counts in ((0, 40.5 / 550, (15, 5, 95, 5)), (1, 10.5 / 550, (15, 0, 95, 1))):
        expected = [ratio_factor(counts, guess, ratio, 1.0) for ratio in HARM_LAMBDAS.tolist()]
        np.testing.assert_allclose(found[row], expected, atol=1e-9)
    gate = advance_log_factors(candidate, baseline, past, 2.0, Margin(0.05, True), LOWER)
    expected = [ratio_factor((15, 5, 95, 5), 40.5 / 550, ratio, 1.0) for ratio in QUANTILE_RATIOS.tolist()]
    np.testing.assert_allclose(gate, expected, atol=1e-9)
    tail = tail_log_factors(candidate, baseline, past, 2.0, Margin(0.05, True), LOWER)
    expected = [ratio_factor((15, 5, 95, 5), 40.5 / 550, 1.5 * ratio, 1.5) for ratio in TAIL_RATIOS.tolist()]
    np.testing.assert_allclose(tail, expected, atol=1e-9)


def test_an_early_gate_widens_what_the_tail_may_be_with_its_margin() -> None:
    final = Margin(0.2, True)
    assert tail_limit(final) == 1.5
    assert tail_limit(risk_scaled(final, LOWER, 25, 50)) == 2.0
    assert tail_limit(risk_scaled(final, LOWER, 1, 50)) == 6.0


@pytest.mark.parametrize(("widening", "limit"), [(1.0, 1.5), (4.0, 3.0), (50.0, 6.0)])
def test_a_widened_tail_gate_gains_nothing_behind_its_wider_line(widening: float, limit: float) -> None:
    margin, world = Margin(0.3, True, widening), WORLDS[0]
    past = Histogram(world.grid, np.array(world.index), np.array(world.past, np.float64))
    t, c = beyond(world._replace(margin=margin), LOWER)
    tail = tail_log_factors(*batches(world.grid, world.index, 3, 4), past, world.threshold, margin, LOWER)
    assert expectations(tail, (3, 4), *whole_null(t, limit * c, at_most=False)).max() <= 1 + 1e-9


def test_a_threshold_inside_a_bucket_is_not_beyond_for_harm_and_is_for_a_gate() -> None:
    """1.005 times 2.0 lies inside the bucket that begins at 2.0: nobody knows on which side its values are."""
    past, baseline = Histogram.of(LOG, {0: 400, 64: 100}), Histogram.of(LOG, {0: 80, 64: 20})
    inside, outside = Histogram.of(LOG, {0: 10, 64: 10}), Histogram.of(LOG, {0: 10, 65: 10})
    below = Histogram.of(LOG, {0: 20})
    margin = Margin(0.005, True)
    harm = [harm_log_factors(arm, baseline, past, [2.0], margin, LOWER) for arm in (inside, below, outside)]
    np.testing.assert_array_equal(harm[0], harm[1])
    assert harm[2].max() > harm[0].max()
    for log_factors in (advance_log_factors, tail_log_factors):
        gate = [log_factors(arm, baseline, past, 2.0, margin, LOWER) for arm in (inside, outside)]
        np.testing.assert_array_equal(gate[0], gate[1])
    falls = Margin(0.005, True)
    past, baseline = Histogram.of(LOG, {63: 100, 64: 400}), Histogram.of(LOG, {63: 20, 64: 80})
    inside, beyond_it = Histogram.of(LOG, {63: 20}), Histogram.of(LOG, {62: 20})
    safe = Histogram.of(LOG, {64: 20})
    harm = [harm_log_factors(arm, baseline, past, [2.0], falls, HIGHER) for arm in (inside, safe, beyond_it)]
    np.testing.assert_array_equal(harm[0], harm[1])
    assert harm[2].max() > harm[0].max()
    gate = [advance_log_factors(arm, baseline, past, 2.0, falls, HIGHER) for arm in (inside, beyond_it)]
    np.testing.assert_array_equal(gate[0], gate[1])


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.integers(-1915, 600), min_size=1, max_size=20), lift=st.integers(0, 300),
    which=st.integers(0, 19), thresholds=st.lists(st.integers(-100, 300), min_size=1, max_size=4),
)  # fmt: skip
def test_a_candidate_with_worse_values_never_has_less_evidence_of_harm(
    values: list[int], lift: int, which: int, thresholds: list[int]
) -> None:
    past, baseline = Histogram.of(LOG, {0: 300, 64: 150, 200: 50}), Histogram.of(LOG, {0: 30, 64: 12})
    worse = list(values)
    worse[which % len(values)] += lift
    histograms = [Histogram.of(LOG, {i: each.count(i) for i in each}) for each in (values, worse)]
    at = [2.0 ** (i / 64) for i in thresholds]
    for direction, (better, bad) in ((LOWER, histograms), (HIGHER, histograms[::-1])):
        found = [harm_log_factors(arm, baseline, past, at, Margin(0.1, True), direction) for arm in (better, bad)]
        assert (found[1] >= found[0] - 1e-12).all()


@pytest.mark.parametrize("direction", [LOWER, HIGHER])
@pytest.mark.parametrize("index", [[-1915], [2551], [-1915, 2551]])
def test_thresholds_at_the_ends_of_the_grid_are_finite_bets(direction: Direction, index: list[int]) -> None:
    arm = Histogram.of(LOG, dict.fromkeys(index, 30))
    past = Histogram.of(LOG, dict.fromkeys(index, 300))
    for level in (0.01, 0.5, 0.99):
        at = past.quantile(level, direction)
        for margin in (Margin(0.2, True), Margin(3.0, False)):
            assert np.isfinite(harm_log_factors(arm, arm, past, [float(at)], margin, direction)).all()
            assert np.isfinite(advance_log_factors(arm, arm, past, at, margin, direction)).all()
            assert np.isfinite(tail_log_factors(arm, arm, past, at, margin, direction)).all()


def test_a_margin_of_nothing_leaves_no_gate() -> None:
    arm = Histogram.of(LOG, {0: 5})
    with pytest.raises(ValueError, match="margin of 0"):
        advance_log_factors(arm, arm, arm, 2.0, Margin(0.0, True), LOWER)


def test_leading_axes_are_replications() -> None:
    rng = np.random.default_rng(5)
    index = np.array([-1915, 0, 64, 200])
    counts_of = [rng.integers(1, 9, (3, 4)).astype(np.float64) for _ in range(3)]
    thresholds = np.array([[1.0, 2.0], [2.0, 4.0], [1.5, 8.0]])
    margin = Margin(0.1, True)
    together = harm_log_factors(*(Histogram(LOG, index, c) for c in counts_of), thresholds, margin, LOWER)
    gates = tail_log_factors(*(Histogram(LOG, index, c) for c in counts_of), thresholds[:, 0], margin, LOWER)
    for place in range(3):
        one = [Histogram(LOG, index, c[place]) for c in counts_of]
        alone = harm_log_factors(one[0], one[1], one[2], thresholds[place], margin, LOWER)
        np.testing.assert_allclose(together[place], alone, atol=1e-12)
        alone = tail_log_factors(one[0], one[1], one[2], thresholds[place, 0], margin, LOWER)
        np.testing.assert_allclose(gates[place], alone, atol=1e-12)
