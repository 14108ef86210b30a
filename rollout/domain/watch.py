"""What is watched: each guardrail and signal of a plan joined with its metric, in the numbers the tests take."""

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from rollout.domain.document import duration
from rollout.domain.metric import Metric
from rollout.domain.plan import (
    Budget,
    Guardrail,
    MaxRegression,
    Missing,
    MissingVerdict,
    OnBreach,
    OnMissing,
    PlanBody,
    Signal,
    last_percentage,
)
from rollout.domain.plan import percentage_of as percentage_of_stage
from rollout.stats.margin import Margin, risk_scaled
from rollout_client.evaluation.ruleset import Denominator, Direction, MetricKind

_FOCUS = re.compile(r"p(\d{1,2}(?:\.\d{1,4})?)", re.ASCII)
Role = Literal["guardrail", "warning", "signal"]
"""A guardrail acts on a breach, a warning is shown, a signal holds and clears itself."""
UNSEEN: tuple[MissingVerdict, ...] = ("no_data", "stale", "error")
"""Requests are served unwatched: harm that nobody would see."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What is done about one sort of missing evidence, and after how many seconds (None: the plan's own patience)."""

    verdict: MissingVerdict
    then: OnMissing
    after: float | None = None


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """One watched metric. `harm_margin` draws the rollback line, `margin` what is accepted at the end.

    `focus` is the level of the quantile that the gate looks at (0.95 for p95), None for the mean or a rate. `ceiling`
    holds when the candidate's own level is beyond it, whatever the baseline does.
    """

    metric: str
    kind: MetricKind
    role: Role
    direction: Direction
    denominator: Denominator
    margin: Margin
    harm_margin: Margin
    maturity: float
    counts_timeouts: bool
    weight: float
    on_breach: OnBreach
    on_missing: tuple[Policy, ...]
    error_limit: int = 3
    focus: float | None = None
    bounds: tuple[float, float] | None = None
    ceiling: float | None = None
    budget: Budget | None = None

    def policy(self, verdict: str) -> Policy | None:
        """What is done about one sort of missing evidence; None for nothing but to hold."""
        return next((policy for policy in self.on_missing if policy.verdict == verdict), None)


def watches(plan: PlanBody, metrics: Mapping[str, Metric]) -> tuple[Watch, ...]:
    """Guardrails in order, then signals."""
    items: tuple[Guardrail | Signal, ...] = (*plan.guardrails, *plan.signals)
    return tuple(_watch(item, metrics[item.metric]) for item in items)


def gate_margin(plan: PlanBody, watch: Watch, stage: int) -> Margin:
    """Margin of the gate that leaves `stage`: early gates tolerate more of the excess when the plan is risk-scaled."""
    if not plan.analysis.risk_scaled or stage >= len(plan.stages):
        return watch.margin
    following = next(
        (s.percentage for s in plan.stages[stage + 1 :] if s.cohort is None), percentage_of_stage(plan, stage)
    )
    return risk_scaled(watch.margin, watch.direction, following, last_percentage(plan), _largest(watch))


def _largest(watch: Watch) -> float | None:
    """How wide an early gate may become where a quarter is not a rate: a quarter of the bounds, or ten margins."""
    if watch.margin.relative or watch.kind == "proportion":
        return None
    if watch.bounds is not None:
        return (watch.bounds[1] - watch.bounds[0]) / 4.0
    return 10.0 * watch.margin.size


def margin(regression: MaxRegression) -> Margin:
    """The authored `max_regression` as a margin."""
    if regression.relative is not None:
        return Margin(regression.relative, True)
    return Margin(regression.absolute or 0.0, False)


def focus_level(focus: str | None) -> float | None:
    """'p95' as 0.95, 'p99.9' as 0.999; 'mean' and nothing as None.

    Raises:
        ValueError: for any other text.
    """
    if focus is None or focus == "mean":
        return None
    match = _FOCUS.fullmatch(focus)
    if match is None or not 0.0 < float(match[1]) < 100.0:
        raise ValueError(f"{focus!r} is no focus: write mean, or a quantile such as p50, p95 or p99")
    return round(float(match[1]) / 100.0, 9)


def _watch(item: Guardrail | Signal, metric: Metric) -> Watch:
    accepted = margin(item.max_regression)
    guardrail = item if isinstance(item, Guardrail) else None
    any_regression = guardrail is not None and guardrail.rollback_on == "any_regression"
    return Watch(
        metric=item.metric,
        kind=metric.kind,
        focus=focus_level(item.focus),
        bounds=metric.bounds,
        ceiling=guardrail.ceiling if guardrail else None,
        role=_role(guardrail),
        direction=metric.direction,
        denominator=metric.denominator,
        margin=accepted,
        harm_margin=Margin(0.0, True) if any_regression else accepted,
        maturity=duration(item.maturity or metric.maturity).total_seconds(),
        counts_timeouts=metric.timeout is not None,
        weight=guardrail.weight if guardrail else 1.0,
        on_breach=guardrail.on_breach if guardrail else "warn",
        on_missing=_policies(guardrail) if guardrail else (),
        error_limit=guardrail.error_limit if guardrail else 3,
        budget=guardrail.budget if guardrail else None,
    )


def _policies(guardrail: Guardrail) -> tuple[Policy, ...]:
    """By verdict; one word is meant for evidence that is not seen although requests are served."""
    if isinstance(guardrail.on_missing, dict):
        return tuple(_policy(verdict, wanted) for verdict, wanted in guardrail.on_missing.items())
    return tuple(Policy(verdict=verdict, then=guardrail.on_missing) for verdict in UNSEEN)


def _policy(verdict: MissingVerdict, wanted: OnMissing | Missing) -> Policy:
    if not isinstance(wanted, Missing):
        return Policy(verdict=verdict, then=wanted)
    after = duration(wanted.after).total_seconds() if wanted.after is not None else None
    return Policy(verdict=verdict, then=wanted.then, after=after)


def _role(guardrail: Guardrail | None) -> Role:
    if guardrail is None:
        return "signal"
    return "warning" if guardrail.on_breach == "warn" else "guardrail"
