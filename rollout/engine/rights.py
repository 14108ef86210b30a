"""Who may do what: what reduces exposure needs no more than a key, what raises it a right and often a reason."""

from datetime import datetime

import msgspec

from rollout.db.tables import RolloutRow
from rollout.domain.approval import approval_missing, gate_now, gates_ahead
from rollout.domain.plan import ApprovalGate, Role, RolloutDocument
from rollout.domain.revision import approvals_lifted
from rollout.domain.rollout import Action
from rollout.errors import Conflict, Forbidden, Invalid

RAISES: frozenset[Action] = frozenset({"advance", "resume", "complete", "waive"})
"""Acts that expose more people, or may lead to it."""
BEYOND_EVIDENCE: frozenset[Action] = frozenset({"advance", "complete", "waive"})
"""Acts that need a reason at all times; so does a resume after an alarm."""
PASSES_A_GATE: frozenset[Action] = frozenset({"advance", "complete"})


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts: the name for the audit trail, and whether the key may do what raises exposure or approves.

    `person` is the name a key was made for; two keys of one person are one person when somebody else is asked for.
    """

    name: str
    person: str = ""
    may_operate: bool = False
    may_approve: bool = False
    is_admin: bool = False

    def has(self, role: Role) -> bool:
        """Whether the key has a role that an approval gate asks for."""
        return {"approver": self.may_approve, "operator": self.may_operate, "admin": self.is_admin}[role]

    def wrote(self, row: RolloutRow) -> bool:
        """Whether any version of the rollout is this actor's own, by this key or by another of the same person."""
        return any(
            self.name == author or (bool(self.person) and author.startswith(f"{self.person} ("))
            for author in (row.author, *row.state.revised_by)
        )

    def could_approve(self, row: RolloutRow, gate: ApprovalGate) -> bool:
        """Whether this actor is somebody else, with the role that a gate asks for."""
        return self.has(gate.role) and not self.wrote(row)


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks for. `revision`, when given, must be the one they saw.

    A waiver says which `metric`, for how long (`expires`, a duration), and in which `stage` (None: the present one).
    """

    action: Action
    reason: str = ""
    revision: int | None = None
    metric: str | None = None
    stage: str | None = None
    expires: str | None = None


def allow(row: RolloutRow, wanted: Act, actor: Actor, now: datetime) -> None:
    """Refuse what the actor may not do.

    Raises:
        Forbidden: the right is missing, or somebody else is asked for.
        Invalid: a reason is missing.
        Conflict: there is nothing to approve.
    """
    if wanted.action in RAISES and not actor.may_operate:
        raise Forbidden(f"{wanted.action} may raise exposure: it needs a key with the scope 'operator'")
    alarmed = row.state.breach is not None or (row.latest is not None and row.latest.judgement.srm_alarm)
    needs_reason = wanted.action in BEYOND_EVIDENCE or (wanted.action == "resume" and alarmed)
    if needs_reason and not wanted.reason.strip():
        raise Invalid([("reason", f"{wanted.action} goes beyond the evidence; say why")])
    starts_early = wanted.action == "start" and row.status == "scheduled"
    if (wanted.action in PASSES_A_GATE or starts_early) and not may_pass_gate(row, actor, now):
        raise Forbidden(
            f"{'the start' if starts_early else 'the stage'} {approval_missing(row.document, row.state, now)}; ask for "
            f"it, then {wanted.action}"
        )
    ahead = gates_ahead(row.document, row.state) if wanted.action == "complete" else ()
    for gate in ahead:
        if not actor.could_approve(row, gate):
            raise Forbidden(
                f"a later stage needs an approval by somebody other than the author, with the scope {gate.role!r}; "
                "advance stage by stage, or ask them to complete"
            )
    if wanted.action == "approve":
        _allow_approval(row, actor)


def may_pass_gate(row: RolloutRow, actor: Actor, now: datetime) -> bool:
    """Whether no approval is missing, or the actor is somebody who could give it."""
    gate = gate_now(row.document, row.state)
    if gate is None or approval_missing(row.document, row.state, now) is None:
        return True
    return actor.could_approve(row, gate)


def allow_revision(row: RolloutRow, document: RolloutDocument, actor: Actor, reason: str) -> None:
    """Refuse a revision that the actor may not make; of a draft everything may be rewritten.

    What is scheduled starts by itself, so it is changed by whoever could start it. An approval that a plan asks for
    can be taken out of it by those who could give it, and by nobody else.

    Raises:
        Forbidden: the right is missing, or somebody else is asked for.
        Invalid: a reason is missing.
    """
    if row.status == "draft":
        return
    if not actor.may_operate:
        raise Forbidden(f"the rollout is {row.status}: changing its plan needs a key with the scope 'operator'")
    if not reason.strip():
        raise Invalid([("reason", f"the rollout is {row.status}; say why its plan changes")])
    for gate in approvals_lifted(row.document, document, row.state):
        if not actor.could_approve(row, gate):
            raise Forbidden(
                f"the revision takes away an approval with the scope {gate.role!r}, or asks for it later; that is for "
                "somebody other than the author who could give it"
            )


def _allow_approval(row: RolloutRow, actor: Actor) -> None:
    gate = gate_now(row.document, row.state)
    if gate is None:
        raise Conflict("the present stage asks for no approval; there is nothing to approve")
    if not actor.has(gate.role):
        raise Forbidden(f"this approval needs a key with the scope {gate.role!r}")
    if actor.wrote(row):
        raise Forbidden("the author of a rollout cannot approve it, nor who revised it; ask somebody else")
