"""A broken candidate is gone after a handful of requests, from a cold start, looking at every request."""

import math

import numpy as np
import pytest

from rollout.stats.margin import Margin
from rollout.stats.mixture import log_mixture
from rollout.stats.proportion import HARM_WEIGHTS, ControlHistory, Counts, harm_log_factors

ANY_REGRESSION = Margin(0.0, relative=True)
HALF_A_POINT = Margin(0.005, relative=False)
ENOUGH = 200


def candidate_requests_until_rollback(
    rng: np.random.Generator, rates: tuple[float, float], share: float, margin: Margin
) -> int:
    """One rollout: a look after each candidate request; alpha 0.01."""
    history, wealth = ControlHistory(), np.zeros(HARM_WEIGHTS.size)
    candidate, baseline = Counts(0, 0), Counts(0, 0)
    for seen in range(1, ENOUGH + 1):
        before = int(rng.geometric(share)) - 1
        baseline += Counts(before, int(rng.binomial(before, rates[1])))
        candidate += Counts(1, int(rng.random() < rates[0]))
        if not baseline.n:
            continue
        wealth += harm_log_factors(candidate, baseline, history.guess, margin, "lower_is_better")
        history = history.learn(baseline)
        candidate, baseline = Counts(0, 0), Counts(0, 0)
        if log_mixture(wealth, HARM_WEIGHTS) >= math.log(100.0):
            return seen
    return ENOUGH


@pytest.mark.parametrize("margin", [ANY_REGRESSION, HALF_A_POINT], ids=["any regression", "half a point"])
@pytest.mark.parametrize(("share", "target"), [(0.01, 10), (0.1, 12), (0.5, 30)])
def test_half_of_the_requests_failing_is_found_in_time(share: float, target: int, margin: Margin) -> None:
    rng = np.random.default_rng(11)
    runs = [candidate_requests_until_rollback(rng, (0.5, 0.02), share, margin) for _ in range(300)]
    assert np.mean(runs) <= target
    assert max(runs) < ENOUGH


@pytest.mark.parametrize(("share", "target"), [(0.01, 5), (0.1, 6), (0.5, 12)])
def test_every_request_failing_is_found_in_time(share: float, target: int) -> None:
    rng = np.random.default_rng(12)
    runs = [candidate_requests_until_rollback(rng, (1.0, 0.02), share, ANY_REGRESSION) for _ in range(200)]
    assert np.mean(runs) <= target


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("margin", [ANY_REGRESSION, HALF_A_POINT, Margin(0.5, relative=True)])
def test_a_baseline_without_any_error_hides_nothing(share: float, margin: Margin) -> None:
    rng = np.random.default_rng(13)
    runs = [candidate_requests_until_rollback(rng, (1.0, 0.0), share, margin) for _ in range(30)]
    assert max(runs) <= 25


def test_five_equal_guardrails_and_late_starts_cost_a_few_requests_more() -> None:
    """One of five guardrails, half of the weight on the first start: the line is at log(1000)."""
    history, wealth = ControlHistory(), np.zeros(12)
    for seen in range(1, 8):
        wealth += harm_log_factors(Counts(1, 1), Counts(99, 2), history.guess, ANY_REGRESSION, "lower_is_better")
        history = history.learn(Counts(99, 2))
        if log_mixture(wealth, HARM_WEIGHTS) >= math.log(1000.0):
            assert seen <= 5
            return
    pytest.fail("not found within seven requests")
