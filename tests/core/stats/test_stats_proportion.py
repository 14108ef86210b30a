"""Counts, control history, and the two families of bets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.stats.guess import YOUNG
from rollout.stats.margin import Direction, Margin
from rollout.stats.mixture import log_mixture
from rollout.stats.proportion import (
    ADVANCE_WEIGHTS,
    HARM_WEIGHTS,
    MEMORY,
    ControlHistory,
    Counts,
    advance_log_factors,
    both_log_factors,
    harm_log_factors,
)

LOWER: Direction = "lower_is_better"
HIGHER: Direction = "higher_is_better"


def test_counts_add_up() -> None:
    assert Counts(3, 1) + Counts(4, 4) == Counts(7, 5)


@pytest.mark.parametrize(("n", "x"), [(1, 2), (3, -1), (-1, -1)])
def test_impossible_counts_are_refused(n: int, x: int) -> None:
    with pytest.raises(ValueError, match="events lie between 0 and the number of units"):
        Counts(n, x)


def test_weights_are_distributions() -> None:
    assert HARM_WEIGHTS.sum() == pytest.approx(1.0)
    assert ADVANCE_WEIGHTS.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("rate", [0.002, 0.02, 0.35, 0.6, 0.98])
def test_a_hundred_outcomes_suffice_for_a_credible_guess(rate: float) -> None:
    history = ControlHistory().learn(Counts(100, round(100 * rate)))
    guess = history.guess
    nearest = np.array(guess.rates)[np.argmax(guess.weights)]
    assert nearest == pytest.approx(rate, abs=0.02, rel=0.1)
    assert guess.mean == pytest.approx(rate, abs=0.02, rel=0.1)


def test_a_grown_history_makes_one_guess() -> None:
    history = ControlHistory().learn(Counts(int(YOUNG), 4))
    assert history.guess.rates == (pytest.approx(4.5 / (YOUNG + 1)),)


def test_history_forgets_beyond_its_memory() -> None:
    history = ControlHistory().learn(Counts(100_000, 10_000))
    assert history.outcomes == pytest.approx(MEMORY)
    assert history.events == pytest.approx(MEMORY / 10)
    assert history.learn(Counts(20_000, 0)).guess.mean == pytest.approx(0.05, rel=0.01)


@given(
    st.lists(st.tuples(st.integers(0, 5_000), st.floats(0, 1)), max_size=8),
)
def test_guesses_are_always_rates_strictly_inside_the_unit_interval(ticks: list[tuple[int, float]]) -> None:
    history = ControlHistory()
    for n, rate in ticks:
        history = history.learn(Counts(n, int(n * rate)))
        assert all(0.0 < guess < 1.0 for guess in history.guess.rates)
        assert sum(history.guess.weights) == pytest.approx(1.0)


def test_an_advance_gate_without_a_margin_is_refused() -> None:
    with pytest.raises(ValueError, match="margin of 0 leaves nothing to show"):
        advance_log_factors(Counts(5, 0), Counts(5, 0), 0.1, Margin(0.0, relative=True), LOWER)


@pytest.mark.parametrize(("candidate", "baseline"), [(Counts(0, 0), Counts(3, 1)), (Counts(3, 1), Counts(0, 0))])
def test_a_batch_with_an_empty_arm_must_be_held_back(candidate: Counts, baseline: Counts) -> None:
    with pytest.raises(ValueError, match="hold the counts back"):
        harm_log_factors(candidate, baseline, 0.1, Margin(0.1, relative=True), LOWER)


@pytest.mark.parametrize("margin", [Margin(0.2, relative=True), Margin(0.03, relative=False)])
@pytest.mark.parametrize("direction", [LOWER, HIGHER])
def test_evidence_points_where_the_data_point(margin: Margin, direction: Direction) -> None:
    """Equal arms: evidence for advance, none of harm. A far worse candidate: the other way round."""
    guess, baseline = ControlHistory().learn(Counts(3_000, 1_050)).guess, Counts(3_000, 1_050)
    worse = Counts(3_000, 1_650 if direction == LOWER else 450)
    for candidate, harmed in ((Counts(3_000, 1_050), False), (worse, True)):
        harm = log_mixture(harm_log_factors(candidate, baseline, guess, margin, direction), HARM_WEIGHTS)
        advance = log_mixture(advance_log_factors(candidate, baseline, guess, margin, direction), ADVANCE_WEIGHTS)
        assert (harm > 5.0) is harmed
        assert (advance > 2.0) is not harmed


@pytest.mark.parametrize(
    ("direction", "rate"), [(LOWER, 0.002), (LOWER, 0.02), (LOWER, 0.35), (HIGHER, 0.35), (HIGHER, 0.98)]
)
@pytest.mark.parametrize("margin", [Margin(0.1, relative=True), Margin(0.03, relative=False)])
def test_a_first_batch_of_thousands_is_bet_almost_as_well_as_if_the_rate_were_known(
    direction: Direction, rate: float, margin: Margin
) -> None:
    """A guess of 1 % alone, where 35 % is true, ends such a batch at log e = -1,882."""
    n = 10_000
    arm = Counts(n, round(n * rate))
    worse = Counts(n, round(n * rate * (2.5 if direction == LOWER else 0.4)))
    unknowing = ControlHistory().guess
    for candidate, log_factors, weights in (
        (arm, advance_log_factors, ADVANCE_WEIGHTS),
        (worse, harm_log_factors, HARM_WEIGHTS),
    ):
        reached = log_mixture(log_factors(candidate, arm, unknowing, margin, direction), weights)
        possible = log_mixture(log_factors(candidate, arm, rate, margin, direction), weights)
        assert possible < 0.0 or reached >= 0.85 * possible - np.log(10.0)


def test_a_rate_far_below_its_absolute_margin_still_meets_a_catastrophe_with_strong_bets() -> None:
    guess = ControlHistory().learn(Counts(20_000, 2)).guess
    factors = harm_log_factors(Counts(5, 5), Counts(495, 0), guess, Margin(0.01, relative=False), LOWER)
    assert log_mixture(factors, HARM_WEIGHTS) > np.log(100)


@pytest.mark.parametrize("direction", ["lower_is_better", "higher_is_better"])
@pytest.mark.parametrize("harm", [Margin(0.0, True), Margin(0.2, True), Margin(0.02, False)])
@pytest.mark.parametrize("gate", [Margin(0.3, True), Margin(0.05, False)])
def test_both_at_once_are_what_each_is_by_itself(direction: Direction, harm: Margin, gate: Margin) -> None:
    for history in (ControlHistory(), ControlHistory(40.5, 2_050.0)):
        arms = (Counts(100, 7), Counts(900, 30))
        both = both_log_factors(arms, history.guess, harm, gate, direction)
        alone = (
            harm_log_factors(*arms, history.guess, harm, direction),
            advance_log_factors(*arms, history.guess, gate, direction),
        )
        for joint, single in zip(both, alone, strict=True):
            assert joint == pytest.approx(single, rel=1e-9, abs=1e-9)
