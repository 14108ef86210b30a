"""Approvals: whose yes is needed now, and why one that was given no longer stands.

A yes is bound to the content of the plan and to the attempt; either one's change supersedes it.
"""

from datetime import datetime

from rollout.domain.document import content_hash
from rollout.domain.plan import ApprovalGate, PlanBody, approval_gate
from rollout.domain.rollout import State


def gate_now(plan: PlanBody, state: State) -> ApprovalGate | None:
    """Whose yes the next step needs: the start's, or the present stage's; None for nobody's."""
    if state.status in ("draft", "scheduled"):
        return approval_gate(plan.start_approval)
    return approval_gate(plan.stages[state.stage].approval) if state.stage < len(plan.stages) else None


def gates_ahead(plan: PlanBody, state: State) -> tuple[ApprovalGate, ...]:
    """Whose yes the stages after the present one need: a completion by hand leaves them all at once."""
    gates = (approval_gate(stage.approval) for stage in plan.stages[state.stage + 1 :])
    return tuple(gate for gate in gates if gate is not None)


def attempt_now(state: State) -> str:
    """What an approval is bound to beside the plan: the present attempt, or nothing before the start."""
    return state.attempt.id if state.attempt is not None else ""


def approval_missing(plan: PlanBody, state: State, now: datetime) -> str | None:
    """Why the next step still waits for a person, as a sentence; None when it does not."""
    gate, given = gate_now(plan, state), state.approval
    if gate is None:
        return None
    wanted = f"an approval by somebody other than the author, with the scope {gate.role!r}"
    if given is None:
        return f"needs {wanted}"
    if given.attempt != attempt_now(state):
        return f"needs {wanted}; the one by {given.by} was for an earlier attempt"
    if given.content_hash != content_hash(plan):
        return f"needs {wanted}; the plan was changed after {given.by} approved it"
    if given.expires_at is not None and now >= given.expires_at:
        return f"needs {wanted}; the one by {given.by} expired at {given.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    return None
