"""One tick of evidence: increments in, e-processes forward. The order of bets never depends on an outcome.

Requests of a metric without maturity are bet as they arrive. A metric with maturity is bet once per minute of
exposure, when the minute's outcomes are due, with n = what was started or exposed in it (decision record 0001). An
interval in which one arm has no request is carried over and bet together with the next.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np

from rollout.domain.evidence import (
    ARMS,
    SECONDS_PER_SLOT,
    ArmCells,
    AttemptEvidence,
    CellCounts,
    Evidence,
    GuardrailEvidence,
    Increments,
    add_cells,
    merge_slot,
    totals,
)
from rollout.domain.rollout import Attempt
from rollout.domain.watch import Watch
from rollout.stats.margin import Margin
from rollout.stats.proportion import (
    ADVANCE_WEIGHTS,
    HARM_WEIGHTS,
    ControlHistory,
    Counts,
    advance_log_factors,
    harm_log_factors,
)
from rollout_client.evaluation.evidence import SlotIncrement
from rollout_client.evaluation.ruleset import Arm


class Round:
    """One tick: who is watched, which attempts of the epoch exist, which one is open, and the moment."""

    def __init__(
        self, watches: Sequence[Watch], attempts: Sequence[Attempt], margins: Mapping[str, Margin], now: datetime
    ) -> None:
        self.watches = watches
        self.attempts = {attempt.id: attempt for attempt in attempts}
        self.current = attempts[-1]
        self.margins = margins
        self.at = now.timestamp()


def gather(evidence: Evidence, increments: Increments, tick: Round) -> Evidence:
    """Take the increments of one tick into the evidence, which is consumed and returned.

    Increments of attempts outside the epoch are ignored (ingestion keeps them apart as orphans).
    """
    if evidence.epoch != tick.current.epoch:
        evidence = Evidence(epoch=tick.current.epoch, bets=evidence.bets)
    slow = [watch for watch in tick.watches if watch.maturity > 0]
    for attempt_id, arms in increments.items():
        attempt = tick.attempts.get(attempt_id)
        if attempt is None:
            continue
        for arm, increment in arms.items():
            for slot, added in increment.slots.items():
                _count_exposures(evidence, attempt, arm, added, tick.at)
                for watch in slow:
                    _count_late(evidence, watch, slot, added)
                if slow:
                    minute = evidence.open_slots.setdefault(attempt_id, {}).setdefault(slot, {})
                    merge_slot(minute.setdefault(arm, SlotIncrement()), _awaited(added, slow))
    for watch in tick.watches:
        mine = evidence.metrics.setdefault(watch.metric, GuardrailEvidence())
        fresh = (
            _due_minutes(evidence, mine, watch, tick) if watch.maturity > 0 else _as_they_come(increments, watch, tick)
        )
        _bet(mine, watch, tick, fresh)
        evidence.bets += bool(fresh)
    _drop_finished_minutes(evidence, slow)
    return evidence


def _count_exposures(evidence: Evidence, attempt: Attempt, arm: Arm, added: SlotIncrement, at: float) -> None:
    mine = evidence.attempts.get(attempt.id)
    if mine is None:
        mine = evidence.attempts[attempt.id] = AttemptEvidence(share=attempt.percentage / 100)
    mine.exposures[arm] += sum(added.exposures.values())
    mine.started[arm] += sum(added.started.values())
    add_cells(mine.first.of(arm), {cell: [count, 0] for cell, count in added.first_exposures.items()})
    if added.exposures:
        evidence.exposed_at = at


def _awaited(added: SlotIncrement, slow: Sequence[Watch]) -> SlotIncrement:
    """What an open minute must keep: its denominators, and the outcomes of slow metrics."""
    metrics = {watch.metric: added.metrics[watch.metric] for watch in slow if watch.metric in added.metrics}
    return SlotIncrement(exposures=added.exposures, started=added.started, metrics=metrics)


def _count_late(evidence: Evidence, watch: Watch, slot: int, added: SlotIncrement) -> None:
    """An outcome whose minute was already bet is shown, never bet."""
    mine = evidence.metrics.get(watch.metric)
    if mine is not None and slot <= mine.watermark:
        mine.late += sum(int(numbers[0]) for numbers in _cells(added, watch).values())


def _as_they_come(increments: Increments, watch: Watch, tick: Round) -> dict[str, ArmCells]:
    fresh: dict[str, ArmCells] = {}
    for attempt_id, arms in increments.items():
        if attempt_id not in tick.attempts:
            continue
        for arm, increment in arms.items():
            for slot in increment.slots.values():
                metric = slot.metrics.get(watch.metric)
                if metric is not None:
                    cells = fresh.setdefault(attempt_id, ArmCells()).of(arm)
                    add_cells(cells, {cell: [int(v[0]), int(v[1])] for cell, v in metric.cells.items()})
    return fresh


def _due_minutes(evidence: Evidence, mine: GuardrailEvidence, watch: Watch, tick: Round) -> dict[str, ArmCells]:
    due_until = int((tick.at - watch.maturity) // SECONDS_PER_SLOT) - 1
    fresh: dict[str, ArmCells] = {}
    for attempt_id, minutes in evidence.open_slots.items():
        for slot, arms in minutes.items():
            if mine.watermark < slot <= due_until:
                target = fresh.setdefault(attempt_id, ArmCells())
                for arm, increment in arms.items():
                    add_cells(target.of(arm), _outcomes(increment, watch))
    mine.watermark = max(mine.watermark, due_until)
    return fresh


def _outcomes(increment: SlotIncrement, watch: Watch) -> CellCounts:
    """N = everything started or exposed in the minute; x never exceeds it; open attempts may count as the failure."""
    recorded = _cells(increment, watch)
    due = increment.exposures if watch.denominator == "exposure" else increment.started
    counts: CellCounts = {}
    for cell, n in due.items():
        seen, x = (int(v) for v in recorded.get(cell, (0, 0)))
        open_failures = max(n - seen, 0) if watch.counts_timeouts else 0
        counts[cell] = [n, min(n, x + open_failures)]
    return counts


def _cells(increment: SlotIncrement, watch: Watch) -> dict[int, list[float]]:
    metric = increment.metrics.get(watch.metric)
    return metric.cells if metric is not None else {}


def _bet(mine: GuardrailEvidence, watch: Watch, tick: Round, fresh: dict[str, ArmCells]) -> None:
    """One factor per (tick, attempt, guardrail); then the baseline's counts teach the guess of the next tick."""
    if mine.gate_attempt != tick.current.id:
        mine.gate_attempt, mine.log_e_gate = tick.current.id, 0.0
        mine.gate = [0.0] * len(ADVANCE_WEIGHTS)
    history = ControlHistory(*mine.history)
    learned = history
    for attempt_id, cells in fresh.items():
        if any(cells.of(arm) for arm in ARMS):
            mine.seen_at = tick.at
        mine.cells.setdefault(attempt_id, ArmCells()).add(cells)
        waiting = mine.carried.setdefault(attempt_id, ArmCells())
        waiting.add(cells)
        candidate, baseline = Counts(*totals(waiting.candidate)), Counts(*totals(waiting.baseline))
        if not (candidate.n and baseline.n):
            continue
        del mine.carried[attempt_id]
        attempt = tick.attempts[attempt_id]
        factors = harm_log_factors(candidate, baseline, history.guess, watch.harm_margin, watch.direction)
        wealth = mine.harm.get(attempt.stage, [0.0] * len(HARM_WEIGHTS))
        mine.harm[attempt.stage] = (np.asarray(wealth) + factors).tolist()
        if attempt_id == tick.current.id:
            gate = advance_log_factors(candidate, baseline, history.guess, tick.margins[watch.metric], watch.direction)
            mine.gate = (np.asarray(mine.gate) + gate).tolist()
        learned = learned.learn(baseline)
    mine.history = (learned.x, learned.n)


def _drop_finished_minutes(evidence: Evidence, slow: list[Watch]) -> None:
    """A minute that every slow metric has bet is dropped; without slow metrics none is kept."""
    oldest = min((evidence.metrics[watch.metric].watermark for watch in slow), default=0)
    for attempt_id in list(evidence.open_slots):
        minutes = evidence.open_slots[attempt_id]
        for slot in [slot for slot in minutes if slot <= oldest]:
            del minutes[slot]
        if not minutes:
            del evidence.open_slots[attempt_id]
