"""Error rates over many looks: independent requests, one stage, the whole rule of rollback and advance.

`simulate` decides as the judge does (tests/core/stats), so it can show here how often the judge is wrong.
"""

import math

import numpy as np
import pytest

from rollout.stats.margin import Direction, Margin, null_line
from rollout.stats.simulate import Scenario, SimulatedGuardrail, SimulatedStage, simulate

REPLICATIONS = 1_500
LOOKS = 96
ALPHA = 0.05
LINE = ALPHA + 2.0 * math.sqrt(ALPHA * (1.0 - ALPHA) / REPLICATIONS)

WORLDS = [
    pytest.param(Margin(0.5, relative=True), "lower_is_better", 0.02, id="errors x1.5"),
    pytest.param(Margin(0.01, relative=False), "lower_is_better", 0.02, id="errors +1 point"),
    pytest.param(Margin(0.1, relative=True), "higher_is_better", 0.35, id="correct -10 %"),
    pytest.param(Margin(0.05, relative=False), "higher_is_better", 0.35, id="correct -5 points"),
]


def one_stage(guardrail: SimulatedGuardrail, percentage: float, **alphas: float) -> Scenario:
    requests = 10.0 * 100.0 / percentage  # ten candidate requests between two looks
    return Scenario((SimulatedStage(percentage),), (guardrail,), requests, LOOKS, **alphas)


@pytest.mark.parametrize("percentage", [1.0, 10.0, 50.0])
@pytest.mark.parametrize(("margin", "direction", "rate"), WORLDS)
def test_a_candidate_on_its_line_is_rolled_back_at_most_at_alpha(
    margin: Margin, direction: Direction, rate: float, percentage: float
) -> None:
    line = null_line(margin, direction)
    guardrail = SimulatedGuardrail(line.ratio * rate + line.difference, rate, margin, direction)
    plan = one_stage(guardrail, percentage, alpha_rollback=ALPHA, alpha_advance=1e-12)
    assert simulate(plan, REPLICATIONS, np.random.default_rng(20)).rolled_back.mean() <= LINE


@pytest.mark.parametrize("percentage", [1.0, 10.0, 50.0])
@pytest.mark.parametrize(("margin", "direction", "rate"), WORLDS)
def test_an_equal_candidate_is_rolled_back_at_most_at_alpha_by_any_regression(
    margin: Margin, direction: Direction, rate: float, percentage: float
) -> None:
    nothing = Margin(0.0, relative=margin.relative)
    guardrail = SimulatedGuardrail(rate, rate, margin, direction, rollback_margin=nothing)
    plan = one_stage(guardrail, percentage, alpha_rollback=ALPHA, alpha_advance=1e-12)
    assert simulate(plan, REPLICATIONS, np.random.default_rng(21)).rolled_back.mean() <= LINE


@pytest.mark.parametrize("percentage", [1.0, 10.0, 50.0])
@pytest.mark.parametrize(("margin", "direction", "rate"), WORLDS)
def test_a_candidate_on_the_margin_is_let_through_at_most_at_alpha(
    margin: Margin, direction: Direction, rate: float, percentage: float
) -> None:
    line = null_line(margin, direction)
    guardrail = SimulatedGuardrail(line.ratio * rate + line.difference, rate, margin, direction)
    plan = one_stage(guardrail, percentage, alpha_rollback=1e-12, alpha_advance=ALPHA)
    assert simulate(plan, REPLICATIONS, np.random.default_rng(22)).completed.mean() <= LINE


def test_at_the_default_level_a_harmless_rollout_of_three_guardrails_is_kept() -> None:
    """Four stages, risk-scaled gates, errors, quality and thumbs; alpha 0.01 over all of it."""
    guardrails = (
        SimulatedGuardrail(0.02, 0.02, Margin(0.5, relative=True), "lower_is_better"),
        SimulatedGuardrail(0.35, 0.35, Margin(0.1, relative=False), "higher_is_better"),
        SimulatedGuardrail(0.10, 0.10, Margin(0.3, relative=True), "lower_is_better"),
    )
    stages = tuple(SimulatedStage(percentage, 3, 50) for percentage in (1.0, 5.0, 25.0, 50.0))
    plan = Scenario(stages, guardrails, 1_000, 150)
    outcomes = simulate(plan, REPLICATIONS, np.random.default_rng(23))
    assert outcomes.rolled_back.mean() <= 0.01
    assert outcomes.completed.mean() >= 0.95
