"""Rollouts: the record, its attempts, its transitions and its evaluations."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import bindparam, func, insert, inspect, select, update
from sqlalchemy.orm import undefer
from sqlalchemy.orm.exc import StaleDataError

from rollout.db.session import Session
from rollout.db.tables import AttemptRow, EvaluationRow, RolloutDocumentRow, RolloutRow, TransitionRow
from rollout.domain.compile import Running
from rollout.domain.evidence import Evidence
from rollout.domain.plan import RolloutDocument
from rollout.domain.proof import Proof, is_proof
from rollout.domain.rollout import EXPOSED, State
from rollout.domain.transition import Change
from rollout.errors import Conflict

_rows = RolloutRow.metadata.tables[RolloutRow.__tablename__]


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded change with its number, the look that led to it, and the ruleset that carries it."""

    seq: int
    change: Change
    tick: int | None = None
    ruleset_revision: int | None = None


async def find(session: Session, identifier: str, *, lock: bool = False, evidence: bool = False) -> RolloutRow | None:
    """One rollout's row; `lock` holds it until the transaction ends."""
    options = [undefer(RolloutRow.evidence)] if evidence else []
    return await session.get(
        RolloutRow, identifier, with_for_update=lock or None, options=options, populate_existing=True
    )


def evidence_if_read(row: RolloutRow) -> Evidence | None:
    """The row's evidence where whoever read the row asked for it; None without another question to the database."""
    return None if "evidence" in inspect(row).unloaded else row.evidence


async def page(
    session: Session, *, environment: str | None, flag: str | None, status: str | None, limit: int = 200
) -> Sequence[RolloutRow]:
    """Newest first, as far as the filters allow."""
    query = select(RolloutRow).order_by(RolloutRow.created_at.desc(), RolloutRow.id).limit(limit)
    for column, wanted in ((RolloutRow.environment, environment), (RolloutRow.flag, flag), (RolloutRow.status, status)):
        if wanted is not None:
            query = query.where(column == wanted)
    return (await session.execute(query)).scalars().all()


async def live(session: Session) -> Sequence[RolloutRow]:
    """Every rollout that is scheduled or exposed, whatever its environment."""
    query = select(RolloutRow).where(RolloutRow.status.in_((*EXPOSED, "scheduled"))).order_by(RolloutRow.id)
    return (await session.execute(query)).scalars().all()


async def exposed_on(session: Session, flag: str, environment: str, *, lock: bool = False) -> RolloutRow | None:
    """The rollout that is exposed on a flag in an environment; there is at most one."""
    query = select(RolloutRow).where(RolloutRow.exclusive == exclusive(flag, environment))
    if lock:
        query = query.with_for_update()
    return (await session.execute(query.execution_options(populate_existing=True))).scalar_one_or_none()


async def exposed(session: Session, environment: str) -> list[Running]:
    """Exposed rollouts of an environment."""
    query = select(RolloutRow).where(RolloutRow.environment == environment, RolloutRow.status.in_(EXPOSED))
    return [_running(row) for row in (await session.execute(query.order_by(RolloutRow.id))).scalars()]


async def exposed_somewhere(session: Session, flag: str) -> list[str]:
    """Exposed rollouts of a flag in any environment."""
    query = select(RolloutRow.id).where(RolloutRow.flag == flag, RolloutRow.status.in_(EXPOSED))
    return list((await session.execute(query.order_by(RolloutRow.id))).scalars())


async def served(session: Session, environment: str) -> list[Running]:
    """Exposed rollouts of an environment, and the newest ended one of each flag (its pins may drain)."""
    newest = (
        select(RolloutRow.flag, func.max(RolloutRow.ended_at).label("ended_at"))
        .where(RolloutRow.environment == environment, RolloutRow.status.in_(("completed", "rolled_back")))
        .group_by(RolloutRow.flag)
        .subquery()
    )
    query = (
        select(RolloutRow)
        .outerjoin(newest, RolloutRow.flag == newest.c.flag)
        .where(
            RolloutRow.environment == environment,
            RolloutRow.status.in_(EXPOSED) | (RolloutRow.ended_at == newest.c.ended_at),
        )
        .order_by(RolloutRow.id)
    )
    return [_running(row) for row in (await session.execute(query)).scalars()]


def _running(row: RolloutRow) -> Running:
    return Running(id=row.id, document=row.document, state=row.state, metrics=row.metrics)


async def add_attempt(session: Session, row: RolloutRow) -> None:
    """Register the rollout's newest attempt, so that ingestion knows it."""
    attempt = row.state.attempt
    assert attempt is not None
    session.add(AttemptRow(id=attempt.id, rollout=row.id, environment=row.environment, epoch=attempt.epoch))
    await session.flush()


async def add_transition(session: Session, rollout: str, transition: Transition) -> None:
    """Append a transition; its number is unique per rollout, so none can be recorded twice."""
    session.add(
        TransitionRow(
            rollout=rollout,
            seq=transition.seq,
            at=transition.change.at,
            tick=transition.tick,
            ruleset_revision=transition.ruleset_revision,
            change=transition.change,
        )
    )
    await session.flush()


async def transitions(session: Session, rollout: str) -> list[Transition]:
    """All transitions of a rollout in order."""
    rows = await session.execute(
        select(TransitionRow).where(TransitionRow.rollout == rollout).order_by(TransitionRow.seq)
    )
    return [
        Transition(
            seq=row.seq,
            change=msgspec.convert(row.change, Change),
            tick=row.tick,
            ruleset_revision=row.ruleset_revision,
        )
        for row in rows.scalars()
    ]


async def next_seq(session: Session, rollout: str) -> int:
    """Number of the next transition, taken under the rollout's row lock."""
    query = select(func.coalesce(func.max(TransitionRow.seq), 0)).where(TransitionRow.rollout == rollout)
    return (await session.execute(query)).scalar_one() + 1


async def add_evaluations(session: Session, looks: Sequence[dict[str, Any]]) -> None:
    """Append the records of some looks."""
    await session.execute(insert(EvaluationRow), looks)


async def evaluations(session: Session, rollout: str, *, newest: int | None = None) -> Sequence[EvaluationRow]:
    """The looks of a rollout: the `newest` few (newest first), or all in order."""
    query = select(EvaluationRow).where(EvaluationRow.rollout == rollout)
    if newest is not None:
        return (await session.execute(query.order_by(EvaluationRow.tick.desc()).limit(newest))).scalars().all()
    return (await session.execute(query.order_by(EvaluationRow.tick))).scalars().all()


def exclusive(flag: str, environment: str) -> str:
    """What only one exposed rollout can hold."""
    return f"{flag}@{environment}"


async def replace_state(session: Session, row: RolloutRow, state: State, now: datetime) -> None:
    """Compare-and-set on the row's revision: a writer who read an older record changes nothing.

    Raises:
        Conflict: somebody else changed the rollout since it was read.
    """
    exposed = state.status in EXPOSED
    row.state, row.status, row.ended_at = state, state.status, state.ended_at
    row.exclusive = exclusive(row.flag, row.environment) if exposed else None
    due = now if exposed or state.status == "scheduled" else None
    row.next_check_at, row.quiet_until = due, None
    row.revision += 1
    try:
        await session.flush()
    except StaleDataError as error:
        raise Conflict("somebody else changed this rollout meanwhile; read it again and repeat the act") from error


async def create(session: Session, row: RolloutRow) -> None:
    """Insert a new rollout."""
    session.add(row)
    await session.flush()


async def looked(session: Session, looks: Sequence[dict[str, Any]]) -> None:
    """Write what each look leaves of its rollout, whose id is under `of`: columns with their values."""
    for columns in dict.fromkeys(frozenset(look) for look in looks):
        alike = [look for look in looks if look.keys() == columns]
        await session.execute(update(_rows).where(_rows.c.id == bindparam("of")), alike)


async def accept(session: Session, row: RolloutRow, now: datetime) -> int:
    """Number the next batch of increments under the row's lock, and make the rollout due; the number.

    It is due since the last look, not since now: the engine's clock may be behind this one's, and of many the one goes
    first that was looked at longest ago. Leaves the revision alone: evidence is no change that a person could conflict
    with.
    """
    since = now if row.protected_at is None else min(now, row.protected_at)
    taken = await session.execute(
        update(RolloutRow)
        .where(RolloutRow.id == row.id)
        .values(accepted=RolloutRow.accepted + 1, next_check_at=since)
        .returning(RolloutRow.accepted)
        .execution_options(synchronize_session=False)
    )
    return taken.scalar_one()


async def wait(session: Session, row: RolloutRow, state: State, until: datetime) -> None:
    """A scheduled rollout goes on waiting; what is in its way now is kept for people to read."""
    row.state, row.next_check_at = state, until
    await session.flush()


async def proofs(session: Session, flag: str, environment: str) -> list[Proof]:
    """Rollouts of a flag in an environment that completed on proof, and whose candidate has done no harm since."""
    query = select(RolloutRow).where(
        RolloutRow.flag == flag,
        RolloutRow.environment == environment,
        RolloutRow.status.in_(("completed", "rolled_back")),
        RolloutRow.ended_at.is_not(None),
    )
    rows = (await session.execute(query.order_by(RolloutRow.ended_at))).scalars().all()
    harmed = {row.document.candidate: row.ended_at for row in rows if row.state.breach is not None}
    return [
        Proof(rollout=row.id, ended_at=row.ended_at, document=row.document, metrics=row.metrics)
        for row in rows
        if row.ended_at is not None
        and is_proof(row.document, row.state)
        and row.ended_at > (harmed.get(row.document.candidate) or datetime.min.replace(tzinfo=UTC))
    ]


async def keep_document(session: Session, row: RolloutRow, by: str, now: datetime) -> None:
    """Keep the present version of the document before it is replaced; `by` and `now` are of who replaces it."""
    session.add(
        RolloutDocumentRow(
            rollout=row.id, number=row.state.document, document=row.document, content_hash=row.content_hash,
            replaced_by=by, replaced_at=now,
        )
    )  # fmt: skip
    await session.flush()


async def documents(session: Session, row: RolloutRow) -> dict[int, RolloutDocument]:
    """Every version of a rollout's document by its number, the present one included."""
    query = select(RolloutDocumentRow).where(RolloutDocumentRow.rollout == row.id)
    kept = {each.number: each.document for each in (await session.execute(query)).scalars()}
    return {**kept, row.state.document: row.document}


async def postpone(session: Session, row: RolloutRow, until: datetime) -> None:
    """Make the rollout due at a later moment, whatever else happened to it; what was not looked at is not quiet."""
    row.next_check_at, row.quiet_until = until, None
    await session.flush()
