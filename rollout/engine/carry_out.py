"""Carrying out what a look decided: the next state, recorded with its reason, in the look's own transaction."""

from datetime import datetime

from rollout.db.session import Session
from rollout.db.tables import RolloutRow
from rollout.domain import transition
from rollout.domain.decision import Decision, Outcome, hold
from rollout.domain.document import duration
from rollout.domain.judge import Judgement
from rollout.domain.plan import RolloutDocument
from rollout.domain.rollout import Breach, State, Would
from rollout.domain.transition import Step
from rollout.engine.control import Control
from rollout.engine.record import Cause, record

ACTOR = "engine"
WITHHOLDS = frozenset({"killed", "budget"})
"""Causes of a pause that takes the exposure away: what it is about goes on as long as anybody is served."""


def as_carried_out(row: RolloutRow, decision: Decision) -> Decision:
    """What will be done: a rollout that is only observed holds, whatever was decided. A kill is a person's act."""
    if row.document.mode == "enforce" or decision.reasons[0].code == "killed":
        return decision
    return hold(*decision.reasons)


def is_news(row: RolloutRow, decision: Decision) -> bool:
    """Whether a decision will be recorded: all that move something, and of an observed rollout what is new."""
    if as_carried_out(row, decision).kind == decision.kind:
        return decision.kind != "hold"
    would = row.state.would
    return would is None or (would.kind, would.code) != (decision.kind, decision.reasons[0].code)


async def carry_out(session: Session, control: Control, row: RolloutRow, outcome: Outcome, now: datetime) -> None:
    """Record the decision of a look and what follows from it; of an observed rollout, what would have followed."""
    reason = "; ".join(reason.message for reason in outcome.decision.reasons)
    if as_carried_out(row, outcome.decision).kind != outcome.decision.kind:
        await _observe(session, row, outcome.decision, reason, now)
        return
    state, step = next_state(row.document, row.state, outcome, control.new_id("at"), now)
    await record(session, row, state, Cause(step=step, reason=reason, actor=ACTOR, at=now, tick=row.tick))


async def lapse(session: Session, row: RolloutRow, outcome: Outcome, now: datetime) -> None:
    """A source has failed for a whole lease: nobody is exposed to what cannot be seen, until it answers again."""
    said = [f"{each.metric} ({each.source_error})" for each in outcome.judgement.readings if each.verdict == "error"]
    reason = f"the source of {', '.join(said)} has failed for the lease of {row.document.lease}; nobody is exposed"
    await record(
        session,
        row,
        transition.lapse(row.state, now),
        Cause(step="lapse", reason=reason, actor=ACTOR, at=now, tick=row.tick),
    )


async def regain(session: Session, control: Control, row: RolloutRow, now: datetime) -> None:
    """A healthy pass ends a lapse."""
    state = transition.regain(row.document, row.state, control.new_id("at"), now)
    cause = Cause(step="regain", reason="the engine sees its evidence again", actor=ACTOR, at=now)
    await record(session, row, state, cause)


async def _observe(session: Session, row: RolloutRow, decision: Decision, reason: str, now: datetime) -> None:
    """Once for each decision that differs from the one before it: a look every few seconds would say it again."""
    code = decision.reasons[0].code
    if not is_news(row, decision):
        return
    state = transition.observe(row.state, Would(kind=decision.kind, reason=reason, at=now, code=code))
    words = decision.kind.replace("_", " ")
    cause = Cause(step="observe", reason=f"would {words}: {reason}", actor=ACTOR, at=now, tick=row.tick)
    await record(session, row, state, cause)


def next_state(
    plan: RolloutDocument, state: State, outcome: Outcome, attempt: str, now: datetime
) -> tuple[State, Step]:
    """The state that follows from a decision, shared with the backtest; `attempt` is the id if one is opened."""
    decision, cause = outcome.decision, outcome.decision.reasons[0]
    breach = _breach(outcome.judgement, state, now) if cause.code == "breach" else None
    match decision.kind:
        case "roll_back" if transition.goes_in_steps(plan, state):
            every = duration(plan.rollback.every)
            why = state.paused_reason if state.retreat_at is not None and state.paused_reason else cause.message
            down = transition.step_back(plan, state, attempt, now, (why, breach, every))
            return down, "step_back"
        case "roll_back":
            return transition.roll_back(state, now, breach), "roll_back"
        case "pause":
            withheld = cause.code in WITHHOLDS
            return transition.pause(state, now, cause.message, breach, withheld=withheld), "pause"
        case "complete" if state.status == "baking":
            return transition.complete(plan, state, now, proven=decision.proven), "complete"
        case "complete":
            return transition.advance(plan, state, attempt, now, proven=decision.proven), "complete"
        case "advance":
            return transition.advance(plan, state, attempt, now, proven=decision.proven), "advance"
        case "hold":
            raise AssertionError("a hold changes nothing")


def _breach(judgement: Judgement, state: State, now: datetime) -> Breach | None:
    if judgement.culprit is None:
        return None
    return Breach(
        at=now,
        epoch=state.epoch,
        metric=judgement.culprit,
        log_e=judgement.combined_max,
        threshold=judgement.breach_threshold,
        culprits=judgement.culprits,
    )
