"""A fixed-weight mixture of bets, and the precision at which log e is kept."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

LOG_DECIMALS = 9


def log_mixture(log_wealth: ArrayLike, weights: NDArray[np.float64] | Sequence[float]) -> float:
    """Log sum_k w_k exp(log_wealth_k): the log e of a mixture of K bets run side by side.

    A mean of e-values with weights fixed beforehand is an e-value (Vovk & Wang, Ann. Stat. 2021).

    Args:
        log_wealth: shape (K,), natural logarithms; -inf is a bet that lost everything.
        weights: shape (K,), >= 0, summing to 1.
    """
    wealth = np.asarray(log_wealth, np.float64)
    top = float(wealth.max())
    if top == -np.inf:
        return top
    return top + float(np.log(np.dot(np.asarray(weights, np.float64), np.exp(wealth - top))))


def rounded(log_e: float) -> float:
    """`log_e` at the precision at which it is stored and compared, so that a replay is equal on every CPU.

    Adding 0.0 turns the negative zero into the positive one: both must be written as the same text.
    """
    return round(float(log_e), LOG_DECIMALS) + 0.0
