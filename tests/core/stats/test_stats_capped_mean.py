"""The capped mean against its formula, over its whole null, and where a histogram has nothing to say."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.stats.capped_mean import (
    ADVANCE_FRACTIONS,
    HARM_LAMBDAS,
    advance_log_factors,
    harm_log_factors,
    line_above_floor,
)
from rollout.stats.histogram import Grid, Histogram, LinearGrid, LogGrid
from rollout.stats.margin import Direction, Margin
from tests.core.stats.three_points import SIZES, batches, expectations, whole_null

LOG = LogGrid()
LOWER: Direction = "lower_is_better"
HIGHER: Direction = "higher_is_better"


class World(NamedTuple):
    """Three buckets of a grid, what the baseline has shown in them, and the cap."""

    grid: Grid
    index: tuple[int, int, int]
    past: tuple[int, int, int]
    cap: float

    @property
    def values(self) -> np.ndarray:
        return self.grid.middle(np.array(self.index))

    @property
    def history(self) -> Histogram:
        return Histogram(self.grid, np.array(self.index), np.array(self.past, np.float64))


LATENCY = World(LOG, (0, 100, 300), (400, 90, 10), float(LOG.middle(np.array(100))))
COST = World(LOG, (-1915, -200, 40), (300, 150, 50), float(LOG.middle(np.array(40))))
RATING = World(LinearGrid(1.0, 5.0), (0, 700, 999), (2, 8, 90), 5.0)
SENTIMENT = World(LinearGrid(-1.0, 1.0), (0, 480, 999), (30, 40, 30), 1.0)
SCORE = World(LinearGrid(0.0, 1.0), (0, 300, 999), (90, 8, 2), 1.0)
RELATIVE = [Margin(size, True) for size in (0.0, 0.1, 0.5)]
CASES = [
    *((LATENCY, LOWER, margin) for margin in (*RELATIVE, Margin(5.0, True), Margin(0.4, False), Margin(9.0, False))),
    *((LATENCY, HIGHER, margin) for margin in (*RELATIVE, Margin(0.4, False))),
    *((COST, direction, margin) for direction in (LOWER, HIGHER) for margin in (RELATIVE[2], Margin(0.05, False))),
    *((RATING, direction, margin) for direction in (LOWER, HIGHER) for margin in (*RELATIVE, Margin(0.5, False))),
    *((SCORE, direction, margin) for direction in (LOWER, HIGHER) for margin in (*RELATIVE, Margin(0.25, False))),
    *((SENTIMENT, direction, Margin(size, False)) for direction in (LOWER, HIGHER) for size in (0.0, 0.05, 0.5)),
]


def moved(world: World, margin: Margin, direction: Direction) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose means are equal on the line, as the null says it; a bounded metric's mean is the plain one."""
    sign = 1.0 if direction == LOWER else -1.0
    ratio, difference = (1 + sign * margin.size, 0.0) if margin.relative else (1.0, sign * margin.size)
    y, x = (world.values - difference) / ratio, world.values
    if isinstance(world.grid, LogGrid):
        return np.minimum(y, world.cap), np.minimum(x, world.cap)
    return y, x


@pytest.mark.parametrize(("n_t", "n_c"), SIZES)
@pytest.mark.parametrize(("world", "direction", "margin"), CASES)
def test_no_bet_gains_on_average_anywhere_in_its_null(
    world: World, direction: Direction, margin: Margin, n_t: int, n_c: int
) -> None:
    arms = batches(world.grid, world.index, n_t, n_c)
    scores = moved(world, margin, direction)
    harm = harm_log_factors(*arms, world.history, world.cap, margin, direction)
    null = whole_null(*scores, at_most=direction == LOWER)
    assert len(null[0]) > 30
    assert expectations(harm, (n_t, n_c), *null).max() <= 1 + 1e-9
    opposite = whole_null(*scores, at_most=direction != LOWER)
    assert expectations(harm, (n_t, n_c), *opposite).max() > 1.0005, "it is the null that keeps it there"
    if margin.size:
        gate = advance_log_factors(*arms, world.history, world.cap, margin, direction)
        assert expectations(gate, (n_t, n_c), *opposite).max() <= 1 + 1e-9
        assert expectations(gate, (n_t, n_c), *null).max() > 1.0005


def test_a_mean_within_its_bounds_is_tolerated_by_its_mean_alone() -> None:
    """Nine in ten at the top and one at the bottom is 4.6 where 4.5 is tolerated: no cap may make it look worse."""
    grid, n = LinearGrid(1.0, 5.0), 1000
    past, baseline = Histogram.of(grid, {999: 2000}), Histogram.of(grid, {999: n})
    for margin in (Margin(0.5, False), Margin(0.1, True)):
        tolerated = Histogram.of(grid, {0: 0.1 * n, 999: 0.9 * n})
        assert harm_log_factors(tolerated, baseline, past, 5.0, margin, HIGHER).max() < 0
        worse = Histogram.of(grid, {0: 0.2 * n, 999: 0.8 * n})
        assert harm_log_factors(worse, baseline, past, 5.0, margin, HIGHER).max() > 5


def test_harm_agrees_with_the_formula() -> None:
    """Relative 20 %, lower is better: everything by hand, value by value."""
    grid, cap = LOG, float(LOG.middle(np.array(120)))
    past, candidate, baseline = {0: 300, 64: 150, 200: 50}, {0: 3, 64: 4, 200: 1}, {0: 12, 64: 5}

    def values(counts: dict[int, int]) -> list[float]:
        return [2 ** ((i + 0.5) / 64) for i, count in counts.items() for _ in range(count)]

    known = [min(value, cap) for value in values(past)]
    mean = sum(known) / len(known)
    variance = sum((value - mean) ** 2 for value in known) / len(known)
    found = harm_log_factors(
        Histogram.of(grid, candidate), Histogram.of(grid, baseline), Histogram.of(grid, past), cap, Margin(0.2, True),
        LOWER,
    )  # fmt: skip
    n_t, n_c = 8, 17
    for ratio, factor in zip(HARM_LAMBDAS.tolist(), found.tolist(), strict=True):
        supposed, spread = mean * ratio, variance * ratio**2
        stake = (supposed - mean) / (spread / n_t + variance / n_c)
        weight_t, weight_c = n_t / spread, n_c / variance
        m = min((weight_t * supposed + weight_c * mean) / (weight_t + weight_c), 0.999 * cap)
        cut = min(1.0, 0.75 / max(stake / n_t * m, stake / n_c * (cap - m)))
        gained = sum(math.log1p(cut * stake / n_t * (min(v / 1.2, cap) - m)) for v in values(candidate))
        lost = sum(math.log1p(-cut * stake / n_c * (min(v, cap) - m)) for v in values(baseline))
        assert factor == pytest.approx(gained + lost, abs=1e-9)


def test_advance_agrees_with_the_formula_of_a_bounded_metric_with_a_floor() -> None:
    """Absolute 0.5, higher is better, ratings from 1 to 5: values count from the floor, and nothing is capped."""
    grid = LinearGrid(1.0, 5.0)
    past, candidate, baseline = {250: 20, 750: 60, 999: 20}, {250: 1, 999: 5}, {750: 9, 999: 2}

    def values(counts: dict[int, int]) -> list[float]:
        return [(i + 0.5) * 0.004 for i, count in counts.items() for _ in range(count)]

    known = values(past)
    mean = sum(known) / len(known)
    variance = sum((value - mean) ** 2 for value in known) / len(known)
    found = advance_log_factors(
        Histogram.of(grid, candidate), Histogram.of(grid, baseline), Histogram.of(grid, past), 5.0, Margin(0.5, False),
        HIGHER,
    )  # fmt: skip
    n_t, n_c = 6, 11
    for fraction, factor in zip(ADVANCE_FRACTIONS.tolist(), found.tolist(), strict=True):
        supposed = mean - 0.5 * (fraction - 1.0)
        stake = (supposed - mean) / (variance / n_t + variance / n_c)
        m = min((n_t * supposed + n_c * mean) / (n_t + n_c), 0.999 * 4.0)
        cut = min(1.0, 0.75 / max(stake / n_t * (m - 0.5), stake / n_c * (4.0 - m)))
        gained = sum(math.log1p(cut * stake / n_t * (v + 0.5 - m)) for v in values(candidate))
        lost = sum(math.log1p(-cut * stake / n_c * (v - m)) for v in values(baseline))
        assert factor == pytest.approx(gained + lost, abs=1e-9)


def test_the_line_counts_from_the_floor() -> None:
    ratio, difference = line_above_floor(Margin(0.1, True), HIGHER, 1.0)
    assert ratio * (4.0 - 1.0) + difference + 1.0 == pytest.approx(0.9 * 4.0)
    assert line_above_floor(Margin(0.2, False), LOWER, -1.0) == (1.0, 0.2)


def test_a_margin_of_nothing_leaves_no_gate() -> None:
    arms = [Histogram.of(LOG, {0: 5})] * 3
    with pytest.raises(ValueError, match="margin of 0"):
        advance_log_factors(arms[0], arms[1], arms[2], 2.0, Margin(0.0, True), LOWER)


buckets = st.one_of(st.just(-1915), st.integers(-1914, 2551))
counts = st.dictionaries(buckets, st.integers(0, 50), max_size=6).map(lambda found: {**found, 3: 1})
margins = st.builds(Margin, st.sampled_from([1e-6, 0.01, 0.1, 0.9]), st.booleans())


@settings(deadline=None)
@given(
    candidate=counts, baseline=counts, past=counts, margin=margins, cap=st.sampled_from([0.0, 1e-9, 1.0, 37.0, 1e12]),
    direction=st.sampled_from([LOWER, HIGHER]),
)  # fmt: skip
def test_no_histogram_makes_a_factor_that_is_no_number(
    candidate: dict[int, float], baseline: dict[int, float], past: dict[int, float], margin: Margin, cap: float,
    direction: Direction,
) -> None:  # fmt: skip
    arms = [Histogram.of(LOG, each) for each in (candidate, baseline, past)]
    for log_factors in (harm_log_factors, advance_log_factors):
        factors = log_factors(arms[0], arms[1], arms[2], cap, margin, direction)
        assert np.isfinite(factors).all()
        assert cap or not factors.any(), "a cap of zero leaves nothing to bet on"


@pytest.mark.parametrize("past", [{-1915: 500}, {64: 500}, {-1915: 499, 64: 1}])
@pytest.mark.parametrize("candidate", [{-1915: 40}, {64: 40}, {2551: 40}])
def test_baselines_of_one_value_and_candidates_of_zeros_are_judged_too(
    past: dict[int, float], candidate: dict[int, float]
) -> None:
    arms = [Histogram.of(LOG, each) for each in (candidate, {-1915: 100, 64: 100}, past)]
    for direction in (LOWER, HIGHER):
        for margin in (Margin(0.1, True), Margin(0.1, False)):
            found = harm_log_factors(arms[0], arms[1], arms[2], 2.0, margin, direction)
            assert np.isfinite(found).all()


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.integers(-1915, 600), min_size=1, max_size=20), lift=st.integers(0, 300),
    which=st.integers(0, 19), relative=st.booleans(),
)  # fmt: skip
def test_a_candidate_with_worse_values_never_has_less_evidence_of_harm(
    values: list[int], lift: int, which: int, relative: bool
) -> None:
    past, baseline = Histogram.of(LOG, {0: 300, 64: 150, 200: 50}), Histogram.of(LOG, {0: 30, 64: 12})
    worse = list(values)
    worse[which % len(values)] += lift
    histograms = [Histogram.of(LOG, {i: each.count(i) for i in each}) for each in (values, worse)]
    for direction, (better, bad) in ((LOWER, histograms), (HIGHER, histograms[::-1])):
        found = [harm_log_factors(arm, baseline, past, 8.0, Margin(0.1, relative), direction) for arm in (better, bad)]
        assert (found[1] >= found[0] - 1e-12).all()


def test_higher_is_better_mirrors_lower_is_better_on_a_bounded_metric() -> None:
    grid = LinearGrid(0.0, 1.0)
    arms = [{100: 5, 400: 15}, {100: 40, 600: 20}, {100: 100, 350: 50, 600: 50}]
    straight = [Histogram.of(grid, each) for each in arms]
    mirrored = [Histogram.of(grid, {999 - i: count for i, count in each.items()}) for each in arms]
    margin = Margin(0.1, False)
    rises = advance_log_factors(straight[0], straight[1], straight[2], 1.0, margin, LOWER)
    falls = advance_log_factors(mirrored[0], mirrored[1], mirrored[2], 1.0, margin, HIGHER)
    np.testing.assert_allclose(rises, falls, atol=1e-9)


def test_leading_axes_are_replications() -> None:
    rng = np.random.default_rng(5)
    index, shape = np.array([-1915, 0, 64, 200]), (3, 4)
    counts_of = [rng.integers(1, 9, shape).astype(np.float64) for _ in range(3)]
    caps = np.array([2.0, 4.0, 9.0])
    for log_factors in (harm_log_factors, advance_log_factors):
        together = log_factors(*(Histogram(LOG, index, c) for c in counts_of), caps, Margin(0.1, True), LOWER)
        for place in range(3):
            alone = log_factors(
                *(Histogram(LOG, index, c[place]) for c in counts_of), caps[place], Margin(0.1, True), LOWER
            )
            np.testing.assert_allclose(together[place], alone, atol=1e-12)
