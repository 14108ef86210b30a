"""Proportions: n requests, x of which had the event. Cells [n, x]."""

import numpy as np

from rollout.domain.cells import NO_CELLS, Cells
from rollout.domain.evidence import Arms, ArmSums, GuardrailEvidence
from rollout.domain.kinds.base import Factors, Floats
from rollout.domain.watch import Watch
from rollout.stats.design_effect import Clusters, clusters, support
from rollout.stats.margin import Margin
from rollout.stats.proportion import (
    ADVANCE_WEIGHTS,
    HARM_WEIGHTS,
    ControlHistory,
    Counts,
    both_log_factors,
    harm_log_factors,
)
from rollout_client.evaluation.evidence import MetricIncrement, SlotIncrement


class Proportion:
    """Counts events among requests; exactly valid (`rollout.stats.proportion`)."""

    harm_weights = HARM_WEIGHTS
    gate_weights: tuple[Floats, ...] = (ADVANCE_WEIGHTS,)
    scores = 1
    counts_requests = True
    keeps_stage = False

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def fold(self, mine: GuardrailEvidence, increment: MetricIncrement) -> ArmSums:
        """The outcomes that arrived."""
        return _sums(Cells.of(increment.cells))

    def mature(self, mine: GuardrailEvidence, minute: SlotIncrement) -> ArmSums:
        """N = everything started or exposed; x never exceeds it; open attempts may count as the failure."""
        metric = minute.metrics.get(self.watch.metric, MetricIncrement())
        due = minute.exposures if self.watch.denominator == "exposure" else minute.started
        if not due:
            return _sums(NO_CELLS)
        n, finished = Cells.counts(due).row(0), Cells.of(metric.cells)
        seen, x = finished.row(0), finished.row(1)
        open_failures = np.maximum(n - seen, 0) if self.watch.counts_timeouts else 0
        return _sums(Cells.holding(np.vstack([n, np.minimum(n, x + open_failures)])))

    def amount(self, arm: ArmSums) -> float:
        """Requests."""
        return arm.totals[0] if arm.totals else 0.0

    def awaits(self, mine: GuardrailEvidence) -> int:
        """Nothing is calibrated: it bets from the first request."""
        return 0

    def bet(self, mine: GuardrailEvidence, batch: Arms, gate: Margin | None) -> Factors:
        """On a guess of the baseline's rate."""
        candidate, baseline = _counts(batch.candidate), _counts(batch.baseline)
        guess = (ControlHistory(*batch.guessed) if batch.guessed is not None else history(mine)).guess
        direction = self.watch.direction
        if gate is None:
            return Factors(harm_log_factors(candidate, baseline, guess, self.watch.harm_margin, direction), None)
        return Factors(*both_log_factors((candidate, baseline), guess, self.watch.harm_margin, gate, direction))

    def learn(self, mine: GuardrailEvidence, baseline: ArmSums) -> None:
        """Events and requests, the older ones fading."""
        learned = history(mine).learn(_counts(baseline))
        mine.history = (learned.x, learned.n)

    def clusters(self, arm: ArmSums) -> Clusters:
        """One score: the event."""
        return clusters(arm.cells.row(0), arm.cells.scores(1), [arm.cells.total(1)], binary=True)

    def effective(self, arm: ArmSums) -> float:
        """Of events or of non-events, whichever rests on fewer."""
        n, events = arm.cells.row(0), arm.cells.row(1)
        return min(support(events), support(n - events))

    def tempering(self, effects: Floats) -> tuple[Floats, Floats]:
        """The same for all bets."""
        return np.full(HARM_WEIGHTS.size, effects[0]), np.full(ADVANCE_WEIGHTS.size, effects[0])


def history(mine: GuardrailEvidence) -> ControlHistory:
    """The baseline so far."""
    return ControlHistory(*mine.history) if mine.history is not None else ControlHistory()


def _counts(arm: ArmSums) -> Counts:
    return Counts(int(arm.totals[0]), int(arm.totals[1]))


def _sums(cells: Cells) -> ArmSums:
    return ArmSums(cells=cells, totals=[cells.total(0), cells.total(1)])
