"""How old the engine's last complete protect pass is, by the database's own clock: what leases are made of."""

from time import time_ns

from sqlalchemy import BigInteger, ColumnElement, case, cast, func, literal, select
from sqlalchemy.dialects import postgresql, sqlite

from rollout.db.session import Session
from rollout.db.tables import EngineRow

_ONLY = 1


async def moment_ms(session: Session) -> int:
    """This moment by the database's clock, in milliseconds since 1970."""
    if _is_sqlite(session):
        return _own_ms()
    return (await session.execute(select(_now_ms(session)))).scalar_one()


async def beat(session: Session, began_ms: int) -> None:
    """An engine has completed a protect pass that began at `began_ms`; of several engines the latest pass counts.

    A pass vouches from its beginning on: an engine that was held up in between has seen nothing since.
    """
    insert = sqlite.insert if _is_sqlite(session) else postgresql.insert
    beaten = insert(EngineRow).values(id=_ONLY, protected_ms=began_ms)
    given = beaten.excluded.protected_ms
    later = case((EngineRow.protected_ms > given, EngineRow.protected_ms), else_=given)
    await session.execute(beaten.on_conflict_do_update(index_elements=[EngineRow.id], set_={"protected_ms": later}))


async def engine_age_ms(session: Session) -> int | None:
    """Milliseconds since the last complete protect pass; None when there never was one."""
    age = _now_ms(session) - EngineRow.protected_ms
    found = (await session.execute(select(age).where(EngineRow.id == _ONLY))).scalar_one_or_none()
    return None if found is None else max(0, int(found))


def _is_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def _own_ms() -> int:
    """The clock of this machine, which is SQLite's."""
    return time_ns() // 1_000_000


def _now_ms(session: Session) -> ColumnElement[int]:
    if _is_sqlite(session):
        return literal(_own_ms(), BigInteger)
    return cast(func.extract("epoch", func.clock_timestamp()) * 1000, BigInteger)
