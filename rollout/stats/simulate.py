"""A whole staged rollout, many times over: how often a plan completes, rolls back, or stays undecided.

The bets, margins, start weights and thresholds are those of the real judge. Simplified: requests arrive
evenly and are independent (no sticky units, so the design effect is 1), outcomes are known within their
tick, a gate that was passed once in a stage stays passed, and no person, signal, lease or sample-ratio
check intervenes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.stats.betting import Batch, Bets, Floats, settle
from rollout.stats.combine import start_weights
from rollout.stats.guess import YOUNG, mix_guesses, settled_guess, young_guesses
from rollout.stats.margin import Direction, Margin, risk_scaled
from rollout.stats.proportion import ADVANCE_WEIGHTS, HARM_WEIGHTS, MEMORY, advance_bets, harm_bets

Ints = NDArray[np.int64]
BetMaker = Callable[[ArrayLike, ArrayLike, ArrayLike, Margin, Direction], Bets]

RUNNING, COMPLETED, ROLLED_BACK = 0, 1, 2
GUESS_DIGITS = 3  # replications whose guesses agree to three digits share one computation of their bets


@dataclass(frozen=True, slots=True)
class SimulatedStage:
    """A stage: exposure in percent (below 100), and the ticks and candidate requests it lasts at least."""

    percentage: float
    min_ticks: int = 1
    min_units: int = 0


@dataclass(frozen=True, slots=True)
class SimulatedGuardrail:
    """A proportion guardrail and the rates that are supposed to be true.

    Attributes:
        candidate_rate: true rate of the events that the guardrail counts.
        baseline_rate: likewise.
        margin: the worst tolerated change, above 0; early gates may widen it.
        direction: which way the metric is good.
        weight: in the mean that decides about rollback, above 0.
        rollback_margin: the line of the rollback if it is not `margin`; size 0 is "any regression".
    """

    candidate_rate: float
    baseline_rate: float
    margin: Margin
    direction: Direction
    weight: float = 1.0
    rollback_margin: Margin | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A plan under supposed traffic and rates.

    Attributes:
        stages: in order, with rising percentages below 100 (at 100 there is no baseline to compare with).
        guardrails: at least one, with a margin above 0.
        requests_per_tick: of both arms together.
        horizon: ticks after which a rollout that is still running counts as undecided.
        alpha_rollback: level of the rollback test, over all guardrails, looks and stages.
        alpha_advance: level of each gate.
        risk_scaled: whether early gates widen the margins (`margin.risk_scaled`).
        design_effect: D >= 1 that every bet is divided by throughout (`mixture.log_tempered`). The simulated requests
            stay independent, so a D above 1 shows what estimating it too high costs.

    Raises:
        ValueError: if any of this does not hold.
    """

    stages: tuple[SimulatedStage, ...]
    guardrails: tuple[SimulatedGuardrail, ...]
    requests_per_tick: float
    horizon: int
    alpha_rollback: float = 0.01
    alpha_advance: float = 0.05
    risk_scaled: bool = True
    design_effect: float = 1.0

    def __post_init__(self) -> None:
        if not self.design_effect >= 1.0:
            raise ValueError(f"a design effect is at least 1; got {self.design_effect}")
        percentages = [stage.percentage for stage in self.stages]
        if not percentages or percentages[0] <= 0.0 or percentages[-1] >= 100.0:
            raise ValueError(f"at least one stage, each above 0 and below 100 percent; got {percentages}")
        if any(later <= earlier for earlier, later in pairwise(percentages)):
            raise ValueError(f"percentages must rise from stage to stage; got {percentages}")
        if not self.guardrails or any(guardrail.margin.size == 0.0 for guardrail in self.guardrails):
            raise ValueError("at least one guardrail, and every margin above 0")
        if not (self.requests_per_tick > 0.0 and self.horizon > 0):
            raise ValueError(f"traffic and horizon are above 0; got {self.requests_per_tick}, {self.horizon}")


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of each replication; every array has shape (replications,).

    Attributes:
        completed: passed the gate of the last stage.
        rolled_back: the evidence of harm reached its line.
        ticks: until then, or the horizon.
        candidate_requests: requests that the candidate answered until then.
    """

    completed: NDArray[np.bool_]
    rolled_back: NDArray[np.bool_]
    ticks: Ints
    candidate_requests: Ints

    @property
    def undecided(self) -> NDArray[np.bool_]:
        """Still running at the horizon."""
        return ~(self.completed | self.rolled_back)


@dataclass(frozen=True, slots=True)
class _State:
    """All replications; arrays over (replication, ...) or (guardrail, replication, ...), changed in place."""

    effect: float  # what every bet is divided by
    status: Ints
    stage: Ints
    ticks: Ints  # in the current stage
    units: Ints  # candidate requests in the current stage
    total_ticks: Ints
    total_units: Ints
    held: Ints  # (R, 2), not yet bet, because the other arm was empty: candidate, baseline
    held_events: Ints  # (guardrail, R, 2)
    outcomes: Floats  # baseline outcomes remembered
    events: Floats  # (guardrail, R)
    harm: Floats  # (guardrail, R, stage, 12)
    advance: Floats  # (guardrail, R, 6)
    best: Floats  # (guardrail, R), largest log e for advance in this stage


def simulate(scenario: Scenario, replications: int, rng: np.random.Generator) -> Outcomes:
    """Run the rollout `replications` times.

    Args:
        scenario: the plan, its traffic and the true rates.
        replications: how many; 20,000 give a standard error of 0.0002 at a probability of 0.999.
        rng: the random generator; the same seed gives the same outcomes.
    """
    state = _new_state(scenario, replications)
    for _ in range(scenario.horizon):
        for stage in reversed(range(len(scenario.stages))):  # backwards: an advance takes effect next tick
            rows = np.flatnonzero((state.status == RUNNING) & (state.stage == stage))
            if rows.size:
                _tick(scenario, stage, rows, state, rng)
        if not (state.status == RUNNING).any():
            break
    return Outcomes(state.status == COMPLETED, state.status == ROLLED_BACK, state.total_ticks, state.total_units)


def _new_state(scenario: Scenario, size: int) -> _State:
    guardrails, stages = len(scenario.guardrails), len(scenario.stages)

    def whole(*shape: int) -> Ints:
        return np.zeros(shape, np.int64)

    return _State(
        effect=scenario.design_effect,
        status=whole(size),
        stage=whole(size),
        ticks=whole(size),
        units=whole(size),
        total_ticks=whole(size),
        total_units=whole(size),
        held=whole(size, 2),
        held_events=whole(guardrails, size, 2),
        outcomes=np.zeros(size),
        events=np.zeros((guardrails, size)),
        harm=np.zeros((guardrails, size, stages, HARM_WEIGHTS.size)),
        advance=np.zeros((guardrails, size, ADVANCE_WEIGHTS.size)),
        best=np.zeros((guardrails, size)),
    )


def _tick(scenario: Scenario, stage: int, rows: Ints, state: _State, rng: np.random.Generator) -> None:
    """One tick of the replications `rows` in `stage`: observe, bet, learn, then protect before progress."""
    _observe(scenario, stage, rows, state, rng)
    ready = rows[(state.held[rows] > 0).all(axis=1)]
    if ready.size:
        for index, guardrail in enumerate(scenario.guardrails):
            gate = _gate_margin(scenario, stage, guardrail)
            _bet(guardrail, gate, (index, stage), ready, state)
        _learn(ready, state)
    breached = _log_harm(scenario, stage, rows, state) >= -np.log(scenario.alpha_rollback)
    state.status[rows[breached]] = ROLLED_BACK
    rule = scenario.stages[stage]
    passed = (
        ~breached
        & (state.best[:, rows] >= -np.log(scenario.alpha_advance)).all(axis=0)
        & (state.ticks[rows] >= rule.min_ticks)
        & (state.units[rows] >= rule.min_units)
    )
    _advance(stage + 1 == len(scenario.stages), rows[passed], state)


def _observe(scenario: Scenario, stage: int, rows: Ints, state: _State, rng: np.random.Generator) -> None:
    share = scenario.stages[stage].percentage / 100.0
    per_tick = scenario.requests_per_tick * np.array([share, 1.0 - share])
    ticks = state.ticks[rows, None]
    arrived = (np.floor(per_tick * (ticks + 1)) - np.floor(per_tick * ticks)).astype(np.int64)
    for index, guardrail in enumerate(scenario.guardrails):
        rates = (guardrail.candidate_rate, guardrail.baseline_rate)
        state.held_events[index, rows] += rng.binomial(arrived, rates)
    state.held[rows] += arrived
    state.ticks[rows] += 1
    state.total_ticks[rows] += 1
    state.units[rows] += arrived[:, 0]
    state.total_units[rows] += arrived[:, 0]


def _gate_margin(scenario: Scenario, stage: int, guardrail: SimulatedGuardrail) -> Margin:
    if not scenario.risk_scaled:
        return guardrail.margin
    last = len(scenario.stages) - 1
    following = scenario.stages[min(stage + 1, last)].percentage
    return risk_scaled(guardrail.margin, guardrail.direction, following, scenario.stages[last].percentage)


def _bet(guardrail: SimulatedGuardrail, gate: Margin, place: tuple[int, int], rows: Ints, state: _State) -> None:
    index, stage = place
    young = state.outcomes[rows] < YOUNG
    for part in (rows[young], rows[~young]):
        if not part.size:
            continue
        n, x = state.held[part], state.held_events[index, part]
        counts = Batch(n[:, 0], x[:, 0], n[:, 1], x[:, 1])
        past = (state.events[index, part], state.outcomes[part])
        harm = _log_factors(harm_bets, guardrail.rollback_margin or guardrail.margin, guardrail.direction, counts, past)
        state.harm[index, part, : stage + 1] += harm[:, None, :] / state.effect
        advance = _log_factors(advance_bets, gate, guardrail.direction, counts, past)
        state.advance[index, part] += advance / state.effect
        wealth = _log_mixture(state.advance[index, part], ADVANCE_WEIGHTS)
        state.best[index, part] = np.maximum(state.best[index, part], wealth)


def _log_factors(
    bets: BetMaker, margin: Margin, direction: Direction, counts: Batch, past: tuple[Floats, Floats]
) -> Floats:
    """The judge's log factors (R, K) of one batch per replication; equal batches share their bets."""
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


def _learn(rows: Ints, state: _State) -> None:
    outcomes = state.outcomes[rows] + state.held[rows, 1]
    keep = np.minimum(1.0, MEMORY / outcomes)
    state.outcomes[rows] = outcomes * keep
    state.events[:, rows] = (state.events[:, rows] + state.held_events[:, rows, 1]) * keep
    state.held[rows] = 0
    state.held_events[:, rows] = 0


def _log_harm(scenario: Scenario, stage: int, rows: Ints, state: _State) -> Floats:
    """Log of the weighted mean over guardrails, start times and bets; what has not started counts 1."""
    starts = np.asarray(start_weights(len(scenario.stages)))[: stage + 1]
    importance = np.array([guardrail.weight for guardrail in scenario.guardrails])
    importance /= importance.sum()
    started = state.harm[:, rows, : stage + 1]
    weights = importance[:, None, None] * starts[:, None] * HARM_WEIGHTS
    columns = np.moveaxis(started, 1, 0).reshape(rows.size, -1)
    waiting = np.zeros((rows.size, 1))
    return _log_mixture(np.hstack([columns, waiting]), np.append(weights.ravel(), 1.0 - starts.sum()))


def _advance(is_last: bool, rows: Ints, state: _State) -> None:
    if is_last:
        state.status[rows] = COMPLETED
        return
    state.stage[rows] += 1
    for counter in (state.ticks, state.units, state.held):
        counter[rows] = 0
    state.held_events[:, rows] = 0
    state.advance[:, rows] = 0.0
    state.best[:, rows] = 0.0


def _log_mixture(log_wealth: Floats, weights: Floats) -> Floats:
    top = log_wealth.max(axis=-1, keepdims=True)
    return np.asarray(top[..., 0] + np.log(np.exp(log_wealth - top) @ weights), np.float64)
