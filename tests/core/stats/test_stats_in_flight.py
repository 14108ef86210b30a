"""Attempts in flight, settled against the evidence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.stats.betting import Batch, settle
from rollout.stats.in_flight import Side, Started, settled_against, virtual_batch, wealth_by_cut
from rollout.stats.margin import Direction, Margin
from rollout.stats.proportion import advance_bets, harm_bets

SIDES: list[Side] = ["harm", "advance"]
DIRECTIONS: list[Direction] = ["lower_is_better", "higher_is_better"]
MARGINS = [Margin(0.5, relative=True), Margin(0.02, relative=False)]


@pytest.mark.parametrize(
    ("side", "direction", "u_t", "u_c"),
    [
        ("harm", "lower_is_better", 0, 5),
        ("advance", "lower_is_better", 3, 0),
        ("harm", "higher_is_better", 3, 0),
        ("advance", "higher_is_better", 0, 5),
    ],
)
def test_what_is_in_flight_speaks_against(side: Side, direction: Direction, u_t: int, u_c: int) -> None:
    started, finished = Started(10, 20), Batch(7, 1, 15, 2)
    assert virtual_batch(started, finished, side, direction) == Batch(3, u_t, 5, u_c)
    assert settled_against(started, finished, side, direction) == Batch(10, 1 + u_t, 20, 2 + u_c)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_nothing_changes_once_everything_has_finished(side: Side, direction: Direction) -> None:
    finished = Batch(7, 1, 15, 2)
    assert settled_against(Started(7, 15), finished, side, direction) == finished
    assert settled_against(Started(5, 0), finished, side, direction) == finished  # outcomes without a start


def test_minutes_are_settled_together() -> None:
    finished = Batch(np.array([7, 8]), np.array([1, 0]), np.array([15, 0]), np.array([2, 0]))
    batch = settled_against(Started(np.array([10, 8]), np.array([20, 4])), finished, "harm", "lower_is_better")
    assert [np.asarray(count).tolist() for count in batch] == [[10, 8], [1, 0], [20, 4], [7, 4]]


@settings(max_examples=25)
@given(st.data())
@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("side", SIDES)
def test_no_outcome_of_what_is_in_flight_lowers_any_bet(
    side: Side, direction: Direction, margin: Margin, data: st.DataObject
) -> None:
    """The heart of the proof: before the end, evidence is never more than it will be at the end."""
    started = [data.draw(st.integers(1, 50)) for _ in range(2)]
    finished = [data.draw(st.integers(0, n)) for n in started]
    events = [data.draw(st.integers(0, n)) for n in finished]
    late = [data.draw(st.integers(0, n - done)) for n, done in zip(started, finished, strict=True)]
    guess = data.draw(st.floats(0.001, 0.999))
    make = harm_bets if side == "harm" else advance_bets
    bets = make(started[0], started[1], guess, margin, direction)
    before = Batch(finished[0], events[0], finished[1], events[1])
    after = Batch(started[0], events[0] + late[0], started[1], events[1] + late[1])
    provisional = settle(bets, settled_against(Started(*started), before, side, direction))
    assert np.all(provisional <= settle(bets, after) + 1e-9)


def test_the_largest_cut_leaves_out_what_is_in_flight() -> None:
    over, since = np.array([1.0, 2.0]), np.array([[0.5, 0.5], [-4.0, 1.0]])
    assert wealth_by_cut(over, since).tolist() == [[1.0, 2.0], [1.5, 2.5], [-2.5, 3.5]]


def test_without_an_open_minute_there_is_one_cut() -> None:
    assert wealth_by_cut(np.zeros((5, 12)), np.zeros((5, 0, 12))).shape == (5, 1, 12)
