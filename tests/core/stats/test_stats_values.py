"""Which bets make up the test of each kind of number, and that together they gain nothing in the null."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.stats import values
from rollout.stats.histogram import Histogram, LinearGrid, LogGrid
from rollout.stats.margin import Direction, Margin
from rollout.stats.mixture import log_mixture
from rollout.stats.values import ValueTest, advance_log_factors, harm_log_factors, harm_weights
from tests.core.stats.three_points import DISTRIBUTIONS, batches, expectations

LOG = LogGrid()
LOWER: Direction = "lower_is_better"
HIGHER: Direction = "higher_is_better"
UNIT = (0.0, 1.0)
TESTS = [
    *(ValueTest("mean", direction, None, bounds) for direction in (LOWER, HIGHER) for bounds in (None, UNIT)),
    ValueTest("mean", HIGHER, None, (1.0, 5.0)),
    *(ValueTest("quantile", direction, 0.9, bounds) for direction in (LOWER, HIGHER) for bounds in (None, UNIT)),
    *(
        ValueTest("distribution", direction, focus, bounds)
        for direction, focus, bounds in product((LOWER, HIGHER), (None, 0.9), (None, UNIT))
    ),
]
MARGIN = Margin(0.2, True)


@pytest.mark.parametrize(
    ("test", "families", "gates"),
    [
        (ValueTest("mean"), ("mean", "ladder"), ("mean", "tail")),
        (ValueTest("mean", HIGHER), ("mean",), ("mean",)),
        (ValueTest("mean", LOWER, None, UNIT), ("mean",), ("mean",)),
        (ValueTest("quantile", LOWER, 0.95), ("ladder",), ("quantile",)),
        (ValueTest("distribution"), ("mean", "log", "body", "ladder"), ("mean", "tail")),
        (ValueTest("distribution", LOWER, 0.95), ("mean", "log", "body", "ladder"), ("mean", "quantile")),
        (ValueTest("distribution", HIGHER), ("mean", "log", "body", "ladder"), ("mean",)),
        (ValueTest("distribution", LOWER, None, UNIT), ("mean", "body", "ladder"), ("mean",)),
    ],
)
def test_each_kind_is_watched_by_its_families(
    test: ValueTest, families: tuple[str, ...], gates: tuple[str, ...]
) -> None:
    assert (test.families, test.gates) == (families, gates)


def past_of(test: ValueTest) -> Histogram:
    if test.bounds is None:
        return Histogram.of(LOG, dict.fromkeys(range(0, 200, 2), 5))
    return Histogram.of(test.grid, dict.fromkeys(range(200, 800, 6), 5))


@pytest.mark.parametrize("test", TESTS)
def test_weights_and_factors_have_one_shape_and_the_weights_sum_to_one(test: ValueTest) -> None:
    past = past_of(test)
    weights = harm_weights(test)
    factors = harm_log_factors(test, test.calibrate(past), past, past, past, MARGIN)
    assert factors.shape == weights.shape == (sum(values.SIZES[family] for family in test.families),)
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0).all()
    gates = advance_log_factors(test, test.calibrate(past), past, past, past, MARGIN)
    for gate, found in zip(test.gates, gates, strict=True):
        assert found.shape == values.GATE_WEIGHTS[gate].shape
        assert values.GATE_WEIGHTS[gate].sum() == pytest.approx(1)


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(("n_t", "n_c"), [(1, 1), (2, 4), (3, 2)])
def test_no_bet_gains_on_average_when_the_candidate_is_no_worse_in_order(test: ValueTest, n_t: int, n_c: int) -> None:
    """The null all families share: value for value the candidate is within the margin."""
    index = (100, 250, 640) if test.bounds else (10, 120, 300)
    past = Histogram(test.grid, np.array(index), np.array([300.0, 160, 40]))
    margin = Margin(0.0, True)
    factors = harm_log_factors(test, test.calibrate(past), past, *batches(test.grid, index, n_t, n_c), margin)
    pairs = []
    for better, p in product(DISTRIBUTIONS, DISTRIBUTIONS):
        down, up = np.cumsum(better), np.cumsum(p)
        ordered = (down >= up - 1e-12).all() if test.direction == LOWER else (down <= up + 1e-12).all()
        if ordered:
            pairs.append((better, p))
    p_t, p_c = (np.array(side) for side in zip(*pairs, strict=True))
    assert len(p_t) > 80
    assert expectations(factors, (n_t, n_c), p_t, p_c).max() <= 1 + 1e-9
    mixed = np.log((np.exp(factors) * harm_weights(test)).sum(axis=-1))[..., None]
    assert expectations(mixed, (n_t, n_c), p_t, p_c).max() <= 1 + 1e-9


@pytest.mark.parametrize("test", TESTS)
def test_a_clearly_worse_candidate_is_found_and_an_equal_one_passes(test: ValueTest) -> None:
    past = past_of(test)
    frozen = test.calibrate(past)
    by = (300 if test.bounds is None else 190) * (1 if test.direction == LOWER else -1)
    if test.bounds is not None and test.direction == HIGHER:
        by = -190
    small = Histogram(past.grid, past.index, past.counts / 5)
    worse = Histogram(past.grid, past.index + by, past.counts * 2)
    harm = harm_log_factors(test, frozen, past, worse, past, MARGIN)
    assert log_mixture(harm, harm_weights(test)) > 4.6
    assert log_mixture(harm_log_factors(test, frozen, past, small, past, MARGIN), harm_weights(test)) < 1
    many = Histogram(past.grid, past.index, past.counts * 40)
    for gate, found in zip(test.gates, advance_log_factors(test, frozen, past, many, many, MARGIN), strict=True):
        assert log_mixture(found, values.GATE_WEIGHTS[gate]) > 3
    for gate, found in zip(test.gates, advance_log_factors(test, frozen, past, worse, past, MARGIN), strict=True):
        assert log_mixture(found, values.GATE_WEIGHTS[gate]) < 0, gate


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("extreme", ["lowest", "highest", "both"])
def test_values_at_the_ends_of_the_grid_make_numbers(test: ValueTest, extreme: str) -> None:
    ends = (-1915, 2551) if test.bounds is None else (0, 999)
    at = {"lowest": ends[:1], "highest": ends[1:], "both": ends}[extreme]
    arms = [Histogram.of(test.grid, dict.fromkeys(where, 30.0)) for where in (ends[:1], ends[1:], at)]
    past = Histogram.of(test.grid, dict.fromkeys(at, 300.0))
    frozen = test.calibrate(past)
    for candidate, baseline in product(arms, arms):
        assert np.isfinite(harm_log_factors(test, frozen, past, candidate, baseline, MARGIN)).all()
        for found in advance_log_factors(test, frozen, past, candidate, baseline, MARGIN):
            assert np.isfinite(found).all()


@settings(deadline=None, max_examples=40)
@given(
    test=st.sampled_from(TESTS), data=st.data(), moved=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 300))),
)  # fmt: skip
def test_a_candidate_with_worse_values_never_has_less_evidence_of_harm(
    test: ValueTest, data: st.DataObject, moved: list[tuple[int, int]]
) -> None:
    top = 700 if test.bounds is None else 699
    drawn = data.draw(st.lists(st.integers(0, top), min_size=20, max_size=20))
    lifted = list(drawn)
    for which, by in moved:
        lifted[which] = min(lifted[which] + by, 999)
    arms = [Histogram.of(test.grid, {i: each.count(i) for i in each}) for each in (drawn, lifted)]
    better, worse = arms if test.direction == LOWER else arms[::-1]
    past = past_of(test)
    frozen = test.calibrate(past)
    found = [harm_log_factors(test, frozen, past, arm, past, MARGIN) for arm in (better, worse)]
    assert (found[1] >= found[0] - 1e-9).all()


@pytest.mark.parametrize(("test", "needed"), [(ValueTest("mean"), 500), (ValueTest("mean", HIGHER, None, UNIT), 50)])
def test_what_freezes_nothing_needs_only_a_first_guess(test: ValueTest, needed: int) -> None:
    assert test.calibrated_at == needed


def test_a_focus_is_a_level_inside_zero_and_one() -> None:
    with pytest.raises(ValueError, match="needs a focus"):
        ValueTest("quantile")
    for focus in (0.0, 1.0, 95.0):
        with pytest.raises(ValueError, match="strictly between"):
            ValueTest("distribution", LOWER, focus)


def test_an_absolute_margin_of_an_unbounded_distribution_is_refused() -> None:
    test = ValueTest("distribution")
    past = past_of(test)
    with pytest.raises(ValueError, match="relative"):
        harm_log_factors(test, test.calibrate(past), past, past, past, Margin(3.0, False))


def test_the_gate_of_a_quantile_is_at_its_focus_and_its_ladder_too() -> None:
    past = past_of(TESTS[0])
    quantile = ValueTest("quantile", LOWER, 0.9).calibrate(past)
    assert float(quantile.gate) == float(quantile.ladder[0]) == float(past.quantile(0.9, LOWER))
    focused = ValueTest("distribution", LOWER, 0.9).calibrate(past)
    assert float(focused.gate) == float(past.quantile(0.9, LOWER))
    assert float(focused.ladder[0]) == float(past.quantile(0.99, LOWER))
    bounded = ValueTest("mean", LOWER, None, UNIT)
    assert isinstance(bounded.grid, LinearGrid)
    assert float(bounded.calibrate(past_of(bounded)).cap) == 1.0
