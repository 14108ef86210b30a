"""The simulation of a whole staged rollout, and that it plays by the judge's rules."""

import math

import numpy as np
import pytest

from rollout.stats.combine import log_late_start
from rollout.stats.margin import Direction, Margin, risk_scaled
from rollout.stats.mixture import log_mixture
from rollout.stats.proportion import (
    ADVANCE_WEIGHTS,
    HARM_WEIGHTS,
    ControlHistory,
    Counts,
    advance_log_factors,
    harm_log_factors,
)
from rollout.stats.simulate import Scenario, SimulatedGuardrail, SimulatedStage, simulate

STAGES = tuple(SimulatedStage(percentage, min_ticks=2, min_units=20) for percentage in (5.0, 20.0, 50.0))
QUALITY: Direction = "higher_is_better"


def quality(candidate_rate: float, margin: float = 0.08) -> SimulatedGuardrail:
    return SimulatedGuardrail(candidate_rate, 0.35, Margin(margin, relative=False), QUALITY)


def scenario(*guardrails: SimulatedGuardrail, horizon: int = 80, **settings: float) -> Scenario:
    return Scenario(STAGES, guardrails, requests_per_tick=300, horizon=horizon, **settings)


def test_a_better_candidate_completes() -> None:
    outcomes = simulate(scenario(quality(0.40)), 1_000, np.random.default_rng(1))
    assert outcomes.completed.mean() > 0.999
    assert (outcomes.ticks >= 6).all()
    assert (outcomes.candidate_requests >= 2 * 15 + 2 * 60 + 2 * 150).all()


def test_a_much_worse_candidate_is_rolled_back() -> None:
    outcomes = simulate(scenario(quality(0.12)), 1_000, np.random.default_rng(2))
    assert outcomes.rolled_back.mean() > 0.999


def test_one_bad_guardrail_among_good_ones_is_enough() -> None:
    outcomes = simulate(scenario(quality(0.35), quality(0.12), quality(0.4)), 300, np.random.default_rng(3))
    assert outcomes.rolled_back.mean() > 0.99


def test_every_replication_ends_one_way() -> None:
    outcomes = simulate(scenario(quality(0.29), horizon=12), 500, np.random.default_rng(4))
    ways = outcomes.completed.astype(int) + outcomes.rolled_back.astype(int) + outcomes.undecided.astype(int)
    assert (ways == 1).all()
    assert outcomes.undecided.any()
    assert (outcomes.ticks[outcomes.undecided] == 12).all()


def test_a_candidate_on_the_margin_is_seldom_let_through_or_rolled_back() -> None:
    outcomes = simulate(scenario(quality(0.27), risk_scaled=False), 2_000, np.random.default_rng(5))
    assert outcomes.completed.mean() <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 2_000)
    assert outcomes.rolled_back.mean() <= 0.01 + 2 * math.sqrt(0.01 * 0.99 / 2_000)


def test_risk_scaling_makes_early_gates_faster() -> None:
    scaled = simulate(scenario(quality(0.35, 0.05)), 500, np.random.default_rng(6))
    fixed = simulate(scenario(quality(0.35, 0.05), risk_scaled=False), 500, np.random.default_rng(6))
    assert scaled.ticks.mean() < 0.7 * fixed.ticks.mean()


def test_any_regression_has_a_rollback_line_of_its_own() -> None:
    strict = SimulatedGuardrail(0.3, 0.35, Margin(0.08, relative=False), QUALITY, 1.0, Margin(0.0, relative=True))
    tolerant, strict_run = (
        simulate(scenario(guardrail, risk_scaled=False), 500, np.random.default_rng(7))
        for guardrail in (quality(0.3), strict)
    )
    assert strict_run.rolled_back.mean() > tolerant.rolled_back.mean() + 0.05


def test_the_same_seed_gives_the_same_outcomes() -> None:
    first, second = (simulate(scenario(quality(0.3)), 50, np.random.default_rng(8)) for _ in range(2))
    assert (first.ticks == second.ticks).all()
    assert (first.completed == second.completed).all()


def test_sparse_traffic_is_held_back_until_both_arms_have_a_request() -> None:
    stages = (SimulatedStage(1.0), SimulatedStage(50.0))
    broken = SimulatedGuardrail(1.0, 0.02, Margin(0.5, relative=True), "lower_is_better")
    outcomes = simulate(Scenario(stages, (broken,), 30, 100), 200, np.random.default_rng(9))
    assert outcomes.rolled_back.all()
    assert outcomes.candidate_requests.max() <= 12


class Recorded:
    """A random generator that remembers what it gave, so that the judge can be fed the same outcomes."""

    def __init__(self, seed: int) -> None:
        self.rng, self.events = np.random.default_rng(seed), []

    def binomial(self, n: np.ndarray, p: tuple[float, float]) -> np.ndarray:
        drawn = self.rng.binomial(n, p)
        self.events.append((n[0].tolist(), drawn[0].tolist()))
        return drawn


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("candidate_rate", [0.2, 0.35])
def test_it_decides_as_the_scalar_functions_do(seed: int, candidate_rate: float) -> None:
    """One replication, replayed batch by batch through the functions that the judge calls."""
    plan, recorded = scenario(quality(candidate_rate)), Recorded(seed)
    outcomes = simulate(plan, 1, recorded)
    margin, history = plan.guardrails[0].margin, ControlHistory()
    harm, stage, ticks, units, total = [np.zeros(12)], 0, 0, 0, 0
    advance, best, verdict = np.zeros(6), 0.0, "undecided"
    for (n_t, n_c), (x_t, x_c) in recorded.events:
        following = STAGES[min(stage + 1, 2)].percentage
        gate = risk_scaled(margin, QUALITY, following, STAGES[-1].percentage)
        arms = Counts(n_t, x_t), Counts(n_c, x_c)
        factors = harm_log_factors(*arms, history.guess, margin, QUALITY)
        harm = [wealth + factors for wealth in harm]
        advance = advance + advance_log_factors(*arms, history.guess, gate, QUALITY)
        history = history.learn(arms[1])
        ticks, units, total = ticks + 1, units + n_t, total + n_t
        best = max(best, log_mixture(advance, ADVANCE_WEIGHTS))
        if log_late_start([log_mixture(wealth, HARM_WEIGHTS) for wealth in harm], 3) >= math.log(100):
            verdict = "rolled_back"
            break
        if best >= math.log(20) and ticks >= 2 and units >= 20:
            stage, ticks, units, advance, best = stage + 1, 0, 0, np.zeros(6), 0.0
            if stage == 3:
                verdict = "completed"
                break
            harm.append(np.zeros(12))
    assert bool(getattr(outcomes, verdict)[0])
    assert outcomes.candidate_requests[0] == total
    assert outcomes.ticks[0] == len(recorded.events)


@pytest.mark.parametrize(
    ("stages", "guardrails", "message"),
    [
        ((), (quality(0.3),), "at least one stage"),
        ((SimulatedStage(100.0),), (quality(0.3),), "below 100"),
        ((SimulatedStage(10.0), SimulatedStage(10.0)), (quality(0.3),), "must rise"),
        ((SimulatedStage(10.0),), (), "at least one guardrail"),
        ((SimulatedStage(10.0),), (quality(0.3, 0.0),), "every margin above 0"),
    ],
)
def test_an_impossible_scenario_is_refused(stages: tuple, guardrails: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Scenario(stages, guardrails, 10, 10)
