"""What this process tells the others, and hears from them, so that none waits for its next look at the database.

Only hints: every process polls all the same, and a hint that is lost costs a second.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import structlog

from rollout.db import notices
from rollout.db.notices import Notice
from rollout.engine.control import Control

_FIRST, _LONGEST = 0.2, 5.0
"""Seconds until a lost connection is tried again; twice as long after each failure."""
_PAUSE = 0.05
_log = structlog.get_logger("rollout.hints")


class Hints:
    """Hears from `start` to `stop`. `nudge` is for evidence that another process has accepted.

    That there is evidence is told after the commit, in a transaction of its own and at most twenty times a second:
    PostgreSQL lets one notifying transaction commit at a time, and batches should not queue for that.
    """

    def __init__(self, control: Control, nudge: Callable[[], None] = lambda: None) -> None:
        self._control, self._nudge = control, nudge
        self._due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to listen; nothing is heard where the database is SQLite, which nobody else has open."""
        if not self._control.database.is_sqlite:
            self._tasks = [
                asyncio.create_task(self._hear(), name="rollout-hear"),
                asyncio.create_task(self._tell(), name="rollout-tell"),
            ]

    def due(self) -> None:
        """A batch was accepted here: let an engine elsewhere know soon."""
        self._due.set()

    async def stop(self) -> None:
        """Let go of the connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _hear(self) -> None:
        pause = _FIRST
        while True:
            try:
                async with aclosing(notices.listen(self._control.database)) as heard:
                    async for notice in heard:
                        if pause > _FIRST:
                            _log.info("hints are heard again")
                            pause = _FIRST
                        await self._take(notice)
            except Exception as error:
                if pause == _FIRST:
                    _log.warning("no hints are heard", cause=type(error).__name__)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST)

    async def _take(self, notice: Notice | None) -> None:
        if notice is None or (notice.kind == "ruleset" and not self._holds(notice.about)):
            await self._control.hub.refresh()
        if notice is None or notice.kind == "due":
            self._nudge()

    def _holds(self, about: str) -> bool:
        environment, _, tag = about.partition("/")
        newest = self._control.hub.newest(environment)
        return newest is not None and newest.tag == tag

    async def _tell(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                async with self._control.database.write() as session:
                    await notices.tell(session, Notice("due"))
            except Exception as error:
                _log.debug("a hint could not be given", cause=type(error).__name__)
            await asyncio.sleep(_PAUSE)
