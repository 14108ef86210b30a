"""Reusable plans: versions are only ever added."""

from datetime import datetime

from sqlalchemy import func, select

from rollout.db.session import Session
from rollout.db.tables import PlanRow
from rollout.domain.document import same
from rollout.domain.plan import Plan


async def find(session: Session, key: str, version: int | None = None) -> tuple[Plan, int] | None:
    """A plan by key and version (None: the newest), with its version."""
    query = select(PlanRow).where(PlanRow.key == key)
    if version is not None:
        query = query.where(PlanRow.version == version)
    row = (await session.execute(query.order_by(PlanRow.version.desc()).limit(1))).scalar_one_or_none()
    return None if row is None else (row.document, row.version)


async def every(session: Session) -> list[tuple[Plan, int]]:
    """The newest version of every plan."""
    newest = select(PlanRow.key, func.max(PlanRow.version).label("version")).group_by(PlanRow.key).subquery()
    query = select(PlanRow).join(newest, (PlanRow.key == newest.c.key) & (PlanRow.version == newest.c.version))
    rows = (await session.execute(query.order_by(PlanRow.key))).scalars()
    return [(row.document, row.version) for row in rows]


async def add(session: Session, plan: Plan, now: datetime) -> int:
    """Store as the next version, unless it equals the newest; its version."""
    newest = await find(session, plan.key)
    if newest is not None and same(newest[0], plan):
        return newest[1]
    version = newest[1] + 1 if newest is not None else 1
    session.add(PlanRow(key=plan.key, version=version, document=plan, created_at=now))
    await session.flush()
    return version
