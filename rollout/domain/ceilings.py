"""Absolute ceilings: the candidate's own level against a fixed line, so that an outage of both arms holds too.

A ceiling only ever holds, and lets go by itself when the level is good again (`rollout.stats.ceiling`).
"""

import numpy as np

from rollout.domain.evidence import ArmSums, GuardrailEvidence, added
from rollout.domain.watch import Watch
from rollout.stats.ceiling import FRESH, Ceiling, Levels, ceiling_log_factors, is_exceeded, restarted
from rollout.stats.count_rate import Exposed
from rollout.stats.histogram import Histogram
from rollout.stats.margin import Direction
from rollout.stats.mixture import rounded
from rollout.stats.proportion import Counts
from rollout.stats.values import grid_of

ALPHA = 1e-6
"""Looks between false alarms are a million on average, on the ceiling itself: twelve days of one look each second."""
CAP_OVER_CEILING = 4.0
"""A mean is capped at four times its ceiling: one request that costs a thousand times the usual is no outage."""


def watch_ceiling(mine: GuardrailEvidence, watch: Watch, candidate: ArmSums) -> None:
    """Take the candidate's fresh outcomes of the present attempt into the detector."""
    if watch.ceiling is None:
        return
    if watch.kind == "count_rate":
        candidate = _with_exposure(mine, candidate)
    mine.ceiling = observe_level(mine, watch, candidate, (watch.ceiling, watch.focus), mine.ceiling)


def observe_level(
    mine: GuardrailEvidence, watch: Watch, candidate: ArmSums, limit: tuple[float, float | None], wealth: list[float]
) -> list[float]:
    """The detector's wealth after fresh outcomes; `limit` is (level, which quantile it limits, None for a mean)."""
    observed, ceiling = _observed(watch, candidate, limit)
    if observed is None:
        return wealth
    factors = ceiling_log_factors(observed, ceiling) / mine.design_effect
    return [rounded(value) for value in restarted(wealth or FRESH, factors, ALPHA)]


def is_beyond(wealth: list[float]) -> bool:
    """Whether the level is shown to be beyond its limit now."""
    return bool(wealth) and is_exceeded(wealth, ALPHA)


def _with_exposure(mine: GuardrailEvidence, arm: ArmSums) -> ArmSums:
    """Events that came without exposure wait for it: by themselves they would look like an outage."""
    mine.uncovered = added(mine.uncovered, arm.totals)
    if not mine.uncovered or not mine.uncovered[0]:
        return ArmSums()
    totals, mine.uncovered = mine.uncovered, []
    return ArmSums(totals=totals)


def _observed(
    watch: Watch, arm: ArmSums, limit: tuple[float, float | None]
) -> tuple[Counts | Levels | Exposed | None, Ceiling]:
    level, focus = limit
    ceiling = Ceiling(level, watch.direction)
    if watch.kind == "proportion":
        return (Counts(int(arm.totals[0]), int(arm.totals[1])) if arm.totals else None), ceiling
    if watch.kind == "count_rate":
        return (Exposed(float(arm.totals[0]), float(arm.totals[1])) if arm.totals else None), ceiling
    if not arm.histogram:
        return None, ceiling
    histogram = Histogram.of(grid_of(watch.bounds), arm.histogram)
    if focus is None:
        return _levels(histogram, watch, level), Ceiling(level - histogram.grid.floor, watch.direction)
    beyond = float(histogram.beyond([level], watch.direction)[0])
    return Counts(int(histogram.n), int(beyond)), Ceiling(_share(focus, watch.direction), "lower_is_better")


def _levels(histogram: Histogram, watch: Watch, level: float) -> Levels:
    floor = histogram.grid.floor
    cap = CAP_OVER_CEILING * level if watch.bounds is None else watch.bounds[1] - floor
    return Levels(np.maximum(histogram.values - floor, 0.0), histogram.counts, cap)


def _share(focus: float, direction: Direction) -> float:
    """The share that may lie beyond a quantile: 5 % above a p95, 5 % below a p5 that should be high."""
    return 1.0 - focus if direction == "lower_is_better" else focus
