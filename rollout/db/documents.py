"""Authored documents that live under a key with a revision: flags, cohorts, metrics."""

from typing import Any

from sqlalchemy import select

from rollout.db.session import Session
from rollout.db.tables import CohortRow, FlagRow, MetricRow
from rollout.domain.cohort import Cohort
from rollout.domain.document import same
from rollout.domain.flag import Flag
from rollout.domain.metric import Metric
from rollout.errors import Conflict

Stored = tuple[Any, int]
"""A document and its revision."""

_ROWS: dict[type, Any] = {Flag: FlagRow, Cohort: CohortRow, Metric: MetricRow}


async def find(session: Session, kind: type, key: str, *, lock: bool = False) -> Stored | None:
    """A document and its revision by key; `lock` keeps others from changing it until the transaction ends."""
    row = await session.get(_ROWS[kind], key, with_for_update=lock or None)
    return None if row is None else (row.document, row.revision)


async def every(session: Session, kind: type) -> dict[str, Stored]:
    """All documents of a kind, by key in order."""
    row = _ROWS[kind]
    found = await session.execute(select(row).order_by(row.key))
    return {each.key: (each.document, each.revision) for each in found.scalars()}


async def save(session: Session, document: Flag | Cohort | Metric, expected: int | None) -> int:
    """Insert or replace; the new revision.

    Raises:
        Conflict: `expected` is not the stored revision (0: must not exist yet; None: whatever it is).
    """
    kind = _ROWS[type(document)]
    row = await session.get(kind, document.key, with_for_update=True)
    stored = row.revision if row is not None else 0
    if expected is not None and expected != stored:
        raise Conflict(f"{document.key!r} is at revision {stored}, not {expected}; read it again and repeat the change")
    if row is None:
        session.add(kind(key=document.key, revision=1, document=document))
    elif not same(row.document, document):
        row.document, row.revision = document, stored + 1
    await session.flush()
    return 1 if row is None else row.revision
