"""What a plan would do before it starts: the judge's own bets under expected traffic, many times over.

What the simulation leaves out is said in `left_out`; `rollout.stats.simulate` says what it supposes.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.domain.document import Problem, duration
from rollout.domain.expectation import SIMULATED, Expectation, ExpectedMetric, Regression
from rollout.domain.metric import Metric
from rollout.domain.plan import PlanBody, RolloutDocument, Stage, last_percentage, units_wanted
from rollout.domain.watch import Watch, watches
from rollout.stats.margin import Margin
from rollout.stats.population import Population
from rollout.stats.simulate import (
    Outcomes,
    Scenario,
    SimulatedCountRate,
    SimulatedGuardrail,
    SimulatedStage,
    SimulatedValues,
    simulate,
)
from rollout.stats.simulated import Course, Simulated
from rollout.stats.simulated_distribution import Distribution, lognormal
from rollout.stats.units_harmed import Harm, units_harmed
from rollout.stats.values import ValueTest

_TICKS = (1, 2, 5, 10, 30, 60, 180, 360, 720, 1440)
"""Minutes between two looks; the first of which the shortest way through the plan takes no more than `_LOOKS`."""
_LOOKS = 40
_COARSENING = 0.01
"""The later, the fewer looks: moments are told to one part in a hundred, and who stays undecided costs little."""


class _Opened(NamedTuple):
    """A stage with a control arm; `opens` is the percentage that leaving it opens, as in `watch.gate_margin`.

    A bake `proves` nothing: what the last stage has proven carries it.
    """

    name: str
    percentage: float
    lasts: timedelta
    units: int
    opens: float
    proves: bool = True


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the runs in which the candidate is so much worse from a stage on; None: it is not.

    All is said of the runs that came to the stage, which is the part `reached`; of none, it is all zero. Pairs of hours
    are (median, nine in ten) from the beginning of the stage: `hours` to the end that most runs came to,
    `until_rollback` of those that were rolled back. What harm cost is a median, from then on: `requests` that the
    candidate answered, different `units` that it served, `events` that the baseline would not have had and the units
    that met one (rates only).
    """

    regression: Regression | None
    stage: str
    reached: float
    rolled_back: float
    completed: float
    undecided: float
    hours: tuple[float, float]
    until_rollback: tuple[float, float] | None
    requests: int
    units: int
    events: float | None
    units_harmed: float | None


class StageForecast(msgspec.Struct, frozen=True, kw_only=True):
    """A stage of the runs without a regression: hours in it (median, nine in ten), and which gate was passed last.

    `last` is the part of the runs in it for each of `min_duration`, `min_units` and the guardrails; a gate that was
    still closed at the horizon was the last.
    """

    stage: str
    percentage: float
    reached: float
    hours: tuple[float, float]
    last: dict[str, float]


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """The stages, and the fates, without a regression first; what was left out is said."""

    runs: int
    minutes_per_look: int
    stages: tuple[StageForecast, ...]
    fates: tuple[Fate, ...]
    left_out: tuple[str, ...]


def forecast(plan: PlanBody, metrics: Mapping[str, Metric], expected: Expectation, seed: int = 1) -> Forecast:
    """Simulate a plan whose expectation has no problems (`expectation_problems`); the same seed gives the same.

    Raises:
        ValueError: nothing of the plan can be simulated; the message says why.
    """
    for problem in forecast_problems(plan, metrics):
        raise ValueError(problem.message)
    guarded, stages = _guarded(plan, metrics), list(_open_stages(plan))
    minutes = _minutes_per_look(stages)
    trial = _Trial(plan, metrics, expected, guarded, stages, minutes)
    rng = np.random.default_rng(seed)
    without = trial.run(None, 0, rng)
    fates = [trial.fate(without, None, 0)]
    for regression in expected.regressions:
        fates += [trial.fate(trial.run(regression, at, rng), regression, at) for at in range(len(stages))]
    return Forecast(
        runs=expected.runs,
        minutes_per_look=minutes,
        stages=tuple(trial.stage(without, at) for at in range(len(stages)) if (without.last_gate[at] >= 0).any()),
        fates=tuple(fates),
        left_out=tuple(_left_out(plan, metrics, expected)),
    )


def forecast_problems(plan: PlanBody, metrics: Mapping[str, Metric]) -> list[Problem]:
    """Why nothing of a plan could be simulated; the plan itself has no problems."""
    problems = []
    if not _guarded(plan, metrics):
        message = "the plan has no guardrail that can be simulated: it would only take its stages' time"
        problems.append(Problem("guardrails", message))
    if not any(_open_stages(plan)):
        problems.append(Problem("stages", "the plan has no stage with a control arm and without a cohort"))
    return problems


def _guarded(plan: PlanBody, metrics: Mapping[str, Metric]) -> list[Watch]:
    return [watch for watch in watches(plan, metrics) if watch.role == "guardrail" and _is_known(watch)]


class _Trial:
    """A plan as the simulator takes it."""

    def __init__(
        self,
        plan: PlanBody,
        metrics: Mapping[str, Metric],
        expected: Expectation,
        guarded: list[Watch],
        stages: list[_Opened],
        minutes: int,
    ) -> None:
        self._plan, self._metrics, self._expected = plan, metrics, expected
        self._guarded, self._stages, self._minutes = guarded, stages, minutes

    def run(self, regression: Regression | None, at: int, rng: np.random.Generator) -> Outcomes:
        """All runs, the candidate worse from stage `at` on."""
        simulated = tuple(_simulated(watch, self._expected, regression, at) for watch in self._guarded)
        stages = tuple(
            SimulatedStage(
                opened.percentage,
                max(1, math.ceil(opened.lasts.total_seconds() / 60 / self._minutes)),
                opened.units,
                opened.opens,
                opened.proves,
            )
            for opened in self._stages
        )
        analysis = self._plan.analysis
        scenario = Scenario(
            stages=stages,
            guardrails=simulated,
            requests_per_tick=self._expected.requests_per_minute * self._minutes,
            horizon=max(1, int(duration(self._expected.horizon).total_seconds() // 60 // self._minutes)),
            alpha_rollback=analysis.alpha_rollback,
            alpha_advance=analysis.alpha_advance,
            risk_scaled=analysis.risk_scaled,
            units=self._expected.units,
            coarsening=_COARSENING,
        )
        return simulate(scenario, self._expected.runs, rng)

    def stage(self, outcomes: Outcomes, at: int) -> StageForecast:
        """What they did in one stage; some were in it until its end, or the horizon."""
        inside = outcomes.last_gate[at] >= 0
        gates = ("min_duration", "min_units", *(watch.metric for watch in self._guarded))
        last = np.bincount(outcomes.last_gate[at][inside], minlength=len(gates)) / inside.sum()
        return StageForecast(
            stage=self._stages[at].name,
            percentage=self._stages[at].percentage,
            reached=float(inside.mean()),
            hours=self._hours(outcomes.ticks_by_stage[at][inside]),
            last={gate: float(part) for gate, part in zip(gates, last, strict=True) if part},
        )

    def fate(self, outcomes: Outcomes, regression: Regression | None, at: int) -> Fate:
        """What became of them."""
        inside = outcomes.ticks_by_stage[at] > 0
        ended = {"rolled_back": outcomes.rolled_back, "completed": outcomes.completed, "undecided": outcomes.undecided}
        parts = {name: runs & inside for name, runs in ended.items()}
        ticks = outcomes.ticks_by_stage[at:].sum(axis=0)
        requests = np.zeros(outcomes.requests_by_stage[:, inside].shape)  # from the stage on
        requests[at:] = outcomes.requests_by_stage[at:, inside]
        answered, population = requests[..., 0].sum(axis=0), self._population()
        harm = None if regression is None else self._harm(regression)
        return Fate(
            regression=regression,
            stage=self._stages[at].name,
            reached=float(inside.mean()),
            **{name: float(part.sum() / max(1, inside.sum())) for name, part in parts.items()},
            hours=self._hours(ticks[max(parts.values(), key=lambda part: int(part.sum()))]),
            until_rollback=self._hours(ticks[parts["rolled_back"]]) if parts["rolled_back"].any() else None,
            requests=round(_median(answered)),
            units=round(_median(answered if population is None else population.met(requests))),
            events=None if harm is None else _median(answered) * float(harm.excess().mean()),
            units_harmed=None if harm is None else _median(units_harmed(harm, population, requests)),
        )

    def _hours(self, ticks: NDArray[np.int64]) -> tuple[float, float]:
        if not ticks.size:
            return 0.0, 0.0
        median, most = np.quantile(ticks * self._minutes / 60, (0.5, 0.9), method="higher")
        return float(median), float(most)

    def _population(self) -> Population | None:
        if self._expected.units is None:
            return None
        return Population(self._expected.units, tuple(opened.percentage for opened in self._stages))

    def _harm(self, regression: Regression) -> Harm | None:
        metric, true = self._metrics[regression.metric], self._expected.metrics[regression.metric]
        if true.rate is None:
            return None
        law: Literal["beta", "gamma"] = "beta" if metric.kind == "proportion" else "gamma"
        return Harm(law, true.rate, regression.times, true.stickiness, metric.direction == "higher_is_better")


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if values.size else 0.0


def _is_known(watch: Watch) -> bool:
    return watch.kind in SIMULATED and watch.bounds is None


def _open_stages(plan: PlanBody) -> Iterator[_Opened]:
    """The stages that have a control arm; the bake is the last."""
    final = last_percentage(plan)
    for i, stage in enumerate(plan.stages):
        if _has_control(stage):
            opens = next((later.percentage for later in plan.stages[i + 1 :] if later.cohort is None), stage.percentage)
            lasts = duration(stage.min_duration)
            yield _Opened(stage.name, stage.percentage, lasts, units_wanted(plan, stage), opens)
    if plan.bake is not None and plan.bake.holdback > 0.0:
        yield _Opened("bake", 100.0 - plan.bake.holdback, duration(plan.bake.duration), 0, final, False)


def _has_control(stage: Stage) -> bool:
    return stage.cohort is None and 0.0 < stage.percentage < 100.0


def _minutes_per_look(stages: list[_Opened]) -> int:
    shortest = sum(opened.lasts.total_seconds() for opened in stages) / 60
    return next((minutes for minutes in _TICKS if shortest / minutes <= _LOOKS), _TICKS[-1])


def _simulated(watch: Watch, expected: Expectation, regression: Regression | None, at: int) -> Simulated:
    true = expected.metrics[watch.metric]
    times = regression.times if regression is not None and regression.metric == watch.metric else 1.0
    course, harm = Course(from_stage=at), _harm(watch)
    if watch.kind in ("proportion", "count_rate"):
        rate = true.rate or 0.0
        worse = min(rate * times, 1.0) if watch.kind == "proportion" else rate * times
        kind = SimulatedGuardrail if watch.kind == "proportion" else SimulatedCountRate
        return kind(worse, rate, watch.margin, watch.direction, watch.weight, harm, course, true.stickiness)
    assert watch.kind in ("mean", "quantile", "distribution")
    test = ValueTest(watch.kind, watch.direction, watch.focus)
    return SimulatedValues(
        test,
        _values(true, times),
        _values(true, 1.0),
        watch.margin,
        watch.weight,
        harm,
        course,
        stickiness=true.stickiness,
    )


def _values(true: ExpectedMetric, times: float) -> Distribution:
    if true.median is not None:
        return lognormal(true.spread, median=true.median * times)
    return lognormal(true.spread, mean=(true.mean or 0.0) * times)


def _harm(watch: Watch) -> Margin | None:
    return None if watch.harm_margin == watch.margin else watch.harm_margin


def _left_out(plan: PlanBody, metrics: Mapping[str, Metric], expected: Expectation) -> Iterator[str]:
    if expected.units is None:
        yield "units that come back: without `units` each request is of its own, so what is real is slower"
    else:
        yield "units that come more often than others: each comes as often as any other"
    if isinstance(plan, RolloutDocument) and plan.exclusion is not None:
        yield f"group {plan.exclusion.group}: that only {plan.exclusion.share:g} % of the units take part"
    for stage in plan.stages:
        if stage.cohort is not None:
            yield f"stage {stage.name}: nobody knows the traffic of its cohort; it takes {stage.min_duration}"
        elif not _has_control(stage):
            yield f"stage {stage.name}: it has no control arm; it takes {stage.min_duration}"
        if stage.approval is not None:
            yield f"stage {stage.name}: the time until somebody approves"
    for watch in watches(plan, metrics):
        if watch.role != "guardrail":
            yield f"{watch.metric}: a {watch.role} takes nothing back"
        elif not _is_known(watch):
            yield f"{watch.metric}: a {watch.kind}{' with bounds' if watch.bounds else ''} is not simulated"
        elif watch.maturity:
            yield f"{watch.metric}: that its outcomes are awaited for {watch.maturity:g} s"
        if watch.ceiling is not None:
            yield f"{watch.metric}: its ceiling"
