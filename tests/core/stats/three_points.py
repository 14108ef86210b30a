"""Everything that three values can do: all outcomes of a batch, all distributions, and the whole null of a test."""

from itertools import combinations, product
from math import factorial

import numpy as np
from numpy.typing import NDArray

from rollout.stats.histogram import Grid, Histogram

Floats = NDArray[np.float64]

RARE = [(0.98, 0.01, 0.01), (0.01, 0.01, 0.98), (0.01, 0.98, 0.01), (0.9, 0.0, 0.1), (0.995, 0.0, 0.005)]
DISTRIBUTIONS = np.array([(a / 4, b / 4, (4 - a - b) / 4) for a in range(5) for b in range(5 - a)] + RARE)


def outcomes(n: int) -> tuple[Floats, Floats]:
    """All counts of n observations of three values, (M, 3), and in how many orders each comes, (M,)."""
    counts = [(a, b, n - a - b) for a in range(n + 1) for b in range(n + 1 - a)]
    orders = [factorial(n) // (factorial(a) * factorial(b) * factorial(c)) for a, b, c in counts]
    return np.array(counts, np.float64), np.array(orders, np.float64)


def batches(grid: Grid, index: tuple[int, int, int], n_t: int, n_c: int) -> tuple[Histogram, Histogram]:
    """Every outcome of the candidate against every one of the baseline, leading axes (M_t, M_c)."""
    at = np.array(index, np.int64)
    t, c = outcomes(n_t)[0], outcomes(n_c)[0]
    shape = (len(t), len(c), 3)
    return (
        Histogram(grid, at, np.broadcast_to(t[:, None], shape)),
        Histogram(grid, at, np.broadcast_to(c[None], shape)),
    )


def whole_null(score_t: Floats, score_c: Floats, *, at_most: bool) -> tuple[Floats, Floats]:
    """Distributions (Q, 3) of both arms with E score_t at most (at least) E score_c: behind the line, and on it."""
    sign = 1.0 if at_most else -1.0
    found: list[tuple[Floats, Floats]] = []
    for p_c in DISTRIBUTIONS:
        excess = sign * (DISTRIBUTIONS @ score_t - p_c @ score_c)
        found += [(p_t, p_c) for p_t in DISTRIBUTIONS[excess <= 0.0]]
        for i, j in combinations(range(len(DISTRIBUTIONS)), 2):
            if excess[i] * excess[j] < 0.0:
                part = excess[i] / (excess[i] - excess[j])
                found.append(((1.0 - part) * DISTRIBUTIONS[i] + part * DISTRIBUTIONS[j], p_c))
    return np.array([p for p, _ in found]), np.array([p for _, p in found])


def expectations(log_factors: Floats, sizes: tuple[int, int], p_t: Floats, p_c: Floats) -> Floats:
    """E[e] (Q, K) of log factors (M_t, M_c, K) under pairs of distributions (Q, 3)."""
    given = []
    for n, p in zip(sizes, (p_t, p_c), strict=True):
        counts, orders = outcomes(n)
        given.append(orders * np.prod(p[:, None, :] ** counts, axis=2))
    return np.asarray(np.einsum("qi,ijk,qj->qk", given[0], np.exp(log_factors), given[1], optimize=True))


SIZES = list(product((1, 3), (1, 4)))
