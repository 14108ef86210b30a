"""Values (latency, cost, scores): histograms to bet on, and cells for the design effect once clients know the cap.

A cell on the wire is [n, sum, sum of squares] and, from clients that have heard what was frozen, [..., n', sum of
min(v, cap), its square, count beyond each threshold]. A cell here is [n', sum of each score], the scores being those
the bets are made of: the capped value, how many body thresholds and how many rungs a value is beyond, and whether it is
beyond the gate's threshold.
"""

from collections.abc import Mapping
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike

from rollout.domain.cells import NO_CELLS, Cells
from rollout.domain.evidence import Arms, ArmSums, Calibrated, GuardrailEvidence
from rollout.domain.kinds.base import Factors, Floats
from rollout.domain.watch import Watch
from rollout.stats import values
from rollout.stats.calibration import Calibration
from rollout.stats.design_effect import Clusters, clusters, support
from rollout.stats.histogram import Histogram
from rollout.stats.margin import Margin
from rollout.stats.past_values import faded, grouped
from rollout.stats.values import SIZES, ValueTest
from rollout_client.evaluation.evidence import MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Frozen

PARTS = 1000.0
"""Of the cap, in which sums of capped values are kept in whole numbers; the design effect has no unit."""


class Value:
    """Compares the arms' histograms; exactly valid for what was frozen (`rollout.stats.values`)."""

    counts_requests = True
    keeps_stage = False

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.test = ValueTest(_kind(watch), watch.direction, watch.focus, watch.bounds)
        self.harm_weights = values.harm_weights(self.test)
        self.gate_weights = tuple(values.GATE_WEIGHTS[gate] for gate in self.test.gates)
        self._scores = [family for family in self.test.families if family != "log"]
        self.watches_threshold = self.test.gates != ("mean",)
        self.scores = len(self._scores) + self.watches_threshold

    def fold(self, mine: GuardrailEvidence, increment: MetricIncrement) -> ArmSums:
        """The values that arrived, and of those that were counted by what is frozen, the scores."""
        base = self._base
        totals = [sum(numbers[index] for numbers in increment.cells.values()) for index in range(base)]
        wire = {cell: numbers[base:] for cell, numbers in increment.cells.items() if len(numbers) > base}
        cells, squares = self._scored(mine, wire)
        return ArmSums(cells=cells, squares=squares, histogram=dict(increment.histogram), totals=totals)

    def mature(self, mine: GuardrailEvidence, minute: SlotIncrement) -> ArmSums:
        """The values that arrived in time; what did not arrive has no value."""
        return self.fold(mine, minute.metrics.get(self.watch.metric, MetricIncrement()))

    def amount(self, arm: ArmSums) -> float:
        """Values."""
        return sum(arm.histogram.values())

    def awaits(self, mine: GuardrailEvidence) -> int:
        """Baseline values that are still to come before cap and thresholds are frozen."""
        if mine.calibration is not None:
            return 0
        return max(1, self.test.calibrated_at - int(sum(mine.histogram.values())))

    def bet(self, mine: GuardrailEvidence, batch: Arms, gate: Margin | None) -> Factors:
        """On the baseline's earlier histogram and what was frozen."""
        assert mine.calibration is not None
        frozen = _calibration(mine.calibration)
        grid = self.test.grid
        past = Histogram.of(grid, mine.histogram)
        arms = (Histogram.of(grid, batch.candidate.histogram), Histogram.of(grid, batch.baseline.histogram))
        harm = values.harm_log_factors(self.test, frozen, past, *arms, self.watch.harm_margin)
        if gate is None:
            return Factors(harm, None)
        return Factors(harm, np.concatenate(values.advance_log_factors(self.test, frozen, past, *arms, gate)))

    def learn(self, mine: GuardrailEvidence, baseline: ArmSums) -> None:
        """Add to the baseline's histogram, the older values fading; freeze once there are enough."""
        total = self._remember(mine, baseline.histogram)
        if mine.calibration is None and total >= self.test.calibrated_at:
            mine.calibration = _plain(self.test.calibrate(Histogram.of(self.test.grid, mine.histogram)))
            mine.frozen = self._published(mine.calibration)
            self._remember(mine, {})  # coarse from now on

    def _remember(self, mine: GuardrailEvidence, fresh: Mapping[int, float]) -> float:
        """Join fresh values with those remembered; how many there are then."""
        index = np.array([*mine.histogram, *fresh], np.int64)
        counts = np.array([*mine.histogram.values(), *fresh.values()], np.float64)
        kept = index if mine.calibration is None else grouped(self.test.grid, index)
        buckets, place = np.unique(kept, return_inverse=True)
        joined = faded(np.bincount(place, counts, buckets.size).astype(np.float64))
        mine.histogram = {b: n for b, n in zip(buckets.tolist(), joined.tolist(), strict=True) if n > 0.0}
        return float(joined.sum())

    def clusters(self, arm: ArmSums) -> Clusters:
        """The scores of the cells."""
        return clusters(arm.cells.row(0), arm.cells.scores(self.scores), arm.squares or [0.0] * self.scores)

    def effective(self, arm: ArmSums) -> float:
        """Of the values beyond the gate's threshold; where it has none of a third of all, a mean needing more."""
        if self.watches_threshold:
            return support(arm.cells.row(-1))
        return support(arm.cells.row(0)) / 3.0

    def tempering(self, effects: Floats) -> tuple[Floats, Floats]:
        """Each family by the effect of its own score; the log score by the larger of the value's and the body's."""
        own = dict(zip(self._scores, effects, strict=False))
        own["log"] = max(own.get("mean", 1.0), own.get("body", 1.0))
        harm = np.concatenate([np.full(SIZES[family], own[family]) for family in self.test.families])
        at_gate = {"mean": own.get("mean", 1.0), "quantile": effects[-1], "tail": effects[-1]}
        gates = zip(self.test.gates, self.gate_weights, strict=True)
        return harm, np.concatenate([np.full(weights.size, at_gate[gate]) for gate, weights in gates])

    def _scored(self, mine: GuardrailEvidence, wire: Mapping[int, list[float]]) -> tuple[Cells, list[float]]:
        """[n', sum of each score] of each cell, and the sum of the squares of each score.

        Thresholds are nested, so who is beyond the j-th is beyond j of them, and j^2 = 1 + 3 + ... + (2j - 1).
        """
        if not wire or mine.frozen is None or mine.calibration is None:
            return NO_CELLS, []
        width = len(next(iter(wire.values())))
        rows = np.fromiter(chain.from_iterable(wire.values()), np.float64, width * len(wire)).reshape(-1, width)
        lead = 1 if self.test.kind == "quantile" else 3
        columns, squares = [rows[:, 0]], []
        for place in self._places(mine.calibration, mine.frozen):
            if place is None:  # the capped value
                unit = (mine.calibration.cap - self.test.grid.floor) / PARTS or 1.0
                columns.append(np.round(rows[:, 1] / unit))
                squares.append(float(np.round(rows[:, 2].sum() / (unit * unit))))
                continue
            beyond = rows[:, [lead + position for position in place]]
            columns.append(beyond.sum(axis=1))
            squares.append(float(beyond.sum(axis=0) @ (2.0 * np.arange(len(place)) + 1.0)))
        return Cells.placed(wire, np.stack(columns).astype(np.int64)), squares

    @property
    def _base(self) -> int:
        return 1 if self.test.kind == "quantile" else 3

    def _published(self, frozen: Calibrated) -> Frozen:
        """What clients count by: every threshold once, from mild to extreme."""
        mean_only = self.test.kind == "mean" and not self.watches_threshold
        named = [] if mean_only else [*frozen.ladder, frozen.gate]
        named += frozen.body if self.test.kind == "distribution" else ()
        thresholds = tuple(sorted(set(named), reverse=self.watch.direction == "higher_is_better"))
        return Frozen(thresholds=thresholds, cap=None if self.test.kind == "quantile" else frozen.cap)

    def _places(self, frozen: Calibrated, published: Frozen) -> list[list[int] | None]:
        """Where the thresholds of each score stand among the published ones; None for the capped value."""
        at = {threshold: place for place, threshold in enumerate(published.thresholds)}
        of = {"body": frozen.body, "ladder": frozen.ladder}
        places = [None if s == "mean" else sorted(at[t] for t in dict.fromkeys(of[s])) for s in self._scores]
        return [*places, [at[frozen.gate]]] if self.watches_threshold else places


def _kind(watch: Watch) -> values.ValueKind:
    assert watch.kind in ("mean", "quantile", "distribution")
    return watch.kind


def _plain_number(value: ArrayLike) -> float:
    """Twelve digits: logarithms differ in the last one between machines, and a replay must not."""
    return float(f"{float(np.asarray(value)):.12g}")


def _plain(frozen: Calibration) -> Calibrated:
    return Calibrated(
        cap=_plain_number(frozen.cap),
        centre=_plain_number(frozen.centre),
        scale=_plain_number(frozen.scale),
        body=tuple(map(_plain_number, frozen.body)),
        ladder=tuple(map(_plain_number, frozen.ladder)),
        gate=_plain_number(frozen.gate),
    )


def _calibration(frozen: Calibrated) -> Calibration:
    return Calibration(
        *(np.asarray(x, np.float64) for x in (frozen.cap, frozen.centre, frozen.scale)),
        *(np.asarray(x, np.float64) for x in (frozen.body, frozen.ladder, frozen.gate)),
    )
