"""What makes the control rules of a plan impossible: approvals, rollback, fast track, missing evidence, budgets."""

from datetime import timedelta
from math import isfinite

from rollout.domain.document import Problem, duration, duration_problems
from rollout.domain.metric import Metric
from rollout.domain.plan import ApprovalGate, Approvals, Budget, Guardrail, Missing, PlanBody

SUMMED = ("proportion", "count_rate", "mean", "distribution")
"""Kinds whose outcomes add up to something that can be spent."""


def control_problems(plan: PlanBody) -> list[Problem]:
    """Problems of what steers a rollout beside its stages and its statistics."""
    problems = positive_duration(plan.rollback.every, "rollback.every")
    problems += positive_duration(plan.fast_track, "fast_track")
    return problems + approval_problems(plan.start_approval, "start_approval")


def approval_problems(approvals: Approvals, path: str) -> list[Problem]:
    """An approval that expires stands for some time."""
    return positive_duration(approvals.expires, f"{path}.expires") if isinstance(approvals, ApprovalGate) else []


def missing_problems(guardrail: Guardrail, path: str) -> list[Problem]:
    """Policies of missing evidence, and how many failures of a source in a row are too many."""
    problems = []
    if guardrail.error_limit < 1:
        problems.append(Problem(f"{path}.error_limit", "must be at least 1: so many failures in a row are an error"))
    if isinstance(guardrail.on_missing, dict):
        for verdict, policy in guardrail.on_missing.items():
            if isinstance(policy, Missing):
                problems += positive_duration(policy.after, f"{path}.on_missing.{verdict}.after")
    return problems


def budget_problems(budget: Budget, metric: Metric, path: str) -> list[Problem]:
    """A budget is a sum of something that adds up, above 0."""
    given = {name: getattr(budget, name) for name in Budget.__struct_fields__}
    problems = [
        Problem(f"{path}.{name}", "must be a number above 0")
        for name, value in given.items()
        if value is not None and not (isfinite(value) and value > 0)
    ]
    if all(value is None for value in given.values()):
        problems.append(Problem(path, f"give at least one of {', '.join(given)}"))
    if metric.direction != "lower_is_better":
        problems.append(Problem(path, f"{metric.key!r} is better when it is higher; only what costs can have a budget"))
    elif metric.kind not in SUMMED or (metric.bounds is not None and metric.bounds[0] < 0):
        message = f"a {metric.kind} does not add up to a sum that can be spent; remove the budget"
        problems.append(Problem(path, message))
    if budget.per_request is not None and metric.kind not in ("mean", "distribution"):
        message = f"is of a mean, and {metric.key!r} is a {metric.kind}; give the guardrail a ceiling instead"
        problems.append(Problem(f"{path}.per_request", message))
    return problems


def positive_duration(text: str | None, path: str) -> list[Problem]:
    """None is no duration and no problem."""
    problems = duration_problems(text, path)
    if text is not None and not problems and duration(text) <= timedelta(0):
        problems.append(Problem(path, "must be longer than 0"))
    return problems
