"""Normal and t mixtures against quadrature, their radius, and Welch's moments by hand."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm, ttest_ind

from rollout.stats.normal import (
    Moments,
    normal_mixture_log_e,
    normal_mixture_radius,
    t_mixture_log_e,
    two_sided_mixture_radius,
    welch,
)


def precision(v_opt: float, alpha: float) -> float:
    far = 2.0 * math.log(1.0 / (2.0 * alpha))
    return v_opt / (far + math.log(1.0 + far))


@pytest.mark.parametrize(("score", "information"), [(0.0, 1.0), (12.0, 20.0), (-7.0, 15.0), (40.0, 100.0), (3.0, 0.0)])
def test_the_mixture_is_the_mean_likelihood_ratio_under_a_half_normal_effect(score: float, information: float) -> None:
    """E = integral of exp(h S - h^2 V / 2) over h > 0 with density 2 N(0, 1 / rho)."""
    prior = norm(scale=1.0 / math.sqrt(precision(30.0, 0.05)))
    mean, _ = quad(lambda h: math.exp(h * score - h * h * information / 2.0) * 2.0 * prior.pdf(h), 0.0, 8.0, limit=200)
    assert float(normal_mixture_log_e(score, information, 30.0, 0.05)) == pytest.approx(math.log(mean), abs=1e-9)


@pytest.mark.parametrize("information", [0.5, 10.0, 400.0])
def test_on_the_line_the_mean_e_value_is_one(information: float) -> None:
    """The score is N(0, V) on the line; the e-values of all scores have mean 1."""
    width = math.sqrt(information)
    mean, _ = quad(
        lambda s: math.exp(float(normal_mixture_log_e(s, information, 30.0, 0.05)) + norm.logpdf(s, scale=width)),
        -12.0 * width, 90.0 * width, limit=400, points=[0.0, width],
    )  # fmt: skip
    assert mean == pytest.approx(1.0, abs=1e-7)


def test_it_has_the_values_of_the_prototype() -> None:
    """Computed once with the design's prototype (rollcore.normal_mixture_loge and t_mixture_loge)."""
    assert float(normal_mixture_log_e(12.0, 20.0, 30.0, 0.01)) == pytest.approx(2.7989465889386533, abs=1e-12)
    assert float(t_mixture_log_e(12.0, 20.0, 8.0, 30.0, 0.01)) == pytest.approx(2.0573692270386, abs=1e-12)


def test_no_information_is_no_evidence() -> None:
    assert float(normal_mixture_log_e(0.0, 0.0, 30.0, 0.05)) == pytest.approx(0.0, abs=1e-12)
    assert float(t_mixture_log_e(0.0, 0.0, 5.0, 30.0, 0.05)) == pytest.approx(0.0, abs=1e-12)


def test_with_many_degrees_of_freedom_the_t_mixture_is_the_normal_one() -> None:
    score, information = np.array([0.5, 12.0, 30.0]), np.array([1.0, 20.0, 60.0])
    normal = normal_mixture_log_e(score, information, 30.0, 0.05)
    assert t_mixture_log_e(score, information, 1e9, 30.0, 0.05) == pytest.approx(normal, abs=1e-6)


def test_few_degrees_of_freedom_temper_a_large_score() -> None:
    few, many = (float(t_mixture_log_e(30.0, 20.0, freedom, 30.0, 0.05)) for freedom in (5.0, 500.0))
    assert few < many < float(normal_mixture_log_e(30.0, 20.0, 30.0, 0.05))


@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05, 0.3])
def test_at_its_radius_the_mixture_reaches_its_line(alpha: float) -> None:
    information = np.array([1e-3, 1.0, 30.0, 1e6])
    deviation = normal_mixture_radius(information, 30.0, alpha)
    log_e = normal_mixture_log_e(deviation * information, information, 30.0, alpha)
    assert log_e == pytest.approx(np.full(4, math.log(1.0 / alpha)), abs=1e-9)


def test_a_guardrail_with_a_weight_has_the_radius_of_its_own_level() -> None:
    deviation = float(normal_mixture_radius(20.0, 30.0, 0.01, level=0.0025))
    assert float(normal_mixture_log_e(deviation * 20.0, 20.0, 30.0, 0.01)) == pytest.approx(math.log(400.0), abs=1e-9)


def test_the_two_sided_radius_is_that_of_two_one_sided_halves() -> None:
    information = np.array([1.0, 30.0, 1e4])
    halves = normal_mixture_radius(information, 30.0, 0.025)
    assert two_sided_mixture_radius(information, 30.0, 0.05) == pytest.approx(halves, rel=2e-3)


def test_more_information_narrows_the_radius() -> None:
    radius = normal_mixture_radius(np.geomspace(0.01, 1e5, 50), 30.0, 0.05)
    assert (np.diff(radius) < 0.0).all()


def test_looking_without_end_crosses_at_most_at_alpha() -> None:
    rng = np.random.default_rng(5)
    score = rng.normal(size=(1000, 2000)).cumsum(axis=1)
    log_e = normal_mixture_log_e(score, np.arange(1.0, 2001.0), 100.0, 0.05)
    assert 0.02 <= (log_e.max(axis=1) >= math.log(20.0)).mean() <= 0.05


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, -0.1, math.nan])
def test_a_level_that_one_side_cannot_have_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="one-sided level"):
        normal_mixture_log_e(1.0, 1.0, 1.0, alpha)
    with pytest.raises(ValueError, match="one-sided level"):
        normal_mixture_radius(1.0, 1.0, 0.05, level=alpha)


def test_without_information_there_is_no_radius() -> None:
    for radius in (normal_mixture_radius, two_sided_mixture_radius):
        with pytest.raises(ValueError, match="no radius"):
            radius(np.array([1.0, 0.0]), 30.0, 0.05)


def test_welch_by_hand() -> None:
    """1, 3 against 2, 4, 6: means 2 and 4, variances of the means 2 / 2 = 1 and 4 / 3."""
    found = welch(Moments(2, 4.0, 10.0), Moments(3, 12.0, 56.0))
    assert float(found.difference) == pytest.approx(-2.0)
    assert float(found.variance) == pytest.approx(1.0 + 4.0 / 3.0)
    assert float(found.freedom) == pytest.approx((7.0 / 3.0) ** 2 / (1.0 / 1.0 + (16.0 / 9.0) / 2.0))


def test_welch_agrees_with_the_two_sample_t_test_and_scales_the_baseline() -> None:
    rng = np.random.default_rng(6)
    t, c = rng.normal(1.0, 2.0, 40), rng.normal(0.5, 1.0, 90)
    moments = [Moments(x.size, x.sum(), np.square(x).sum()) for x in (t, 1.25 * c)]
    expected = ttest_ind(t, 1.25 * c, equal_var=False)
    plain = welch(*moments)
    assert float(plain.difference) / math.sqrt(float(plain.variance)) == pytest.approx(float(expected.statistic))
    assert float(plain.freedom) == pytest.approx(float(expected.df))
    scaled = welch(moments[0], Moments(c.size, c.sum(), np.square(c).sum()), 1.25)
    assert [float(x) for x in scaled] == pytest.approx([float(x) for x in plain])


def test_without_variation_there_is_no_variance_and_no_freedom() -> None:
    found = welch(Moments(3, 3.0, 3.0), Moments(3, 6.0, 12.0))
    assert [float(x) for x in found] == [-1.0, 0.0, 0.0]


def test_one_outcome_says_nothing_about_its_variance() -> None:
    with pytest.raises(ValueError, match="two outcomes"):
        welch(Moments(1, 1.0, 1.0), Moments(5, 5.0, 9.0))
