"""Writing a rollout down: as a draft, and as the next version of its plan while it runs. Every version is kept."""

from rollout.db import audit, plans, rollouts
from rollout.db.rollouts import Transition
from rollout.db.session import Session
from rollout.db.tables import RolloutRow
from rollout.db.world import World, load
from rollout.domain import transition
from rollout.domain.document import Problem, content_hash
from rollout.domain.evidence import Evidence
from rollout.domain.metric import Metric
from rollout.domain.plan import PlanBody, RolloutDocument
from rollout.domain.plan_problems import rollout_problems
from rollout.domain.revision import asks_for_fresh_evidence, revision_problems
from rollout.domain.rollout import REVISABLE, State
from rollout.domain.watch import watches
from rollout.engine.commands import entry, locked
from rollout.engine.control import Control, tell
from rollout.engine.record import Cause, record
from rollout.engine.rights import Actor, allow_revision
from rollout.errors import Conflict, Invalid


async def create(control: Control, document: RolloutDocument, author: str) -> str:
    """Save a rollout as a draft with a frozen copy of its plan and metrics; its id.

    Raises:
        Invalid: the document has problems.
    """
    now = control.now()
    async with control.database.write() as session:
        resolved = await resolve_plan(session, document)
        world = await load(session)
        _refuse(rollout_problems(resolved, world))
        row = RolloutRow(
            id=control.new_id("ro"), flag=resolved.flag, environment=resolved.environment, status="draft",
            revision=1, author=author, created_at=now, document=resolved, metrics=_watched(resolved, world),
            content_hash=content_hash(resolved), state=State(), evidence=Evidence(), accepted=0, judged=0, tick=0,
        )  # fmt: skip
        await rollouts.create(session, row)
        await audit.record(session, entry(row, author, "create", now, {"content_hash": row.content_hash}))
        return row.id


async def revise(
    control: Control, identifier: str, document: RolloutDocument, actor: Actor, said: tuple[str, int | None]
) -> Transition:
    """Replace a rollout's document by its next version; `said` is (why, the revision that was seen).

    A started rollout keeps what its evidence is about (`rollout.domain.revision`). Whatever was approved is superseded,
    since an approval is bound to the content. A gate whose margin changes by it begins anew, with fresh evidence.

    Raises:
        NotFound: no such rollout.
        Conflict: it has ended, has moved since the revision seen, or says so already.
        Forbidden: it is scheduled or started and the key may not operate, or an approval is taken away.
        Invalid: the document has problems, or changes what must stay, or a reason is missing.
    """
    now, (reason, revision) = control.now(), said
    async with control.database.write() as session:
        row = await locked(session, identifier, revision)
        if row.status not in REVISABLE:
            raise Conflict(f"the rollout has ended ({row.status}); create a new rollout to try again")
        resolved = await resolve_plan(session, document)
        world = await load(session)
        _refuse([*revision_problems(row.document, resolved, row.state), *rollout_problems(resolved, world)])
        allow_revision(row, resolved, actor, reason)
        started = row.state.stage >= 0
        if content_hash(resolved) == row.content_hash:
            raise Conflict("the rollout says this already; nothing was changed")
        fresh = started and asks_for_fresh_evidence(
            row.document, resolved, watches(row.document, row.metrics), row.state.stage
        )
        await rollouts.keep_document(session, row, actor.name, now)
        state = transition.revise((row.document, resolved), row.state, (actor.name, now))
        state = transition.reopen(resolved, state, control.new_id("at"), now) if fresh else state
        row.document, row.content_hash = resolved, content_hash(resolved)
        row.metrics = row.metrics if started else _watched(resolved, world)
        why = reason or "revised by hand"
        done = await record(session, row, state, Cause(step="revise", reason=why, actor=actor.name, at=now))
        detail = {"reason": reason, "content_hash": row.content_hash}
        await audit.record(session, entry(row, actor.name, "revise", now, detail))
    await tell(control)
    return done


def _watched(document: RolloutDocument, world: World) -> dict[str, Metric]:
    keys = sorted({*(g.metric for g in document.guardrails), *(s.metric for s in document.signals)})
    return {key: world.metrics[key] for key in keys}


def _refuse(problems: list[Problem]) -> None:
    if problems:
        raise Invalid([(problem.path, problem.message) for problem in problems])


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
