"""E[e] <= 1 for every single bet, on every point of its null, by exact enumeration of all outcomes.

Not on the line alone: a grid left unscaled by the margin passes there and rolls back harmless candidates.
"""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from rollout.stats.betting import Batch, Bets, settle
from rollout.stats.margin import Direction, Margin, null_line
from rollout.stats.proportion import (
    ControlHistory,
    Counts,
    Guess,
    advance_bets,
    advance_log_factors,
    harm_bets,
    harm_log_factors,
)

BetMaker = Callable[[ArrayLike, ArrayLike, ArrayLike, Margin, Direction], Bets]

SIZES = [(n_t, n_c) for n_t in range(1, 11) for n_c in (1, 2, 5, 10, 23, 60)]
GUESSES = np.array([1e-4, 0.002, 0.01, 0.1, 0.35, 0.6, 0.97, 0.999])
BASELINE_RATES = np.concatenate([[0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03], np.linspace(0.05, 1.0, 20)])
FRACTIONS = np.array([0.0, 0.3, 0.6, 0.9, 0.99, 1.0])  # from the far end of the null to its line
MARGINS = [
    Margin(0.0, relative=True),
    Margin(0.1, relative=True),
    Margin(0.5, relative=True),
    Margin(0.0, relative=False),
    Margin(0.005, relative=False),
    Margin(0.05, relative=False),
    Margin(0.25, relative=False),
]
CASES = [
    *((margin, direction) for margin in MARGINS for direction in ("lower_is_better", "higher_is_better")),
    (Margin(5.0, relative=True), "lower_is_better"),
]
FAMILIES = [
    *((margin, direction, "harm", harm_bets) for margin, direction in CASES),
    *((margin, direction, "advance", advance_bets) for margin, direction in CASES if margin.size > 0.0),
]


def whole_null(margin: Margin, direction: Direction, kind: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (p_t, p_c) on the line and at every depth behind it."""
    line = null_line(margin, direction)
    on_line = line.ratio * BASELINE_RATES + line.difference
    below_is_null = (kind == "harm") == (direction == "lower_is_better")
    if below_is_null:
        reachable, edge, far = on_line >= 0.0, np.minimum(on_line, 1.0), 0.0
    else:
        reachable, edge, far = on_line <= 1.0, np.maximum(on_line, 0.0), 1.0
    p_c = np.repeat(BASELINE_RATES[reachable], FRACTIONS.size)
    p_t = (far + (edge[reachable, None] - far) * FRACTIONS).ravel()
    return p_t, p_c


def expectations(
    factors: NDArray[np.float64], sizes: tuple[int, int], p_t: NDArray[np.float64], p_c: NDArray[np.float64]
) -> NDArray[np.float64]:
    """E[e] (points, bets) from log factors (n_t + 1, n_c + 1, bets) of every outcome."""
    n_t, n_c = sizes
    of_candidate = binom.pmf(np.arange(n_t + 1), n_t, p_t[:, None])
    of_baseline = binom.pmf(np.arange(n_c + 1), n_c, p_c[:, None])
    given_baseline = np.tensordot(of_candidate, np.exp(factors), axes=(1, 0))
    return np.einsum("pj,pjk->pk", of_baseline, given_baseline)


def every_outcome(bets: BetMaker, sizes: tuple[int, int], margin: Margin, direction: Direction) -> NDArray[np.float64]:
    n_t, n_c = sizes
    x_t, x_c = np.meshgrid(np.arange(n_t + 1), np.arange(n_c + 1), indexing="ij")
    batch = Batch(n_t, x_t[..., None], n_c, x_c[..., None])
    return settle(bets(n_t, n_c, GUESSES, margin, direction), batch).reshape(n_t + 1, n_c + 1, -1)


@pytest.mark.parametrize(("margin", "direction", "kind", "bets"), FAMILIES)
def test_no_bet_gains_on_average_anywhere_in_its_null(
    margin: Margin, direction: Direction, kind: str, bets: BetMaker
) -> None:
    p_t, p_c = whole_null(margin, direction, kind)
    assert p_t.size >= 50
    for sizes in SIZES:
        factors = every_outcome(bets, sizes, margin, direction)
        assert (factors != 0.0).any()
        assert expectations(factors, sizes, p_t, p_c).max() <= 1.0 + 1e-9


@pytest.mark.parametrize(("margin", "direction", "kind", "bets"), FAMILIES)
def test_bets_do_gain_behind_the_line(margin: Margin, direction: Direction, kind: str, bets: BetMaker) -> None:
    """The counterpart: it is the null that keeps E[e] at 1, not bets of nothing."""
    opposite = "advance" if kind == "harm" else "harm"
    p_t, p_c = whole_null(margin, direction, opposite)
    factors = every_outcome(bets, (10, 60), margin, direction)
    assert expectations(factors, (10, 60), p_t, p_c).max() > 2.0


@pytest.mark.parametrize(
    "history",
    [ControlHistory(), ControlHistory().learn(Counts(7, 3)), ControlHistory().learn(Counts(60, 0))],
    ids=["empty", "three of seven", "none of sixty"],
)
@pytest.mark.parametrize(("margin", "direction"), CASES[2:6] + CASES[8:12])
def test_betting_on_several_guesses_at_once_stays_valid(
    history: ControlHistory, margin: Margin, direction: Direction
) -> None:
    assert len(history.guess.rates) > 1
    sizes = (4, 12)
    for kind, log_factors in (("harm", harm_log_factors), ("advance", advance_log_factors)):
        if kind == "advance" and margin.size == 0.0:
            continue
        factors = np.array(
            [
                [log_factors(Counts(4, a), Counts(12, b), history.guess, margin, direction) for b in range(13)]
                for a in range(5)
            ]
        )
        p_t, p_c = whole_null(margin, direction, kind)
        assert expectations(factors, sizes, p_t, p_c).max() <= 1.0 + 1e-9


def test_a_grid_that_ignores_the_margin_would_be_caught() -> None:
    """The mistake this file guards against: bets on p_t > p_c judged against p_t <= 1.5 p_c."""
    margin, sizes = Margin(0.5, relative=True), (10, 60)
    p_t, p_c = whole_null(margin, "lower_is_better", "harm")
    unscaled = every_outcome(harm_bets, sizes, Margin(0.0, relative=True), "lower_is_better")
    assert expectations(unscaled, sizes, p_t, p_c).max() > 1.01


def test_a_guess_is_a_distribution_over_rates() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        Guess((0.1, 0.2), (0.5, 0.4))
    with pytest.raises(ValueError, match="between 0 and 1"):
        Guess((1.2,), (1.0,))
    with pytest.raises(ValueError, match="as many weights"):
        Guess((0.1,), (0.5, 0.5))
