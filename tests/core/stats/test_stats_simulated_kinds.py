"""Whole simulated rollouts with rates and values among their guardrails: they end as they must."""

import numpy as np
import pytest

from rollout.stats import simulated_values
from rollout.stats.margin import Margin
from rollout.stats.simulate import (
    Outcomes,
    Scenario,
    SimulatedCountRate,
    SimulatedGuardrail,
    SimulatedStage,
    SimulatedValues,
    simulate,
)
from rollout.stats.simulated import STEADY, Course, Simulated
from rollout.stats.simulated_distribution import Distribution, lognormal, observed
from rollout.stats.values import Gate, ValueTest

STAGES = tuple(SimulatedStage(percentage, min_ticks=3, min_units=50) for percentage in (1.0, 5.0, 25.0, 50.0))
HALF = Margin(0.5, relative=True)
ANY_REGRESSION = Margin(0.0, relative=True)
LATENCY, COST = lognormal(1.0, median=800.0), lognormal(1.0, mean=0.01)
WHOLE, MEAN = ValueTest("distribution"), ValueTest("mean")


def errors(candidate_rate: float = 0.02, course: Course = STEADY) -> SimulatedGuardrail:
    return SimulatedGuardrail(candidate_rate, 0.02, HALF, "lower_is_better", 1.0, ANY_REGRESSION, course)


def latency(candidate: Distribution = LATENCY, course: Course = STEADY) -> SimulatedValues:
    return SimulatedValues(WHOLE, candidate, LATENCY, HALF, rollback_margin=ANY_REGRESSION, course=course)


def cost(candidate: Distribution = COST) -> SimulatedValues:
    return SimulatedValues(MEAN, candidate, COST, HALF, rollback_margin=ANY_REGRESSION)


def run(*guardrails: Simulated, replications: int = 60, horizon: int = 400, seed: int = 1) -> Outcomes:
    """200 requests a minute, five minutes a tick."""
    return simulate(Scenario(STAGES, guardrails, 1000, horizon), replications, np.random.default_rng(seed))


def test_a_harmless_rollout_completes() -> None:
    outcomes = run(errors(), latency(), cost())
    assert outcomes.completed.mean() >= 0.98
    assert outcomes.log_e_harm.shape == outcomes.log_e_gate.shape == (3, 60)
    assert (outcomes.log_e_gate[:, outcomes.completed] >= np.log(20.0)).all()


@pytest.mark.parametrize(
    "harmful",
    [latency(LATENCY.tail_scaled(2.0)), latency(LATENCY.scaled(1.3)), cost(COST.scaled(1.3))],
    ids=["p99 doubled", "latency +30 %", "cost +30 %"],
)
def test_a_value_that_got_worse_is_rolled_back(harmful: SimulatedValues) -> None:
    outcomes = run(errors(), harmful)
    assert outcomes.rolled_back.mean() >= 0.95
    assert (outcomes.log_e_harm[1] > outcomes.log_e_harm[0])[outcomes.rolled_back].mean() >= 0.95


class CappedMeanAlone(ValueTest):
    """A mean whose gate does not watch the tail."""

    @property
    def gates(self) -> tuple[Gate, ...]:
        return ("mean",)


def test_a_mean_with_a_doubled_tail_is_stopped_by_the_tail_gate_and_would_pass_the_capped_mean() -> None:
    doubled = COST.tail_scaled(2.0, 0.985)
    assert 1.1 < doubled.mean / COST.mean < 1.25
    watched, alone = (
        SimulatedValues(test, doubled, COST, Margin(0.25, relative=True), known=20_000)
        for test in (MEAN, CappedMeanAlone("mean"))
    )
    plan = (SimulatedStage(50.0),)
    with_tail, without = (
        simulate(Scenario(plan, (guardrail,), 1000, 15, alpha_rollback=1e-9), 60, np.random.default_rng(4))
        for guardrail in (watched, alone)
    )
    assert with_tail.completed.mean() <= 0.05
    assert without.completed.mean() >= 0.95


@pytest.mark.parametrize("margin", [HALF, Margin(0.05, relative=False)], ids=["relative", "absolute"])
def test_a_doubled_count_rate_is_rolled_back_and_an_equal_one_completes(margin: Margin) -> None:
    doubled, equal = (SimulatedCountRate(rate, 0.1, margin, "lower_is_better") for rate in (0.2, 0.1))
    assert run(doubled).rolled_back.mean() == 1.0
    assert run(equal).completed.mean() >= 0.98


def test_a_regression_that_begins_at_a_stage_is_found_there() -> None:
    outcomes = run(errors(0.04, Course(from_stage=2)), replications=200)
    assert outcomes.rolled_back.mean() >= 0.97
    before = 50 + 50  # no stage is left before its least number of units
    assert outcomes.candidate_requests[outcomes.rolled_back].min() > before
    never = run(latency(LATENCY.scaled(3.0), Course(from_stage=4)))
    assert never.completed.mean() >= 0.98


def test_a_drift_and_an_outage_common_to_both_arms_do_not_roll_back() -> None:
    def worse(tick: int) -> float:
        return (20.0 if tick in (10, 11) else 1.0) * (1.0 + 0.5 * np.sin(tick / 12.0))

    def slower(tick: int) -> float:
        return (4.0 if tick in (10, 11) else 1.0) * (1.0 + 0.3 * np.sin(tick / 12.0))

    outcomes = run(errors(course=Course(worse)), latency(course=Course(slower)))
    assert outcomes.rolled_back.mean() <= 0.04
    assert outcomes.completed.mean() >= 0.9


def test_a_bake_with_a_small_control_arm_still_finds_harm() -> None:
    plan = (*STAGES, SimulatedStage(95.0, min_ticks=24))
    guardrail = errors(0.04, Course(from_stage=4))
    outcomes = simulate(Scenario(plan, (guardrail,), 1000, 400), 100, np.random.default_rng(5))
    assert outcomes.rolled_back.mean() >= 0.9


def test_a_score_with_bounds_that_falls_is_rolled_back() -> None:
    test = ValueTest("mean", "higher_is_better", bounds=(1.0, 5.0))
    marks = np.random.default_rng(0).choice([1.0, 2.0, 3.0, 4.0, 5.0], 5000, p=[0.05, 0.1, 0.2, 0.35, 0.3])
    good, bad = observed(marks, test.grid), observed(np.maximum(marks - 1.0, 1.0), test.grid)
    margin = Margin(0.3, relative=False)
    assert run(SimulatedValues(test, bad, good, margin)).rolled_back.mean() == 1.0
    assert run(SimulatedValues(test, good, good, margin)).completed.mean() >= 0.98


def test_nothing_is_bet_before_the_calibration_unless_values_are_known() -> None:
    fresh, known = (SimulatedValues(WHOLE, LATENCY, LATENCY, HALF, known=known) for known in (0, 500))
    assert (np.abs(run(fresh, horizon=1).log_e_harm) < 1e-9).all()
    assert (np.abs(run(known, horizon=1).log_e_harm) > 1e-9).all()


def test_how_many_replications_bet_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    together = run(latency(), cost(), replications=20, horizon=6)
    monkeypatch.setattr(simulated_values, "CHUNK", 7)
    apart = run(latency(), cost(), replications=20, horizon=6)
    assert together.log_e_harm == pytest.approx(apart.log_e_harm, abs=1e-9)
    assert together.log_e_gate == pytest.approx(apart.log_e_gate, abs=1e-9)


def test_values_on_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="lie on LinearGrid"):
        SimulatedValues(ValueTest("mean", bounds=(0.0, 1.0)), LATENCY, LATENCY, HALF)
