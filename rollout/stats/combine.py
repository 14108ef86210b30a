"""How e-values are merged: over start times, over guardrails, and to name culprits.

A product is right for batches that follow one another; a weighted mean is the only merge that is right under
any dependence (Vovk & Wang, Ann. Stat. 2021; Wang, arXiv:2409.19888). Guardrails and start times share their
data, so they get the mean.
"""

import math
from collections.abc import Sequence

import numpy as np

from rollout.stats.mixture import log_mixture


def start_weights(stages: int) -> tuple[float, ...]:
    """The prior weight of the harm process that starts at each stage, shape (stages,), summing to 1.

    One half watches from the start of the rollout; the other half is shared by the later stages, for harm
    that shows only under more traffic.

    Raises:
        ValueError: if there is no stage.
    """
    if stages < 1:
        raise ValueError(f"a rollout has at least one stage, not {stages}")
    if stages == 1:
        return (1.0,)
    return (0.5, *([0.5 / (stages - 1)] * (stages - 1)))


def log_late_start(log_e_by_start: Sequence[float], stages: int) -> float:
    """One log e for the whole rollout from the harm processes that have started so far.

    sum_s u_s E_s, where a process that has not started counts 1, as it has not bet yet (e-detectors: Shin,
    Ramdas & Rinaldo, NEJSDS 2024).

    Args:
        log_e_by_start: log e of the process started at stage 0, 1, ...; at most `stages` of them.
        stages: number of stages of the rollout.

    Raises:
        ValueError: if more processes have started than there are stages.
    """
    missing = stages - len(log_e_by_start)
    if missing < 0:
        raise ValueError(f"{len(log_e_by_start)} processes have started in a rollout of {stages} stages")
    return log_mixture([*log_e_by_start, *([0.0] * missing)], start_weights(stages))


def log_weighted_mean(log_es: Sequence[float], weights: Sequence[float]) -> float:
    """The log of the weighted mean of the guardrails' e-values: one test of "no guardrail is harmed".

    At least as strong as Bonferroni (the mean is >= the largest term), and valid however the guardrails
    depend on one another. The breach line is the running maximum of this over looks.

    Args:
        log_es: log e of each guardrail.
        weights: of each guardrail, > 0; they are divided by their sum.

    Raises:
        ValueError: if there is nothing to merge, the lengths differ, or a weight is not positive.
    """
    if len(log_es) != len(weights) or not log_es:
        raise ValueError(f"as many weights as e-values, and at least one; got {len(weights)} and {len(log_es)}")
    if not all(math.isfinite(weight) and weight > 0.0 for weight in weights):
        raise ValueError(f"weights must be positive numbers, not {list(weights)}")
    shares = np.asarray(weights, np.float64)
    return log_mixture(log_es, shares / shares.sum())


def e_bh(log_es: Sequence[float], alpha: float) -> tuple[int, ...]:
    """Indices of the e-values that name culprits at false discovery rate alpha, ascending; may be empty.

    The e-BH procedure (Wang & Ramdas, JRSSB 2022): reject the k largest for the largest k with
    e_(k) >= K / (alpha k). Valid under any dependence.

    Raises:
        ValueError: if alpha is not inside (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha lies between 0 and 1, not {alpha}")
    order = sorted(range(len(log_es)), key=lambda index: -log_es[index])
    rejected = 0
    for k, index in enumerate(order, start=1):
        if log_es[index] >= math.log(len(log_es) / (alpha * k)):
            rejected = k
    return tuple(sorted(order[:rejected]))
