"""Starting: when a scheduled rollout may begin, what stands in its way, and whether it may take the fast track."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rollout.domain.approval import approval_missing
from rollout.domain.decision import Reason
from rollout.domain.document import duration
from rollout.domain.explain import span
from rollout.domain.metric import Metric
from rollout.domain.plan import PlanBody, RolloutDocument
from rollout.domain.proof import Proof, covers
from rollout.domain.rollout import State


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


def fast_track(
    document: RolloutDocument, metrics: Mapping[str, Metric], proofs: Sequence[Proof], now: datetime
) -> Proof | None:
    """The newest proof that is young enough for the plan's `fast_track`, and of as much as the plan asks."""
    if document.fast_track is None or len(document.stages) < 2:
        return None
    since = now - duration(document.fast_track)
    fit = [proof for proof in proofs if proof.ended_at >= since and covers(proof, document, metrics)]
    return max(fit, key=lambda proof: proof.ended_at, default=None)


def fast_stage(document: RolloutDocument) -> int:
    """Where the fast track begins: at the last stage, or at an earlier one that a person must let it leave."""
    asking = (i for i, stage in enumerate(document.stages) if stage.approval is not None)
    return next(asking, len(document.stages) - 1)
