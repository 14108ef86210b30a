"""Applying a decision: state in, state and recorded change out. The only place where a State changes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from rollout.domain.plan import PlanBody, is_proven, percentage_of
from rollout.domain.rollout import Approval, Attempt, Breach, State, Status
from rollout_client.evaluation.ruleset import Frozen

Step = Literal[
    "start", "advance", "complete", "pause", "resume", "roll_back", "cancel", "approve", "lapse", "regain", "calibrate"
]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a transition row records beside its number: from where to where, why, by whom."""

    step: Step
    from_status: Status
    to_status: Status
    from_stage: int
    to_stage: int
    from_percentage: float
    to_percentage: float
    reason: str
    actor: str
    at: datetime


def start(plan: PlanBody, state: State, attempt_id: str, now: datetime) -> State:
    """The first stage opens, with the first epoch of evidence."""
    fresh = msgspec.structs.replace(state, epoch=1, started_at=now)
    return _enter(plan, fresh, 0, attempt_id, now)


def advance(plan: PlanBody, state: State, attempt_id: str, now: datetime, *, proven: bool) -> State:
    """One stage further: the next one, the bake, or completion when there is neither."""
    left = plan.stages[state.stage].name
    unproven = state.unproven_stages if proven and is_proven(plan, state.stage) else (*state.unproven_stages, left)
    state = msgspec.structs.replace(state, unproven_stages=unproven, approval=None)
    following = state.stage + 1
    if following < len(plan.stages) or plan.bake is not None:
        return _enter(plan, state, following, attempt_id, now)
    return complete(state, now)


def complete(state: State, now: datetime) -> State:
    """Everyone has the candidate, for good."""
    return _end(state, "completed", now)


def roll_back(state: State, now: datetime, breach: Breach | None = None) -> State:
    """Everyone returns to the recorded baseline; the rollout is over."""
    return _end(msgspec.structs.replace(state, breach=state.breach or breach), "rolled_back", now)


def cancel(state: State, now: datetime) -> State:
    """A rollout that never served anybody is dropped."""
    return _end(state, "cancelled", now)


def pause(state: State, now: datetime, reason: str, breach: Breach | None = None, *, withheld: bool = False) -> State:
    """Exposure and clocks freeze; protection goes on. `withheld` takes the exposure away until a person resumes."""
    return msgspec.structs.replace(
        state,
        status="paused",
        paused_reason=reason,
        breach=state.breach or breach,
        withheld=state.withheld or withheld,
        elapsed=state.stage_age(now).total_seconds(),
        clock_since=None,
    )


def resume(plan: PlanBody, state: State, attempt_id: str, now: datetime, *, alarmed: bool) -> State:
    """A person lets it go on: a new attempt asks for evidence newer than now.

    After a breach, or an alarm of the sample ratio, a new epoch starts: fresh e-processes, alpha spent again.
    """
    epoch = state.epoch + 1 if alarmed or state.breach is not None else state.epoch
    state = msgspec.structs.replace(
        state,
        epoch=epoch,
        breach=None,
        paused_reason=None,
        withheld=False,
        clock_since=now,
        missing_since={},
        approval=None,
    )
    return _open(plan, state, attempt_id, now)


def approve(state: State, approval: Approval) -> State:
    """A person's yes, bound to this attempt and this exact plan."""
    return msgspec.structs.replace(state, approval=approval)


def lapse(state: State, now: datetime) -> State:
    """The engine could not see the guardrails for a whole lease: nobody is exposed, no time counts, until it sees."""
    return msgspec.structs.replace(state, blind=True, elapsed=state.stage_age(now).total_seconds(), clock_since=None)


def regain(plan: PlanBody, state: State, attempt_id: str, now: datetime) -> State:
    """A healthy pass ends a lapse; what was gathered around it does not count for the gate."""
    running = None if state.status == "paused" else now
    return _open(
        plan, msgspec.structs.replace(state, blind=False, clock_since=running, missing_since={}), attempt_id, now
    )


def calibrate(state: State, frozen: Mapping[str, Frozen]) -> State:
    """What was frozen from the baseline is measured with from now on, in every epoch; nothing frozen ever changes."""
    return msgspec.structs.replace(state, frozen={**frozen, **state.frozen})


def _enter(plan: PlanBody, state: State, stage: int, attempt_id: str, now: datetime) -> State:
    status: Status = "running" if stage < len(plan.stages) else "baking"
    state = msgspec.structs.replace(
        state, status=status, stage=stage, elapsed=0.0, clock_since=now, missing_since={}, paused_reason=None
    )
    return _open(plan, state, attempt_id, now)


def _open(plan: PlanBody, state: State, attempt_id: str, now: datetime) -> State:
    status: Status = "running" if state.stage < len(plan.stages) else "baking"
    attempt = Attempt(
        id=attempt_id,
        number=len(state.attempts) + 1,
        stage=state.stage,
        epoch=state.epoch,
        percentage=percentage_of(plan, state.stage),
        opened_at=now,
    )
    status = "paused" if state.status == "paused" and state.paused_reason is not None else status
    return msgspec.structs.replace(state, status=status, attempts=(*state.attempts, attempt))


def _end(state: State, status: Status, now: datetime) -> State:
    return msgspec.structs.replace(
        state,
        status=status,
        ended_at=now,
        elapsed=state.stage_age(now).total_seconds(),
        clock_since=None,
        blind=False,
        withheld=False,
        paused_reason=None,
    )
