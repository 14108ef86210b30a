"""The log score against its formula; a narrow scale, where a shift is many standard deviations, ruins no bet."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.stats.histogram import Histogram, LogGrid
from rollout.stats.log_score import CLIP, LAMBDAS, centre_and_scale, harm_log_factors, log_score_bets
from rollout.stats.margin import Direction, Margin
from tests.core.stats.three_points import SIZES, batches, expectations, whole_null

LOG = LogGrid()
LOWER: Direction = "lower_is_better"
HIGHER: Direction = "higher_is_better"


def standard(value: float, ratio: float, centre: float, scale: float) -> float:
    return min(max((math.log(max(value, 1e-9) / ratio) - centre) / scale, -4.0), 4.0) + 4.0


def middles(index: tuple[int, ...]) -> list[float]:
    return [0.0 if i == -1915 else 2 ** ((i + 0.5) / 64) for i in index]


@pytest.mark.parametrize(("n_t", "n_c"), SIZES)
@pytest.mark.parametrize("scale", [0.001, 0.05, 0.6, 3.0])
@pytest.mark.parametrize("direction", [LOWER, HIGHER])
@pytest.mark.parametrize("size", [0.0, 0.1, 0.9])
def test_no_bet_gains_on_average_anywhere_in_its_null(
    n_t: int, n_c: int, scale: float, direction: Direction, size: float
) -> None:
    index, centre = (-1915, 10, 80), 0.2
    ratio = 1 + size if direction == LOWER else 1 - size
    harm = harm_log_factors(*batches(LOG, index, n_t, n_c), (centre, scale), Margin(size, True), direction)
    score_t = np.array([standard(value, ratio, centre, scale) for value in middles(index)])
    score_c = np.array([standard(value, 1.0, centre, scale) for value in middles(index)])
    p_t, p_c = whole_null(score_t, score_c, at_most=direction == LOWER)
    assert np.isfinite(harm).all()
    assert expectations(harm, (n_t, n_c), p_t, p_c).max() <= 1 + 1e-9


@given(
    n_t=st.integers(1, 100_000), n_c=st.integers(1, 100_000), scale=st.floats(0.001, 10),
    sign=st.sampled_from([1.0, -1.0]),
)  # fmt: skip
def test_every_factor_stays_positive_whatever_the_scale(n_t: int, n_c: int, scale: float, sign: float) -> None:
    bets = log_score_bets(n_t, n_c, sign * np.log(LAMBDAS) / scale)
    np.testing.assert_allclose(n_t * bets.k_t, n_c * bets.k_c, rtol=1e-9)
    assert (np.sign(bets.k_t) == sign).all()
    for score in (0.0, 2 * CLIP):
        assert (1 + bets.k_t * (score - bets.m)).min() >= 0.05 - 1e-9
        assert (1 - bets.k_c * (score - bets.m)).min() >= 0.05 - 1e-9


def test_harm_agrees_with_the_formula() -> None:
    candidate, baseline = {0: 3, 64: 4, 200: 1}, {-1915: 2, 0: 12, 64: 5}
    centre, scale, ratio = 0.3, 0.5, 1.2
    found = harm_log_factors(
        Histogram.of(LOG, candidate), Histogram.of(LOG, baseline), (centre, scale), Margin(0.2, True), LOWER
    )
    n_t, n_c = 8, 19
    w = n_t / (n_t + n_c)
    for shift, factor in zip((math.log(each) / scale for each in LAMBDAS.tolist()), found.tolist(), strict=True):
        d = min(shift, 4.0)
        m = 4.0 + w * d
        most = min(0.2, 0.95 / max(m, 8.0 - m))
        k_t = min(d * (1 - w), most)
        k_t *= min(1.0, most / (k_t * n_t / n_c))
        k_c = k_t * n_t / n_c
        expected = sum(
            count * math.log1p(k_t * (standard(v, ratio, centre, scale) - m))
            for v, count in zip(middles(tuple(candidate)), candidate.values(), strict=True)
        ) + sum(
            count * math.log1p(-k_c * (standard(v, 1.0, centre, scale) - m))
            for v, count in zip(middles(tuple(baseline)), baseline.values(), strict=True)
        )
        assert factor == pytest.approx(expected, abs=1e-9)


def test_centre_and_scale_are_those_of_the_logs() -> None:
    centre, scale = centre_and_scale(Histogram.of(LOG, {0: 30, 128: 10}))
    logs = [math.log(2 ** (0.5 / 64))] * 30 + [math.log(2 ** (128.5 / 64))] * 10
    mean = sum(logs) / 40
    assert float(centre) == pytest.approx(mean)
    assert float(scale) == pytest.approx(math.sqrt(sum((each - mean) ** 2 for each in logs) / 40))


@pytest.mark.parametrize("index", [-1915, 7, 2551])
def test_one_value_alone_has_a_small_scale(index: int) -> None:
    centre, scale = centre_and_scale(Histogram.of(LOG, {index: 500}))
    assert float(scale) == pytest.approx(0.001)
    arm = Histogram.of(LOG, {index: 20})
    assert np.isfinite(harm_log_factors(arm, arm, (centre, scale), Margin(0.1, True), LOWER)).all()


def test_a_doubling_is_found_and_equality_is_not() -> None:
    past = dict.fromkeys(range(0, 128, 2), 10)
    frozen = centre_and_scale(Histogram.of(LOG, past))
    baseline = Histogram.of(LOG, dict.fromkeys(range(0, 128, 2), 4))
    same, doubled = (Histogram.of(LOG, {i + by: 2 for i in range(0, 128, 2)}) for by in (0, 64))
    assert harm_log_factors(doubled, baseline, frozen, Margin(0.1, True), LOWER).max() > 20
    assert harm_log_factors(same, baseline, frozen, Margin(0.1, True), LOWER).max() < 0
    assert harm_log_factors(baseline, doubled, frozen, Margin(0.1, True), HIGHER).max() > 20


@given(
    values=st.lists(st.integers(-1915, 600), min_size=1, max_size=20), lift=st.integers(0, 300), which=st.integers(0)
)
def test_a_candidate_with_worse_values_never_has_less_evidence_of_harm(
    values: list[int], lift: int, which: int
) -> None:
    baseline = Histogram.of(LOG, {0: 30, 64: 12})
    worse = list(values)
    worse[which % len(values)] += lift
    histograms = [Histogram.of(LOG, {i: each.count(i) for i in each}) for each in (values, worse)]
    for direction, (better, bad) in ((LOWER, histograms), (HIGHER, histograms[::-1])):
        found = [harm_log_factors(arm, baseline, (0.3, 0.4), Margin(0.1, True), direction) for arm in (better, bad)]
        assert (found[1] >= found[0] - 1e-12).all()


def test_a_difference_is_no_shift_of_the_log() -> None:
    arm = Histogram.of(LOG, {0: 5})
    with pytest.raises(ValueError, match="relative margin"):
        harm_log_factors(arm, arm, (0.0, 1.0), Margin(3.0, False), LOWER)
    assert np.isfinite(harm_log_factors(arm, arm, (0.0, 1.0), Margin(0.0, False), LOWER)).all()
