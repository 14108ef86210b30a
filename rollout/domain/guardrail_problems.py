"""What makes a guardrail or a signal impossible: its metric, its focus, its margin, its maturity, its ceiling."""

from collections.abc import Mapping
from datetime import timedelta
from math import isfinite

from rollout.domain.control_problems import budget_problems, missing_problems
from rollout.domain.document import Problem, duration, duration_problems
from rollout.domain.metric import Metric
from rollout.domain.plan import Guardrail, MaxRegression, Signal
from rollout.domain.watch import focus_level

LONGEST_MATURITY = timedelta(hours=6)
"""Every open minute of a slow metric is part of the evidence that each look carries."""
FINEST_OF_VALUES = 0.02
"""Relative margin below which rounding to buckets could be taken for a change."""
FURTHEST_FOCUS = 0.99
"""Thresholds are frozen from 500 values: beyond the p99 fewer than five of them lie."""
LONGEST_OF_VALUES = timedelta(minutes=30)
"""Of values a minute holds a histogram and sums by cell, some ten times as much as of a proportion."""
OF_VALUES = ("mean", "quantile", "distribution")
WITHOUT_FOCUS = {"proportion": "a proportion", "count_rate": "a count rate", "ratio": "a ratio per unit"}


def guardrail_problems(item: Guardrail | Signal, path: str, metrics: Mapping[str, Metric]) -> list[Problem]:
    """Everything wrong with one guardrail or signal, with the path of each."""
    metric = metrics.get(item.metric)
    problems = duration_problems(item.maturity, f"{path}.maturity")
    if isinstance(item, Guardrail) and not (item.weight > 0 and isfinite(item.weight)):
        problems.append(Problem(f"{path}.weight", "must be above 0; leave it out for equal weights"))
    if isinstance(item, Guardrail):
        problems += missing_problems(item, path)
    if metric is None:
        return [*problems, missing(f"{path}.metric", "metric", item.metric, metrics)]
    if item.direction is not None and item.direction != metric.direction:
        message = f"the metric says {metric.direction}; remove the direction here or correct the metric"
        problems.append(Problem(f"{path}.direction", message))
    problems += _focus_problems(item, metric, f"{path}.focus")
    problems += _maturity_problems(item, metric, f"{path}.maturity") if not problems else []
    problems += _margin_problems(item.max_regression, metric, f"{path}.max_regression")
    if isinstance(item, Guardrail) and item.ceiling is not None:
        problems += _ceiling_problems(item.ceiling, metric, f"{path}.ceiling")
    if isinstance(item, Guardrail) and item.budget is not None:
        problems += budget_problems(item.budget, metric, f"{path}.budget")
    return problems


def missing(path: str, what: str, name: str, known: Mapping[str, object] | frozenset[str]) -> Problem:
    """A reference to something that is not there."""
    some = ", ".join(sorted(known)[:8]) or "none yet"
    return Problem(path, f"there is no {what} {name!r} (known: {some}); create it first or correct the name")


def _focus_problems(item: Guardrail | Signal, metric: Metric, path: str) -> list[Problem]:
    if metric.kind in WITHOUT_FOCUS:
        return [Problem(path, f"{WITHOUT_FOCUS[metric.kind]} has no focus; remove it")] if item.focus else []
    try:
        level = focus_level(item.focus)
    except ValueError as error:
        return [Problem(path, str(error))]
    if level is not None and not 1.0 - FURTHEST_FOCUS - 1e-9 <= level <= FURTHEST_FOCUS + 1e-9:
        return [Problem(path, "lies between p1 and p99: thresholds are frozen from 500 values of the baseline")]
    if metric.kind == "quantile" and level is None:
        return [Problem(path, "say which quantile is meant, such as p95")]
    if metric.kind == "mean" and level is not None:
        return [Problem(path, f"{metric.key!r} is a mean; make it a quantile or a distribution to judge {item.focus}")]
    return []


def _maturity_problems(item: Guardrail | Signal, metric: Metric, path: str) -> list[Problem]:
    awaited = duration(item.maturity or metric.maturity)
    longest = LONGEST_OF_VALUES if metric.kind in OF_VALUES else LONGEST_MATURITY
    if awaited > longest:
        return [Problem(path, f"at most {longest} of minutes can be kept open; judge an earlier outcome")]
    if metric.timeout is not None and awaited < duration(metric.timeout):
        message = (
            f"must be at least the metric's timeout ({metric.timeout}), or calls in flight would count as failures"
        )
        return [Problem(path, message)]
    if metric.denominator == "exposure" and not awaited:
        return [Problem(path, "a metric per exposure needs a maturity above 0")]
    return []


def _margin_problems(margin: MaxRegression, metric: Metric, path: str) -> list[Problem]:
    if (margin.relative is None) == (margin.absolute is None):
        return [Problem(path, "give exactly one of 'relative' (a share of the baseline) and 'absolute' (a difference)")]
    size = margin.relative if margin.relative is not None else margin.absolute
    field = "relative" if margin.relative is not None else "absolute"
    assert size is not None
    at = f"{path}.{field}"
    if not isfinite(size) or size <= 0:
        return [Problem(at, "must be above 0: no test can prove that nothing changed at all")]
    if field == "relative":
        return _relative_problems(size, metric, at)
    if metric.kind == "distribution":
        message = "a distribution is shifted by a ratio: give 'relative', or judge the metric's mean or quantile"
        return [Problem(at, message)]
    width = 1.0 if metric.kind == "proportion" else metric.bounds[1] - metric.bounds[0] if metric.bounds else None
    if width is not None and size >= width:
        return [Problem(at, f"must be below {width:g}: the metric cannot change by more than that")]
    return []


def _relative_problems(size: float, metric: Metric, path: str) -> list[Problem]:
    if metric.kind in OF_VALUES and size < FINEST_OF_VALUES:
        return [Problem(path, f"must be at least {FINEST_OF_VALUES:g}: values are known to buckets 1.1 % wide")]
    if metric.direction == "higher_is_better" and size >= 1:
        return [Problem(path, "must be below 1: what is good cannot fall by more than itself")]
    if metric.bounds is not None and metric.bounds[0] < 0:
        instead = "judge its mean or a quantile" if metric.kind == "distribution" else "give 'absolute'"
        return [Problem(path, f"a share of a number that may be negative means nothing; {instead}")]
    return []


def _ceiling_problems(ceiling: float, metric: Metric, path: str) -> list[Problem]:
    if metric.kind == "ratio":
        return [Problem(path, "a ratio per unit is judged against the baseline only; remove the ceiling")]
    low, high = (0.0, 1.0) if metric.kind == "proportion" else metric.bounds or (0.0, float("inf"))
    if not (isfinite(ceiling) and low < ceiling < high):
        limits = f"above {low:g}" if high == float("inf") else f"between {low:g} and {high:g}"
        return [Problem(path, f"must be {limits}, in the units of {metric.key!r}; not {ceiling:g}")]
    return []
