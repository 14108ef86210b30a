"""The statistics under test for numbers: `rollout.stats.values`, run on R replications at once."""

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from benches._stats.numbers import Look, dense, rows_of
from benches._stats.ours import ANY_REGRESSION, log_mixtures
from benches._stats.shapes import Pair
from rollout.stats import values
from rollout.stats.calibration import Calibration
from rollout.stats.histogram import Histogram
from rollout.stats.margin import Margin
from rollout.stats.past_values import faded
from rollout.stats.values import GATE_WEIGHTS, SIZES, ValueTest, harm_weights

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CALIBRATED_ON = 2_000  # baseline values before the rollout
DISTRIBUTION = ValueTest("distribution")


class History:
    """What R replications know of their baselines: the frozen calibration and the fading histogram."""

    def __init__(self, tests: dict[str, ValueTest], both: Pair, replications: int, rng: np.random.Generator) -> None:
        self.grid, self.index = both.grid, both.index
        self.counts = rng.multinomial(CALIBRATED_ON, both.baseline, replications).astype(np.float64)
        past = Histogram(self.grid, self.index, self.counts)
        self.frozen = {name: test.calibrate(past) for name, test in tests.items()}

    def past(self, rows: Ints) -> Histogram:
        """The baseline's histogram of earlier looks."""
        return Histogram(self.grid, self.index, self.counts[rows])

    def calibration(self, name: str, rows: Ints) -> Calibration:
        """What was frozen, for some replications."""
        frozen = self.frozen[name]
        return Calibration(*(getattr(frozen, field.name)[rows] for field in fields(Calibration)))

    def learn(self, baseline: Histogram, rows: Ints) -> None:
        """After a look has been bet; `baseline` holds the rows only."""
        self.counts[rows] = faded(self.counts[rows] + dense(baseline, self.index))


class Harm:
    """The harm e-processes of a latency or cost: as a distribution, as a mean, and as its p99.

    All families of a mean (capped mean and tail ladder) and of a p99 (ladder) are among those of a distribution, so the
    three tests share one wealth vector and differ in the weights alone.
    """

    def __init__(
        self,
        both: Pair,
        replications: int,
        rng: np.random.Generator,
        lines: dict[str, tuple[ValueTest, float]],
        margin: Margin = ANY_REGRESSION,
    ) -> None:
        self.lines = {name: math.log(1.0 / alpha) for name, (_, alpha) in lines.items()}
        self.weights = [spread_weights(test) for test, _ in lines.values()]
        self.history = History({"distribution": DISTRIBUTION}, both, replications, rng)
        self.log_wealth = np.zeros((replications, self.weights[0].size))
        self.margin = margin

    def look(self, seen: Look, waiting: Ints) -> Floats:
        """Log e of each line, (lines, R)."""
        past, frozen = self.history.past(waiting), self.history.calibration("distribution", waiting)
        candidate, baseline = rows_of(seen.candidate, waiting), rows_of(seen.baseline, waiting)
        factors = values.harm_log_factors(DISTRIBUTION, frozen, past, candidate, baseline, self.margin)
        self.log_wealth[waiting] += factors
        self.history.learn(baseline, waiting)
        evidence = np.full((len(self.weights), len(self.log_wealth)), np.nan)
        for line, weights in enumerate(self.weights):
            evidence[line, waiting] = log_mixtures(self.log_wealth[waiting], weights)
        return evidence


def spread_weights(test: ValueTest) -> Floats:
    """The weights of a test's bets within the wealth vector of a distribution."""
    weights, own = [], harm_weights(test)
    for family in DISTRIBUTION.families:
        if family in test.families:
            weights.append(own[: SIZES[family]])
            own = own[SIZES[family] :]
        else:
            weights.append(np.zeros(SIZES[family]))
    return np.concatenate(weights)


@dataclass(frozen=True, slots=True)
class GateLine:
    """A gate of a test, or (gate None) all its gates, each of which must have passed."""

    test: str
    gate: str | None


class Gates:
    """The advance e-processes of some tests; a gate counts by its running maximum."""

    def __init__(
        self,
        both: Pair,
        replications: int,
        rng: np.random.Generator,
        tests: dict[str, ValueTest],
        lines: dict[str, GateLine],
        margin: Margin,
    ) -> None:
        self.lines = dict.fromkeys(lines, math.log(20.0))
        self.wanted, self.tests, self.margin = list(lines.values()), tests, margin
        self.history = History(tests, both, replications, rng)
        self.log_wealth = {
            (name, gate): np.zeros((replications, GATE_WEIGHTS[gate].size))
            for name, test in tests.items()
            for gate in test.gates
        }
        self.best = {key: np.zeros(replications) for key in self.log_wealth}

    def look(self, seen: Look, waiting: Ints) -> Floats:
        """The running maximum of log e of each line, (lines, R)."""
        past = self.history.past(waiting)
        candidate, baseline = rows_of(seen.candidate, waiting), rows_of(seen.baseline, waiting)
        for name, test in self.tests.items():
            frozen = self.history.calibration(name, waiting)
            made = values.advance_log_factors(test, frozen, past, candidate, baseline, self.margin)
            for gate, factors in zip(test.gates, made, strict=True):
                self.log_wealth[name, gate][waiting] += factors
                log_e = log_mixtures(self.log_wealth[name, gate][waiting], GATE_WEIGHTS[gate])
                self.best[name, gate][waiting] = np.maximum(self.best[name, gate][waiting], log_e)
        self.history.learn(baseline, waiting)
        return np.stack([self._line(line) for line in self.wanted])

    def _line(self, line: GateLine) -> Floats:
        if line.gate is not None:
            return self.best[line.test, line.gate]
        return np.minimum.reduce([self.best[line.test, gate] for gate in self.tests[line.test].gates])
