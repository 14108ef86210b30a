"""The normal mixture against quadrature, and its radius."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from rollout.stats.normal import normal_mixture_log_e, normal_mixture_radius


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
    """Computed once with the design's prototype (rollcore.normal_mixture_loge)."""
    assert float(normal_mixture_log_e(12.0, 20.0, 30.0, 0.01)) == pytest.approx(2.7989465889386533, abs=1e-12)


def test_no_information_is_no_evidence() -> None:
    assert float(normal_mixture_log_e(0.0, 0.0, 30.0, 0.05)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05, 0.3])
def test_at_its_radius_the_mixture_reaches_its_line(alpha: float) -> None:
    information = np.array([1e-3, 1.0, 30.0, 1e6])
    deviation = normal_mixture_radius(information, 30.0, alpha)
    log_e = normal_mixture_log_e(deviation * information, information, 30.0, alpha)
    assert log_e == pytest.approx(np.full(4, math.log(1.0 / alpha)), abs=1e-9)


def test_a_guardrail_with_a_weight_has_the_radius_of_its_own_level() -> None:
    deviation = float(normal_mixture_radius(20.0, 30.0, 0.01, level=0.0025))
    assert float(normal_mixture_log_e(deviation * 20.0, 20.0, 30.0, 0.01)) == pytest.approx(math.log(400.0), abs=1e-9)


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
    with pytest.raises(ValueError, match="no radius"):
        normal_mixture_radius(np.array([1.0, 0.0]), 30.0, 0.05)
