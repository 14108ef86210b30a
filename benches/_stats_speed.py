"""Speed of the judge: milliseconds per tick, bytes of state, a replay that is equal bit for bit, rollouts per second.

Measured on the real domain code (`rollout.domain.gather` and `judge`) with synthetic traffic: three guardrails (errors,
latency as a distribution, cost as a mean), four stages, 200 requests a minute of as many users, so that nearly every
request has a cluster cell of its own. Simulated rollouts are of the same three guardrails and stages, without a
difference; forecasts are of the demonstration's plan at a thousand requests a minute, without and with three
regressions from each of its three stages on. Time is the process's own, so that neighbours do not count.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from benches._stats.figures import Row
from rollout import demo
from rollout.cli.files import read_all
from rollout.domain.evidence import Evidence, Increments
from rollout.domain.expectation import Expectation, ExpectedMetric, Regression
from rollout.domain.forecast import forecast
from rollout.domain.gather import Round, gather
from rollout.domain.judge import Judgement, Look, judge
from rollout.domain.metric import Metric
from rollout.domain.plan import Guardrail, MaxRegression, RolloutDocument, Stage
from rollout.domain.rollout import Attempt
from rollout.domain.watch import gate_margin, watches
from rollout.stats.margin import Margin
from rollout.stats.simulate import Scenario, SimulatedGuardrail, SimulatedStage, SimulatedValues, simulate
from rollout.stats.simulated_distribution import lognormal
from rollout.stats.values import ValueTest
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Frozen, RulesetMetric
from rollout_client.increments import add, measure
from tests.core.domain.plans import START, at

PERCENTAGES = (1, 5, 25, 50)
ROLLOUTS = 10_000
METRICS = {
    "errors": Metric(key="errors", kind="proportion", event="the request failed"),
    "latency": Metric(key="latency", kind="distribution"),
    "cost": Metric(key="cost", kind="mean"),
}
PLAN = RolloutDocument(
    flag="answer",
    environment="production",
    baseline="v7",
    candidate="v8",
    stages=tuple(Stage(name=f"{share} %", percentage=share) for share in PERCENTAGES),
    guardrails=(
        Guardrail(metric="errors", max_regression=MaxRegression(relative=0.5)),
        Guardrail(metric="latency", focus="p95", max_regression=MaxRegression(relative=0.25)),
        Guardrail(metric="cost", max_regression=MaxRegression(relative=0.2)),
    ),
)
WATCHED = watches(PLAN, METRICS)
PLANS = Path(demo.__file__).parent / "plans"
REGRESSIONS = (("answer_correct", 0.7), ("error_rate", 2.0), ("error_rate", 6.0))


class Judge:
    """One rollout's evidence, carried through its stages."""

    def __init__(self, ticks_per_stage: int) -> None:
        self.evidence = Evidence()
        self.ticks_per_stage = ticks_per_stage
        self.attempts: list[Attempt] = []

    def tick(self, number: int, increments: Increments) -> Judgement:
        """One look; a new stage begins every `ticks_per_stage`."""
        stage = min(number // self.ticks_per_stage, len(PERCENTAGES) - 1)
        if stage == len(self.attempts):
            share = PERCENTAGES[stage]
            self.attempts.append(
                Attempt(id=f"at_{stage}", number=stage + 1, stage=stage, epoch=1, percentage=share, opened_at=START)
            )
        margins = {watch.metric: gate_margin(PLAN, watch, stage) for watch in WATCHED}
        now = at(60.0 * number)
        self.evidence = gather(self.evidence, increments, Round(WATCHED, self.attempts, margins, now))
        look = Look(
            plan=PLAN, watches=WATCHED, attempts=tuple(self.attempts), margins=margins, units=10**6,
            attempt_units=10**6, now=now, patience=900.0,
        )  # fmt: skip
        return judge(self.evidence, look)

    def frozen(self) -> dict[str, Frozen | None]:
        """What clients have heard."""
        return {name: mine.frozen for name, mine in self.evidence.metrics.items()}

    def state(self) -> bytes:
        """The state as it is stored, read and stored again: whole numbers of floats are then written alike."""
        return msgspec.json.encode(msgspec.json.decode(msgspec.json.encode(self.evidence), type=Evidence))


def traffic(
    stage: int, requests: int, cells: int, frozen: dict[str, Frozen | None], rng: np.random.Generator
) -> Increments:
    """What the clients of one minute send, folded as they fold it."""
    candidate = max(1, round(requests * PERCENTAGES[stage] / 100))
    arms: dict[str, ArmIncrement] = {}
    for arm, n in (("candidate", candidate), ("baseline", requests - candidate)):
        found = {name: MetricIncrement() for name in METRICS}
        draws = {"errors": rng.random(n) < 0.02, "latency": rng.lognormal(6, 1, n), "cost": rng.lognormal(-5, 1.5, n)}
        where = rng.integers(0, cells, n).tolist()
        for name, values in draws.items():
            metric = RulesetMetric(kind=METRICS[name].kind)
            known = frozen.get(name)
            metric = metric if known is None else metric.measured(known)
            for cell, value in zip(where, values.tolist(), strict=True):
                add(found[name], cell, *measure(metric, value))
        arms[arm] = ArmIncrement(slots={1: SlotIncrement(exposures={0: n}, metrics=found)})
    return {f"at_{stage}": arms}


def rows(quick: bool) -> list[Row]:
    """One row per claim."""
    print("\n== speed\nThree guardrails, four stages, the judge's own process time.", flush=True)
    return [
        *_ticks(12 if quick else 60),
        _replay(2_000 if quick else 100_000),
        *_stored(quick),
        _simulated(quick),
        *_forecast(quick),
    ]


def _ticks(per_stage: int) -> Iterator[Row]:
    """Milliseconds of a tick in the last stage, and the largest state that it leaves."""
    rng, subject = np.random.default_rng(1), Judge(per_stage)
    spent = []
    for number in range(per_stage * len(PERCENTAGES)):
        increments = traffic(number // per_stage, 200, 256, subject.frozen(), rng)
        began = time.process_time()
        subject.tick(number, increments)
        if number >= per_stage * (len(PERCENTAGES) - 1):
            spent.append(1e3 * (time.process_time() - began))
    value = statistics.median(spent)
    yield Row("a tick of 3 guardrails with 4 start times, median", value, "ms", 5.0, value <= 5.0)


def _stored(quick: bool) -> Iterator[Row]:
    """Bytes of a guardrail's state after four stages: with the cells of 64 users, and with all 256 in use."""
    for cells, target in ((64, 16_000.0), (256, None)):
        rng, per_stage = np.random.default_rng(2), 8 if quick else 20
        subject = Judge(per_stage)
        for number in range(per_stage * len(PERCENTAGES)):
            subject.tick(number, traffic(number // per_stage, 400, cells, subject.frozen(), rng))
        sizes = {name: float(len(msgspec.json.encode(mine))) for name, mine in subject.evidence.metrics.items()}
        largest = max(sizes.values())
        holds = target is None or largest <= target
        name = f"state of the largest of 3 guardrails, {cells} cells in use in both arms"
        yield Row(name, largest, "bytes", target, holds, None, sizes)


def _replay(ticks: int) -> Row:
    """A log replayed in one go, and as the service lives it: its state stored and read again between ticks."""
    rng = np.random.default_rng(3)
    per_stage = ticks // len(PERCENTAGES)
    kinds: list[Increments] = []
    for stage in range(len(PERCENTAGES)):
        kinds += [traffic(stage, 6, 256, {}, rng) for _ in range(50)]
    straight, stored = Judge(per_stage), Judge(per_stage)
    began = time.process_time()
    for number in range(ticks):
        stage = min(number // per_stage, len(PERCENTAGES) - 1)
        increments = kinds[stage * 50 + int(rng.integers(50))]
        straight.tick(number, increments)
        stored.tick(number, increments)
        if number % 97 == 0:
            stored.evidence = msgspec.json.decode(stored.state(), type=Evidence)
    spent = time.process_time() - began
    equal = straight.state() == stored.state()
    print(f"replayed {ticks:,} ticks twice in {spent:.0f} s", flush=True)
    return Row(f"{ticks:,} ticks replayed: states that differ in a bit", float(not equal), "states", 0.0, equal)


def _simulated(quick: bool) -> Row:
    """Minutes of 10,000 rollouts without a difference, 1 to 50 % at 200 requests a minute, two days at most each."""
    latency, cost = lognormal(1.0, mean=1.0), lognormal(1.5, mean=1.0)
    scenario = Scenario(
        stages=tuple(SimulatedStage(share, min_ticks=3, min_units=50) for share in PERCENTAGES),
        guardrails=(
            SimulatedGuardrail(0.02, 0.02, Margin(0.5, relative=True), "lower_is_better"),
            SimulatedValues(ValueTest("distribution"), latency, latency, Margin(0.25, relative=True)),
            SimulatedValues(ValueTest("mean"), cost, cost, Margin(0.2, relative=True)),
        ),
        requests_per_tick=1_000.0,
        horizon=576,
    )
    began = time.process_time()
    replications = 200 if quick else ROLLOUTS
    outcomes = simulate(scenario, replications, np.random.default_rng(4))
    minutes = (time.process_time() - began) / 60.0
    assert outcomes.completed.any()  # they are whole rollouts
    target = 5.0 * replications / ROLLOUTS
    return Row(f"{replications:,} simulated rollouts of 3 guardrails", minutes, "min", target, minutes <= target)


def _forecast(quick: bool) -> Iterator[Row]:
    """Seconds of a forecast of the demonstration's plan: ten fates, a thousand rollouts each."""
    documents = read_all([PLANS / "better.yaml", PLANS / "shared.yaml"])
    metrics = {each.key: each for each in documents if isinstance(each, Metric)}
    plan = next(each for each in documents if isinstance(each, RolloutDocument))
    runs = 100 if quick else 1_000
    for units, how in ((None, "each of a unit of its own"), (20_000, "of 20,000 units that come back")):
        sticky = 0.0 if units is None else 0.1
        expected = Expectation(
            requests_per_minute=1_000.0,
            units=units,
            metrics={
                "answer_correct": ExpectedMetric(rate=0.347, stickiness=sticky),
                "error_rate": ExpectedMetric(rate=0.01, stickiness=sticky),
            },
            regressions=tuple(Regression(metric=metric, times=times) for metric, times in REGRESSIONS),
            runs=runs,
            horizon="1d",
        )
        began = time.process_time()
        found = forecast(plan, metrics, expected)
        spent = time.process_time() - began
        assert found.fates[0].completed > 0.9  # they are whole rollouts
        name = f"{runs * len(found.fates):,} forecast rollouts of the demonstration's plan, requests {how}"
        yield Row(name, spent, "s", 10.0, spent <= 10.0)
