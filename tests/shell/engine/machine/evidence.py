"""Batches as clients send them: folded counts of many requests, drawn in bulk, so that a few batches open a gate or
prove harm.
"""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from rollout.domain.metric import Metric
from rollout_client.evaluation.bucketing import cell, sketch_entry
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Arm, Frozen, RulesetMetric
from rollout_client.increments import measure

Arms = dict[Arm, ArmIncrement]
RATES = {"good": 0.02, "same": 0.1, "worse": 0.2, "awful": 0.7}
"""How often something bad happens to the candidate; to the baseline it is 0.1."""
_CELLS_USED = 64
_NAMES = [name for name in (f"someone-{number}" for number in range(20_000)) if cell(name) < _CELLS_USED]
"""Units of a quarter of the cells: a batch of many is then not much longer than one of few."""
_ENTRIES = [sketch_entry(name) for name in _NAMES]
_CELLS = np.array([cell(name) for name in _NAMES])


class Traffic(NamedTuple):
    """What came in one flush. `per_unit` requests of each unit; `share` None: as the stage says."""

    quality: str
    units: int
    per_unit: int
    arms: tuple[Arm, ...]
    missing: bool
    minutes_ago: int
    seed: int


def traffic() -> st.SearchStrategy[Traffic]:
    """Mostly both arms with much to say."""
    both: tuple[Arm, ...] = ("candidate", "baseline")
    return st.builds(
        Traffic,
        quality=st.sampled_from(["good", "good", "same", "worse", "awful"]),
        units=st.sampled_from([0, 30, 600, 3000, 3000]),
        per_unit=st.sampled_from([1, 5, 20]),
        arms=st.sampled_from([both, both, both, both, ("candidate",), ("baseline",)]),
        missing=st.sampled_from([False, False, False, True]),
        minutes_ago=st.sampled_from([0, 0, 0, 1, 5]),
        seed=st.integers(0, 2**16),
    )


def arms_of(
    seen: Traffic, percentage: float, metrics: dict[str, Metric], frozen: dict[str, Frozen], minute: int
) -> tuple[Arms, set[int]]:
    """The increments of both arms under a percentage, and the units that the candidate arm names."""
    rng = np.random.default_rng(seen.seed)
    chosen = rng.permutation(len(_NAMES))[: seen.units]
    many = round(seen.units * percentage / 100)
    of = {"candidate": chosen[:many], "baseline": chosen[many:]}
    made: Arms = {}
    for arm in seen.arms:
        first = np.bincount(_CELLS[of[arm]], minlength=_CELLS_USED)
        units = {place: count for place, count in enumerate(first.tolist()) if count}
        counts = {place: count * seen.per_unit for place, count in units.items()}
        slot = SlotIncrement(exposures=counts, first_exposures=units, started=counts)
        if counts and not seen.missing:
            bad = RATES[seen.quality] if arm == "candidate" else RATES["same"]
            for key, metric in metrics.items():
                slot.metrics[key] = _increment(metric, frozen.get(key), counts, bad, rng)
        made[arm] = ArmIncrement(
            sketch=[_ENTRIES[unit] for unit in of[arm].tolist()] if arm == "candidate" else [],
            slots={minute - seen.minutes_ago: slot} if counts else {},
        )
    return made, set(of["candidate"].tolist()) if "candidate" in made else set()


def _increment(
    metric: Metric, frozen: Frozen | None, counts: dict[int, int], bad: float, rng: np.random.Generator
) -> MetricIncrement:
    """Outcomes of every request: in each cell some are bad, the others are not."""
    served = RulesetMetric(
        kind=metric.kind, direction=metric.direction, denominator=metric.denominator, bounds=metric.bounds
    ).measured(frozen)
    worse, better = (measure(served, value) for value in _values(metric))
    increment = MetricIncrement()
    for place, failed in zip(counts, rng.binomial(list(counts.values()), bad).tolist(), strict=True):
        parts = ((worse, failed), (better, counts[place] - failed))
        increment.cells[place] = [
            sum(numbers[i] * times for (numbers, _), times in parts) for i in range(len(worse[0]))
        ]
        for (_, bucket), times in parts:
            if bucket is not None and times:
                increment.histogram[bucket] = increment.histogram.get(bucket, 0) + times
    return increment


def _values(metric: Metric) -> tuple[Any, Any]:
    """A bad observation and a good one, exact in binary."""
    match metric.kind:
        case "proportion":
            return (True, False) if metric.direction == "lower_is_better" else (False, True)
        case "count_rate":
            return (2, 1), (0, 1)
        case "ratio":
            return (4.0, 1.0), (0.5, 1.0)
    return (2.0, 4.0) if metric.direction == "higher_is_better" else (8.0, 0.5)
