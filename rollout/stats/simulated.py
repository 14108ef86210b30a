"""What the kinds of simulated guardrails have in common: a line, a truth that may change in time, and bets.

R is the number of replications. A tick concerns `rows`, those replications that are in one stage: their indices, (r,).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rollout.stats.margin import Direction, Margin
from rollout.stats.population import Population
from rollout.stats.simulated_effects import Clustering

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Drift = Callable[[int], float]
"""Tick since the rollout began (0, 1, ...) -> multiplier of every rate or value, in both arms alike; above 0."""


def steady(tick: int) -> float:
    """No drift."""
    return 1.0


@dataclass(frozen=True, slots=True)
class Course:
    """How what is true changes during a rollout.

    Attributes:
        drift: what happens to both arms alike: days and nights, an outage of a supplier.
        from_stage: the candidate differs from the baseline from this stage on (0 is the first), and equals it before.
    """

    drift: Drift = steady
    from_stage: int = 0


STEADY = Course()


class Moment(NamedTuple):
    """Ticks since the rollout began, and the stage that the replications in question are in."""

    tick: int
    stage: int


class Lines(NamedTuple):
    """The margin beyond which the candidate is rolled back, and the one within which the present gate lets it on."""

    harm: Margin
    gate: Margin


class Factors(NamedTuple):
    """Log e-factors of the replications `rows` (b,) that bet in this tick: harm (b, K), and (b, K_gate) per gate."""

    rows: Ints
    harm: Floats
    gates: tuple[Floats, ...]


class Bettor(Protocol):
    """Draws the outcomes of one guardrail in all replications, and bets on them as the judge would."""

    def observe(self, rows: Ints, arrived: Ints, moment: Moment, rng: np.random.Generator) -> None:
        """Draw and hold the outcomes of `arrived` requests, (r, 2): candidate, baseline."""

    def bet(self, rows: Ints, lines: Lines) -> Factors | None:
        """Bet what is held where both arms have something, then learn from the baseline. None: nobody bets."""

    def drop(self, rows: Ints) -> None:
        """Forget what is held; the stage has ended."""

    def events(self, rows: Ints) -> tuple[Floats, Floats]:
        """Events that were observed in the present stage, and in all, (r, 2) each; zeros where values are observed."""


class Simulated(Protocol):
    """A guardrail and what is supposed to be true."""

    @property
    def margin(self) -> Margin:
        """The worst tolerated change, above 0; early gates may widen it."""

    @property
    def rollback_margin(self) -> Margin | None:
        """The line of the rollback if it is not `margin`; size 0 is "any regression"."""

    @property
    def direction(self) -> Direction:
        """Which way the metric is good."""

    @property
    def weight(self) -> float:
        """In the mean that decides about rollback, above 0."""

    @property
    def largest_absolute(self) -> float | None:
        """How wide an early gate may make an absolute margin; see `margin.risk_scaled`."""

    @property
    def harm_weights(self) -> Floats:
        """Prior weights of the harm bets, (K,)."""

    @property
    def gate_weights(self) -> tuple[Floats, ...]:
        """Prior weights of the bets of each gate; every gate must pass."""

    @property
    def clustering(self) -> Clustering:
        """How outcomes of one unit go together."""

    def bettor(
        self, replications: int, ticks: int, rng: np.random.Generator, population: Population | None = None
    ) -> Bettor:
        """Ready for the first of at most `ticks` ticks; with a population, the outcomes of its units go together."""


LARGEST_WIDENING = 10.0  # of an absolute margin of anything that has no bounds, as in the judge


def widest(margin: Margin) -> float:
    """The largest absolute margin of an early gate, in the units of a metric without bounds."""
    return LARGEST_WIDENING * margin.size
