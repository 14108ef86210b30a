"""Worlds and what can be seen of them: yes/no outcomes of two arms, look by look, R replications at a time.

Requests arrive as a Poisson process, so an arm's events and its other requests in one look are independent Poisson
counts: drawing those two is exact, and faster than a binomial of a Poisson.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.stats.betting import Batch

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAY = 1440  # looks, one a minute


class Arms(NamedTuple):
    """Sample sizes, means and variances of all that was seen so far, each (R,): what closed-form tests go by."""

    n_t: Floats
    mean_t: Floats
    var_t: Floats
    n_c: Floats
    mean_c: Floats
    var_c: Floats


@dataclass(frozen=True)
class Look:
    """What one look shows of R replications.

    Attributes:
        number: 0, 1, ...
        stage: of the rollout, 0, 1, ...
        tick: counts since the look before, arrays (R,).
        total: counts since the start.
    """

    number: int
    stage: int
    tick: Batch
    total: Batch

    @cached_property
    def arms(self) -> Arms:
        """The totals as moments, with the plain p (1 - p) as variance."""
        with np.errstate(invalid="ignore", divide="ignore"):
            p_t, p_c = np.divide(self.total.x_t, self.total.n_t), np.divide(self.total.x_c, self.total.n_c)
        n_t, n_c = np.asarray(self.total.n_t, np.float64), np.asarray(self.total.n_c, np.float64)
        return Arms(n_t, p_t, p_t * (1.0 - p_t), n_c, p_c, p_c * (1.0 - p_c))

    @cached_property
    def error(self) -> Floats:
        """Standard error of the difference of the rates if they are equal, from the pooled rate, (R,)."""
        n_t, x_t, n_c, x_c = (np.asarray(count, np.float64) for count in self.total)
        pooled = (x_t + x_c) / np.maximum(n_t + n_c, 1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sqrt(pooled * (1.0 - pooled) * (1.0 / n_t + 1.0 / n_c))

    @property
    def units(self) -> Ints:
        """Candidate requests so far, (R,)."""
        return np.asarray(self.total.n_t, np.int64)


@dataclass(frozen=True, slots=True)
class World:
    """What is true at each look; every array has shape (looks,).

    Attributes:
        requests: expected, of both arms together.
        share: the candidate's part of them.
        baseline: true rate of the events.
        candidate: likewise.
        stage: of the rollout, 0, 1, ...
    """

    requests: Floats
    share: Floats
    baseline: Floats
    candidate: Floats
    stage: Ints

    @property
    def looks(self) -> int:
        """How many."""
        return self.requests.size


def steady(share: float, baseline: float, candidate: float, looks: int = DAY, units: float = 10.0) -> World:
    """A world that does not change, with `units` candidate requests in each look."""
    values = (units / share, share, baseline, candidate)
    columns = (np.full(looks, value) for value in values)
    return World(*columns, np.zeros(looks, np.int64))


def drifting(world: World, baseline: ArrayLike) -> World:
    """The world with other baseline rates; the candidate keeps its ratio to the baseline."""
    rates = np.broadcast_to(np.asarray(baseline, np.float64), world.baseline.shape)
    return replace(world, baseline=rates, candidate=rates * world.candidate / world.baseline)


def staged(shares: ArrayLike, baselines: ArrayLike, ratio: float, requests: float, looks: int) -> World:
    """Stages of `looks` looks each at a constant traffic, each with its share and its baseline rate."""
    stage = np.repeat(np.arange(np.size(shares)), looks)
    rates = np.asarray(baselines, np.float64)[stage]
    return World(np.full(stage.size, requests), np.asarray(shares)[stage], rates, rates * ratio, stage)


def minutes(world: World, replications: int, rng: np.random.Generator) -> Iterator[Look]:
    """The looks of a world in which requests arrive at random."""
    total = np.zeros((4, replications), np.int64)
    for number in range(world.looks):
        expected_t = world.requests[number] * world.share[number]
        expected_c = world.requests[number] - expected_t
        p_t, p_c = world.candidate[number], world.baseline[number]
        means = np.array([expected_t * p_t, expected_t * (1.0 - p_t), expected_c * p_c, expected_c * (1.0 - p_c)])
        event_t, other_t, event_c, other_c = rng.poisson(means[:, None], (4, replications))
        tick = np.stack([event_t + other_t, event_t, event_c + other_c, event_c])
        total = total + tick
        yield Look(number, int(world.stage[number]), Batch(*tick), Batch(*total))


def requests(world: World, replications: int, rng: np.random.Generator) -> Iterator[Look]:
    """The looks of a world in which somebody looks after each single request."""
    total = np.zeros((4, replications), np.int64)
    for number in range(world.looks):
        to_candidate = rng.random(replications) < world.share[number]
        failed = rng.random(replications) < np.where(to_candidate, world.candidate[number], world.baseline[number])
        tick = np.stack([to_candidate, to_candidate & failed, ~to_candidate, ~to_candidate & failed]).astype(np.int64)
        total = total + tick
        yield Look(number, int(world.stage[number]), Batch(*tick), Batch(*total))
