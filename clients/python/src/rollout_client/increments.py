"""What one observation adds to a metric (decision record 0001, Batch): numbers for its cell, and a histogram bucket.

Once the rollout has frozen a cap or thresholds, what they measure follows the other numbers, and begins with how many
observations they measured: so a vector of before and one of after merge, the shorter one padded with zeros.
"""

from __future__ import annotations

from typing import Any

from rollout_client.evaluation.evidence import MetricIncrement
from rollout_client.evaluation.histogram import HIGHEST, linear_bucket, log_bucket
from rollout_client.evaluation.ruleset import RulesetMetric


def measure(metric: RulesetMetric, value: Any) -> tuple[list[float], int | None]:
    """Return (numbers that are added to the cell, bucket or None) of one observation.

    Proportions take True, False, 0 or 1; count rates a number of events, or (events, exposure); ratios (y,
    denominator); the others a number within the metric's bounds.

    Raises:
        ValueError: the value is none of these, NaN, infinite, negative without bounds, or outside the bounds.
    """
    if metric.kind == "proportion":
        if not isinstance(value, (bool, int, float)) or value not in (0, 1):
            raise ValueError(f"a proportion is observed as True or False, not as {value!r}")
        return [1, int(value)], None
    if metric.kind == "count_rate":
        events, exposure = value if isinstance(value, tuple) and len(value) == 2 else (value, 1)
        return [_amount(exposure), _amount(events)], None
    if metric.kind == "ratio":
        if not isinstance(value, tuple) or len(value) != 2:
            raise ValueError(f"a ratio is observed as (numerator, denominator), not as {value!r}")
        y, d = _number(value[0]), _amount(value[1])
        return [y, d, y * y, d * d, y * d], None
    number = _number(value)
    bucket = log_bucket(number) if metric.bounds is None else linear_bucket(number, *metric.bounds)
    if metric.kind == "quantile":
        return ([1, 1, *_exceeded(metric, number)] if metric.thresholds else [1]), bucket
    moments = [1, number, number * number]
    if metric.cap is None:
        return moments, bucket
    capped = min(number, metric.cap)
    return [*moments, 1, capped, capped * capped, *_exceeded(metric, number)], bucket


def add(increment: MetricIncrement, cell: int, numbers: list[float], bucket: int | None) -> None:
    """Add one observation to an increment, in place; the shorter of two vectors is padded with zeros."""
    sums = increment.cells.get(cell)
    if sums is None:
        increment.cells[cell] = numbers
    else:
        if len(sums) < len(numbers):
            sums.extend([0] * (len(numbers) - len(sums)))
        for index, number in enumerate(numbers):
            sums[index] += number
    if bucket is not None:
        increment.histogram[bucket] = increment.histogram.get(bucket, 0) + 1


def _exceeded(metric: RulesetMetric, number: float) -> list[int]:
    """Return 1 for each frozen threshold that the number is on the bad side of, else 0."""
    if metric.direction == "lower_is_better":
        return [1 if number >= threshold else 0 for threshold in metric.thresholds]
    return [1 if number < threshold else 0 for threshold in metric.thresholds]


def _number(value: Any) -> float:
    # NaN compares false with everything, and an integer too large for a float is compared exactly.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= HIGHEST:
        raise ValueError(f"{value!r} is no finite number up to {HIGHEST:g}")
    return value


def _amount(value: Any) -> float:
    number = _number(value)
    if number < 0:
        raise ValueError(f"{value!r} is negative; counts and exposures are not")
    return number
