"""Until when nothing can turn: each moment at which the clock alone may change what a look finds."""

from datetime import timedelta

import msgspec
import pytest

from rollout.domain.evidence import Evidence, GuardrailEvidence
from rollout.domain.plan import RolloutDocument
from rollout.domain.quiet import HORIZON, quiet_until
from rollout.domain.rollout import Absence, Approval, Attempt, State, Waiver
from rollout.domain.watch import watches
from rollout_client.evaluation.evidence import SlotIncrement
from tests.core.domain.plans import START, World, at, rollout

FIRST = int(START.timestamp()) // 60
SLOW = {"metric": "slow_errors", "max_regression": {"absolute": 0.02}}


def standing(**changes: object) -> State:
    """In the first stage since the start, its outcomes long due."""
    attempt = Attempt(id="at_1", number=1, stage=0, epoch=1, percentage=10, opened_at=at(-7200))
    state = {"status": "running", "stage": 0, "epoch": 1, "attempts": (attempt,), "started_at": at(-7200), **changes}
    return State(**state)  # type: ignore[arg-type]  # fields by name, each of its own type


def quiet(now: float, state: State, plan: RolloutDocument, **seen: object) -> float:
    """Seconds from the start until which it is quiet."""
    watched = watches(plan, World.metrics)
    evidence = Evidence(metrics={watch.metric: GuardrailEvidence() for watch in watched})
    for name, value in seen.items():
        if name in Evidence.__struct_fields__:
            setattr(evidence, name, value)
        else:
            setattr(evidence.metrics[watched[0].metric], name, value)
    return (quiet_until(plan, watched, state, evidence, at(now)) - START).total_seconds()


def test_it_is_looked_at_now_and_then_however_quiet_it_is() -> None:
    assert quiet(0, standing(), rollout()) == HORIZON.total_seconds()


def test_the_end_of_a_stage_ends_the_quiet_and_time_in_pauses_does_not_count() -> None:
    plan = rollout(stages=[{"name": "a", "percentage": 10, "min_duration": "2m", "max_duration": "5m"}])
    running = standing(clock_since=START, elapsed=30.0, fed_at=0.0)
    assert quiet(0, running, plan) == 90
    assert quiet(100, running, plan) == 270
    assert quiet(300, running, plan) == 300 + HORIZON.total_seconds()
    late = msgspec.structs.replace(running, fed_at=100.0)
    assert quiet(100, late, plan) == 370, "max_duration counts from when enough had come"
    assert quiet(0, standing(elapsed=30.0), plan) == HORIZON.total_seconds(), "its clock stands still"


def test_the_end_of_the_bake_ends_the_quiet() -> None:
    plan = rollout(bake={"duration": "4m", "holdback": 5})
    baking = standing(status="baking", stage=len(plan.stages), clock_since=START)
    assert quiet(1, baking, plan) == 240


def test_the_patience_with_missing_evidence_ends_the_quiet() -> None:
    plan = rollout(lease="3m")
    assert quiet(0, standing(missing={"error_rate": Absence(sort="unseen", since=at(-60))}), plan) == 120


def test_each_patience_of_a_policy_ends_the_quiet() -> None:
    policies = {"no_data": {"then": "pause", "after": "90s"}}
    guardrail = {"metric": "error_rate", "max_regression": {"absolute": 0.02}, "on_missing": policies}
    plan = rollout(lease="3m", guardrails=[guardrail])
    assert quiet(0, standing(missing={"error_rate": Absence(sort="unseen", since=START)}), plan) == 90


def test_the_end_of_what_people_said_and_the_next_step_back_end_the_quiet() -> None:
    waiver = Waiver(metric="error_rate", stage=0, by="ann", at=START, reason="known", expires_at=at(50))
    approval = Approval(by="eve", at=START, attempt="at_1", content_hash="x", expires_at=at(40))
    assert quiet(0, standing(waivers=(waiver,)), rollout()) == 50
    assert quiet(0, standing(approval=approval), rollout()) == 40
    assert quiet(0, standing(retreat_at=at(30)), rollout()) == 30


def test_evidence_that_goes_stale_ends_the_quiet() -> None:
    plan = rollout(lease="3m")
    assert quiet(0, standing(), plan, seen_at=START.timestamp() - 10) == 170
    assert quiet(0, standing(), plan, exposed_at=START.timestamp() - 30) == 150


def test_outcomes_of_a_new_attempt_are_due_a_minute_after_their_maturity() -> None:
    [opened] = standing().attempts
    new = standing(attempts=(msgspec.structs.replace(opened, opened_at=START),))
    assert quiet(0, new, rollout()) == 60
    assert quiet(0, new, rollout(guardrails=[SLOW])) == 240


def test_the_oldest_open_minute_of_a_slow_metric_ends_the_quiet_when_it_is_due() -> None:
    minutes = {"at_1": {FIRST: {"candidate": SlotIncrement()}, FIRST - 1: {"baseline": SlotIncrement()}}}
    plan = rollout(guardrails=[SLOW])
    assert quiet(0, standing(), plan, open_slots=minutes) == 120
    assert quiet(0, standing(), plan, open_slots=minutes, watermark=FIRST - 1) == 180


@pytest.mark.parametrize("near", [-0.0005, 0.0, 0.0005])
def test_what_may_or_may_not_have_come_is_looked_at_again_at_once(near: float) -> None:
    plan = rollout(lease="3m")
    state = standing(missing={"error_rate": Absence(sort="unseen", since=START - timedelta(minutes=3))})
    assert quiet(near, state, plan) == near
