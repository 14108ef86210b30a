"""Overrides that people have given, until they end. A row holds a unit's id, and goes when the override does."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import delete, func, select

from rollout.db.session import Session
from rollout.db.tables import OverrideRow
from rollout.domain.override import Override

_AT_ONCE = 1000
"""Overrides that one transaction ends; the rest follow in the next."""


async def of_environment(session: Session, environment: str, flag: str | None = None) -> list[Override]:
    """Those of an environment, soonest to end first; also those whose end has come and that nobody has ended yet."""
    query = select(OverrideRow).where(OverrideRow.environment == environment)
    if flag is not None:
        query = query.where(OverrideRow.flag == flag)
    rows = await session.execute(query.order_by(OverrideRow.expires_at, OverrideRow.id))
    return [_override(row) for row in rows.scalars()]


async def find(session: Session, flag: str, environment: str, unit: str) -> Override | None:
    """The override of one unit, locked until the transaction ends."""
    query = select(OverrideRow).where(
        OverrideRow.environment == environment, OverrideRow.flag == flag, OverrideRow.unit == unit
    )
    row = (await session.execute(query.with_for_update())).scalar_one_or_none()
    return None if row is None else _override(row)


async def add(session: Session, override: Override) -> None:
    """Store one; a unit has at most one for a flag and an environment."""
    session.add(OverrideRow(**{name: getattr(override, name) for name in Override.__struct_fields__}))
    await session.flush()


async def remove(session: Session, ended: Iterable[Override]) -> None:
    """Forget them, and with them their units."""
    await session.execute(delete(OverrideRow).where(OverrideRow.id.in_([each.id for each in ended])))


async def next_end(session: Session) -> datetime | None:
    """When the next one ends; None without any."""
    return (await session.execute(select(func.min(OverrideRow.expires_at)))).scalar_one()


async def count(session: Session, environment: str, now: datetime, flag: str | None = None) -> int:
    """How many an environment has now, of one flag or of all."""
    mine = select(func.count()).where(OverrideRow.environment == environment, OverrideRow.expires_at > now)
    if flag is not None:
        mine = mine.where(OverrideRow.flag == flag)
    return (await session.execute(mine)).scalar_one()


async def environment_of_expired(session: Session, now: datetime) -> str | None:
    """Where the override ended that has been over for longest; None when none is over."""
    over = select(OverrideRow.environment).where(OverrideRow.expires_at <= now)
    return (await session.execute(over.order_by(OverrideRow.expires_at, OverrideRow.id).limit(1))).scalar_one_or_none()


async def expired(session: Session, environment: str, now: datetime) -> Sequence[Override]:
    """The overrides of an environment whose end has come, locked."""
    over = select(OverrideRow).where(OverrideRow.environment == environment, OverrideRow.expires_at <= now)
    found = await session.execute(over.order_by(OverrideRow.id).limit(_AT_ONCE).with_for_update())
    return [_override(row) for row in found.scalars()]


def _override(row: OverrideRow) -> Override:
    return Override(**{name: getattr(row, name) for name in Override.__struct_fields__})
