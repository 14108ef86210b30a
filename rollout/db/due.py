"""Rollouts that are due: claimed for a look a few at a time, or passed over together while they are quiet.

The statements of every round are made once: making one anew costs about as much as running it.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, and_, bindparam, case, exists, not_, or_, select, text, update
from sqlalchemy.orm import undefer

from rollout.db.session import Session, Unavailable
from rollout.db.tables import FlagStateRow, RolloutRow, SourceRow
from rollout.domain.rollout import EXPOSED

_WAIT_FOR_HELD = "2s"
"""Less than a stopped process holds a row, so that the others are not kept waiting for it."""
_LATE = timedelta(minutes=1)
"""So long after its moment a report may be committed: it waits for its turn, and clocks of processes differ."""


class Due(NamedTuple):
    """A rollout that is due, its row locked by this transaction, and whether its flag is killed."""

    row: RolloutRow
    killed: bool


async def claim(session: Session, until: datetime, now: datetime, most: int, passed: Collection[str] = ()) -> list[Due]:
    """Lock those that have been due longest and are not quiet, passing over `passed` and what another process holds."""
    found = await session.execute(_CLAIM, {**_at(until, now), "passed": list(passed), "most": most})
    return [Due(row, killed) for row, killed in found]


async def claim_held(session: Session, until: datetime, passed: set[str]) -> list[Due]:
    """Wait for one that is due still, since somebody holds it; one that is held all the while joins `passed`.

    Batches hold a row for moments, but under much traffic at nearly every moment, and would keep an engine that only
    passes over it away for good. Not for SQLite, where nobody else can hold anything.
    """
    while (held := (await session.execute(_due(until, passed))).scalar_one_or_none()) is not None:
        if await _awaited(session, held, until):
            query = select(RolloutRow, _is_killed()).where(RolloutRow.id == held)
            return [Due(*row) for row in await session.execute(query.options(undefer(RolloutRow.evidence)))]
        passed.add(held)
    return []


def _due(until: datetime, passed: Collection[str]) -> Select[str]:
    query = select(RolloutRow.id).where(RolloutRow.next_check_at <= until, RolloutRow.id.not_in(passed))
    return query.order_by(RolloutRow.next_check_at).limit(1)


async def _awaited(session: Session, identifier: str, until: datetime) -> bool:
    """Wait for a row that somebody holds, and lock it; whether that worked, and it is due still."""
    query = select(RolloutRow.id).where(RolloutRow.id == identifier, RolloutRow.next_check_at <= until)
    try:
        async with session.begin_nested():
            await session.execute(text(f"SET LOCAL lock_timeout = '{_WAIT_FOR_HELD}'"))
            found = (await session.execute(query.with_for_update())).scalar_one_or_none()
            await session.execute(text("SET LOCAL lock_timeout TO DEFAULT"))
    except Unavailable as error:
        if error.connection_invalidated:
            raise
        return False
    return found is not None


async def pass_over(session: Session, until: datetime, now: datetime, then: datetime, most: int) -> int:
    """Vouch for those that are due and quiet as a look would, and make them due again at `then`; how many.

    `judged_at` stays: it is of the last look.

    A row that another process holds is not passed over: nobody could act on it.
    """
    found = (await session.execute(_QUIET_ONES, {**_at(until, now), "most": most})).scalars().all()
    if found:
        sooner = case((RolloutRow.quiet_until < then, RolloutRow.quiet_until), else_=then)
        await session.execute(
            update(RolloutRow)
            .where(RolloutRow.id.in_(found))
            .values(protected_at=now, next_check_at=sooner)
            .execution_options(synchronize_session=False)
        )
    return len(found)


async def overdue(session: Session, since: datetime) -> Sequence[RolloutRow]:
    """Exposed rollouts that have been due since before a moment and that nobody has looked at."""
    return (await session.execute(_OVERDUE, {"since": since})).scalars().all()


def _at(until: datetime, now: datetime) -> dict[str, datetime]:
    return {"until": until, "now": now, "lately": now - _LATE}


def _is_killed() -> ColumnElement[bool]:
    return exists().where(
        FlagStateRow.flag == RolloutRow.flag,
        FlagStateRow.environment == RolloutRow.environment,
        FlagStateRow.killed_at.is_not(None),
    )


def _is_reported() -> ColumnElement[bool]:
    """Whether a source fails in the rollout's environment, or has said something since the last look, or lately.

    A look reads what is committed: what was said before it may have come to light after it.
    """
    since_then = (RolloutRow.judged_at.is_(None), SourceRow.reported_at >= RolloutRow.judged_at)
    return exists().where(
        SourceRow.environment == RolloutRow.environment,
        or_(SourceRow.failures > 0, SourceRow.reported_at >= bindparam("lately"), *since_then),
    )


def _is_quiet() -> ColumnElement[bool]:
    """Whether a look would find what the last one found: nothing came, nobody acted, no moment has been reached.

    Never NULL, so that it can be negated. A kill and the report of a source are committed without the row's lock, so
    they are asked for apart.
    """
    calm = and_(
        RolloutRow.quiet_until.is_not(None),
        RolloutRow.quiet_until > bindparam("now"),
        RolloutRow.accepted == RolloutRow.judged,
    )
    return and_(calm, not_(_is_killed()), not_(_is_reported()))


_CLAIM = (
    select(RolloutRow, _is_killed())
    .where(
        RolloutRow.next_check_at <= bindparam("until"),
        not_(_is_quiet()),
        RolloutRow.id.not_in(bindparam("passed", expanding=True)),
    )
    .order_by(RolloutRow.next_check_at)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True, of=RolloutRow)
    .options(undefer(RolloutRow.evidence))
)
_QUIET_ONES = (
    select(RolloutRow.id)
    .where(RolloutRow.next_check_at <= bindparam("until"), _is_quiet())
    .order_by(RolloutRow.next_check_at)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_OVERDUE = select(RolloutRow).where(RolloutRow.status.in_(EXPOSED), RolloutRow.next_check_at <= bindparam("since"))
