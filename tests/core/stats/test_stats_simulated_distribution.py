"""Distributions to draw from: what they are, what a candidate does to them, and that they stay small."""

import math

import numpy as np
import pytest
from scipy.special import ndtr, ndtri

from rollout.stats.histogram import LinearGrid, LogGrid
from rollout.stats.simulated_distribution import Distribution, bucket_of, lognormal, observed, pareto


def share_above(distribution: Distribution, value: float) -> float:
    return float(distribution.probabilities[distribution.grid.middle(distribution.index) >= value].sum())


@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.5])
def test_a_lognormal_has_its_mean_and_quantiles_in_60_to_150_buckets(sigma: float) -> None:
    made = lognormal(sigma, mean=0.01)
    assert made.mean == pytest.approx(0.01, rel=0.01)
    p99 = 0.01 * math.exp(-0.5 * sigma**2 + sigma * float(ndtri(0.99)))
    assert share_above(made, p99) == pytest.approx(0.01, rel=0.12)
    assert made.probabilities.sum() == pytest.approx(1.0, abs=1e-12)
    assert 60 <= made.index.size <= 150


def test_the_median_of_a_lognormal_can_be_given_instead() -> None:
    assert share_above(lognormal(0.8, median=400.0), 400.0) == pytest.approx(0.5, abs=0.03)
    with pytest.raises(ValueError, match="one of them"):
        lognormal(1.0, median=1.0, mean=1.0)


def test_a_pareto_has_its_mean_and_its_tail() -> None:
    made = pareto(2.5, 3.0)
    assert made.mean == pytest.approx(3.0 / 1.5, rel=0.03)
    assert share_above(made, 3.0 * 9.0) == pytest.approx(10.0**-2.5, rel=0.15)
    assert made.index.size <= 150


@pytest.mark.parametrize("factor", [0.5, 1.1, 1.3, 2.0])
def test_a_scaled_distribution_has_the_same_shape_and_another_mean(factor: float) -> None:
    made = lognormal(1.0, mean=5.0)
    scaled = made.scaled(factor)
    assert (scaled.probabilities == made.probabilities).all()
    assert scaled.mean / made.mean == pytest.approx(factor, rel=0.0055)


def test_exactly_the_part_above_the_quantile_is_moved() -> None:
    made = Distribution(LogGrid(), np.array([0, 64, 128]), np.array([0.5, 0.4, 0.1]))
    doubled = made.tail_scaled(2.0, 0.75)
    assert doubled.index.tolist() == [0, 64, 128, 192]
    assert doubled.probabilities == pytest.approx([0.5, 0.25, 0.15, 0.1])


def test_a_doubled_p99_adds_what_the_top_hundredth_adds_to_the_mean() -> None:
    made = lognormal(1.0, mean=1.0)
    top = float(ndtr(1.0 - ndtri(0.99)))  # its share of the mean
    assert made.tail_scaled(2.0).mean - made.mean == pytest.approx(top, rel=0.02)


def test_a_drift_opens_no_new_buckets_in_between() -> None:
    made = lognormal(1.0, mean=1.0)
    up = made.drifted(1.5)
    assert set(np.unique((up.index - made.index[0]) % made.width)) == {0}
    assert up.mean / made.mean == pytest.approx(1.5, rel=0.03)
    assert made.drifted(1.01) is made


def test_observed_values_become_shares_of_buckets() -> None:
    made = observed([1.0, 1.0, 2.0, 0.0])
    assert made.index.tolist() == [LogGrid().zero, 0, 64]
    assert made.probabilities.tolist() == [0.25, 0.5, 0.25]
    many = np.random.default_rng(1).lognormal(0.0, 1.0, 20_000)
    assert observed(many).mean == pytest.approx(many.mean(), rel=0.01)
    assert observed(many).index.size <= 151
    free = observed(np.append(many, [0.0] * 20_000))
    assert free.probabilities[0] == 0.5
    assert free.width == observed(many).width, "values of 0 are a bucket apart"
    with pytest.raises(ValueError, match="at least one"):
        observed([])


def test_bounded_values_stay_within_their_bounds() -> None:
    grid = LinearGrid(1.0, 5.0)
    made = observed([1.0, 3.0, 5.0], grid)
    assert made.index.tolist() == [0, 500, 999]
    assert made.scaled(2.0).index.tolist() == [251, 999]  # the middle of a bucket is what is doubled
    assert bucket_of(grid, grid.middle(np.arange(1000))).tolist() == list(range(1000))


def test_every_bucket_of_the_log_grid_is_found_by_its_middle() -> None:
    index = np.arange(-1914, 2500)
    assert (bucket_of(LogGrid(), LogGrid().middle(index)) == index).all()


@pytest.mark.parametrize(("index", "shares"), [([2, 1], [0.5, 0.5]), ([1], [0.5, 0.5]), ([1, 2], [0.5, 0.6])])
def test_what_is_no_distribution_is_refused(index: list[int], shares: list[float]) -> None:
    with pytest.raises(ValueError, match="probabilit"):
        Distribution(LogGrid(), np.array(index), np.array(shares))
