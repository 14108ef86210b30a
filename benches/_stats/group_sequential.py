"""Group-sequential peers: hourly looks, a horizon that is known, and Lan-DeMets spending of alpha.

Boundaries by the recursion of Armitage, McPherson & Rowe (1969): the density of the score that has not crossed yet is
carried from look to look on a grid.
"""

import math
from collections.abc import Mapping
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from benches._stats.closed_forms import z_score
from benches._stats.streams import Look

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Spending = Literal["O'Brien-Fleming", "Pocock"]

GRID = 1201
LOWEST = -8.0  # in standard deviations; nobody crosses from below it


def spent(spending: Spending, alpha: float, time: float) -> float:
    """How much of alpha may be spent at a fraction of the information."""
    if spending == "Pocock":
        return alpha * math.log1p((math.e - 1.0) * time)
    return float(2.0 * norm.sf(norm.isf(alpha / 2.0) / math.sqrt(time)))


@cache
def boundaries(spending: Spending, looks: int, alpha: float = 0.05) -> tuple[float, ...]:
    """One-sided critical values of z at `looks` equally spaced looks."""
    step = 1.0 / looks
    critical: list[float] = []
    points, density = np.zeros(1), np.ones(1)  # of the Brownian motion at the look before, times the grid's weights
    for number in range(1, looks + 1):
        time = number * step
        share = spent(spending, alpha, time) - (spent(spending, alpha, time - step) if number > 1 else 0.0)

        def excess(bound: float, share: float = share, points: Floats = points, density: Floats = density) -> float:
            return float(density @ norm.sf((bound - points) / math.sqrt(step))) - share

        bound = float(brentq(excess, -1.0, 12.0))
        critical.append(bound / math.sqrt(time))
        grid = np.linspace(LOWEST * math.sqrt(time), bound, GRID)
        moved = norm.pdf((grid[:, None] - points) / math.sqrt(step)) / math.sqrt(step) @ density
        weights = np.full(GRID, grid[1] - grid[0])
        weights[[0, -1]] *= 0.5
        points, density = grid, moved * weights
    return tuple(critical)


class GroupSequential:
    """A z test every hour until its horizon, in the direction of harm or of an advance."""

    def __init__(self, name: str, spending: Spending, hours: int, margin: float | None = None) -> None:
        self.lines: Mapping[str, float] = {name: 0.0}
        self.critical = boundaries(spending, hours)
        self.margin = margin

    def look(self, seen: Look, waiting: Ints) -> Floats:
        """How far z is above this hour's boundary, (R,); not a number between the hours."""
        hour, minute = divmod(seen.number + 1, 60)
        if minute or hour > len(self.critical):
            return np.full(seen.units.shape, np.nan)
        return z_score(seen, self.margin) - self.critical[hour - 1]
