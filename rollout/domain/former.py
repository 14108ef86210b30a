"""Former attempts, folded into what the design effect still needs of them: a residual for each cluster cell.

An attempt that is over keeps neither its cells nor its histograms: the residuals of all former attempts of an arm add
up, because a unit is always in the same cell. So the state of a guardrail does not grow with the number of attempts.
"""

import numpy as np

from rollout.domain.cells import Cells
from rollout.domain.evidence import ARMS, ArmPast, Arms, GuardrailEvidence
from rollout.domain.kinds.base import Kind
from rollout.stats.design_effect import Clusters
from rollout_client.evaluation.ruleset import Arm

PARTS = 100.0
"""Of an event, in which residuals are kept in whole numbers: far finer than their noise, and the state stays small."""


def close_attempt(mine: GuardrailEvidence, kind: Kind, *, same_stage: bool) -> None:
    """The present attempt is over: its cells join the former ones.

    A kind that does not bet batch by batch judges a whole stage at once; it keeps the cells as long as the stage lasts.
    """
    if kind.keeps_stage and same_stage:
        return
    for arms in mine.cells.values():
        for arm in ARMS:
            _join(mine, arm, kind.clusters(arms.of(arm)))
    mine.cells = {}


def enter_former(mine: GuardrailEvidence, kind: Kind, arms: Arms) -> None:
    """Late outcomes of a former attempt: deviations from their own mean, which is that attempt's to within noise."""
    for arm in ARMS:
        _join(mine, arm, kind.clusters(arms.of(arm)))


def pooled(mine: GuardrailEvidence, kind: Kind, arm: Arm, present: Clusters) -> Clusters:
    """The cells of one arm over all attempts of the epoch, `present` being those of the present one."""
    past = mine.past.get(arm)
    return present if past is None else _clusters(past, kind.scores) + present


def _join(mine: GuardrailEvidence, arm: Arm, more: Clusters) -> None:
    if not more.counts.any():
        return
    before = mine.past.get(arm)
    both = more if before is None else _clusters(before, more.independent.size) + more
    rows = np.vstack([both.counts, both.residuals.T * PARTS])
    mine.past[arm] = ArmPast(cells=Cells.rounded(rows), independent=both.independent.tolist(), part=both.part.tolist())


def _clusters(past: ArmPast, scores: int) -> Clusters:
    counts, residuals = past.cells.row(0).astype(np.float64), past.cells.scores(scores)
    return Clusters(counts, residuals / PARTS, np.asarray(past.independent), np.asarray(past.part))
