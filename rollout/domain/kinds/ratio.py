"""Ratios per unit (cost per request of a unit): judged from the cells of a whole stage. Cells [sum of y, sum of d]."""

import numpy as np

from rollout.domain.cells import NO_CELLS, Cells
from rollout.domain.evidence import ARMS, Arms, ArmSums, GuardrailEvidence
from rollout.domain.kinds.base import Factors, Floats
from rollout.domain.watch import Watch
from rollout.stats.design_effect import Clusters, no_clusters
from rollout.stats.margin import Margin
from rollout.stats.ratio import CellSums
from rollout_client.evaluation.evidence import MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Arm


class RatioPerUnit:
    """Compares sum y / sum d between the arms with the variance between cells; asymptotic (`rollout.stats.ratio`)."""

    harm_weights: Floats = np.zeros(0)
    gate_weights: tuple[Floats, ...] = ()
    scores = 0
    counts_requests = False
    keeps_stage = True

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def fold(self, mine: GuardrailEvidence, increment: MetricIncrement) -> ArmSums:
        """The sums that arrived; their squares within a cell say nothing about units."""
        cells = Cells.of({cell: numbers[:2] for cell, numbers in increment.cells.items()}, whole=False)
        return ArmSums(cells=cells, totals=[cells.total(0), cells.total(1)])

    def mature(self, mine: GuardrailEvidence, minute: SlotIncrement) -> ArmSums:
        """The sums that arrived in time."""
        return self.fold(mine, minute.metrics.get(self.watch.metric, MetricIncrement()))

    def amount(self, arm: ArmSums) -> float:
        """The denominator."""
        return arm.totals[1] if arm.totals else 0.0

    def awaits(self, mine: GuardrailEvidence) -> int:
        """Nothing is calibrated; few units are guarded against by the test itself."""
        return 0

    def bet(self, mine: GuardrailEvidence, batch: Arms, gate: Margin | None) -> Factors:
        """Nothing is bet batch by batch: the same units recur, so their sums are joined first."""
        return Factors(self.harm_weights, None)

    def learn(self, mine: GuardrailEvidence, baseline: ArmSums) -> None:
        """There is no guess to teach."""

    def clusters(self, arm: ArmSums) -> Clusters:
        """None: the variance between cells is in the test already."""
        return no_clusters(0)

    def effective(self, arm: ArmSums) -> float:
        """As many as it takes: the test guards itself."""
        return float("inf")

    def tempering(self, effects: Floats) -> tuple[Floats, Floats]:
        """No bet to temper."""
        return self.harm_weights, self.harm_weights


def stage_cells(mine: GuardrailEvidence, arm: Arm) -> CellSums:
    """The cells of one arm over all attempts of the present stage."""
    return _pair(sum((arms.of(arm).cells for arms in mine.cells.values()), NO_CELLS))


def attempt_cells(mine: GuardrailEvidence, attempt: str) -> tuple[CellSums, CellSums]:
    """The candidate's and the baseline's cells of one attempt."""
    arms = mine.cells.get(attempt, Arms())
    candidate, baseline = (_pair(arms.of(arm).cells) for arm in ARMS)
    return candidate, baseline


def _pair(cells: Cells) -> CellSums:
    return CellSums(cells.row(0).astype(np.float64), cells.row(1).astype(np.float64))
