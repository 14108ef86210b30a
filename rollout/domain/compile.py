"""Compiling what people authored and what rollouts decided into the one document an environment serves."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeVar

import msgspec

from rollout.domain import exclusion, holdout
from rollout.domain.cohort import Cohort
from rollout.domain.document import same
from rollout.domain.flag import Flag, FlagState, Targeting, TargetingRule
from rollout.domain.holdout import Holdout
from rollout.domain.metric import Metric
from rollout.domain.plan import RolloutDocument, Stage, lease_seconds, percentage_of
from rollout.domain.rollout import EXPOSED, State, percentage_now
from rollout_client.evaluation.ruleset import (
    BUCKETS,
    SCHEMA,
    SCHEMA_OF_SLICES,
    Patch,
    Prerequisite,
    RolloutRule,
    Rule,
    Ruleset,
    RulesetCohort,
    RulesetFlag,
    RulesetMetric,
    Serve,
    Slice,
    Split,
)
from rollout_client.evaluation.targeting import Condition

T = TypeVar("T")


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as the compiler needs it; `metrics` are its own, frozen when it was created."""

    id: str
    document: RolloutDocument
    state: State
    metrics: dict[str, Metric]


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one environment serves, uncompiled. `rollouts`: exposed ones, and the last ended one of each flag.

    `overrides`: by flag and unit, the variants that people gave and that have not ended.
    The units of the `holdout` are in none of them.
    """

    environment: str
    flags: Mapping[str, Flag]
    states: Mapping[str, FlagState]
    cohorts: Mapping[str, Cohort]
    rollouts: Sequence[Running]
    overrides: Mapping[str, Mapping[str, str]] = {}
    holdout: Holdout | None = None


def compile_ruleset(served: Served, revision: int, edition: str = "") -> Ruleset:
    """The ruleset of an environment: a pure function of what is authored and decided, and of the name it is given."""
    by_flag: dict[str, list[Running]] = {}
    for rollout in served.rollouts:
        by_flag.setdefault(rollout.document.flag, []).append(rollout)
    exposed = [rollout for rollout in served.rollouts if rollout.state.status in EXPOSED]
    flags = {key: _flag(flag, served, by_flag.get(key, ())) for key, flag in served.flags.items()}
    return Ruleset(
        environment=served.environment,
        revision=revision,
        edition=edition,
        flags=flags,
        cohorts={key: RulesetCohort(units=cohort.units, when=cohort.when) for key, cohort in served.cohorts.items()},
        metrics=_metrics(exposed),
        schema=SCHEMA_OF_SLICES if any(_slices(rollout, served.holdout) for rollout in exposed) else SCHEMA,
    )


def difference(before: Ruleset, after: Ruleset) -> Patch:
    """What a client at `before` must change to serve `after`."""
    return Patch(
        base=before.revision,
        base_edition=before.edition,
        revision=after.revision,
        edition=after.edition,
        schema=after.schema,
        flags=_changed(before.flags, after.flags),
        cohorts=_changed(before.cohorts, after.cohorts),
        metrics=_changed(before.metrics, after.metrics),
    )


def _changed(before: Mapping[str, T], after: Mapping[str, T]) -> dict[str, T | None]:
    changes: dict[str, T | None] = {key: None for key in before if key not in after}
    changes.update({key: value for key, value in after.items() if key not in before or not same(before[key], value)})
    return changes


def _flag(flag: Flag, served: Served, rollouts: Iterable[Running]) -> RulesetFlag:
    targeting = flag.targeting.get(served.environment, Targeting())
    state = served.states.get(flag.key, FlagState())
    rules: list[Rule] = [_authored(rule) for rule in targeting.rules]
    pins: dict[str, Literal["live", "drain"]] = {}
    for rollout in rollouts:
        exposed = rollout.state.status in EXPOSED
        if exposed:
            rules += exposure_rules(rollout, flag, _slices(rollout, served.holdout))
        if rollout.document.pin is not None:
            drains = rollout.document.on_rollback == "drain" or rollout.state.status == "completed"
            if rollout.state.exposed:
                pins[rollout.id] = "live"
            elif not exposed and drains:
                pins[rollout.id] = "drain"
    return RulesetFlag(
        variants=flag.variants,
        default_variant=flag.default_variant,
        salt=flag.salt or flag.key,
        killed=state.killed,
        released=state.released,
        prerequisites=tuple(Prerequisite(flag=p.flag, variants=p.variants) for p in flag.prerequisites),
        overrides={**targeting.overrides, **served.overrides.get(flag.key, {})},
        pins=pins,
        rules=tuple(rules),
    )


def _authored(rule: TargetingRule) -> Rule:
    if rule.split is None:
        assert rule.variant is not None
        return Serve(variant=rule.variant, when=rule.when)
    weights = tuple((variant, round(share * BUCKETS / 100)) for variant, share in rule.split.items())
    return Split(weights=weights, when=rule.when, unit=rule.unit)


def exposure_rules(rollout: Running, flag: Flag, slices: tuple[Slice, ...] = ()) -> list[Rule]:
    """The rules of one exposed rollout; the first that applies to a unit gives it the most that it was ever let in to.

    A cohort let in by an earlier stage keeps what it has, outside evidence, as long as that is more than the present
    stage gives everyone; a stage of another cohort gives everyone else nothing. Whoever is in both cohorts is in the
    one that has more. Whoever is outside the present stage's population is served the baseline.
    """
    document, state = rollout.document, rollout.state
    attempt = state.attempt
    assert attempt is not None
    stages = document.stages
    present = stages[state.stage] if state.stage < len(stages) else None
    cohort = present.cohort if present else None
    level = percentage_of(document, state.stage)

    def kept(earlier: Stage) -> RolloutRule:
        share = earlier.percentage if state.exposed else 0.0
        return _exposure(rollout, flag, share, attempt=None, cohort=earlier.cohort, slices=slices)

    others = [each for each in stages[: max(state.stage, 0)] if each.cohort is not None and each.cohort != cohort]
    others.sort(key=lambda each: -each.percentage)
    more = [each for each in others if each.percentage >= 100 or each.percentage > level]
    live = attempt.id if state.exposed else None
    now = _exposure(rollout, flag, percentage_now(document, state), attempt=live, cohort=cohort, slices=slices)
    rules: list[Rule] = [*(kept(each) for each in more), now]
    if cohort is not None:
        rules += [kept(each) for each in others if each not in more]
        rules.append(Serve(variant=document.baseline))
    return rules


def _exposure(
    rollout: Running,
    flag: Flag,
    percentage: float,
    *,
    attempt: str | None,
    cohort: str | None,
    slices: tuple[Slice, ...],
) -> RolloutRule:
    document = rollout.document
    lease = lease_seconds(document)
    return RolloutRule(
        rollout=rollout.id,
        attempt=attempt,
        baseline=document.baseline,
        candidate=document.candidate,
        threshold=round(percentage * BUCKETS / 100),
        when=Condition(cohort=cohort) if cohort is not None else None,
        lease_ms=None if lease is None else round(lease * 1000),
        unit=document.unit,
        pin=document.pin,
        salt=f"{flag.salt or flag.key}:{rollout.id}" if document.reseed else None,
        metrics=tuple(sorted(rollout.metrics)) if attempt is not None else (),
        frozen=dict(sorted(rollout.state.frozen.items())) if attempt is not None else {},
        slices=slices,
    )


def _slices(rollout: Running, held_out: Holdout | None) -> tuple[Slice, ...]:
    """Whom a rollout can reach at all: nobody of the holdout, and only its own range of its group."""
    slices = () if held_out is None else (holdout.slice_of(held_out),)
    place = rollout.state.slice
    if rollout.document.exclusion is None or place is None:
        return slices
    return (*slices, exclusion.slice_of(rollout.document.exclusion, place))


def _metrics(exposed: Iterable[Running]) -> dict[str, RulesetMetric]:
    return {
        key: RulesetMetric(kind=m.kind, direction=m.direction, denominator=m.denominator, bounds=m.bounds)
        for rollout in exposed
        for key, m in sorted(rollout.metrics.items())
    }
