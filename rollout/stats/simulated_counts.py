"""Simulated guardrails that count: proportions (binomial outcomes) and count rates (Poisson events per request)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from rollout.stats import count_rate, proportion
from rollout.stats.betting import Batch, Bets, settle
from rollout.stats.count_rate import GUESS_CENTRES, GUESS_WEIGHTS, RateBets
from rollout.stats.guess import YOUNG, mix_guesses, settled_guess, young_guesses
from rollout.stats.margin import Direction, Margin
from rollout.stats.population import Population
from rollout.stats.proportion import ADVANCE_WEIGHTS, HARM_WEIGHTS, MEMORY
from rollout.stats.simulated import STEADY, Bettor, Course, Factors, Lines, Moment, widest
from rollout.stats.simulated_effects import Clustering
from rollout.stats.sticky_rates import by_stage, group_rates

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BetMaker = Callable[[ArrayLike, ArrayLike, ArrayLike, Margin, Direction], Bets]
RateBetMaker = Callable[[ArrayLike, ArrayLike, ArrayLike | None, Margin, Direction], RateBets]

GUESS_DIGITS = 3
"""Replications whose guesses of a proportion agree to three digits share one computation of their bets. The bets stay
valid, and log e differs from the judge's by a few thousandths; it is the one thing that is not equal to the judge."""
MEMORY_EVENTS = 20_000.0  # baseline events that the guess of a rate remembers, as in the judge


@dataclass(frozen=True, slots=True)
class _Counted:
    """What every guardrail that counts has: the mixtures of `proportion`, 12 harm bets and one gate of 6."""

    candidate_rate: float
    baseline_rate: float
    margin: Margin
    direction: Direction
    weight: float = 1.0
    rollback_margin: Margin | None = None
    course: Course = STEADY
    stickiness: float = 0.0

    @property
    def harm_weights(self) -> Floats:
        """Of the 12 harm bets."""
        return HARM_WEIGHTS

    @property
    def gate_weights(self) -> tuple[Floats, ...]:
        """One gate of 6 bets."""
        return (ADVANCE_WEIGHTS,)

    def rates(self, moment: Moment) -> tuple[float, float]:
        """True rates of the candidate and of the baseline in a tick."""
        level = self.course.drift(moment.tick)
        candidate = self.candidate_rate if moment.stage >= self.course.from_stage else self.baseline_rate
        return candidate * level, self.baseline_rate * level


@dataclass(frozen=True, slots=True)
class SimulatedGuardrail(_Counted):
    """A proportion guardrail and the rates that are supposed to be true.

    Attributes:
        candidate_rate: true rate of the events that the guardrail counts.
        baseline_rate: likewise.
        margin: the worst tolerated change, above 0; early gates may widen it.
        direction: which way the metric is good.
        weight: in the mean that decides about rollback, above 0.
        rollback_margin: the line of the rollback if it is not `margin`; size 0 is "any regression".
        course: how the rates change in time. A drift above 1 / rate means that every request has the event.
        stickiness: intra-class correlation of outcomes of one unit, 0 to below 1; needs a population.
    """

    @property
    def largest_absolute(self) -> float | None:
        """A quarter, as `risk_scaled` supposes."""
        return None

    @property
    def clustering(self) -> Clustering:
        """Of the events."""
        return Clustering("events", self.stickiness)

    def bettor(
        self, replications: int, ticks: int, rng: np.random.Generator, population: Population | None = None
    ) -> Bettor:
        """Nothing is known of the baseline yet."""
        return _ProportionBettor(self, _Rates(self, "beta", replications, rng, population))


@dataclass(frozen=True, slots=True)
class SimulatedCountRate(_Counted):
    """A count-rate guardrail and the true rates, in events per request; events are independent (Poisson).

    Attributes:
        candidate_rate: true rate, above 0.
        baseline_rate: likewise.
        margin: the worst tolerated change, above 0; an absolute one is in events per request.
        direction: which way the metric is good.
        weight: in the mean that decides about rollback, above 0.
        rollback_margin: the line of the rollback if it is not `margin`; size 0 is "any regression".
        course: how the rates change in time.
        stickiness: intra-class correlation of the events of one unit's requests, 0 to below 1; needs a population.
    """

    @property
    def largest_absolute(self) -> float | None:
        """Ten margins."""
        return widest(self.margin)

    @property
    def clustering(self) -> Clustering:
        """Of the events."""
        return Clustering("exposed", self.stickiness)

    def bettor(
        self, replications: int, ticks: int, rng: np.random.Generator, population: Population | None = None
    ) -> Bettor:
        """Nothing is known of the baseline yet."""
        return _CountRateBettor(self, _Rates(self, "gamma", replications, rng, population))


class _Rates:
    """True rates of the candidate's and of the baseline's requests in R replications."""

    def __init__(
        self,
        guardrail: _Counted,
        law: Literal["beta", "gamma"],
        replications: int,
        rng: np.random.Generator,
        population: Population | None,
    ) -> None:
        self.replications = replications
        self._guardrail, self._own = guardrail, None
        if population is not None and guardrail.stickiness > 0.0:
            shape = (replications, population.groups)
            candidate, baseline = (
                group_rates(law, rate, guardrail.stickiness, shape, rng)
                for rate in (guardrail.candidate_rate, guardrail.baseline_rate)
            )
            arms = by_stage(population, candidate, baseline, guardrail.course.from_stage)
            self._own = np.stack(arms, axis=-1)  # (S, R, 2)

    def at(self, rows: Ints, moment: Moment) -> Floats:
        """Rates now, (r, 2) or (2,)."""
        if self._own is None:
            return np.asarray(self._guardrail.rates(moment), np.float64)
        return np.asarray(self._own[moment.stage, rows] * self._guardrail.course.drift(moment.tick), np.float64)


class _Held:
    """Requests and events that are not bet yet, because the other arm was empty; each (R, 2): candidate, baseline."""

    def __init__(self, replications: int) -> None:
        self.requests = np.zeros((replications, 2), np.int64)
        self.events = np.zeros((replications, 2), np.int64)
        self.observed = np.zeros((2, replications, 2))  # events in the present stage, and in all

    def add(self, rows: Ints, requests: Ints, events: Ints) -> None:
        self.requests[rows] += requests
        self.events[rows] += events
        self.observed[:, rows] += events

    def ready(self, rows: Ints) -> Ints:
        """Those of `rows` that have requests in both arms."""
        return rows[(self.requests[rows] > 0).all(axis=1)]

    def batch(self, rows: Ints) -> Batch:
        n, x = self.requests[rows], self.events[rows]
        return Batch(n[:, 0], x[:, 0], n[:, 1], x[:, 1])

    def bet(self, rows: Ints) -> None:
        self.requests[rows] = 0
        self.events[rows] = 0

    def drop(self, rows: Ints) -> None:
        self.bet(rows)
        self.observed[0, rows] = 0.0

    def seen(self, rows: Ints) -> tuple[Floats, Floats]:
        return self.observed[0, rows], self.observed[1, rows]


class _ProportionBettor:
    def __init__(self, guardrail: SimulatedGuardrail, rates: _Rates) -> None:
        self._guardrail, self._rates, self._held = guardrail, rates, _Held(rates.replications)
        self._outcomes, self._events = np.zeros((2, rates.replications))  # remembered of the baseline
        self.drop, self.events = self._held.drop, self._held.seen

    def observe(self, rows: Ints, arrived: Ints, moment: Moment, rng: np.random.Generator) -> None:
        self._held.add(rows, arrived, rng.binomial(arrived, np.minimum(1.0, self._rates.at(rows, moment))))

    def bet(self, rows: Ints, lines: Lines) -> Factors | None:
        ready = self._held.ready(rows)
        if not ready.size:
            return None
        young = self._outcomes[ready] < YOUNG
        parts = [part for part in (ready[young], ready[~young]) if part.size]
        harm = [self._log_factors(proportion.harm_bets, lines.harm, part) for part in parts]
        gate = [self._log_factors(proportion.advance_bets, lines.gate, part) for part in parts]
        self._learn(ready)
        return Factors(np.concatenate(parts), np.concatenate(harm), (np.concatenate(gate),))

    def _log_factors(self, make: BetMaker, margin: Margin, rows: Ints) -> Floats:
        past = (self._events[rows], self._outcomes[rows])
        return _proportion_factors(make, margin, self._guardrail.direction, self._held.batch(rows), past)

    def _learn(self, rows: Ints) -> None:
        outcomes = self._outcomes[rows] + self._held.requests[rows, 1]
        keep = np.minimum(1.0, MEMORY / outcomes)
        self._outcomes[rows] = outcomes * keep
        self._events[rows] = (self._events[rows] + self._held.events[rows, 1]) * keep
        self._held.bet(rows)


class _CountRateBettor:
    def __init__(self, guardrail: SimulatedCountRate, rates: _Rates) -> None:
        self._guardrail, self._rates, self._held = guardrail, rates, _Held(rates.replications)
        self._exposure, self._events = np.zeros((2, rates.replications))  # remembered of the baseline
        self.drop, self.events = self._held.drop, self._held.seen

    def observe(self, rows: Ints, arrived: Ints, moment: Moment, rng: np.random.Generator) -> None:
        self._held.add(rows, arrived, rng.poisson(arrived * self._rates.at(rows, moment)))

    def bet(self, rows: Ints, lines: Lines) -> Factors | None:
        ready = self._held.ready(rows)
        if not ready.size:
            return None
        harm = self._log_factors(count_rate.harm_bets, lines.harm, ready)
        gate = self._log_factors(count_rate.advance_bets, lines.gate, ready)
        self._learn(ready)
        return Factors(ready, harm, (gate,))

    def _log_factors(self, make: RateBetMaker, margin: Margin, rows: Ints) -> Floats:
        n_t, x_t, n_c, x_c = (np.asarray(count) for count in self._held.batch(rows))
        direction = self._guardrail.direction
        if margin.relative or margin.size == 0.0:  # such bets depend on the exposures alone
            first, group = _groups(n_t, n_c)
            shared = make(n_t[first], n_c[first], None, margin, direction)
            return count_rate.settle(RateBets(*(column[group] for column in shared)), x_t, x_c)
        rates, weights = rate_guesses(self._events[rows], self._exposure[rows], margin)
        bets = make(n_t[:, None], n_c[:, None], rates, margin, direction)
        return mix_guesses(count_rate.settle(bets, x_t[:, None], x_c[:, None]), weights)

    def _learn(self, rows: Ints) -> None:
        events = self._events[rows] + self._held.events[rows, 1]
        keep = np.minimum(1.0, MEMORY_EVENTS / np.maximum(events, 1.0))
        self._events[rows] = events * keep
        self._exposure[rows] = (self._exposure[rows] + self._held.requests[rows, 1]) * keep
        self._held.bet(rows)


def rate_guesses(events: Floats, exposure: Floats, margin: Margin) -> tuple[Floats, Floats]:
    """`count_rate.guess_rate` for many baselines (r,) at once: guesses and their weights, each (r, 4)."""
    prior_exposure = 1.0 / (GUESS_CENTRES * margin.size)
    exposed, seen = prior_exposure + exposure[:, None], 1.0 + events[:, None]
    log_evidence = np.log(prior_exposure) - seen * np.log(exposed) + gammaln(seen)
    weights = GUESS_WEIGHTS * np.exp(log_evidence - log_evidence.max(axis=1, keepdims=True))
    return seen / exposed, weights / weights.sum(axis=1, keepdims=True)


def _proportion_factors(
    bets: BetMaker, margin: Margin, direction: Direction, counts: Batch, past: tuple[Floats, Floats]
) -> Floats:
    """The judge's log factors (r, K) of one batch per replication, all young or none; equal batches share bets."""
    events, outcomes = past
    if outcomes[0] < YOUNG:
        first, group = _groups(counts.n_t, counts.n_c, events, outcomes)
        rates, weights = young_guesses(events[first], outcomes[first])
    else:
        guesses = _shortened(settled_guess(events, outcomes))
        first, group = _groups(counts.n_t, counts.n_c, guesses)
        rates, weights = guesses[first, None], np.ones((first.size, 1))
    n_t, n_c = np.asarray(counts.n_t)[first, None], np.asarray(counts.n_c)[first, None]
    shared = bets(n_t, n_c, rates, margin, direction)
    batch = Batch(*(np.asarray(count)[:, None] for count in counts))
    factors = settle(Bets(*(column[group] for column in shared)), batch)
    return factors[:, 0] if rates.shape[1] == 1 else mix_guesses(factors, weights[group])


def _groups(*columns: ArrayLike) -> tuple[Ints, Ints]:
    """Index of the first row of each distinct row of `columns`, and for each row the number of its group."""
    label: Ints = np.zeros(np.asarray(columns[0]).size, np.int64)
    for column in columns:
        values, number = np.unique(column, return_inverse=True)
        label = label * values.size + number
    _, first, group = np.unique(label, return_index=True, return_inverse=True)
    return first, group


def _shortened(rates: Floats) -> Floats:
    scale = 10.0 ** (GUESS_DIGITS - 1 - np.floor(np.log10(rates)))
    return np.asarray(np.round(rates * scale) / scale, np.float64)
