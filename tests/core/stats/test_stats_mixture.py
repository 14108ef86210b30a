"""The mixture of bets and the precision of log e."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.stats.mixture import LOG_DECIMALS, log_mixture, log_tempered, rounded

logs = st.lists(st.floats(-600.0, 600.0), min_size=1, max_size=12)


def uniform(size: int) -> np.ndarray:
    return np.full(size, 1.0 / size)


@given(logs)
def test_a_mixture_is_the_log_of_the_weighted_mean(log_wealth: list[float]) -> None:
    expected = math.log(math.fsum(math.exp(value) for value in log_wealth) / len(log_wealth))
    assert log_mixture(log_wealth, uniform(len(log_wealth))) == pytest.approx(expected, abs=1e-9)


@given(logs, st.floats(-1e6, 1e6))
def test_a_mixture_moves_with_its_bets_however_large_they_are(log_wealth: list[float], shift: float) -> None:
    weights = uniform(len(log_wealth))
    moved = log_mixture([value + shift for value in log_wealth], weights)
    assert moved == pytest.approx(log_mixture(log_wealth, weights) + shift, abs=1e-6)


@given(logs)
def test_a_mixture_lies_between_its_smallest_and_largest_bet(log_wealth: list[float]) -> None:
    value = log_mixture(log_wealth, uniform(len(log_wealth)))
    assert min(log_wealth) - 1e-9 <= value <= max(log_wealth) + 1e-9


def test_bets_that_have_not_begun_are_worth_one() -> None:
    assert log_mixture([0.0, 0.0], [0.3, 0.7]) == pytest.approx(0.0, abs=1e-15)


def test_bets_that_lost_everything_are_worth_nothing() -> None:
    assert log_mixture([-math.inf, -math.inf], [0.5, 0.5]) == -math.inf
    assert log_mixture([-math.inf, 0.0], [0.5, 0.5]) == pytest.approx(math.log(0.5))


@given(st.floats(-1e5, 1e5))
def test_rounding_is_stable_and_close(value: float) -> None:
    once = rounded(value)
    assert rounded(once) == once
    assert abs(once - value) <= 0.52 * 10.0**-LOG_DECIMALS  # half a unit, and the spacing of floats


def test_zero_is_written_one_way_only() -> None:
    assert math.copysign(1.0, rounded(-1e-12)) == 1.0


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=8), st.floats(1, 50))
def test_tempering_before_mixing_never_claims_more_than_tempering_after(wealth: list[float], effect: float) -> None:
    weights = [1 / len(wealth)] * len(wealth)
    tempered = log_tempered(wealth, weights, effect)
    assert tempered <= log_mixture(wealth, weights) / effect + 1e-9
    assert log_tempered(wealth, weights, 1.0) == log_mixture(wealth, weights)


def test_a_design_effect_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        log_tempered([0.0], [1.0], 0.9)
