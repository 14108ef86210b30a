"""Hints between processes: told by a commit and by nothing else, heard again after a lost connection, never needed."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from sqlalchemy import text

from rollout.db import notices
from rollout.db.notices import Notice
from rollout.db.session import Database
from rollout.delivery.hub import Hub
from rollout.engine.control import Control
from rollout.engine.hints import Hints
from tests.shell.engine.lab import Lab, lab


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("not within ten seconds")


async def tag(service: Lab) -> str:
    await service.control.hub.refresh()
    newest = service.control.hub.newest("production")
    assert newest is not None
    return newest.tag


def another(url: str) -> Control:
    """What another process on the same database has."""
    database = Database(url)
    return Control(database, Hub(database))


async def test_a_ruleset_is_told_with_its_commit_and_not_without(postgres_url: str) -> None:
    async with lab(postgres_url) as service, aclosing(notices.listen(service.database)) as heard:
        assert await anext(heard) is None
        try:
            async with service.database.write() as session:
                await notices.tell(session, Notice("due"))
                raise RuntimeError("it is not committed")
        except RuntimeError:
            pass
        await service.start()
        assert await asyncio.wait_for(anext(heard), 5) == Notice("ruleset", f"production/{await tag(service)}")


async def test_what_another_process_publishes_or_accepts_is_taken_up_at_once(postgres_url: str) -> None:
    async with lab(postgres_url) as service:
        other, nudges = another(postgres_url), []
        listening, telling = Hints(other, lambda: nudges.append(1)), Hints(service.control)
        await listening.start()
        await telling.start()
        try:
            await eventually(lambda: bool(nudges))
            await service.start()
            published = await tag(service)
            await eventually(lambda: other.hub.newest("production").tag == published)
            before = len(nudges)
            for _ in range(50):
                telling.due()
            await eventually(lambda: len(nudges) > before)
            await asyncio.sleep(0.3)
            assert len(nudges) <= before + 2, "batches that come together are told of together"
        finally:
            await listening.stop()
            await telling.stop()
            await other.database.close()


async def test_a_lost_connection_is_made_again_and_what_was_missed_is_looked_up(postgres_url: str) -> None:
    async with lab(postgres_url) as service:
        other = another(postgres_url)
        hints = Hints(other)
        await hints.start()
        try:
            await eventually(lambda: other.hub.newest("production") is not None)
            ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            async with service.database.write() as session:
                assert (await session.execute(text(ends))).scalars().all() == [True]
            await service.start()
            published = await tag(service)
            await eventually(lambda: other.hub.newest("production").tag == published)
        finally:
            await hints.stop()
            await other.database.close()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("rollout-")]


async def test_on_sqlite_nobody_is_told_and_nobody_listens(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        hints = Hints(service.control)
        await hints.start()
        hints.due()
        await service.start()
        assert [notice async for notice in notices.listen(service.database)] == []
        await hints.stop()
