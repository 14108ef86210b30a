"""How old the engine's last complete protect pass is, by the database's own clock: what leases are made of."""

from sqlalchemy import BigInteger, ColumnElement, Integer, cast, func, select

from rollout.db.session import Session
from rollout.db.tables import EngineRow

_ONLY = 1


async def beat(session: Session) -> None:
    """An engine has just completed a protect pass."""
    row = await session.get(EngineRow, _ONLY)
    moment = (await session.execute(select(_now_ms(session)))).scalar_one()
    if row is None:
        session.add(EngineRow(id=_ONLY, protected_ms=moment))
    else:
        row.protected_ms = max(row.protected_ms, moment)
    await session.flush()


async def engine_age_ms(session: Session) -> int | None:
    """Milliseconds since the last complete protect pass; None when there never was one."""
    age = _now_ms(session) - EngineRow.protected_ms
    found = (await session.execute(select(age).where(EngineRow.id == _ONLY))).scalar_one_or_none()
    return None if found is None else max(0, int(found))


def _now_ms(session: Session) -> ColumnElement[int]:
    if session.get_bind().dialect.name == "sqlite":
        return cast((func.julianday("now") - 2440587.5) * 86_400_000, Integer)
    return cast(func.extract("epoch", func.clock_timestamp()) * 1000, BigInteger)
