"""The engine's clock: a round every tick, and one after each accepted batch. The only import of APScheduler.

APScheduler keeps time and nothing else; what is due stands in the database. Rounds after nudges are spaced by time
alone, never by what a batch says.
"""

import asyncio
from datetime import timedelta

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from rollout.engine import overrides, upkeep
from rollout.engine.control import Control
from rollout.engine.watchman import Watchman, let_garbage_wait
from rollout.stats import planning

_TOGETHER = 0.02
"""Seconds in which batches that come together are waited for."""
_log = structlog.get_logger("rollout.engine")


class Clock:
    """Runs the watchman from `start` to `stop`: every `tick` seconds, and at once after a nudge.

    `debounce` is the time from the end of a nudged round to the next, in seconds.
    """

    def __init__(self, control: Control, *, tick: float = 1.0, debounce: float = 0.2) -> None:
        self._control, self._watchman = control, Watchman(control)
        self._scheduler = AsyncIOScheduler(timezone="UTC")
        self._tick, self._debounce = timedelta(seconds=tick), debounce
        self._nudged = asyncio.Event()
        self._nudges: asyncio.Task[None] | None = None
        self._rounds: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def start(self) -> None:
        """Begin with a round, once nothing has to be imported in it: it would hold a rollout's lock meanwhile."""
        let_garbage_wait()
        await asyncio.to_thread(planning.prepare)
        await self._round()
        self._scheduler.add_job(
            self._round, "interval", seconds=self._tick.total_seconds(), max_instances=1, coalesce=True,
            misfire_grace_time=None,
        )  # fmt: skip
        self._scheduler.add_job(self._tidy, "interval", seconds=upkeep.EVERY.total_seconds(), misfire_grace_time=None)
        self._scheduler.start()
        self._nudges = asyncio.create_task(self._follow_nudges(), name="rollout-nudges")

    def nudge(self) -> None:
        """A batch was accepted, here or elsewhere: look at once, or when the debounce time is over."""
        self._nudged.set()

    async def stop(self) -> None:
        """Let the round in flight finish, then stop; APScheduler alone would cancel it."""
        self._stopping = True
        if self._nudges is not None:
            self._nudges.cancel()
            await asyncio.gather(self._nudges, return_exceptions=True)
        if self._scheduler.running:
            self._scheduler.pause()
            await asyncio.gather(*self._rounds, return_exceptions=True)
            self._scheduler.shutdown(wait=False)

    async def _tidy(self) -> None:
        try:
            await upkeep.tidy(self._control)
        except Exception:
            _log.exception("upkeep failed")

    async def _follow_nudges(self) -> None:
        loop = asyncio.get_running_loop()
        again = loop.time()
        while True:
            await self._nudged.wait()
            await asyncio.sleep(max(_TOGETHER, again - loop.time()))
            self._nudged.clear()
            await self._round()
            again = loop.time() + self._debounce

    async def _round(self) -> None:
        """One round in a task of its own, so that whoever waits for it can be cancelled without cutting it short."""
        if self._stopping:
            return
        task = asyncio.create_task(self._guarded(), name="rollout-round")
        self._rounds.add(task)
        task.add_done_callback(self._rounds.discard)
        await asyncio.shield(task)

    async def _guarded(self) -> None:
        try:
            await self._watchman.round()
        except Exception:
            _log.exception("round failed")
        try:
            await overrides.expire(self._control)
        except Exception:
            _log.exception("overrides could not be ended")
