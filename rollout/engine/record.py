"""Recording a change: state, transition, released variant and ruleset in the caller's transaction, or none of them."""

from datetime import datetime

import msgspec
import structlog

from rollout.db import environments, flag_states, rollouts
from rollout.db.rollouts import Transition
from rollout.db.session import Session
from rollout.db.tables import RolloutRow
from rollout.delivery.publish import publish
from rollout.domain.findings import Finding, Recorded, findings
from rollout.domain.rollout import ENDED, EXPOSED, State, percentage_now
from rollout.domain.transition import Change, Step

_log = structlog.get_logger("rollout.engine")
_UNSEEN: frozenset[Step] = frozenset({"pause", "approve", "schedule", "waive", "revise", "observe"})
"""Steps that serve nobody anything else, unless they open an attempt: they need no ruleset."""


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why a state changes: which step, the reason in words, who did it, and the look that led to it."""

    step: Step
    reason: str
    actor: str
    at: datetime
    tick: int | None = None


async def record(session: Session, row: RolloutRow, state: State, cause: Cause) -> Transition:
    """Write `state` and everything that follows from it. The row must be locked by this transaction.

    Locks are taken in one order everywhere: rollouts, the flag, the environment, what happened to the flag in it.
    """
    before, verdicts = row.state, verdicts_of(row)
    await rollouts.replace_state(session, row, state, cause.at)
    if state.attempts != before.attempts:
        await rollouts.add_attempt(session, row)
    if state.status in ENDED and before.status in EXPOSED:
        await environments.find(session, row.environment, lock=True)
        released = row.document.candidate if state.status == "completed" else row.document.baseline
        await flag_states.release(session, row.flag, row.environment, released)
    seen = cause.step not in _UNSEEN or state.exposed != before.exposed or state.attempts != before.attempts
    seen = seen or (cause.step == "revise" and state.status in EXPOSED)  # with its mode its lease may have changed
    revision = await publish(session, row.environment, cause.at) if seen else None
    transition = Transition(
        seq=await rollouts.next_seq(session, row.id),
        change=_change(row, before, state, cause, verdicts),
        tick=cause.tick,
        ruleset_revision=revision,
    )
    await rollouts.add_transition(session, row.id, transition)
    return transition


def verdicts_of(row: RolloutRow) -> tuple[Finding, ...]:
    """What the newest recorded look said; with the sizes of effects if the row was read with its evidence.

    A kill and a lapse read it without: they are the shortest paths, and no statistic is on them.
    """
    if row.latest is None:
        return ()
    try:
        newest = Recorded(judgement=row.latest.judgement, tick=row.tick, evidence=rollouts.evidence_if_read(row))
        return findings(row.document, row.metrics, newest)
    except Exception:  # a decision that cannot be explained is carried out all the same
        _log.exception("the verdicts behind a transition cannot be said", rollout=row.id)
        return ()


def _change(row: RolloutRow, before: State, after: State, cause: Cause, verdicts: tuple[Finding, ...]) -> Change:
    return Change(
        step=cause.step,
        from_status=before.status,
        to_status=after.status,
        from_stage=before.stage,
        to_stage=after.stage,
        from_percentage=percentage_now(row.document, before),
        to_percentage=percentage_now(row.document, after),
        reason=cause.reason,
        actor=cause.actor,
        at=cause.at,
        verdicts=verdicts,
    )
