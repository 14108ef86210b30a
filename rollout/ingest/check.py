"""What is wrong with a batch: pure, and with the path of the first error. Nothing is coerced.

Proportions are whole counts with 0 <= x <= n; a histogram sums to its cells' n; every number is finite. No more is
measured with frozen values than was observed, and no more exceeds a threshold than exceeds a milder one.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import isfinite
from typing import NamedTuple

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
from rollout_client.evaluation.ruleset import Frozen

MOST_SLOTS = 10_000
"""Minutes one batch may carry; a week of minutes."""
MOST = 10**9
"""Requests one batch may count in a cell; what a process sees between two flushes is far below."""
LARGEST = 1e30
"""Largest sum in a cell (the square of the largest value, a million times); sums of it stay finite."""
_WIDTHS = {"proportion": 2, "count_rate": 2, "mean": 3, "quantile": 1, "distribution": 3, "ratio": 5}
_MOMENTS = frozenset({"mean", "distribution"})
_HISTOGRAMS = _MOMENTS | {"quantile"}
_NONE = Frozen()
_RISES = (
    "counts are whole numbers; no more is measured with frozen values than was observed, and no more of that exceeds a"
    " threshold than exceeds the one before it"
)


class Known(NamedTuple):
    """What a running attempt takes evidence of: the metrics of its rollout, and what is frozen of them."""

    metrics: Mapping[str, Metric]
    frozen: Mapping[str, Frozen]


def check(increments: Increments, known: Mapping[str, Known]) -> Problem | None:
    """The first problem, or None. Attempts that are not `known` are checked for form only."""
    return next(_problems(increments, known), None)


def _problems(increments: Increments, known: Mapping[str, Known]) -> Iterator[Problem]:
    slots = 0
    for attempt, arms in increments.items():
        for arm, increment in arms.items():
            path = f"attempts.{attempt}.{arm}"
            yield from _sketch(increment, f"{path}.sketch")
            slots += len(increment.slots)
            if slots > MOST_SLOTS:
                yield Problem(f"{path}.slots", f"more than {MOST_SLOTS} minutes in one batch; send several batches")
            for slot, added in increment.slots.items():
                yield from _slot(slot, added, f"{path}.slots.{slot}", known.get(attempt))


def _sketch(increment: ArmIncrement, path: str) -> Iterator[Problem]:
    for i, (register, rank) in enumerate(increment.sketch):
        if not (0 <= register < REGISTERS and 1 <= rank <= HIGHEST_RANK):
            yield Problem(f"{path}[{i}]", f"a register is 0 to {REGISTERS - 1} and a rank 1 to {HIGHEST_RANK}")


def _slot(slot: int, added: SlotIncrement, path: str, known: Known | None) -> Iterator[Problem]:
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
        elif name not in known.metrics:
            yield Problem(at, f"this rollout does not use the metric {name!r}; send only those the ruleset names")
        else:
            yield from _metric(increment, known.metrics[name], known.frozen.get(name, _NONE), at)


def _metric(increment: MetricIncrement, metric: Metric, frozen: Frozen, path: str) -> Iterator[Problem]:
    yield from _finite(increment, path)
    for cell, numbers in increment.cells.items():
        wrong = _wrong_width(len(numbers), metric, frozen) or _wrong_numbers(numbers, metric, frozen)
        if wrong is not None:
            yield Problem(f"{path}.cells.{cell}", wrong)
    yield from _histogram(increment, metric, path)


def _wrong_width(width: int, metric: Metric, frozen: Frozen) -> str | None:
    """A cell has the numbers of its kind, and all or none of those that are measured with frozen values."""
    short = _WIDTHS[metric.kind]
    if width == short:
        return None
    long = short + _more(metric, frozen)
    if long == short:
        numbers = "1 number" if short == 1 else f"{short} numbers"
        early = "; this rollout has frozen nothing yet to measure more with" if metric.kind in _HISTOGRAMS else ""
        return f"a {metric.kind} has {numbers} in a cell{early}"
    if width == long:
        return None
    return f"a cell of this {metric.kind} has {short} or, measured with what this rollout froze, {long} numbers"


def _more(metric: Metric, frozen: Frozen) -> int:
    """How many numbers a cell has more once its observations are measured with what is frozen."""
    if metric.kind in _MOMENTS and frozen.cap is not None:
        return 3 + len(frozen.thresholds)
    if metric.kind == "quantile" and frozen.thresholds:
        return 1 + len(frozen.thresholds)
    return 0


def _wrong_numbers(numbers: list[float], metric: Metric, frozen: Frozen) -> str | None:
    if metric.kind == "ratio":  # its cell has only sums; what is divided may be negative, what it is divided by not
        return "a denominator and a sum of squares cannot be negative" if min(numbers[1:4]) < 0 else None
    counts = numbers if metric.kind in ("proportion", "count_rate") else numbers[:1]
    if min(counts) < 0:
        return "a count cannot be negative"
    if numbers[0] > MOST:
        return f"a count is at most {MOST} in one batch"
    if metric.kind == "count_rate":
        return None
    if metric.kind == "proportion":
        return None if _falls(numbers) else "a proportion is [n, x] in whole numbers with 0 <= x <= n"
    if metric.kind in _MOMENTS:
        if min(numbers[2:6:3]) < 0:  # the third, and in the long form the sixth
            return "a sum of squares cannot be negative"
        counts = [numbers[0], *numbers[3:4], *numbers[6:]]
    else:
        counts = numbers
    if not _falls(counts):
        return _RISES
    has_capped = metric.kind in _MOMENTS and len(numbers) > 4
    if has_capped and frozen.cap is not None and _exceeds(numbers[4], numbers[3] * frozen.cap):
        return "values that are capped cannot add up to more than their number times the cap"
    return None


def _exceeds(total: float, most: float) -> bool:
    """Whether a sum is above what it can be, but for the rounding of a million additions."""
    return total > most + 1e-6 * abs(most)


def _falls(counts: list[float]) -> bool:
    """Whether these are whole numbers, none negative and none larger than the one before it."""
    return (
        all(count == int(count) for count in counts)
        and counts[-1] >= 0
        and all(before >= after for before, after in pairwise(counts))
    )


def _histogram(increment: MetricIncrement, metric: Metric, path: str) -> Iterator[Problem]:
    if metric.kind not in _HISTOGRAMS:
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
