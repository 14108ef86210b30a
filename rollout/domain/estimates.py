"""Estimates that people read beside a verdict: how large the effect is, how sure, and whom it has hurt so far.

Made when somebody asks, from the totals that the evidence keeps; no decision reads them. The harm side of an interval
is shown at alpha_rollback times the guardrail's share of the weights, the gate side at alpha_advance, and where a
sharper e-process has decided about the same quantity, the interval agrees with it
(`rollout.stats.interval.consistent`). Rates cover the present epoch, means and ratios the present attempt.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from rollout.domain.evidence import ARMS, Arms, GuardrailEvidence
from rollout.domain.judge import Reading
from rollout.domain.kinds.ratio import attempt_cells
from rollout.domain.watch import Watch
from rollout.stats.interval import (
    Form,
    Interval,
    Levels,
    Stratum,
    consistent,
    effect_estimate,
    effect_interval,
    harmed_units,
    proportion_interval,
)
from rollout.stats.interval_of_means import (
    MeansStratum,
    difference_of_means_interval,
    mean_interval,
    ratio_of_means_interval,
)
from rollout.stats.margin import Margin, null_line
from rollout.stats.normal import Moments
from rollout.stats.ratio import estimate
from rollout_client.evaluation.ruleset import Arm

DIGITS = 9
DECIDED_BY_WHAT_IS_SHOWN = ("proportion", "count_rate", "ratio")
"""Of values the uncapped mean is shown, and capped means, quantiles and tails decide: their interval is left alone."""
PARTS = 100.0
"""A rate is shown like a proportion of so small parts of exposure that one in a hundred or fewer has an event."""


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """An estimate with its time-uniform interval; null where an end is unbounded or nothing is known."""

    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None


class Estimates(msgspec.Struct, frozen=True, kw_only=True):
    """One metric in numbers.

    `form` of `effect`: "ratio" is candidate / baseline, "difference" candidate - baseline, as the margin is written.
    `accepted` is the line in that form: beyond it lies harm, within it a gate passes. `candidate` and `baseline` are
    levels in the present attempt: a rate, a mean, or for a quantile the share beyond the frozen `threshold`.
    `harmed_units`: about how many units met an event that the baseline would have spared them.
    """

    metric: str
    form: Form
    effect: Range
    accepted: float
    candidate: Range
    baseline: Range
    threshold: float | None = None
    harmed_units: float | None = None


class Audience(msgspec.Struct, frozen=True, kw_only=True):
    """Who reads: the levels of both sides, and how many units have had the candidate."""

    alpha_harm: float
    alpha_gate: float
    units: int


class ShownEffect(NamedTuple):
    """An effect in its form, its interval, and the levels of the lower and the upper end."""

    form: Form
    estimate: float | None
    interval: Interval | None
    levels: Levels


def estimates_of(mine: GuardrailEvidence, watch: Watch, reading: Reading, audience: Audience) -> Estimates:
    """The estimates of one metric as its evidence stands."""
    form, estimate, interval, _ = effect_of(mine, watch, reading, Levels(audience.alpha_harm, audience.alpha_gate))
    candidate, baseline = (_level(mine, watch, arm, audience.alpha_gate) for arm in ARMS)
    return Estimates(
        metric=watch.metric,
        form=form,
        effect=_range(estimate, interval),
        accepted=round(_line(watch.margin, watch, form), DIGITS),
        candidate=candidate,
        baseline=baseline,
        threshold=mine.calibration.gate if watch.focus is not None and mine.calibration is not None else None,
        harmed_units=_harmed(mine, watch, audience.units),
    )


def effect_of(mine: GuardrailEvidence, watch: Watch, reading: Reading, alphas: Levels) -> ShownEffect:
    """The size of one metric's change and its interval, agreeing with what was decided; `alphas` of (harm, gate)."""
    form: Form = "ratio" if watch.margin.relative else "difference"
    levels = alphas if watch.direction == "lower_is_better" else Levels(alphas.upper, alphas.lower)
    estimate, interval = _effect(mine, watch, form, levels)
    if interval is not None and watch.kind in DECIDED_BY_WHAT_IS_SHOWN:
        interval = consistent(
            interval,
            _line(watch.harm_margin, watch, form),
            reading.log_e_harm >= reading.harm_threshold,
            reading.log_e_gate >= reading.gate_threshold,
            watch.direction,
            _line(reading.gate_margin, watch, form),
        )
    if estimate is not None and interval is not None:  # attempts that differ much can leave it outside
        estimate = min(max(estimate, interval.lower), interval.upper)
    return ShownEffect(form, estimate, interval, levels)


def _line(margin: Margin, watch: Watch, form: Form) -> float:
    """The line of a margin in a form; one of size 0 is equality in either."""
    if margin.size == 0.0:
        return 1.0 if form == "ratio" else 0.0
    line = null_line(margin, watch.direction)
    return line.ratio if form == "ratio" else line.difference


def _effect(mine: GuardrailEvidence, watch: Watch, form: Form, levels: Levels) -> tuple[float | None, Interval | None]:
    match watch.kind:
        case "proportion" | "count_rate":
            strata, scale = _strata(mine, watch)
            estimate, interval = (
                effect_estimate(strata, form),
                effect_interval(strata, form, levels, mine.design_effect),
            )
            if form == "ratio":
                return estimate, interval
            return None if estimate is None else estimate * scale, Interval(*(end * scale for end in interval))
        case "quantile":
            return None, None
        case "mean" | "distribution" | "ratio":
            return _effect_on_means(_means(mine, watch), form, levels, watch)


def _effect_on_means(
    strata: Sequence[MeansStratum], form: Form, levels: Levels, watch: Watch
) -> tuple[float | None, Interval | None]:
    interval = difference_of_means_interval if form == "difference" else ratio_of_means_interval
    found = interval(strata[-1:], levels, watch.margin.size) if strata else None
    if found is None:
        return None, None
    mean_t, mean_c = (_mean_of(arm) for arm in (strata[-1].candidate, strata[-1].baseline))
    return (mean_t - mean_c if form == "difference" else mean_t / mean_c), found


def _strata(mine: GuardrailEvidence, watch: Watch) -> tuple[list[Stratum], float]:
    """Totals by attempt as whole counts, and what one of these parts of exposure is worth."""
    pairs = [tuple(_pair(totals, arm) for arm in ARMS) for totals in mine.totals.values()]
    if watch.kind == "proportion":
        return [Stratum(int(t[0]), int(t[1]), int(c[0]), int(c[1])) for t, c in pairs], 1.0
    exposure = sum(arm[0] for pair in pairs for arm in pair)
    events = sum(arm[1] for pair in pairs for arm in pair)
    scale = PARTS * max(events, 1.0) / exposure if exposure else 1.0
    strata = [
        Stratum(math.ceil(t[0] * scale), round(t[1]), math.ceil(c[0] * scale), round(c[1]))
        for t, c in pairs
        if all(round(arm[1]) <= math.ceil(arm[0] * scale) for arm in (t, c))
    ]
    return strata, scale


def _means(mine: GuardrailEvidence, watch: Watch) -> list[MeansStratum]:
    """Moments by attempt; a ratio's are made to have its mean and its variance between cells."""
    if watch.kind == "ratio":
        arms = attempt_cells(mine, mine.gate_attempt)
        found = [estimate(cells) for cells in arms]
        if not all(math.isfinite(arm.variance) and arm.cells > 1 for arm in found):
            return []
        candidate, baseline = (_moments(arm.cells, arm.ratio, arm.variance) for arm in found)
        return [MeansStratum(candidate, baseline)]
    strata = []
    for totals in mine.totals.values():
        t, c = (totals.get(arm, []) for arm in ARMS)
        if len(t) >= 3 and len(c) >= 3 and min(t[0], c[0]) > 1:
            strata.append(MeansStratum(Moments(*t[:3]), Moments(*c[:3]), mine.design_effect))
    return strata


def _moments(clusters: int, mean: float, variance: float) -> Moments:
    return Moments(clusters, clusters * mean, (clusters - 1) * clusters * variance + clusters * mean * mean)


def _mean_of(arm: Moments) -> float:
    return float(np.asarray(arm.total) / np.asarray(arm.n))


def _level(mine: GuardrailEvidence, watch: Watch, arm: Arm, alpha: float) -> Range:
    """The arm's own level in the present attempt."""
    n, x = _pair(mine.totals.get(mine.gate_attempt, {}), arm)
    match watch.kind:
        case "proportion":
            return _share(int(x), int(n), alpha, mine.design_effect)
        case "quantile":
            cells = mine.cells.get(mine.gate_attempt, Arms()).of(arm).cells
            return _share(int(cells.total(-1)), int(cells.total(0)), alpha, mine.design_effect)
        case "count_rate":
            parts = math.ceil(PARTS * max(x, 1.0))
            shown = _share(round(x), parts, alpha, mine.design_effect) if n else Range()
            return _range(x / n if n else None, _scaled(shown, parts / n if n else 1.0))
        case "mean" | "distribution" | "ratio":
            return _mean(mine, watch, arm, alpha)


def _mean(mine: GuardrailEvidence, watch: Watch, arm: Arm, alpha: float) -> Range:
    strata = _means(mine, watch)
    if not strata or (watch.kind != "ratio" and not mine.totals.get(mine.gate_attempt)):
        return Range()
    moments = strata[-1].candidate if arm == "candidate" else strata[-1].baseline
    return _range(_mean_of(moments), mean_interval(moments, alpha, strata[-1].effect))


def _share(x: int, n: int, alpha: float, effect: float) -> Range:
    return _range(x / n, proportion_interval(x, n, alpha, effect)) if n else Range()


def _scaled(shown: Range, factor: float) -> Interval | None:
    if shown.lower is None or shown.upper is None:
        return None
    return Interval(shown.lower * factor, shown.upper * factor)


def _harmed(mine: GuardrailEvidence, watch: Watch, units: int) -> float | None:
    """Of a proportion: the excess of bad events among the candidate's requests, in units."""
    if watch.kind != "proportion":
        return None
    strata, _ = _strata(mine, watch)
    difference = effect_estimate(strata, "difference")
    requests = sum(stratum.n_t for stratum in strata)
    if difference is None or not requests:
        return None
    excess = difference if watch.direction == "lower_is_better" else -difference
    p_t = min(1.0, max(excess, 0.0))
    return round(harmed_units(units, max(requests, units), p_t, 0.0, mine.design_effect), 1)


def _pair(totals: Mapping[Arm, Sequence[float]], arm: Arm) -> tuple[float, float]:
    n, x = (*totals.get(arm, ()), 0.0, 0.0)[:2]
    return n, x


def _range(estimate: float | None, interval: Interval | None) -> Range:
    ends = (None, None) if interval is None else interval
    return Range(estimate=_finite(estimate), lower=_finite(ends[0]), upper=_finite(ends[1]))


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, DIGITS)
