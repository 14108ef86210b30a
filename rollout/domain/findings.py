"""The verdicts of one look as a transition keeps them: each metric's numbers, and the sentence they make.

A pure function of what a look recorded, so a replay gets the same bytes. No decision reads it, and what cannot be
computed here is left out: an explanation must never stand in the way of what it explains.
"""

from collections.abc import Mapping

import msgspec

from rollout.domain.estimates import effect_of
from rollout.domain.evidence import ARMS, Arms, Evidence, GuardrailEvidence
from rollout.domain.explain import Effect, Lines, whole_sentence
from rollout.domain.judge import ArmNumbers, Judgement, Reading, Verdict, harm_level
from rollout.domain.metric import Metric
from rollout.domain.plan import RolloutDocument
from rollout.domain.watch import Role, Watch, watches
from rollout.stats.interval import Interval, Levels, Stratum, effect_estimate, effect_interval
from rollout.stats.mixture import rounded

DIGITS = 6
"""Significant digits of an effect. Its ends are searched to five or better, and another CPU differs in the last bit."""


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """One arm in the attempt: `n` requests, values or exposure, and the rate, mean or ratio that they have.

    `level` of a quantile is the share of values beyond the baseline's frozen quantile; null before there is any.
    """

    n: float
    level: float | None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict on one metric: one sentence for people, and the same in numbers for programs.

    `tick` is the look that read it. `effect` null: its size was not computed. `needed`: about how many more candidate
    requests the gate takes, `awaits`: baseline outcomes until its thresholds are frozen. Logs are natural.
    """

    metric: str
    role: Role
    verdict: Verdict
    sentence: str
    tick: int
    candidate: Observed
    baseline: Observed
    effect: Effect | None
    lines: Lines
    log_e_harm: float
    harm_threshold: float
    log_e_gate: float
    gate_threshold: float
    design_effect: float
    needed: float | None
    awaits: int


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded look; `evidence` None leaves the sizes of the effects out, and costs no statistic."""

    judgement: Judgement
    tick: int
    evidence: Evidence | None = None


def findings(plan: RolloutDocument, metrics: Mapping[str, Metric], look: Recorded) -> tuple[Finding, ...]:
    """The verdicts of a look, in the order of the plan.

    Any version of the plan will do: what is watched and its margins stay for the life of a started rollout.
    """
    watched = watches(plan, metrics)
    readings = {reading.metric: reading for reading in look.judgement.readings}
    found = []
    for watch in watched:
        reading = readings.get(watch.metric)
        if reading is None:
            continue
        mine = None if look.evidence is None else look.evidence.metrics.get(watch.metric)
        alphas = Levels(harm_level(watch, watched, plan.analysis), plan.analysis.alpha_advance)
        effect = None if mine is None else _effect(mine, watch, reading, alphas)
        found.append(_finding(watch, reading, effect, look))
    return tuple(found)


def _finding(watch: Watch, reading: Reading, effect: Effect | None, look: Recorded) -> Finding:
    lines = Lines(direction=watch.direction, rollback=watch.harm_margin, gate=reading.gate_margin)
    return Finding(
        metric=watch.metric,
        role=watch.role,
        verdict=reading.verdict,
        sentence=whole_sentence(reading, lines, effect, look.judgement.exposures),
        tick=look.tick,
        candidate=_observed(reading, reading.candidate, 0),
        baseline=_observed(reading, reading.baseline, 1),
        effect=effect,
        lines=lines,
        log_e_harm=reading.log_e_harm,
        harm_threshold=reading.harm_threshold,
        log_e_gate=reading.log_e_gate,
        gate_threshold=reading.gate_threshold,
        design_effect=reading.design_effect,
        needed=reading.units_needed,
        awaits=reading.awaits,
    )


def _observed(reading: Reading, arm: ArmNumbers, place: int) -> Observed:
    amount = float(reading.amount(arm))  # read back from the record it is none but a float
    if reading.kind == "quantile":
        return Observed(n=amount, level=None if reading.beyond is None else reading.beyond[place])
    total = arm.n if reading.kind == "ratio" else arm.x
    return Observed(n=amount, level=rounded(total / amount) if amount else None)


def _effect(mine: GuardrailEvidence, watch: Watch, reading: Reading, alphas: Levels) -> Effect | None:
    try:
        return _of_shares(mine, watch, alphas) if watch.kind == "quantile" else _of_levels(mine, watch, reading, alphas)
    except Exception:  # whatever is wrong with an interval, the decision stands and is recorded
        return None


def _of_levels(mine: GuardrailEvidence, watch: Watch, reading: Reading, alphas: Levels) -> Effect:
    form, estimate, interval, levels = effect_of(mine, watch, reading, alphas)
    lower, upper = interval if interval is not None else (None, None)
    widest: tuple[float | None, float | None]
    widest = (0.0, float("inf")) if form == "ratio" else (-1.0, 1.0) if watch.kind == "proportion" else (None, None)
    return Effect(
        form=form,
        estimate=_said(estimate),
        lower=None if lower == widest[0] else _said(lower),
        upper=None if upper == widest[1] else _said(upper),
        alpha_lower=rounded(levels.lower),
        alpha_upper=rounded(levels.upper),
    )


def _of_shares(mine: GuardrailEvidence, watch: Watch, alphas: Levels) -> Effect:
    """Of a quantile: the difference of the shares of values beyond the baseline's frozen one, in this attempt."""
    levels = alphas if watch.direction == "lower_is_better" else Levels(alphas.upper, alphas.lower)
    arms = mine.cells.get(mine.gate_attempt, Arms())
    (n_t, x_t), (n_c, x_c) = ((int(arms.of(a).cells.total(0)), int(arms.of(a).cells.total(-1))) for a in ARMS)
    strata = [Stratum(n_t, x_t, n_c, x_c)]
    lower, upper = effect_interval(strata, "difference", levels, mine.design_effect) if n_t and n_c else Interval(-1, 1)
    return Effect(
        form="share_beyond",
        estimate=_said(effect_estimate(strata, "difference")),
        lower=None if lower == -1.0 else _said(lower),
        upper=None if upper == 1.0 else _said(upper),
        alpha_lower=rounded(levels.lower),
        alpha_upper=rounded(levels.upper),
    )


def _said(value: float | None) -> float | None:
    """To the precision that a replay repeats; None for what is no number."""
    if value is None or value in (float("inf"), float("-inf")) or value != value:
        return None
    return float(f"{value:.{DIGITS}g}") + 0.0
