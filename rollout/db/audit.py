"""The append-only audit trail: one row per change, in the transaction of the change."""

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import select

from rollout.db.session import Session
from rollout.db.tables import AuditRow


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded change. `target` is like `flag:support-answer`."""

    at: datetime
    actor: str
    action: str
    target: str
    environment: str | None = None
    detail: Any = None
    id: int = 0


async def record(session: Session, entry: Entry) -> None:
    """Append one row."""
    session.add(
        AuditRow(
            at=entry.at,
            actor=entry.actor,
            action=entry.action,
            target=entry.target,
            environment=entry.environment,
            detail=entry.detail,
        )
    )
    await session.flush()


async def page(
    session: Session, *, before: int | None = None, limit: int = 100, target: str | None = None
) -> list[Entry]:
    """Newest first; `before` is the id to go on from."""
    query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
    if before is not None:
        query = query.where(AuditRow.id < before)
    if target is not None:
        query = query.where(AuditRow.target == target)
    rows = (await session.execute(query)).scalars()
    return [
        Entry(
            id=row.id, at=row.at, actor=row.actor, action=row.action, target=row.target,
            environment=row.environment, detail=row.detail,
        )
        for row in rows
    ]  # fmt: skip
