"""From log wealth to log e: tempered by the design effect, mixed over bets, harm also over the stages it starts in."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from rollout.domain.evidence import ARMS, Arms, Evidence, GuardrailEvidence
from rollout.domain.former import pooled
from rollout.domain.in_flight import Open, looks_ahead, open_minutes
from rollout.domain.kinds import Kind, kind_of
from rollout.domain.kinds.ratio import attempt_cells, stage_cells
from rollout.domain.watch import Watch
from rollout.stats.combine import log_late_start
from rollout.stats.design_effect import Clusters, design_effects, requests_per_unit
from rollout.stats.in_flight import wealth_by_cut
from rollout.stats.margin import Margin
from rollout.stats.mixture import LOG_DECIMALS, log_tempered, rounded
from rollout.stats.ratio import advance_log_e, harm_log_e, merge_stages

Floats = NDArray[np.float64]

ENOUGH_EVENTS = 30
"""Cells that an arm's events, and its non-events, must rest on before they can tell how outcomes cluster."""
COVERED = 0.5
"""Part of the outcomes that must have cells: clients count by thresholds only once they have heard of them."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a rollout is: its present attempt and stage, how many stages harm may start in, and the levels.

    `units` and `requests` are the candidate's in this attempt.
    """

    attempt: str
    stage: int
    stages: int
    units: int
    requests: int
    alpha_rollback: float
    alpha_advance: float


def weigh(evidence: Evidence, watch: Watch, gate: Margin, place: Place) -> list[tuple[int, float]]:
    """Bring `log_e_harm`, `log_e_gate` (a running maximum within the attempt) and the design effect up to date.

    Returns:
        Log e for harm at each cut, as (slot, log e) in order: after what was bet (slot 0), and after each open minute
        of a metric that looks at them. The largest is `log_e_harm`; metrics that are averaged must share one cut.
    """
    mine = evidence.metrics.setdefault(watch.metric, GuardrailEvidence())
    if watch.kind == "ratio":
        _weigh_ratio(mine, watch, gate, place)
        return [(0, mine.log_e_harm)]
    ahead = open_minutes(evidence, mine, watch, gate) if looks_ahead(watch) else None
    return _weigh_bets(mine, kind_of(watch), place, ahead)


def at_cut(cuts: Sequence[tuple[int, float]], slot: int) -> float:
    """Log e at the last cut that is not after a slot."""
    return [log_e for cut, log_e in cuts if cut <= slot][-1]


def _weigh_ratio(mine: GuardrailEvidence, watch: Watch, gate: Margin, place: Place) -> None:
    """A ratio is judged from the sums of a stage so far; `harm` keeps log e of each stage, of former ones the last."""
    arms, direction = (stage_cells(mine, "candidate"), stage_cells(mine, "baseline")), watch.direction
    harm = harm_log_e(*arms, watch.harm_margin, direction, place.alpha_rollback)
    mine.harm[place.stage] = [rounded(float(harm))]
    by_stage = [mine.harm.get(stage, [0.0])[0] for stage in range(place.stage + 1)]
    mine.log_e_harm = rounded(merge_stages(by_stage, place.stages))
    if mine.gate_attempt == place.attempt:
        passed = advance_log_e(*attempt_cells(mine, place.attempt), gate, direction, place.alpha_advance)
        mine.log_e_gate = max(mine.log_e_gate, rounded(float(passed)))


def _weigh_bets(mine: GuardrailEvidence, kind: Kind, place: Place, ahead: Open | None) -> list[tuple[int, float]]:
    own = mine.cells.get(place.attempt, Arms())
    present = [kind.clusters(own.of(arm)) for arm in ARMS]
    pool = [pooled(mine, kind, arm, now) for arm, now in zip(ARMS, present, strict=True)]
    if place.units:
        mine.per_unit = max(mine.per_unit, rounded(place.requests / place.units))
    least = _least(mine, kind, pool, ahead)
    effects = _rounded_effects(pool, least)
    mine.design_effect = float(effects.max(initial=1.0))
    few = min(kind.effective(own.of(arm)) for arm in ARMS) < ENOUGH_EVENTS
    if not _is_covered(mine, kind, pool, ahead) or (few and not mine.past):
        effects = np.maximum(effects, least)
    harm_effects, _ = kind.tempering(effects)
    cuts = [(0, _harm(mine.harm, kind, harm_effects, place))]
    if ahead is not None:
        bet = np.asarray(mine.harm.get(place.stage, [0.0] * ahead.harm.shape[1]))
        for slot, wealth in zip(ahead.slots, wealth_by_cut(bet, ahead.harm)[1:], strict=True):
            cuts.append((slot, _harm({**mine.harm, place.stage: wealth.tolist()}, kind, harm_effects, place)))
    mine.log_e_harm = max(log_e for _, log_e in cuts)
    if mine.gate_attempt == place.attempt and mine.gate:
        at_gate = np.maximum(effects, _rounded_effects(present, least)) if mine.past else effects
        if few:
            at_gate = np.maximum(at_gate, least)
        _weigh_gates(mine, kind, kind.tempering(at_gate)[1], ahead)
    return cuts


def _least(mine: GuardrailEvidence, kind: Kind, pool: Sequence[Clusters], ahead: Open | None) -> float:
    """Requests per unit: what D is while cells cannot tell, as if all requests of a unit repeated its first.

    Few events cannot show how they cluster, nor can outcomes without cells: with sticky units that always or never
    fail, an attempt without a failure looks like no clustering at all (decision record 0005).
    """
    if not kind.counts_requests:
        return mine.per_unit
    counts = [arm.counts for arm in pool]
    if ahead is not None:
        counts = [n + more for n, more in zip(counts, ahead.started, strict=True)]
    if not all(n.any() for n in counts):
        return mine.per_unit
    return max(mine.per_unit, *(rounded(requests_per_unit(n)) for n in counts))


def _harm(harm: Mapping[int, list[float]], kind: Kind, effects: Floats, place: Place) -> float:
    """Log e for harm from the wealth of each stage, over all stages it may start in."""
    starts = []
    for first in sorted(harm):
        wealth = [sum(column) for column in zip(*(v for s, v in harm.items() if s >= first), strict=True)]
        starts.append((first, log_tempered(wealth, kind.harm_weights, effects)))
    return rounded(log_late_start(by_start(starts, place.stage), place.stages)) if starts else 0.0


def by_start(starts: Sequence[tuple[int, float]], stage: int) -> list[float]:
    """Log e of the process that started at each stage so far; one without any bet since its start stands at 0."""
    known = dict(starts)
    result: list[float] = []
    for first in range(stage + 1):
        later = [s for s in known if s >= first]
        result.append(known[min(later)] if later else 0.0)
    return result


def _rounded_effects(arms: Sequence[Clusters], unknown: float) -> Floats:
    """The design effect of each score, at the precision that a replay can repeat."""
    candidate, baseline = arms
    return np.round(design_effects(candidate, baseline, unknown), LOG_DECIMALS)


def _weigh_gates(mine: GuardrailEvidence, kind: Kind, effects: Floats, ahead: Open | None) -> None:
    """Each gate is an e-process of its own, and its running maximum counts; all of them must pass."""
    wealth = np.asarray(mine.gate)[None, :] if ahead is None else wealth_by_cut(mine.gate, ahead.gate)
    begin = 0
    for index, weights in enumerate(kind.gate_weights):
        part = slice(begin, begin + weights.size)
        now = max(rounded(log_tempered(row[part], weights, effects[part])) for row in wealth)
        mine.gate_best[index] = max(mine.gate_best[index], now)
        begin += weights.size
    mine.log_e_gate = min(mine.gate_best)


def _is_covered(mine: GuardrailEvidence, kind: Kind, pool: Sequence[Clusters], ahead: Open | None) -> bool:
    """Whether enough of what is bet or looked at has cells that say how its outcomes cluster."""
    if not kind.counts_requests:
        return True
    for index, arm in enumerate(ARMS):
        looked_at = float(ahead.started[index].sum()) if ahead is not None else 0.0
        if float(pool[index].counts.sum()) < COVERED * (mine.staked.get(arm, 0.0) + looked_at):
            return False
    return True
