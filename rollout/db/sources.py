"""What the sources of metrics report about themselves: how often in a row one has failed."""

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select, update

from rollout.db.session import Session
from rollout.db.tables import RolloutRow, SourceRow
from rollout.domain.judge import SourceFailure
from rollout.domain.rollout import EXPOSED


async def failing(session: Session, environment: str, metrics: Iterable[str]) -> dict[str, SourceFailure]:
    """The metrics among these whose source failed when it was asked last."""
    query = select(SourceRow).where(
        SourceRow.environment == environment, SourceRow.metric.in_(list(metrics)), SourceRow.failures > 0
    )
    return {
        row.metric: SourceFailure(times=row.failures, error=row.error or "it failed", at=row.reported_at)
        for row in (await session.execute(query.order_by(SourceRow.metric))).scalars()
    }


async def report(session: Session, environment: str, metric: str, error: str | None, now: datetime) -> int:
    """Count a failure, or with None forget them; how many there have been in a row. Exposed rollouts are looked at."""
    row = await session.get(SourceRow, (environment, metric), with_for_update=True)
    if row is None:
        row = SourceRow(environment=environment, metric=metric, failures=0, error=None, reported_at=now)
        session.add(row)
    row.failures = 0 if error is None else row.failures + 1
    row.error, row.reported_at = error, now
    await session.flush()
    await session.execute(
        update(RolloutRow)
        .where(RolloutRow.environment == environment, RolloutRow.status.in_(EXPOSED))
        .values(next_check_at=now)
        .execution_options(synchronize_session=False)
    )
    return row.failures
