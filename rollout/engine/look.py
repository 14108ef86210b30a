"""One look at one rollout: read, gather, judge, decide, record; one transaction, held by the rollout's row lock.

Nothing outside the database is asked in here, so the lock is short. A look that finds nothing new writes no record.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from rollout import __version__
from rollout.db.increments import Cover
from rollout.db.session import Session
from rollout.db.tables import RolloutRow
from rollout.domain import transition
from rollout.domain.decide import after_look, decide
from rollout.domain.decision import Decision, Outcome, Situation
from rollout.domain.document import canonical
from rollout.domain.evidence import Evidence, Increments
from rollout.domain.gather import Round, gather
from rollout.domain.judge import Look, SourceFailure, judge
from rollout.domain.metric import Metric
from rollout.domain.missing import is_blind, patience_of, still_blind
from rollout.domain.plan import RolloutDocument
from rollout.domain.quiet import quiet_until
from rollout.domain.rollout import State
from rollout.domain.watch import gate_margin, watches
from rollout.engine.carry_out import ACTOR, as_carried_out, carry_out, is_news, lapse, regain
from rollout.engine.claim import Claimed
from rollout.engine.control import Control
from rollout.engine.notes import Notes
from rollout.engine.opening import open_when_due
from rollout.engine.record import Cause, record
from rollout.telemetry import HOLDS
from rollout_client.evaluation.ruleset import Frozen

ENGINE_VERSION = f"rampline {__version__}"
CHECK = timedelta(seconds=5)
"""How long a rollout is left alone when nothing comes."""


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """What a look saw beside the increments: enough to make it again, byte for byte."""

    state: State
    units: int
    attempt_units: int
    killed: bool
    now: datetime
    failing: dict[str, SourceFailure] = {}


async def look(session: Session, control: Control, claimed: Claimed, now: datetime, notes: Notes) -> Decision:
    """Judge the locked row and carry out what is decided; a scheduled one is opened when its time has come.

    What the look saw is left in `notes`. The decision is the one that was carried out: a rollout that is only observed
    always holds.
    """
    row = claimed.row
    if row.status == "scheduled":
        return await open_when_due(session, control, row, now)
    if row.state.blind and not still_blind(row.document, row.state, claimed.failing, now):
        await regain(session, control, row, now)
    inputs = _inputs(claimed, now)
    bets = row.evidence.bets
    evidence, outcome = examine(row.document, row.metrics, row.evidence, claimed.taken.increments, inputs)
    decision, frozen = as_carried_out(row.document, outcome.decision), _newly_frozen(row.state, evidence)
    state = after_look(row.state, outcome, now)
    blind = is_blind(row.document, state, outcome.judgement, now)
    moves = bool(frozen) or blind or is_news(row.document, row.state, outcome.decision)
    fresh = row.accepted > row.judged or evidence.bets > bets  # whatever was taken in is recorded, whatever it says
    kept = fresh or moves or _differs(row.latest, outcome)
    _count_hold(row, decision, now)
    left = _left(row, state, (evidence, outcome), now, kept=kept)
    notes.take(left)
    if kept:
        _keep(notes, claimed, inputs, outcome, moves=moves)
    if moves:
        await notes.write(session)
        await session.refresh(row, [column for column in left if column != "of"])
    if frozen:
        await _calibrate(session, row, frozen, now)
    if decision.kind != "hold" or outcome.decision.kind != "hold":
        await carry_out(session, control, row, outcome, now)
    elif blind:
        await lapse(session, row, outcome, now)
    return decision


def _inputs(claimed: Claimed, now: datetime) -> Inputs:
    row = claimed.row
    of_stage, of_attempt = _attempts_of_stage(row.state), [row.state.attempts[-1].id]
    units = claimed.units(of_stage)
    return Inputs(
        state=row.state,
        units=units,
        attempt_units=units if of_attempt == of_stage else claimed.units(of_attempt),
        killed=claimed.killed,
        now=now,
        failing=claimed.failing,
    )


def examine(
    plan: RolloutDocument, metrics: Mapping[str, Metric], evidence: Evidence, added: Increments, inputs: Inputs
) -> tuple[Evidence, Outcome]:
    """The pure middle of a look, shared with replay: evidence forward, verdicts, decision. Consumes `evidence`."""
    watched = watches(plan, metrics)
    state = inputs.state
    attempts = [attempt for attempt in state.attempts if attempt.epoch == state.epoch]
    margins = {watch.metric: gate_margin(plan, watch, state.stage) for watch in watched}
    former = [attempt for attempt in state.attempts if attempt.epoch != state.epoch]
    evidence = gather(evidence, added, Round(watched, attempts, margins, inputs.now, former))
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
            steps=state.steps,
            failing=inputs.failing,
        ),
    )
    situation = Situation(
        plan=plan, state=state, judgement=judgement, watches=watched, killed=inputs.killed, now=inputs.now
    )
    return evidence, Outcome(judgement=judgement, decision=decide(situation))


def _count_hold(row: RolloutRow, decision: Decision, now: datetime) -> None:
    """Add the time since the look before to everything that holds now."""
    if decision.kind == "hold" and row.judged_at is not None:
        for code in {reason.code for reason in decision.reasons}:
            HOLDS.labels(code).inc(max(0.0, (now - row.judged_at).total_seconds()))


def digest(outcome: Outcome) -> str:
    """SHA-256 of an outcome's canonical bytes: what replay must reproduce."""
    return hashlib.sha256(canonical(outcome)).hexdigest()


def _left(
    row: RolloutRow, state: State, found: tuple[Evidence, Outcome], now: datetime, *, kept: bool
) -> dict[str, Any]:
    """What the look leaves in the rollout's row; the evidence only of a look that is recorded."""
    evidence, outcome = found
    quiet = quiet_until(row.document, watches(row.document, row.metrics), state, evidence, now)
    left = {
        "of": row.id, "state": state, "protected_at": now, "judged_at": now, "next_check_at": min(now + CHECK, quiet),
        "quiet_until": quiet,
    }  # fmt: skip
    if kept:
        left |= {"evidence": evidence, "latest": outcome, "tick": row.tick + 1, "judged": row.accepted}
    return left


def _keep(notes: Notes, claimed: Claimed, inputs: Inputs, outcome: Outcome, *, moves: bool) -> None:
    """Record the look: its inputs, its increments under its tick, and its outcome if that is new or moved something."""
    row, tick = claimed.row, claimed.row.tick + 1
    values: dict[str, Any] = {
        "rollout": row.id,
        "tick": tick,
        "at": inputs.now,
        "from_seq": row.judged,
        "to_seq": row.accepted,
        "engine_version": ENGINE_VERSION,
        "inputs": canonical(inputs).decode(),
        "outcome": canonical(outcome).decode() if moves or _differs(row.latest, outcome) else None,
        "digest": digest(outcome),
    }
    notes.keep(values, Cover(row.id, row.accepted, tick, claimed.taken))


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
