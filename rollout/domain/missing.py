"""Missing evidence: every sort has a name, a policy, a patience and a sentence; none is ever a pass.

Patience is of one sort: a metric that nobody met all night and that is not observed in the morning has the whole
patience of `no_data` before it.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, get_args

import msgspec

from rollout.domain.decision import Decision, Reason, Situation
from rollout.domain.document import duration
from rollout.domain.explain import span
from rollout.domain.judge import Judgement, Reading, SourceFailure, Verdict
from rollout.domain.plan import MissingVerdict, OnMissing, PlanBody, lease_seconds
from rollout.domain.rollout import EXPOSED, Absence, State
from rollout.domain.watch import Watch

VERDICTS: frozenset[str] = frozenset(get_args(MissingVerdict))
BLIND: Mapping[Verdict, str] = {
    "no_traffic": "no request has reached this stage for {patience}",
    "no_data": "requests arrived, and no outcome of {metric} came for {patience} after the first ones were due",
    "stale": "requests arrive, and the newest outcome of {metric} is older than {patience}",
    "error": "the source of {metric} has failed for {patience}{said}",
    "insufficient": "what has come of {metric} has been too little to judge for {patience}",
}


def patience_of(plan: PlanBody) -> timedelta:
    """How long evidence may be absent before it counts as missing: the lease, or 15 minutes without one."""
    return duration("15m" if plan.lease == "none" else plan.lease)


def missing_now(judgement: Judgement, state: State, now: datetime) -> dict[str, Absence]:
    """Since when each watched metric has had no evidence, and of which sort."""
    found = {}
    for reading in judgement.readings:
        if reading.verdict not in VERDICTS:
            continue
        sort, before = _sort(reading.verdict), state.missing.get(reading.metric)
        same = before is not None and before.sort == sort
        found[reading.metric] = before if before is not None and same else Absence(sort=sort, since=now)
    return found


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """What the plan does at a moment about evidence that has been missing `since`, unless it comes before."""

    metric: str
    verdict: Verdict
    then: OnMissing
    since: datetime
    at: datetime


def pending(
    plan: PlanBody, state: State, judgement: Judgement, watches: Sequence[Watch], now: datetime
) -> Iterator[Pending]:
    """What the policies of guardrails whose evidence is missing come to, those included whose moment has passed.

    While nobody is exposed there is nothing to take away, and no wonder that nothing comes: a kill must not end a
    rollout by the quiet that it makes. A source that fails goes on failing while the exposure has lapsed for it.
    """
    if state.withheld or state.retreat_at is not None or state.status not in EXPOSED:
        return
    readings, waived = {reading.metric: reading for reading in judgement.readings}, state.waived(now)
    for watch in watches:
        reading, absence = readings.get(watch.metric), state.missing.get(watch.metric)
        if reading is None or absence is None or watch.role != "guardrail" or watch.metric in waived:
            continue
        policy = watch.policy(reading.verdict)
        if policy is None or policy.then == "hold" or (policy.then == "pause" and state.status == "paused"):
            continue
        if absence.sort != _sort(reading.verdict) or (state.blind and reading.verdict != "error"):
            continue
        patience = patience_of(plan) if policy.after is None else timedelta(seconds=policy.after)
        yield Pending(
            metric=watch.metric, verdict=reading.verdict, then=policy.then, since=absence.since,
            at=absence.since + patience,
        )  # fmt: skip


def on_missing(situation: Situation) -> Decision | None:
    """The policy of the first guardrail whose evidence has been missing for longer than its patience."""
    plan, state, judgement, now = situation.plan, situation.state, situation.judgement, situation.now
    for each in pending(plan, state, judgement, situation.watches, now):
        if now < each.at:
            continue
        reading = next(reading for reading in judgement.readings if reading.metric == each.metric)
        said = f"{_said(reading, each.at - each.since)}; the plan says {each.then}"
        return Decision(kind=each.then, reasons=(Reason("missing", said, each.metric),))
    return None


def is_blind(plan: PlanBody, state: State, judgement: Judgement, now: datetime) -> bool:
    """Whether a source has failed for a whole lease, so that the engine cannot see what it exposes people to."""
    lease = lease_seconds(plan)
    if lease is None or not state.exposed:
        return False
    since = [
        absence.since
        for reading in judgement.readings
        if reading.role == "guardrail"
        and reading.verdict == "error"
        and reading.metric not in state.waived(now)
        and (absence := state.missing.get(reading.metric)) is not None
    ]
    return bool(since) and (now - min(since)).total_seconds() >= lease


def lapse_reason(plan: PlanBody, judgement: Judgement) -> str:
    """Why the exposure lapses when it `is_blind`, as a sentence."""
    said = [f"{each.metric} ({each.source_error})" for each in judgement.readings if each.verdict == "error"]
    return f"the source of {', '.join(said)} has failed for the lease of {plan.lease}; nobody is exposed"


def still_blind(plan: PlanBody, state: State, failing: Mapping[str, SourceFailure], now: datetime) -> bool:
    """Whether a source that a guardrail rests on fails still, as often in a row as it may not.

    What is only warned of, and what a person answers for, took nothing away and holds nothing back.
    """
    waived = state.waived(now)
    return any(
        each.metric in failing and failing[each.metric].times >= each.error_limit
        for each in plan.guardrails
        if each.on_breach != "warn" and each.metric not in waived
    )


def _sort(verdict: Verdict) -> Literal["no_traffic", "insufficient", "unseen"]:
    match verdict:
        case "no_traffic" | "insufficient":
            return verdict
        case _:
            return "unseen"


def _said(reading: Reading, patience: timedelta) -> str:
    said = f" ({reading.source_error})" if reading.source_error else ""
    return BLIND[reading.verdict].format(metric=reading.metric, patience=span(patience), said=said)
