"""Sample-ratio mismatch and its design effect."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from rollout.stats.samples import srm_design_effect, srm_log_e


@pytest.mark.parametrize(
    ("candidate", "baseline", "share", "expected"),
    [
        (95, 9_905, 0.01, -2.2355191300223396),
        (520, 480, 0.5, -0.4731252336700891),
        (700, 9_300, 0.1, 52.508180889833056),
    ],
)
def test_it_agrees_with_the_published_formula(candidate: int, baseline: int, share: float, expected: float) -> None:
    """Lindon & Malek, "Anytime-Valid Inference for Multinomial Count Data", NeurIPS 2022, equation 9."""
    assert srm_log_e(candidate, baseline, share) == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_its_expectation_is_one_under_the_planned_share(share: float) -> None:
    for n in (1, 5, 40):
        e = np.array([math.exp(srm_log_e(k, n - k, share)) for k in range(n + 1)])
        assert float(binom.pmf(np.arange(n + 1), n, share) @ e) == pytest.approx(1.0, abs=1e-9)


def test_no_exposure_is_no_evidence() -> None:
    assert srm_log_e(0, 0, 0.1) == 0.0


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_a_share_without_two_arms_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        srm_log_e(1, 1, share)
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        srm_design_effect([1, 0], [0, 1], share)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="counts must be >= 0"):
        srm_log_e(-1, 1, 0.1)


def test_units_exposed_in_one_process_have_no_design_effect() -> None:
    candidate, baseline = [1] * 20 + [0] * 236, [0] * 20 + [1] * 180 + [0] * 56
    assert srm_design_effect(candidate, baseline, 0.1) == pytest.approx(1.0)


def test_units_first_exposed_in_eight_processes_count_an_eighth() -> None:
    candidate, baseline = [8] * 20 + [0] * 236, [0] * 20 + [8] * 180 + [0] * 56
    assert srm_design_effect(candidate, baseline, 0.1) == pytest.approx(8.0, rel=0.02)


def test_a_mismatch_does_not_hide_behind_its_own_variance() -> None:
    rng = np.random.default_rng(5)
    n = rng.poisson(200, 256)
    candidate = rng.binomial(n, 0.25)
    effect = srm_design_effect(candidate, n - candidate, 0.1)
    assert effect < 1.3


@pytest.mark.parametrize(("candidate", "baseline"), [([0, 0], [0, 0]), ([0, 9], [0, 0]), ([0, 1], [0, 50])])
def test_fewer_than_two_cells_say_nothing(candidate: list[int], baseline: list[int]) -> None:
    assert srm_design_effect(candidate, baseline, 0.1) == 1.0
