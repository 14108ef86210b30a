"""Intervals that people read: what they hold, where they end, and that they agree with decisions."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from rollout.stats.interval import (
    Form,
    Interval,
    Levels,
    Stratum,
    consistent,
    effect_estimate,
    effect_interval,
    effect_log_e,
    harmed_units,
    proportion_interval,
)
from rollout.stats.interval_of_means import (
    MeansStratum,
    difference_of_means_interval,
    mean_interval,
    ratio_of_means_interval,
)
from rollout.stats.normal import Moments

BOTH = Levels(0.025, 0.025)
UNKNOWN = {"ratio": Interval(0.0, math.inf), "difference": Interval(-1.0, 1.0)}


def moments(values: np.ndarray) -> Moments:
    return Moments(values.size, float(values.sum()), float(np.square(values).sum()))


def test_nothing_seen_is_nothing_known() -> None:
    assert proportion_interval(0, 0, 0.05) == (0.0, 1.0)
    for form, widest in UNKNOWN.items():
        assert effect_interval([], form, BOTH) == widest
        assert effect_interval([Stratum(7, 3, 0, 0), Stratum(0, 0, 9, 1)], form, BOTH) == widest


@pytest.mark.parametrize(("x", "n"), [(0, 50), (1, 50), (25, 50), (50, 50), (2_000, 100_000)])
def test_a_rates_interval_holds_the_estimate_and_is_wider_than_that_of_a_single_look(x: int, n: int) -> None:
    low, high = proportion_interval(x, n, 0.05)
    assert 0.0 <= low <= x / n <= high <= 1.0
    if low > 0.0:
        assert binom.sf(x - 1, n, low) < 0.025
    if high < 1.0:
        assert binom.cdf(x, n, high) < 0.025


def test_a_rates_interval_has_no_end_where_everything_or_nothing_failed() -> None:
    assert proportion_interval(0, 100, 0.05)[0] == 0.0
    assert proportion_interval(100, 100, 0.05)[1] == 1.0
    low, high = proportion_interval(30, 100, 0.05)
    mirrored = proportion_interval(70, 100, 0.05)
    assert mirrored == pytest.approx((1.0 - high, 1.0 - low))


def test_a_design_effect_widens_like_that_many_times_fewer_outcomes() -> None:
    assert proportion_interval(80, 4_000, 0.05, 4.0) == pytest.approx(proportion_interval(20, 1_000, 0.05))
    wide = effect_interval([Stratum(4_000, 80, 4_000, 80)], "ratio", BOTH, 4.0)
    assert wide == pytest.approx(effect_interval([Stratum(1_000, 20, 1_000, 20)], "ratio", BOTH), rel=1e-3)


@pytest.mark.parametrize("form", ["ratio", "difference"])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("rate", [0.002, 0.02, 0.35, 0.98])
def test_an_effects_interval_is_within_five_standard_errors_of_the_estimate(
    rate: float, share: float, form: Form
) -> None:
    n_t = round(40 / min(rate, 1.0 - rate))
    n_c = round(n_t * (1.0 - share) / share)
    stratum = Stratum(n_t, round(rate * n_t), n_c, round(rate * n_c))
    low, high = effect_interval([stratum], form, BOTH)
    error = math.sqrt(rate * (1.0 - rate) * (1.0 / n_t + 1.0 / n_c))
    estimate = effect_estimate([stratum], form)
    assert estimate is not None
    assert low < estimate < high
    width = math.log(high / low) * rate if form == "ratio" else high - low
    assert 3.0 <= width / 2.0 / error <= 5.0


@pytest.mark.parametrize("form", ["ratio", "difference"])
def test_four_attempts_cost_hardly_more_than_one(form: Form) -> None:
    """The beta-binomial mixture minimised over the baseline's rate is more than twice as wide here."""
    attempts = [Stratum(2_500, 50, 2_500, 50)] * 4
    several, single = (
        effect_interval(strata, form, BOTH) for strata in (attempts, [Stratum(10_000, 200, 10_000, 200)])
    )
    assert several[1] - several[0] <= 1.1 * (single[1] - single[0])


@pytest.mark.parametrize(("form", "null"), [("ratio", 1.0), ("difference", 0.0)])
def test_attempts_are_never_pooled(form: Form, null: float) -> None:
    """Equal arms throughout, but the baseline rises while the allocation does: pooled, the candidate looks bad."""
    strata = [Stratum(100, 1, 99_900, 999), Stratum(50_000, 2_000, 50_000, 2_000)]
    low, high = effect_interval(strata, form, BOTH)
    assert low <= null <= high
    estimate = effect_estimate(strata, form)
    assert estimate == pytest.approx(null, abs=1e-12)
    pooled = effect_interval([Stratum(50_100, 2_001, 149_900, 2_999)], form, BOTH)
    assert pooled[0] > null


def test_each_end_has_its_own_level() -> None:
    strata = [Stratum(1_000, 30, 9_000, 180)]
    plain = effect_interval(strata, "ratio", Levels(0.05, 0.05))
    strict = effect_interval(strata, "ratio", Levels(0.001, 0.05))
    assert strict.lower < plain.lower
    assert strict.upper == plain.upper


def test_the_ends_are_where_the_evidence_reaches_its_threshold() -> None:
    strata, levels = [Stratum(1_000, 30, 9_000, 180), Stratum(500, 9, 500, 10)], Levels(0.001, 0.05)
    for form in ("ratio", "difference"):
        ends = effect_interval(strata, form, levels)
        for end, at, level in zip(("lower", "upper"), ends, levels, strict=True):
            log_e = effect_log_e(strata, [at], form, end)
            assert log_e[0] == pytest.approx(math.log(1.0 / level), abs=1e-3)


@pytest.mark.parametrize("counts", [(30, 2, 300, 9), (5, 5, 500, 10), (40, 0, 60, 20), (9, 9, 9, 0), (1, 0, 1, 1)])
def test_evidence_is_monotone_in_the_line_so_that_what_is_left_is_one_interval(counts: tuple[int, ...]) -> None:
    for form, lines in (("ratio", np.geomspace(1e-6, 1e6, 400)), ("difference", np.linspace(-1.0, 1.0, 401))):
        assert (np.diff(effect_log_e([counts], lines, form, "lower")) <= 1e-9).all()
        assert (np.diff(effect_log_e([counts], lines, form, "upper")) >= -1e-9).all()


@pytest.mark.parametrize("end", ["lower", "upper"])
@pytest.mark.parametrize(("form", "line"), [("ratio", 0.4), ("ratio", 1.0), ("ratio", 2.5), ("difference", 0.3)])
def test_on_the_line_the_bet_is_fair_by_enumeration(form: Form, line: float, end: str) -> None:
    """E[e] <= 1 over every outcome of a small experiment, for every baseline rate; log e is -1e9 for a bet not made."""
    n_t, n_c = 3, 4
    x_t, x_c = (values.ravel() for values in np.meshgrid(range(n_t + 1), range(n_c + 1)))
    totals = np.stack([np.full_like(x_t, n_t), x_t, np.full_like(x_t, n_c), x_c], -1)[:, None, :]
    e = np.exp(effect_log_e(totals, np.full(x_t.size, line), form, end))
    largest = min(1.0, 1.0 / line) if form == "ratio" else 1.0 - line
    for p in np.linspace(0.0, largest, 101):
        q = min(1.0, line * p if form == "ratio" else p + line)
        assert float((binom.pmf(x_t, n_t, q) * binom.pmf(x_c, n_c, p) * e).sum()) <= 1.0 + 1e-9


def test_a_catastrophe_of_five_requests_shows() -> None:
    low, high = effect_interval([Stratum(5, 5, 500, 10)], "ratio", Levels(0.01, 0.05))
    assert low > 3.0
    assert high == math.inf


def test_arms_without_a_single_event_leave_the_ratio_open() -> None:
    assert effect_interval([Stratum(1_000, 0, 1_000, 0)], "ratio", BOTH) == (0.0, math.inf)
    low, high = effect_interval([Stratum(1_000, 0, 1_000, 0)], "difference", BOTH)
    assert -0.02 < low < 0.0 < high < 0.02
    assert effect_estimate([Stratum(1_000, 3, 1_000, 0)], "ratio") is None


def test_effects_that_differ_between_attempts_are_spanned() -> None:
    strata = [Stratum(50_000, 1_000, 50_000, 1_000), Stratum(50_000, 5_000, 50_000, 1_000)]
    low, high = effect_interval(strata, "ratio", BOTH)
    assert 1.0 <= low < high <= 5.0


@pytest.mark.parametrize(
    ("strata", "levels", "effect"),
    [
        ([Stratum(5, 6, 10, 1)], BOTH, 1.0),
        ([Stratum(5, 1, 10, -1)], BOTH, 1.0),
        ([Stratum(5, 1, 10, 1)], Levels(0.0, 0.05), 1.0),
        ([Stratum(5, 1, 10, 1)], BOTH, 0.5),
        ([Stratum(5, 1, 10, 1)], BOTH, math.nan),
    ],
)
def test_impossible_arguments_are_refused(strata: list[Stratum], levels: Levels, effect: float) -> None:
    with pytest.raises(ValueError, match=r"between|at least"):
        effect_interval(strata, "ratio", levels, effect)
    with pytest.raises(ValueError, match="between"):
        proportion_interval(1, 10, 1.0)


def test_means_find_a_clear_difference_and_leave_a_small_one_open() -> None:
    rng = np.random.default_rng(1)
    attempts = [
        MeansStratum(moments(rng.gamma(2.0, 1.2, n)), moments(level * rng.gamma(2.0, 1.0, 4 * n)))
        for n, level in ((2_000, 1.0), (4_000, 1.0))
    ]
    low, high = difference_of_means_interval(attempts, BOTH, 0.2) or (math.nan, math.nan)
    assert 0.2 < low < 0.4 < high < 0.6
    low, high = ratio_of_means_interval(attempts, BOTH, 0.1) or (math.nan, math.nan)
    assert 1.1 < low < 1.2 < high < 1.3
    low, high = mean_interval(attempts[0].candidate, 0.05) or (math.nan, math.nan)
    assert 2.2 < low < 2.4 < high < 2.6


def test_means_of_attempts_are_never_pooled() -> None:
    """The level triples while the allocation changes; within each attempt the arms are equal."""
    rng = np.random.default_rng(2)
    attempts = [
        MeansStratum(moments(level * rng.gamma(2.0, 1.0, n_t)), moments(level * rng.gamma(2.0, 1.0, n_c)))
        for level, n_t, n_c in ((1.0, 500, 9_500), (3.0, 5_000, 5_000))
    ]
    low, high = ratio_of_means_interval(attempts, BOTH, 0.1) or (math.nan, math.nan)
    assert low < 1.0 < high
    low, high = difference_of_means_interval(attempts, BOTH, 0.2) or (math.nan, math.nan)
    assert low < 0.0 < high


def test_means_say_nothing_below_fifty_effective_outcomes_or_without_variation() -> None:
    rng = np.random.default_rng(3)
    few, many, constant = moments(rng.random(49)), moments(rng.random(500)), Moments(500, 1_000.0, 2_000.0)
    assert mean_interval(few, 0.05) is None
    assert mean_interval(many, 0.05) is not None
    assert mean_interval(many, 0.05, 11.0) is None
    assert mean_interval(constant, 0.05) is None
    for between in (difference_of_means_interval, ratio_of_means_interval):
        assert between([], BOTH, 0.1) is None
        assert between([MeansStratum(few, many)], BOTH, 0.1) is None
        assert between([MeansStratum(constant, constant)], BOTH, 0.1) is None
        alone = between([MeansStratum(many, many)], BOTH, 0.1)
        assert alone is not None
        assert between([MeansStratum(many, many), MeansStratum(few, many)], BOTH, 0.1) == alone
        wider = between([MeansStratum(many, many, 4.0)], BOTH, 0.1)
        assert wider is not None
        assert wider.lower < alone.lower < alone.upper < wider.upper


def test_a_ratio_of_means_that_are_not_positive_means_nothing() -> None:
    rng = np.random.default_rng(4)
    below, above = moments(rng.normal(-1.0, 1.0, 400)), moments(rng.normal(1.0, 1.0, 400))
    assert ratio_of_means_interval([MeansStratum(above, below)], BOTH, 0.1) is None
    assert difference_of_means_interval([MeansStratum(above, below)], BOTH, 0.1) is not None
    with pytest.raises(ValueError, match="resolution"):
        difference_of_means_interval([], BOTH, 0.0)


def test_an_interval_follows_what_was_decided() -> None:
    seen = Interval(0.8, 1.9)
    undecided = consistent(seen, 1.5, False, False, "lower_is_better")
    assert undecided == seen
    assert consistent(seen, 1.5, True, False, "lower_is_better") == (1.5, 1.9)
    assert consistent(seen, 1.5, False, True, "lower_is_better") == (0.8, 1.5)
    assert consistent(Interval(1.6, 1.9), 1.5, False, False, "lower_is_better") == (1.5, 1.9)
    assert consistent(Interval(0.8, 1.2), 1.5, False, False, "lower_is_better") == (0.8, 1.5)
    assert consistent(seen, 1.5, False, True, "lower_is_better", gate_line=6.0) == (0.8, 1.9)
    assert consistent(seen, 1.5, True, True, "lower_is_better", gate_line=1.7) == (1.5, 1.7)


def test_for_a_rate_that_ought_to_be_high_everything_is_mirrored() -> None:
    seen = Interval(-0.12, 0.01)
    assert consistent(seen, -0.05, True, False, "higher_is_better") == (-0.12, -0.05)
    assert consistent(seen, -0.05, False, True, "higher_is_better") == (-0.05, 0.01)
    assert consistent(seen, -0.05, False, False, "higher_is_better") == seen


def test_when_harm_and_gate_are_proven_on_one_line_harm_is_shown() -> None:
    assert consistent(Interval(1.2, 1.8), 1.5, True, True, "lower_is_better") == (1.5, 1.8)


def test_sticky_units_are_harmed_once_and_independent_requests_each() -> None:
    assert harmed_units(1_000, 20_000, 0.05, 0.02, 20.0) == pytest.approx(30.0)
    assert harmed_units(1_000, 20_000, 0.05, 0.02) == pytest.approx(1_000 * (1.0 - 0.97**20))
    assert harmed_units(1_000, 20_000, 0.05, 0.02, 50.0) == pytest.approx(30.0)
    assert harmed_units(1_000, 20_000, 0.02, 0.05) == 0.0
    assert harmed_units(0, 0, 0.5, 0.0) == 0.0
    with pytest.raises(ValueError, match="impossible"):
        harmed_units(10, 20, 1.5, 0.0)
