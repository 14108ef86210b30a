"""Sample-ratio mismatch: are the arms filled in the proportion that the ruleset promised?"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaln


def srm_log_e(candidate: int, baseline: int, share: float, concentration: float = 100.0) -> float:
    """Log e against "each first exposure goes to the candidate with probability `share`", for one attempt.

    The Beta-binomial form of Lindon & Malek (NeurIPS 2022, arXiv:2011.03567), with the prior
    Beta(concentration * share, concentration * (1 - share)). Log e of successive attempts add up.

    Args:
        candidate: first exposures in the candidate's arm.
        baseline: first exposures in the baseline's arm.
        share: the candidate's planned share of both, inside (0, 1).
        concentration: pseudo-exposures of the prior, > 0.

    Raises:
        ValueError: if a count is negative, or share or concentration is outside its range.
    """
    _check_share(share)
    if candidate < 0 or baseline < 0 or not concentration > 0.0:
        raise ValueError(f"counts must be >= 0 and the concentration > 0; got {candidate}, {baseline}, {concentration}")
    a, b = concentration * share, concentration * (1.0 - share)
    alternative = betaln(a + candidate, b + baseline) - betaln(a, b)
    return float(alternative - candidate * np.log(share) - baseline * np.log1p(-share))


def srm_design_effect(cells_candidate: ArrayLike, cells_baseline: ArrayLike, share: float) -> float:
    """How many times more the candidate's count varies than independent exposures would, at least 1.

    One unit may be first exposed in several processes, always in the same arm. All its exposures are in the
    same cluster cell, so D = C/(C-1) * sum_cells (candidate - q n)^2 / (N/(N-1) * N v), n being the cell's
    exposures of both arms, N their sum, C the cells in use, q the observed share. v is the larger of q(1-q)
    and share(1-share), so that a real mismatch does not hide behind its own variance. Use log e / D.

    Args:
        cells_candidate: first exposures of one attempt in the candidate's arm, of each cell, shape (C,).
        cells_baseline: the same of the baseline's arm.
        share: the candidate's planned share, inside (0, 1).

    Returns:
        D; 1.0 with fewer than two cells, which say nothing about clustering.
    """
    _check_share(share)
    candidate = np.asarray(cells_candidate, np.float64)
    both = candidate + np.asarray(cells_baseline, np.float64)
    used = int(np.count_nonzero(both))
    total = float(both.sum())
    if used < 2:
        return 1.0
    observed = float(candidate.sum()) / total
    variance = max(observed * (1.0 - observed), share * (1.0 - share))
    between = used / (used - 1.0) * float(np.square(candidate - observed * both).sum())
    return max(1.0, between / (total / (total - 1.0) * total * variance))


def _check_share(share: float) -> None:
    if not 0.0 < share < 1.0:
        raise ValueError(f"the candidate's share lies strictly between 0 and 1, not {share}")
