"""Margins: what is refused, where the line lies, and how an early gate widens it."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rollout.stats.margin import Direction, Margin, NullLine, null_line, risk_scaled

LOWER: Direction = "lower_is_better"
HIGHER: Direction = "higher_is_better"
directions = st.sampled_from([LOWER, HIGHER])
margins = st.builds(Margin, st.floats(0.0, 1.0), st.booleans())
percentages = st.floats(0.01, 100.0)


@pytest.mark.parametrize("size", [-0.1, math.nan, math.inf])
def test_a_margin_that_is_not_a_number_of_at_least_zero_is_refused(size: float) -> None:
    with pytest.raises(ValueError, match="finite number of at least 0"):
        Margin(size, relative=True)


def test_an_absolute_margin_of_values_may_be_any_size_and_widens_up_to_its_own_limit() -> None:
    widened = risk_scaled(Margin(200.0, relative=False), "lower_is_better", 1, 50, largest_absolute=2000.0)
    assert widened == Margin(2000.0, relative=False)


def test_tolerating_a_fall_to_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="tolerates a fall to zero"):
        null_line(Margin(1.0, relative=True), HIGHER)


def test_each_margin_draws_its_line() -> None:
    assert null_line(Margin(0.5, relative=True), LOWER) == NullLine(1.5, 0.0)
    assert null_line(Margin(0.25, relative=True), HIGHER) == NullLine(0.75, 0.0)
    assert null_line(Margin(0.02, relative=False), LOWER) == NullLine(1.0, 0.02)
    assert null_line(Margin(0.02, relative=False), HIGHER) == NullLine(1.0, -0.02)


def test_half_more_at_the_end_is_six_two_and_one_and_a_half_times_before() -> None:
    """A final x1.5 over 1, 5, 25, 50 % has gates at 6, 2, 1.5, 1.5 times the baseline."""
    final = Margin(0.5, relative=True)
    gates = [risk_scaled(final, LOWER, following, 50).size + 1 for following in (5, 25, 50, 50)]
    assert gates == [6.0, 2.0, 1.5, 1.5]


def test_the_tolerated_excess_is_scaled_and_capped_by_kind() -> None:
    assert risk_scaled(Margin(0.02, relative=False), LOWER, 10, 50) == Margin(0.1, relative=False)
    assert risk_scaled(Margin(0.02, relative=False), HIGHER, 1, 50) == Margin(0.25, relative=False)
    assert risk_scaled(Margin(0.1, relative=True), HIGHER, 1, 50) == Margin(0.5, relative=True)
    assert risk_scaled(Margin(1.0, relative=True), LOWER, 1, 50) == Margin(5.0, relative=True)


@given(margins, directions, percentages, percentages)
def test_a_gate_is_never_tighter_than_the_plan(
    margin: Margin, direction: Direction, following: float, last: float
) -> None:
    gate = risk_scaled(margin, direction, following, last)
    assert gate.size >= margin.size
    assert gate.relative == margin.relative
    if margin.size == 0.0 or following >= last:
        assert gate == margin


@given(margins, directions, percentages, percentages, percentages)
def test_more_exposure_never_widens_a_gate(
    margin: Margin, direction: Direction, less: float, more: float, last: float
) -> None:
    assume(less <= more)
    assert risk_scaled(margin, direction, more, last).size <= risk_scaled(margin, direction, less, last).size


@given(directions, percentages, percentages)
def test_a_margin_beyond_the_cap_is_left_as_it_is(direction: Direction, following: float, last: float) -> None:
    for margin in (Margin(7.0, relative=True), Margin(0.4, relative=False)):
        assert risk_scaled(margin, direction, following, last) == margin


def test_exposure_must_be_positive() -> None:
    with pytest.raises(ValueError, match="percentages must be positive"):
        risk_scaled(Margin(0.1, relative=True), LOWER, 0.0, 50.0)
