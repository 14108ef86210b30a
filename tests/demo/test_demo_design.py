"""The demonstration ends as it must with probability >= 99.9 %, recomputed from the plans that are posted."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from rollout.demo import design
from rollout.demo.design import Figure, figure, scenario, sentence
from rollout.demo.documents import EXPECTED, ramps, shared
from rollout.demo.traffic import USERS, quietest_rate
from rollout.domain.document import duration
from rollout.domain.environment import Environment, environment_problems
from rollout.domain.flag import flag_problems
from rollout.domain.metric import Metric, metric_problems
from rollout.domain.plan_problems import rollout_problems
from rollout.domain.watch import margin
from rollout.stats.margin import risk_scaled
from rollout.stats.simulate import Scenario, SimulatedGuardrail, SimulatedStage, simulate


class World:
    """What the documents of the demonstration refer to."""

    flags = {ramp.flag.key: ramp.flag for ramp in ramps()}
    cohorts: dict[str, Any] = {}
    metrics = {document["key"]: msgspec.convert(document, Metric) for document in shared()[1:]}
    environments = frozenset({shared()[0]["key"]})


def test_the_documents_are_valid_and_say_what_they_must() -> None:
    assert environment_problems(msgspec.convert(shared()[0], Environment)) == []
    assert all(metric_problems(metric) == [] for metric in World.metrics.values())
    for ramp in ramps():
        assert flag_problems(ramp.flag) == []
        assert rollout_problems(ramp.rollout, World()) == []
        assert ramp.rollout.flag == ramp.flag.key
        assert duration(ramp.rollout.lease).total_seconds() == 15
    sides = {ramp.name: (ramp.rollout.baseline, ramp.rollout.candidate) for ramp in ramps()}
    assert {ramp.name: tuple(map(ramp.model_of, sides[ramp.name])) for ramp in ramps()} == {
        "better": ("175b_finetuning", "175b_verification"),
        "worse": ("175b_finetuning", "6b_finetuning"),
        "same": ("175b_finetuning", "175b_finetuning"),
    }
    assert EXPECTED == {"better": "completed", "worse": "rolled_back", "same": "completed"}


def test_the_demonstration_shows_a_probability_of_at_least_99_9_percent() -> None:
    found = figure()
    assert found.replications == design.REPLICATIONS
    assert found.bound >= 0.999
    assert f">= {100 * found.bound:.2f} %" in sentence(found)


@pytest.mark.slow
def test_more_replications_with_another_seed_confirm_it() -> None:
    found = figure(12_000, seed=2)
    assert found.bound >= 0.999, found


def test_a_candidate_that_harms_less_than_the_margin_would_not_do_for_the_demonstration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The figure is no constant: with a worse model that is nearly as good, it says so."""
    real = design.correct_rate
    monkeypatch.setattr(design, "correct_rate", lambda model: 0.30 if model == "6b_finetuning" else real(model))
    found = figure(200)
    assert found.wrong > 100
    assert 0.0 <= found.bound < 0.5


def test_the_bound_is_the_clopper_pearson_bound_less_the_level_of_the_alarms() -> None:
    found = figure(300)
    alarms = sum(ramp.rollout.analysis.alpha_srm for ramp in ramps())
    assert found == Figure(0, 300, 1.0, pytest.approx(math.exp(math.log(0.05) / 300) - alarms))


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_noisy_design_effect_covers_the_requests_per_unit_that_divide_a_gate_without_events(stage: int) -> None:
    """Nothing fails, so the gate of the error rate is divided by at least these; and it opens in time."""
    plan = ramps()[0].rollout
    guardrail = next(each for each in plan.guardrails if each.metric == "error_rate")
    percentages = [each.percentage for each in plan.stages]
    gate = risk_scaled(
        margin(guardrail.max_regression), "lower_is_better", [*percentages, percentages[-1]][stage + 1], percentages[-1]
    )
    alone = Scenario(
        stages=(SimulatedStage(percentages[stage]),),
        guardrails=(SimulatedGuardrail(0.0, 0.0, gate, "lower_is_better"),),
        requests_per_tick=quietest_rate() * design.SECONDS_PER_TICK,
        horizon=30,
        alpha_advance=plan.analysis.alpha_advance**design.NOISY_DESIGN_EFFECT,
        risk_scaled=False,
    )
    [requests] = simulate(alone, 1, np.random.default_rng(1)).candidate_requests  # no chance in it: nothing fails
    users = USERS * percentages[stage] / 100
    assert simulate(alone, 1, np.random.default_rng(1)).completed.all()
    assert 1.0 < requests / (users * (1.0 - (1.0 - 1.0 / users) ** requests)) < 1.3 < design.NOISY_DESIGN_EFFECT


def test_a_noisy_design_effect_delays_and_changes_no_outcome() -> None:
    worse = next(ramp for ramp in ramps() if ramp.name == "worse")
    ticks = [
        simulate(scenario(worse, effect), 500, np.random.default_rng(5)).ticks.mean()
        for effect in (1.0, design.NOISY_DESIGN_EFFECT)
    ]
    assert ticks[0] < ticks[1] < design.LONGEST_RUN / 2
