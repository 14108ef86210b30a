"""What is wrong with a batch: pure, and with the path of the first error. Nothing is coerced.

Proportions are whole counts with 0 <= x <= n; a histogram sums to its cells' n; every number is finite.
"""

from collections.abc import Iterator, Mapping
from math import isfinite

from rollout.domain.document import Problem
from rollout.domain.evidence import Increments
from rollout.domain.metric import Metric
from rollout_client.evaluation.evidence import (
    CELLS,
    HIGHEST_RANK,
    REGISTERS,
    ArmIncrement,
    MetricIncrement,
    SlotIncrement,
)
from rollout_client.evaluation.histogram import HIGHEST_BUCKET, LINEAR_BUCKETS, ZERO_BUCKET

MOST_SLOTS = 10_000
"""Minutes one batch may carry; a week of minutes."""
MOST = 10**9
"""Requests one batch may count in a cell; what a process sees between two flushes is far below."""
LARGEST = 1e30
"""Largest sum in a cell (the square of the largest value, a million times); sums of it stay finite."""
_WIDTHS = {"proportion": {2}, "count_rate": {2}, "mean": {3, 4}, "distribution": {3, 4}, "ratio": {5}}


def check(increments: Increments, metrics: Mapping[str, Mapping[str, Metric]]) -> Problem | None:
    """The first problem, or None. `metrics` has those of each known attempt; others are checked for form only."""
    return next(_problems(increments, metrics), None)


def _problems(increments: Increments, metrics: Mapping[str, Mapping[str, Metric]]) -> Iterator[Problem]:
    slots = 0
    for attempt, arms in increments.items():
        for arm, increment in arms.items():
            path = f"attempts.{attempt}.{arm}"
            yield from _sketch(increment, f"{path}.sketch")
            slots += len(increment.slots)
            if slots > MOST_SLOTS:
                yield Problem(f"{path}.slots", f"more than {MOST_SLOTS} minutes in one batch; send several batches")
            for slot, added in increment.slots.items():
                yield from _slot(slot, added, f"{path}.slots.{slot}", metrics.get(attempt))


def _sketch(increment: ArmIncrement, path: str) -> Iterator[Problem]:
    for i, (register, rank) in enumerate(increment.sketch):
        if not (0 <= register < REGISTERS and 1 <= rank <= HIGHEST_RANK):
            yield Problem(f"{path}[{i}]", f"a register is 0 to {REGISTERS - 1} and a rank 1 to {HIGHEST_RANK}")


def _slot(slot: int, added: SlotIncrement, path: str, known: Mapping[str, Metric] | None) -> Iterator[Problem]:
    if slot < 0:
        yield Problem(path, "a slot is a minute since 1970, so not negative")
    for name in ("exposures", "first_exposures", "started"):
        for cell, count in getattr(added, name).items():
            if not 0 <= cell < CELLS or not 0 <= count <= MOST:
                yield Problem(f"{path}.{name}.{cell}", f"a cell is 0 to {CELLS - 1} and a count 0 to {MOST}")
    for name, increment in added.metrics.items():
        at = f"{path}.metrics.{name}"
        if known is None:
            yield from _finite(increment, at)
        elif name not in known:
            yield Problem(at, f"this rollout does not use the metric {name!r}; send only those the ruleset names")
        else:
            yield from _metric(increment, known[name], at)


def _metric(increment: MetricIncrement, metric: Metric, path: str) -> Iterator[Problem]:
    yield from _finite(increment, path)
    widths = _WIDTHS.get(metric.kind)
    for cell, numbers in increment.cells.items():
        at = f"{path}.cells.{cell}"
        if widths is not None and len(numbers) not in widths:
            yield Problem(at, f"a {metric.kind} has {' or '.join(map(str, sorted(widths)))} numbers in a cell")
        elif numbers and numbers[0] < 0 and metric.kind != "ratio":  # a ratio's cell begins with a sum
            yield Problem(at, "a count cannot be negative")
        elif numbers and metric.kind != "ratio" and numbers[0] > MOST:
            yield Problem(at, f"a count is at most {MOST} in one batch")
        elif metric.kind == "proportion" and not _is_proportion(numbers):
            yield Problem(at, "a proportion is [n, x] in whole numbers with 0 <= x <= n")
    yield from _histogram(increment, metric, path)


def _is_proportion(numbers: list[float]) -> bool:
    n, x = numbers
    return n == int(n) and x == int(x) and 0 <= x <= n


def _histogram(increment: MetricIncrement, metric: Metric, path: str) -> Iterator[Problem]:
    if metric.kind not in ("mean", "distribution", "quantile"):
        if increment.histogram:
            yield Problem(f"{path}.histogram", f"a {metric.kind} has no histogram; leave it out")
        return
    lowest, highest = (0, LINEAR_BUCKETS - 1) if metric.bounds else (ZERO_BUCKET, HIGHEST_BUCKET)
    for bucket, count in increment.histogram.items():
        if not lowest <= bucket <= highest or count < 0:
            yield Problem(f"{path}.histogram.{bucket}", f"a bucket is {lowest} to {highest} and a count 0 or more")
    if sum(increment.histogram.values()) != sum(numbers[0] for numbers in increment.cells.values() if numbers):
        yield Problem(f"{path}.histogram", "the histogram does not sum to the n of the cells")


def _finite(increment: MetricIncrement, path: str) -> Iterator[Problem]:
    for cell, numbers in increment.cells.items():
        if not 0 <= cell < CELLS:
            yield Problem(f"{path}.cells.{cell}", f"a cell is 0 to {CELLS - 1}")
        if not numbers or not all(isfinite(number) and abs(number) <= LARGEST for number in numbers):
            yield Problem(
                f"{path}.cells.{cell}", f"every number must be finite and at most {LARGEST:g}; give one at least"
            )
