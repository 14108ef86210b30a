"""Count rates: events in an exposure (requests, seconds). Cells [exposure, events]."""

import numpy as np

from rollout.domain.cells import Cells
from rollout.domain.evidence import Arms, ArmSums, GuardrailEvidence
from rollout.domain.kinds.base import Factors, Floats
from rollout.domain.watch import Watch
from rollout.stats.count_rate import (
    Exposed,
    RateGuess,
    advance_log_factors,
    guess_rate,
    harm_log_factors,
)
from rollout.stats.design_effect import Clusters, rate_clusters, support
from rollout.stats.margin import Margin
from rollout.stats.proportion import ADVANCE_WEIGHTS, HARM_WEIGHTS
from rollout_client.evaluation.evidence import MetricIncrement, SlotIncrement

MEMORY_EVENTS = 20_000.0
"""Baseline events that the guess remembers."""


class CountRate:
    """Counts events against exposure; exact for Poisson counts, tempered where they clump."""

    harm_weights = HARM_WEIGHTS
    gate_weights: tuple[Floats, ...] = (ADVANCE_WEIGHTS,)
    scores = 1
    counts_requests = False
    keeps_stage = False

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def fold(self, mine: GuardrailEvidence, increment: MetricIncrement) -> ArmSums:
        """The exposure and events that arrived."""
        return _sums(Cells.of(increment.cells, whole=False))

    def mature(self, mine: GuardrailEvidence, minute: SlotIncrement) -> ArmSums:
        """Exposure = what was observed, or the minute's exposures for behaviour."""
        metric = minute.metrics.get(self.watch.metric, MetricIncrement())
        if self.watch.denominator != "exposure":
            return self.fold(mine, metric)
        counted = {cell: (n, metric.cells.get(cell, (0, 0))[1]) for cell, n in minute.exposures.items()}
        return _sums(Cells.of(counted, whole=False))

    def amount(self, arm: ArmSums) -> float:
        """Exposure."""
        return arm.totals[0] if arm.totals else 0.0

    def awaits(self, mine: GuardrailEvidence) -> int:
        """Nothing is calibrated."""
        return 0

    def bet(self, mine: GuardrailEvidence, batch: Arms, gate: Margin | None) -> Factors:
        """A relative line needs no guess; an absolute one has its own scale for a first guess."""
        arms = (_exposed(batch.candidate), _exposed(batch.baseline))
        direction, line = self.watch.direction, self.watch.harm_margin
        harm = harm_log_factors(*arms, _guess(mine, line), line, direction)
        if gate is None:
            return Factors(harm, None)
        return Factors(harm, advance_log_factors(*arms, _guess(mine, gate), gate, direction))

    def learn(self, mine: GuardrailEvidence, baseline: ArmSums) -> None:
        """Events and exposure, the older ones fading."""
        events, exposure = mine.history or (0.0, 0.0)
        events, exposure = events + baseline.totals[1], exposure + baseline.totals[0]
        keep = min(1.0, MEMORY_EVENTS / events) if events > 0.0 else 1.0
        mine.history = (events * keep, exposure * keep)

    def clusters(self, arm: ArmSums) -> Clusters:
        """One score: events around their rate."""
        return rate_clusters(arm.cells.row(0), arm.cells.row(1))

    def effective(self, arm: ArmSums) -> float:
        """Of the events."""
        return support(arm.cells.row(1))

    def tempering(self, effects: Floats) -> tuple[Floats, Floats]:
        """The same for all bets."""
        return np.full(HARM_WEIGHTS.size, effects[0]), np.full(ADVANCE_WEIGHTS.size, effects[0])


def _guess(mine: GuardrailEvidence, margin: Margin) -> RateGuess | None:
    if margin.relative or margin.size == 0.0:
        return None
    events, exposure = mine.history or (0.0, 0.0)
    return guess_rate(Exposed(exposure, events), margin)


def _exposed(arm: ArmSums) -> Exposed:
    return Exposed(float(arm.totals[0]), float(arm.totals[1]))


def _sums(cells: Cells) -> ArmSums:
    return ArmSums(cells=cells, totals=[cells.total(0), cells.total(1)])
