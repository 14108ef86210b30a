"""What processes on one PostgreSQL tell each other (LISTEN and NOTIFY): small ids, and never more than a hint.

A notice that is lost costs a second, because everybody polls what it points to. SQLite serves one process, which has
nobody to tell.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal, NamedTuple, get_args

import psycopg
from sqlalchemy import text

from rollout.db.address import patient
from rollout.db.session import Database, Session

Kind = Literal["ruleset", "due"]
_CHANNEL = "rampline"
_LONGEST = 15.0
"""Seconds after which the connection is tried, whatever came over it."""


class Notice(NamedTuple):
    """`ruleset`: `about` is ENVIRONMENT/REVISION.EDITION, which was published. `due`: evidence waits to be judged."""

    kind: Kind
    about: str = ""


async def tell(session: Session, notice: Notice) -> None:
    """Tell every process that listens, when this transaction commits and not otherwise."""
    if session.get_bind().dialect.name == "postgresql":
        said = {"channel": _CHANNEL, "said": f"{notice.kind} {notice.about}"}
        await session.execute(text("SELECT pg_notify(:channel, :said)"), said)


async def listen(database: Database) -> AsyncGenerator[Notice | None]:
    """Every notice from now on, over a connection of its own; None at first and every 15 s: look for yourself.

    Close it (`aclosing`). It ends with an exception when the connection is lost, and yields nothing on SQLite.
    """
    if database.is_sqlite:
        return
    connection = await psycopg.AsyncConnection.connect(**_arguments(database), autocommit=True)
    async with connection:
        await connection.execute(f"LISTEN {_CHANNEL}")
        yield None
        while True:
            async with aclosing(connection.notifies(timeout=_LONGEST)) as heard:
                async for each in heard:
                    kind, _, about = each.payload.partition(" ")
                    if kind in get_args(Kind):  # another version may know other kinds
                        yield Notice(kind, about)  # type: ignore[arg-type]  # one of Kind, as was just asked
            await connection.execute("SELECT 1")
            yield None


def _arguments(database: Database) -> dict[str, Any]:
    """What the pool connects with, so that this finds the same server."""
    engine = database.engine.sync_engine
    _, arguments = engine.dialect.create_connect_args(engine.url)
    return {**patient(database.url), **arguments}
