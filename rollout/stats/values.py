"""Metrics that are numbers: latency, cost, tokens, scores. Which bets make up the test of each kind.

| kind | harm: one e-process from these families, equal capital | advance: each of these must pass |
|---|---|---|
| mean, low is good, unbounded | capped mean; ladder over its tail | capped mean; tail |
| mean, otherwise | capped mean (uncapped where the metric has bounds) | capped mean |
| quantile | ladder from that quantile | quantile |
| distribution | capped mean, log score, body quantiles, tail ladder | capped mean; the quantile named, else tail |

The null of a distribution test is stochastic order, Y_t <= X_c with Y = X / r: each family is exact under it. Half of a
mean's capital watches the tail, because requests beyond the cap cost money too; its gate asks the tail as well, because
a capped mean alone would pass a candidate whose top 1.5 % has doubled.

A wealth vector holds the families one after another; `families` says which part belongs to which, so that each can be
tempered by the design effect of its own score. Nothing is bet before the calibration is frozen.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rollout.stats import capped_mean, exceedance, log_score
from rollout.stats.calibration import CALIBRATION, CALIBRATION_BOUNDED, TAIL, Calibration, calibrate
from rollout.stats.histogram import Grid, Histogram, LinearGrid, LogGrid
from rollout.stats.margin import Direction, Margin
from rollout.stats.proportion import HARM_WEIGHTS

Floats = NDArray[np.float64]
ValueKind = Literal["mean", "quantile", "distribution"]
Family = Literal["mean", "log", "body", "ladder"]
Gate = Literal["mean", "quantile", "tail"]


@dataclass(frozen=True, slots=True)
class ValueTest:
    """What is tested of a number.

    Attributes:
        kind: mean, quantile or distribution.
        direction: which way the metric is good.
        focus: level of the quantile that a gate looks at, inside (0, 1): 0.95 is the p95. None: the mean.
        bounds: lowest and highest value, if the metric has them.

    Raises:
        ValueError: for a quantile without a focus, or a focus outside (0, 1).
    """

    kind: ValueKind
    direction: Direction = "lower_is_better"
    focus: float | None = None
    bounds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.kind == "quantile" and self.focus is None:
            raise ValueError("a quantile needs a focus, such as 0.95")
        if self.focus is not None and not 0.0 < self.focus < 1.0:
            raise ValueError(f"a focus lies strictly between 0 and 1, not {self.focus}")

    @property
    def grid(self) -> Grid:
        """The buckets that the metric's values are counted in."""
        return grid_of(self.bounds)

    @property
    def families(self) -> tuple[Family, ...]:
        """Families of harm bets, in the order of the wealth vector."""
        if self.kind == "quantile":
            return ("ladder",)
        if self.kind == "mean":
            return ("mean", "ladder") if self._has_open_tail else ("mean",)
        return ("mean", "log", "body", "ladder") if self.bounds is None else ("mean", "body", "ladder")

    @property
    def gates(self) -> tuple[Gate, ...]:
        """Tests that must all pass, in the order of the wealth vector."""
        if self.kind == "quantile":
            return ("quantile",)
        if self.kind == "distribution" and self.focus is not None:
            return ("mean", "quantile")
        return ("mean", "tail") if self._has_open_tail else ("mean",)

    @property
    def calibrated_at(self) -> int:
        """Baseline observations that are needed before anything is bet."""
        freezes_nothing = self.kind == "mean" and self.bounds is not None
        return CALIBRATION_BOUNDED if freezes_nothing else CALIBRATION

    @property
    def _has_open_tail(self) -> bool:
        return self.bounds is None and self.direction == "lower_is_better"

    def calibrate(self, past: Histogram) -> Calibration:
        """Freeze cap and thresholds from the baseline's histogram."""
        tail = TAIL if self.direction == "lower_is_better" else 1.0 - TAIL
        foot = self.focus if self.kind == "quantile" and self.focus is not None else tail
        gate = self.focus if "quantile" in self.gates and self.focus is not None else tail
        high = None if self.bounds is None else self.bounds[1]
        return calibrate(past, self.direction, ladder=foot, gate=gate, high=high)


def grid_of(bounds: tuple[float, float] | None) -> Grid:
    """The buckets of a metric with these bounds."""
    return LogGrid() if bounds is None else LinearGrid(*bounds)


SIZES: dict[Family | Gate, int] = {
    "mean": capped_mean.HARM_LAMBDAS.size,
    "log": log_score.LAMBDAS.size,
    "body": 4 * HARM_WEIGHTS.size,
    "ladder": exceedance.LADDER.size * HARM_WEIGHTS.size,
}
"""Bets in a family of harm."""
GATE_WEIGHTS: dict[Gate, Floats] = {
    "mean": capped_mean.ADVANCE_WEIGHTS,
    "quantile": exceedance.ADVANCE_WEIGHTS,
    "tail": exceedance.ADVANCE_WEIGHTS,
}
"""Prior weights of the bets of each gate; each gate is an e-process of its own."""
_WITHIN: dict[Family, Floats] = {
    "mean": capped_mean.HARM_WEIGHTS,
    "log": log_score.WEIGHTS,
    "body": np.tile(HARM_WEIGHTS / 4.0, 4),
    "ladder": np.tile(HARM_WEIGHTS / exceedance.LADDER.size, exceedance.LADDER.size),
}


def harm_weights(test: ValueTest) -> Floats:
    """Prior weights of all harm bets, (K,), summing to 1: families share the capital equally."""
    return np.concatenate([_WITHIN[family] for family in test.families]) / len(test.families)


def harm_log_factors(
    test: ValueTest,
    frozen: Calibration,
    past: Histogram,
    candidate: Histogram,
    baseline: Histogram,
    margin: Margin,
) -> Floats:
    """Log e-factors (..., K) of one batch for "the candidate is worse than the margin tolerates".

    Args:
        test: what is tested.
        frozen: of `test.calibrate`, from baseline values before this batch.
        past: the baseline's histogram of earlier batches only.
        candidate: the batch's histogram, not empty in any replication.
        baseline: likewise.
        margin: the worst tolerated change; size 0 tolerates none.

    Raises:
        ValueError: for an absolute margin above 0 of a distribution.
    """
    arms = (candidate, baseline, past)
    made: list[Floats] = []
    for family in test.families:
        if family == "mean":
            made.append(capped_mean.harm_log_factors(*arms, frozen.cap, margin, test.direction))
        elif family == "log":
            logs = (frozen.centre, frozen.scale)
            made.append(log_score.harm_log_factors(candidate, baseline, logs, margin, test.direction))
        else:
            thresholds = frozen.body if family == "body" else frozen.ladder
            beyond = exceedance.harm_log_factors(*arms, thresholds, margin, test.direction)
            made.append(beyond.reshape(*beyond.shape[:-2], -1))
    return np.concatenate(made, axis=-1)


def advance_log_factors(
    test: ValueTest,
    frozen: Calibration,
    past: Histogram,
    candidate: Histogram,
    baseline: Histogram,
    margin: Margin,
) -> tuple[Floats, ...]:
    """Log e-factors of one batch for each of `test.gates`, each (..., K_gate); arguments as for harm.

    Raises:
        ValueError: if the margin is 0.
    """
    arms = (candidate, baseline, past)
    made: list[Floats] = []
    for gate in test.gates:
        if gate == "mean":
            made.append(capped_mean.advance_log_factors(*arms, frozen.cap, margin, test.direction))
        elif gate == "quantile":
            made.append(exceedance.advance_log_factors(*arms, frozen.gate, margin, test.direction))
        else:
            made.append(exceedance.tail_log_factors(*arms, frozen.gate, margin, test.direction))
    return tuple(made)
