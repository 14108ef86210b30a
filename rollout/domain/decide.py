"""The heart: what to do with a rollout at one look. protect() first, then progress(); they never wait for each other.

protect() can only reduce exposure; progress() can only hold or go one stage further (DESIGN.md section 5).
"""

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from rollout.domain.document import content_hash, duration
from rollout.domain.explain import arms, sentence, span
from rollout.domain.judge import Judgement, Reading
from rollout.domain.plan import PlanBody, percentage_of, units_wanted
from rollout.domain.rollout import EXPOSED, State
from rollout.domain.watch import Watch

DecisionKind = Literal["hold", "advance", "complete", "pause", "roll_back"]
ABSENT = frozenset({"no_data", "stale", "error"})
"""Verdicts that mean requests are served unwatched; `on_missing` acts on them. No traffic harms nobody."""
MISSING = ABSENT | {"no_traffic"}
"""Verdicts that mean there is no evidence, so neither good nor bad."""


class Reason(msgspec.Struct, frozen=True):
    """Why: a stable code for programs, a sentence for people, and the metric if one is concerned."""

    code: str
    message: str
    metric: str | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, and why. A hold lists everything that holds."""

    kind: DecisionKind
    reasons: tuple[Reason, ...]
    proven: bool = True


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a look found and what was decided."""

    judgement: Judgement
    decision: Decision


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a decision may look at."""

    plan: PlanBody
    state: State
    judgement: Judgement
    watches: tuple[Watch, ...]
    killed: bool
    now: datetime


def decide(situation: Situation) -> Decision:
    """protect(), and if it has nothing to say, progress()."""
    return protect(situation) or progress(situation)


def protect(situation: Situation) -> Decision | None:
    """First match wins: killed flag, breach of a guardrail, evidence absent by policy. None: nothing to do."""
    state = situation.state
    if state.status not in EXPOSED:
        return None
    if situation.killed and not state.withheld:
        return Decision(kind="pause", reasons=(Reason("killed", "the flag was killed; restore it, then resume"),))
    return _on_breach(situation) or _on_missing(situation)


def progress(situation: Situation) -> Decision:
    """Gates in order; every closed one is a reason to hold."""
    plan, state = situation.plan, situation.state
    if state.status == "paused":
        return _hold(Reason("paused", f"paused: {state.paused_reason}"))
    if state.status == "baking":
        return _bake(situation)
    if state.status != "running":
        return _hold(Reason(state.status, f"the rollout is {state.status}"))
    reasons = (
        *_time(situation),
        *_units(situation),
        *_verdicts(situation),
        *_ceilings(situation),
        *_sample_ratio(situation),
    )
    stage = plan.stages[state.stage]
    if reasons:
        overdue = stage.max_duration and state.stage_age(situation.now) >= duration(stage.max_duration)
        return _undecided(situation, reasons) if overdue else _hold(*reasons)
    reasons = _approval(situation)
    if reasons:
        return _hold(*reasons)
    return _forward(situation, "every gate is open", proven=True)


def _on_breach(situation: Situation) -> Decision | None:
    """The culprit's `on_breach`. A breach is acted on once; after a pause, another guardrail may still roll back.

    It does so on proof of its own: what is latched is the breach of the one that paused.
    """
    judgement, latched = situation.judgement, situation.state.breach
    if not judgement.breached:
        return None
    readings = {reading.metric: reading for reading in judgement.readings}
    culprit = next(watch for watch in situation.watches if watch.metric == judgement.culprit)
    if latched is not None:
        proven = [
            watch
            for watch in situation.watches
            if watch.role == "guardrail"
            and watch.on_breach == "roll_back"
            and readings[watch.metric].log_e_harm >= readings[watch.metric].harm_threshold
        ]
        if not proven:
            return None
        culprit = proven[0]
    reading = readings[culprit.metric]
    how = "" if reading.log_e_harm >= reading.harm_threshold else " by the guardrails together, none alone"
    message = (
        f"{culprit.metric} breach: {arms(reading)} since this attempt began; evidence of harm beyond the margin "
        f"{judgement.combined_max:.2f} >= {judgement.breach_threshold:.2f}{how}"
    )
    kind: DecisionKind = "pause" if culprit.on_breach == "pause" else "roll_back"
    return Decision(kind=kind, reasons=(Reason("breach", message, culprit.metric),))


def _on_missing(situation: Situation) -> Decision | None:
    """`on_missing` of a guardrail acts once its evidence was absent for a whole lease (15 minutes without one)."""
    patience = patience_of(situation.plan)
    absent = {reading.metric for reading in situation.judgement.readings if reading.verdict in ABSENT}
    for watch in situation.watches:
        since = situation.state.missing_since.get(watch.metric)
        if watch.role != "guardrail" or watch.on_missing == "hold" or since is None or watch.metric not in absent:
            continue
        if situation.now - since >= patience:
            reason = Reason(
                "missing",
                f"no evidence on {watch.metric} for {patience}; the plan says {watch.on_missing}",
                watch.metric,
            )
            if watch.on_missing == "roll_back":
                return Decision(kind="roll_back", reasons=(reason,))
            if situation.state.status != "paused":
                return Decision(kind="pause", reasons=(reason,))
    return None


def patience_of(plan: PlanBody) -> timedelta:
    """How long evidence may be absent before it counts as missing: the lease, or 15 minutes without one."""
    return duration("15m" if plan.lease == "none" else plan.lease)


def missing_now(judgement: Judgement, state: State, now: datetime) -> dict[str, datetime]:
    """Since when each watched metric has had no evidence."""
    return {
        reading.metric: state.missing_since.get(reading.metric, now)
        for reading in judgement.readings
        if reading.verdict in ABSENT
    }


def _bake(situation: Situation) -> Decision:
    bake = situation.plan.bake
    assert bake is not None
    left = duration(bake.duration) - situation.state.stage_age(situation.now)
    reasons = [Reason("baking", f"baking for another {span(left)}")] if left > timedelta(0) else []
    proven = situation.plan.stages[-1].name not in situation.state.unproven_stages
    reasons += [_reason(reading) for reading in situation.judgement.readings if _holds_bake(reading, proven=proven)]
    reasons += [*_ceilings(situation), *_sample_ratio(situation)]
    return _hold(*reasons) if reasons else _forward(situation, "the bake ended without a breach", proven=True)


def _holds_bake(reading: Reading, *, proven: bool) -> bool:
    """The last stage's proof carries the bake unless something is worse or unseen; without one the bake must pass."""
    if proven and reading.verdict == "undecided":
        return False
    return _closes_gate(reading)


def _time(situation: Situation) -> tuple[Reason, ...]:
    stage = situation.plan.stages[situation.state.stage]
    left = duration(stage.min_duration) - situation.state.stage_age(situation.now)
    if left <= timedelta(0):
        return ()
    return (Reason("min_duration", f"stage {stage.name} lasts at least {stage.min_duration}; {span(left)} to go"),)


def _units(situation: Situation) -> tuple[Reason, ...]:
    stage = situation.plan.stages[situation.state.stage]
    units, wanted = situation.judgement.units, units_wanted(situation.plan, stage)
    if units >= wanted:
        return ()
    return (Reason("min_units", f"about {units} candidate units of at least {wanted}"),)


def _verdicts(situation: Situation) -> tuple[Reason, ...]:
    if percentage_of(situation.plan, situation.state.stage) >= 100:
        return ()  # a whole cohort: there is no control to compare with
    return tuple(_reason(reading) for reading in situation.judgement.readings if _closes_gate(reading))


def _closes_gate(reading: Reading) -> bool:
    """A guardrail holds until it passes, a signal while it is worse or unseen, a warning never."""
    match reading.role:
        case "guardrail":
            return reading.verdict != "pass"
        case "signal":
            return reading.verdict == "breach" or reading.verdict in MISSING
        case "warning":
            return False


def _ceilings(situation: Situation) -> tuple[Reason, ...]:
    """A level beyond its ceiling holds, also when the baseline is as bad; it lets go by itself."""
    over = {reading.metric: reading for reading in situation.judgement.readings if reading.over_ceiling}
    return tuple(
        Reason(
            "ceiling",
            f"{watch.metric}: the candidate is beyond the ceiling of {watch.ceiling:g} now: {arms(over[watch.metric])}",
            watch.metric,
        )
        for watch in situation.watches
        if watch.metric in over and watch.ceiling is not None
    )


def _sample_ratio(situation: Situation) -> tuple[Reason, ...]:
    if not situation.judgement.srm_alarm:
        return ()
    message = (
        "more or fewer units reach the candidate than were assigned (sample ratio mismatch); find out why, then resume"
    )
    return (Reason("srm", message),)


def _approval(situation: Situation) -> tuple[Reason, ...]:
    plan, state = situation.plan, situation.state
    stage = plan.stages[state.stage]
    if is_approved(plan, state):
        return ()
    return (Reason("awaiting_approval", f"stage {stage.name} needs an approval by somebody other than the author"),)


def is_approved(plan: PlanBody, state: State) -> bool:
    """Whether the present stage may be left: it needs no approval, or has one for this attempt of this exact plan."""
    if state.stage >= len(plan.stages) or plan.stages[state.stage].approval is None:
        return True
    given, attempt = state.approval, state.attempt
    bound = given is not None and attempt is not None and given.attempt == attempt.id
    return bound and given is not None and given.content_hash == content_hash(plan)


def _undecided(situation: Situation, reasons: tuple[Reason, ...]) -> Decision:
    """max_duration has passed: the plan's `on_undecided`. Only what is undecided can be advanced; the rest holds."""
    policy = situation.plan.on_undecided
    late = Reason("max_duration", f"undecided at max_duration; the plan says {policy}")
    if policy == "roll_back":
        return Decision(kind="roll_back", reasons=(late, *reasons))
    if policy == "advance" and all(reason.code == "undecided" for reason in reasons):
        waiting = _approval(situation)
        return _hold(late, *waiting) if waiting else _forward(situation, late.message, proven=False)
    return _hold(late, *reasons)


def _forward(situation: Situation, why: str, *, proven: bool) -> Decision:
    plan, state = situation.plan, situation.state
    last = state.stage + 1 >= len(plan.stages) + (plan.bake is not None)
    kind: DecisionKind = "complete" if last else "advance"
    shown = tuple(_reason(reading) for reading in situation.judgement.readings if reading.amount(reading.candidate))
    return Decision(kind=kind, reasons=(Reason("gates_open", why), *shown), proven=proven)


def _hold(*reasons: Reason) -> Decision:
    return Decision(kind="hold", reasons=reasons)


def _reason(reading: Reading) -> Reason:
    return Reason(reading.verdict, sentence(reading), reading.metric)
