"""Everything that makes a plan or a rollout impossible, found on save, each with its path and what to do."""

from collections.abc import Mapping
from datetime import timedelta
from math import isfinite
from typing import Protocol

from rollout.domain.cohort import Cohort
from rollout.domain.document import Problem, duration, duration_problems
from rollout.domain.flag import Flag
from rollout.domain.metric import Metric
from rollout.domain.plan import Guardrail, MaxRegression, PlanBody, RolloutDocument, Signal, Stage

JUDGED_KINDS = ("proportion",)
"""Metric kinds this version has a valid test for; others are stored and shown, and refused as guardrails."""


SHORTEST_LEASE = timedelta(seconds=10)
"""Two heartbeats of the stream: a shorter lease would lapse between them."""


LONGEST_MATURITY = timedelta(hours=6)
"""Every open minute of a slow metric is part of the evidence that each look carries."""


class World(Protocol):
    """What a document may refer to."""

    @property
    def flags(self) -> Mapping[str, Flag]:
        """Flags by key."""

    @property
    def cohorts(self) -> Mapping[str, Cohort]:
        """Cohorts by key."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Metrics by key."""

    @property
    def environments(self) -> frozenset[str]:
        """Keys of environments."""


def rollout_problems(document: RolloutDocument, world: World) -> list[Problem]:
    """Problems of a rollout: its references, then its plan."""
    problems = []
    if document.environment not in world.environments:
        problems.append(_missing("environment", "environment", document.environment, world.environments))
    flag = world.flags.get(document.flag)
    if flag is None:
        problems.append(_missing("flag", "flag", document.flag, world.flags))
    for path, variant in (("baseline", document.baseline), ("candidate", document.candidate)):
        if flag is not None and variant not in flag.variants:
            problems.append(_missing(path, f"variant of {flag.key!r}", variant, flag.variants))
    if document.baseline == document.candidate:
        problems.append(Problem("candidate", "is the same variant as the baseline; name the variant to roll out"))
    return problems + plan_problems(document, world)


def plan_problems(plan: PlanBody, world: World) -> list[Problem]:
    """Problems of stages, gates, guardrails and analysis."""
    problems = []
    if not plan.stages:
        problems.append(Problem("stages", "a rollout needs at least one stage; add one with a name and a percentage"))
    problems += _stages_problems(plan, world)
    problems += _lease_problems(plan.lease)
    for i, guardrail in enumerate(plan.guardrails):
        problems += _guardrail_problems(guardrail, f"guardrails[{i}]", world)
        if guardrail.weight <= 0 or not isfinite(guardrail.weight):
            problems.append(Problem(f"guardrails[{i}].weight", "must be above 0; leave it out for equal weights"))
    for i, signal in enumerate(plan.signals):
        problems += _guardrail_problems(signal, f"signals[{i}]", world)
    problems += _repeated(plan) + _analysis_problems(plan) + _bake_problems(plan)
    return problems


def _lease_problems(lease: str) -> list[Problem]:
    problems = [] if lease == "none" else duration_problems(lease, "lease")
    if lease != "none" and not problems and duration(lease) < SHORTEST_LEASE:
        message = (
            "must be at least 10s: clients hear every few seconds that the engine is watching; 'none' never lapses"
        )
        problems.append(Problem("lease", message))
    return problems


def _stages_problems(plan: PlanBody, world: World) -> list[Problem]:
    problems: list[Problem] = []
    names: set[str] = set()
    highest = 0.0
    cohorts: dict[str, float] = {}
    for i, stage in enumerate(plan.stages):
        path = f"stages[{i}]"
        problems += _stage_problems(stage, path, world)
        if stage.name in names:
            problems.append(Problem(f"{path}.name", f"{stage.name!r} is used twice; give each stage its own name"))
        names.add(stage.name)
        if stage.cohort is not None:
            problems += _cohort_order(stage, path, highest, cohorts)
            cohorts[stage.cohort] = stage.percentage
            continue
        if stage.percentage <= highest:
            message = f"must be above the {highest:g} of the stage before; percentages only grow"
            problems.append(Problem(f"{path}.percentage", message))
        highest = max(highest, stage.percentage)
        if plan.guardrails and stage.percentage >= 100:
            message = "leaves no control to compare with; end below 100, completion gives everyone the candidate"
            problems.append(Problem(f"{path}.percentage", message))
    return problems


def _cohort_order(stage: Stage, path: str, highest: float, cohorts: Mapping[str, float]) -> list[Problem]:
    """Exposure only grows: cohorts come before everyone, and what a cohort has it keeps."""
    if highest:
        message = f"comes after {highest:g} % of everyone had the candidate; put cohorts before the open stages"
        return [Problem(f"{path}.cohort", message)]
    before = cohorts.get(stage.cohort or "", 0.0)
    if stage.percentage <= before:
        return [Problem(f"{path}.percentage", f"must be above the {before:g} this cohort had before; it only grows")]
    return []


def _stage_problems(stage: Stage, path: str, world: World) -> list[Problem]:
    problems = []
    if not stage.name:
        problems.append(Problem(f"{path}.name", "give the stage a name"))
    if not 0 < stage.percentage <= 100:
        problems.append(Problem(f"{path}.percentage", "must be above 0 and at most 100"))
    elif (
        round(stage.percentage * 1000) != stage.percentage * 1000
        and abs(round(stage.percentage * 1000) - stage.percentage * 1000) > 1e-6
    ):
        problems.append(Problem(f"{path}.percentage", "the finest step is 0.001; round it"))
    if stage.cohort is not None and stage.cohort not in world.cohorts:
        problems.append(_missing(f"{path}.cohort", "cohort", stage.cohort, world.cohorts))
    if stage.min_units is not None and stage.min_units < 0:
        problems.append(Problem(f"{path}.min_units", "must be 0 or more"))
    timing = duration_problems(stage.min_duration, f"{path}.min_duration")
    timing += duration_problems(stage.max_duration, f"{path}.max_duration")
    if not timing and stage.max_duration and duration(stage.max_duration) < duration(stage.min_duration):
        timing.append(Problem(f"{path}.max_duration", f"is shorter than min_duration ({stage.min_duration}); raise it"))
    return problems + timing


def _guardrail_problems(guardrail: Guardrail | Signal, path: str, world: World) -> list[Problem]:
    metric = world.metrics.get(guardrail.metric)
    problems = duration_problems(guardrail.maturity, f"{path}.maturity")
    if metric is None:
        return [*problems, _missing(f"{path}.metric", "metric", guardrail.metric, world.metrics)]
    if metric.kind not in JUDGED_KINDS:
        message = f"{metric.key!r} is a {metric.kind}; this version judges {', '.join(JUDGED_KINDS)} metrics only"
        problems.append(Problem(f"{path}.metric", message))
    if guardrail.focus is not None and metric.kind == "proportion":
        problems.append(Problem(f"{path}.focus", "a proportion has no focus; remove it"))
    if guardrail.direction is not None and guardrail.direction != metric.direction:
        message = f"the metric says {metric.direction}; remove the direction here or correct the metric"
        problems.append(Problem(f"{path}.direction", message))
    problems += _maturity_problems(guardrail, metric, path) if not problems else []
    per_exposure = metric.denominator == "exposure" and guardrail.maturity is not None and not problems
    if per_exposure and not duration(guardrail.maturity or "0s"):
        problems.append(Problem(f"{path}.maturity", "a metric per exposure needs a maturity above 0"))
    return problems + _margin_problems(guardrail.max_regression, metric, f"{path}.max_regression")


def _maturity_problems(guardrail: Guardrail | Signal, metric: Metric, path: str) -> list[Problem]:
    awaited = duration(guardrail.maturity or metric.maturity)
    at = f"{path}.maturity"
    if awaited > LONGEST_MATURITY:
        return [Problem(at, f"at most {LONGEST_MATURITY} of minutes can be kept open; judge an earlier outcome")]
    if metric.timeout is not None and awaited < duration(metric.timeout):
        message = (
            f"must be at least the metric's timeout ({metric.timeout}), or calls in flight would count as failures"
        )
        return [Problem(at, message)]
    return []


def _margin_problems(margin: MaxRegression, metric: Metric, path: str) -> list[Problem]:
    if (margin.relative is None) == (margin.absolute is None):
        return [Problem(path, "give exactly one of 'relative' (a share of the baseline) and 'absolute' (a difference)")]
    size = margin.relative if margin.relative is not None else margin.absolute
    field = "relative" if margin.relative is not None else "absolute"
    assert size is not None
    if not isfinite(size) or size <= 0:
        return [Problem(f"{path}.{field}", "must be above 0: no test can prove that nothing changed at all")]
    if size >= 1 and (field == "absolute" or metric.direction == "higher_is_better"):
        return [Problem(f"{path}.{field}", "must be below 1: a proportion cannot change by more than itself")]
    return []


def _analysis_problems(plan: PlanBody) -> list[Problem]:
    analysis = plan.analysis
    alphas = {"alpha_rollback": analysis.alpha_rollback, "alpha_advance": analysis.alpha_advance,
              "alpha_srm": analysis.alpha_srm}  # fmt: skip
    return [
        Problem(f"analysis.{name}", "is an error rate: above 0 and at most 0.5")
        for name, alpha in alphas.items()
        if not 0 < alpha <= 0.5
    ]


def _bake_problems(plan: PlanBody) -> list[Problem]:
    if plan.bake is None:
        return []
    problems = _positive_duration(plan.bake.duration, "bake.duration")
    highest = max((s.percentage for s in plan.stages if s.cohort is None), default=0.0)
    if plan.guardrails and not highest:
        problems.append(Problem("bake", "follows no stage open to everyone; add one, such as 10 %, before it"))
    if not 0 < plan.bake.holdback <= 100 - highest:
        message = f"must be above 0 and leave at least the {highest:g} % of the last stage to the candidate"
        problems.append(Problem("bake.holdback", message))
    return problems


def _repeated(plan: PlanBody) -> list[Problem]:
    seen: set[str] = set()
    problems = []
    watched = [(f"guardrails[{i}].metric", g.metric) for i, g in enumerate(plan.guardrails)]
    watched += [(f"signals[{i}].metric", s.metric) for i, s in enumerate(plan.signals)]
    for path, metric in watched:
        if metric in seen:
            problems.append(Problem(path, f"{metric!r} is watched twice; keep one of them"))
        seen.add(metric)
    return problems


def _positive_duration(text: str, path: str) -> list[Problem]:
    problems = duration_problems(text, path)
    if not problems and not duration(text):
        problems.append(Problem(path, "must be longer than 0"))
    return problems


def _missing(path: str, what: str, name: str, known: Mapping[str, object] | frozenset[str]) -> Problem:
    some = ", ".join(sorted(known)[:8]) or "none yet"
    return Problem(path, f"there is no {what} {name!r} (known: {some}); create it first or correct the name")
