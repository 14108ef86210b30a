"""Former attempts, folded into what the design effect still needs of them: a residual for each cluster cell.

An attempt that is over keeps neither its cells nor its histograms: the residuals of all former attempts of an arm add
up, because a unit is always in the same cell. So the state of a guardrail does not grow with the number of attempts.
"""

import numpy as np

from rollout.domain.evidence import ARMS, ArmPast, Arms, GuardrailEvidence
from rollout.domain.kinds.base import Kind
from rollout.stats.design_effect import CELLS, Clusters, no_clusters
from rollout_client.evaluation.ruleset import Arm

DIGITS = 6
"""Of a residual: far below one request, and the state stays small."""


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


def pooled(mine: GuardrailEvidence, kind: Kind, arm: Arm) -> Clusters:
    """The cells of one arm over all attempts of the epoch."""
    found = _restored(mine.past.get(arm), kind)
    for arms in mine.cells.values():
        found = found + kind.clusters(arms.of(arm))
    return found


def _join(mine: GuardrailEvidence, arm: Arm, more: Clusters) -> None:
    if not more.counts.any():
        return
    before = mine.past.get(arm)
    both = more if before is None else _clusters(before, more.independent.size) + more
    cells = {
        int(cell): [float(both.counts[cell]), *np.round(both.residuals[cell], DIGITS).tolist()]
        for cell in np.flatnonzero(both.counts)
    }
    mine.past[arm] = ArmPast(cells=cells, independent=both.independent.tolist(), part=both.part.tolist())


def _restored(past: ArmPast | None, kind: Kind) -> Clusters:
    return no_clusters(kind.scores) if past is None else _clusters(past, kind.scores)


def _clusters(past: ArmPast, scores: int) -> Clusters:
    counts, residuals = np.zeros(CELLS), np.zeros((CELLS, scores))
    for cell, numbers in past.cells.items():
        counts[cell], residuals[cell] = numbers[0], numbers[1:]
    return Clusters(counts, residuals, np.asarray(past.independent), np.asarray(past.part))
