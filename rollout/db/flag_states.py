"""What happened to flags in environments: killed, restored, released."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from rollout.db.session import Session
from rollout.db.tables import FlagStateRow
from rollout.domain.flag import FlagState


async def of_environment(session: Session, environment: str) -> dict[str, FlagState]:
    """Every flag's state in one environment."""
    query = select(FlagStateRow).where(FlagStateRow.environment == environment)
    rows = await session.execute(query.execution_options(populate_existing=True))
    return {row.flag: _state(row) for row in rows.scalars()}


async def find(session: Session, flag: str, environment: str) -> FlagState:
    """One flag's state; nothing has happened to a flag without a row."""
    row = await session.get(FlagStateRow, (flag, environment), populate_existing=True)
    return _state(row) if row is not None else FlagState()


async def release(session: Session, flag: str, environment: str, variant: str) -> None:
    """What everyone gets from now on whom no rule serves; leaves a kill as it is."""
    await _upsert(session, flag, environment, {"released": variant})


async def kill(session: Session, flag: str, environment: str, state: FlagState) -> None:
    """Set or end a kill as `state` says; leaves what was released as it is."""
    killed = {"killed_at": state.killed_at, "killed_by": state.killed_by, "kill_reason": state.kill_reason}
    await _upsert(session, flag, environment, killed)


async def _upsert(session: Session, flag: str, environment: str, values: dict[str, Any]) -> None:
    """Write some columns whatever the others hold: a kill and an ending rollout may come at the same moment."""
    insert = sqlite_insert if session.get_bind().dialect.name == "sqlite" else postgresql_insert
    statement = insert(FlagStateRow).values(flag=flag, environment=environment, **values)
    keys = [FlagStateRow.flag, FlagStateRow.environment]
    await session.execute(
        statement.on_conflict_do_update(index_elements=keys, set_=values).execution_options(synchronize_session=False)
    )


def _state(row: FlagStateRow) -> FlagState:
    return FlagState(
        released=row.released, killed_at=row.killed_at, killed_by=row.killed_by, kill_reason=row.kill_reason
    )
