"""The design effect that the judge finds when units come back, in each replication, without drawing any cell.

The judge estimates D from 256 cells; its expectation is 1 + (intra-class correlation) x (other requests of its own unit
that a request meets), and its noise that of a variance of 256 numbers, one draw for each replication and arm: what is
random about a cell are mostly its units, and they stay. Where the judge takes the requests per unit instead, since few
events say little (`rollout.domain.weigh`), so does this.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.stats.design_effect import CELLS
from rollout.stats.population import CANDIDATE, Population

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ENOUGH_EVENTS = 30.0  # cells that events must rest on, as in the judge
THIRD = 3.0  # of its values that a mean is worth when cells are counted, as in the judge


@dataclass(frozen=True, slots=True)
class Clustering:
    """How outcomes of one guardrail go together.

    Attributes:
        kind: what is counted: events of requests, events against exposure, values beyond a threshold, or any values.
        stickiness: intra-class correlation of outcomes of one unit, 0 (independent) to below 1.
        beyond: the share of values that are expected beyond the threshold.
    """

    kind: Literal["events", "exposed", "beyond", "values"]
    stickiness: float
    beyond: float = 1.0

    @property
    def extra(self) -> float:
        """What each other request of its unit adds to D; against a Poisson variance, the odds of the stickiness."""
        return self.stickiness / (1.0 - self.stickiness) if self.kind == "exposed" else self.stickiness

    def support(self, n: Floats, x: Floats, again: Floats) -> Floats:
        """Cells that the rarer of events and others rest on: `design_effect.support` of what the cells hold on average.

        `again`: how many other requests of its own unit a request meets.
        """
        match self.kind:
            case "events":
                return np.minimum(self._resting(n, x, again), self._resting(n, n - x, again))
            case "exposed":
                rate = x / np.maximum(n, 1.0)
                return np.asarray(x / (1.0 + again * (rate + self.extra) + x / CELLS), np.float64)
            case "beyond":
                return self._resting(n, self.beyond * n, again)
            case "values":
                return self._resting(n, n, again) / THIRD

    def _resting(self, n: Floats, x: Floats, again: Floats) -> Floats:
        rate = x / np.maximum(n, 1.0)
        same_again = rate + self.stickiness * (1.0 - rate)
        return np.asarray(x / (1.0 + again * same_again + x / CELLS), np.float64)


class Arrived(NamedTuple):
    """Requests in the present stage and in all, and how many others of its own unit one meets among them, (r, 2) each.

    The same for every guardrail.
    """

    now: Floats
    all: Floats
    again_now: Floats
    again: Floats

    @classmethod
    def of(cls, population: Population, requests: Floats, stage: int) -> "Arrived":
        """From the requests of each stage so far, (S, r, 2)."""
        now, total = requests[stage], requests.sum(axis=0)
        again_now = now / population.members(stage)
        return cls(now, total, again_now, population.returns(requests).T if stage else again_now)


class Effects:
    """The design effects of one guardrail in R replications."""

    def __init__(self, clustering: Clustering, replications: int, rng: np.random.Generator) -> None:
        self._clustering = clustering
        self._noise = rng.chisquare(CELLS - 1, (replications, 2)) / (CELLS - 1)
        self._per_unit = np.ones(replications)

    def at(self, rows: Ints, stage: int, seen: Arrived, events: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
        """D of the harm bets and of the gate's, each (r,); `events` in the present stage and in all, (r, 2) each."""
        events_now, events_all = events
        least = self._least(rows, seen.again, seen.again_now)
        harm = self._effect(rows, (seen.all, events_all), seen.again, least)
        gate = harm
        few = (self._clustering.support(seen.now, events_now, seen.again_now) < ENOUGH_EVENTS).any(axis=1)
        if stage > 0:
            gate = np.maximum(harm, self._effect(rows, (seen.now, events_now), seen.again_now, least))
        else:
            harm = np.where(few, np.maximum(harm, least), harm)
        return harm, np.where(few, np.maximum(gate, least), gate)

    def _least(self, rows: Ints, again: Floats, again_now: Floats) -> Floats:
        """Requests per unit, as cells show them; exposure does not, so then the largest that an attempt had."""
        visits = np.maximum(again_now[:, CANDIDATE], 1e-9)
        self._per_unit[rows] = np.maximum(self._per_unit[rows], visits / -np.expm1(-visits))
        shown = 1.0 + again.max(axis=1)
        return self._per_unit[rows] if self._clustering.kind == "exposed" else np.maximum(shown, self._per_unit[rows])

    def _effect(self, rows: Ints, counts: tuple[Floats, Floats], again: Floats, unknown: Floats) -> Floats:
        """The arms' own D weighted by their parts in the variance, (r,); see `design_effect.design_effects`."""
        n, x = counts
        own = np.maximum(1.0, (1.0 + self._clustering.extra * again) * self._noise[rows])
        total = np.maximum(n, 1.0)
        share = (x + 0.5) / (total + 1.0)
        part, silent = 1.0 / total, n <= 1.0
        if self._clustering.kind == "events":
            part, silent = share * (1.0 - share) / total, (x <= 0.0) | (x >= n)
        elif self._clustering.kind == "exposed":
            part, silent = (x + 0.5) / total**2, x <= 1.0
        own = np.where(silent, own[:, ::-1], own)  # an arm that cannot tell borrows the other's
        weighted = (part * own).sum(axis=1) / part.sum(axis=1)
        return np.asarray(np.where(silent.all(axis=1), np.maximum(unknown, 1.0), weighted), np.float64)
