"""protect(): what takes exposure away. Runs in every exposed status, before and whatever progress() waits for."""

from rollout.domain.decision import Decision, DecisionKind, Reason, Situation
from rollout.domain.explain import arms
from rollout.domain.judge import Judgement, Reading
from rollout.domain.missing import on_missing
from rollout.domain.rollout import EXPOSED, stage_name
from rollout.domain.watch import Watch

KILLED = "the flag was killed; once it is restored, resume the rollout"
"""True before the restore and after it, for a person reads it at either time."""


def protect(situation: Situation) -> Decision | None:
    """First match wins: killed flag, next step back, breach, spent budget, evidence missing by policy; else None."""
    state = situation.state
    if state.status not in EXPOSED:
        return None
    if situation.killed and not state.withheld:
        return Decision(kind="pause", reasons=(Reason("killed", KILLED),))
    if state.retreat_at is not None:
        return _step_back(situation)
    return _on_breach(situation) or _on_budget(situation) or on_missing(situation)


def _step_back(situation: Situation) -> Decision | None:
    """A rollback in steps goes on by the clock alone: what led to it is proven already."""
    state = situation.state
    if state.retreat_at is None or situation.now < state.retreat_at:
        return None
    before = stage_name(situation.plan, state.stage)
    return Decision(kind="roll_back", reasons=(Reason("retreat", f"rolling back in steps: {before} is left"),))


def _on_breach(situation: Situation) -> Decision | None:
    """The culprit's `on_breach`. A breach is acted on once; after a pause, another guardrail may still roll back.

    It does so on proof of its own: what is latched is the breach of the one that paused. So does whatever is proven
    beside a guardrail that a person has waived.
    """
    judgement, latched = situation.judgement, situation.state.breach
    if not judgement.breached:
        return None
    readings = {reading.metric: reading for reading in judgement.readings}
    culprit = next((watch for watch in situation.watches if watch.metric == judgement.culprit), None)
    if latched is not None or culprit is None or culprit.metric in situation.waived:
        culprit = _proven_alone(situation, readings, may_pause=latched is None)
    if culprit is None:
        return None
    kind: DecisionKind = "pause" if culprit.on_breach == "pause" else "roll_back"
    return Decision(kind=kind, reasons=(_breach_reason(readings[culprit.metric], judgement),))


def _proven_alone(situation: Situation, readings: dict[str, Reading], *, may_pause: bool) -> Watch | None:
    """The first guardrail that nobody waived and whose own evidence carries the breach."""
    return next(
        (
            watch
            for watch in situation.watches
            if watch.role == "guardrail"
            and (may_pause or watch.on_breach == "roll_back")
            and watch.metric not in situation.waived
            and readings[watch.metric].log_e_harm >= readings[watch.metric].harm_threshold
        ),
        None,
    )


def _breach_reason(reading: Reading, judgement: Judgement) -> Reason:
    how = "" if reading.log_e_harm >= reading.harm_threshold else " by the guardrails together, none alone"
    seen = f"{arms(reading)} since this attempt began" if reading.amount(reading.candidate) else "before this attempt"
    message = (
        f"{reading.metric} breach: {seen}; evidence of harm beyond the margin "
        f"{judgement.combined_max:.2f} >= {judgement.breach_threshold:.2f}{how}"
    )
    return Reason("breach", message, reading.metric)


def _on_budget(situation: Situation) -> Decision | None:
    """A spent budget is a sum and no proof; it acts as `on_breach` says, and a pause takes the exposure away."""
    readings = {reading.metric: reading for reading in situation.judgement.readings}
    for watch in situation.watches:
        spending = readings[watch.metric].spending
        if spending is None or spending.over is None or watch.role != "guardrail" or watch.metric in situation.waived:
            continue
        if watch.on_breach == "pause" and situation.state.withheld:
            continue
        kind: DecisionKind = "pause" if watch.on_breach == "pause" else "roll_back"
        message = f"{watch.metric}: {spending.over}"
        return Decision(kind=kind, reasons=(Reason("budget", message, watch.metric),))
    return None
