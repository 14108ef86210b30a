"""Revising the plan of a rollout: what was passed stays, the present stage may change its gates, what comes is free.

Guardrails, margins and error rates are what the evidence is bet on, and the variants are what it is about: they stay
for the life of a rollout. Error rates are divided among the stages it started with, so there can be fewer, not more.
"""

from datetime import timedelta

from rollout.domain.document import Problem, duration, same
from rollout.domain.plan import ApprovalGate, PlanBody, RolloutDocument, Stage, approval_gate, steps_of
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
    reached = max(attempt.stage for attempt in state.attempts)  # a rollback in steps went down from there
    problems += _stages_problems(before, after, state.stage, reached)
    steps = state.steps or steps_of(before)
    if steps_of(after) > steps:
        message = f"error rates are divided among the {steps} stages (with the bake) it started with; have no more"
        problems.append(Problem("stages", message))
    if reached >= len(before.stages):
        problems += _bake_problems(before, after)
    return problems


def asks_for_fresh_evidence(before: PlanBody, after: PlanBody, watches: tuple[Watch, ...], stage: int) -> bool:
    """Whether the present gate has another margin after the revision, so that its evidence must begin anew."""
    return stage >= 0 and any(gate_margin(before, each, stage) != gate_margin(after, each, stage) for each in watches)


def approvals_lifted(before: PlanBody, after: PlanBody, state: State) -> list[ApprovalGate]:
    """Approvals still to come that the revision no longer asks for: as early, of the same role, and for no longer.

    Each needs one of its own in the new plan: one yes does not stand for two.
    """
    lifted, left = [], _gates_to_come(after, state)
    for stage, gate in _gates_to_come(before, state):
        instead = next((each for each in left if _stands_for(each, (stage, gate))), None)
        if instead is None:
            lifted.append(gate)
        else:
            left.remove(instead)
    return lifted


def _gates_to_come(plan: PlanBody, state: State) -> list[tuple[Stage | None, ApprovalGate]]:
    """Gates that ask for an approval, from the present one on; that of the start has no stage."""
    start = approval_gate(plan.start_approval) if state.stage < 0 else None
    found: list[tuple[Stage | None, ApprovalGate]] = [] if start is None else [(None, start)]
    for stage in plan.stages[max(state.stage, 0) :]:
        gate = approval_gate(stage.approval)
        if gate is not None:
            found.append((stage, gate))
    return found


def _stands_for(one: tuple[Stage | None, ApprovalGate], other: tuple[Stage | None, ApprovalGate]) -> bool:
    """Whether one gate asks for what the other asked for, before anybody more is exposed."""
    (stage, gate), (before, asked) = one, other
    if gate.role != asked.role or _lasts(gate) > _lasts(asked):
        return False
    if stage is None or before is None:
        return stage is None
    if before.cohort is not None:
        return stage.cohort == before.cohort and stage.percentage <= before.percentage
    return stage.cohort is not None or stage.percentage <= before.percentage


def _lasts(gate: ApprovalGate) -> timedelta:
    return timedelta.max if gate.expires is None else duration(gate.expires)


def _stages_problems(before: RolloutDocument, after: RolloutDocument, present: int, reached: int) -> list[Problem]:
    problems = []
    for i, stage in enumerate(before.stages[: reached + 1]):
        path = f"stages[{i}]"
        if i >= len(after.stages):
            problems.append(Problem(path, f"stage {stage.name!r} was reached; it cannot be taken out any more"))
        elif i != present and not same(stage, after.stages[i]):
            problems.append(Problem(path, f"stage {stage.name!r} was reached already; leave it as it was"))
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
