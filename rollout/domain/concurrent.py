"""Rollouts that run at the same time in one environment, and may meet: the same units, or the same guardrail.

A rollout that runs beside another reaches both arms of it alike, because their salts are independent. So it can favour
neither arm, and nothing is held; but it may move the level of both, and what the two do only together is blamed on
either.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from rollout.domain.cohort import Cohort
from rollout.domain.compile import Running

_FEW = 3
"""Rollouts that a sentence names."""


class Concurrent(msgspec.Struct, frozen=True, kw_only=True):
    """Another exposed rollout that this one may meet.

    `metrics` are those that both watch. `population` is shared where a unit can be in both rollouts, and unknown where
    they randomise units of two kinds.
    """

    rollout: str
    flag: str
    metrics: tuple[str, ...]
    population: Literal["shared", "unknown"]
    message: str


def concurrent(mine: Running, exposed: Iterable[Running], cohorts: Mapping[str, Cohort]) -> tuple[Concurrent, ...]:
    """The exposed rollouts of the environment that this one may meet; whom a group or cohorts keep apart, it cannot."""
    found = (_met(mine, other, cohorts) for other in exposed if other.id != mine.id and _beside(mine, other))
    return tuple(each for each in found if each is not None)


def warning(met: tuple[Concurrent, ...]) -> str:
    """What a start records of those it may meet; empty for nobody."""
    if not met:
        return ""
    named = ", ".join(f"{each.rollout} on {each.flag}{_watching(each.metrics)}" for each in met[:_FEW])
    more = f" and {len(met) - _FEW} more" if len(met) > _FEW else ""
    return f"runs beside {named}{more}, which both arms meet equally"


def _beside(mine: Running, other: Running) -> bool:
    """On one flag rollouts follow each other."""
    return mine.document.environment == other.document.environment and mine.document.flag != other.document.flag


def _met(mine: Running, other: Running, cohorts: Mapping[str, Cohort]) -> Concurrent | None:
    metrics = tuple(sorted(_watched(mine) & _watched(other)))
    unit, theirs = mine.document.unit, other.document.unit
    who = f"{other.id} on flag {other.document.flag}"
    if unit != theirs:
        if not metrics:
            return None
        said = f"{who} randomises {_unit(theirs)} and this rollout {_unit(unit)}: whether they meet cannot be known"
        advice = "one unit and one exclusion group for both would keep them apart"
        return _concurrent(other, metrics, "unknown", said, advice)
    if _kept_apart(mine, other) or _cohorts_apart(_reach(mine), _reach(other), cohorts):
        return None
    said = f"{who} may have the same units"
    return _concurrent(other, metrics, "shared", said, "one exclusion group for both would keep them apart")


def _concurrent(
    other: Running, metrics: tuple[str, ...], population: Literal["shared", "unknown"], said: str, advice: str
) -> Concurrent:
    harm = f"; both watch {', '.join(metrics)}, so harm by one may be blamed on the other" if metrics else ""
    equal = "both arms meet it equally, so it favours neither and holds nothing"
    return Concurrent(
        rollout=other.id,
        flag=other.document.flag,
        metrics=metrics,
        population=population,
        message=f"{said}{harm}; {equal}; {advice}",
    )


def _watched(rollout: Running) -> set[str]:
    document = rollout.document
    return {guardrail.metric for guardrail in document.guardrails} | {signal.metric for signal in document.signals}


def _kept_apart(mine: Running, other: Running) -> bool:
    """Two of one group own disjoint ranges, or will from the start on."""
    one, two = mine.document.exclusion, other.document.exclusion
    return one is not None and two is not None and one.group == two.group


def _reach(rollout: Running) -> frozenset[str] | None:
    """The cohorts a rollout exposes now or in a later stage; None for everyone."""
    stages, present = rollout.document.stages, max(rollout.state.stage, 0)
    if rollout.document.bake is not None or any(stage.cohort is None for stage in stages[present:]):
        return None
    return frozenset(stage.cohort for stage in stages if stage.cohort is not None)


def _cohorts_apart(mine: frozenset[str] | None, theirs: frozenset[str] | None, cohorts: Mapping[str, Cohort]) -> bool:
    """Only listed cohorts are known to be apart; a condition may let anybody in."""
    if mine is None or theirs is None:
        return False
    listed = [cohorts[key] for key in mine | theirs if key in cohorts and cohorts[key].when is None]
    if len(listed) < len(mine | theirs):
        return False
    units = [{unit for key in keys for unit in cohorts[key].units} for keys in (mine, theirs)]
    return units[0].isdisjoint(units[1])


def _watching(metrics: tuple[str, ...]) -> str:
    return f" (both watch {', '.join(metrics)})" if metrics else ""


def _unit(unit: str | None) -> str:
    return "the targeting key" if unit is None else unit
