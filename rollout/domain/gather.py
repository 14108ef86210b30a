"""One tick of evidence: increments in, e-processes forward. The order of bets never depends on an outcome.

Requests of a metric without maturity are bet as they arrive. A metric with maturity is bet once per minute of
exposure, when the minute's outcomes are due, with n = what was started or exposed in it (decision record 0001). An
interval in which one arm has no request is carried over and bet together with the next. How a metric is counted and
bet is its kind's business (`kinds`).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np

from rollout.domain.budgets import count_spending, watch_level
from rollout.domain.ceilings import watch_ceiling
from rollout.domain.cells import Cells
from rollout.domain.evidence import (
    ARMS,
    SECONDS_PER_SLOT,
    Arms,
    AttemptEvidence,
    Evidence,
    GuardrailEvidence,
    Increments,
    SampleRatio,
    added,
    merge_slot,
)
from rollout.domain.former import close_attempt, enter_former
from rollout.domain.in_flight import guess_minutes
from rollout.domain.kinds import Kind, kind_of
from rollout.domain.kinds.base import Floats
from rollout.domain.rollout import Attempt
from rollout.domain.watch import Watch
from rollout.stats.margin import Margin
from rollout.stats.mixture import LOG_DECIMALS
from rollout.stats.samples import srm_design_effect
from rollout_client.evaluation.evidence import MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Arm

WEALTH_DECIMALS = 7


class Round:
    """One tick: who is watched, which attempts of the epoch exist, which one is open, and the moment.

    `former`: attempts of earlier epochs, of which nothing but their spending still counts.
    """

    def __init__(
        self,
        watches: Sequence[Watch],
        attempts: Sequence[Attempt],
        margins: Mapping[str, Margin],
        now: datetime,
        former: Sequence[Attempt] = (),
    ) -> None:
        self.watches = watches
        self.attempts = {attempt.id: attempt for attempt in attempts}
        self.spending = {attempt.id: attempt for attempt in (*former, *attempts)}
        self.current = attempts[-1]
        self.margins = margins
        self.now, self.at = now, now.timestamp()


def gather(evidence: Evidence, increments: Increments, tick: Round) -> Evidence:
    """Take the increments of one tick into the evidence, which is consumed and returned.

    Increments of attempts outside the epoch say nothing any more but what was spent (ingestion keeps later ones apart
    as orphans).
    """
    if evidence.epoch != tick.current.epoch:
        evidence = _next_epoch(evidence, tick.current.epoch)
    _close_former(evidence, tick)
    slow = [watch for watch in tick.watches if watch.maturity > 0]
    for attempt_id, arms in increments.items():
        attempt = tick.attempts.get(attempt_id)
        if attempt is None:
            continue
        for arm, increment in arms.items():
            for slot, added_here in increment.slots.items():
                _count_exposures(evidence, (attempt, arm), added_here, tick)
                for watch in slow:
                    _count_late(evidence, watch, slot, added_here)
                if slow:
                    minute = evidence.open_slots.setdefault(attempt_id, {}).setdefault(slot, {})
                    merge_slot(minute.setdefault(arm, SlotIncrement()), _awaited(added_here, slow))
    for watch in tick.watches:
        mine, kind = evidence.metrics.setdefault(watch.metric, GuardrailEvidence()), kind_of(watch)
        _open_attempt(mine, kind, tick)
        count_spending(evidence, watch, increments, tick.spending, tick.now)
        guess_minutes(evidence, mine, watch)
        if watch.maturity > 0:
            fresh = _due_minutes(evidence, mine, watch, tick)
        else:
            fresh = _as_they_come(increments, mine, watch, tick)
        for batch in fresh:
            _take(mine, watch, tick, batch)
        evidence.bets += bool(fresh)
    _drop_finished_minutes(evidence, slow)
    return evidence


def _next_epoch(evidence: Evidence, epoch: int) -> Evidence:
    """Fresh e-processes; what the baseline taught stays, for it is no evidence and what was frozen must not move.

    So does what was spent: no epoch gives money back.
    """
    metrics = {
        name: GuardrailEvidence(
            history=mine.history,
            histogram=mine.histogram,
            calibration=mine.calibration,
            frozen=mine.frozen,
            spent_by_day=mine.spent_by_day,
            spent_by_stage=mine.spent_by_stage,
        )
        for name, mine in evidence.metrics.items()
    }
    return Evidence(epoch=epoch, bets=evidence.bets, metrics=metrics)


def _count_exposures(evidence: Evidence, placed: tuple[Attempt, Arm], seen: SlotIncrement, tick: Round) -> None:
    attempt, arm = placed
    mine = evidence.attempts.get(attempt.id)
    if mine is None:
        mine = evidence.attempts[attempt.id] = AttemptEvidence()
    mine.exposures[arm] += sum(seen.exposures.values())
    mine.started[arm] += sum(seen.started.values())
    sample = evidence.samples.setdefault(attempt.stage, SampleRatio(share=attempt.percentage / 100))
    sample.counts[arm] += sum(seen.first_exposures.values())
    if attempt.stage == tick.current.stage:
        sample.add(arm, Cells.counts(seen.first_exposures))
    if seen.exposures:
        evidence.exposed_at = tick.at


def _close_former(evidence: Evidence, tick: Round) -> None:
    """Of the first exposures of a former stage, their design effect is kept, and no cells."""
    for stage, sample in evidence.samples.items():
        if stage != tick.current.stage and any(sample.cells.values()):
            if 0.0 < sample.share < 1.0:
                effect = srm_design_effect(sample.of("candidate").row(0), sample.of("baseline").row(0), sample.share)
                sample.effect = max(sample.effect, round(effect, LOG_DECIMALS))  # a stage may be entered twice
            sample.cells = {}


def _awaited(seen: SlotIncrement, slow: Sequence[Watch]) -> SlotIncrement:
    """What an open minute must keep: its denominators, and the outcomes of slow metrics."""
    metrics = {watch.metric: seen.metrics[watch.metric] for watch in slow if watch.metric in seen.metrics}
    return SlotIncrement(exposures=seen.exposures, started=seen.started, metrics=metrics)


def _count_late(evidence: Evidence, watch: Watch, slot: int, seen: SlotIncrement) -> None:
    """An outcome whose minute was already bet is shown, never bet."""
    mine = evidence.metrics.get(watch.metric)
    if mine is not None and slot <= mine.watermark:
        late = seen.metrics.get(watch.metric, MetricIncrement())
        mine.late += sum(int(numbers[0]) for numbers in late.cells.values())


def _as_they_come(increments: Increments, mine: GuardrailEvidence, watch: Watch, tick: Round) -> list[tuple[str, Arms]]:
    kind = kind_of(watch)
    fresh: dict[str, Arms] = {}
    for attempt_id, arms in increments.items():
        if attempt_id not in tick.attempts:
            continue
        for arm, increment in arms.items():
            for slot in increment.slots.values():
                metric = slot.metrics.get(watch.metric)
                if metric is not None:
                    fresh.setdefault(attempt_id, Arms()).of(arm).add(kind.fold(mine, metric))
    return list(fresh.items())


def _due_minutes(evidence: Evidence, mine: GuardrailEvidence, watch: Watch, tick: Round) -> list[tuple[str, Arms]]:
    """Minutes whose outcomes are due, in order; each is a batch of its own, on the guess that was made for it."""
    kind = kind_of(watch)
    due_until = int((tick.at - watch.maturity) // SECONDS_PER_SLOT) - 1
    due = sorted(
        (slot, attempt_id)
        for attempt_id, minutes in evidence.open_slots.items()
        for slot in minutes
        if mine.watermark < slot <= due_until
    )
    fresh = []
    for slot, attempt_id in due:
        batch = Arms(guessed=mine.guesses.get(slot))
        for arm, increment in evidence.open_slots[attempt_id][slot].items():
            batch.of(arm).add(kind.mature(mine, increment))
        fresh.append((attempt_id, batch))
    mine.watermark = max(mine.watermark, due_until)
    return fresh


def _open_attempt(mine: GuardrailEvidence, kind: Kind, tick: Round) -> None:
    """A new attempt starts its gate afresh; the cells of the one before join the former ones.

    So does the detector of a budget per request: while the exposure was away nothing came that could have cleared it.
    """
    if mine.gate_attempt == tick.current.id:
        return
    before = tick.attempts.get(mine.gate_attempt)
    close_attempt(mine, kind, same_stage=before is not None and before.stage == tick.current.stage)
    mine.gate_attempt, mine.log_e_gate, mine.level = tick.current.id, 0.0, []
    mine.gate = [0.0] * sum(weights.size for weights in kind.gate_weights)
    mine.gate_best = [0.0] * len(kind.gate_weights)


def _take(mine: GuardrailEvidence, watch: Watch, tick: Round, fresh: tuple[str, Arms]) -> None:
    """One factor per (tick or minute, attempt, guardrail); then the baseline teaches the guesses of the next one."""
    kind, (attempt_id, arms) = kind_of(watch), fresh
    if any(any(arms.of(arm).totals) for arm in ARMS):
        mine.seen_at = tick.at
    totals = mine.totals.setdefault(attempt_id, {})
    for arm in ARMS:
        totals[arm] = added(totals.get(arm, ()), arms.of(arm).totals)
    if attempt_id == tick.current.id:
        watch_ceiling(mine, watch, arms.candidate)
        watch_level(mine, watch, arms.candidate)
    if attempt_id == tick.current.id or attempt_id in mine.cells:
        known = mine.cells.setdefault(attempt_id, Arms())
        for arm in ARMS:
            known.of(arm).add_cells(arms.of(arm))
    else:
        enter_former(mine, kind, arms)
    batch = _carried(mine, kind, attempt_id, arms)
    if batch is None:
        return
    if kind.awaits(mine) == 0:
        _bet(mine, watch, tick, (tick.attempts[attempt_id], batch))
    kind.learn(mine, batch.baseline)


def _carried(mine: GuardrailEvidence, kind: Kind, attempt_id: str, arms: Arms) -> Arms | None:
    """The batch to bet: what was carried over and what came, once both arms have something; None until then.

    While a metric is being calibrated nothing is bet, so nothing need be carried: the baseline teaches at once.
    """
    batch = mine.carried.pop(attempt_id, None)
    if batch is None:
        batch = arms
    else:
        batch.add(arms)
    if kind.awaits(mine) == 0 and not all(kind.amount(batch.of(arm)) for arm in ARMS):
        mine.carried[attempt_id] = batch
        return None
    return batch


def _bet(mine: GuardrailEvidence, watch: Watch, tick: Round, placed: tuple[Attempt, Arms]) -> None:
    attempt, batch = placed
    if not kind_of(watch).harm_weights.size:  # judged from the cells of the whole stage, not batch by batch
        return
    of_gate = attempt.id == tick.current.id
    factors = kind_of(watch).bet(mine, batch, tick.margins[watch.metric] if of_gate else None)
    wealth = mine.harm.get(attempt.stage, [0.0] * factors.harm.size)
    mine.harm[attempt.stage] = _kept(np.asarray(wealth) + factors.harm)
    for arm in ARMS:
        mine.staked[arm] = mine.staked.get(arm, 0.0) + kind_of(watch).amount(batch.of(arm))
    if factors.gate is not None:
        mine.gate = _kept(np.asarray(mine.gate) + factors.gate)


def _kept(wealth: Floats) -> list[float]:
    """Log wealth as it is stored: a hundred thousand roundings add up to some 1e-5."""
    return [float(value) for value in np.round(wealth, WEALTH_DECIMALS) + 0.0]


def _drop_finished_minutes(evidence: Evidence, slow: list[Watch]) -> None:
    """A minute that every slow metric has bet is dropped; without slow metrics none is kept."""
    oldest = min((evidence.metrics[watch.metric].watermark for watch in slow), default=0)
    for attempt_id in list(evidence.open_slots):
        minutes = evidence.open_slots[attempt_id]
        for slot in [slot for slot in minutes if slot <= oldest]:
            del minutes[slot]
        if not minutes:
            del evidence.open_slots[attempt_id]
