"""Starting: when a scheduled rollout may begin, what stands in its way, and whether it may take the fast track."""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from rollout.domain.approval import approval_missing
from rollout.domain.decision import Reason
from rollout.domain.document import duration
from rollout.domain.explain import span
from rollout.domain.plan import Guardrail, PlanBody, RolloutDocument, is_proven
from rollout.domain.rollout import State


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout that completed on proof: it vouches for its candidate on the fast track of another one.

    `plan` is what it was proven by.
    """

    rollout: str
    candidate: str
    ended_at: datetime
    plan: PlanBody


def not_before(document: RolloutDocument, now: datetime) -> datetime | None:
    """When a rollout that is started now begins (UTC), None for at once: the time of its plan, if that is to come."""
    if document.start_at is None or document.start_at <= now:
        return None
    return document.start_at.astimezone(UTC)


def start_reasons(plan: PlanBody, state: State, now: datetime) -> tuple[Reason, ...]:
    """Everything a scheduled rollout waits for, in order; approval last."""
    reasons = []
    if state.start_at is not None and now < state.start_at:
        when = f"{state.start_at:%Y-%m-%d %H:%M:%S} UTC"
        reasons.append(Reason("scheduled", f"starts at {when}, in {span(state.start_at - now)}"))
    elif state.obstacle is not None:
        reasons.append(Reason("obstacle", state.obstacle))
    missing = approval_missing(plan, state, now)
    if missing is not None:
        reasons.append(Reason("awaiting_approval", f"the start {missing}"))
    return tuple(reasons)


def fast_track(document: RolloutDocument, proofs: Sequence[Proof], now: datetime) -> Proof | None:
    """The newest proof of this very candidate that is young enough for the plan's `fast_track`, and asked as much."""
    if document.fast_track is None or len(document.stages) < 2:
        return None
    since = now - duration(document.fast_track)
    fit = [proof for proof in proofs if proof.candidate == document.candidate and proof.ended_at >= since]
    fit = [proof for proof in fit if _asked_as_much(proof.plan, document)]
    return max(fit, key=lambda proof: proof.ended_at, default=None)


def _asked_as_much(proven_by: PlanBody, plan: PlanBody) -> bool:
    """Whether one plan's gates asked all that another one's ask: the same numbers, no more regression, no more risk."""
    if proven_by.analysis.alpha_advance > plan.analysis.alpha_advance:
        return False
    asked = {each.metric: each for each in proven_by.guardrails if each.on_breach != "warn"}
    return all(
        each.metric in asked and _is_as_strict(asked[each.metric], each)
        for each in plan.guardrails
        if each.on_breach != "warn"
    )


def _is_as_strict(proven: Guardrail, wanted: Guardrail) -> bool:
    """Whether one guardrail accepts no more than another; a share of the baseline and a difference do not compare."""
    if (proven.focus, proven.direction) != (wanted.focus, wanted.direction):
        return False
    was, now = proven.max_regression, wanted.max_regression
    if was.relative is not None and now.relative is not None:
        return was.relative <= now.relative
    return was.absolute is not None and now.absolute is not None and was.absolute <= now.absolute


def fast_stage(document: RolloutDocument) -> int:
    """Where the fast track begins: at the last stage, or at an earlier one that a person must let it leave."""
    asking = (i for i, stage in enumerate(document.stages) if stage.approval is not None)
    return next(asking, len(document.stages) - 1)


def is_proof(document: PlanBody, state: State) -> bool:
    """Whether a rollout that completed was proven on the way: guarded, and no stage open to everyone left unproven."""
    open_stages = [i for i, stage in enumerate(document.stages) if stage.cohort is None]
    names = {document.stages[i].name for i in open_stages} | {"bake"}
    proven = any(is_proven(document, i) for i in open_stages)
    return state.status == "completed" and proven and not names & set(state.unproven_stages)
