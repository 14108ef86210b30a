"""Proof of a candidate: a rollout that completed on evidence, and what of another plan it has proven already."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from rollout.domain.document import duration
from rollout.domain.metric import Metric
from rollout.domain.plan import Analysis, Budget, PlanBody, RolloutDocument, is_proven, units_wanted
from rollout.domain.rollout import State
from rollout.domain.watch import Watch, watches
from rollout.stats.margin import Margin


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout that completed on proof: what it was proven by, with the metrics as they were defined then."""

    rollout: str
    ended_at: datetime
    document: RolloutDocument
    metrics: Mapping[str, Metric]


def is_proof(document: PlanBody, state: State) -> bool:
    """Whether a rollout that completed was proven on the way: guarded, and no stage open to everyone left unproven."""
    open_stages = [i for i, stage in enumerate(document.stages) if stage.cohort is None]
    names = {document.stages[i].name for i in open_stages} | {"bake"}
    proven = any(is_proven(document, i) for i in open_stages)
    return state.status == "completed" and proven and not names & set(state.unproven_stages)


def covers(proof: Proof, wanted: RolloutDocument, metrics: Mapping[str, Metric]) -> bool:
    """Whether everything that a plan asks of its candidate was asked of it before: nothing looser, nothing less.

    The same candidate against the same baseline, in the same unit; whatever can close a gate, as strict; stages that
    lasted as long and saw as many units.
    """
    had = proof.document
    if (had.candidate, had.baseline, had.unit) != (wanted.candidate, wanted.baseline, wanted.unit):
        return False
    if not _levels_cover(had.analysis, wanted.analysis) or _most(had) < _most(wanted):
        return False
    if _longest(had) < _longest(wanted):
        return False
    known = {watch.metric: watch for watch in watches(had, proof.metrics)}
    asked = [watch for watch in watches(wanted, metrics) if watch.role != "warning"]
    return all(watch.metric in known and _watch_covers(known[watch.metric], watch) for watch in asked)


def _levels_cover(had: Analysis, wanted: Analysis) -> bool:
    """A wrong advance was no likelier; harm and a mismatch of samples would have been seen no later."""
    return (
        had.alpha_advance <= wanted.alpha_advance
        and had.alpha_rollback >= wanted.alpha_rollback
        and had.alpha_srm >= wanted.alpha_srm
    )


def _most(plan: PlanBody) -> int:
    """Units that the stage asks for that asks for most."""
    return max((units_wanted(plan, stage) for stage in plan.stages if stage.cohort is None), default=0)


def _longest(plan: PlanBody) -> float:
    """Seconds of the stage that lasts longest."""
    stages = [stage for stage in plan.stages if stage.cohort is None]
    return max((duration(stage.min_duration).total_seconds() for stage in stages), default=0.0)


def _watch_covers(had: Watch, wanted: Watch) -> bool:
    """The same number, measured alike, with as narrow a margin; a signal is covered by a guardrail as well."""
    if had.role == "warning" or (wanted.role == "guardrail" and had.role != "guardrail"):
        return False
    measured = [
        (each.kind, each.direction, each.denominator, each.maturity, each.counts_timeouts, each.focus, each.bounds)
        for each in (had, wanted)
    ]
    if measured[0] != measured[1]:
        return False
    margins = _is_as_narrow(had.margin, wanted.margin) and _is_as_narrow(had.harm_margin, wanted.harm_margin)
    return margins and _is_as_low(had, wanted) and _budget_covers(had.budget, wanted.budget)


def _is_as_narrow(had: Margin, wanted: Margin) -> bool:
    """A share of the baseline and a difference do not compare, but for none at all."""
    return had.size <= wanted.size and (had.relative == wanted.relative or had.size == 0.0)


def _is_as_low(had: Watch, wanted: Watch) -> bool:
    """The ceiling, which is a floor where higher is better."""
    if wanted.ceiling is None:
        return True
    if had.ceiling is None:
        return False
    lower = wanted.direction == "lower_is_better"
    return had.ceiling <= wanted.ceiling if lower else had.ceiling >= wanted.ceiling


def _budget_covers(had: Budget | None, wanted: Budget | None) -> bool:
    limits = [(getattr(had, name, None), most) for name, most in msgspec.structs.asdict(wanted or Budget()).items()]
    return all(most is None or (limit is not None and limit <= most) for limit, most in limits)
