"""What a gate or a detection needs, and how often a rollout is rolled back."""

import math

import numpy as np
import pytest

from rollout.stats.margin import Direction, Margin, NullLine, null_line, risk_scaled
from rollout.stats.planning import (
    EQUALITY,
    Spread,
    information,
    mean_information,
    quantile_information,
    sample_needed,
    stage_samples,
    units_needed,
)
from rollout.stats.power import Watched, power_curve, requests_for_power
from rollout.stats.simulate import Scenario, SimulatedGuardrail, SimulatedStage, simulate

HALF_MORE = Margin(0.5, relative=True)
FIVE_POINTS = Margin(0.05, relative=False)
ERRORS = Watched(0.02, HALF_MORE, "lower_is_better", 0.1, 10_000, looks=40)


def test_the_sample_for_a_gate_starts_from_the_information_limit() -> None:
    growth = information(0.02, 0.02, 0.1, null_line(HALF_MORE, "lower_is_better"))
    needed = sample_needed(growth, 0.05)
    assert needed is not None
    assert needed.limit == pytest.approx(
        units_needed(0.0, math.log(20.0), 0.02, HALF_MORE, "lower_is_better", 0.1), rel=1e-12
    )
    assert needed.limit < needed.average < needed.nine_in_ten
    assert sample_needed(growth, 0.05, 3.0) == pytest.approx([3.0 * requests for requests in needed])


def test_without_growth_there_is_no_sample() -> None:
    assert sample_needed(0.0, 0.05) is None
    for growth, alpha, effect in ((-1.0, 0.05, 1.0), (1.0, 0.0, 1.0), (1.0, 0.05, 0.5), (math.nan, 0.05, 1.0)):
        with pytest.raises(ValueError, match="growth"):
            sample_needed(growth, alpha, effect)


@pytest.mark.parametrize(
    ("margin", "direction", "rate", "share"),
    [
        (HALF_MORE, "lower_is_better", 0.02, 0.1),
        (HALF_MORE, "lower_is_better", 0.02, 0.01),
        (FIVE_POINTS, "higher_is_better", 0.35, 0.5),
    ],
)
def test_the_overhead_over_the_limit_is_what_the_judges_bets_take(
    margin: Margin, direction: Direction, rate: float, share: float
) -> None:
    needed = sample_needed(information(rate, rate, share, null_line(margin, direction)), 0.05)
    assert needed is not None
    guardrail = SimulatedGuardrail(rate, rate, margin, direction)
    per_tick = needed.limit / 20.0 / share
    plan = Scenario((SimulatedStage(100.0 * share),), (guardrail,), per_tick, 160, 1e-300, risk_scaled=False)
    taken = simulate(plan, 600, np.random.default_rng(1)).candidate_requests
    assert taken.mean() == pytest.approx(needed.average, rel=0.25)
    assert np.quantile(taken, 0.9) == pytest.approx(needed.nine_in_ten, rel=0.2)


def test_early_stages_need_little_because_their_margins_are_wide() -> None:
    percentages = (1.0, 5.0, 25.0, 50.0)
    needed = stage_samples(percentages, 0.02, HALF_MORE, "lower_is_better", 0.05)
    limits = [stage.limit for stage in needed if stage is not None]
    assert len(limits) == 4
    assert limits == sorted(limits)
    first = risk_scaled(HALF_MORE, "lower_is_better", 5.0, 50.0)
    assert limits[0] == pytest.approx(
        math.log(20.0) / information(0.02, 0.02, 0.01, null_line(first, "lower_is_better"))
    )
    assert stage_samples(percentages, 0.0, HALF_MORE, "lower_is_better", 0.05) == (None,) * 4


def test_the_limit_of_a_mean_is_that_of_a_rate_where_both_apply() -> None:
    p, d = 0.3, 0.01
    spread = Spread(p, p * (1.0 - p))
    for share in (0.01, 0.1, 0.5):
        about_mean = mean_information(spread, spread, share, NullLine(1.0, d))
        assert about_mean == pytest.approx(information(p, p, share, NullLine(1.0, d)), rel=0.02)


def test_a_mean_with_twice_the_spread_needs_four_times_the_sample() -> None:
    narrow, wide = (mean_information(Spread(1.1, v), Spread(1.0, v), 0.1, EQUALITY) for v in (1.0, 4.0))
    assert narrow == pytest.approx(4.0 * wide)
    assert mean_information(Spread(1.5, 1.0), Spread(1.0, 1.0), 0.1, NullLine(1.5, 0.0)) == 0.0
    assert mean_information(Spread(1.1, 0.0), Spread(1.0, 0.0), 0.1, EQUALITY) == math.inf
    assert mean_information(Spread(1.0, 0.0), Spread(1.0, 0.0), 0.1, EQUALITY) == 0.0
    with pytest.raises(ValueError, match="variances"):
        mean_information(Spread(1.0, -1.0), Spread(1.0, 1.0), 0.1, EQUALITY)


def test_a_quantile_gate_is_a_comparison_of_exceedances() -> None:
    wide, narrow = quantile_information(0.99, 0.002, 0.1), quantile_information(0.99, 0.008, 0.1)
    assert wide == pytest.approx(information(0.002, 0.01, 0.1, EQUALITY))
    assert wide > narrow > 0.0
    assert quantile_information(0.99, 0.01, 0.1) == quantile_information(0.99, 0.2, 0.1) == 0.0
    with pytest.raises(ValueError, match="quantile"):
        quantile_information(1.0, 0.0, 0.1)


def test_a_curve_rises_to_certainty_for_harm_and_stays_below_alpha_on_the_line() -> None:
    curve = power_curve(ERRORS, 0.05, 1_000, np.random.default_rng(2))
    assert curve.requests.shape == curve.detected.shape == curve.false.shape == (40,)
    assert curve.requests[-1] == 10_000
    assert (np.diff(curve.detected) >= 0.0).all()
    assert curve.detected[-1] > 0.99
    assert curve.false[-1] <= 0.01 + 2.0 * math.sqrt(0.01 * 0.99 / 1_000)


def test_the_median_detection_is_near_the_limit() -> None:
    limit = math.log(100.0) / information(0.05, 0.02, 0.1, null_line(HALF_MORE, "lower_is_better"))
    half = requests_for_power(power_curve(ERRORS, 0.05, 1_000, np.random.default_rng(3)), 0.5)
    assert half is not None
    assert limit <= half <= 1.6 * limit


def test_a_larger_regression_is_found_sooner_and_a_design_effect_delays_it() -> None:
    small, large = (power_curve(ERRORS, rate, 500, np.random.default_rng(4)) for rate in (0.04, 0.06))
    assert small.detected.sum() < large.detected.sum()
    sticky = Watched(0.02, HALF_MORE, "lower_is_better", 0.1, 10_000, looks=40, effect=3.0)
    assert power_curve(sticky, 0.06, 500, np.random.default_rng(4)).detected.sum() < large.detected.sum()


def test_any_regression_is_a_line_of_its_own() -> None:
    strict = Watched(0.02, Margin(0.0, relative=True), "lower_is_better", 0.1, 10_000, looks=40)
    curve = power_curve(strict, 0.03, 500, np.random.default_rng(5))
    tolerant = power_curve(ERRORS, 0.03, 500, np.random.default_rng(5))
    assert curve.detected[-1] > 0.8
    assert tolerant.detected[-1] <= 0.02
    assert curve.false[-1] <= 0.02


def test_a_fall_of_quality_is_found_too() -> None:
    quality = Watched(0.35, FIVE_POINTS, "higher_is_better", 0.5, 5_000, looks=40)
    curve = power_curve(quality, 0.2, 300, np.random.default_rng(6))
    assert curve.detected[-1] > 0.99
    assert curve.false[-1] <= 0.03


def test_power_that_is_never_reached_has_no_number() -> None:
    curve = power_curve(ERRORS, 0.02, 50, np.random.default_rng(7))
    assert requests_for_power(curve, 0.5) is None
    with pytest.raises(ValueError, match="power"):
        requests_for_power(curve, 0.0)


def test_the_same_seed_gives_the_same_curve() -> None:
    first, second = (power_curve(ERRORS, 0.04, 50, np.random.default_rng(8)) for _ in range(2))
    assert (first.detected == second.detected).all()


@pytest.mark.parametrize(
    "wrong",
    [{"rate": 0.0}, {"share": 1.0}, {"alpha": 0.0}, {"looks": 0}, {"requests": 5, "looks": 6}, {"effect": 0.5}],
)
def test_impossible_designs_are_refused(wrong: dict[str, float]) -> None:
    usual = {"rate": 0.02, "margin": HALF_MORE, "direction": "lower_is_better", "share": 0.1, "requests": 100}
    with pytest.raises(ValueError, match=r"between|at least"):
        Watched(**{**usual, **wrong})
    with pytest.raises(ValueError, match="rate"):
        power_curve(ERRORS, 1.5, 10, np.random.default_rng(9))
