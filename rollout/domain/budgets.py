"""Budgets: what the candidate has spent of a metric, in a day and in a stage, and whether its level is beyond a limit.

Sums of what arrived, as it arrives: no test and no error rate. They outlive an epoch, since money does.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from rollout.domain.ceilings import is_beyond, observe_level
from rollout.domain.evidence import SECONDS_PER_SLOT, ArmSums, Evidence, GuardrailEvidence, Increments
from rollout.domain.kinds import kind_of
from rollout.domain.rollout import Attempt, State
from rollout.domain.watch import Watch
from rollout.stats.mixture import rounded

SLOTS_PER_DAY = 86_400 // SECONDS_PER_SLOT


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """What the candidate spent today (UTC) and in the present stage; `over` says which budget is spent, if any."""

    day: float
    stage: float
    over: str | None = None


def count_spending(
    evidence: Evidence, watch: Watch, increments: Increments, attempts: dict[str, Attempt], now: datetime
) -> None:
    """Add what one tick brought of a metric with a budget. Yesterday is kept for batches that come late."""
    if watch.budget is None:
        return
    mine = evidence.metrics.setdefault(watch.metric, GuardrailEvidence())
    today = _day(now)
    for attempt_id, arms in increments.items():
        attempt = attempts.get(attempt_id)
        if attempt is None or "candidate" not in arms:
            continue
        for slot, seen in arms["candidate"].slots.items():
            increment = seen.metrics.get(watch.metric)
            totals = kind_of(watch).fold(mine, increment).totals if increment is not None else []
            if len(totals) < 2 or not totals[1]:
                continue
            day = slot // SLOTS_PER_DAY
            mine.spent_by_day[day] = rounded(mine.spent_by_day.get(day, 0.0) + totals[1])
            mine.spent_by_stage[attempt.stage] = rounded(mine.spent_by_stage.get(attempt.stage, 0.0) + totals[1])
    mine.spent_by_day = {day: spent for day, spent in mine.spent_by_day.items() if day >= today - 1}


def watch_level(mine: GuardrailEvidence, watch: Watch, candidate: ArmSums) -> None:
    """Take fresh outcomes of the candidate into the detector of a budget per request."""
    if watch.budget is not None and watch.budget.per_request is not None:
        mine.level = observe_level(mine, watch, candidate, (watch.budget.per_request, None), mine.level)


def spending_of(mine: GuardrailEvidence, watch: Watch, stage: int, now: datetime) -> Spending | None:
    """What is spent at this moment; None for a metric without a budget."""
    if watch.budget is None:
        return None
    day, in_stage = mine.spent_by_day.get(_day(now), 0.0), mine.spent_by_stage.get(stage, 0.0)
    budget, over = watch.budget, None
    if budget.per_day is not None and day > budget.per_day:
        over = f"{day:.6g} spent today of a budget of {budget.per_day:g} per day"
    elif budget.per_stage is not None and in_stage > budget.per_stage:
        over = f"{in_stage:.6g} spent in this stage of a budget of {budget.per_stage:g} per stage"
    elif budget.per_request is not None and is_beyond(mine.level):
        over = f"the candidate's mean is beyond the budget of {budget.per_request:g} per request"
    return Spending(day=day, stage=in_stage, over=over)


def spent_budget(evidence: Evidence, watches: Sequence[Watch], state: State, now: datetime) -> str | None:
    """What takes the exposure away again as soon as it is given back: a sum that only time or a waiver forgives."""
    waived = state.waived(now)
    for watch in watches:
        mine = evidence.metrics.get(watch.metric)
        if mine is None or watch.role != "guardrail" or watch.metric in waived:
            continue
        fresh = msgspec.structs.replace(mine, level=[])  # that of a new attempt
        spending = spending_of(fresh, watch, state.stage, now)
        if spending is not None and spending.over is not None:
            return f"{watch.metric}: {spending.over}"
    return None


def _day(now: datetime) -> int:
    return int(now.timestamp()) // 86_400
