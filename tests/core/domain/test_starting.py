"""The fast track: which proof of a candidate puts another rollout of it there."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from rollout.domain.plan import RolloutDocument
from rollout.domain.proof import Proof
from rollout.domain.starting import fast_track
from tests.core.domain.plans import START, World, rollout

ERRORS: dict[str, Any] = {"metric": "error_rate", "max_regression": {"absolute": 0.02}}
LATENCY: dict[str, Any] = {"metric": "latency_ms", "max_regression": {"relative": 0.1}, "focus": "p95"}
QUALITY: dict[str, Any] = {"metric": "quality", "max_regression": {"relative": 0.1}}


def plan(*guardrails: dict[str, Any], **changes: Any) -> RolloutDocument:
    return rollout(guardrails=list(guardrails), **changes)


def stages(percentage: float, lasting: str = "1d", units: int = 500) -> list[dict[str, Any]]:
    last = {"name": "wide", "percentage": percentage, "min_duration": lasting, "min_units": units}
    return [{"name": "canary", "percentage": 0.5, "min_duration": "1m", "min_units": 0}, last]


def proof(document: RolloutDocument, days_ago: float = 1, name: str = "ro_1") -> Proof:
    return Proof(rollout=name, ended_at=START - timedelta(days=days_ago), document=document, metrics=World.metrics)


def is_fast(proven_by: RolloutDocument, wanted: RolloutDocument) -> bool:
    return fast_track(wanted, World.metrics, [proof(proven_by)], START) is not None


@pytest.mark.parametrize(
    ("proven_by", "fast"),
    [
        (plan(ERRORS), True),
        (plan(LATENCY, ERRORS), True),
        (plan({**ERRORS, "max_regression": {"absolute": 0.01}}), True),
        (plan({**ERRORS, "rollback_on": "any_regression", "ceiling": 0.2}), True),
        (plan(ERRORS, analysis={"alpha_advance": 0.01}), True),
        (plan({**ERRORS, "max_regression": {"absolute": 0.03}}), False),
        (plan({**ERRORS, "max_regression": {"relative": 0.01}}), False),
        (plan({**ERRORS, "on_breach": "warn"}), False),
        (plan({**ERRORS, "maturity": "1m"}), False),
        (plan(LATENCY), False),
        (plan(), False),
        (plan(ERRORS, analysis={"alpha_advance": 0.2}), False),
        (plan(ERRORS, analysis={"alpha_rollback": 0.000001}), False),
        (plan(ERRORS, analysis={"alpha_srm": 0.000001}), False),
        (plan(ERRORS, baseline="v9"), False),
        (plan(ERRORS, candidate="v9"), False),
        (plan(ERRORS, unit="tenant"), False),
    ],
)
def test_a_proof_of_less_puts_nothing_on_the_fast_track(proven_by: RolloutDocument, fast: bool) -> None:
    assert is_fast(proven_by, plan(ERRORS, fast_track="7d")) is fast


@pytest.mark.parametrize(
    ("wanted", "enough"),
    [
        ({"ceiling": 0.05}, {"ceiling": 0.04}),
        ({"budget": {"per_stage": 40.0}}, {"budget": {"per_stage": 30.0, "per_day": 900.0}}),
        ({"rollback_on": "any_regression"}, {"rollback_on": "any_regression"}),
    ],
)
def test_whatever_can_close_a_gate_was_there_before(wanted: dict[str, Any], enough: dict[str, Any]) -> None:
    asks = plan({**ERRORS, **wanted}, fast_track="7d")
    assert is_fast(plan({**ERRORS, **enough}), asks)
    assert not is_fast(plan(ERRORS), asks)


def test_a_signal_is_covered_by_a_signal_or_a_guardrail() -> None:
    asks = plan(ERRORS, signals=[QUALITY], fast_track="7d")
    assert is_fast(plan(ERRORS, signals=[QUALITY]), asks)
    assert is_fast(plan(ERRORS, QUALITY), asks)
    assert not is_fast(plan(ERRORS), asks)
    assert not is_fast(plan(ERRORS, signals=[QUALITY]), plan(ERRORS, QUALITY, fast_track="7d"))


@pytest.mark.parametrize(
    ("had", "fast"), [(stages(50), True), (stages(50, lasting="1h"), False), (stages(50, units=400), False)]
)
def test_stages_lasted_as_long_and_saw_as_many(had: list[dict[str, Any]], fast: bool) -> None:
    assert is_fast(plan(ERRORS, stages=had), plan(ERRORS, stages=stages(50), fast_track="7d")) is fast


@pytest.mark.parametrize(("focus", "fast"), [("p95", True), ("p99", False)])
def test_another_number_of_the_same_metric_is_another_question(focus: str, fast: bool) -> None:
    assert is_fast(plan({**LATENCY, "focus": focus}), plan(LATENCY, fast_track="7d")) is fast


def test_a_metric_that_was_defined_otherwise_proves_nothing() -> None:
    wanted = plan(ERRORS, fast_track="7d")
    turned = msgspec.structs.replace(World.metrics["error_rate"], direction="higher_is_better")
    now = {**World.metrics, "error_rate": turned}
    assert fast_track(wanted, now, [proof(plan(ERRORS))], START) is None


def test_the_newest_fitting_proof_counts_while_it_is_young_enough() -> None:
    wanted, loose = plan(ERRORS, fast_track="7d"), plan()
    proofs = [proof(plan(ERRORS), 8, "old"), proof(plan(ERRORS), 3, "fits"), proof(loose, 1, "loose")]
    found = fast_track(wanted, World.metrics, proofs, START)
    assert found is not None
    assert found.rollout == "fits"
    assert fast_track(wanted, World.metrics, proofs[:1], START) is None
    assert fast_track(plan(ERRORS), World.metrics, proofs, START) is None, "the plan asks for no fast track"
