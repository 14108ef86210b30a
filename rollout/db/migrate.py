"""Bringing a database to the present schema: on every start, in one transaction, one process at a time."""

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from rollout.db.session import Database

_LOCK = 7_261_846_029_311
"""Advisory lock that lets one of several starting servers migrate while the others wait."""
_WAIT = 30
"""Seconds that a server waits for another to be done with a SQLite file."""

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


async def migrate(database: Database) -> None:
    """Upgrade to the newest schema; wholly or not at all.

    SQLite migrates with foreign keys off (tables are rebuilt by renaming) and is checked before the commit.
    """
    engine = create_async_engine(database.url, poolclass=NullPool)
    if database.is_sqlite:
        event.listen(engine.sync_engine, "connect", _sqlite_connected)
        event.listen(engine.sync_engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        if database.is_sqlite:
            await _log_ahead(engine)
        async with engine.begin() as connection:
            if not database.is_sqlite:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            await connection.run_sync(_upgrade)
            if database.is_sqlite:
                broken = (await connection.execute(text("PRAGMA foreign_key_check"))).all()
                if broken:
                    raise RuntimeError(f"the migration would leave dangling references: {broken[:3]}")
    finally:
        await engine.dispose()


async def _log_ahead(engine: AsyncEngine) -> None:
    """Give a new file its write-ahead log, which it keeps: every later connection finds it so.

    Changing the mode takes the whole file, and SQLite refuses at once where waiting could be a deadlock, whatever the
    busy timeout says: of servers that start together on a new file, one in some hundred failed.
    """
    until = time.monotonic() + _WAIT
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection
        while True:
            try:
                await raw.execute("PRAGMA journal_mode=WAL")  # type: ignore[union-attr] # the driver's own connection
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _BUSY or time.monotonic() > until:
                    raise
                await asyncio.sleep(0.02)


def configuration(connection: Connection) -> Config:
    """Alembic's configuration for a given connection."""
    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    command.upgrade(configuration(connection), "head")


def _scripts() -> Path:
    """Inside an installed wheel the migrations live in the package, in a checkout beside it."""
    package = Path(__file__).parents[1]
    installed = package / "_migrations"
    return installed if installed.exists() else package.parent / "migrations"


def _sqlite_connected(connection: Any, _: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={_WAIT * 1000}", "synchronous=FULL", "foreign_keys=OFF"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
