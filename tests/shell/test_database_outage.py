"""An address may name several servers, and a server that is lost or takes no writes any more is left behind."""

import asyncio

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from rollout.db.address import asynchronous
from rollout.db.outage import passing
from rollout.db.session import Database
from tests.shell.engine.lab import lab


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://me:p%40ss@a:1,b:2/x", "a,b", "1,2"),
        ("postgresql://me:p%40ss@a,b:2/x?connect_timeout=9", "a,b", "5432,2"),
        ("postgresql+psycopg://me:p%40ss@[::1]:1,b/x", "::1,b", "1,5432"),
        ("postgresql://me:p%40ss@/x?host=a:1&host=b:2", "a,b", "1,2"),
        ("postgresql://me:p%40ss@/x?host=a,b&port=1,2", "a,b", "1,2"),
    ],
)
def test_several_servers_reach_the_driver_and_the_one_that_takes_writes_is_asked_for(
    url: str, host: str, port: str
) -> None:
    made = make_url(asynchronous(url))
    _, arguments = made.get_dialect()().create_connect_args(made)
    assert arguments == {
        "user": "me", "password": "p@ss", "dbname": "x", "host": host, "port": port,
        "target_session_attrs": "read-write", **({"connect_timeout": "9"} if "timeout" in url else {}),
    }  # fmt: skip


def test_what_the_address_says_itself_stays_and_one_server_is_not_asked_anything() -> None:
    assert "target_session_attrs=any" in asynchronous("postgresql://a:1,b:2/x?target_session_attrs=any")
    assert asynchronous("postgresql://me@a:1/x") == "postgresql+psycopg://me@a:1/x"
    assert asynchronous("sqlite:///a,b.db").startswith("sqlite+aiosqlite:///")


@pytest.mark.parametrize(
    "url", ["postgresql://p:hunter2@a:1,b:zz/x", "postgresql://p:hunter2@a:1,/x", "postgresql://p:hunter2@a:1:2/x",
            "postgresql://p:hunter2@a:1,b:2/x?host=c", "mysql://p:hunter2@a/x"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_without_quoting_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"write HOST:PORT|cannot be read|not in both|no database") as refused:
        asynchronous(url)
    assert "hunter2" not in str(refused.value)


async def test_a_server_that_takes_no_writes_any_more_loses_its_connections(postgres_url: str) -> None:
    database = Database(postgres_url)
    try:
        await _demote(database)
        with pytest.raises(DBAPIError) as refused:
            async with database.write() as session:
                await session.execute(text("CREATE TABLE first (id int)"))
        assert passing(refused.value)
        async with database.write() as session:
            await session.execute(text("CREATE TABLE first (id int)"))
    finally:
        await database.close()


async def test_a_batch_is_stored_all_the_same_when_its_server_turned_away_or_was_lost(postgres_url: str) -> None:
    async with lab(postgres_url) as service:
        identifier = await service.start()
        await _demote(service.database)
        assert (await service.send(identifier, 0.02, 0.02)).accepted > 0
        attempt = (await service.row(identifier)).state.attempts[0].id
        ends = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name AND pid <> pg_backend_pid()"
        )
        async with service.database.write() as session:
            others = asyncio.gather(*(service.post({attempt: {"baseline": service.arm(50, 0.02)}}) for _ in range(4)))
            await asyncio.sleep(0.02)
            await session.execute(text(ends), {"name": make_url(postgres_url).database})
        assert all(answer.accepted > 0 for answer in await others)
        assert (await service.row(identifier)).accepted == 5


async def test_a_lock_that_is_not_to_be_had_passes_and_a_mistake_does_not(database_url: str) -> None:
    database = Database(database_url)
    try:
        with pytest.raises(DBAPIError) as mistaken:
            async with database.write() as session:
                await session.execute(text("INSERT INTO nowhere VALUES (1)"))
        assert not passing(mistaken.value)
        assert not passing(RuntimeError())
    finally:
        await database.close()


async def test_a_server_that_is_not_there_passes() -> None:
    database = Database("postgresql://nobody@127.0.0.1:9,127.0.0.1:10/x")
    try:
        with pytest.raises(DBAPIError) as gone:
            await database.ping()
        assert passing(gone.value)
    finally:
        await database.close()


async def _demote(database: Database) -> None:
    """Make every connection of the pool one to a server that refuses writes."""
    async with database.write() as session:
        await session.execute(text("SET SESSION default_transaction_read_only = on"))
