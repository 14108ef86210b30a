"""Simulated guardrails on values (mean, quantile, distribution): multinomial counts in buckets, bet as in `values`."""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from rollout.stats import values
from rollout.stats.calibration import BODY, TAIL, Calibration
from rollout.stats.exceedance import LADDER
from rollout.stats.histogram import Histogram
from rollout.stats.margin import Direction, Margin
from rollout.stats.past_values import faded, grouped
from rollout.stats.population import Population
from rollout.stats.simulated import STEADY, Bettor, Course, Factors, Lines, Moment, widest
from rollout.stats.simulated_distribution import Distribution
from rollout.stats.simulated_effects import Clustering
from rollout.stats.sticky_rates import by_stage, group_habits
from rollout.stats.values import GATE_WEIGHTS, ValueTest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CHUNK = 128
"""Replications that bet at once: arrays (CHUNK, 8 bets, 150 buckets) of 1.2 MB stay in the processor's cache, which is
faster than larger ones, and the state of all replications is the only thing that grows with their number."""


@dataclass(frozen=True, slots=True)
class SimulatedValues:
    """A guardrail on a value and the distributions that are supposed to be true.

    Attributes:
        test: what is tested of the value.
        candidate: distribution of the candidate's values (`simulated_distribution`).
        baseline: likewise.
        margin: the worst tolerated change, above 0; relative where the whole distribution is tested.
        weight: in the mean that decides about rollback, above 0.
        rollback_margin: the line of the rollback if it is not `margin`; size 0 is "any regression".
        course: how values change in time; a drift is rounded to whole groups of buckets.
        known: baseline values from before the rollout; with fewer than `test.calibrated_at` (500) the first ones of
            the rollout are spent on calibration.
        stickiness: intra-class correlation of values of one unit, 0 to below 1; needs a population and no drift.

    Raises:
        ValueError: if a distribution is not on the grid of the test.
    """

    test: ValueTest
    candidate: Distribution
    baseline: Distribution
    margin: Margin
    weight: float = 1.0
    rollback_margin: Margin | None = None
    course: Course = STEADY
    known: int = 0
    stickiness: float = 0.0

    def __post_init__(self) -> None:
        grids = (self.candidate.grid, self.baseline.grid)
        if any(grid != self.test.grid for grid in grids):
            raise ValueError(f"values of this test lie on {self.test.grid}, not on {grids[0]} and {grids[1]}")

    @property
    def direction(self) -> Direction:
        """Which way the metric is good."""
        return self.test.direction

    @property
    def largest_absolute(self) -> float | None:
        """A quarter of the bounds, or ten margins."""
        bounds = self.test.bounds
        return widest(self.margin) if bounds is None else (bounds[1] - bounds[0]) / 4.0

    @property
    def harm_weights(self) -> Floats:
        """Of the bets of all families."""
        return values.harm_weights(self.test)

    @property
    def gate_weights(self) -> tuple[Floats, ...]:
        """Of each gate of the test."""
        return tuple(GATE_WEIGHTS[gate] for gate in self.test.gates)

    @property
    def clustering(self) -> Clustering:
        """Of the values beyond the threshold of the gate; a mean has none."""
        if self.test.gates == ("mean",):
            return Clustering("values", self.stickiness)
        lower = self.test.direction == "lower_is_better"
        focus = self.test.focus or (TAIL if lower else 1.0 - TAIL)
        return Clustering("beyond", self.stickiness, 1.0 - focus if lower else focus)

    def bettor(
        self, replications: int, ticks: int, rng: np.random.Generator, population: Population | None = None
    ) -> Bettor:
        """Calibrated where enough baseline values are known from before."""
        return _ValueBettor(self, replications, ticks, rng, population)


class _Arm:
    """What one arm draws from, and the values that are not bet yet: (R, B) counts over all buckets it may ever need."""

    def __init__(self, course: Course, true: tuple[Distribution, Distribution], ticks: int, replications: int) -> None:
        self._course, (self._before, self._after) = course, true
        possible = (self._after,) if course.from_stage == 0 else true
        levels = {course.drift(tick) for tick in range(ticks)}
        moved = [distribution.drifted(level).index for distribution in possible for level in levels]
        self.index = np.unique(np.concatenate(moved))
        self.held = np.zeros((replications, self.index.size))
        self._own: Floats | None = None

    def settle(self, own: Floats) -> None:
        """From now on, values fall as each replication's own units make them: (S, R, B)."""
        self._own = own

    def placed(self, distribution: Distribution) -> Floats:
        """The probabilities of all buckets, (B,)."""
        probabilities = np.zeros(self.index.size)
        probabilities[np.searchsorted(self.index, distribution.index)] = distribution.probabilities
        return np.asarray(probabilities / probabilities.sum(), np.float64)

    def hold(self, rows: Ints, n: Ints, moment: Moment, rng: np.random.Generator) -> None:
        """Draw n (r,) values and add them to those that are not bet yet."""
        if self._own is not None:
            self.held[rows] += rng.multinomial(n, self._own[moment.stage, rows])
            return
        distribution = self._after if moment.stage >= self._course.from_stage else self._before
        now = distribution.drifted(self._course.drift(moment.tick))
        self.held[rows] += rng.multinomial(n, self.placed(now))


class _ValueBettor:
    def __init__(
        self,
        guardrail: SimulatedValues,
        replications: int,
        ticks: int,
        rng: np.random.Generator,
        population: Population | None,
    ) -> None:
        true = (guardrail.baseline, guardrail.candidate)
        self._guardrail, self._test = guardrail, guardrail.test
        self._candidate = _Arm(guardrail.course, true, ticks, replications)
        self._baseline = _Arm(guardrail.course, (true[0], true[0]), ticks, replications)
        self._is_frozen = np.zeros(replications, np.bool_)
        self._frozen = _unfrozen(replications)
        self._first = np.zeros_like(self._baseline.held)  # of the baseline until the calibration is frozen, (R, B)
        self._past_index, self._groups = _grouped(self._test, self._baseline.index)
        self._past = np.zeros((replications, self._past_index.size))  # from then on, in wider buckets
        if guardrail.known > 0:
            rows = np.arange(replications)
            self._baseline.hold(rows, np.full(replications, guardrail.known), Moment(0, 0), rng)
            self._learn(rows)
        if population is not None and guardrail.stickiness > 0.0:
            self._settle(population, replications, rng)

    def _settle(self, population: Population, replications: int, rng: np.random.Generator) -> None:
        shape, sticky, start = (replications, population.groups), self._guardrail.stickiness, self._guardrail.course
        after, before = (
            group_habits(arm.placed(true), sticky, shape, rng)
            for arm, true in (
                (self._candidate, self._guardrail.candidate),
                (self._baseline, self._guardrail.baseline),
            )
        )
        same = np.zeros((*before.shape[:2], self._candidate.index.size))  # the baseline's, in the candidate's buckets
        places = np.searchsorted(self._candidate.index, self._baseline.index)
        if start.from_stage > 0:
            same[:, :, places] = before
        self._candidate.settle(by_stage(population, after, same, start.from_stage)[0])
        self._baseline.settle(by_stage(population, before, before, 0)[1])

    def events(self, rows: Ints) -> tuple[Floats, Floats]:
        """None: how values cluster is read from how many there are."""
        return np.zeros((rows.size, 2)), np.zeros((rows.size, 2))

    def observe(self, rows: Ints, arrived: Ints, moment: Moment, rng: np.random.Generator) -> None:
        for number, arm in enumerate((self._candidate, self._baseline)):
            arm.hold(rows, arrived[:, number], moment, rng)

    def bet(self, rows: Ints, lines: Lines) -> Factors | None:
        """While a replication is being calibrated it bets nothing, and its baseline teaches at once."""
        frozen = self._is_frozen[rows]
        both = self._candidate.held[rows].any(axis=1) & self._baseline.held[rows].any(axis=1)
        ready = rows[frozen & both]
        made = [self._factors(ready[at : at + CHUNK], lines) for at in range(0, ready.size, CHUNK)]
        self._learn(rows[both | ~frozen])
        if not made:
            return None
        gates = zip(*(factors.gates for factors in made), strict=True)
        harm = np.concatenate([factors.harm for factors in made])
        return Factors(ready, harm, tuple(np.concatenate(parts) for parts in gates))

    def drop(self, rows: Ints) -> None:
        self._candidate.held[rows] = 0.0
        self._baseline.held[rows] = 0.0

    def _factors(self, rows: Ints, lines: Lines) -> Factors:
        frozen = Calibration(*(getattr(self._frozen, field.name)[rows] for field in fields(Calibration)))
        past = self._histogram(self._past_index, self._past[rows])
        candidate = self._histogram(self._candidate.index, self._candidate.held[rows])
        baseline = self._histogram(self._baseline.index, self._baseline.held[rows])
        harm = values.harm_log_factors(self._test, frozen, past, candidate, baseline, lines.harm)
        gates = values.advance_log_factors(self._test, frozen, past, candidate, baseline, lines.gate)
        return Factors(rows, harm, gates)

    def _histogram(self, index: Ints, counts: Floats) -> Histogram:
        """Without the buckets that nobody has."""
        used = counts.any(axis=0)
        return Histogram(self._test.grid, index[used], counts[:, used])

    def _learn(self, rows: Ints) -> None:
        """The baseline's values become past."""
        frozen = self._is_frozen[rows]
        self._calibrate(rows[~frozen])
        known = rows[frozen]
        self._past[known] = faded(self._past[known] + self._in_groups(self._baseline.held[known]))
        self.drop(rows)

    def _calibrate(self, rows: Ints) -> None:
        """Freeze where there are enough values now."""
        first = faded(self._first[rows] + self._baseline.held[rows])
        self._first[rows] = first
        enough = first.sum(axis=1) >= self._test.calibrated_at
        if enough.any():
            made = self._test.calibrate(self._histogram(self._baseline.index, first[enough]))
            for field in fields(Calibration):
                getattr(self._frozen, field.name)[rows[enough]] = getattr(made, field.name)
            self._past[rows[enough]] = self._in_groups(first[enough])
            self._is_frozen[rows[enough]] = True

    def _in_groups(self, counts: Floats) -> Floats:
        return np.add.reduceat(counts, self._groups, axis=1)


def _grouped(test: ValueTest, index: Ints) -> tuple[Ints, Ints]:
    """The buckets that stand for neighbours each, and where in `index` each begins."""
    return np.unique(grouped(test.grid, index), return_index=True)


def _unfrozen(replications: int) -> Calibration:
    """Room for what will be frozen."""
    one, body, ladder = (replications,), (replications, BODY.size), (replications, LADDER.size)
    return Calibration(*(np.full(shape, np.nan) for shape in (one, one, one, body, ladder, one)))
