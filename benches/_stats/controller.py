"""Whole rollouts with three guardrails, many times over: who completes, who is rolled back, and after how long.

A controller decides its own traffic, so two controllers see the same requests only until they first decide differently.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from benches._stats.numbers import Arm, power_sums
from benches._stats.shapes import COST, LATENCY, UNCHANGED, Change, Pair, pair
from rollout.stats.betting import Batch
from rollout.stats.histogram import Histogram

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

PERCENTAGES = (1.0, 5.0, 25.0, 50.0)  # then 100
REQUESTS = 1000.0  # in a tick
MINUTES = 5  # of a tick
LEAST_TICKS, LEAST_UNITS = 2, 50
HORIZON = 2 * 24 * 60 // MINUTES
BASE = 0.02
MARGINS = {"errors": 0.5, "latency": 0.25, "cost": 0.25}

RUNNING, COMPLETED, ROLLED_BACK = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Truth:
    """What is wrong with the candidate.

    Attributes:
        errors: its error rate over the baseline's.
        latency: what it does to latencies.
        from_stage: it is harmless in the stages before.
    """

    errors: float = 1.0
    latency: Change = UNCHANGED
    from_stage: int = 0


class Tick(NamedTuple):
    """What some replications see in a tick: counts of errors; histograms of latency and cost of both arms."""

    errors: Batch
    latency: tuple[Histogram, Histogram]
    cost: tuple[Histogram, Histogram]

    @property
    def sums(self) -> dict[str, Floats]:
        """n, sum and sum of squares of each metric, (2, 3, rows)."""
        n_t, x_t, n_c, x_c = (np.asarray(count, np.float64) for count in self.errors)
        values = {"latency": self.latency, "cost": self.cost}
        return {"errors": np.stack([np.stack([n_t, x_t, x_t]), np.stack([n_c, x_c, x_c])])} | {
            name: np.stack([power_sums(arm) for arm in arms]) for name, arms in values.items()
        }


class Judge(Protocol):
    """Decides for R rollouts side by side."""

    def watch(self, rows: Ints, stage: int, tick: Tick) -> None:
        """Take in a tick of the replications `rows`, which are in `stage`."""

    def harmed(self, rows: Ints) -> Mask:
        """Which of them are to be rolled back."""

    def passes(self, rows: Ints, ticks: Ints) -> Mask:
        """Which of them may go on to the next stage, given their ticks in this one."""

    def enter(self, rows: Ints) -> None:
        """They are in a new stage."""


class Pairs(NamedTuple):
    """Bucket probabilities of the two metrics that are numbers."""

    latency: Pair
    cost: Pair


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of each rollout, each (R,): status, hours, and candidate requests until then."""

    status: Ints
    hours: Floats
    units: Ints


MakeJudge = Callable[[Pairs, int, np.random.Generator], Judge]


def simulate(rng: np.random.Generator, make: MakeJudge, truth: Truth, replications: int) -> Outcome:
    """Run the rollouts until all have ended, or the horizon."""
    harmless = Pairs(pair(LATENCY, UNCHANGED), pair(COST, UNCHANGED))
    harmful = Pairs(pair(LATENCY, truth.latency), harmless.cost)
    judge = make(harmless, replications, rng)
    status, stage, ticks, in_stage, total, units = np.zeros((6, replications), np.int64)
    for _ in range(HORIZON):
        for at in reversed(range(len(PERCENTAGES))):  # backwards: an advance takes effect in the next tick
            rows = np.flatnonzero((status == RUNNING) & (stage == at))
            if not rows.size:
                continue
            now_harmful = at >= truth.from_stage
            rate = BASE * (truth.errors if now_harmful else 1.0)
            tick = one_tick(at, rows.size, rate, (harmful if now_harmful else harmless, rng))
            judge.watch(rows, at, tick)
            ticks[rows] += 1
            total[rows] += 1
            in_stage[rows] += tick.errors.n_t
            units[rows] += tick.errors.n_t
            harmed = judge.harmed(rows)
            status[rows[harmed]] = ROLLED_BACK
            ready = (ticks[rows] >= LEAST_TICKS) & (in_stage[rows] >= LEAST_UNITS)
            on = rows[~harmed & ready & judge.passes(rows, ticks[rows])]
            status[on] = COMPLETED if at + 1 == len(PERCENTAGES) else RUNNING
            stage[on] += 1
            ticks[on] = in_stage[on] = 0
            judge.enter(on)
        if not (status == RUNNING).any():
            break
    return Outcome(status, total * MINUTES / 60.0, units)


def one_tick(stage: int, size: int, rate: float, source: tuple[Pairs, np.random.Generator]) -> Tick:
    """Draw what `size` replications see in a tick of a stage."""
    pairs, rng = source
    to_candidate = REQUESTS * PERCENTAGES[stage] / 100.0
    to_baseline = REQUESTS - to_candidate
    means = [to_candidate * rate, to_candidate * (1.0 - rate), to_baseline * BASE, to_baseline * (1.0 - BASE)]
    event_t, other_t, event_c, other_c = np.maximum(rng.poisson(np.array(means)[:, None], (4, size)), [[0], [1]] * 2)
    return Tick(
        Batch(event_t + other_t, event_t, event_c + other_c, event_c),
        *(
            (
                Arm(both, both.candidate).tick(to_candidate, size, rng),
                Arm(both, both.baseline).tick(to_baseline, size, rng),
            )
            for both in pairs
        ),
    )
