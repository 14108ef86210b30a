"""Count rates: exact validity over the whole null, agreement with the conditional binomial test, design effect."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, poisson

from rollout.stats.count_rate import (
    ArmsExposedCells,
    Exposed,
    RateGuess,
    advance_bets,
    advance_log_factors,
    guess_rate,
    harm_bets,
    harm_log_factors,
    rate_bets,
    rate_design_effect,
    settle,
)
from rollout.stats.design_effect import CELLS
from rollout.stats.margin import Direction, Margin, NullLine, null_line
from rollout.stats.mixture import log_mixture
from rollout.stats.proportion import ADVANCE_FRACTIONS, ADVANCE_WEIGHTS, HARM_LAMBDAS, HARM_WEIGHTS

LOWER: Direction = "lower_is_better"
HIGHER: Direction = "higher_is_better"

EXPOSURES = [(1.0, 1.0), (0.5, 4.0), (4.0, 0.5), (0.02, 2.0)]
GUESSES = np.array([0.0, 0.02, 0.4, 30.0])
BASELINE_RATES = np.array([0.0, 0.01, 0.1, 0.3, 0.5, 0.55, 0.8, 1.3, 2.0])
BEYOND = np.array([0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0])
EVENTS = np.arange(120)
MARGINS = [
    Margin(0.0, relative=True),
    Margin(0.1, relative=True),
    Margin(0.6, relative=True),
    Margin(0.0, relative=False),
    Margin(0.01, relative=False),
    Margin(0.1, relative=False),
    Margin(0.5, relative=False),
]
CASES = [
    *((margin, direction) for margin in MARGINS for direction in (LOWER, HIGHER)),
    (Margin(5.0, relative=True), LOWER),
]
FAMILIES = [
    *((margin, direction, "harm") for margin, direction in CASES),
    *((margin, direction, "advance") for margin, direction in CASES if margin.size > 0.0),
]


def whole_null(margin: Margin, direction: Direction, kind: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (lambda_t, lambda_c) on the line and at every depth behind it; below it, down to zero."""
    line = null_line(margin, direction)
    on_line = line.ratio * BASELINE_RATES + line.difference
    if (kind == "harm") == (direction == "lower_is_better"):
        reachable = on_line >= 0.0
        rates = on_line[reachable, None] * BEYOND
    else:
        reachable = np.ones(on_line.size, bool)
        rates = np.maximum(on_line, 0.0)[:, None] + 2.0 * (1.0 - BEYOND)
    return rates.ravel(), np.repeat(BASELINE_RATES[reachable], BEYOND.size)


def every_outcome(kind: str, sizes: tuple[float, float], margin: Margin, direction: Direction) -> NDArray[np.float64]:
    """Log factors (candidate events, baseline events, guesses x alternatives)."""
    bets = (harm_bets if kind == "harm" else advance_bets)(sizes[0], sizes[1], GUESSES, margin, direction)
    factors = settle(bets, EVENTS[:, None, None], EVENTS[None, :, None])
    return factors.reshape(EVENTS.size, EVENTS.size, -1)


def expectations(
    factors: NDArray[np.float64], sizes: tuple[float, float], rate_t: NDArray[np.float64], rate_c: NDArray[np.float64]
) -> NDArray[np.float64]:
    """E[e] (points, bets) by summing over Poisson probabilities."""
    of_candidate = poisson.pmf(EVENTS, sizes[0] * rate_t[:, None])
    of_baseline = poisson.pmf(EVENTS, sizes[1] * rate_c[:, None])
    given_baseline = np.tensordot(of_candidate, np.exp(factors), axes=(1, 0))
    return np.einsum("pj,pjk->pk", of_baseline, given_baseline)


@pytest.mark.parametrize(("margin", "direction", "kind"), FAMILIES)
def test_no_bet_gains_on_average_anywhere_in_its_null(margin: Margin, direction: Direction, kind: str) -> None:
    rate_t, rate_c = whole_null(margin, direction, kind)
    line = null_line(margin, direction)
    on_line = np.isclose(rate_t, line.ratio * rate_c + line.difference, atol=1e-12)
    for sizes in EXPOSURES:
        factors = every_outcome(kind, sizes, margin, direction)
        assert (factors != 0.0).any()
        found = expectations(factors, sizes, rate_t, rate_c)
        assert found.max() <= 1.0 + 1e-9
        # On the line it is 1 exactly: no outcome that matters has been left out of the sum.
        assert found[on_line] == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize(("margin", "direction", "kind"), FAMILIES)
def test_bets_do_gain_behind_the_line(margin: Margin, direction: Direction, kind: str) -> None:
    rate_t, rate_c = whole_null(margin, direction, "advance" if kind == "harm" else "harm")
    factors = every_outcome(kind, (4.0, 4.0), margin, direction)
    assert expectations(factors, (4.0, 4.0), rate_t, rate_c).max() > 2.0


def test_sums_of_yes_or_no_outcomes_are_judged_conservatively() -> None:
    """Exact enumeration of binomial counts, on the line: less than 1, and less than for Poisson counts."""
    margin, n_t, n_c = Margin(0.1, relative=True), 12, 30
    bets = harm_bets(n_t, n_c, None, margin, LOWER)
    x_t, x_c = np.meshgrid(np.arange(n_t + 1), np.arange(n_c + 1), indexing="ij")
    e = np.exp(settle(bets, x_t, x_c))
    weight = np.outer(binom.pmf(np.arange(n_t + 1), n_t, 0.55), binom.pmf(np.arange(n_c + 1), n_c, 0.5))
    assert np.einsum("ij,ijk->k", weight, e).max() < 1.0


@pytest.mark.parametrize("sizes", [(1.0, 1.0), (5.0, 495.0), (3600.0, 0.25), (1e-6, 1e7)])
@pytest.mark.parametrize("margin", [Margin(0.0, relative=False), *MARGINS[:3]])
@pytest.mark.parametrize("direction", [LOWER, HIGHER])
def test_a_relative_bet_is_the_likelihood_ratio_of_the_conditional_binomial_test(
    sizes: tuple[float, float], margin: Margin, direction: Direction
) -> None:
    (e_t, e_c), r = sizes, null_line(margin, direction).ratio
    harm = r * (HARM_LAMBDAS if direction == LOWER else 1.0 / HARM_LAMBDAS)
    for bets, ratios in ((harm_bets, harm), (advance_bets, r**ADVANCE_FRACTIONS)):
        if bets is advance_bets and margin.size == 0.0:
            continue
        found = bets(e_t, e_c, None, margin, direction)
        odds, odds_0 = ratios * e_t / e_c, r * e_t / e_c
        event_t = np.log(ratios / r) - np.log1p(odds) + np.log1p(odds_0)
        event_c = np.log1p(odds_0) - np.log1p(odds)
        assert found.event_t == pytest.approx(event_t, rel=1e-12, abs=1e-12)
        assert found.event_c == pytest.approx(event_c, rel=1e-12, abs=1e-12)
        assert np.all(found.exposure == 0.0)
        x_t, x_c = 17, 4
        ratio = binom.logpmf(x_t, x_t + x_c, odds / (1 + odds)) - binom.logpmf(x_t, x_t + x_c, odds_0 / (1 + odds_0))
        assert settle(found, x_t, x_c) == pytest.approx(ratio, rel=1e-9, abs=1e-7)


@pytest.mark.parametrize("line", [NullLine(1.0, 0.3), NullLine(1.0, -0.3), NullLine(1.5, 0.1)])
@pytest.mark.parametrize("sizes", [(1.0, 1.0), (0.01, 50.0), (50.0, 0.01)])
@pytest.mark.parametrize("rate", [0.05, 0.4, 7.0])
def test_the_stake_is_the_one_that_grows_fastest(line: NullLine, sizes: tuple[float, float], rate: float) -> None:
    """Against every other stake that leaves both factors positive, on a grid."""
    (e_t, e_c), guess = sizes, 0.5
    on_line = line.ratio * guess + line.difference
    bets = rate_bets(e_t, e_c, guess, [rate], line, rate > on_line)
    stakes = np.linspace(-e_t * line.ratio, e_c, 20_001)[1:-1]
    growth = (
        e_t * rate * np.log1p(stakes / (e_t * line.ratio))
        + e_c * guess * np.log1p(-stakes / e_c)
        - stakes * line.difference / line.ratio
    )
    assert settle(bets, e_t * rate, e_c * guess)[0] >= growth.max() - 1e-12


def test_arrays_are_judged_as_if_one_by_one() -> None:
    e_t, e_c = np.array([1.0, 20.0, 3.0]), np.array([9.0, 20.0, 1.0])
    x_t, x_c, guess = np.array([0, 9, 4]), np.array([3, 8, 0]), np.array([0.3, 0.5, 2.0])
    for bets in (harm_bets, advance_bets):
        for margin, direction in CASES[2:6] + CASES[8:14]:
            if bets is advance_bets and margin.size == 0.0:
                continue
            together = settle(bets(e_t, e_c, guess, margin, direction), x_t, x_c)
            for i in range(3):
                alone = settle(bets(e_t[i], e_c[i], guess[i], margin, direction), x_t[i], x_c[i])
                assert together[i] == pytest.approx(alone, rel=1e-13)


@pytest.mark.parametrize("margin", [Margin(0.2, relative=True), Margin(0.05, relative=False)])
@pytest.mark.parametrize("direction", [LOWER, HIGHER])
def test_evidence_points_where_the_data_point(margin: Margin, direction: Direction) -> None:
    baseline = Exposed(3_000.0, 1_050)
    for events, harmed in ((1_050, False), (2_100 if direction == LOWER else 525, True)):
        candidate = Exposed(3_000.0, events)
        harm = log_mixture(harm_log_factors(candidate, baseline, 0.35, margin, direction), HARM_WEIGHTS)
        advance = log_mixture(advance_log_factors(candidate, baseline, 0.35, margin, direction), ADVANCE_WEIGHTS)
        assert (harm > 5.0) is harmed
        assert (advance > 2.0) is not harmed


@pytest.mark.parametrize("margin", [Margin(0.1, relative=True), Margin(0.05, relative=False)])
def test_twelve_looks_find_a_doubled_rate_but_nothing_where_there_is_nothing(margin: Margin) -> None:
    """A baseline whose rate drifts fourfold, a hundredth part of whose exposure is the candidate's at first."""
    rng = np.random.default_rng(5)
    alarms = {1.0: 0, 2.0: 0}
    for factor in alarms:
        for _ in range(40):
            wealth, history, reached = np.zeros(12), Exposed(0.0, 0.0), 0.0
            for look in range(12):
                rate, e_t = 0.2 * 4.0 ** (look / 11), 50.0 * (look + 1)
                candidate = Exposed(e_t, int(rng.poisson(factor * rate * e_t)))
                baseline = Exposed(2_000.0, int(rng.poisson(rate * 2_000.0)))
                guess = None if margin.relative else guess_rate(history, margin)
                wealth += harm_log_factors(candidate, baseline, guess, margin, LOWER)
                history += baseline
                reached = max(reached, log_mixture(wealth, HARM_WEIGHTS))
            alarms[factor] += reached >= math.log(100.0)
    assert alarms == {1.0: 0, 2.0: 40}


@pytest.mark.parametrize("rate", [0.0005, 0.01, 0.2, 4.0])
@pytest.mark.parametrize("direction", [LOWER, HIGHER])
def test_a_first_batch_of_hundreds_is_bet_almost_as_well_as_if_the_rate_were_known(
    rate: float, direction: Direction
) -> None:
    margin, n = Margin(0.02, relative=False), 2_000.0
    unknowing, arm = guess_rate(Exposed(0.0, 0.0), margin), Exposed(n, round(n * rate))
    worse = Exposed(n, round(n * (2.0 * rate + 0.06))) if direction == LOWER else Exposed(n, round(n * 0.3 * rate))
    for candidate, log_factors, weights in (
        (arm, advance_log_factors, ADVANCE_WEIGHTS),
        (worse, harm_log_factors, HARM_WEIGHTS),
    ):
        reached = log_mixture(log_factors(candidate, arm, unknowing, margin, direction), weights)
        possible = log_mixture(log_factors(candidate, arm, rate, margin, direction), weights)
        assert possible <= 0.0 or reached >= 0.75 * possible - math.log(10.0)


def test_guesses_agree_with_the_history() -> None:
    guess = guess_rate(Exposed(500.0, 1_000), Margin(0.01, relative=False))
    assert sum(rate * weight for rate, weight in zip(guess.rates, guess.weights, strict=True)) == pytest.approx(
        2.0, rel=0.01
    )
    with pytest.raises(ValueError, match="only an absolute margin"):
        guess_rate(Exposed(500.0, 1_000), Margin(0.01, relative=True))


def test_a_guess_below_the_tolerated_fall_leaves_nothing_to_bet_on() -> None:
    factors = harm_log_factors(Exposed(10.0, 0), Exposed(10.0, 9), 0.05, Margin(0.1, relative=False), HIGHER)
    assert np.all(factors == 0.0)


def test_a_catastrophe_is_seen_in_its_first_events() -> None:
    """Ten events in ten requests, where a hundred times as many requests had twenty."""
    for guess, margin in ((None, Margin(0.5, relative=True)), (0.02, Margin(0.01, relative=False))):
        factors = harm_log_factors(Exposed(10.0, 10), Exposed(1_000.0, 20), guess, margin, LOWER)
        assert log_mixture(factors, HARM_WEIGHTS) > math.log(1e6)


def test_exposures_add_up() -> None:
    assert Exposed(3.5, 1) + Exposed(4.0, 9) == Exposed(7.5, 10)


@pytest.mark.parametrize(("exposure", "events"), [(-1.0, 0), (1.0, -1), (math.nan, 0), (1.0, math.inf)])
def test_impossible_counts_are_refused(exposure: float, events: float) -> None:
    with pytest.raises(ValueError, match="finite and at least 0"):
        Exposed(exposure, events)


@pytest.mark.parametrize(("candidate", "baseline"), [(Exposed(0, 0), Exposed(3, 1)), (Exposed(3, 1), Exposed(0, 2))])
def test_a_batch_with_an_arm_without_exposure_must_be_held_back(candidate: Exposed, baseline: Exposed) -> None:
    with pytest.raises(ValueError, match="hold the counts back"):
        harm_log_factors(candidate, baseline, None, Margin(0.1, relative=True), LOWER)


@pytest.mark.parametrize("relative", [True, False])
def test_an_advance_gate_without_a_margin_is_refused(relative: bool) -> None:
    with pytest.raises(ValueError, match="margin of 0 leaves nothing to show"):
        advance_log_factors(Exposed(5, 0), Exposed(5, 0), 0.1, Margin(0.0, relative=relative), LOWER)


def test_an_absolute_margin_needs_a_guess() -> None:
    for log_factors in (harm_log_factors, advance_log_factors):
        with pytest.raises(ValueError, match="needs a guess"):
            log_factors(Exposed(5, 0), Exposed(5, 0), None, Margin(0.1, relative=False), LOWER)


def test_a_guess_is_a_distribution_over_rates() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        RateGuess((1.0, 20.0), (0.5, 0.4))
    with pytest.raises(ValueError, match="finite and at least 0"):
        RateGuess((-0.1,), (1.0,))
    with pytest.raises(ValueError, match="as many weights"):
        RateGuess((0.1,), (0.5, 0.5))


def cells(rng: np.random.Generator, units: int, mean: float, spread: float, rate: float = 1.0) -> dict:
    """Cells of one arm: every unit has `mean` expected events; their rates vary with squared coefficient `spread`."""
    frailty = np.ones(units) if spread == 0.0 else rng.gamma(1.0 / spread, spread, units)
    exposure = mean / rate * rng.uniform(0.5, 1.5, units)
    events, cell = rng.poisson(rate * exposure * frailty), rng.integers(0, CELLS, units)
    total, seen = (np.bincount(cell, column, CELLS) for column in (exposure, events))
    return {i: (float(total[i]), float(seen[i])) for i in range(CELLS) if total[i]}


@pytest.mark.parametrize(("mean", "spread"), [(2.0, 0.0), (0.1, 0.0), (3.0, 0.5), (8.0, 1.0)])
def test_it_finds_how_much_more_than_poisson_counts_vary(mean: float, spread: float) -> None:
    """A unit's count with mean m has variance m + spread m^2; over units of unequal exposure D = 1 + spread m 13/12."""
    rng = np.random.default_rng(1)
    found = [
        rate_design_effect([ArmsExposedCells(cells(rng, 400, mean, spread), cells(rng, 3_600, mean, spread))])
        for _ in range(60)
    ]
    assert np.mean(found) == pytest.approx(1.0 + spread * mean * 13.0 / 12.0, rel=0.08)


def test_units_that_return_in_a_later_attempt_are_still_one_cluster() -> None:
    sticky = cells(np.random.default_rng(2), 2_000, 4.0, 1.0)
    once = rate_design_effect([ArmsExposedCells(sticky, sticky)])
    assert rate_design_effect([ArmsExposedCells(sticky, sticky)] * 2) == pytest.approx(2.0 * once, rel=0.01)


def test_rates_that_differ_between_attempts_are_not_clustering() -> None:
    rng = np.random.default_rng(3)
    attempts = [
        ArmsExposedCells(*(cells(rng, 4_000, 1.0, 0.0, rate=rate * arm) for arm in (1.0, 1.2)))
        for rate in (0.05, 0.5, 4.0)
    ]
    assert rate_design_effect(attempts) < 1.2


def test_a_unit_of_measure_changes_nothing() -> None:
    rng = np.random.default_rng(4)
    arms = cells(rng, 300, 4.0, 1.0), cells(rng, 900, 4.0, 0.2)
    hours = ({cell: (exposure / 3600.0, events) for cell, (exposure, events) in arm.items()} for arm in arms)
    assert rate_design_effect([ArmsExposedCells(*hours)]) == pytest.approx(
        rate_design_effect([ArmsExposedCells(*arms)])
    )


def test_an_arm_that_cannot_tell_borrows_from_the_other() -> None:
    sticky = cells(np.random.default_rng(5), 2_000, 10.0, 1.0)
    alone = rate_design_effect([ArmsExposedCells({}, sticky)])
    assert alone > 5.0
    for unknown in ({7: (12.0, 12.0)}, {7: (3.0, 0.0), 9: (1.0, 1.0)}):
        assert rate_design_effect([ArmsExposedCells(unknown, sticky)]) == pytest.approx(alone)


def test_a_burst_of_one_unit_is_not_a_catastrophe_but_as_many_events_of_as_many_units_are() -> None:
    baseline = cells(np.random.default_rng(6), 3_000, 0.02, 0.0)
    exposed = dict.fromkeys(range(40), (0.02, 0.0))
    burst = ArmsExposedCells({**exposed, 3: (0.02, 20.0)}, baseline)
    spread = ArmsExposedCells({**exposed, **dict.fromkeys(range(20), (0.02, 1.0))}, baseline)
    assert rate_design_effect([burst]) > 15.0
    assert rate_design_effect([spread]) < 1.2


@pytest.mark.parametrize(
    ("candidate", "baseline"),
    [({}, {}), ({1: (5.0, 5.0)}, {}), (dict.fromkeys(range(9), (2.0, 0.0)), dict.fromkeys(range(200), (9.0, 0.0)))],
    ids=["nothing", "one cell", "no events"],
)
def test_without_variation_in_either_arm_it_is_one(candidate: dict, baseline: dict) -> None:
    assert rate_design_effect([ArmsExposedCells(candidate, baseline)]) == 1.0


@pytest.mark.parametrize("wrong", [{256: (1.0, 0.0)}, {-1: (1.0, 0.0)}, {0: (1.0, -2.0)}, {0: (math.inf, 2.0)}])
def test_impossible_cells_are_refused(wrong: dict[int, tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="cells are numbered 0 to 255"):
        rate_design_effect([ArmsExposedCells(wrong, {})])
