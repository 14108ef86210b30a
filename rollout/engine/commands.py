"""People's acts on rollouts. Each is one short transaction; those that reduce exposure need nothing but a key.

None of them waits for the scheduler, a source or a statistic.
"""

from datetime import datetime, timedelta

import structlog

from rollout.db import audit, flag_states, increments, rollouts
from rollout.db.audit import Entry
from rollout.db.rollouts import Transition
from rollout.db.session import Session
from rollout.db.tables import RolloutRow
from rollout.domain import transition
from rollout.domain.approval import attempt_now, gate_now
from rollout.domain.budgets import spent_budget
from rollout.domain.document import content_hash, duration, duration_problems
from rollout.domain.rollout import Approval, State, Waiver, refusal
from rollout.domain.starting import not_before
from rollout.domain.transition import Step
from rollout.domain.watch import watches
from rollout.engine.control import Control, tell
from rollout.engine.opening import obstacle, opened
from rollout.engine.record import Cause, record
from rollout.engine.rights import Act, Actor, allow, may_pass_gate
from rollout.errors import Conflict, Invalid, NotFound

_log = structlog.get_logger("rollout.engine")
LONGEST_WAIVER = timedelta(days=90)


async def act(control: Control, identifier: str, wanted: Act, actor: Actor) -> Transition:
    """Carry out one act; the recorded transition.

    Raises:
        NotFound: no such rollout.
        Conflict: the status forbids it, another rollout is exposed on the flag, its group has no room, or the revision
            is not the one seen.
        Forbidden: it raises exposure or approves, and the actor may not.
        Invalid: an act that raises exposure against evidence needs a reason; a waiver its metric and its end.
    """
    now = control.now()
    async with control.database.write() as session:
        row = await locked(session, identifier, wanted.revision)
        refused = refusal(wanted.action, row.status)  # type: ignore[arg-type]  # a column is plain text
        if refused is not None:
            raise Conflict(refused)
        allow(row, wanted, actor, now)
        await _refuse_exposing(session, row, wanted, now)
        state, step, said = await _next_state(session, control, row, (wanted, actor, now))
        reason = (wanted.reason or f"{wanted.action} by hand") + said
        done = await record(session, row, state, Cause(step=step, reason=reason, actor=actor.name, at=now))
        await audit.record(session, entry(row, actor.name, wanted.action, now, {"reason": wanted.reason}))
    _log.info("acted", rollout=row.id, flag=row.flag, environment=row.environment, step=step, actor=actor.name)
    await tell(control)
    return done


async def locked(session: Session, identifier: str, revision: int | None) -> RolloutRow:
    """The rollout, held by this transaction.

    Raises:
        NotFound: no such rollout.
        Conflict: it has moved since the revision that was seen.
    """
    row = await rollouts.find(session, identifier, lock=True, evidence=True)
    if row is None:
        raise NotFound(f"there is no rollout {identifier!r}")
    if revision is not None and revision != row.revision:
        raise Conflict(f"the rollout is at revision {row.revision}, not {revision}; read it again")
    return row


async def units_exposed(session: Session, row: RolloutRow) -> int:
    """About how many different units have been served the candidate so far."""
    return await increments.units(session, [attempt.id for attempt in row.state.attempts], "candidate")


def entry(row: RolloutRow, actor: str, action: str, now: datetime, detail: dict[str, str]) -> Entry:
    """A row of the audit trail about one rollout."""
    return Entry(
        at=now, actor=actor, action=f"rollout.{action}", target=f"rollout:{row.id}",
        environment=row.environment, detail=detail,
    )  # fmt: skip


async def _next_state(
    session: Session, control: Control, row: RolloutRow, asked: tuple[Act, Actor, datetime]
) -> tuple[State, Step, str]:
    """The state after the act, the step that it is recorded as, and what is to be added to the reason."""
    (wanted, actor, now), plan, state = asked, row.document, row.state
    match wanted.action:
        case "start":
            return await _start(session, control, row, (actor, now))
        case "pause":
            return transition.pause(state, now, wanted.reason or "paused by hand"), "pause", ""
        case "resume":
            alarmed = row.latest is not None and row.latest.judgement.srm_alarm
            return transition.resume(plan, state, control.new_id("at"), now, alarmed=alarmed), "resume", ""
        case "advance":
            return transition.advance(plan, state, control.new_id("at"), now, proven=False), "advance", ""
        case "approve":
            return transition.approve(state, _approval(row, actor, now)), "approve", ""
        case "waive":
            waiver = _waiver(row, wanted, actor, now)
            return (
                transition.waive(state, waiver),
                "waive",
                f"; {waiver.metric}, until {waiver.expires_at:%Y-%m-%d %H:%M} UTC",
            )
        case "roll_back":
            return transition.roll_back(state, now), "roll_back", ""
        case "complete":
            return transition.complete(plan, state, now, proven=False), "complete", ""
        case "cancel":
            return transition.cancel(state, now), "cancel", ""


async def _start(
    session: Session, control: Control, row: RolloutRow, asked: tuple[Actor, datetime]
) -> tuple[State, Step, str]:
    """At once, or at the time of its plan, or once it is approved: then it is scheduled."""
    actor, now = asked
    later = not_before(row.document, now) if row.status == "draft" else None
    if later is None and may_pass_gate(row, actor, now):
        blocked = await obstacle(session, row, wait=True)
        if blocked is not None:
            raise Conflict(blocked)
        state, said = await opened(session, control, row, now)
        return state, "start", said
    waits = "" if later is None else f"; it starts at {later:%Y-%m-%d %H:%M:%S} UTC"
    if row.document.start_approval is not None:
        waits += "; it waits for an approval"
    return transition.schedule(row.state, later or now), "schedule", waits


def _approval(row: RolloutRow, actor: Actor, now: datetime) -> Approval:
    gate = gate_now(row.document, row.state)
    expires = duration(gate.expires) if gate is not None and gate.expires is not None else None
    return Approval(
        by=actor.name,
        at=now,
        attempt=attempt_now(row.state),
        content_hash=content_hash(row.document),
        expires_at=now + expires if expires is not None else None,
    )


def _waiver(row: RolloutRow, wanted: Act, actor: Actor, now: datetime) -> Waiver:
    plan = row.document
    watched = [each.metric for each in plan.guardrails] + [each.metric for each in plan.signals]
    if wanted.metric is None or wanted.metric not in watched:
        known = ", ".join(watched) or "none: there is nothing to waive"
        raise Invalid([("metric", f"name the guardrail or signal to waive (this rollout watches {known})")])
    names = [stage.name for stage in plan.stages] + (["bake"] if plan.bake else [])
    if wanted.stage is not None and wanted.stage not in names:
        raise Invalid([("stage", f"there is no stage {wanted.stage!r}; there are {', '.join(names)}")])
    if wanted.expires is None:
        raise Invalid([("expires", "a waiver ends: say after how long, such as '24h'")])
    problems = duration_problems(wanted.expires, "expires")
    if not problems and not timedelta(0) < duration(wanted.expires) <= LONGEST_WAIVER:
        raise Invalid([("expires", f"must be above 0 and at most {LONGEST_WAIVER.days} days")])
    if problems:
        raise Invalid([(problem.path, problem.message) for problem in problems])
    return Waiver(
        metric=wanted.metric,
        stage=row.state.stage if wanted.stage is None else names.index(wanted.stage),
        by=actor.name,
        at=now,
        reason=wanted.reason,
        expires_at=now + duration(wanted.expires),
    )


async def _refuse_exposing(session: Session, row: RolloutRow, wanted: Act, now: datetime) -> None:
    """A killed flag exposes nobody; what stands in the way of a start is looked at when it starts.

    Nor is a rollout resumed that the next look would pause again for what it has spent.
    """
    if wanted.action not in ("resume", "advance", "complete"):
        return
    if (await flag_states.find(session, row.flag, row.environment)).killed:
        raise Conflict(f"the flag {row.flag!r} is killed in {row.environment}; restore it first")
    if wanted.action == "resume" and row.document.mode == "enforce":
        spent = spent_budget(row.evidence, watches(row.document, row.metrics), row.state, now)
        if spent is not None:
            raise Conflict(
                f"{spent}, and the next look would take the exposure away again: waive the metric, raise its budget, "
                "or wait (a day ends at midnight UTC)"
            )
