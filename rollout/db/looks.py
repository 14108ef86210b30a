"""Recorded looks with the increments that each took in: read page by page as they were written, never all at once."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

from sqlalchemy import select

from rollout.db.session import Database, Session
from rollout.db.tables import EvaluationRow, IncrementRow

PAGE = 50
"""Looks that are in memory together; a busy one holds a hundred kilobytes."""


class Logged(NamedTuple):
    """One row of the increment log; `body` is JSON."""

    attempt: str
    arm: str
    metric: str
    body: str


class Look(NamedTuple):
    """One recorded look; `inputs` is the JSON of what it was made with."""

    tick: int
    inputs: str
    rows: tuple[Logged, ...]


async def recorded(database: Database, rollout: str) -> AsyncIterator[Look]:
    """Every look of a rollout in order. What is recorded never changes, so each page is a transaction of its own."""
    after = 0
    while True:
        async with database.read() as session:
            page = await _page(session, rollout, after)
        for look in page:
            yield look
        if len(page) < PAGE:
            return
        after = page[-1].tick


async def _page(session: Session, rollout: str, after: int) -> Sequence[Look]:
    query = select(EvaluationRow.tick, EvaluationRow.inputs).where(
        EvaluationRow.rollout == rollout, EvaluationRow.tick > after
    )
    found = (await session.execute(query.order_by(EvaluationRow.tick).limit(PAGE))).all()
    if not found:
        return []
    columns = (IncrementRow.tick, IncrementRow.attempt, IncrementRow.arm, IncrementRow.metric, IncrementRow.body)
    logged = select(*columns).where(
        IncrementRow.rollout == rollout, IncrementRow.tick > after, IncrementRow.tick <= found[-1].tick
    )
    rows: dict[int | None, list[Logged]] = {}
    for tick, *row in (await session.execute(logged.order_by(IncrementRow.id))).all():
        rows.setdefault(tick, []).append(Logged(*row))
    return [Look(tick, inputs, tuple(rows.get(tick, ()))) for tick, inputs in found]
