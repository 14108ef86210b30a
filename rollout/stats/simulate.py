"""A whole staged rollout, many times over: how often a plan completes, rolls back, or stays undecided.

The bets, margins, start weights and thresholds are those of the real judge, for every kind that bets batch by batch:
proportions and count rates (`simulated_counts`), values (`simulated_values`). With a number of units, these come back
(`population`) and outcomes of one go together (`sticky_rates`), so that the judge finds a design effect
(`simulated_effects`); without, requests are independent. Simplified: requests arrive evenly, outcomes are known within
their tick, every request has an outcome for every guardrail, a gate that was passed once in a stage stays passed, and
no person, signal, lease or sample-ratio check intervenes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rollout.stats.margin import risk_scaled
from rollout.stats.population import Population
from rollout.stats.simulated import Bettor, Lines, Moment, Simulated
from rollout.stats.simulated_counts import SimulatedCountRate, SimulatedGuardrail
from rollout.stats.simulated_effects import Arrived, Effects
from rollout.stats.simulated_values import SimulatedValues
from rollout.stats.simulated_wealth import Wealth, log_mixtures

__all__ = [
    "Outcomes",
    "Scenario",
    "SimulatedCountRate",
    "SimulatedGuardrail",
    "SimulatedStage",
    "SimulatedValues",
    "simulate",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RUNNING, COMPLETED, ROLLED_BACK = 0, 1, 2
TOGETHER = 500
"""Replications at once when units come back: each has units of its own, (stages, 500, 150 buckets) of them."""


@dataclass(frozen=True, slots=True)
class SimulatedStage:
    """A stage: exposure in percent (below 100), and the ticks and candidate requests it lasts at least.

    `opens` is the percentage that passing its gate opens; None: that of the next stage, and of the last its own. A bake
    `proves` nothing: it is over when its time is, unless there was a breach.
    """

    percentage: float
    min_ticks: int = 1
    min_units: int = 0
    opens: float | None = None
    proves: bool = True


@dataclass(frozen=True, slots=True)
class Scenario:
    """A plan under supposed traffic and rates.

    Attributes:
        stages: in order, with rising percentages below 100 (at 100 there is no baseline to compare with). A final bake
            with a small control arm is a last stage of, say, 95.
        guardrails: at least one, with a margin above 0: `SimulatedGuardrail` (a proportion), `SimulatedCountRate`,
            `SimulatedValues`, together in one rollout.
        requests_per_tick: of both arms together.
        horizon: ticks after which a rollout that is still running counts as undecided.
        alpha_rollback: level of the rollback test, over all guardrails, looks and stages.
        alpha_advance: level of each gate.
        risk_scaled: whether early gates widen the margins (`margin.risk_scaled`).
        design_effect: D >= 1 that every bet is divided by throughout (`mixture.log_tempered`). The simulated requests
            stay independent, so a D above 1 shows what estimating it too high costs.
        units: how many different units make the requests, each as often as any other; D is then what the judge finds.
            None: each request is of a unit of its own.
        coarsening: how many ticks are taken as one, as a part of those since the rollout began: with .01, what is still
            running after a thousand is looked at every ten. Moments are then known to one part in a hundred.

    Raises:
        ValueError: if any of this does not hold.
    """

    stages: tuple[SimulatedStage, ...]
    guardrails: tuple[Simulated, ...]
    requests_per_tick: float
    horizon: int
    alpha_rollback: float = 0.01
    alpha_advance: float = 0.05
    risk_scaled: bool = True
    design_effect: float = 1.0
    units: float | None = None
    coarsening: float = 0.0

    def __post_init__(self) -> None:
        if self.units is None and any(guardrail.clustering.stickiness > 0.0 for guardrail in self.guardrails):
            raise ValueError("outcomes can only go together when units come back; say how many units there are")
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
        if self.units is not None and not self.units >= 2.0:
            raise ValueError(f"at least two units come back; got {self.units}")

    @property
    def population(self) -> Population | None:
        """Who comes back."""
        if self.units is None:
            return None
        return Population(self.units, tuple(stage.percentage for stage in self.stages))


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of each replication; arrays have shape (replications,) unless it is stated.

    Attributes:
        completed: passed the gate of the last stage.
        rolled_back: the evidence of harm reached its line.
        ticks_by_stage: until then, or the horizon, (stages, replications).
        requests_by_stage: requests of both arms until then, (stages, replications, 2): candidate, baseline.
        log_e_harm: log e of each guardrail for rollback at that time, (guardrails, replications).
        log_e_gate: the largest log e that each guardrail has shown for its gate in that stage (of several gates, for
            the one that has shown least), likewise.
        last_gate: which gate of each stage was passed last, (stages, replications): 0 is the time, 1 the units, 2 the
            first guardrail; of a replication that is still in the stage, the first that has not been passed. -1 where
            it was never in the stage or was rolled back in it.
    """

    completed: NDArray[np.bool_]
    rolled_back: NDArray[np.bool_]
    ticks_by_stage: Ints
    requests_by_stage: Ints
    log_e_harm: Floats
    log_e_gate: Floats
    last_gate: Ints

    @property
    def ticks(self) -> Ints:
        """Ticks in all stages."""
        total: Ints = self.ticks_by_stage.sum(axis=0)
        return total

    @property
    def candidate_requests(self) -> Ints:
        """Requests that the candidate answered in all stages."""
        total: Ints = self.requests_by_stage[..., 0].sum(axis=0)
        return total

    @property
    def undecided(self) -> NDArray[np.bool_]:
        """Still running at the horizon."""
        return ~(self.completed | self.rolled_back)


@dataclass(frozen=True, slots=True)
class _Controls:
    """Where each replication stands, (R,), and what it has had in each stage, (stages, R); changed in place.

    `passed` are ticks in the stage at which each gate was found open, (stages, gates, R); 0 while it is closed.
    """

    status: Ints
    stage: Ints
    ticks: Ints
    requests: Ints  # (stages, R, 2): candidate, baseline
    passed: Ints


@dataclass(frozen=True, slots=True)
class _Watched:
    """A guardrail, who bets for it, what it has won, and its log e of harm when it was last looked at, (R,)."""

    guardrail: Simulated
    bettor: Bettor
    wealth: Wealth
    log_e: Floats
    effects: Effects | None


@dataclass(frozen=True, slots=True)
class _Run:
    scenario: Scenario
    controls: _Controls
    watched: tuple[_Watched, ...]
    rng: np.random.Generator


def simulate(scenario: Scenario, replications: int, rng: np.random.Generator) -> Outcomes:
    """Run the rollout `replications` times.

    Args:
        scenario: the plan, its traffic and what is true.
        replications: how many; 20,000 give a standard error of 0.0002 at a probability of 0.999.
        rng: the random generator; the same seed gives the same outcomes.
    """
    if scenario.units is not None and replications > TOGETHER:
        parts = [min(TOGETHER, replications - at) for at in range(0, replications, TOGETHER)]
        return _joined([simulate(scenario, part, rng) for part in parts])
    status, stages = (np.zeros(replications, np.int64) for _ in range(2))
    shape = (len(scenario.stages), replications)
    passed = np.zeros((shape[0], 2 + len(scenario.guardrails), replications), np.int64)
    controls = _Controls(status, stages, np.zeros(shape, np.int64), np.zeros((*shape, 2), np.int64), passed)
    watched = tuple(_watch(scenario, guardrail, replications, rng) for guardrail in scenario.guardrails)
    run = _Run(scenario, controls, watched, rng)
    elapsed = 0
    while elapsed < scenario.horizon and (controls.status == RUNNING).any():
        length = min(max(1, int(elapsed * scenario.coarsening)), scenario.horizon - elapsed)
        for stage in reversed(range(len(scenario.stages))):  # backwards: an advance takes effect next tick
            rows = np.flatnonzero((controls.status == RUNNING) & (controls.stage == stage))
            if rows.size:
                _tick(run, Moment(elapsed, stage), rows, length)
        elapsed += length
    everyone = np.arange(replications)
    return Outcomes(
        completed=controls.status == COMPLETED,
        rolled_back=controls.status == ROLLED_BACK,
        ticks_by_stage=controls.ticks,
        requests_by_stage=controls.requests,
        log_e_harm=np.stack([one.log_e for one in watched]),
        log_e_gate=np.stack([one.wealth.log_gate(everyone) for one in watched]),
        last_gate=_last_gates(controls),
    )


def _joined(parts: Sequence[Outcomes]) -> Outcomes:
    """All replications of several parts."""
    axes = {"requests_by_stage": 1}
    return Outcomes(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts], axis=axes.get(field.name, -1))
            for field in fields(Outcomes)
        }
    )


def _last_gates(controls: _Controls) -> Ints:
    never = np.iinfo(np.int64).max
    last = np.where(controls.passed > 0, controls.passed, never).argmax(axis=1)
    stages = np.arange(controls.ticks.shape[0])[:, None]
    taken = (controls.status == ROLLED_BACK) & (controls.stage == stages)
    return np.asarray(np.where((controls.ticks == 0) | taken, -1, last), np.int64)


def _watch(scenario: Scenario, guardrail: Simulated, replications: int, rng: np.random.Generator) -> _Watched:
    weights = (guardrail.harm_weights, guardrail.gate_weights)
    wealth, population = Wealth(*weights, replications, len(scenario.stages)), scenario.population
    bettor = guardrail.bettor(replications, scenario.horizon, rng, population)
    effects = None if population is None else Effects(guardrail.clustering, replications, rng)
    return _Watched(guardrail, bettor, wealth, np.zeros(replications), effects)


def _tick(run: _Run, moment: Moment, rows: Ints, length: int) -> None:
    """`length` ticks as one, of the replications `rows` in one stage: observe, bet, then protect before progress."""
    scenario, controls = run.scenario, run.controls
    arrived = _arrivals(run, moment.stage, rows, length)
    requests, population = controls.requests[:, rows].astype(np.float64), scenario.population
    seen = None if population is None else Arrived.of(population, requests, moment.stage)
    for one in run.watched:
        one.bettor.observe(rows, arrived, moment, run.rng)
    for one in run.watched:
        factors = one.bettor.bet(rows, _lines(scenario, moment.stage, one.guardrail))
        if factors is not None:
            one.wealth.add(factors, moment.stage)
        harm, gate = _effects(run, one, moment.stage, rows, seen)
        one.log_e[rows] = one.wealth.log_harm(rows, moment.stage, harm)
        one.wealth.weigh_gates(rows, gate)
    breached = _log_harm(run, rows) >= -np.log(scenario.alpha_rollback)
    controls.status[rows[breached]] = ROLLED_BACK
    opened = _open_gates(run, moment.stage, rows)
    passed, ticks = controls.passed[moment.stage], controls.ticks[moment.stage, rows]
    passed[:, rows] = np.where((passed[:, rows] == 0) & opened, ticks, passed[:, rows])
    _advance(run, moment.stage, rows[~breached & opened.all(axis=0)])


def _effects(run: _Run, one: _Watched, stage: int, rows: Ints, seen: Arrived | None) -> tuple[Floats, Floats]:
    """Design effects of the harm bets and of the gates, (r,) each."""
    if one.effects is None or seen is None:
        same = np.full(rows.size, run.scenario.design_effect)
        return same, same
    return one.effects.at(rows, stage, seen, one.bettor.events(rows))


def _open_gates(run: _Run, stage: int, rows: Ints) -> NDArray[np.bool_]:
    """Which gates are open: the time, the units, each guardrail; (gates, r)."""
    scenario, controls, rule = run.scenario, run.controls, run.scenario.stages[stage]
    units, population = controls.requests[stage, rows, 0].astype(np.float64), scenario.population
    if population is not None:  # different ones, of this stage alone
        members = population.members(stage)[0]
        units = -np.expm1(-units / members) * members
    line = -np.log(scenario.alpha_advance) if rule.proves else -np.inf
    gates = [one.wealth.log_gate(rows) >= line for one in run.watched]
    return np.stack([controls.ticks[stage, rows] >= rule.min_ticks, units >= rule.min_units, *gates])


def _arrivals(run: _Run, stage: int, rows: Ints, length: int) -> Ints:
    """Requests of these ticks, (r, 2): candidate, baseline; fractions add up over the ticks of a stage."""
    scenario, controls = run.scenario, run.controls
    share = scenario.stages[stage].percentage / 100.0
    per_tick = scenario.requests_per_tick * np.array([share, 1.0 - share])
    ticks = controls.ticks[stage, rows, None]
    arrived = (np.floor(per_tick * (ticks + length)) - np.floor(per_tick * ticks)).astype(np.int64)
    controls.ticks[stage, rows] += length
    controls.requests[stage, rows] += arrived
    return arrived


def _lines(scenario: Scenario, stage: int, guardrail: Simulated) -> Lines:
    harm = guardrail.rollback_margin or guardrail.margin
    if not scenario.risk_scaled:
        return Lines(harm, guardrail.margin)
    final = _opens(scenario, len(scenario.stages) - 1)
    gate = risk_scaled(
        guardrail.margin, guardrail.direction, _opens(scenario, stage), final, guardrail.largest_absolute
    )
    return Lines(harm, gate)


def _opens(scenario: Scenario, stage: int) -> float:
    said = scenario.stages[stage].opens
    return scenario.stages[min(stage + 1, len(scenario.stages) - 1)].percentage if said is None else said


def _log_harm(run: _Run, rows: Ints) -> Floats:
    """Log of the weighted mean over guardrails, (r,)."""
    importance = np.array([one.guardrail.weight for one in run.watched])
    log_es = np.stack([one.log_e[rows] for one in run.watched], axis=-1)
    return log_mixtures(log_es, importance / importance.sum())


def _advance(run: _Run, stage: int, rows: Ints) -> None:
    if stage + 1 == len(run.scenario.stages):
        run.controls.status[rows] = COMPLETED
        return
    run.controls.stage[rows] += 1
    for one in run.watched:
        one.bettor.drop(rows)
        one.wealth.restart_gates(rows)
