"""The unit of work: one transaction at the edge, on SQLite and on PostgreSQL.

SQLite has one writer connection whose transactions begin IMMEDIATE, so writers queue; readers have connections of
their own that cannot write. On PostgreSQL both are one pool. What is atomic on one engine is atomic on the other.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import ExceptionContext, event, make_url, text
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from rollout.db.address import asynchronous, patient
from rollout.db.outage import ends_connection

Session = AsyncSession
Duplicate = IntegrityError
"""A row that must be unique exists already."""
Unstorable = DataError
"""A value that no column can hold."""
Unavailable = OperationalError
"""The database did not do it now: a lock held too long, a deadlock, a lost connection."""
UNCHANGED: Any = {"key_share": True}
"""A lock on a row that many others refer to: nobody changes it meanwhile, and they can still be written."""
_PATIENCE = "-c lock_timeout=8s -c statement_timeout=30s -c idle_in_transaction_session_timeout=4s"
"""PostgreSQL ends what a stopped process left half done, well before those who wait for its locks give up: a kill or a
roll back, by a person or by another engine, comes through within five seconds."""
_PRAGMAS = ("busy_timeout=5000", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY")


class Database:
    """An open database. `close` must be called: an undisposed SQLite engine keeps the interpreter alive."""

    def __init__(self, url: str) -> None:
        self.url = asynchronous(url)
        self.is_sqlite = make_url(self.url).get_backend_name() == "sqlite"
        if self.is_sqlite:
            self._writer = _sqlite(self.url, size=1, begin="BEGIN IMMEDIATE")
            self._reader = _sqlite(self.url, size=8, begin="BEGIN", pragmas=("query_only=ON",))
        else:
            self._writer = self._reader = _postgresql(self.url)
        self._write = async_sessionmaker(self._writer, expire_on_commit=False)
        self._read = async_sessionmaker(self._reader, expire_on_commit=False)

    @property
    def engine(self) -> AsyncEngine:
        """The writing engine, for migrations."""
        return self._writer

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Session]:
        """One transaction: committed on leaving, rolled back on an exception."""
        async with self._write.begin() as session:
            yield session

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Session]:
        """A consistent view that writes nothing."""
        async with self._read.begin() as session:
            yield session

    async def ping(self) -> None:
        """Raise unless the database answers."""
        async with self.read() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Let go of every connection."""
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()


def _postgresql(url: str) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=10,
        max_overflow=10,
        pool_pre_ping=True,  # a connection to a server that is gone is replaced before it is used
        hide_parameters=True,
        connect_args={**patient(url), "options": _PATIENCE},
    )
    event.listen(engine.sync_engine, "handle_error", _give_up_connection)
    return engine


def _give_up_connection(context: ExceptionContext) -> None:
    """A server that was demoted or is ending answers still, and would for ever: all connections to it are replaced."""
    if ends_connection(context.original_exception):
        context.is_disconnect = True


def _sqlite(url: str, size: int, begin: str, pragmas: tuple[str, ...] = ()) -> AsyncEngine:
    engine = create_async_engine(
        url,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=size,
        max_overflow=0,
        pool_timeout=60,
        hide_parameters=True,  # a statement's values may be somebody's data; errors show the statement only
    )

    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (*_PRAGMAS, *pragmas):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine
