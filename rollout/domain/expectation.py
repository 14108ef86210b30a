"""What is expected of a rollout before it starts: its traffic, its metrics, and how the candidate may be worse."""

import math
from collections.abc import Mapping
from typing import Literal

from rollout.domain.document import Document, Problem, duration_problems
from rollout.domain.metric import Metric
from rollout.domain.plan import PlanBody

MOST_RUNS = 5_000
MOST_UNITS = 10**9
MOST_STICKINESS = 0.99
SIMULATED = ("proportion", "count_rate", "mean", "quantile", "distribution")
"""Kinds of metric that the simulation knows."""


class ExpectedMetric(Document, frozen=True, kw_only=True):
    """What is true of the baseline: the rate of a proportion or count rate, else values by their mean or median.

    Values are lognormal; `spread` is the standard deviation of their natural logarithm (1: the p95 is five medians).
    `stickiness` says how much outcomes of one unit go together, as their intra-class correlation: 0 not at all, near 1
    a unit always has the same. It needs `units`.
    """

    rate: float | None = None
    mean: float | None = None
    median: float | None = None
    spread: float = 1.0
    stickiness: float = 0.0


class Regression(Document, frozen=True, kw_only=True):
    """How the candidate may be worse: its rate or values are `times` the baseline's."""

    metric: str
    times: float


class Expectation(Document, frozen=True, kw_only=True):
    """The traffic of both arms together, the metrics of the guardrails, and the regressions to try, one at a time.

    `units` is how many different units the requests come from while the rollout lasts, each as often as any other; so
    a unit comes back `requests_per_minute / units` times a minute. None: each request is of a unit of its own.
    """

    requests_per_minute: float
    units: int | None = None
    metrics: dict[str, ExpectedMetric]
    regressions: tuple[Regression, ...] = ()
    runs: int = 200
    horizon: str = "7d"
    kind: Literal["Expectation"] = "Expectation"


def expectation_problems(expected: Expectation, plan: PlanBody, metrics: Mapping[str, Metric]) -> list[Problem]:
    """Everything wrong with an expectation for a plan, with the path of each."""
    problems = duration_problems(expected.horizon, "horizon")
    if not 0.0 < expected.requests_per_minute < math.inf:
        problems.append(Problem("requests_per_minute", "give the requests of both arms together, above 0"))
    if not 1 <= expected.runs <= MOST_RUNS:
        problems.append(Problem("runs", f"give 1 to {MOST_RUNS}"))
    if expected.units is not None and not MOST_UNITS >= expected.units >= 2:
        problems.append(Problem("units", f"give how many different units come, 2 to {MOST_UNITS}, or leave it out"))
    guarded = [guardrail.metric for guardrail in plan.guardrails if guardrail.on_breach != "warn"]
    for name in dict.fromkeys(guarded):
        kind = metrics[name].kind
        if kind in SIMULATED and name not in expected.metrics:
            problems.append(Problem("metrics", f"say what is true of {name!r} ({kind}), which the plan guards"))
    for name, each in expected.metrics.items():
        if name not in metrics:
            problems.append(Problem(f"metrics.{name}", f"there is no metric {name!r}; correct the name"))
        else:
            problems += _metric_problems(f"metrics.{name}", each, metrics[name])
            problems += _stickiness_problems(f"metrics.{name}.stickiness", each.stickiness, expected.units)
    for i, regression in enumerate(expected.regressions):
        if regression.metric not in guarded:
            known = ", ".join(guarded) or "none"
            message = f"the plan does not guard {regression.metric!r} (it guards: {known})"
            problems.append(Problem(f"regressions[{i}].metric", message))
        if not 0.0 < regression.times < math.inf:
            problems.append(Problem(f"regressions[{i}].times", "give a factor above 0, such as 1.5"))
    return problems


def _stickiness_problems(path: str, stickiness: float, units: int | None) -> list[Problem]:
    if not 0.0 <= stickiness <= MOST_STICKINESS:
        return [Problem(path, f"is an intra-class correlation: give 0 to {MOST_STICKINESS}")]
    if stickiness and units is None:
        return [Problem(path, "outcomes can only go together when units come back; say how many `units` there are")]
    return []


def _metric_problems(path: str, each: ExpectedMetric, metric: Metric) -> list[Problem]:
    if metric.kind in ("proportion", "count_rate"):
        most = 1.0 if metric.kind == "proportion" else math.inf
        if each.rate is None or each.mean is not None or each.median is not None or not 0.0 <= each.rate <= most:
            within = "between 0 and 1" if metric.kind == "proportion" else "at least 0"
            return [Problem(f"{path}.rate", f"give the rate of a {metric.kind}, {within}, and nothing else")]
        return []
    middles = [value for value in (each.mean, each.median) if value is not None]
    if each.rate is not None or len(middles) != 1 or not 0.0 < middles[0] < math.inf:
        return [Problem(path, f"give the mean or the median of a {metric.kind}, above 0, one of them")]
    if not 0.0 < each.spread <= 4.0:
        return [Problem(f"{path}.spread", "give the standard deviation of the logarithm, above 0 and at most 4")]
    return []
