"""One look at one rollout: read, gather, judge, decide, record; one transaction, held by the rollout's row lock.

Nothing outside the database is asked in here, so the lock is short. A look that finds nothing new writes no record.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from rollout import __version__
from rollout.db import flag_states, increments, rollouts
from rollout.db.session import Session
from rollout.db.tables import RolloutRow
from rollout.domain import transition
from rollout.domain.decide import Decision, Outcome, Situation, decide, missing_now, patience_of
from rollout.domain.document import canonical, duration
from rollout.domain.evidence import Evidence, Increments
from rollout.domain.gather import Round, gather
from rollout.domain.judge import Judgement, Look, judge
from rollout.domain.metric import Metric
from rollout.domain.plan import RolloutDocument
from rollout.domain.rollout import Breach, State
from rollout.domain.transition import Step
from rollout.domain.watch import gate_margin, watches
from rollout.engine.control import Control
from rollout.engine.record import Cause, record
from rollout_client.evaluation.ruleset import Frozen

ENGINE_VERSION = f"rampline {__version__}"
ACTOR = "engine"
_CHECK = timedelta(seconds=5)


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """What a look saw beside the increments: enough to make it again, byte for byte."""

    state: State
    units: int
    attempt_units: int
    killed: bool
    now: datetime


async def look(session: Session, control: Control, row: RolloutRow, now: datetime) -> Decision:
    """Judge the locked row and carry out what is decided."""
    if row.state.blind:
        await _regain(session, control, row, now)
    added = await increments.unbet(session, row.id, row.accepted)
    inputs = Inputs(
        state=row.state,
        units=await increments.units(session, _attempts_of_stage(row.state), "candidate"),
        attempt_units=await increments.units(session, [row.state.attempts[-1].id], "candidate"),
        killed=(await flag_states.find(session, row.flag, row.environment)).killed,
        now=now,
    )
    bets = row.evidence.bets
    evidence, outcome = examine(row.document, row.metrics, row.evidence, added, inputs)
    decision, frozen = outcome.decision, _newly_frozen(row.state, evidence)
    fresh = row.accepted > row.judged or evidence.bets > bets  # whatever was taken in is recorded, whatever it says
    if fresh or frozen or decision.kind != "hold" or _differs(row.latest, outcome):
        await _keep(session, row, added, inputs, (evidence, outcome))
    if frozen:
        await _calibrate(session, row, frozen, now)
    state = msgspec.structs.replace(row.state, missing_since=missing_now(outcome.judgement, row.state, now))
    await rollouts.looked(session, row, state, now, _next_check(row.document, state, now))
    if decision.kind != "hold":
        await _carry_out(session, control, row, outcome, now)
    return decision


def examine(
    plan: RolloutDocument, metrics: Mapping[str, Metric], evidence: Evidence, added: Increments, inputs: Inputs
) -> tuple[Evidence, Outcome]:
    """The pure middle of a look, shared with replay: evidence forward, verdicts, decision. Consumes `evidence`."""
    watched = watches(plan, metrics)
    state = inputs.state
    attempts = [attempt for attempt in state.attempts if attempt.epoch == state.epoch]
    margins = {watch.metric: gate_margin(plan, watch, state.stage) for watch in watched}
    evidence = gather(evidence, added, Round(watched, attempts, margins, inputs.now))
    judgement = judge(
        evidence,
        Look(
            plan=plan,
            watches=watched,
            attempts=tuple(attempts),
            margins=margins,
            units=inputs.units,
            attempt_units=inputs.attempt_units,
            now=inputs.now,
            patience=patience_of(plan).total_seconds(),
        ),
    )
    decision = decide(
        Situation(plan=plan, state=state, judgement=judgement, watches=watched, killed=inputs.killed, now=inputs.now)
    )
    return evidence, Outcome(judgement=judgement, decision=decision)


def digest(outcome: Outcome) -> str:
    """SHA-256 of an outcome's canonical bytes: what replay must reproduce."""
    return hashlib.sha256(canonical(outcome)).hexdigest()


async def _keep(
    session: Session, row: RolloutRow, added: Increments, inputs: Inputs, found: tuple[Evidence, Outcome]
) -> None:
    """Record the look: its inputs, its outcome, its increments compacted under its tick."""
    evidence, outcome = found
    tick = row.tick + 1
    await increments.compact(session, row.id, row.accepted, tick, added)
    values: dict[str, Any] = {
        "rollout": row.id,
        "tick": tick,
        "at": inputs.now,
        "from_seq": row.judged,
        "to_seq": row.accepted,
        "engine_version": ENGINE_VERSION,
        "inputs": canonical(inputs).decode(),
        "outcome": canonical(outcome).decode() if _differs(row.latest, outcome) else None,
        "digest": digest(outcome),
    }
    await rollouts.add_evaluation(session, values)
    await rollouts.judged(session, row, evidence, outcome, tick)


def _newly_frozen(state: State, evidence: Evidence) -> dict[str, Frozen]:
    """What the evidence has frozen from the baseline and clients do not know yet."""
    return {
        metric: mine.frozen
        for metric, mine in sorted(evidence.metrics.items())
        if mine.frozen is not None and metric not in state.frozen
    }


async def _calibrate(session: Session, row: RolloutRow, frozen: Mapping[str, Frozen], now: datetime) -> None:
    """Publish what was frozen; a decision of the same look follows from the state that knows it."""
    reason = "; ".join(f"{metric}: {_what(each)} frozen from the baseline" for metric, each in frozen.items())
    cause = Cause(step="calibrate", reason=reason, actor=ACTOR, at=now, tick=row.tick)
    await record(session, row, transition.calibrate(row.state, frozen), cause)


def _what(frozen: Frozen) -> str:
    if frozen.cap is None:
        return "thresholds"
    return "cap and thresholds" if frozen.thresholds else "cap"


async def _carry_out(session: Session, control: Control, row: RolloutRow, outcome: Outcome, now: datetime) -> None:
    decision = outcome.decision
    state, step = next_state(row.document, row.state, outcome, control.new_id("at"), now)
    reason = "; ".join(reason.message for reason in decision.reasons)
    await record(session, row, state, Cause(step=step, reason=reason, actor=ACTOR, at=now, tick=row.tick))


def next_state(
    plan: RolloutDocument, state: State, outcome: Outcome, attempt: str, now: datetime
) -> tuple[State, Step]:
    """The state that follows from a decision, shared with the backtest; `attempt` is the id if one is opened."""
    decision, cause = outcome.decision, outcome.decision.reasons[0]
    breach = _breach(outcome.judgement, state, now) if cause.code == "breach" else None
    reason = cause.message
    match decision.kind:
        case "roll_back":
            return transition.roll_back(state, now, breach), "roll_back"
        case "pause":
            return transition.pause(state, now, reason, breach, withheld=cause.code == "killed"), "pause"
        case "complete" if state.status == "baking":
            return transition.complete(state, now), "complete"
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


async def _regain(session: Session, control: Control, row: RolloutRow, now: datetime) -> None:
    state = transition.regain(row.document, row.state, control.new_id("at"), now)
    cause = Cause(step="regain", reason="the engine sees its evidence again", actor=ACTOR, at=now)
    await record(session, row, state, cause)


def _attempts_of_stage(state: State) -> list[str]:
    """Attempts whose units count for the present stage's `min_units`."""
    return [a.id for a in state.attempts if a.stage == state.stage and a.epoch == state.epoch]


def _differs(latest: Outcome | None, outcome: Outcome) -> bool:
    """Whether what is said changed: a decision, a reason's code, a verdict, an alarm. Numbers alone do not count."""
    return latest is None or _gist(latest) != _gist(outcome)


def _gist(outcome: Outcome) -> tuple[Any, ...]:
    return (
        outcome.decision.kind,
        tuple((reason.code, reason.metric) for reason in outcome.decision.reasons),
        tuple(reading.verdict for reading in outcome.judgement.readings),
        outcome.judgement.srm_alarm,
    )


def _next_check(plan: RolloutDocument, state: State, now: datetime) -> datetime:
    """When to look again without new evidence: in five seconds, or just when the stage's time is up."""
    least = plan.stages[state.stage].min_duration if state.stage < len(plan.stages) else None
    if least is None:
        least = plan.bake.duration if plan.bake else "0s"
    left = duration(least) - state.stage_age(now)
    return now + (min(left, _CHECK) if left > timedelta(0) else _CHECK)
