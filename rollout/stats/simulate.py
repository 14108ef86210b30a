"""A whole staged rollout, many times over: how often a plan completes, rolls back, or stays undecided.

The bets, margins, start weights and thresholds are those of the real judge, for every kind that bets batch by batch:
proportions and count rates (`simulated_counts`), values (`simulated_values`). Simplified: requests arrive evenly and
are independent (no sticky units, so the design effect is 1), outcomes are known within their tick, every request has an
outcome for every guardrail, a gate that was passed once in a stage stays passed, and no person, signal, lease or
sample-ratio check intervenes.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rollout.stats.margin import risk_scaled
from rollout.stats.simulated import Bettor, Lines, Moment, Simulated
from rollout.stats.simulated_counts import SimulatedCountRate, SimulatedGuardrail
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


@dataclass(frozen=True, slots=True)
class SimulatedStage:
    """A stage: exposure in percent (below 100), and the ticks and candidate requests it lasts at least.

    `opens` is the percentage that passing its gate opens; None: that of the next stage, and of the last its own.
    """

    percentage: float
    min_ticks: int = 1
    min_units: int = 0
    opens: float | None = None


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
    """What became of each replication; arrays have shape (replications,) unless it is stated.

    Attributes:
        completed: passed the gate of the last stage.
        rolled_back: the evidence of harm reached its line.
        ticks_by_stage: until then, or the horizon, (stages, replications).
        requests_by_stage: requests that the candidate answered until then, likewise.
        log_e_harm: log e of each guardrail for rollback at that time, (guardrails, replications).
        log_e_gate: the largest log e that each guardrail has shown for its gate in that stage (of several gates, for
            the one that has shown least), likewise.
    """

    completed: NDArray[np.bool_]
    rolled_back: NDArray[np.bool_]
    ticks_by_stage: Ints
    requests_by_stage: Ints
    log_e_harm: Floats
    log_e_gate: Floats

    @property
    def ticks(self) -> Ints:
        """Ticks in all stages."""
        total: Ints = self.ticks_by_stage.sum(axis=0)
        return total

    @property
    def candidate_requests(self) -> Ints:
        """Requests that the candidate answered in all stages."""
        total: Ints = self.requests_by_stage.sum(axis=0)
        return total

    @property
    def undecided(self) -> NDArray[np.bool_]:
        """Still running at the horizon."""
        return ~(self.completed | self.rolled_back)


@dataclass(frozen=True, slots=True)
class _Controls:
    """Where each replication stands, (R,), and what it has had in each stage, (stages, R); changed in place."""

    status: Ints
    stage: Ints
    ticks: Ints
    units: Ints  # candidate requests


@dataclass(frozen=True, slots=True)
class _Watched:
    """A guardrail, who bets for it, what it has won, and its log e of harm when it was last looked at, (R,)."""

    guardrail: Simulated
    bettor: Bettor
    wealth: Wealth
    log_e: Floats


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
    status, stages = (np.zeros(replications, np.int64) for _ in range(2))
    ticks, units = (np.zeros((len(scenario.stages), replications), np.int64) for _ in range(2))
    controls = _Controls(status, stages, ticks, units)
    watched = tuple(_watch(scenario, guardrail, replications, rng) for guardrail in scenario.guardrails)
    run = _Run(scenario, controls, watched, rng)
    for tick in range(scenario.horizon):
        for stage in reversed(range(len(scenario.stages))):  # backwards: an advance takes effect next tick
            rows = np.flatnonzero((controls.status == RUNNING) & (controls.stage == stage))
            if rows.size:
                _tick(run, Moment(tick, stage), rows)
        if not (controls.status == RUNNING).any():
            break
    everyone = np.arange(replications)
    return Outcomes(
        completed=controls.status == COMPLETED,
        rolled_back=controls.status == ROLLED_BACK,
        ticks_by_stage=controls.ticks,
        requests_by_stage=controls.units,
        log_e_harm=np.stack([one.log_e for one in watched]),
        log_e_gate=np.stack([one.wealth.log_gate(everyone) for one in watched]),
    )


def _watch(scenario: Scenario, guardrail: Simulated, replications: int, rng: np.random.Generator) -> _Watched:
    weights = (guardrail.harm_weights, guardrail.gate_weights)
    wealth = Wealth(*weights, replications, len(scenario.stages), scenario.design_effect)
    bettor = guardrail.bettor(replications, scenario.horizon, rng)
    return _Watched(guardrail, bettor, wealth, np.zeros(replications))


def _tick(run: _Run, moment: Moment, rows: Ints) -> None:
    """One tick of the replications `rows` in one stage: observe, bet, then protect before progress."""
    scenario, controls = run.scenario, run.controls
    arrived = _arrivals(scenario, moment.stage, rows, controls)
    for one in run.watched:
        one.bettor.observe(rows, arrived, moment, run.rng)
    for one in run.watched:
        factors = one.bettor.bet(rows, _lines(scenario, moment.stage, one.guardrail))
        if factors is not None:
            one.wealth.add(factors, moment.stage)
        one.log_e[rows] = one.wealth.log_harm(rows, moment.stage)
    breached = _log_harm(run, rows) >= -np.log(scenario.alpha_rollback)
    controls.status[rows[breached]] = ROLLED_BACK
    rule = scenario.stages[moment.stage]
    gates = np.stack([one.wealth.log_gate(rows) for one in run.watched])
    passed = (
        ~breached
        & (gates >= -np.log(scenario.alpha_advance)).all(axis=0)
        & (controls.ticks[moment.stage, rows] >= rule.min_ticks)
        & (controls.units[moment.stage, rows] >= rule.min_units)
    )
    _advance(run, moment.stage, rows[passed])


def _arrivals(scenario: Scenario, stage: int, rows: Ints, controls: _Controls) -> Ints:
    """Requests of this tick, (r, 2): candidate, baseline; fractions add up over the ticks of a stage."""
    share = scenario.stages[stage].percentage / 100.0
    per_tick = scenario.requests_per_tick * np.array([share, 1.0 - share])
    ticks = controls.ticks[stage, rows, None]
    arrived = (np.floor(per_tick * (ticks + 1)) - np.floor(per_tick * ticks)).astype(np.int64)
    controls.ticks[stage, rows] += 1
    controls.units[stage, rows] += arrived[:, 0]
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
