"""The kernels against frozen values, computed once from the published formulas by another implementation.

Growth-optimal two-sample bets: Turner, Ly & Gruenwald, "Generic E-variables for exact sequential k-sample tests",
JSPI 2024, arXiv:2106.02693; absolute differences: Turner & Gruenwald, arXiv:2203.09785.
"""

import numpy as np
import pytest

from rollout.stats.betting import (
    Batch,
    difference_bets,
    difference_log_factors,
    ratio_bets,
    ratio_log_factors,
)
from rollout.stats.proportion import ADVANCE_FRACTIONS, HARM_LAMBDAS

HARM_AT_EQUALITY = [
    0.3626226004793411, 0.6737043454227934, 1.0272746032149094, 1.39489847291444,
    1.7004779470472964, 2.179295225739783, 2.5348266234447885, 3.0123434591632052,
    3.4455383725762077, 3.349914898342218, 0.7697326647735734, -52.07816708185873,
]  # fmt: skip
HARM_BEYOND_HALF_MORE = [
    0.32303930429245487, 0.5662687842789695, 0.8045185730043509, 1.0086527875327143,
    1.143677874942747, 1.2878433272594887, 1.3339070685179726, 1.2779765366534415,
    0.8850919668347315, -0.7319869330695497, -27.834371114485208, -76.43169557851012,
]  # fmt: skip
ADVANCE_WITHIN_HALF_MORE = [
    0.388481341292262, 0.5700328865588793, 0.7533329581620909,
    0.8623219785169449, 0.9067505874590638, 0.7650643625178111,
]  # fmt: skip
ADVANCE_WITHIN_A_TENTH_LESS = [
    0.24685314218190846, 0.3473303088228086, 0.41429877532802184,
    0.3900431817036347, 0.2141173264159777, -0.5512985309620344,
]  # fmt: skip
HARM_BEYOND_HALF_A_POINT = [
    0.2577251487340571, 0.48141657505906615, 0.737552404102488,
    1.004683546098751, 1.2261733646298243, 1.569143908357796,
    1.8172678238463362, 2.132830729923712, 2.370406997741417,
]  # fmt: skip
ADVANCE_WITHIN_A_POINT = [
    0.37075577096697276, 0.5697371710758984, 0.7920133618610663, 0.9243811445382333, 0.8862364767434463,
]  # fmt: skip


@pytest.mark.parametrize(
    ("batch", "guess", "alternatives", "null_ratio", "expected"),
    [
        (Batch(20, 3, 1980, 40), 0.02, HARM_LAMBDAS, 1.0, HARM_AT_EQUALITY),
        (Batch(50, 9, 50, 2), 0.03, 1.5 * HARM_LAMBDAS, 1.5, HARM_BEYOND_HALF_MORE),
        (Batch(200, 3, 1800, 37), 0.02, 1.5**ADVANCE_FRACTIONS, 1.5, ADVANCE_WITHIN_HALF_MORE),
        (Batch(200, 70, 300, 104), 0.35, 0.9**ADVANCE_FRACTIONS, 0.9, ADVANCE_WITHIN_A_TENTH_LESS),
    ],
)
def test_ratio_bets_agree_with_the_published_formula(
    batch: Batch, guess: float, alternatives: np.ndarray, null_ratio: float, expected: list[float]
) -> None:
    factors = ratio_log_factors(batch, guess, alternatives, null_ratio)
    np.testing.assert_allclose(factors, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("batch", "alternatives", "null_difference", "expected"),
    [
        (Batch(20, 3, 180, 4), 0.005 + 0.02 * (HARM_LAMBDAS[:9] - 1), 0.005, HARM_BEYOND_HALF_A_POINT),
        (Batch(200, 3, 1800, 37), 0.01 * ADVANCE_FRACTIONS[:5], 0.01, ADVANCE_WITHIN_A_POINT),
    ],
)
def test_difference_bets_agree_with_the_published_formula(
    batch: Batch, alternatives: np.ndarray, null_difference: float, expected: list[float]
) -> None:
    factors = difference_log_factors(batch, 0.02, alternatives, null_difference)
    np.testing.assert_allclose(factors, expected, rtol=0, atol=1e-9)


def test_a_bet_is_the_likelihood_ratio_of_its_alternative_against_the_projection() -> None:
    """With the right guess the projection (r m, m) lies on the line, and so does the price of the bet."""
    bets = ratio_bets(30, 70, 0.1, [2.0], 1.25)
    candidate, baseline = 0.2 / np.exp(bets.event_t), 0.1 / np.exp(bets.event_c)
    np.testing.assert_allclose(candidate, 1.25 * baseline, rtol=1e-12)
    bets = difference_bets(30, 70, 0.1, [0.1], 0.03)
    candidate, baseline = 0.2 / np.exp(bets.event_t), 0.1 / np.exp(bets.event_c)
    np.testing.assert_allclose(candidate, baseline + 0.03, rtol=1e-9)


def test_equal_nulls_give_equal_bets_in_both_kernels() -> None:
    batch = Batch(12, 4, 40, 5)
    by_ratio = ratio_log_factors(batch, 0.1, [1.5, 3.0], 1.0)
    by_difference = difference_log_factors(batch, 0.1, [0.05, 0.2], 0.0)
    np.testing.assert_allclose(by_ratio, by_difference, rtol=0, atol=1e-9)


def test_an_alternative_that_no_rate_can_reach_is_not_bet_on() -> None:
    assert ratio_log_factors(Batch(5, 5, 5, 0), 0.9, [2.4], 2.0).tolist() == [0.0]
    assert difference_log_factors(Batch(5, 5, 5, 0), 0.9, [0.3], 0.2).tolist() == [0.0]
    assert difference_log_factors(Batch(5, 0, 5, 5), 0.1, [-0.3], -0.2).tolist() == [0.0]


def test_leading_axes_are_batches_of_their_own() -> None:
    n_t, x_t, n_c, x_c = np.array([[3, 1, 50, 4], [9, 9, 10, 0], [1, 0, 400, 8]]).T
    guess = np.array([0.01, 0.2, 0.05])
    for log_factors, alternatives, null in (
        (ratio_log_factors, [2.0, 5.0, 9.0], 1.5),
        (difference_log_factors, [0.05, 0.2, 0.3], 0.02),
    ):
        together = log_factors(Batch(n_t, x_t, n_c, x_c), guess, alternatives, null)
        alone = [log_factors(Batch(n_t[i], x_t[i], n_c[i], x_c[i]), guess[i], alternatives, null) for i in range(3)]
        np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)
