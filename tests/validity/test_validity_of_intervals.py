"""Intervals cover the true effect at all looks together, and always agree with what was decided.

The looks are geometric, from a handful of candidate requests to thousands, so that evidence has many chances to err.
An end misses the truth exactly where log e of the true line reaches log(1 / alpha): evidence is monotone in the line.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.stats.interval import (
    ENDS,
    Form,
    Interval,
    Levels,
    Stratum,
    consistent,
    effect_interval,
    effect_log_e,
    proportion_interval,
)
from rollout.stats.interval_of_means import (
    MeansStratum,
    difference_of_means_interval,
    ratio_of_means_interval,
)
from rollout.stats.margin import Direction
from rollout.stats.normal import Moments

REPLICATIONS, LOOKS = 500, 36
ALPHAS = Levels(0.01, 0.05)
Attempts = list[tuple[float, float]]  # the baseline's rate and the candidate's share, of each attempt


def missed(attempts: Attempts, true: tuple[Form, float], seed: int, rise: float = 1.0) -> tuple[float, float]:
    """Share of rollouts whose lower end, and upper end, is ever on the wrong side; `rise`: of rates in an attempt."""
    rng, (form, effect) = np.random.default_rng(seed), true
    totals = np.zeros((REPLICATIONS, len(attempts), 4))
    wrong = np.zeros((2, REPLICATIONS), bool)
    looks = LOOKS // len(attempts)
    sizes = np.diff(np.geomspace(1.0, 300.0 * len(attempts), looks + 1)) * 10.0
    for index, (rate, share) in enumerate(attempts):
        for look in range(looks):
            p = rate * rise ** (look / looks - 0.5)
            q = effect * p if form == "ratio" else effect + p
            requests = max(2, int(sizes[look] / share))
            n_t = rng.binomial(requests, share, REPLICATIONS)
            n_c = requests - n_t
            totals[:, index] += np.stack([n_t, rng.binomial(n_t, q), n_c, rng.binomial(n_c, p)], -1)
            seen = totals[:, : index + 1]
            for side, (end, alpha) in enumerate(zip(ENDS, ALPHAS, strict=True)):
                log_e = effect_log_e(seen, np.full(REPLICATIONS, effect), form, end)
                wrong[side] |= log_e >= math.log(1.0 / alpha)
    return float(wrong[0].mean()), float(wrong[1].mean())


def assert_covered(wrong: tuple[float, float]) -> None:
    for share, alpha in zip(wrong, ALPHAS, strict=True):
        assert share <= alpha + 2.0 * math.sqrt(alpha * (1.0 - alpha) / REPLICATIONS)
    assert sum(wrong) <= sum(ALPHAS)


@pytest.mark.parametrize("effect", [("ratio", 1.0), ("ratio", 1.5), ("difference", 0.0)])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("rate", [0.002, 0.02, 0.3])
def test_the_effect_is_covered_at_all_looks(rate: float, share: float, effect: tuple[Form, float]) -> None:
    assert_covered(missed([(rate, share)], effect, 1))


@pytest.mark.parametrize("effect", [("ratio", 1.0), ("ratio", 1.5), ("difference", 0.0), ("difference", 0.05)])
@pytest.mark.parametrize("rate", [0.002, 0.02, 0.2])
def test_the_effect_is_covered_while_allocation_and_baseline_change(rate: float, effect: tuple[Form, float]) -> None:
    assert_covered(missed([(rate, 0.01), (2.0 * rate, 0.1), (0.7 * rate, 0.5)], effect, 2))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_effect_is_covered_while_the_baseline_rises_fourfold_within_an_attempt(share: float) -> None:
    assert_covered(missed([(0.1, share)], ("ratio", 1.5), 3, rise=4.0))


@pytest.mark.parametrize("rate", [0.002, 0.02, 0.3])
def test_a_rate_is_covered_at_all_looks(rate: float) -> None:
    rng, alpha = np.random.default_rng(4), 0.05
    sizes = np.maximum(1, np.diff(np.geomspace(1.0, 20_000.0, 41))).astype(int)
    events = rng.binomial(sizes, rate, (REPLICATIONS, 40)).cumsum(axis=1)
    outcomes = sizes.cumsum()
    wrong = 0
    for run in events:
        ends = (proportion_interval(int(x), int(n), alpha) for x, n in zip(run, outcomes, strict=True))
        wrong += any(not low <= rate <= high for low, high in ends)
    assert wrong / REPLICATIONS <= alpha


@pytest.mark.parametrize("ratio", [1.0, 1.2])
def test_means_of_skewed_outcomes_are_covered_at_all_looks(ratio: float) -> None:
    """Gamma outcomes (skewness 2), allocation 10 % and then 50 %, the baseline's level doubling between them."""
    rng, runs, levels = np.random.default_rng(5), 100, Levels(0.05, 0.05)
    wrong = np.zeros(2)
    for _ in range(runs):
        outside = np.zeros(2, bool)
        attempts: list[MeansStratum] = []
        for level, share in ((1.0, 0.1), (2.0, 0.5)):
            moments, now = np.zeros((2, 3)), attempts
            for size in (60, 60, 120, 240, 480, 960):
                for arm, (n, mean) in enumerate(((size, ratio * level), (round(size * (1 - share) / share), level))):
                    values = mean * rng.exponential(size=n)
                    moments[arm] += (n, values.sum(), np.square(values).sum())
                now = [*attempts, MeansStratum(Moments(*moments[0]), Moments(*moments[1]))]
                found = ratio_of_means_interval(now, levels, 0.2)
                assert found is not None
                outside[0] |= not found.lower <= ratio <= found.upper
                if ratio == 1.0:
                    found = difference_of_means_interval(now, levels, 0.2)
                    assert found is not None
                    outside[1] |= not found.lower <= 0.0 <= found.upper
            attempts = now
        wrong += outside
    assert (wrong / runs <= sum(levels)).all()


ends = st.floats(-1.0, 10.0)
intervals = st.tuples(ends, ends).map(lambda pair: Interval(min(pair), max(pair)))
directions = st.sampled_from(["lower_is_better", "higher_is_better"])


@given(intervals, ends, st.booleans(), st.booleans(), directions, st.floats(0.0, 5.0))
def test_what_is_shown_agrees_with_what_was_decided(
    seen: Interval, line: float, harm: bool, gate: bool, direction: Direction, wider: float
) -> None:
    sign = 1.0 if direction == "lower_is_better" else -1.0
    gate_line = line + sign * wider
    shown = consistent(seen, line, harm, gate, direction, gate_line)
    assert shown.lower <= shown.upper
    near, far = sorted((sign * shown.lower, sign * shown.upper))
    assert (near >= sign * line) if harm else (near <= sign * line)
    if not gate:
        assert far >= sign * gate_line
    elif not harm or gate_line != line:
        assert far <= sign * gate_line
    assert consistent(shown, line, harm, gate, direction, gate_line) == shown


@given(intervals, ends, directions)
def test_undecided_only_widens(seen: Interval, line: float, direction: Direction) -> None:
    shown = consistent(seen, line, False, False, direction)
    assert shown.lower <= seen.lower
    assert shown.upper >= seen.upper
    assert shown.lower <= line <= shown.upper


counts = st.tuples(st.integers(0, 3_000), st.floats(0.0, 1.0), st.integers(0, 3_000), st.floats(0.0, 1.0)).map(
    lambda drawn: Stratum(drawn[0], round(drawn[0] * drawn[1]), drawn[2], round(drawn[2] * drawn[3]))
)


@given(st.lists(counts, max_size=3), st.sampled_from(["ratio", "difference"]), st.floats(1.0, 30.0))
def test_any_counts_give_an_interval_that_a_design_effect_and_a_stricter_level_do_not_narrow(
    strata: list[Stratum], form: Form, effect: float
) -> None:
    low, high = effect_interval(strata, form, ALPHAS)
    assert (0.0 if form == "ratio" else -1.0) <= low <= high <= (math.inf if form == "ratio" else 1.0)
    if len(strata) == 1:
        slack = 1e-9 + 1e-4 * abs(high if math.isfinite(high) else 0.0)
        for wider in (effect_interval(strata, form, ALPHAS, effect), effect_interval(strata, form, Levels(1e-3, 5e-3))):
            assert wider.lower <= low + 1e-4 * abs(low) + 1e-9
            assert wider.upper >= high - slack
