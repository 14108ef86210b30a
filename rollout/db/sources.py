"""What the sources of metrics report about themselves: how often in a row one has failed."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from rollout.db.session import Session
from rollout.db.tables import RolloutRow, SourceRow
from rollout.domain.judge import SourceFailure
from rollout.domain.rollout import EXPOSED


async def failing(session: Session, environments: Iterable[str]) -> dict[str, dict[str, SourceFailure]]:
    """By environment, the metrics whose source failed when it was asked last."""
    query = select(SourceRow).where(SourceRow.environment.in_(set(environments)), SourceRow.failures > 0)
    found: dict[str, dict[str, SourceFailure]] = {}
    for row in (await session.execute(query.order_by(SourceRow.metric))).scalars():
        failure = SourceFailure(times=row.failures, error=row.error or "it failed", at=row.reported_at)
        found.setdefault(row.environment, {})[row.metric] = failure
    return found


async def report(session: Session, environment: str, metric: str, error: str | None, now: datetime) -> int:
    """Count a failure, or with None forget them; how many there have been in a row.

    Exposed rollouts are looked at now; one that somebody holds at this moment is looked at within seconds anyway.
    """
    insert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    first = insert(SourceRow).values(environment=environment, metric=metric, failures=0, error=None, reported_at=now)
    await session.execute(first.on_conflict_do_nothing())  # of two first reports at one moment neither is lost
    row = await session.get_one(SourceRow, (environment, metric), with_for_update=True, populate_existing=True)
    row.failures = 0 if error is None else row.failures + 1
    row.error, row.reported_at = error, now
    await session.flush()
    exposed = (
        select(RolloutRow.id)
        .where(RolloutRow.environment == environment, RolloutRow.status.in_(EXPOSED))
        .with_for_update(skip_locked=True)  # waiting for several at once could deadlock with a batch of several
    )
    due = update(RolloutRow).where(RolloutRow.id.in_((await session.execute(exposed)).scalars().all()))
    await session.execute(due.values(next_check_at=now).execution_options(synchronize_session=False))
    return row.failures
