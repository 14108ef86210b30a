"""Units that come back, simulated in bulk: as the real look finds them, whose every request and unit is drawn."""

import math
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np
import pytest

from rollout.domain.evidence import Evidence
from rollout.domain.metric import Metric
from rollout.domain.rollout import State
from rollout.domain.transition import calibrate, start
from rollout.engine.carry_out import next_state
from rollout.engine.look import Inputs, examine
from rollout.stats.margin import Margin
from rollout.stats.population import Population
from rollout.stats.simulate import (
    Scenario,
    SimulatedCountRate,
    SimulatedGuardrail,
    SimulatedStage,
    SimulatedValues,
    simulate,
)
from rollout.stats.simulated_distribution import lognormal
from rollout.stats.simulated_effects import Clustering
from rollout.stats.sticky_rates import group_habits, group_rates
from rollout.stats.values import ValueTest
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import RulesetMetric
from rollout_client.increments import add, measure
from tests.core.domain.plans import START, rollout

PERCENTAGES = (10.0, 50.0)
HORIZON, REQUESTS = 40, 300
REAL, BULK = 80, 2_000
RATE = 0.15


class Setting(NamedTuple):
    """A guardrail, how the candidate differs, how many units come back, how much their outcomes go together."""

    kind: str
    times: float
    units: int
    stickiness: float
    rollback_on: str = "beyond_tolerance"
    alpha: float = 0.01


class Ends(NamedTuple):
    """Of each replication: ticks until its end, and whether it was rolled back or completed."""

    ticks: np.ndarray
    rolled_back: np.ndarray
    completed: np.ndarray


def in_bulk(setting: Setting) -> Ends:
    margin, line = Margin(0.5, relative=True), Margin(0.0, relative=True)
    more: dict[str, Any] = {
        "rollback_margin": line if setting.rollback_on == "any_regression" else None, "stickiness": setting.stickiness,
    }  # fmt: skip
    guardrail: Any
    match setting.kind:
        case "proportion":
            guardrail = SimulatedGuardrail(RATE * setting.times, RATE, margin, "lower_is_better", **more)
        case "count_rate":
            guardrail = SimulatedCountRate(RATE * setting.times, RATE, margin, "lower_is_better", **more)
        case _:
            baseline = lognormal(0.6, mean=100.0)
            guardrail = SimulatedValues(
                ValueTest("mean"), lognormal(0.6, mean=100.0 * setting.times), baseline, margin, **more
            )
    scenario = Scenario(
        stages=tuple(SimulatedStage(percentage, min_ticks=3) for percentage in PERCENTAGES),
        guardrails=(guardrail,),
        requests_per_tick=REQUESTS,
        horizon=HORIZON,
        alpha_rollback=setting.alpha,
        units=setting.units,
    )
    found = simulate(scenario, BULK, np.random.default_rng(5))
    return Ends(found.ticks, found.rolled_back, found.completed)


def by_the_real_look(setting: Setting) -> Ends:
    ends = [_one(setting, np.random.default_rng((17, number))) for number in range(REAL)]
    return Ends(*(np.array(column) for column in zip(*ends, strict=True)))


def _one(setting: Setting, rng: np.random.Generator) -> tuple[int, bool, bool]:
    """One rollout whose every unit and request is drawn, through the engine's own look."""
    plan = rollout(
        stages=[
            {"name": f"{percentage}", "percentage": percentage, "min_duration": "3m", "min_units": 0}
            for percentage in PERCENTAGES
        ],
        guardrails=[{"metric": "m", "max_regression": {"relative": 0.5}, "rollback_on": setting.rollback_on}],
        analysis={"alpha_rollback": setting.alpha},
    )
    metric = Metric(key="m", kind=setting.kind, event="bad" if setting.kind == "proportion" else "")
    known = {"m": metric}
    bucket, cell = rng.random(setting.units) * 100, rng.integers(0, 256, setting.units)
    own = _Units(setting, rng)
    state, evidence, now = start(plan, State(), "at_1", START), Evidence(), START
    seen: set[int] = set()
    for tick in range(1, HORIZON + 1):
        now += timedelta(minutes=1)
        attempt = state.attempts[-1]
        unit = rng.integers(0, setting.units, REQUESTS)
        in_candidate = bucket[unit] < attempt.percentage
        seen |= set(unit[in_candidate].tolist())
        served = RulesetMetric(kind=setting.kind).measured(state.frozen.get("m"))
        arms = {}
        for arm, chosen in (("candidate", in_candidate), ("baseline", ~in_candidate)):
            slot = SlotIncrement(metrics={"m": MetricIncrement()})
            for each, value in zip(unit[chosen].tolist(), own.values(unit[chosen], arm, rng), strict=True):
                place = int(cell[each])
                for counts in (slot.exposures, slot.started):
                    counts[place] = counts.get(place, 0) + 1
                add(slot.metrics["m"], place, *measure(served, value))
            arms[arm] = ArmIncrement(slots={tick: slot})
        inputs = Inputs(state=state, units=len(seen), attempt_units=len(seen), killed=False, now=now)
        evidence, outcome = examine(plan, known, evidence, {attempt.id: arms}, inputs)
        frozen = evidence.metrics["m"].frozen
        if frozen is not None:
            state = calibrate(state, {"m": frozen})
        if outcome.decision.kind != "hold":
            state, step = next_state(plan, state, outcome, f"at_{tick + 1}", now)
            seen = set()
            if step in ("roll_back", "complete"):
                return tick, step == "roll_back", step == "complete"
    return HORIZON, False, False


class _Units:
    """What each unit is like in each arm."""

    def __init__(self, setting: Setting, rng: np.random.Generator) -> None:
        self._setting = setting
        self._own = {arm: self._drawn(times, rng) for arm, times in (("candidate", setting.times), ("baseline", 1.0))}

    def _drawn(self, times: float, rng: np.random.Generator) -> np.ndarray:
        sticky, size = self._setting.stickiness, self._setting.units
        match self._setting.kind:
            case "proportion":
                rate, spread = RATE * times, 1.0 / sticky - 1.0
                return rng.beta(rate * spread, (1.0 - rate) * spread, size)
            case "count_rate":
                shape = RATE * times * (1.0 - sticky) / sticky
                return rng.gamma(shape, RATE * times / shape, size)
            case _:
                return self._fresh(size, times, rng)

    def _fresh(self, size: int, times: float, rng: np.random.Generator) -> np.ndarray:
        return np.exp(rng.normal(math.log(100.0 * times) - 0.18, 0.6, size))

    def values(self, unit: np.ndarray, arm: str, rng: np.random.Generator) -> list[Any]:
        own = self._own[arm][unit]
        match self._setting.kind:
            case "proportion":
                return (rng.random(unit.size) < own).tolist()
            case "count_rate":
                return rng.poisson(own).tolist()
            case _:
                fresh = self._fresh(unit.size, self._setting.times if arm == "candidate" else 1.0, rng)
                return np.where(rng.random(unit.size) < math.sqrt(self._setting.stickiness), own, fresh).tolist()


SETTINGS = (
    Setting("proportion", 1.0, 3000, 0.1, "any_regression", 0.5),
    Setting("proportion", 1.0, 2000, 0.1),
    Setting("proportion", 2.5, 3000, 0.2),
    Setting("count_rate", 2.5, 3000, 0.2),
    Setting("mean", 2.0, 3000, 0.2),
)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS)
def test_it_ends_as_often_and_as_soon_as_by_the_real_look(setting: Setting) -> None:
    real, bulk = by_the_real_look(setting), in_bulk(setting)
    for name in ("rolled_back", "completed"):
        found, wanted = getattr(real, name).mean(), getattr(bulk, name).mean()
        error = math.sqrt(max(wanted * (1.0 - wanted), 0.02) * (1.0 / REAL + 1.0 / BULK))
        assert abs(found - wanted) < 3.0 * error, f"{name}: {found:.3f} by the real look, {wanted:.3f} in bulk"
    error = math.sqrt(real.ticks.var() / REAL + bulk.ticks.var() / BULK) + 0.1
    assert abs(real.ticks.mean() - bulk.ticks.mean()) < 3.0 * error, (real.ticks.mean(), bulk.ticks.mean())


def test_without_units_that_come_back_the_same_candidate_would_seem_to_be_decided_sooner() -> None:
    alone = in_bulk(Setting("proportion", 2.5, 10**9, 0.2)).ticks.mean()
    together = [in_bulk(Setting("proportion", 2.5, units, 0.2)).ticks.mean() for units in (20_000, 3_000, 1_000)]
    assert alone < together[0] < together[1] < together[2]


def test_units_are_counted_as_when_each_request_is_drawn() -> None:
    population, rng = Population(500.0, (10.0, 40.0)), np.random.default_rng(3)
    requests = np.zeros((2, 1, 2))
    requests[:, 0] = [[60.0, 540.0], [400.0, 600.0]]
    met, again = [], []
    for _ in range(400):
        made = np.zeros((2, 500))  # arm, unit; a tenth, then four tenths of the units have the candidate
        for n, first in zip(requests[:, 0], (50, 200), strict=True):
            made[0, :first] += np.bincount(rng.integers(0, first, int(n[0])), minlength=first)
            made[1, first:] += np.bincount(rng.integers(first, 500, int(n[1])) - first, minlength=500 - first)
        met.append(np.count_nonzero(made[0]))
        again.append((made * (made - 1.0)).sum(axis=1) / made.sum(axis=1))
    assert population.met(requests)[0] == pytest.approx(np.mean(met), rel=0.01)
    assert population.returns(requests)[:, 0] == pytest.approx(np.mean(again, axis=0), rel=0.02)
    assert population.groups.tolist() == pytest.approx([50.0, 150.0, 300.0])


@pytest.mark.parametrize(("law", "within"), [("beta", 0.2 * 0.8), ("gamma", 0.2)])
def test_rates_of_groups_have_the_stickiness_they_should(law: Any, within: float) -> None:
    sizes = np.array([1.0, 10.0, 200.0])
    drawn = group_rates(law, 0.2, 0.3, (200_000, sizes), np.random.default_rng(1))
    between = 0.3 * within if law == "beta" else within * 0.3 / 0.7
    assert drawn.mean(axis=0) == pytest.approx([0.2] * 3, rel=0.01)
    assert drawn.var(axis=0) == pytest.approx(between / sizes, rel=0.03)
    assert (group_rates(law, 0.2, 0.0, (2, sizes), np.random.default_rng(1)) == 0.2).all()


def test_habits_of_groups_have_the_stickiness_they_should() -> None:
    shares, sizes = np.array([0.5, 0.3, 0.2]), np.array([1.0, 20.0])
    drawn = group_habits(shares, 0.25, (100_000, sizes), np.random.default_rng(1))
    assert drawn.sum(axis=2) == pytest.approx(1.0)
    assert drawn.mean(axis=0) == pytest.approx(np.array([shares, shares]), rel=0.01)
    assert drawn.var(axis=0) == pytest.approx(0.25 * shares * (1.0 - shares) / sizes[:, None], rel=0.03)


def test_few_events_are_worth_no_more_than_units() -> None:
    one = Clustering("events", 0.2)
    n, again = np.array([1000.0]), np.array([9.0])
    assert one.support(n, np.array([40.0]), np.array([0.0]))[0] == pytest.approx(40.0 / (1.0 + 40.0 / 256.0))
    assert one.support(n, np.array([40.0]), again)[0] < 15.0
    assert one.support(n, np.array([960.0]), again) == pytest.approx(one.support(n, np.array([40.0]), again))


def test_outcomes_go_together_only_where_units_come_back() -> None:
    sticky = SimulatedGuardrail(0.1, 0.1, Margin(0.5, relative=True), "lower_is_better", stickiness=0.1)
    stages = (SimulatedStage(10.0),)
    with pytest.raises(ValueError, match="say how many units there are"):
        Scenario(stages, (sticky,), 100.0, 10)
    with pytest.raises(ValueError, match="at least two units"):
        Scenario(stages, (sticky,), 100.0, 10, units=1.0)


def test_looking_less_often_later_changes_little_and_costs_less() -> None:
    guardrail = SimulatedGuardrail(0.13, 0.1, Margin(0.2, relative=True), "lower_is_better")
    stages = (SimulatedStage(10.0, min_ticks=30), SimulatedStage(50.0, min_ticks=30))
    fine, coarse = (
        simulate(Scenario(stages, (guardrail,), 100.0, 3_000, coarsening=coarsening), 1_000, np.random.default_rng(1))
        for coarsening in (0.0, 0.01)
    )
    for name in ("rolled_back", "completed"):
        one, other = (getattr(found, name).mean() for found in (fine, coarse))
        assert abs(one - other) < 3.0 * math.sqrt(2 * max(one * (1.0 - one), 0.01) / 1_000)
    assert coarse.ticks.mean() == pytest.approx(fine.ticks.mean(), rel=0.05)
    assert (coarse.ticks[coarse.undecided] == 3_000).all()
    assert coarse.candidate_requests.mean() == pytest.approx(fine.candidate_requests.mean(), rel=0.05)


def test_the_gate_that_is_passed_last_is_named() -> None:
    quick, strict = (
        SimulatedGuardrail(0.1, 0.1, Margin(size, relative=True), "lower_is_better") for size in (2.0, 0.4)
    )
    stages = (SimulatedStage(10.0, min_ticks=60), SimulatedStage(50.0), SimulatedStage(95.0, 30, proves=False))
    found = simulate(
        Scenario(stages, (quick, strict), 300.0, 400, risk_scaled=False), 200, np.random.default_rng(2)
    ).last_gate
    assert [np.bincount(stage, minlength=4).argmax() for stage in found] == [0, 3, 0]
    starved = Scenario((SimulatedStage(10.0, min_units=10**6),), (quick,), 300.0, 50)
    assert (simulate(starved, 20, np.random.default_rng(2)).last_gate == 1).all()
    harmful = SimulatedGuardrail(0.9, 0.1, Margin(0.4, relative=True), "lower_is_better")
    taken = simulate(Scenario(stages, (harmful,), 300.0, 400), 20, np.random.default_rng(2)).last_gate
    assert (taken == -1).all(), "nobody left a stage"
