"""The normal mixture for estimates that are only asymptotically normal, and the moments they are fed with.

An estimate D of "how far beyond the line" with estimated variance var(D) is put as information V = 1 / var(D) and
score S = D / var(D). On the line S is close to a Brownian motion in the intrinsic time V: for averages of more and
more outcomes of the same units Cov(D_now, D_then) is the variance of the later one, so the increments of S are
uncorrelated. The mixture below is then a non-negative supermartingale wherever D's mean is at or inside the line,
up to the error of the normal approximation. It promises nothing for a handful of units: callers guard.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr

Floats = NDArray[np.float64]

BISECTIONS = 100


class Moments(NamedTuple):
    """n outcomes of one arm, their sum and their sum of squares; arrays of one shape (...). They merge by adding."""

    n: ArrayLike
    total: ArrayLike
    squares: ArrayLike


def normal_mixture_log_e(score: ArrayLike, information: ArrayLike, v_opt: ArrayLike, alpha: float) -> Floats:
    """Log e for "the mean of D is above 0", shape (...): the one-sided normal mixture.

    With rho of `_rho`: 1/2 log(4 rho / (V + rho)) + S^2 / (2 (V + rho)) + log Phi(S / sqrt(V + rho)).
    (Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
    Ann. Stat. 2021, arXiv:1810.08240, one-sided normal mixture; after Robbins 1970.)

    Args:
        score: S = D / var(D), shape (...).
        information: V = 1 / var(D) >= 0, in 1 / (unit of D)^2, shape (...).
        v_opt: the information, > 0, at which the bound on D is to be tightest, shape (...). To find an effect of size
            h that is 2 log(1 / alpha) / h^2. It must not follow the information from look to look.
        alpha: the level that it is tuned for, inside (0, 1/2).

    Raises:
        ValueError: if alpha is outside its range.
    """
    s, v = np.asarray(score, np.float64), np.asarray(information, np.float64)
    rho = _rho(v_opt, alpha)
    spread = v + rho
    return np.asarray(
        0.5 * np.log(4.0 * rho / spread) + s * s / (2.0 * spread) + log_ndtr(s / np.sqrt(spread)), np.float64
    )


def normal_mixture_radius(information: ArrayLike, v_opt: ArrayLike, alpha: float, level: float | None = None) -> Floats:
    """The deviation of D at which `normal_mixture_log_e` reaches log(1 / level), in the unit of D, shape (...).

    D - radius is a lower confidence bound for the mean of D that holds at all times together with probability
    1 - level, and it is above the line exactly when the test rejects. Both bounds at once cost `level` each.

    x = radius V / sqrt(V + rho) solves x^2/2 + log Phi(x) = log(1 / level) + 1/2 log((V + rho) / (4 rho)): the left
    side increases in x and the right side is above its value at 0 and below that at sqrt(2 (right side + log 2)).

    Args:
        information: V = 1 / var(D) > 0, shape (...).
        v_opt: as for the mixture.
        alpha: that the mixture is tuned for.
        level: of the bound, inside (0, 1/2); `alpha` if it is not given. (A guardrail with weight w breaches alone at
            1 / (w alpha), not at 1 / alpha, with the same mixture.)

    Raises:
        ValueError: if alpha or level is outside its range, or the information is not above 0.
    """
    v = np.asarray(information, np.float64)
    if not (v > 0.0).all():
        raise ValueError(f"without information there is no radius; got {v}")
    rho, aim = _rho(v_opt, alpha), alpha if level is None else level
    check_level(aim)
    target = np.asarray(-math.log(aim) + 0.5 * np.log((v + rho) / (4.0 * rho)), np.float64)
    low, high = np.zeros_like(target), np.sqrt(2.0 * (target + math.log(2.0)))
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        short = 0.5 * middle * middle + log_ndtr(middle) < target
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.asarray(0.5 * (low + high) * np.sqrt(v + rho) / v, np.float64)


def _rho(v_opt: ArrayLike, alpha: float) -> Floats:
    """The mixture's prior precision: the one that is best at v_opt (Howard et al. 2021; one-sided: 2 alpha)."""
    check_level(alpha)
    far = -2.0 * math.log(2.0 * alpha)
    return np.asarray(v_opt, np.float64) / (far + math.log1p(far))


def check_level(alpha: float) -> None:
    """Refuse a level that the one-sided mixture cannot be tuned for.

    Raises:
        ValueError: unless it lies inside (0, 1/2).
    """
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"a one-sided level lies between 0 and 1/2, not {alpha}")
