"""Peers that go by one point a minute: a threshold on the candidate alone, and a rank test of two time series."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from benches._stats.streams import Look

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Threshold:
    """Like Flagger: each minute above the threshold is a failed check; so many of them, and it rolls back."""

    def __init__(self, name: str, replications: int, rate: float = 0.05, failures: int = 5) -> None:
        self.lines: Mapping[str, float] = {name: float(failures)}
        self.rate = rate
        self.failures = np.zeros(replications)

    def look(self, seen: Look, waiting: Ints) -> Floats:
        """Failed checks so far, (R,)."""
        self.failures += np.asarray(seen.tick.x_t) > self.rate * np.asarray(seen.tick.n_t)
        return self.failures


class RankTest:
    """Like Kayenta: every hour, Mann-Whitney on the error rates of the last 60 minutes of each arm.

    It fires when the lower limit of the 98 % interval of the Hodges-Lehmann shift is above a quarter of that shift.
    """

    WINDOW = 60

    def __init__(self, name: str, replications: int) -> None:
        self.lines: Mapping[str, float] = {name: 0.0}
        self.points = np.zeros((replications, 2, self.WINDOW))

    def look(self, seen: Look, waiting: Ints) -> Floats:
        """How far the lower limit is above a quarter of the shift, (R,); not a number between the hours."""
        n, x = np.array([seen.tick.n_t, seen.tick.n_c]), np.array([seen.tick.x_t, seen.tick.x_c])
        minute = seen.number % self.WINDOW
        self.points[:, :, minute] = (x / np.maximum(n, 1)).T
        evidence = np.full(len(self.points), np.nan)
        if minute == self.WINDOW - 1:
            shift, low = hodges_lehmann(self.points[waiting])
            evidence[waiting] = np.where(low > 0.25 * np.abs(shift), 1.0, np.nan)
        return evidence


def hodges_lehmann(points: Floats, z: float = 2.326348) -> tuple[Floats, Floats]:
    """The shift between two series and its lower limit, each (R,), of points (R, 2, m), the candidate's first."""
    m = points.shape[-1]
    differences = (points[:, 0, :, None] - points[:, 1, None, :]).reshape(len(points), m * m)
    rank = int(m * m / 2.0 - z * np.sqrt(m * m * (2 * m + 1) / 12.0))
    ordered = np.partition(differences, (rank, m * m // 2), axis=-1)
    return ordered[:, m * m // 2], ordered[:, rank]
