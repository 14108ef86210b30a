"""Revising the plan of a rollout: what was passed stays, the present stage may change its gates, what comes is free.

Guardrails, margins and error rates are what the evidence is bet on, and the variants are what it is about: they stay
for the life of a rollout. Error rates are divided among the stages it started with, so there can be fewer, not more.
"""

from rollout.domain.document import Problem, same
from rollout.domain.plan import PlanBody, RolloutDocument, Stage, steps_of
from rollout.domain.rollout import State
from rollout.domain.watch import Watch, gate_margin

GATES = ("min_duration", "max_duration", "min_units", "approval")
"""What the present stage may change."""
FREE = ("stages", "bake", "description", "plan", "mode", "start_at", "start_approval")
"""Fields of a started rollout that may change, or are looked at one by one."""
WHO = ("flag", "environment")


def revision_problems(before: RolloutDocument, after: RolloutDocument, state: State) -> list[Problem]:
    """Everything that makes `after` no revision of `before` in this state; a draft keeps its flag and environment."""
    problems = [
        Problem(field, f"belongs to another rollout: this one is of {getattr(before, field)!r}; create a new rollout")
        for field in WHO
        if getattr(before, field) != getattr(after, field)
    ]
    if state.stage < 0:
        return problems
    problems += [
        Problem(field, "stays as it is for the life of a started rollout; to change it, create a new rollout")
        for field in RolloutDocument.__struct_fields__
        if field not in (*WHO, *FREE, "kind") and not same(getattr(before, field), getattr(after, field))
    ]
    problems += _stages_problems(before, after, state.stage)
    steps = state.steps or steps_of(before)
    if steps_of(after) > steps:
        message = f"error rates are divided among the {steps} stages (with the bake) it started with; have no more"
        problems.append(Problem("stages", message))
    if state.stage >= len(before.stages):
        problems += _bake_problems(before, after)
    return problems


def asks_for_fresh_evidence(before: PlanBody, after: PlanBody, watches: tuple[Watch, ...], stage: int) -> bool:
    """Whether the present gate has another margin after the revision, so that its evidence must begin anew."""
    return stage >= 0 and any(gate_margin(before, each, stage) != gate_margin(after, each, stage) for each in watches)


def _stages_problems(before: RolloutDocument, after: RolloutDocument, present: int) -> list[Problem]:
    problems = []
    for i, stage in enumerate(before.stages[: present + 1]):
        path = f"stages[{i}]"
        if i >= len(after.stages):
            problems.append(Problem(path, f"stage {stage.name!r} was reached; it cannot be taken out any more"))
        elif i < present and not same(stage, after.stages[i]):
            problems.append(Problem(path, f"stage {stage.name!r} is passed; leave it as it was"))
        elif i == present:
            problems += _present_problems(stage, after.stages[i], path)
    return problems


def _present_problems(before: Stage, after: Stage, path: str) -> list[Problem]:
    return [
        Problem(f"{path}.{field}", f"the stage is running: it may change {', '.join(GATES)} and nothing else")
        for field in Stage.__struct_fields__
        if field not in GATES and getattr(before, field) != getattr(after, field)
    ]


def _bake_problems(before: RolloutDocument, after: RolloutDocument) -> list[Problem]:
    if len(after.stages) != len(before.stages):
        return [Problem("stages", "the bake has begun: there is no stage after it")]
    if before.bake is None or after.bake is None or before.bake.holdback != after.bake.holdback:
        return [Problem("bake.holdback", "the bake is running: it may change its duration and nothing else")]
    return []
