"""Rollouts that are due: claimed for a look a few at a time, or passed over together while they are quiet."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, case, exists, not_, select, update
from sqlalchemy.orm import undefer

from rollout.db.session import Session
from rollout.db.tables import FlagStateRow, RolloutRow
from rollout.domain.rollout import EXPOSED


class Due(NamedTuple):
    """A rollout that is due, its row locked by this transaction, and whether its flag is killed."""

    row: RolloutRow
    killed: bool


async def claim(session: Session, until: datetime, now: datetime, most: int, passed: Collection[str] = ()) -> list[Due]:
    """Lock those that have been due longest and are not quiet, passing over `passed` and what another process holds."""
    query = (
        select(RolloutRow, _killed())
        .where(RolloutRow.next_check_at <= until, not_(_quiet(now)), RolloutRow.id.not_in(passed))
        .order_by(RolloutRow.next_check_at)
        .limit(most)
        .with_for_update(skip_locked=True, of=RolloutRow)
        .options(undefer(RolloutRow.evidence))
    )
    return [Due(row, killed) for row, killed in await session.execute(query)]


async def pass_over(session: Session, until: datetime, now: datetime, then: datetime, most: int) -> int:
    """Vouch for those that are due and quiet as a look would, and make them due again at `then`; how many.

    A row that another process holds is not passed over: nobody could act on it.
    """
    query = (
        select(RolloutRow.id)
        .where(RolloutRow.next_check_at <= until, _quiet(now))
        .order_by(RolloutRow.next_check_at)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    found = (await session.execute(query)).scalars().all()
    if found:
        sooner = case((RolloutRow.quiet_until < then, RolloutRow.quiet_until), else_=then)
        await session.execute(
            update(RolloutRow)
            .where(RolloutRow.id.in_(found))
            .values(protected_at=now, judged_at=now, next_check_at=sooner)
            .execution_options(synchronize_session=False)
        )
    return len(found)


async def overdue(session: Session, since: datetime) -> Sequence[RolloutRow]:
    """Exposed rollouts that have been due since before a moment and that nobody has looked at."""
    query = select(RolloutRow).where(RolloutRow.status.in_(EXPOSED), RolloutRow.next_check_at <= since)
    return (await session.execute(query)).scalars().all()


def _quiet(now: datetime) -> ColumnElement[bool]:
    """Whether a look would find what the last one found: nothing came, nobody acted, no moment has been reached.

    Never NULL, so that it can be negated. A kill is committed without the row's lock, so it is asked for apart.
    """
    calm = and_(
        RolloutRow.quiet_until.is_not(None), RolloutRow.quiet_until > now, RolloutRow.accepted == RolloutRow.judged
    )
    return and_(calm, not_(_killed()))


def _killed() -> ColumnElement[bool]:
    return exists().where(
        FlagStateRow.flag == RolloutRow.flag,
        FlagStateRow.environment == RolloutRow.environment,
        FlagStateRow.killed_at.is_not(None),
    )
