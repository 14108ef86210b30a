"""Applying a decision: state in, state and recorded change out. The only place where a State changes."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Literal

import msgspec

from rollout.domain.document import same
from rollout.domain.findings import Finding
from rollout.domain.plan import PlanBody, RolloutDocument, is_proven, percentage_of, steps_of
from rollout.domain.rollout import Approval, Attempt, Breach, State, Status, Waiver, Would
from rollout.domain.starting import not_before
from rollout_client.evaluation.ruleset import Frozen

Step = Literal[
    "schedule", "start", "advance", "complete", "pause", "resume", "step_back", "roll_back", "cancel",
    "approve", "waive", "revise", "lapse", "regain", "calibrate", "observe",
]  # fmt: skip


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
    verdicts: tuple[Finding, ...] = ()


def schedule(state: State, start_at: datetime) -> State:
    """It starts by itself at that moment, once whoever must approves."""
    return msgspec.structs.replace(state, status="scheduled", start_at=start_at)


def start(plan: PlanBody, state: State, attempt_id: str, now: datetime, *, stage: int = 0) -> State:
    """The first stage opens, or on a fast track the last, with the first epoch of evidence."""
    fresh = msgspec.structs.replace(
        state, epoch=1, started_at=now, steps=steps_of(plan), approval=None, start_at=None, obstacle=None
    )
    return _enter(plan, fresh, stage, attempt_id, now)


def advance(plan: PlanBody, state: State, attempt_id: str, now: datetime, *, proven: bool) -> State:
    """One stage further: the next one, the bake, or completion when there is neither."""
    state = msgspec.structs.replace(_left(plan, state, proven=proven), approval=None)
    following = state.stage + 1
    if following < steps_of(plan):
        return _enter(plan, state, following, attempt_id, now)
    return _end(state, "completed", now)


def complete(plan: PlanBody, state: State, now: datetime, *, proven: bool) -> State:
    """Everyone has the candidate, for good; the stage that was left without proof is remembered."""
    return _end(_left(plan, state, proven=proven), "completed", now)


def roll_back(state: State, now: datetime, breach: Breach | None = None) -> State:
    """Everyone returns to the recorded baseline; the rollout is over."""
    return _end(msgspec.structs.replace(state, breach=state.breach or breach), "rolled_back", now)


def goes_in_steps(plan: PlanBody, state: State) -> bool:
    """Whether an automatic rollback has a stage to step down to, and somebody who is exposed."""
    return plan.rollback.strategy == "stepped" and state.exposed and state.stage > 0


def step_back(
    plan: PlanBody, state: State, attempt_id: str, now: datetime, cause: tuple[str, Breach | None, timedelta]
) -> State:
    """One stage down on the way to a rollback; `cause` is the reason, the breach, and how long until the next step."""
    reason, breach, every = cause
    state = msgspec.structs.replace(
        state,
        status="paused",
        paused_reason=reason,
        breach=state.breach or breach,
        stage=state.stage - 1,
        elapsed=0.0,
        clock_since=None,
        retreat_at=now + every,
        missing={},
        fed_at=None,
        approval=None,
    )
    return _open(plan, state, attempt_id, now)


def cancel(state: State, now: datetime) -> State:
    """A rollout that never served anybody is dropped."""
    return _end(state, "cancelled", now)


def pause(state: State, now: datetime, reason: str, breach: Breach | None = None, *, withheld: bool = False) -> State:
    """Exposure and clocks freeze; protection goes on. `withheld` takes the exposure away until a person resumes.

    Whatever is paused already keeps the reason it was paused for, unless more is taken away now.
    """
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
        retreat_at=None,
        clock_since=None if state.blind else now,
        missing={},
        approval=None,
    )
    return _open(plan, state, attempt_id, now)


def approve(state: State, approval: Approval) -> State:
    """A person's yes, bound to this attempt and this exact plan."""
    return msgspec.structs.replace(state, approval=approval)


def waive(state: State, waiver: Waiver) -> State:
    """A person's waiver; a later one for the same metric and stage takes the place of the former."""
    others = tuple(each for each in state.waivers if (each.metric, each.stage) != (waiver.metric, waiver.stage))
    return msgspec.structs.replace(state, waivers=(*others, waiver))


def revise(plans: tuple[RolloutDocument, RolloutDocument], state: State, revised: tuple[str, datetime]) -> State:
    """The plan was replaced by its next version; `plans` are (before, after), `revised` is (by whom, when).

    A waiver was for a stage as it was: one for a stage that is another now has nothing left to stand for.
    """
    (before, after), (by, now) = plans, revised
    start_at = state.start_at
    if state.status == "scheduled" and before.start_at != after.start_at:
        start_at = not_before(after, now) or now
    return msgspec.structs.replace(
        state,
        document=state.document + 1,
        revised_by=state.revised_by if by in state.revised_by else (*state.revised_by, by),
        waivers=tuple(each for each in state.waivers if _is_same_place(before, after, each.stage)),
        start_at=start_at,
    )


def reopen(plan: PlanBody, state: State, attempt_id: str, now: datetime) -> State:
    """The present gate is another one now, and asks for fresh evidence."""
    return _open(plan, state, attempt_id, now)


def observe(state: State, would: Would) -> State:
    """What would have been done is recorded; nothing moves."""
    return msgspec.structs.replace(state, would=would)


def lapse(state: State, now: datetime) -> State:
    """The engine could not see the guardrails for a whole lease: nobody is exposed, no time counts, until it sees."""
    return msgspec.structs.replace(state, blind=True, elapsed=state.stage_age(now).total_seconds(), clock_since=None)


def regain(plan: PlanBody, state: State, attempt_id: str, now: datetime) -> State:
    """A healthy pass ends a lapse; what was gathered around it does not count for the gate."""
    running = None if state.status == "paused" else now
    return _open(plan, msgspec.structs.replace(state, blind=False, clock_since=running, missing={}), attempt_id, now)


def calibrate(state: State, frozen: Mapping[str, Frozen]) -> State:
    """What was frozen from the baseline is measured with from now on, in every epoch; nothing frozen ever changes."""
    return msgspec.structs.replace(state, frozen={**frozen, **state.frozen})


def _enter(plan: PlanBody, state: State, stage: int, attempt_id: str, now: datetime) -> State:
    status: Status = "running" if stage < len(plan.stages) else "baking"
    state = msgspec.structs.replace(
        state,
        status=status,
        stage=stage,
        elapsed=0.0,
        clock_since=None if state.blind else now,
        missing={},
        fed_at=None,
        paused_reason=None,
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
    return msgspec.structs.replace(state, status=status, attempts=(*state.attempts, attempt), would=None)


def _is_same_place(before: PlanBody, after: PlanBody, stage: int) -> bool:
    """Whether a stage, or the bake, exposes the same people in both plans under the same name."""

    def exposes(plan: PlanBody) -> tuple[object, ...] | None:
        if stage < len(plan.stages):
            each = plan.stages[stage]
            return (each.name, each.percentage, each.cohort)
        return ("bake", plan.bake.holdback) if plan.bake is not None and stage == len(plan.stages) else None

    return same(exposes(before), exposes(after))


def _left(plan: PlanBody, state: State, *, proven: bool) -> State:
    """The present stage is left: its name stays with the rollout when nothing proves it, and the bake's as well."""
    baking = state.stage >= len(plan.stages)
    if proven and (baking or is_proven(plan, state.stage)):
        return state
    name = "bake" if baking else plan.stages[state.stage].name
    return msgspec.structs.replace(state, unproven_stages=(*state.unproven_stages, name))


def _end(state: State, status: Status, now: datetime) -> State:
    return msgspec.structs.replace(
        state,
        status=status,
        ended_at=now,
        elapsed=state.stage_age(now).total_seconds(),
        clock_since=None,
        blind=False,
        withheld=False,
        retreat_at=None,
        paused_reason=None,
        start_at=None,
        obstacle=None,
    )
