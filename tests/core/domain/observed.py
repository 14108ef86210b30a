"""Observations of any kind of metric as a client measures them, and the judge's path over them, without a database."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rollout.domain.evidence import Evidence, GuardrailEvidence, Increments, in_order, merge
from rollout.domain.gather import Round, gather
from rollout.domain.judge import Judgement, Look, judge
from rollout.domain.kinds import Kind, kind_of
from rollout.domain.metric import Metric, metric_problems
from rollout.domain.plan import RolloutDocument
from rollout.domain.plan_problems import rollout_problems
from rollout.domain.rollout import Attempt
from rollout.domain.watch import Watch, gate_margin, watches
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Arm, Frozen, RulesetMetric
from rollout_client.increments import add, measure
from tests.core.domain.plans import START, World, at, rollout

MINUTE = int(START.timestamp()) // 60
STAGES = [{"name": name, "percentage": p, "min_duration": "1m", "min_units": 0} for name, p in (("a", 10), ("b", 50))]


class Seen(NamedTuple):
    """One observation."""

    arm: Arm
    cell: int
    value: Any


class Watched:
    """One metric, the guardrail on it, and the attempts so far."""

    def __init__(self, metric: dict[str, Any], guardrail: dict[str, Any], **plan: Any) -> None:
        self.metric = Metric(key="m", **metric)
        self.plan: RolloutDocument = rollout(
            guardrails=[{"metric": "m", **guardrail}], stages=STAGES, analysis={"risk_scaled": False}, **plan
        )
        world = World()
        world.metrics = {"m": self.metric}
        assert metric_problems(self.metric) + rollout_problems(self.plan, world) == []
        self.watch: Watch = watches(self.plan, {"m": self.metric})[0]
        self.kind: Kind = kind_of(self.watch)
        self.attempts: tuple[Attempt, ...] = (attempt("at_1"),)

    def tick(self, now: float) -> Round:
        margins = {"m": gate_margin(self.plan, self.watch, self.attempts[-1].stage)}
        return Round((self.watch,), self.attempts, margins, at(now))

    def take(self, evidence: Evidence, added: Increments, now: float = 1) -> Evidence:
        return gather(evidence, in_order(added), self.tick(now))

    def judge(self, evidence: Evidence, now: float = 1, units: int = 10**6) -> Judgement:
        look = Look(
            plan=self.plan, watches=(self.watch,), attempts=self.attempts, units=units, attempt_units=units,
            margins={"m": gate_margin(self.plan, self.watch, self.attempts[-1].stage)}, now=at(now), patience=900,
        )  # fmt: skip
        return judge(evidence, look)

    def batch(
        self, seen: Iterable[Seen], frozen: Frozen | None = None, slot: int = MINUTE, to: str | None = None
    ) -> Increments:
        """What a client folds of some observations, each of an exposure of its own."""
        served = RulesetMetric(kind=self.metric.kind, direction=self.metric.direction, bounds=self.metric.bounds)
        made: Increments = {}
        for arm, cell, value in seen:
            target = made.setdefault(to or self.attempts[-1].id, {}).setdefault(arm, ArmIncrement())
            minute = target.slots.setdefault(slot, SlotIncrement())
            for counts in (minute.exposures, minute.first_exposures, minute.started):
                counts[cell] = counts.get(cell, 0) + 1
            numbers, bucket = measure(served.measured(frozen), value)
            add(minute.metrics.setdefault("m", MetricIncrement()), cell, numbers, bucket)
        return made


def attempt(identifier: str, stage: int = 0, epoch: int = 1) -> Attempt:
    return Attempt(id=identifier, number=1, stage=stage, epoch=epoch, percentage=10, opened_at=START)


def joined(parts: Sequence[Increments]) -> Increments:
    into: Increments = {}
    for part in parts:
        merge(into, part)
    return into


def mine(evidence: Evidence) -> GuardrailEvidence:
    return evidence.metrics["m"]


LOWER = {"max_regression": {"relative": 0.2}}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "proportion": ({"kind": "proportion", "event": "it failed"}, {"max_regression": {"absolute": 0.02}}),
    "count_rate": ({"kind": "count_rate"}, LOWER),
    "ratio": ({"kind": "ratio"}, LOWER),
    "mean": ({"kind": "mean"}, LOWER),
    "mean_of_scores": (
        {"kind": "mean", "direction": "higher_is_better", "bounds": (1.0, 5.0)},
        {"max_regression": {"absolute": 0.5}},
    ),
    "quantile": ({"kind": "quantile"}, {**LOWER, "focus": "p95"}),
    "distribution": ({"kind": "distribution"}, {**LOWER, "focus": "p95"}),
    "tail": ({"kind": "distribution"}, LOWER),
}
VALUES = ("mean", "mean_of_scores", "quantile", "distribution", "tail")


def value_of(kind: str, number: int) -> Any:
    """An observation, a different one for each number from 0 to 15; exact in binary, so sums have no order."""
    match kind:
        case "proportion":
            return number % 5 == 0
        case "count_rate":
            return (number % 3, 1 + number % 2)
        case "ratio":
            return (number / 4, 1 + number % 3)
        case "mean_of_scores":
            return 1 + number / 4
    return 2.0**number / 8 if number else 0.0


def watched(kind: str, **plan: Any) -> Watched:
    metric, guardrail = KINDS[kind]
    return Watched({**metric}, {**guardrail}, **plan)


def seen(kind: str, arm: Arm, numbers: Iterable[int]) -> list[Seen]:
    """Observations spread over the cells."""
    return [Seen(arm, (7 * place) % 256, value_of(kind, number)) for place, number in enumerate(numbers)]


def calibrated(world: Watched, kind: str) -> Evidence:
    """Evidence whose baseline has been seen long enough."""
    numbers = [place % 16 for place in range(600)]
    return world.take(Evidence(), world.batch(seen(kind, "baseline", numbers)))
