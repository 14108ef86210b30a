"""Looks at minutes that are not due yet: what is still in flight is settled against the evidence.

A proportion of attempts with a maturity is bet once per minute of exposure, when the minute is due. Until then its
open minutes are bet provisionally at every look, valid whatever the arms' delays (`rollout.stats.in_flight`): so a
catastrophe need not wait for the slowest attempt. Nothing of it is stored but the guess of each minute, made when the
minute is first seen, from what was known of earlier ones.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rollout.domain.evidence import ARMS, Evidence, GuardrailEvidence
from rollout.domain.kinds.base import Floats
from rollout.domain.kinds.proportion import history
from rollout.domain.watch import Watch
from rollout.stats.betting import Batch, settle
from rollout.stats.design_effect import CELLS
from rollout.stats.guess import mix_guesses
from rollout.stats.in_flight import Side, Started, settled_against
from rollout.stats.margin import Margin
from rollout.stats.proportion import ControlHistory, advance_bets, harm_bets
from rollout_client.evaluation.evidence import MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Arm

MOST_MINUTES = 30
"""Open minutes looked at, the oldest first: a look stays cheap under a maturity of hours."""
GUESSES = 4

Minutes = Mapping[int, Mapping[Arm, SlotIncrement]]


class Open(NamedTuple):
    """Open minutes in order: their slots, and the log factors of each for harm (M, 12) and for the gate (M, 6).

    `started` counts what was started in them by arm and cell, (2, 256): the candidate's first.
    """

    slots: tuple[int, ...]
    harm: Floats
    gate: Floats
    started: Floats


def looks_ahead(watch: Watch) -> bool:
    """Whether open minutes are looked at: behaviour after an exposure has no attempt that could be in flight."""
    return watch.kind == "proportion" and watch.maturity > 0 and watch.denominator == "attempt"


def guess_minutes(evidence: Evidence, mine: GuardrailEvidence, watch: Watch) -> None:
    """Make the guess of each minute that is seen for the first time; forget those of minutes that were bet."""
    if not looks_ahead(watch):
        return
    open_now = sorted({slot for minutes in evidence.open_slots.values() for slot in minutes if slot > mine.watermark})
    mine.guesses = {slot: guess for slot, guess in mine.guesses.items() if slot > mine.watermark}
    if all(slot in mine.guesses for slot in open_now):  # a look in between: there may be hours of minutes to add up
        return
    known = history(mine)
    x, n = known.x, known.n
    for slot in open_now:
        mine.guesses.setdefault(slot, (x, n))
        for minutes in evidence.open_slots.values():
            finished = _finished(minutes.get(slot, {}).get("baseline"), watch)
            x, n = x + finished[1], n + finished[0]


def open_minutes(evidence: Evidence, mine: GuardrailEvidence, watch: Watch, gate: Margin) -> Open | None:
    """The present attempt's open minutes, bet as if all in flight spoke against the evidence; None without any."""
    minutes = evidence.open_slots.get(mine.gate_attempt, {})
    usable = [slot for slot in sorted(minutes) if slot > mine.watermark and slot in mine.guesses]
    rows = {s: [number for arm in ARMS for number in _started(minutes, s, arm, watch)] for s in usable[:MOST_MINUTES]}
    slots = [slot for slot, row in rows.items() if row[0] and row[3]]  # both arms have started something
    if not slots:
        return None
    counts = np.array([rows[slot] for slot in slots])
    started = Started(counts[:, 0], counts[:, 3])
    finished = Batch(counts[:, 1], counts[:, 2], counts[:, 4], counts[:, 5])
    guesses = [ControlHistory(*mine.guesses[slot]).guess for slot in slots]
    rates = np.array([(guess.rates * GUESSES)[:GUESSES] for guess in guesses])
    weights = np.array([guess.weights if len(guess.weights) > 1 else (1.0 / GUESSES,) * GUESSES for guess in guesses])

    def factors(side: Side, margin: Margin) -> Floats:
        batch = settled_against(started, finished, side, watch.direction)
        make = harm_bets if side == "harm" else advance_bets
        n_t, n_c = np.asarray(batch.n_t)[:, None], np.asarray(batch.n_c)[:, None]
        bets = make(n_t, n_c, rates, margin, watch.direction)
        columns = Batch(*(np.asarray(column)[:, None] for column in batch))
        return mix_guesses(settle(bets, columns), weights)

    by_cell = np.stack([_by_cell(minutes, slots, arm) for arm in ARMS])
    return Open(tuple(slots), factors("harm", watch.harm_margin), factors("advance", gate), by_cell)


def _by_cell(minutes: Minutes, slots: Sequence[int], arm: Arm) -> Floats:
    counts = np.zeros(CELLS)
    for slot in slots:
        found = minutes[slot].get(arm)
        for cell, count in found.started.items() if found is not None else ():
            counts[cell] += count
    return counts


def _started(minutes: Minutes, slot: int, arm: Arm, watch: Watch) -> Sequence[int]:
    """(started, finished, events) of one arm in one minute; what finished has started, whoever counted it."""
    found = minutes[slot].get(arm)
    n, x = _finished(found, watch)
    return max(n, sum(found.started.values()) if found is not None else 0), n, x


def _finished(found: SlotIncrement | None, watch: Watch) -> tuple[int, int]:
    cells = found.metrics.get(watch.metric, MetricIncrement()).cells.values() if found is not None else ()
    return sum(int(numbers[0]) for numbers in cells), sum(int(numbers[1]) for numbers in cells)
