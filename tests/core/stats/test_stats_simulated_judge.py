"""One simulated rollout, replayed tick by tick through the functions that the judge calls, and through its `gather`."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from rollout.domain.evidence import Evidence, Increments
from rollout.domain.gather import Round, gather
from rollout.domain.kinds import kind_of
from rollout.domain.rollout import Attempt
from rollout.domain.watch import Watch
from rollout.stats import count_rate, proportion, simulated_counts, values
from rollout.stats.combine import log_late_start, log_weighted_mean
from rollout.stats.histogram import Histogram
from rollout.stats.margin import Margin, risk_scaled
from rollout.stats.mixture import log_mixture
from rollout.stats.simulate import (
    Scenario,
    SimulatedCountRate,
    SimulatedGuardrail,
    SimulatedStage,
    SimulatedValues,
    simulate,
)
from rollout.stats.simulated_distribution import lognormal, observed
from rollout.stats.values import ValueTest
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement

PERCENTAGES = (5.0, 20.0, 50.0)
LATENCY, COST = lognormal(0.8, median=800.0), lognormal(1.2, mean=0.01)
SCORES = ValueTest("mean", "higher_is_better", bounds=(0.0, 10.0))
MARKS = observed(np.random.default_rng(0).beta(8, 2, 4000) * 10.0, SCORES.grid)
ANY_REGRESSION = Margin(0.0, relative=True)
START = datetime(2026, 3, 1, 12, tzinfo=UTC)

GUARDRAILS = (
    SimulatedGuardrail(0.021, 0.02, Margin(0.02, relative=False), "lower_is_better", weight=2.0),
    SimulatedGuardrail(0.7, 0.7, Margin(0.2, relative=True), "higher_is_better", rollback_margin=ANY_REGRESSION),
    SimulatedCountRate(0.3, 0.3, Margin(0.15, relative=False), "lower_is_better"),
    SimulatedCountRate(0.3, 0.3, Margin(0.5, relative=True), "lower_is_better"),
    SimulatedValues(ValueTest("distribution", focus=0.95), LATENCY.scaled(1.05), LATENCY, Margin(0.5, relative=True)),
    SimulatedValues(ValueTest("mean"), COST, COST, Margin(0.5, relative=True), rollback_margin=ANY_REGRESSION),
    SimulatedValues(ValueTest("quantile", focus=0.9), LATENCY, LATENCY, Margin(600.0, relative=False)),
    SimulatedValues(SCORES, MARKS, MARKS, Margin(1.0, relative=False)),
)
Draw = tuple[np.ndarray, np.ndarray]
"""What each arm is known to have had in a tick: (n, x) of counts, or counts by bucket of values."""


def scenario(requests: float, horizon: int) -> Scenario:
    stages = tuple(SimulatedStage(percentage, min_ticks=2, min_units=20) for percentage in PERCENTAGES)
    return Scenario(stages, GUARDRAILS, requests, horizon)


class Recorded:
    """A random generator that remembers what it gave: one entry per guardrail and tick."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.draws: list[Draw] = []
        self.half: np.ndarray | None = None

    def binomial(self, n: np.ndarray, p: Any) -> np.ndarray:
        return self._counted(n, self.rng.binomial(n, p))

    def poisson(self, mean: np.ndarray) -> np.ndarray:
        drawn = self.rng.poisson(mean)
        return self._counted(np.round(mean / 0.3).astype(int), drawn)  # both rates above are 0.3 per request

    def multinomial(self, n: np.ndarray, p: np.ndarray) -> np.ndarray:
        drawn = self.rng.multinomial(n, p)
        if self.half is None:
            self.half = drawn[0]
        else:
            self.draws.append((self.half, drawn[0]))
            self.half = None
        return drawn

    def _counted(self, n: np.ndarray, x: np.ndarray) -> np.ndarray:
        self.draws.append((np.array([n[0, 0], x[0, 0]]), np.array([n[0, 1], x[0, 1]])))
        return x


class ByFunctions:
    """Log factors of a tick from the scalar functions."""

    def __init__(self) -> None:
        self.histories: dict[int, Any] = {}
        self.frozen: dict[int, Any] = {}

    def __call__(self, stage: int, draws: list[Draw], gates: list[Margin]) -> list[tuple]:
        return [self._of(number, *draw, gate) for number, (draw, gate) in enumerate(zip(draws, gates, strict=True))]

    def _of(self, number: int, t: np.ndarray, c: np.ndarray, gate: Margin) -> tuple:
        guardrail = GUARDRAILS[number]
        line = guardrail.rollback_margin or guardrail.margin
        if isinstance(guardrail, SimulatedValues):
            return self._of_values(number, guardrail, (t, c), line, gate)
        if isinstance(guardrail, SimulatedCountRate):
            arms = count_rate.Exposed(*t.tolist()), count_rate.Exposed(*c.tolist())
            past = self.histories.get(number, count_rate.Exposed(0.0, 0.0))
            harm, passing = (
                make(*arms, None if margin.relative else count_rate.guess_rate(past, margin), margin, "lower_is_better")
                for make, margin in ((count_rate.harm_log_factors, line), (count_rate.advance_log_factors, gate))
            )
            self.histories[number] = past + arms[1]
            return harm, [passing]
        counts = proportion.Counts(*t.tolist()), proportion.Counts(*c.tolist())
        known = self.histories.get(number, proportion.ControlHistory())
        harm = proportion.harm_log_factors(*counts, known.guess, line, guardrail.direction)
        passing = proportion.advance_log_factors(*counts, known.guess, gate, guardrail.direction)
        self.histories[number] = known.learn(counts[1])
        return harm, [passing]

    def _of_values(self, number: int, guardrail: SimulatedValues, arms: Draw, line: Margin, gate: Margin) -> tuple:
        test = guardrail.test
        index = (guardrail.candidate.index, guardrail.baseline.index)
        t, c = (Histogram(test.grid, i, arm.astype(float)) for i, arm in zip(index, arms, strict=True))
        past, frozen = self.histories.get(number), self.frozen.get(number)
        made = (np.zeros(guardrail.harm_weights.size), [np.zeros(w.size) for w in guardrail.gate_weights])
        if past is not None and frozen is not None:
            harm = values.harm_log_factors(test, frozen, past, t, c, line)
            made = (harm, list(values.advance_log_factors(test, frozen, past, t, c, gate)))
        known = {} if past is None else dict(zip(past.index.tolist(), past.counts.tolist(), strict=True))
        for bucket, count in zip(c.index.tolist(), c.counts.tolist(), strict=True):
            place = bucket if frozen is None else wide(bucket)
            known[place] = known.get(place, 0.0) + count
        total = sum(known.values())
        if total > 22_000.0:
            known = {bucket: round(count * 20_000.0 / total, 1) for bucket, count in known.items()}
        if frozen is None and total >= test.calibrated_at:
            self.frozen[number] = test.calibrate(Histogram.of(test.grid, known))
            fine, known = known, {}
            for bucket, count in fine.items():
                known[wide(bucket)] = known.get(wide(bucket), 0.0) + count
        self.histories[number] = Histogram.of(test.grid, known)
        return made


def wide(bucket: int) -> int:
    return bucket // 4 * 4 + 2


class ByGather:
    """Log factors of a tick from how much the evidence of the judge's own `gather` grows."""

    def __init__(self) -> None:
        self.evidence, self.ticks = Evidence(), 0
        self.watches = tuple(watch(number, guardrail) for number, guardrail in enumerate(GUARDRAILS))
        self.before: dict[tuple[str, str, int], np.ndarray] = {}

    def __call__(self, stage: int, draws: list[Draw], gates: list[Margin]) -> list[tuple]:
        self.ticks += 1
        attempts = [
            Attempt(id=f"at_{s}", number=s + 1, stage=s, epoch=1, percentage=PERCENTAGES[s], opened_at=START)
            for s in range(stage + 1)
        ]
        margins = {watch.metric: gate for watch, gate in zip(self.watches, gates, strict=True)}
        now = START + timedelta(minutes=5 * self.ticks)
        self.evidence = gather(
            self.evidence, self._increments(stage, draws), Round(self.watches, attempts, margins, now)
        )
        return [self._grown(watch, stage) for watch in self.watches]

    def _increments(self, stage: int, draws: list[Draw]) -> Increments:
        arms = {}
        for place, arm in enumerate(("candidate", "baseline")):
            metrics = {
                watch.metric: increment(guardrail, place, draw[place])
                for watch, guardrail, draw in zip(self.watches, GUARDRAILS, draws, strict=True)
            }
            arms[arm] = ArmIncrement(slots={1: SlotIncrement(exposures={0: 1}, started={0: 1}, metrics=metrics)})
        return {f"at_{stage}": arms}

    def _grown(self, watch: Watch, stage: int) -> tuple:
        mine, kind = self.evidence.metrics[watch.metric], kind_of(watch)
        harm = self._growth((watch.metric, "harm", stage), mine.harm.get(stage, [0.0] * kind.harm_weights.size))
        gate = self._growth((watch.metric, "gate", stage), mine.gate)
        borders = np.cumsum([weights.size for weights in kind.gate_weights])[:-1]
        return harm, np.split(gate, borders)

    def _growth(self, key: tuple[str, str, int], now: list[float]) -> np.ndarray:
        grown = np.asarray(now) - self.before.get(key, 0.0)
        self.before[key] = np.asarray(now)
        return grown


def watch(number: int, guardrail: Any) -> Watch:
    test = getattr(guardrail, "test", None)
    kind = test.kind if test else ("count_rate" if isinstance(guardrail, SimulatedCountRate) else "proportion")
    return Watch(
        metric=f"metric_{number}",
        kind=kind,
        role="guardrail",
        direction=guardrail.direction,
        denominator="attempt",
        margin=guardrail.margin,
        harm_margin=guardrail.rollback_margin or guardrail.margin,
        maturity=0.0,
        counts_timeouts=False,
        weight=guardrail.weight,
        on_breach="rollback",
        on_missing="hold",
        focus=test.focus if test else None,
        bounds=test.bounds if test else None,
    )


def increment(guardrail: Any, arm: int, drawn: np.ndarray) -> MetricIncrement:
    if not isinstance(guardrail, SimulatedValues):
        return MetricIncrement(cells={0: drawn.astype(float).tolist()})
    distribution = (guardrail.candidate, guardrail.baseline)[arm]
    n = float(drawn.sum())
    cells = [n] if guardrail.test.kind == "quantile" else [n, n, n]
    histogram = {int(bucket): int(count) for bucket, count in zip(distribution.index, drawn, strict=True) if count}
    return MetricIncrement(cells={0: cells}, histogram=histogram)


class Judged:
    """Log wealth of every guardrail, mixed with the judge's own functions, and where the rollout stands."""

    def __init__(self) -> None:
        self.harm = [[np.zeros(g.harm_weights.size)] for g in GUARDRAILS]
        self.stage, self.ticks, self.units, self.total, self.verdict = 0, 0, 0, 0, "undecided"
        self.log_e_harm: list[float] = []
        self._open()

    def _open(self) -> None:
        self.gates = [[np.zeros(w.size) for w in g.gate_weights] for g in GUARDRAILS]
        self.best = [[0.0] * len(g.gate_weights) for g in GUARDRAILS]
        self.ticks = self.units = 0

    def margins(self) -> list[Margin]:
        following = PERCENTAGES[min(self.stage + 1, 2)]
        largest = [None, None, 1.5, None, None, None, 6000.0, 2.5]  # ten margins; a quarter of the bounds
        pairs = zip(GUARDRAILS, largest, strict=True)
        return [risk_scaled(g.margin, g.direction, following, PERCENTAGES[-1], most) for g, most in pairs]

    def take(self, units: int, factors: list[tuple]) -> None:
        self.ticks, self.units, self.total = self.ticks + 1, self.units + units, self.total + units
        for number, (harm, gates) in enumerate(factors):
            self.harm[number] = [wealth + harm for wealth in self.harm[number]]
            for part, won in enumerate(gates):
                self.gates[number][part] = self.gates[number][part] + won
                log_e = log_mixture(self.gates[number][part], GUARDRAILS[number].gate_weights[part])
                self.best[number][part] = max(self.best[number][part], log_e)
        self.log_e_harm = [
            log_late_start([log_mixture(wealth, g.harm_weights) for wealth in mine], 3)
            for g, mine in zip(GUARDRAILS, self.harm, strict=True)
        ]
        self._decide()

    def _decide(self) -> None:
        if log_weighted_mean(self.log_e_harm, [g.weight for g in GUARDRAILS]) >= math.log(100):
            self.verdict = "rolled_back"
        elif min(map(min, self.best)) >= math.log(20) and self.ticks >= 2 and self.units >= 20:
            if self.stage == 2:
                self.verdict = "completed"
                return
            self.stage += 1
            for mine, guardrail in zip(self.harm, GUARDRAILS, strict=True):
                mine.append(np.zeros(guardrail.harm_weights.size))
            self._open()


EXACT, KEPT = 1e-9, 5e-6  # `gather` rounds every log wealth to seven decimals, in each of up to 90 ticks


@pytest.mark.parametrize(
    ("replay", "tolerance", "seed", "requests", "horizon", "verdict"),
    [
        (ByFunctions, EXACT, 1, 400.0, 90, "completed"),
        (ByFunctions, EXACT, 2, 5000.0, 15, "completed"),  # the memory of the baseline is full
        (ByGather, KEPT, 1, 400.0, 90, "completed"),
        (ByGather, KEPT, 2, 5000.0, 15, "completed"),
        (ByGather, KEPT, 3, 13.0, 70, "undecided"),  # an arm without a request in every third tick
    ],
)
def test_log_e_is_that_of_the_judge(
    replay: Callable,
    tolerance: float,
    seed: int,
    requests: float,
    horizon: int,
    verdict: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(simulated_counts, "GUESS_DIGITS", 17)
    recorded, factors, judged = Recorded(seed), replay(), Judged()
    outcomes = simulate(scenario(requests, horizon), 1, recorded)
    looks, waiting = len(recorded.draws) // len(GUARDRAILS), []
    for look in range(looks):
        draws = recorded.draws[look * len(GUARDRAILS) : (look + 1) * len(GUARDRAILS)]
        judged.take(int(draws[0][0][0]), factors(judged.stage, draws, judged.margins()))
        waiting.append(judged.verdict == "undecided")
    assert all(waiting[:-1]), "the judge would not have ended the rollout before the simulation did"
    assert judged.verdict == verdict
    assert bool(getattr(outcomes, verdict)[0])
    assert outcomes.candidate_requests[0] == judged.total
    assert outcomes.log_e_harm[:, 0] == pytest.approx(judged.log_e_harm, abs=tolerance)
    assert outcomes.log_e_gate[:, 0] == pytest.approx([min(best) for best in judged.best], abs=tolerance)
