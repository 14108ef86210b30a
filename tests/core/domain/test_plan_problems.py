"""Impossible plans are refused on save, with the path and what to do."""

from typing import Any

import msgspec
import pytest

from rollout.domain.document import problem_of
from rollout.domain.plan import RolloutDocument
from rollout.domain.plan_problems import rollout_problems
from tests.core.domain.plans import World, raw, rollout

CANARY = {"name": "canary", "percentage": 10}
PILOT = {"name": "pilot", "cohort": "staff", "percentage": 100}


def paths(**changes: Any) -> list[str]:
    return [problem.path for problem in rollout_problems(rollout(**changes), World())]


def test_a_sound_rollout_has_no_problem() -> None:
    assert paths() == []
    assert paths(bake={"duration": "72h", "holdback": 2}, signals=[], lease="none") == []
    assert paths(stages=[{"name": "pilot", "cohort": "staff", "percentage": 100}, CANARY]) == []
    assert paths(guardrails=[], stages=[CANARY, {"name": "all", "percentage": 100}]) == []


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"flag": "nope"}, "flag"),
        ({"stages": [{"name": f"s{i}", "percentage": i + 1} for i in range(51)]}, "stages"),
        ({"environment": "nope"}, "environment"),
        ({"candidate": "v9"}, "candidate"),
        ({"baseline": "v9"}, "baseline"),
        ({"candidate": "v7"}, "candidate"),
        ({"stages": []}, "stages"),
        ({"stages": [CANARY, {"name": "less", "percentage": 10}]}, "stages[1].percentage"),
        ({"stages": [CANARY, {"name": "less", "percentage": 5}]}, "stages[1].percentage"),
        ({"stages": [CANARY, {"name": "canary", "percentage": 20}]}, "stages[1].name"),
        ({"stages": [{"name": "a", "percentage": 0}]}, "stages[0].percentage"),
        ({"stages": [{"name": "a", "percentage": 101}]}, "stages[0].percentage"),
        ({"stages": [{"name": "a", "percentage": 0.00015}]}, "stages[0].percentage"),
        ({"stages": [{"name": "a", "percentage": 100}]}, "stages[0].percentage"),
        ({"stages": [{"name": "a", "percentage": 5, "cohort": "nobody"}]}, "stages[0].cohort"),
        ({"stages": [{"name": "a", "percentage": 5, "min_duration": "soon"}]}, "stages[0].min_duration"),
        ({"stages": [{"name": "a", "percentage": 5, "max_duration": "1m"}]}, "stages[0].max_duration"),
        ({"stages": [{"name": "a", "percentage": 5, "min_units": -1}]}, "stages[0].min_units"),
        ({"guardrails": [{"metric": "nope", "max_regression": {"absolute": 0.1}}]}, "guardrails[0].metric"),
        ({"guardrails": [{"metric": "latency_ms", "max_regression": {"absolute": 1}}]}, "guardrails[0].focus"),
        ({"guardrails": [{"metric": "error_rate", "max_regression": {}}]}, "guardrails[0].max_regression"),
        (
            {"guardrails": [{"metric": "error_rate", "max_regression": {"absolute": 0}}]},
            "guardrails[0].max_regression.absolute",
        ),
        (
            {"guardrails": [{"metric": "quality", "max_regression": {"relative": 1.5}}]},
            "guardrails[0].max_regression.relative",
        ),
        (
            {"guardrails": [{"metric": "quality", "direction": "lower_is_better", "max_regression": {"relative": 1}}]},
            "guardrails[0].direction",
        ),
        (
            {"guardrails": [{"metric": "error_rate", "focus": "p95", "max_regression": {"relative": 0.5}}]},
            "guardrails[0].focus",
        ),
        ({"guardrails": [{"metric": "error_rate", "max_regression": {"relative": 1}}] * 2}, "guardrails[1].metric"),
        ({"bake": {"duration": "0s", "holdback": 2}}, "bake.duration"),
        ({"bake": {"duration": "1h", "holdback": 2}, "stages": [PILOT]}, "bake"),
        ({"stages": [CANARY, PILOT]}, "stages[1].cohort"),
        ({"stages": [PILOT, {**PILOT, "name": "again"}, CANARY]}, "stages[1].percentage"),
        (
            {"guardrails": [{"metric": "slow_errors", "max_regression": {"absolute": 0.1}, "maturity": "30s"}]},
            "guardrails[0].maturity",
        ),
        (
            {"guardrails": [{"metric": "error_rate", "max_regression": {"absolute": 0.1}, "maturity": "7h"}]},
            "guardrails[0].maturity",
        ),
        ({"bake": {"duration": "1h", "holdback": 60}}, "bake.holdback"),
        ({"lease": "9s"}, "lease"),
        ({"lease": "soon"}, "lease"),
        ({"analysis": {"alpha_rollback": 0}}, "analysis.alpha_rollback"),
    ],
)  # fmt: skip
def test_an_impossible_plan_is_refused_with_the_path(changes: dict[str, Any], path: str) -> None:
    assert path in paths(**changes)


def test_every_problem_says_what_to_do() -> None:
    for problem in rollout_problems(rollout(flag="nope", stages=[], candidate="v7"), World()):
        assert len(problem.message) > 20


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (raw(colour="red"), "colour"),
        (raw(stages=[{**CANARY, "precentage": 3}]), "stages[0].precentage"),
        (raw(stages=[{"name": "a"}]), "stages[0].percentage"),
        (raw(stages=[{**CANARY, "percentage": "ten"}]), "stages[0].percentage"),
        (raw(guardrails=[{"metric": "error_rate", "max_regression": {"absolute": 0.1}, "on_breach": "panic"}]),
         "guardrails[0].on_breach"),
        (raw(mode="watch"), "mode"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_read_is_named_by_its_path(document: dict[str, Any], path: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert(document, RolloutDocument)
    problem = problem_of(refused.value)
    assert problem.path == path
    assert problem.message
