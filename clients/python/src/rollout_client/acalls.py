"""Walks with tasks of the running loop: a call that is too slow, or lost the race, is cancelled and not waited for."""

from __future__ import annotations

import asyncio
import math
from inspect import isawaitable
from typing import Any

from rollout_client.toolkit import Step
from rollout_client.walk import Walk

_left: set[asyncio.Task[Any]] = set()
"""Tasks that were cancelled and have not ended: the loop itself holds tasks weakly."""


async def go(walk: Walk) -> Any:
    """Walk to an answer and return it. The cancellation of whoever waits for it passes through."""
    course = walk.course
    if course.timeout is None and course.hedge_after is None:
        await _one_by_one(walk)
    else:
        await _Race(walk).run()
    if walk.outcome is not None:
        return walk.outcome.value
    if not callable(course.fallback):
        return course.fallback
    try:
        given = course.fallback()
        return await given if isawaitable(given) else given
    except Exception as error:
        walk.fallback_failed(error)
        return None


async def _call(walk: Walk, step: Step) -> Any:
    given = walk.course.call(step.value)
    return await given if isawaitable(given) else given


async def _one_by_one(walk: Walk) -> None:
    while (step := walk.next()) is not None:
        try:
            given = await _call(walk, step)
        except asyncio.CancelledError as error:
            if _cancelled():
                raise
            walk.failed(step, RuntimeError(f"the call cancelled itself: {error}"))
        except Exception as error:
            walk.failed(step, error)
        else:
            if walk.took(step, given):
                return


class _Race:
    """Calls that run at the same time when the first one is slow; the first good answer counts."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._now = asyncio.get_running_loop().time
        self._running: dict[asyncio.Task[Any], tuple[Step, float]] = {}

    async def run(self) -> None:
        walk, hedge = self._walk, self._walk.course.hedge_after
        hedge_at = math.inf if hedge is None else self._now() + hedge
        try:
            self._start()
            while self._running:
                until = min(hedge_at, *(deadline for _, deadline in self._running.values()))
                wait = None if until == math.inf else max(0.0, until - self._now())
                done, _ = await asyncio.wait(self._running, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=list(self._running).index):  # in the order in which they were started
                    self._take(task)
                if walk.outcome is not None:
                    return
                now = self._now()
                late = [task for task, (_, deadline) in self._running.items() if deadline <= now]
                for task in late:
                    step, _ = self._running.pop(task)
                    _leave(task)
                    walk.failed(step, TimeoutError(f"no answer within {walk.course.timeout} s"))
                if done or late or hedge_at <= now:
                    hedge_at = math.inf if hedge_at <= now else hedge_at
                    self._start()
        finally:
            for task in self._running:
                _leave(task)

    def _start(self) -> None:
        step = self._walk.next()
        if step is not None:
            timeout = self._walk.course.timeout
            task = asyncio.create_task(_call(self._walk, step), name="rollout-client-call")
            self._running[task] = step, math.inf if timeout is None else self._now() + timeout

    def _take(self, task: asyncio.Task[Any]) -> None:
        step, _ = self._running.pop(task)
        error = RuntimeError("the call cancelled itself") if task.cancelled() else task.exception()
        if error is None:
            if self._walk.outcome is None:
                self._walk.took(step, task.result())
        elif isinstance(error, Exception):
            self._walk.failed(step, error)
        else:
            raise error


def _cancelled() -> bool:
    """Whether somebody cancelled the task that waits here."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _leave(task: asyncio.Task[Any]) -> None:
    _left.add(task)
    task.add_done_callback(_forget)
    task.cancel()


def _forget(task: asyncio.Task[Any]) -> None:
    _left.discard(task)
    if not task.cancelled():
        task.exception()  # or the loop would report that nobody asked for it
