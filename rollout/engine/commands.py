"""People's acts on rollouts. Each is one short transaction; those that reduce exposure need nothing but a key.

None of them waits for the scheduler, a source or a statistic.
"""

from datetime import datetime

import msgspec

from rollout.db import audit, documents, flag_states, increments, plans, rollouts
from rollout.db.audit import Entry
from rollout.db.rollouts import Transition
from rollout.db.session import Session
from rollout.db.tables import RolloutRow
from rollout.db.world import load
from rollout.domain import transition
from rollout.domain.decide import is_approved
from rollout.domain.document import content_hash
from rollout.domain.evidence import Evidence
from rollout.domain.flag import Flag
from rollout.domain.plan import PlanBody, RolloutDocument
from rollout.domain.plan_problems import rollout_problems
from rollout.domain.rollout import Action, Approval, State, refusal
from rollout.engine.control import Control, tell
from rollout.engine.record import Cause, record
from rollout.errors import Conflict, Forbidden, Invalid, NotFound


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts: the name for the audit trail, and whether the key may do what raises exposure or approves.

    `person` is the name a key was made for; two keys of one person are one person when somebody else is asked for.
    """

    name: str
    person: str = ""
    may_operate: bool = False
    may_approve: bool = False


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks for. `revision`, when given, must be the one they saw."""

    action: Action
    reason: str = ""
    revision: int | None = None


async def create(control: Control, document: RolloutDocument, author: str) -> str:
    """Save a rollout as a draft with a frozen copy of its plan and metrics; its id.

    Raises:
        Invalid: the document has problems.
    """
    now = control.now()
    async with control.database.write() as session:
        resolved = await resolve_plan(session, document)
        world = await load(session)
        problems = rollout_problems(resolved, world)
        if problems:
            raise Invalid([(problem.path, problem.message) for problem in problems])
        watched = sorted({*(g.metric for g in resolved.guardrails), *(s.metric for s in resolved.signals)})
        row = RolloutRow(
            id=control.new_id("ro"), flag=resolved.flag, environment=resolved.environment, status="draft",
            revision=1, author=author, created_at=now, document=resolved,
            metrics={key: world.metrics[key] for key in watched}, content_hash=content_hash(resolved),
            state=State(), evidence=Evidence(), accepted=0, judged=0, tick=0,
        )  # fmt: skip
        await rollouts.create(session, row)
        await audit.record(session, _entry(row, author, "create", now, {"content_hash": row.content_hash}))
        return row.id


async def act(control: Control, identifier: str, wanted: Act, actor: Actor) -> Transition:
    """Carry out one act; the recorded transition.

    Raises:
        NotFound: no such rollout.
        Conflict: the status forbids it, another rollout is exposed on the flag, or the revision is not the one seen.
        Forbidden: it raises exposure or approves, and the actor may not.
        Invalid: an act that raises exposure against evidence needs a reason.
    """
    now = control.now()
    async with control.database.write() as session:
        row = await rollouts.find(session, identifier, lock=True, evidence=True)
        if row is None:
            raise NotFound(f"there is no rollout {identifier!r}")
        if wanted.revision is not None and wanted.revision != row.revision:
            raise Conflict(f"the rollout is at revision {row.revision}, not {wanted.revision}; read it again")
        refused = refusal(wanted.action, row.status)  # type: ignore[arg-type]  # a column is plain text
        if refused is not None:
            raise Conflict(refused)
        _allow(row, wanted, actor)
        await _refuse_exposing(session, row, wanted.action)
        state = _next_state(control, row, wanted, actor, now)
        cause = Cause(step=wanted.action, reason=wanted.reason or f"{wanted.action} by hand", actor=actor.name, at=now)
        done = await record(session, row, state, cause)
        await audit.record(session, _entry(row, actor.name, wanted.action, now, {"reason": wanted.reason}))
    await tell(control)
    return done


async def units_exposed(session: Session, row: RolloutRow) -> int:
    """About how many different units have been served the candidate so far."""
    return await increments.units(session, [attempt.id for attempt in row.state.attempts], "candidate")


def _next_state(control: Control, row: RolloutRow, wanted: Act, actor: Actor, now: datetime) -> State:
    plan, state = row.document, row.state
    match wanted.action:
        case "start":
            return transition.start(plan, state, control.new_id("at"), now)
        case "pause":
            return transition.pause(state, now, wanted.reason or "paused by hand")
        case "resume":
            alarmed = row.latest is not None and row.latest.judgement.srm_alarm
            return transition.resume(plan, state, control.new_id("at"), now, alarmed=alarmed)
        case "advance":
            return transition.advance(plan, state, control.new_id("at"), now, proven=False)
        case "approve":
            attempt = state.attempt
            assert attempt is not None
            return transition.approve(
                state, Approval(by=actor.name, at=now, attempt=attempt.id, content_hash=content_hash(plan))
            )
        case "roll_back":
            return transition.roll_back(state, now)
        case "cancel":
            return transition.cancel(state, now)


def _allow(row: RolloutRow, wanted: Act, actor: Actor) -> None:
    """What raises exposure needs a right and a reason; what reduces it needs neither."""
    raises = wanted.action in ("advance", "resume")
    if raises and not actor.may_operate:
        raise Forbidden(f"{wanted.action} raises exposure: it needs a key with the scope 'operator'")
    alarmed = row.state.breach is not None or (row.latest is not None and row.latest.judgement.srm_alarm)
    against_evidence = wanted.action == "advance" or (wanted.action == "resume" and alarmed)
    if against_evidence and not wanted.reason.strip():
        raise Invalid([("reason", f"{wanted.action} goes beyond the evidence; say why")])
    author = actor.name == row.author or (bool(actor.person) and row.author.startswith(f"{actor.person} ("))
    alone = author or not actor.may_approve
    if wanted.action == "advance" and alone and not is_approved(row.document, row.state):
        raise Forbidden("the stage needs an approval by somebody other than the author; ask for it, then advance")
    if wanted.action == "approve":
        if not actor.may_approve:
            raise Forbidden("an approval needs a key with the scope 'approver'")
        if author:
            raise Forbidden("the author of a rollout cannot approve it; ask somebody else")


async def _refuse_exposing(session: Session, row: RolloutRow, action: Action) -> None:
    """A killed flag exposes nobody; one rollout at a time; and its baseline is what everybody gets already."""
    if action not in ("start", "resume", "advance"):
        return
    state = await flag_states.find(session, row.flag, row.environment)
    if state.killed:
        raise Conflict(f"the flag {row.flag!r} is killed in {row.environment}; restore it first")
    if action != "start":
        return
    other = await rollouts.exposed_on(session, row.flag, row.environment, lock=True)
    if other is not None:
        raise Conflict(f"rollout {other.id} is {other.status} on this flag in {row.environment}; end it first")
    found = await documents.find(session, Flag, row.flag)
    today = state.released or (found[0].default_variant if found else row.document.baseline)
    if today != row.document.baseline:
        raise Conflict(
            f"everyone in {row.environment} gets {today!r} today, and starting would move them to the baseline "
            f"{row.document.baseline!r}; make {today!r} the baseline of a new rollout"
        )


async def resolve_plan(session: Session, document: RolloutDocument) -> RolloutDocument:
    """A rollout that names a plan takes over everything the plan says; it may not say it again.

    Raises:
        Invalid: there is no such plan, or the rollout says something itself.
    """
    if document.plan is None:
        return document
    key, _, number = document.plan.partition("@")
    if number and not (number.isdecimal() and number.isascii() and len(number) <= 9):
        raise Invalid([("plan", f"{document.plan!r} is no plan: write its key, or key@version")])
    found = await plans.find(session, key, int(number) if number else None)
    if found is None:
        raise Invalid([("plan", f"there is no plan {document.plan!r}; create it first or correct the name")])
    plan, version = found
    blank = PlanBody()
    for field in PlanBody.__struct_fields__:
        if getattr(document, field) != getattr(blank, field):
            raise Invalid([(field, f"the plan {key}@{version} says this already; remove it here or remove 'plan'")])
    return document.filled(plan, f"{key}@{version}")


def _entry(row: RolloutRow, actor: str, action: str, now: datetime, detail: dict[str, str]) -> Entry:
    return Entry(
        at=now, actor=actor, action=f"rollout.{action}", target=f"rollout:{row.id}",
        environment=row.environment, detail=detail,
    )  # fmt: skip
