"""What happened to flags in environments: killed, restored, released."""

from sqlalchemy import select

from rollout.db.session import Session
from rollout.db.tables import FlagStateRow
from rollout.domain.flag import FlagState


async def of_environment(session: Session, environment: str) -> dict[str, FlagState]:
    """Every flag's state in one environment."""
    rows = await session.execute(select(FlagStateRow).where(FlagStateRow.environment == environment))
    return {row.flag: _state(row) for row in rows.scalars()}


async def find(session: Session, flag: str, environment: str) -> FlagState:
    """One flag's state; nothing has happened to a flag without a row."""
    row = await session.get(FlagStateRow, (flag, environment))
    return _state(row) if row is not None else FlagState()


async def save(session: Session, flag: str, environment: str, state: FlagState) -> None:
    """Replace one flag's state in one environment."""
    await session.merge(
        FlagStateRow(
            flag=flag,
            environment=environment,
            released=state.released,
            killed_at=state.killed_at,
            killed_by=state.killed_by,
            kill_reason=state.kill_reason,
        )
    )
    await session.flush()


def _state(row: FlagStateRow) -> FlagState:
    return FlagState(
        released=row.released, killed_at=row.killed_at, killed_by=row.killed_by, kill_reason=row.kill_reason
    )
