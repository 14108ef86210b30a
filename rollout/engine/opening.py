"""Opening a rollout: what stands in the way of its start, the fast track, and how a scheduled one starts by itself."""

from datetime import datetime, timedelta

import msgspec

from rollout.db import documents, environments, flag_states, rollouts
from rollout.db.session import Session
from rollout.db.tables import RolloutRow
from rollout.domain import transition
from rollout.domain.decision import Decision, hold
from rollout.domain.flag import Flag
from rollout.domain.rollout import State
from rollout.domain.starting import fast_stage, fast_track, start_reasons
from rollout.engine.control import Control
from rollout.engine.neighbours import beside, no_room
from rollout.engine.record import Cause, record

ACTOR = "engine"
_CHECK = timedelta(seconds=5)


async def obstacle(session: Session, row: RolloutRow, *, wait: bool) -> str | None:
    """Why it cannot start: a killed flag, another rollout on it, a baseline that is not today's, a full group.

    What the flag's other rollout leaves behind is read after that has ended. `wait` for whoever may be ending it just
    now: a look must not, since it may hold other rollouts that somebody who holds this one waits for.
    """
    if wait:
        await rollouts.exposed_on(session, row.flag, row.environment, lock=True)
    found = await documents.find(session, Flag, row.flag, lock=True)  # so that its default stays what is read here
    await environments.find(session, row.environment, lock=True)  # of two that start at once the second sees the first
    other = await rollouts.exposed_on(session, row.flag, row.environment)
    state = await flag_states.find(session, row.flag, row.environment)
    if state.killed:
        return f"the flag {row.flag!r} is killed in {row.environment}; restore it first"
    if other is not None:
        return f"rollout {other.id} is {other.status} on this flag in {row.environment}; end it first"
    today = state.released or (found[0].default_variant if found else row.document.baseline)
    if today != row.document.baseline:
        return (
            f"everyone in {row.environment} gets {today!r} today, and starting would move them to the baseline "
            f"{row.document.baseline!r}; make {today!r} the baseline of a new rollout"
        )
    return await no_room(session, row)


async def opened(session: Session, control: Control, row: RolloutRow, now: datetime) -> tuple[State, str]:
    """The started state, and what is to be said of it: which proof put it on the fast track, if one did."""
    proofs = await rollouts.proofs(session, row.flag, row.environment) if row.document.fast_track else []
    proof = fast_track(row.document, row.metrics, proofs, now)
    stage = 0 if proof is None else fast_stage(row.document)
    state, said = await beside(
        session, row, transition.start(row.document, row.state, control.new_id("at"), now, stage=stage)
    )
    if proof is None:
        return state, said
    when = f"{proof.ended_at:%Y-%m-%d %H:%M} UTC"
    track = f"; on the fast track: {proof.document.candidate} was proven by {proof.rollout}, which completed at {when}"
    return state, track + said


async def open_when_due(session: Session, control: Control, row: RolloutRow, now: datetime) -> Decision:
    """One look at a scheduled rollout: it starts when its time has come, it is approved, and nothing is in its way."""
    due = row.state.start_at is None or now >= row.state.start_at
    blocked = await obstacle(session, row, wait=False) if due else None
    state = msgspec.structs.replace(row.state, obstacle=blocked)
    reasons = start_reasons(row.document, state, now)
    if reasons:
        starts = row.state.start_at
        later = starts if starts is not None and starts > now + _CHECK else now + _CHECK
        await rollouts.wait(session, row, state, later)
        return hold(*reasons)
    state, said = await opened(session, control, row, now)
    await record(session, row, state, Cause(step="start", reason=f"its time has come{said}", actor=ACTOR, at=now))
    return hold(*reasons)
