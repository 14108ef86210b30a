"""progress(): gates in order, every closed one a reason to hold; one stage further only when all are open."""

from datetime import datetime, timedelta

from rollout.domain.approval import approval_missing
from rollout.domain.decision import Decision, DecisionKind, Reason, Situation, hold
from rollout.domain.document import duration
from rollout.domain.explain import arms, sentence, span
from rollout.domain.judge import Reading
from rollout.domain.plan import percentage_of, steps_of, units_wanted
from rollout.domain.rollout import State
from rollout.domain.watch import UNSEEN

LOW_TRAFFIC = frozenset({"min_units", "no_traffic", "insufficient"})
"""Reasons that only time and traffic can clear: no `on_undecided` acts on them."""
THIN = frozenset({"min_units", "insufficient"})
"""Too little has come to judge by: the stage is extended, its max_duration has not begun."""


def progress(situation: Situation) -> Decision:
    """Hold, or go one stage further. Runs only while running or baking; approval is asked for last."""
    state = situation.state
    if state.status == "paused":
        return hold(Reason("paused", f"paused: {state.paused_reason}"))
    if state.status == "baking":
        return _bake(situation)
    if state.status != "running":
        return hold(Reason(state.status, f"the rollout is {state.status}"))
    reasons = (
        *_time(situation),
        *_units(situation),
        *_verdicts(situation),
        *_ceilings(situation),
        *_sample_ratio(situation),
    )
    if reasons:
        thin = any(reason.code in THIN for reason in reasons)
        return _undecided(situation, reasons) if not thin and _is_overdue(situation) else hold(*reasons)
    reasons = _approval(situation)
    if reasons:
        return hold(*reasons)
    return _forward(situation, "every gate is open", proven=_is_proven(situation))


def fed_at(state: State, decision: Decision, now: datetime) -> float | None:
    """Age of the stage (seconds) at which enough had come to judge by; None while too little has."""
    if state.status != "running":
        return state.fed_at
    if any(reason.code in THIN for reason in decision.reasons):
        return None
    return state.stage_age(now).total_seconds() if state.fed_at is None else state.fed_at


def _is_overdue(situation: Situation) -> bool:
    """Whether max_duration has passed since enough had come."""
    stage, state = situation.plan.stages[situation.state.stage], situation.state
    if stage.max_duration is None or state.fed_at is None:
        return False
    return state.stage_age(situation.now) - timedelta(seconds=state.fed_at) >= duration(stage.max_duration)


def _bake(situation: Situation) -> Decision:
    bake = situation.plan.bake
    assert bake is not None
    left = duration(bake.duration) - situation.state.stage_age(situation.now)
    reasons = [Reason("baking", f"baking for another {span(left)}")] if left > timedelta(0) else []
    proven = situation.plan.stages[-1].name not in situation.state.unproven_stages
    reasons += [
        _reason(reading)
        for reading in situation.judgement.readings
        if reading.metric not in situation.waived and _holds_bake(reading, proven=proven)
    ]
    reasons += [*_ceilings(situation), *_sample_ratio(situation)]
    if reasons:
        return hold(*reasons)
    return _forward(situation, "the bake ended without a breach", proven=_is_proven(situation))


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
    """Too few units extend a stage beyond its min_duration for as long as it takes; they never fail it."""
    stage = situation.plan.stages[situation.state.stage]
    units, wanted = situation.judgement.units, units_wanted(situation.plan, stage)
    if units >= wanted:
        return ()
    extended = situation.state.stage_age(situation.now) > duration(stage.min_duration)
    said = "; the stage goes on until they have come" if extended else ""
    return (Reason("min_units", f"about {units} candidate units of at least {wanted}{said}"),)


def _verdicts(situation: Situation) -> tuple[Reason, ...]:
    if percentage_of(situation.plan, situation.state.stage) >= 100:
        return ()  # a whole cohort: there is no control to compare with
    return tuple(
        _reason(reading)
        for reading in situation.judgement.readings
        if _closes_gate(reading) and reading.metric not in situation.waived
    )


def _closes_gate(reading: Reading) -> bool:
    """A guardrail holds until it passes, a signal while it is worse or unseen, a warning never."""
    match reading.role:
        case "guardrail":
            return reading.verdict != "pass"
        case "signal":
            return reading.verdict in ("breach", "no_traffic", *UNSEEN)
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
        if watch.metric in over and watch.ceiling is not None and watch.metric not in situation.waived
    )


def _sample_ratio(situation: Situation) -> tuple[Reason, ...]:
    if not situation.judgement.srm_alarm:
        return ()
    message = (
        "more or fewer units reach the candidate than were assigned (sample ratio mismatch); find out why, then resume"
    )
    return (Reason("srm", message),)


def _approval(situation: Situation) -> tuple[Reason, ...]:
    missing = approval_missing(situation.plan, situation.state, situation.now)
    if missing is None:
        return ()
    stage = situation.plan.stages[situation.state.stage]
    return (Reason("awaiting_approval", f"stage {stage.name} {missing}"),)


def _undecided(situation: Situation, reasons: tuple[Reason, ...]) -> Decision:
    """max_duration has passed since enough had come: the plan's `on_undecided`; only what is undecided can be advanced.

    While nothing comes it holds, whatever the policy.
    """
    policy, codes = situation.plan.on_undecided, {reason.code for reason in reasons}
    if codes & LOW_TRAFFIC:
        return hold(Reason("max_duration", "held at max_duration until there is enough traffic"), *reasons)
    late = Reason("max_duration", f"undecided at max_duration; the plan says {policy}")
    if policy == "roll_back":
        return Decision(kind="roll_back", reasons=(late, *reasons))
    if policy == "advance" and codes == {"undecided"}:
        waiting = _approval(situation)
        return hold(late, *waiting) if waiting else _forward(situation, late.message, proven=False)
    return hold(late, *reasons)


def _is_proven(situation: Situation) -> bool:
    """Whether the evidence opened the gate, and no waiver in its place."""
    return all(
        reading.verdict == "pass"
        for reading in situation.judgement.readings
        if reading.role == "guardrail" and reading.metric in situation.waived
    )


def _forward(situation: Situation, why: str, *, proven: bool) -> Decision:
    plan, state = situation.plan, situation.state
    last = state.stage + 1 >= steps_of(plan)
    kind: DecisionKind = "complete" if last else "advance"
    waived = (
        Reason("waived", f"{waiver.metric}: waived by {waiver.by} until {waiver.expires_at:%Y-%m-%d %H:%M} UTC: "
               f"{waiver.reason}", waiver.metric)
        for waiver in state.waivers
        if waiver.stage == state.stage and situation.now < waiver.expires_at
    )  # fmt: skip
    shown = (_reason(reading) for reading in situation.judgement.readings if reading.amount(reading.candidate))
    return Decision(kind=kind, reasons=(Reason("gates_open", why), *waived, *shown), proven=proven)


def _reason(reading: Reading) -> Reason:
    return Reason(reading.verdict, sentence(reading), reading.metric)
