"""Verdicts: what the gathered evidence says about each watched metric, and about the rollout as a whole.

`pass` opens a gate and nothing else does; every kind of missing evidence has a name of its own; nothing is a pass by
default.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import msgspec

from rollout.domain.budgets import Spending, spending_of
from rollout.domain.ceilings import is_beyond
from rollout.domain.evidence import SECONDS_PER_SLOT, Arms, Evidence, GuardrailEvidence
from rollout.domain.kinds import kind_of
from rollout.domain.kinds.value import Value
from rollout.domain.plan import Analysis, PlanBody, percentage_of, steps_of
from rollout.domain.rollout import Attempt
from rollout.domain.watch import Role, Watch
from rollout.domain.weigh import Place, at_cut, weigh
from rollout.stats.combine import e_bh, log_weighted_mean
from rollout.stats.margin import Margin
from rollout.stats.mixture import log_mixture, log_tempered, rounded
from rollout.stats.planning import units_needed
from rollout.stats.proportion import ADVANCE_WEIGHTS, ControlHistory
from rollout.stats.samples import srm_design_effect, srm_log_e
from rollout_client.evaluation.ruleset import MetricKind

Verdict = Literal["pass", "breach", "undecided", "insufficient", "no_traffic", "no_data", "stale", "error"]


class ArmNumbers(msgspec.Struct, frozen=True):
    """One arm in the running attempt: n requests and x events, or n values and their sum, or a ratio's two sums.

    Whole where they are counts. A quantile has no sum: x is 0.
    """

    n: float
    x: float


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One metric at one look: the verdict and the numbers behind it. Logs are natural, rounded to 1e-9.

    `late` counts outcomes that came after their minute was judged: shown, never bet. `awaits`: baseline outcomes still
    needed before cap and thresholds are frozen. `beyond`: shares of the candidate's and the baseline's values beyond
    `threshold`, the baseline's frozen quantile or tail. `gates`: the largest log e of each gate, where a metric has
    several. `over_ceiling`: the candidate's own level is shown to be beyond the guardrail's ceiling, whatever the
    baseline does. `spending`: of a metric with a budget. `source_error`: what its source said when it failed last.
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
    kind: MetricKind = "proportion"
    awaits: int = 0
    over_ceiling: bool = False
    threshold: float | None = None
    beyond: tuple[float, float] | None = None
    gates: dict[str, float] = {}
    spending: Spending | None = None
    source_error: str | None = None

    def amount(self, arm: ArmNumbers) -> float:
        """How much was observed in an arm: requests, values, exposure, or the denominator of a ratio."""
        return arm.x if self.kind == "ratio" else arm.n


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


class SourceFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A metric's source has failed so many times in a row; what it said last, and when."""

    times: int
    error: str
    at: datetime


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What one look is made with. `units`: candidate units of the stage; `attempt_units`: of the attempt; seconds.

    `steps` are the stages, with the bake, among which error rates are divided (0: those of the plan); `failing` the
    sources that fail, by metric.
    """

    plan: PlanBody
    watches: tuple[Watch, ...]
    attempts: tuple[Attempt, ...]
    margins: Mapping[str, Margin]
    units: int
    attempt_units: int
    now: datetime
    patience: float
    steps: int = 0
    failing: Mapping[str, SourceFailure] = {}


def judge(evidence: Evidence, look: Look) -> Judgement:
    """Readings of every watched metric; updates the running maxima inside `evidence`."""
    attempt = look.attempts[-1]
    place = _place(evidence, look)
    cuts = {watch.metric: weigh(evidence, watch, look.margins[watch.metric], place) for watch in look.watches}
    enforcing = [watch for watch in look.watches if watch.role == "guardrail"]
    log_es, combined = _combined(enforcing, cuts)
    for watch, log_e in zip(enforcing, log_es, strict=True):
        evidence.metrics[watch.metric].log_e_harm = log_e
    if enforcing and (combined > evidence.combined_max or not evidence.culprit):
        evidence.combined_max = max(evidence.combined_max, combined)
        evidence.culprit = _culprit(enforcing, log_es)
        evidence.culprits = _named(enforcing, e_bh(log_es, look.plan.analysis.alpha_rollback))
    threshold = math.log(1 / look.plan.analysis.alpha_rollback)
    breached = bool(enforcing) and evidence.combined_max >= threshold
    evidence.srm_log_e = max(evidence.srm_log_e, _sample_ratio(evidence, place.stages))
    gathered = evidence.attempts.get(attempt.id)
    exposures = gathered.exposures if gathered else {"candidate": 0, "baseline": 0}
    return Judgement(
        readings=tuple(_reading(evidence, watch, look, breached=breached) for watch in look.watches),
        combined=combined,
        combined_max=evidence.combined_max,
        breach_threshold=rounded(threshold),
        culprit=evidence.culprit if breached else None,
        culprits=evidence.culprits if breached else (),
        srm_log_e=evidence.srm_log_e,
        srm_alarm=evidence.srm_log_e >= math.log(1 / look.plan.analysis.alpha_srm),
        units=look.units,
        exposures=ArmNumbers(exposures["candidate"], exposures["baseline"]),
    )


def _combined(enforcing: Sequence[Watch], cuts: Mapping[str, Sequence[tuple[int, float]]]) -> tuple[list[float], float]:
    """Log e of each enforcing guardrail and their weighted mean, at the cut where the mean is largest.

    Open minutes are looked at up to one cut for all: a maximum for each guardrail by itself would be wrong.
    """
    if not enforcing:
        return [], 0.0
    weights = [watch.weight for watch in enforcing]
    slots = sorted({slot for watch in enforcing for slot, _ in cuts[watch.metric]})
    found = [[at_cut(cuts[watch.metric], slot) for watch in enforcing] for slot in slots]
    means = [rounded(log_weighted_mean(log_es, weights)) for log_es in found]
    best = max(range(len(slots)), key=lambda index: (means[index], -index))
    return found[best], means[best]


def _place(evidence: Evidence, look: Look) -> Place:
    attempt, analysis = look.attempts[-1], look.plan.analysis
    seen = evidence.attempts.get(attempt.id)
    requests = 0 if seen is None else max(seen.exposures["candidate"], seen.started["candidate"])
    return Place(
        attempt=attempt.id,
        stage=attempt.stage,
        stages=look.steps or steps_of(look.plan),
        units=look.attempt_units,
        requests=requests,
        alpha_rollback=analysis.alpha_rollback,
        alpha_advance=analysis.alpha_advance,
    )


def _sample_ratio(evidence: Evidence, stages: int) -> float:
    """SRM e-process: the mean over stages, since units return, each tempered by the D of its first exposures."""
    log_es = [0.0] * stages
    for stage, sample in evidence.samples.items():
        candidate, baseline = sample.counts["candidate"], sample.counts["baseline"]
        if 0 < sample.share < 1 and (candidate or baseline):
            now = srm_design_effect(sample.of("candidate").row(0), sample.of("baseline").row(0), sample.share)
            log_es[stage] = srm_log_e(candidate, baseline, sample.share) / max(sample.effect, now)
    return rounded(log_mixture(log_es, [1.0 / stages] * stages))


def _named(enforcing: Sequence[Watch], indices: Sequence[int]) -> tuple[str, ...]:
    return tuple(enforcing[i].metric for i in indices)


def _culprit(enforcing: Sequence[Watch], log_es: Sequence[float]) -> str:
    """The guardrail with the largest weighted e-value: its `on_breach` is what happens."""
    heaviest = max(range(len(enforcing)), key=lambda i: log_es[i] + math.log(enforcing[i].weight))
    return enforcing[heaviest].metric


def _reading(evidence: Evidence, watch: Watch, look: Look, *, breached: bool) -> Reading:
    mine = evidence.metrics[watch.metric]
    attempt = look.attempts[-1]
    totals = mine.totals.get(attempt.id, {})
    candidate, baseline = _numbers(totals.get("candidate", [])), _numbers(totals.get("baseline", []))
    analysis = look.plan.analysis
    gate_threshold = math.log(1 / analysis.alpha_advance)
    reading = Reading(
        metric=watch.metric,
        kind=watch.kind,
        role=watch.role,
        verdict="undecided",
        candidate=candidate,
        baseline=baseline,
        log_e_harm=mine.log_e_harm,
        harm_threshold=rounded(math.log(1 / harm_level(watch, look.watches, analysis))),
        log_e_gate=mine.log_e_gate,
        gate_threshold=rounded(gate_threshold),
        gate_margin=look.margins[watch.metric],
        design_effect=mine.design_effect,
        late=mine.late,
        units_needed=_needed(mine, watch, look, (candidate, baseline), gate_threshold),
        awaits=kind_of(watch).awaits(mine),
        threshold=mine.calibration.gate if mine.calibration is not None else None,
        beyond=_beyond(mine, watch, attempt.id),
        gates=_gates(mine, watch),
        over_ceiling=is_beyond(mine.ceiling),
        spending=spending_of(mine, watch, attempt.stage, look.now),
        source_error=_source_error(mine, watch, look),
    )
    return msgspec.structs.replace(reading, verdict=_verdict(reading, watch, evidence, look, breached=breached))


def _gates(mine: GuardrailEvidence, watch: Watch) -> dict[str, float]:
    kind = kind_of(watch)
    names = kind.test.gates if isinstance(kind, Value) else ()
    return dict(zip(names, mine.gate_best, strict=False)) if len(names) > 1 else {}


def _beyond(mine: GuardrailEvidence, watch: Watch, attempt: str) -> tuple[float, float] | None:
    """Shares beyond the frozen threshold, the last score of a value's cells; None before clients count them."""
    kind = kind_of(watch)
    if not isinstance(kind, Value) or not kind.watches_threshold:
        return None
    arms = mine.cells.get(attempt, Arms())
    n_t, n_c = arms.candidate.cells.total(0), arms.baseline.cells.total(0)
    if not (n_t and n_c):
        return None
    return rounded(arms.candidate.cells.total(-1) / n_t), rounded(arms.baseline.cells.total(-1) / n_c)


def _numbers(totals: Sequence[float]) -> ArmNumbers:
    """Whole numbers where they are whole."""
    n, x = (*totals, 0, 0)[:2]
    return ArmNumbers(*(int(value) if value == int(value) else rounded(value) for value in (n, x)))


def _verdict(reading: Reading, watch: Watch, evidence: Evidence, look: Look, *, breached: bool) -> Verdict:
    mine = evidence.metrics[watch.metric]
    attempt = evidence.attempts.get(look.attempts[-1].id)
    now = look.now.timestamp()
    awaited = watch.maturity + SECONDS_PER_SLOT if watch.maturity else 0.0
    if (breached and reading.role == "guardrail" and reading.log_e_harm >= reading.harm_threshold) or (
        reading.role != "guardrail" and reading.log_e_harm >= reading.harm_threshold
    ):
        return "breach"
    if reading.source_error is not None:
        return "error"
    if attempt is None or not sum(attempt.exposures.values()):
        return "no_traffic"
    seen = [reading.amount(arm) > 0 for arm in (reading.candidate, reading.baseline)]
    if not any(seen):
        not_due_yet = now - look.attempts[-1].opened_at.timestamp() <= awaited + SECONDS_PER_SLOT
        return "insufficient" if not_due_yet else "no_data"
    if not all(seen) or reading.awaits:
        return "insufficient"
    if now - mine.seen_at > look.patience + awaited:
        return "stale" if now - evidence.exposed_at <= look.patience else "no_traffic"
    return "pass" if reading.log_e_gate >= reading.gate_threshold else "undecided"


def _source_error(mine: GuardrailEvidence, watch: Watch, look: Look) -> str | None:
    """What the metric's source says, once it has failed as often in a row as the guardrail tolerates.

    Outcomes that came since speak for themselves.
    """
    failing = look.failing.get(watch.metric)
    if failing is None or failing.times < watch.error_limit or failing.at.timestamp() < mine.seen_at:
        return None
    return failing.error


def harm_level(watch: Watch, watched: Sequence[Watch], analysis: Analysis) -> float:
    """The level at which this guardrail alone carries the weighted mean: alpha times its share of the weights."""
    if watch.role != "guardrail":
        return analysis.alpha_rollback
    share = watch.weight / sum(other.weight for other in watched if other.role == "guardrail")
    return analysis.alpha_rollback * share


def _needed(
    mine: GuardrailEvidence, watch: Watch, look: Look, arms: tuple[ArmNumbers, ArmNumbers], threshold: float
) -> float | None:
    """Candidate requests that the gate still needs: from rates where those say it all, else at the pace so far."""
    attempt = look.attempts[-1]
    candidate, baseline = arms
    share = percentage_of(look.plan, attempt.stage) / 100
    if not baseline.n or share >= 1 or mine.log_e_gate >= threshold:
        return None
    if watch.kind != "proportion":
        if mine.log_e_gate <= 0.0:
            return None
        observed = candidate.x if watch.kind == "ratio" else candidate.n
        return _about(observed * (threshold - mine.log_e_gate) / mine.log_e_gate)
    rate = ControlHistory(*mine.history).guess.mean if mine.history is not None else 0.0
    present = log_tempered(mine.gate, ADVANCE_WEIGHTS, mine.design_effect) if mine.gate else 0.0
    needed = units_needed(present, threshold, rate, look.margins[watch.metric], watch.direction, share)
    return None if needed is None else _about(needed * mine.design_effect)


def _about(requests: float) -> float:
    """Six digits: it is an estimate, found by a search whose last digits are not those of another CPU."""
    return float(f"{requests:.6g}")
