"""The fast track: which proof of a candidate puts another rollout of it there."""

from datetime import timedelta
from typing import Any

import pytest

from rollout.domain.plan import RolloutDocument
from rollout.domain.starting import Proof, fast_track
from tests.core.domain.plans import START, rollout

ERRORS: dict[str, Any] = {"metric": "error_rate", "max_regression": {"absolute": 0.02}}
LATENCY: dict[str, Any] = {"metric": "latency_ms", "max_regression": {"relative": 0.1}, "focus": "p95"}


def plan(*guardrails: dict[str, Any], **changes: Any) -> RolloutDocument:
    return rollout(guardrails=list(guardrails), **changes)


def proof(document: RolloutDocument, days_ago: float = 1, name: str = "ro_1") -> Proof:
    ended = START - timedelta(days=days_ago)
    return Proof(rollout=name, candidate=document.candidate, ended_at=ended, plan=document)


def is_fast(proven_by: RolloutDocument, wanted: RolloutDocument) -> bool:
    return fast_track(wanted, [proof(proven_by)], START) is not None


@pytest.mark.parametrize(
    ("proven_by", "fast"),
    [
        (plan(ERRORS), True),
        (plan(LATENCY, ERRORS), True),
        (plan({**ERRORS, "max_regression": {"absolute": 0.01}}), True),
        (plan(ERRORS, analysis={"alpha_advance": 0.01}), True),
        (plan({**ERRORS, "max_regression": {"absolute": 0.03}}), False),
        (plan({**ERRORS, "max_regression": {"relative": 0.01}}), False),
        (plan({**ERRORS, "on_breach": "warn"}), False),
        (plan(LATENCY), False),
        (plan(), False),
        (plan(ERRORS, analysis={"alpha_advance": 0.2}), False),
    ],
)
def test_a_proof_by_looser_gates_puts_nothing_on_the_fast_track(proven_by: RolloutDocument, fast: bool) -> None:
    assert is_fast(proven_by, plan(ERRORS, fast_track="7d")) is fast


@pytest.mark.parametrize(("focus", "fast"), [("p95", True), ("p99", False)])
def test_another_number_of_the_same_metric_is_another_question(focus: str, fast: bool) -> None:
    assert is_fast(plan({**LATENCY, "focus": focus}), plan(LATENCY, fast_track="7d")) is fast


def test_the_newest_fitting_proof_counts_while_it_is_young_enough() -> None:
    wanted, loose = plan(ERRORS, fast_track="7d"), plan()
    proofs = [proof(plan(ERRORS), 8, "old"), proof(plan(ERRORS), 3, "fits"), proof(loose, 1, "loose")]
    found = fast_track(wanted, proofs, START)
    assert found is not None
    assert found.rollout == "fits"
    assert fast_track(wanted, proofs[:1], START) is None
    assert fast_track(plan(ERRORS), proofs, START) is None, "the plan asks for no fast track"
