"""A metric: what is measured, in which direction it is good, and when an outcome is final."""

import math
from datetime import timedelta
from typing import Literal

from rollout.domain.document import Document, Problem, duration, duration_problems, key_problems
from rollout_client.evaluation.histogram import HIGHEST, LOWEST
from rollout_client.evaluation.ruleset import Denominator, Direction, MetricKind


class Metric(Document, frozen=True, kw_only=True):
    """An authored metric (evidence.md, The metric document).

    `event` says in words which event a proportion counts. `maturity` is how long after the minute of exposure an
    outcome may arrive and still count; `timeout` says that an attempt without an outcome by then is the failure.
    """

    key: str
    kind: MetricKind
    event: str = ""
    direction: Direction = "lower_is_better"
    denominator: Denominator = "attempt"
    maturity: str = "0s"
    timeout: str | None = None
    unit: str = ""
    bounds: tuple[float, float] | None = None
    source: Literal["observations"] = "observations"
    description: str = ""

    @property
    def matures_after(self) -> timedelta:
        """How long after its minute of exposure an outcome is awaited."""
        return duration(self.maturity)


def metric_problems(metric: Metric) -> list[Problem]:
    """Everything wrong with a metric, with the path of each."""
    problems = key_problems(metric.key)
    problems += duration_problems(metric.maturity, "maturity") + duration_problems(metric.timeout, "timeout")
    if problems:
        return problems
    if metric.kind == "proportion" and not metric.event:
        problems.append(
            Problem("event", "say in words which event the proportion counts, such as 'the request failed'")
        )
    if metric.denominator == "exposure" and not metric.matures_after:
        problems.append(
            Problem(
                "maturity",
                "a metric per exposure is judged per minute of exposure; say how long to wait, such as '10m'",
            )
        )
    if metric.denominator == "exposure" and metric.kind not in ("proportion", "count_rate"):
        message = f"a {metric.kind} is observed with its own number of observations; use 'attempt'"
        problems.append(Problem("denominator", message))
    problems += _timeout_problems(metric) + _bounds_problems(metric)
    return problems


def _timeout_problems(metric: Metric) -> list[Problem]:
    if metric.timeout is None:
        return []
    if metric.denominator != "attempt" or metric.kind != "proportion" or metric.direction != "lower_is_better":
        return [Problem("timeout", "only a proportion of failures per attempt can count a timeout as one; remove it")]
    if duration(metric.timeout) > metric.matures_after:
        return [
            Problem("maturity", f"must be at least the timeout ({metric.timeout}), or open attempts would never count")
        ]
    return []


def _bounds_problems(metric: Metric) -> list[Problem]:
    if metric.bounds is None:
        return []
    if metric.kind not in ("mean", "quantile", "distribution"):
        return [Problem("bounds", f"a {metric.kind} has no bounds of its own; remove them")]
    low, high = metric.bounds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        return [Problem("bounds", "give two finite numbers, the lower one first")]
    if max(abs(low), abs(high)) > HIGHEST or high - low < LOWEST:
        message = f"lie within {HIGHEST:g} of 0 and at least {LOWEST:g} apart; give the metric another unit"
        return [Problem("bounds", message)]
    return []
