"""Authored documents that live under a key with a revision: flags, cohorts, metrics."""

from typing import Any

from sqlalchemy import insert, select, update

from rollout.db.session import UNCHANGED, Session
from rollout.db.tables import CohortRow, FlagRow, MetricRow
from rollout.domain.cohort import Cohort
from rollout.domain.document import same
from rollout.domain.flag import Flag
from rollout.domain.metric import Metric

Stored = tuple[Any, int]
"""A document and its revision."""

_ROWS: dict[type, Any] = {Flag: FlagRow, Cohort: CohortRow, Metric: MetricRow}


async def find(session: Session, kind: type, key: str, *, lock: bool = False) -> Stored | None:
    """A document and its revision by key; `lock` keeps others from changing it until the transaction ends."""
    row = await session.get(_ROWS[kind], key, with_for_update=UNCHANGED if lock else None, populate_existing=lock)
    return None if row is None else (row.document, row.revision)


async def every(session: Session, kind: type) -> dict[str, Stored]:
    """All documents of a kind, by key in order."""
    row = _ROWS[kind]
    found = await session.execute(select(row).order_by(row.key))
    return {each.key: (each.document, each.revision) for each in found.scalars()}


async def save(session: Session, document: Flag | Cohort | Metric, stored: Stored | None) -> int:
    """Insert or replace; the new revision. `stored` is what `find` returned, locked, in the same transaction."""
    row = _ROWS[type(document)]
    if stored is None:
        await session.execute(insert(row).values(key=document.key, revision=1, document=document))
        return 1
    before, revision = stored
    if same(before, document):
        return revision
    changed = update(row).where(row.key == document.key).values(document=document, revision=revision + 1)
    await session.execute(changed)
    return revision + 1
