"""Information per request and the projection of what a gate still needs."""

import math

import numpy as np
import pytest

from rollout.stats.margin import Direction, Margin, NullLine, null_line
from rollout.stats.mixture import log_mixture
from rollout.stats.planning import information, units_needed
from rollout.stats.proportion import (
    ADVANCE_WEIGHTS,
    ControlHistory,
    Counts,
    advance_log_factors,
)

EQUAL = NullLine(1.0, 0.0)


@pytest.mark.parametrize(
    ("p_t", "share", "requests"),
    [
        (0.03, 0.01, 1368), (0.04, 0.01, 383), (0.10, 0.01, 36),
        (0.03, 0.10, 1525), (0.04, 0.10, 431), (0.10, 0.10, 43),
        (0.03, 0.50, 2902), (0.04, 0.50, 856), (0.10, 0.50, 97),
    ],
)  # fmt: skip
def test_it_reproduces_the_published_limits(p_t: float, share: float, requests: int) -> None:
    """Computed once by another implementation: log(20) / information against p_t <= p_c at a base rate of 2 %."""
    assert math.log(20.0) / information(p_t, 0.02, share, EQUAL) == pytest.approx(requests, abs=0.6)


def test_it_is_the_smallest_divergence_over_the_whole_line() -> None:
    for line in (NullLine(1.5, 0.0), NullLine(1.0, 0.03), NullLine(1.0, -0.04), NullLine(0.8, 0.0)):
        q = np.linspace(1e-6, 1.0 - 1e-6, 400_001)
        p = line.ratio * q + line.difference
        q, p = q[(p > 0.0) & (p < 1.0)], p[(p > 0.0) & (p < 1.0)]
        for p_t, p_c, share in ((0.2, 0.1, 0.1), (0.1, 0.1, 0.5), (0.6, 0.35, 0.01)):
            divergence = (
                p_t * np.log(p_t / p)
                + (1 - p_t) * np.log((1 - p_t) / (1 - p))
                + (1 - share) / share * (p_c * np.log(p_c / q) + (1 - p_c) * np.log((1 - p_c) / (1 - q)))
            )
            assert information(p_t, p_c, share, line) == pytest.approx(divergence.min(), rel=1e-4, abs=1e-8)


def test_on_the_line_there_is_nothing_to_learn() -> None:
    assert information(0.3, 0.2, 0.1, NullLine(1.5, 0.0)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("arms", [(1.0, 0.0), (0.0, 0.0), (1.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("line", [EQUAL, NullLine(2.0, 0.0), NullLine(1.0, 0.1), NullLine(1.0, -0.1)])
def test_certain_rates_are_no_trouble(arms: tuple[float, float], line: NullLine) -> None:
    value = information(*arms, 0.1, line)
    assert value >= 0.0
    assert not math.isnan(value)


def test_impossible_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="rates lie in"):
        information(1.2, 0.1, 0.1, EQUAL)
    with pytest.raises(ValueError, match="share"):
        information(0.2, 0.1, 1.0, EQUAL)


def test_a_gate_that_is_reached_needs_nothing_more() -> None:
    assert units_needed(3.1, 3.0, 0.02, Margin(0.1, relative=True), "lower_is_better", 0.1) == 0.0


def test_what_cannot_be_projected_has_no_number() -> None:
    assert units_needed(0.0, 3.0, 0.02, Margin(0.0, relative=True), "lower_is_better", 0.1) is None
    assert units_needed(0.0, 3.0, 0.0, Margin(0.5, relative=True), "lower_is_better", 0.1) is None


@pytest.mark.parametrize(
    ("margin", "direction", "rate"),
    [
        (Margin(0.5, relative=True), "lower_is_better", 0.02),
        (Margin(0.05, relative=False), "higher_is_better", 0.35),
    ],
)
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_the_projection_holds_when_the_bets_are_run(
    margin: Margin, direction: Direction, rate: float, share: float
) -> None:
    """Equal arms without noise: log e grows at nearly the projected speed once the bets have begun."""
    projected = units_needed(0.0, 40.0, rate, margin, direction, share)
    assert projected is not None
    n_t = projected / 20
    n_c = n_t * (1 - share) / share
    history = ControlHistory(0.5 + rate * 5_000, 50.0 + 5_000)
    arms = Counts(round(n_t), round(n_t * rate)), Counts(round(n_c), round(n_c * rate))
    factors = advance_log_factors(*arms, history.guess, margin, direction)
    assert 0.8 * 40.0 <= log_mixture(20 * factors, ADVANCE_WEIGHTS) <= 1.05 * 40.0
    assert null_line(margin, direction) != EQUAL
