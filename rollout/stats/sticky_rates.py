"""What each arm's units are like, when there are so many of them and outcomes of one unit go together.

Given its units, a request of an arm is made by any of them with the same chance, so its outcome follows the mean over
the units. The mean over each group of units (`population`) is therefore all that has to be drawn.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rollout.stats.population import Population

Floats = NDArray[np.float64]


def by_stage(population: Population, candidate: Floats, baseline: Floats, from_stage: int) -> tuple[Floats, Floats]:
    """Means over the units of each arm in each stage, (S, R, ...) each, from those over groups (R, S + 1, ...).

    The candidate's arm is like the baseline's before `from_stage`.
    """
    arms: tuple[list[Floats], list[Floats]] = ([], [])
    for stage in range(len(population.percentages)):
        joined = slice(0, stage + 1), slice(stage + 1, None)
        for arm, members in enumerate(joined):
            own = candidate if arm == 0 and stage >= from_stage else baseline
            weights = population.groups[members]
            arms[arm].append(np.tensordot(own[:, members], weights / weights.sum(), axes=(1, 0)))
    return np.stack(arms[0]), np.stack(arms[1])


def group_rates(
    law: Literal["beta", "gamma"], rate: float, stickiness: float, shape: tuple[int, Floats], rng: np.random.Generator
) -> Floats:
    """The mean rate of each group of units in each of R replications, (R, groups); `shape` is R and the groups' sizes.

    Beta: rates of a proportion, with the given intra-class correlation; the mean of K of them has a K-th of the
    variance and is drawn as a beta with it (exact for K = 1). Gamma: rates of events, whose correlation is against
    Poisson outcomes of mean `rate`; exact for every K.
    """
    replications, groups = shape
    size = (replications, groups.size)
    units = np.maximum(groups, 1.0)
    if stickiness == 0.0 or rate == 0.0 or (law == "beta" and rate >= 1.0):
        return np.full(size, rate)
    if law == "gamma":
        shapes = units * rate * (1.0 - stickiness) / stickiness
        return np.asarray(rng.gamma(shapes, rate / shapes, size), np.float64)
    spread = units / stickiness - 1.0
    return np.asarray(rng.beta(rate * spread, (1.0 - rate) * spread, size), np.float64)


def group_habits(
    probabilities: Floats, stickiness: float, shape: tuple[int, Floats], rng: np.random.Generator
) -> Floats:
    """Where the values of each group of units fall, (R, groups, B), as probabilities of the B buckets.

    A unit has a habitual value; a request of it has that one with probability sqrt(stickiness), else a fresh one. Any
    score of the values then has this intra-class correlation, and the values of all units together fall as they should.
    """
    replications, groups = shape
    counts = np.maximum(1, np.round(groups)).astype(np.int64)
    habits = rng.multinomial(np.tile(counts, (replications, 1)), probabilities) / counts[:, None]
    habitual = np.sqrt(stickiness)
    return np.asarray(habitual * habits + (1.0 - habitual) * probabilities, np.float64)
