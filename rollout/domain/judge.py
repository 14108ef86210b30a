"""Verdicts: what the gathered evidence says about each watched metric, and about the rollout as a whole.

`pass` opens a gate and nothing else does; every kind of missing evidence has a name of its own; nothing is a pass by
default.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from rollout.domain.evidence import SECONDS_PER_SLOT, ArmCells, Evidence, GuardrailEvidence, totals
from rollout.domain.plan import Analysis, PlanBody, percentage_of
from rollout.domain.rollout import Attempt
from rollout.domain.watch import Role, Watch
from rollout.stats.combine import e_bh, log_late_start, log_weighted_mean
from rollout.stats.design_effect import ArmsCells, design_effect
from rollout.stats.margin import Margin
from rollout.stats.mixture import log_tempered, rounded
from rollout.stats.planning import units_needed
from rollout.stats.proportion import ADVANCE_WEIGHTS, HARM_WEIGHTS, ControlHistory
from rollout.stats.samples import srm_design_effect, srm_log_e

Verdict = Literal["pass", "breach", "undecided", "insufficient", "no_traffic", "no_data", "stale", "error"]


ENOUGH_EVENTS = 10
"""Effective events, and non-events, that an arm needs before its cells can tell how outcomes cluster."""


class ArmNumbers(msgspec.Struct, frozen=True):
    """Requests and counted events of one arm in the running attempt."""

    n: int
    x: int


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One metric at one look: the verdict and the numbers behind it. Logs are natural, rounded to 1e-9.

    `late` counts outcomes that came after their minute was judged: shown, never bet.
    """

    metric: str
    role: Role
    verdict: Verdict
    candidate: ArmNumbers
    baseline: ArmNumbers
    log_e_harm: float
    harm_threshold: float
    log_e_gate: float
    gate_threshold: float
    gate_margin: Margin
    design_effect: float
    units_needed: float | None = None
    late: int = 0


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """All readings of one look, and what they say together.

    `combined_max` is the running maximum of the weighted mean of the enforcing guardrails (log); at or above
    `breach_threshold` = log(1 / alpha_rollback) it is a breach. `culprit` names the guardrail whose action applies.
    """

    readings: tuple[Reading, ...]
    combined: float
    combined_max: float
    breach_threshold: float
    culprit: str | None
    culprits: tuple[str, ...]
    srm_log_e: float
    srm_alarm: bool
    units: int
    exposures: ArmNumbers

    @property
    def breached(self) -> bool:
        """Harm beyond what the plan accepts is proven."""
        return self.culprit is not None


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What one look is made with. `units`: candidate units of the stage; `attempt_units`: of the attempt; seconds."""

    plan: PlanBody
    watches: tuple[Watch, ...]
    attempts: tuple[Attempt, ...]
    margins: Mapping[str, Margin]
    units: int
    attempt_units: int
    now: datetime
    patience: float


def judge(evidence: Evidence, look: Look) -> Judgement:
    """Readings of every watched metric; updates the running maxima inside `evidence`."""
    attempt = look.attempts[-1]
    for watch in look.watches:
        _weigh(evidence.metrics.setdefault(watch.metric, GuardrailEvidence()), look, attempt)
    enforcing = [watch for watch in look.watches if watch.role == "guardrail"]
    log_es = [evidence.metrics[watch.metric].log_e_harm for watch in enforcing]
    combined = rounded(log_weighted_mean(log_es, [watch.weight for watch in enforcing])) if enforcing else 0.0
    evidence.combined_max = max(evidence.combined_max, combined)
    threshold = math.log(1 / look.plan.analysis.alpha_rollback)
    breached = bool(enforcing) and evidence.combined_max >= threshold
    evidence.srm_log_e = max(evidence.srm_log_e, _sample_ratio(evidence))
    gathered = evidence.attempts.get(attempt.id)
    exposures = gathered.exposures if gathered else {"candidate": 0, "baseline": 0}
    return Judgement(
        readings=tuple(_reading(evidence, watch, look, breached=breached) for watch in look.watches),
        combined=combined,
        combined_max=evidence.combined_max,
        breach_threshold=rounded(threshold),
        culprit=_culprit(enforcing, log_es) if breached else None,
        culprits=_named(enforcing, e_bh(log_es, look.plan.analysis.alpha_rollback)) if breached else (),
        srm_log_e=evidence.srm_log_e,
        srm_alarm=evidence.srm_log_e >= math.log(1 / look.plan.analysis.alpha_srm),
        units=look.units,
        exposures=ArmNumbers(exposures["candidate"], exposures["baseline"]),
    )


def _weigh(mine: GuardrailEvidence, look: Look, attempt: Attempt) -> None:
    """Log e-values from the log wealth: tempered by the design effect, mixed over bets, harm also over start stages."""
    pool = [_arms(cells) for cells in mine.cells.values()]
    mine.design_effect = rounded(design_effect(pool)) if pool else 1.0
    stages = len(look.plan.stages) + (look.plan.bake is not None)
    starts = []
    for first in sorted(mine.harm):
        wealth = [sum(column) for column in zip(*(v for s, v in mine.harm.items() if s >= first), strict=True)]
        starts.append((first, log_tempered(wealth, HARM_WEIGHTS, mine.design_effect)))
    mine.log_e_harm = rounded(log_late_start(_by_start(starts, attempt.stage), stages)) if starts else 0.0
    own = mine.cells.get(attempt.id)
    if mine.gate_attempt == attempt.id and mine.gate and own is not None:
        gate = log_tempered(mine.gate, ADVANCE_WEIGHTS, _gate_effect(mine, own, look))
        mine.log_e_gate = max(mine.log_e_gate, rounded(gate))


def _gate_effect(mine: GuardrailEvidence, own: ArmCells, look: Look) -> float:
    """What the gate's log e is divided by: never less than what the attempt or the whole rollout shows.

    Few events cannot show how they cluster: with sticky units that always or never fail, an attempt without a failure
    looks like no clustering at all. Until both arms hold enough *effective* events and non-events (counted in units,
    not in requests), every request of a unit is taken to repeat its first: D is at least the requests per unit.
    """
    effect = max(design_effect([_arms(own)]), mine.design_effect)
    arms = [totals(own.candidate), totals(own.baseline)]
    per_unit = max(1.0, arms[0][0] / max(1, look.attempt_units))
    fewest = min(min(x, n - x) for n, x in arms) / per_unit
    return effect if fewest >= ENOUGH_EVENTS else max(effect, per_unit)


def _by_start(starts: Sequence[tuple[int, float]], stage: int) -> list[float]:
    """Log e of the process that started at each stage so far; one without any bet since its start stands at 0."""
    known = dict(starts)
    result: list[float] = []
    for first in range(stage + 1):
        later = [s for s in known if s >= first]
        result.append(known[min(later)] if later else 0.0)
    return result


def _sample_ratio(evidence: Evidence) -> float:
    """SRM e-process: product over attempts, each tempered by the design effect of its first exposures."""
    total = 0.0
    for attempt in evidence.attempts.values():
        candidate = {cell: counts[0] for cell, counts in attempt.first.candidate.items()}
        baseline = {cell: counts[0] for cell, counts in attempt.first.baseline.items()}
        if 0 < attempt.share < 1 and (candidate or baseline):
            effect = srm_design_effect(candidate, baseline, attempt.share)
            total += srm_log_e(sum(candidate.values()), sum(baseline.values()), attempt.share) / effect
    return rounded(total)


def _named(enforcing: Sequence[Watch], indices: Sequence[int]) -> tuple[str, ...]:
    return tuple(enforcing[i].metric for i in indices)


def _culprit(enforcing: Sequence[Watch], log_es: Sequence[float]) -> str:
    """The guardrail with the largest weighted e-value: its `on_breach` is what happens."""
    heaviest = max(range(len(enforcing)), key=lambda i: log_es[i] + math.log(enforcing[i].weight))
    return enforcing[heaviest].metric


def _reading(evidence: Evidence, watch: Watch, look: Look, *, breached: bool) -> Reading:
    mine = evidence.metrics[watch.metric]
    attempt = look.attempts[-1]
    own = mine.cells.get(attempt.id, ArmCells())
    candidate, baseline = ArmNumbers(*totals(own.candidate)), ArmNumbers(*totals(own.baseline))
    analysis = look.plan.analysis
    gate_threshold = math.log(1 / analysis.alpha_advance)
    reading = Reading(
        metric=watch.metric,
        role=watch.role,
        verdict="undecided",
        candidate=candidate,
        baseline=baseline,
        log_e_harm=mine.log_e_harm,
        harm_threshold=rounded(_own_harm_threshold(watch, look.watches, analysis)),
        log_e_gate=mine.log_e_gate,
        gate_threshold=rounded(gate_threshold),
        gate_margin=look.margins[watch.metric],
        design_effect=mine.design_effect,
        late=mine.late,
        units_needed=_needed(mine, watch, look, baseline, gate_threshold),
    )
    return msgspec.structs.replace(reading, verdict=_verdict(reading, watch, evidence, look, breached=breached))


def _verdict(reading: Reading, watch: Watch, evidence: Evidence, look: Look, *, breached: bool) -> Verdict:
    mine = evidence.metrics[watch.metric]
    attempt = evidence.attempts.get(look.attempts[-1].id)
    now = look.now.timestamp()
    awaited = watch.maturity + SECONDS_PER_SLOT if watch.maturity else 0.0
    if (breached and reading.role == "guardrail" and reading.log_e_harm >= reading.harm_threshold) or (
        reading.role != "guardrail" and reading.log_e_harm >= reading.harm_threshold
    ):
        return "breach"
    if attempt is None or not sum(attempt.exposures.values()):
        return "no_traffic"
    if not reading.candidate.n and not reading.baseline.n:
        not_due_yet = awaited and now - look.attempts[-1].opened_at.timestamp() <= awaited + SECONDS_PER_SLOT
        return "insufficient" if not_due_yet else "no_data"
    if not reading.candidate.n or not reading.baseline.n:
        return "insufficient"
    if now - mine.seen_at > look.patience + awaited:
        return "stale" if now - evidence.exposed_at <= look.patience else "no_traffic"
    return "pass" if reading.log_e_gate >= reading.gate_threshold else "undecided"


def _own_harm_threshold(watch: Watch, watches: Sequence[Watch], analysis: Analysis) -> float:
    """Evidence at which this guardrail alone carries the weighted mean: log(1 / (alpha * share of the weights))."""
    if watch.role != "guardrail":
        return math.log(1 / analysis.alpha_rollback)
    share = watch.weight / sum(other.weight for other in watches if other.role == "guardrail")
    return math.log(1 / (analysis.alpha_rollback * share))


def _needed(mine: GuardrailEvidence, watch: Watch, look: Look, baseline: ArmNumbers, threshold: float) -> float | None:
    attempt = look.attempts[-1]
    share = percentage_of(look.plan, attempt.stage) / 100
    if not baseline.n or share >= 1 or mine.log_e_gate >= threshold:
        return None
    rate = ControlHistory(*mine.history).guess.mean
    present = log_tempered(mine.gate, ADVANCE_WEIGHTS, mine.design_effect) if mine.gate else 0.0
    needed = units_needed(present, threshold, rate, look.margins[watch.metric], watch.direction, share)
    return None if needed is None else needed * mine.design_effect


def _arms(cells: ArmCells) -> ArmsCells:
    return ArmsCells(
        candidate={cell: (counts[0], counts[1]) for cell, counts in cells.candidate.items()},
        baseline={cell: (counts[0], counts[1]) for cell, counts in cells.baseline.items()},
    )
