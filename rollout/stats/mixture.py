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


def log_tempered(log_wealth: ArrayLike, weights: NDArray[np.float64] | Sequence[float], effect: ArrayLike) -> float:
    """The log e of a mixture for sticky units: each bet is divided by the design effect, then they are mixed.

    Dividing the mixture instead would divide the price of mixing as well, for (sum w E)^(1/D) >= sum w E^(1/D): with
    D = 20 that comes close to picking the luckiest bet for nothing. (Measured with units that always or never fail,
    20 requests each, a candidate exactly on its margin: wrong advances .10 that way and .05 this way, at alpha .05.)

    Args:
        log_wealth: shape (K,), natural logarithms.
        weights: shape (K,), >= 0, summing to 1.
        effect: D >= 1, of `rollout.stats.design_effect`; one for all bets, or one for each, shape (K,).

    Raises:
        ValueError: if the effect is below 1; outcomes are never less than independent here.
    """
    effects = np.asarray(effect, np.float64)
    if not np.all(effects >= 1.0):
        raise ValueError(f"a design effect is at least 1; got {effects}")
    return log_mixture(np.asarray(log_wealth, np.float64) / effects, weights)


def rounded(log_e: float) -> float:
    """`log_e` at the precision at which it is stored and compared, so that a replay is equal on every CPU.

    Adding 0.0 turns the negative zero into the positive one: both must be written as the same text.
    """
    return round(float(log_e), LOG_DECIMALS) + 0.0
