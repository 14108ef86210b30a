"""Everything that makes a plan or a rollout impossible, found on save, each with its path and what to do."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

from rollout.domain.cohort import Cohort
from rollout.domain.control_problems import approval_problems, control_problems, positive_duration
from rollout.domain.document import Problem, duration, duration_problems
from rollout.domain.exclusion import exclusion_problems
from rollout.domain.flag import Flag
from rollout.domain.guardrail_problems import guardrail_problems, missing
from rollout.domain.metric import Metric
from rollout.domain.plan import PlanBody, RolloutDocument, Stage

SHORTEST_LEASE = timedelta(seconds=10)
"""Two heartbeats of the stream: a shorter lease would lapse between them."""

EARLIEST_YEAR, LATEST_YEAR = 1970, 9998
"""Of a start: moments that every time zone and database can write."""

MOST_STAGES = 50
"""Harm may start at any of them: with more, each would be tested at next to no error rate."""


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
        problems.append(missing("environment", "environment", document.environment, world.environments))
    flag = world.flags.get(document.flag)
    if flag is None:
        problems.append(missing("flag", "flag", document.flag, world.flags))
    for path, variant in (("baseline", document.baseline), ("candidate", document.candidate)):
        if flag is not None and variant not in flag.variants:
            problems.append(missing(path, f"variant of {flag.key!r}", variant, flag.variants))
    if document.baseline == document.candidate:
        problems.append(Problem("candidate", "is the same variant as the baseline; name the variant to roll out"))
    if document.start_at is not None and document.start_at.tzinfo is None:
        problems.append(Problem("start_at", "needs a time zone, such as 2026-03-01T09:00:00Z"))
    if document.start_at is not None and not EARLIEST_YEAR <= document.start_at.year <= LATEST_YEAR:
        problems.append(Problem("start_at", f"must be in a year from {EARLIEST_YEAR} to {LATEST_YEAR}"))
    return problems + exclusion_problems(document.exclusion) + plan_problems(document, world)


def plan_problems(plan: PlanBody, world: World) -> list[Problem]:
    """Problems of stages, gates, guardrails and analysis."""
    problems = []
    if not plan.stages:
        problems.append(Problem("stages", "a rollout needs at least one stage; add one with a name and a percentage"))
    if len(plan.stages) > MOST_STAGES:
        problems.append(Problem("stages", f"at most {MOST_STAGES}: error rates are divided among them; join some"))
    problems += _stages_problems(plan, world)
    problems += _lease_problems(plan.lease) + control_problems(plan)
    for i, guardrail in enumerate(plan.guardrails):
        problems += guardrail_problems(guardrail, f"guardrails[{i}]", world.metrics)
    for i, signal in enumerate(plan.signals):
        problems += guardrail_problems(signal, f"signals[{i}]", world.metrics)
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
        problems.append(missing(f"{path}.cohort", "cohort", stage.cohort, world.cohorts))
    if stage.min_units is not None and stage.min_units < 0:
        problems.append(Problem(f"{path}.min_units", "must be 0 or more"))
    problems += approval_problems(stage.approval, f"{path}.approval")
    timing = duration_problems(stage.min_duration, f"{path}.min_duration")
    timing += duration_problems(stage.max_duration, f"{path}.max_duration")
    if not timing and stage.max_duration and duration(stage.max_duration) < duration(stage.min_duration):
        timing.append(Problem(f"{path}.max_duration", f"is shorter than min_duration ({stage.min_duration}); raise it"))
    return problems + timing


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
    problems = positive_duration(plan.bake.duration, "bake.duration")
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
