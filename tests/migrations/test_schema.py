"""Migrations: the migrated schema is the one the code expects; starting twice and failing halfway leave it whole."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

from rollout.db import migrate as migrate_module
from rollout.db import tables
from rollout.db.migrate import migrate
from rollout.db.session import Database


def differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, tables.Base.metadata))


def table_names(connection: Connection) -> list[str]:
    return inspect(connection).get_table_names()


async def test_the_migrated_schema_is_what_the_code_expects(database_url: str) -> None:
    database = Database(database_url)
    try:
        await migrate(database)
        async with database.engine.connect() as connection:
            assert await connection.run_sync(differences) == []
    finally:
        await database.close()


async def test_servers_that_start_together_migrate_once(database_url: str) -> None:
    databases = [Database(database_url) for _ in range(8)]
    try:
        await asyncio.gather(*(migrate(database) for database in databases))
        await migrate(databases[0])
    finally:
        for database in databases:
            await database.close()


async def test_a_migration_that_fails_leaves_nothing_behind(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = migrate_module._scripts()
    broken = tmp_path / "migrations"
    (broken / "versions").mkdir(parents=True)
    (broken / "env.py").write_text((real / "env.py").read_text())
    first = next((real / "versions").glob("0001*.py")).read_text()
    (broken / "versions" / "0001_broken.py").write_text(
        first.replace("def downgrade", 'def late() -> None:\n    raise RuntimeError("half way")\n\n\ndef downgrade')
        + "\n\n_whole = upgrade\n\n\ndef upgrade() -> None:\n    _whole()\n    late()\n"
    )
    database = Database(database_url)
    try:
        monkeypatch.setattr(migrate_module, "_scripts", lambda: broken)
        with pytest.raises(RuntimeError, match="half way"):
            await migrate(database)
        async with database.engine.connect() as connection:
            assert await connection.run_sync(table_names) == []
        monkeypatch.undo()
        await migrate(database)
    finally:
        await database.close()
