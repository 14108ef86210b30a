"""The bet on bounded scores against its formula, and against every distribution of three values."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.stats.scores import (
    RESERVE,
    Alternatives,
    Moments,
    Range,
    Scores,
    mean_bets,
    moments,
    score_log_factors,
)
from tests.core.stats.three_points import SIZES, expectations, outcomes, whole_null


def alternatives(*means: float, variance: float = 0.05) -> Alternatives:
    return Alternatives(np.array(means), np.full(len(means), variance))


UNIT = Range(0.0, 1.0, 0.0, 1.0)


def test_a_small_stake_is_the_mean_difference_over_its_variance() -> None:
    bets = mean_bets(4, 16, Moments(0.5, 0.04), alternatives(0.52), UNIT)
    stake = 0.02 / (0.05 / 4 + 0.04 / 16)
    assert bets.k_t[0] == pytest.approx(stake / 4)
    assert bets.k_c[0] == pytest.approx(stake / 16)
    precision_t, precision_c = 4 / 0.05, 16 / 0.04
    assert bets.m[0] == pytest.approx((precision_t * 0.52 + precision_c * 0.5) / (precision_t + precision_c))


def test_a_batch_is_worth_the_product_of_its_factors() -> None:
    bets = mean_bets(3, 2, Moments(0.4, 0.04), alternatives(0.5, 0.3), UNIT)
    found = score_log_factors(
        bets, Scores(np.array([0.2, 0.9]), np.array([1.0, 2.0])), Scores(np.array([0.1]), np.array([2.0]))
    )
    for k in range(2):
        k_t, k_c, m = (float(column[k]) for column in bets)
        expected = (1 + k_t * (0.2 - m)) * (1 + k_t * (0.9 - m)) ** 2 * (1 - k_c * (0.1 - m)) ** 2
        assert found[k] == pytest.approx(math.log(expected), abs=1e-12)


ranges = st.tuples(st.floats(-2, 0), st.floats(0.5, 3), st.floats(0.5, 3))


@given(
    n_t=st.integers(1, 10_000), n_c=st.integers(1, 10_000), mean=st.floats(1e-6, 0.5), supposed=st.floats(1e-6, 5),
    variance=st.floats(1e-12, 1), bounds=ranges,
)  # fmt: skip
def test_arms_stake_the_same_and_no_outcome_can_ruin_a_bet(
    n_t: int, n_c: int, mean: float, supposed: float, variance: float, bounds: tuple[float, float, float]
) -> None:
    low_t, high_t, high_c = bounds
    bets = mean_bets(
        n_t, n_c, Moments(mean, variance), alternatives(supposed, variance=variance), Range(low_t, high_t, 0.0, high_c)
    )
    k_t, k_c, m = (float(column[0]) for column in bets)
    assert n_t * k_t == pytest.approx(n_c * k_c)
    assert math.copysign(1, k_t) == math.copysign(1, supposed - mean) or supposed == mean
    for value in (low_t, high_t):
        assert 1 + k_t * (value - m) >= RESERVE - 1e-9
    for value in (0.0, high_c):
        assert 1 - k_c * (value - m) >= RESERVE - 1e-9


@pytest.mark.parametrize(("n_t", "n_c"), SIZES)
@pytest.mark.parametrize("guess", [Moments(0.3, 0.02), Moments(0.9, 1e-9), Moments(1e-6, 1e-12)])
@pytest.mark.parametrize("above", [True, False])
def test_no_bet_gains_on_average_anywhere_in_its_null(n_t: int, n_c: int, guess: Moments, above: bool) -> None:
    values = np.array([0.0, 0.3, 1.0])
    mean = float(np.asarray(guess.mean))
    supposed = alternatives(*(mean * ratio for ratio in ((1.1, 2, 9) if above else (0.9, 0.5, 0.05))))
    bets = mean_bets(n_t, n_c, guess, supposed, UNIT)
    t, c = outcomes(n_t)[0], outcomes(n_c)[0]
    factors = score_log_factors(bets, Scores(values, t[:, None]), Scores(values, c[None]))
    p_t, p_c = whole_null(values, values, at_most=above)
    assert np.isfinite(factors).all()
    assert expectations(factors, (n_t, n_c), p_t, p_c).max() <= 1 + 1e-9
    behind = whole_null(values, values, at_most=not above)
    assert expectations(factors, (n_t, n_c), *behind).max() > 1 + 1e-6, "it is the null that keeps it there"


def test_a_mean_near_the_end_of_its_range_is_bet_on_near_that_end() -> None:
    """The point of a bet far from both means loses both ways: a fall from .995 to .975 was unseen."""
    rng = np.random.default_rng(3)
    spread = 0.006
    bets = mean_bets(2000, 2000, Moments(0.995, spread**2), alternatives(0.975, variance=spread**2), UNIT)
    candidate, baseline = (np.clip(rng.normal(mean, spread, 2000), 0.0, 1.0) for mean in (0.975, 0.995))
    found = score_log_factors(bets, Scores(candidate, np.ones(2000)), Scores(baseline, np.ones(2000)))
    assert found[0] > 20


def test_moments_are_those_of_the_counts_and_a_variance_is_never_zero() -> None:
    mean, variance = moments(Scores(np.array([1.0, 4.0]), np.array([3.0, 1.0])))
    assert (float(np.asarray(mean)), float(np.asarray(variance))) == pytest.approx((1.75, 1.6875))
    assert float(np.asarray(moments(Scores(np.array([7.0]), np.array([3.0]))).variance)) > 0
