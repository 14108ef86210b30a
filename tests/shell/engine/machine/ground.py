"""What the machine stands on: a clock that jumps, a database that is new for each example, commits that fail, and two
processes of the service that die and start again.
"""

import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, Literal

import psycopg
from sqlalchemy import BigInteger, ColumnElement, literal

from rollout.db import documents, environments
from rollout.db.base import Base
from rollout.db.migrate import migrate
from rollout.db.session import Database, Session, Unavailable
from rollout.delivery.hub import Hub
from rollout.delivery.publish import publish_everywhere
from rollout.domain.environment import Environment
from rollout.engine.control import Control
from rollout.engine.watchman import Watchman

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
Fault = Literal["crash_before", "crash_after", "lost_before", "lost_after"]
"""At a commit: the process dies, or only loses its connection; before anything is stored, or after everything is."""
FAULTS: tuple[Fault, ...] = ("crash_before", "crash_after", "lost_before", "lost_after")


class Crash(BaseException):
    """The process is gone. No `except Exception` of the product can go on after it."""


class Clock:
    """The time of day, which may jump back a little, and the monotonic time (seconds), which does not."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Go to the first moment."""
        self.now, self.monotonic = START, 0.0

    def move(self, seconds: float) -> None:
        """Let time pass, or the time of day be set back."""
        self.now += timedelta(seconds=seconds)
        self.monotonic += max(seconds, 0.0)

    def milliseconds(self) -> int:
        """SQLite's clock, in the place of `heartbeat._own_ms`."""
        return round(self.now.timestamp() * 1000)

    def now_ms(self, _: Session) -> ColumnElement[int]:
        """The clock of either database, in the place of `heartbeat._now_ms`."""
        return literal(self.milliseconds(), BigInteger)


class Faults:
    """Which of the next commits fails, and how; one at a time."""

    def __init__(self) -> None:
        self.kind: Fault | None = None
        self.left = 0

    def arm(self, kind: Fault, commit: int) -> None:
        """Let the `commit`-th commit from now fail; 1 is the next one."""
        self.kind, self.left = kind, commit

    def disarm(self) -> None:
        """Nothing fails any more."""
        self.kind = None

    def due(self) -> Fault | None:
        """The fault of the commit that is coming now."""
        self.left -= 1
        if self.left > 0 or self.kind is None:
            return None
        kind, self.kind = self.kind, None
        return kind


class FaultyDatabase(Database):
    """A database whose commits fail as `faults` says."""

    def __init__(self, url: str, faults: Faults) -> None:
        super().__init__(url)
        self._faults = faults

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Session]:
        """As the real one, but for the fault at its end."""
        async with super().write() as session:
            yield session
            fault = self._faults.due()
            fail(fault, "before")
        fail(fault, "after")


def fail(fault: Fault | None, moment: Literal["before", "after"]) -> None:
    """Raise what a fault does at this moment, if it does anything."""
    if fault == f"crash_{moment}":
        raise Crash
    if fault == f"lost_{moment}":
        raise Unavailable("COMMIT", None, ConnectionError("the connection was lost"))


class Process:
    """One process of the service. All that it holds in memory goes with it; the database stays.

    It keeps its `Database`, which holds nothing but connections: closed, it opens new ones, and need not learn every
    statement again as a really new process must.
    """

    def __init__(self, database: Database, clock: Clock, new_id: Callable[[str], str]) -> None:
        self.database = database
        self._clock, self._new_id = clock, new_id
        self.start()

    def start(self) -> None:
        """Nothing is known yet."""
        self.control = Control(self.database, Hub(self.database), now=lambda: self._clock.now, new_id=self._new_id)
        self.watchman = Watchman(self.control)

    async def restart(self) -> None:
        """The connections go, and what was not committed with them; then a new process starts."""
        await self.database.close()
        self.start()
        await self.control.hub.refresh()


class Ground:
    """A database that is as good as new for each example, and two processes on it."""

    def __init__(self, url: str, store: "SqliteStore | PostgresStore") -> None:
        self.url, self.store = url, store
        self.faults = Faults()
        self.clock = Clock()
        self._databases = [FaultyDatabase(url, self.faults) for _ in range(2)]

    async def lay(self, seeds: list[Any], environment_keys: list[str]) -> None:
        """Migrate once, save the documents that every example begins with, and keep that for `renew`."""
        database = self._databases[0]
        await migrate(database)
        async with database.write() as session:
            for key in environment_keys:
                await environments.save(session, Environment(key=key), START)
            for document in seeds:
                await documents.save(session, document, None)
            await publish_everywhere(session, START)
        await self.close()
        self.store.keep()

    async def renew(self) -> list[Process]:
        """Two new processes on the database as it was laid, at the first moment."""
        await self.close()
        self.store.renew()
        self.faults.disarm()
        self.clock.begin()
        ids = count(1)
        made = [Process(each, self.clock, lambda prefix: f"{prefix}_{next(ids):04}") for each in self._databases]
        for process in made:
            await process.control.hub.refresh()
        return made

    async def close(self) -> None:
        """Let go of every connection."""
        for database in self._databases:
            await database.close()


_WAKE = "UPDATE rollouts SET quiet_until = NULL, next_check_at = '{now}' WHERE id IN ({ids})"


def _quoted(rollouts: Iterable[str]) -> str:
    return ", ".join(f"'{each}'" for each in rollouts)


class SqliteStore:
    """The file of an SQLite database, a copy of it, and a reader of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.copy = path, path.with_suffix(".laid")
        self._connection: sqlite3.Connection | None = None

    def keep(self) -> None:
        """Copy the file; nobody may have it open."""
        shutil.copyfile(self.path, self.copy)

    def renew(self) -> None:
        """Bring the copy back; nobody may have the file open."""
        self.close()
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(self.copy, self.path)
        self._connection = sqlite3.connect(self.path, isolation_level=None)

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """What is committed, past every layer of the product."""
        assert self._connection is not None
        return iter(self._connection.execute(query).fetchall())

    def wake(self, rollouts: Iterable[str], now: datetime) -> None:
        """Make rollouts due and not quiet, behind the product's back."""
        assert self._connection is not None
        self._connection.execute(_WAKE.format(now=now.strftime("%Y-%m-%d %H:%M:%S.%f"), ids=_quoted(rollouts)))

    def close(self) -> None:
        """Let the file go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class PostgresStore:
    """A PostgreSQL database with a copy of its rows in a schema of their own, and a reader."""

    def __init__(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        self._connection = connection

    def keep(self) -> None:
        """Copy every table."""
        self._connection.execute("CREATE SCHEMA laid")
        for table in Base.metadata.tables:
            self._connection.execute(f'CREATE TABLE laid."{table}" AS TABLE public."{table}"')

    def renew(self) -> None:
        """Empty every table and bring the copies back."""
        tables = [table.name for table in Base.metadata.sorted_tables]
        emptied = [f'DELETE FROM public."{table}"' for table in reversed(tables)]
        filled = [f'INSERT INTO public."{table}" SELECT * FROM laid."{table}"' for table in tables]
        self._connection.execute("; ".join([*emptied, *filled]))

    def rows(self, query: str) -> Iterator[tuple[Any, ...]]:
        """What is committed, past every layer of the product."""
        return iter(self._connection.execute(query).fetchall())

    def wake(self, rollouts: Iterable[str], now: datetime) -> None:
        """Make rollouts due and not quiet, behind the product's back."""
        self._connection.execute(_WAKE.format(now=now.isoformat(), ids=_quoted(rollouts)))

    def close(self) -> None:
        """Let the connection go."""
        self._connection.close()
