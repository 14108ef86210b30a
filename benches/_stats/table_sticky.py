"""Units that return: correlated requests, and log e divided by the design effect of the cluster cells."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benches._stats.cells import Cell, Summary
from benches._stats.figures import Block, mean, rate_at_most
from benches._stats.ours import ANY_REGRESSION, Baseline, BetMaker, log_mixtures
from benches._stats.proportions import SHARES, ratio_name
from rollout.stats.betting import Batch
from rollout.stats.design_effect import CELLS, ArmsCells, design_effect
from rollout.stats.margin import Margin
from rollout.stats.mixture import log_tempered
from rollout.stats.proportion import ADVANCE_WEIGHTS, HARM_WEIGHTS, advance_bets, harm_bets

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NAME = "sticky"
ALPHAS = (0.05, 0.01)
RATE = 0.1
CORRELATIONS = (0.05, 0.2)
UNITS = {0.01: 3000, 0.1: 600, 0.5: 600}  # so few that each makes many requests
REQUESTS = 200  # in a look
MARGIN = Margin(0.25, relative=True)
REQUEST_LEVEL = "the same, not divided by D"


@dataclass(frozen=True, slots=True)
class World:
    """Who the units are: their number, the candidate's share, their correlation, the candidate's rate over the base."""

    units: int
    share: float
    correlation: float
    ratio: float


class Population(NamedTuple):
    """Arm (1 is the candidate), cluster cell, rate and cumulated part of the requests, each (R, units)."""

    arm: Ints
    cell: Ints
    rate: Floats
    activity: Floats


class Bet(NamedTuple):
    """Bets, the margin they are made against, and their weights."""

    make: BetMaker
    margin: Margin
    weights: Floats


BETS = {"harm": Bet(harm_bets, ANY_REGRESSION, HARM_WEIGHTS), "advance": Bet(advance_bets, MARGIN, ADVANCE_WEIGHTS)}


def population(world: World, replications: int, rng: np.random.Generator) -> Population:
    """Beta rates with the given intra-class correlation, gamma numbers of requests (shape 1/2: few make most)."""
    shape, spread = (replications, world.units), (1.0 - world.correlation) / world.correlation
    arm = (rng.random(shape) < world.share).astype(np.int64)
    own = rng.beta(RATE * spread, (1.0 - RATE) * spread, shape)
    activity = np.cumsum(rng.gamma(0.5, size=shape), axis=1)
    rate = np.where(arm == 1, np.minimum(own * world.ratio, 1.0), own)
    return Population(arm, rng.integers(0, CELLS, shape), rate, activity / activity[:, -1:])


def simulate(rng: np.random.Generator, world: World, kind: str, looks: int, replications: int) -> Floats:
    """Whether log e ever reached log(1 / alpha): (alpha, divided by D or not, R)."""
    bet, people = BETS[kind], population(world, replications, rng)
    wealth, baseline = np.zeros((replications, bet.weights.size)), Baseline(replications)
    totals = np.zeros((2, 2, replications, CELLS), np.int64)  # arm (1 is the candidate), (n, x), replication, cell
    reached = np.zeros((len(ALPHAS), 2, replications), bool)
    lines = np.log(1.0 / np.array(ALPHAS))
    for _ in range(looks):
        tick = one_look(people, rng)
        totals += tick
        (n_c, x_c), (n_t, x_t) = tick.sum(axis=-1)
        rows = np.flatnonzero((n_t > 0) & (n_c > 0))
        batch = Batch(n_t[rows], x_t[rows], n_c[rows], x_c[rows])
        wealth[rows] += baseline.factors(rows, bet.make, batch, bet.margin, "lower_is_better")
        baseline.learn(rows, n_c[rows], x_c[rows])
        over = log_mixtures(wealth, bet.weights) >= lines[:, None]
        for row in np.flatnonzero((over & ~reached[:, 0]).any(axis=0)).tolist():
            tempered = log_tempered(wealth[row], bet.weights, design_effect([cells_of(totals[:, :, row])]))
            reached[:, 0, row] |= tempered >= lines
        reached[:, 1] |= over
    return reached


def one_look(people: Population, rng: np.random.Generator) -> Ints:
    """Counts of REQUESTS requests in each replication, (arm, (n, x), R, cell)."""
    size = len(people.arm)
    row = np.arange(size)[:, None]
    # The same search in every replication at once: replication r occupies the interval [r, r + 1).
    sorted_parts = (people.activity + row).ravel()
    unit = np.searchsorted(sorted_parts, (rng.random((size, REQUESTS)) + row).ravel(), side="right")
    unit = np.minimum(unit.reshape(size, REQUESTS) - row * people.arm.shape[1], people.arm.shape[1] - 1)
    arm, event = people.arm[row, unit], rng.random((size, REQUESTS)) < people.rate[row, unit]
    place = (arm * size + row) * CELLS + people.cell[row, unit]
    counted = [np.bincount(place[chosen].ravel(), minlength=2 * size * CELLS) for chosen in (arm >= 0, event)]
    return np.stack([count.reshape(2, size, CELLS) for count in counted], axis=1)


def cells_of(totals: Ints) -> ArmsCells:
    """The counts of one replication, (arm, (n, x), cell), as the judge holds them."""
    baseline, candidate = ({i: (int(n[i]), int(x[i])) for i in np.flatnonzero(n).tolist()} for n, x in totals)
    return ArmsCells(candidate, baseline)


def key(kind: str, correlation: float, share: float) -> str:
    """The name of a cell."""
    return f"{NAME}/{kind}, icc {correlation:g}, {ratio_name(share)}"


def cells(quick: bool) -> list[Cell]:
    """Harm and advance, two correlations, three shares."""
    size = {"looks": 48 if quick else 96, "replications": 100 if quick else 1000}
    return [
        Cell(
            key(kind, correlation, share),
            simulate,
            {
                "world": World(UNITS[share], share, correlation, 1.0 if kind == "harm" else 1.0 + MARGIN.size),
                "kind": kind,
                **size,
            },
        )
        for kind in BETS
        for correlation in CORRELATIONS
        for share in SHARES
    ]


def summary(results: Mapping[str, Any]) -> Summary:
    """False rollbacks at both levels, wrong advances at .05; the peer is the test without the design effect."""
    blocks, rows = [], []
    wanted = [("harm", 0), ("harm", 1), ("advance", 0)]
    for (kind, level), correlation in ((each, icc) for each in wanted for icc in CORRELATIONS):
        alpha, what = ALPHAS[level], "false rollback" if kind == "harm" else "wrong advance"
        reached = [results[key(kind, correlation, share)][level] for share in SHARES]
        title = f"{what}, icc {correlation:g}, alpha {alpha:g} (R = {reached[0].shape[-1]:,})"
        lines = {"log e / D": [mean(each[0]) for each in reached], REQUEST_LEVEL: [mean(each[1]) for each in reached]}
        blocks.append(Block(title, [ratio_name(share) for share in SHARES], lines))
        for share, each in zip(SHARES, reached, strict=True):
            name = f"{what}, sticky units, icc {correlation:g}, {ratio_name(share)}, alpha {alpha:g}"
            rows.append(rate_at_most(name, each[0], alpha, {REQUEST_LEVEL: float(each[1].mean())}))
    return Summary(TEXT, blocks, rows)


TEXT = f"""Each unit has a rate of its own (beta, mean 10 %, the given intra-class correlation), keeps its arm, and
makes a gamma(1/2) number of requests. {UNITS[0.01]:,} units at 1:99, otherwise {UNITS[0.1]}; a look after {REQUESTS}
requests, 96 looks (quick: 48). Log e of each bet is divided by the current D of 256 cluster cells, as the judge does,
then mixed. Advance: exactly on the margin x 1.25.
"""
