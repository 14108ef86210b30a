"""Controllers built from peers: GrowthBook's intervals on pooled totals, and a naive test with a timer."""

import numpy as np
from numpy.typing import NDArray

from benches._stats.controller import BASE, MARGINS, MINUTES, Pairs, Tick
from benches._stats.growthbook import half_width
from benches._stats.streams import Arms

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


class _Pooled:
    """Totals of each metric since the start of the rollout, all stages together."""

    def __init__(self, pairs: Pairs, replications: int, rng: np.random.Generator) -> None:
        self.sums = {name: np.zeros((2, 3, replications)) for name in MARGINS}
        means = {name: float(both.baseline @ both.values) for name, both in pairs._asdict().items()} | {"errors": BASE}
        self.margins = {name: MARGINS[name] * means[name] for name in MARGINS}

    def watch(self, rows: Ints, stage: int, tick: Tick) -> None:
        """Add the tick."""
        for name, sums in tick.sums.items():
            self.sums[name][..., rows] += sums

    def enter(self, rows: Ints) -> None:
        """Nothing begins anew."""

    def arms(self, name: str, rows: Ints) -> Arms:
        """Totals as moments."""
        moments: list[Floats] = []
        for n, total, squares in self.sums[name][..., rows]:
            divisor = n if name == "errors" else n - 1.0
            with np.errstate(invalid="ignore", divide="ignore"):
                moments += [n, total / n, (squares - total * total / n) / divisor]
        return Arms(*moments)


class GrowthBookPooled(_Pooled):
    """Rollback when a lower limit is above 0; the gate opens when every upper limit is within the final margin.

    The margins are given as differences from the true means, which an operator would not know.
    """

    def harmed(self, rows: Ints) -> Mask:
        """Any guardrail's interval lies above 0."""
        return np.logical_or.reduce([low > 0.0 for low, _, _ in self._intervals(rows)])

    def passes(self, rows: Ints, ticks: Ints) -> Mask:
        """Every guardrail's interval lies below its margin."""
        return np.logical_and.reduce([high < margin for _, high, margin in self._intervals(rows)])

    def _intervals(self, rows: Ints) -> list[tuple[Floats, Floats, float]]:
        intervals = []
        for name, margin in self.margins.items():
            estimate, width = half_width(self.arms(name, rows), 0.05, relative=False)
            intervals.append((estimate - width, estimate + width, margin))
        return intervals


class NaiveTimer(_Pooled):
    """Welch's test of each guardrail at each tick, p < .05; an hour in each stage."""

    def harmed(self, rows: Ints) -> Mask:
        """Any guardrail is significant."""
        significant = []
        for name in self.margins:
            arms = self.arms(name, rows)
            with np.errstate(all="ignore"):
                z = (arms.mean_t - arms.mean_c) / np.sqrt(arms.var_t / arms.n_t + arms.var_c / arms.n_c)
            significant.append((z > 1.644854) & (arms.n_t >= 30))
        return np.logical_or.reduce(significant)

    def passes(self, rows: Ints, ticks: Ints) -> Mask:
        """The hour is over."""
        return ticks >= 60 // MINUTES
