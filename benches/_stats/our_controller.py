"""The judge under test: three guardrails, four start times, risk-scaled gates, one level for all of it."""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benches._stats.controller import MARGINS, PERCENTAGES, Pairs, Tick
from benches._stats.our_numbers import History
from benches._stats.ours import ANY_REGRESSION, Baseline, log_mixtures
from rollout.stats import values
from rollout.stats.combine import start_weights
from rollout.stats.histogram import Histogram
from rollout.stats.margin import Margin, risk_scaled
from rollout.stats.proportion import ADVANCE_WEIGHTS, HARM_WEIGHTS, advance_bets, harm_bets
from rollout.stats.values import GATE_WEIGHTS, ValueTest, harm_weights

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

STAGES = len(PERCENTAGES)
TESTS = {"latency": ValueTest("distribution"), "cost": ValueTest("mean")}
RollbackOn = Literal["any_regression", "margin"]


def gate_margin(metric: str, stage: int) -> Margin:
    """The margin of the gate that leaves a stage."""
    following = PERCENTAGES[min(stage + 1, STAGES - 1)]
    return risk_scaled(Margin(MARGINS[metric], relative=True), "lower_is_better", following, PERCENTAGES[-1])


class Factors(NamedTuple):
    """Log e-factors of a tick: of the harm bets (rows, K), and of the bets of each gate."""

    harm: Floats
    gates: tuple[Floats, ...]


class Guardrail:
    """E-processes of one metric: harm from each stage on, and the gates of the present stage."""

    def __init__(self, harm: Floats, gates: tuple[Floats, ...], replications: int) -> None:
        self.weights = np.outer(start_weights(STAGES), harm)
        self.harm = np.zeros((replications, *self.weights.shape))
        self.gate_weights = gates
        self.gates = [np.zeros((replications, weights.size)) for weights in gates]
        self.best = np.zeros((replications, len(gates)))

    def add(self, rows: Ints, stage: int, factors: Factors) -> None:
        """Multiply a tick in."""
        self.harm[rows, : stage + 1] += factors.harm[:, None, :]
        for index, (weights, of_gate) in enumerate(zip(self.gate_weights, factors.gates, strict=True)):
            self.gates[index][rows] += of_gate
            log_e = log_mixtures(self.gates[index][rows], weights)
            self.best[rows, index] = np.maximum(self.best[rows, index], log_e)

    def log_e(self, rows: Ints) -> Floats:
        """Log e for harm, merged over the stages in which it may have begun; those to come count 1."""
        return log_mixtures(self.harm[rows].reshape(rows.size, -1), self.weights.ravel())

    def enter(self, rows: Ints) -> None:
        """A new stage: the gates begin anew."""
        self.best[rows] = 0.0
        for wealth in self.gates:
            wealth[rows] = 0.0


class Ours:
    """The whole judge; its default level is .01 for a rollback and .05 for each gate."""

    def __init__(
        self, pairs: Pairs, replications: int, rng: np.random.Generator, on: RollbackOn = "any_regression"
    ) -> None:
        self.on = on
        self.errors = Guardrail(HARM_WEIGHTS, (ADVANCE_WEIGHTS,), replications)
        self.baseline = Baseline(replications)
        self.values = {
            name: Guardrail(harm_weights(test), tuple(GATE_WEIGHTS[gate] for gate in test.gates), replications)
            for name, test in TESTS.items()
        }
        self.history = {
            name: History({name: TESTS[name]}, both, replications, rng) for name, both in pairs._asdict().items()
        }
        self.guardrails = [self.errors, *self.values.values()]

    def watch(self, rows: Ints, stage: int, tick: Tick) -> None:
        """Bet on the tick, then learn from its baseline."""
        bet = (rows, harm_bets, tick.errors, self._harm_margin("errors"), "lower_is_better")
        gate = (rows, advance_bets, tick.errors, gate_margin("errors", stage), "lower_is_better")
        self.errors.add(rows, stage, Factors(self.baseline.factors(*bet), (self.baseline.factors(*gate),)))
        self.baseline.learn(rows, np.asarray(tick.errors.n_c), np.asarray(tick.errors.x_c))
        for name, arms in (("latency", tick.latency), ("cost", tick.cost)):
            self.values[name].add(rows, stage, self._value_factors(name, rows, stage, arms))
            self.history[name].learn(arms[1], rows)

    def _value_factors(self, name: str, rows: Ints, stage: int, arms: tuple[Histogram, Histogram]) -> Factors:
        history = self.history[name]
        known = (TESTS[name], history.calibration(name, rows), history.past(rows), *arms)
        return Factors(
            values.harm_log_factors(*known, self._harm_margin(name)),
            values.advance_log_factors(*known, gate_margin(name, stage)),
        )

    def _harm_margin(self, name: str) -> Margin:
        return ANY_REGRESSION if self.on == "any_regression" else Margin(MARGINS[name], relative=True)

    def harmed(self, rows: Ints) -> NDArray[np.bool_]:
        """The mean of the three e-values has reached 1 / .01."""
        log_es = np.stack([guardrail.log_e(rows) for guardrail in self.guardrails], axis=-1)
        return log_mixtures(log_es, np.full(3, 1.0 / 3.0)) >= math.log(1.0 / 0.01)

    def passes(self, rows: Ints, ticks: Ints) -> NDArray[np.bool_]:
        """Every gate of every guardrail has passed at .05."""
        best = np.concatenate([guardrail.best[rows] for guardrail in self.guardrails], axis=1)
        return np.asarray(best.min(axis=1) >= math.log(20.0))

    def enter(self, rows: Ints) -> None:
        """A new stage."""
        for guardrail in self.guardrails:
            guardrail.enter(rows)


def on_margin(pairs: Pairs, replications: int, rng: np.random.Generator) -> Ours:
    """The same with its default, a rollback beyond the margin only."""
    return Ours(pairs, replications, rng, "margin")
