"""Walks with threads: a call that has a time limit, or may be hedged, gets a thread that can be left behind."""

from __future__ import annotations

import contextvars
import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from rollout_client.toolkit import Step
from rollout_client.walk import Walk

ABANDONED = 64
"""Calls of one client that may hang at the same time, each in a thread of its own, after their time was over."""


class Ended(NamedTuple):
    """How a call in a thread went."""

    step: Step
    given: Any
    error: BaseException | None


class Calls:
    """The calls of one client that run in threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._abandoned = 0

    def begin(self, call: Callable[[Any], Any], step: Step, ended: queue.SimpleQueue[Ended]) -> Callable[[], None]:
        """Call in a thread that puts its end into the queue; return what leaves it behind.

        Raises:
            TimeoutError: so many earlier calls still hang that this one is not begun.
        """
        if self._abandoned >= ABANDONED:
            raise TimeoutError(f"not begun: {ABANDONED} earlier calls still hang")
        over = left = False
        context = contextvars.copy_context()

        def work() -> None:
            nonlocal over
            given, failed = None, None
            try:
                given = context.run(call, step.value)
            except BaseException as error:
                failed = error
            with self._lock:
                over = True
                self._abandoned -= left
            ended.put(Ended(step, given, failed))

        def leave() -> None:
            nonlocal left
            with self._lock:
                if not over and not left:
                    left = True
                    self._abandoned += 1

        threading.Thread(target=work, name="rollout-client-call", daemon=True).start()
        return leave


def go(walk: Walk, calls: Calls) -> Any:
    """Walk to an answer and return it. What is no Exception (KeyboardInterrupt) passes through."""
    course = walk.course
    if course.timeout is None and course.hedge_after is None:
        _one_by_one(walk)
    else:
        _Race(walk, calls).run()
    if walk.outcome is not None:
        return walk.outcome.value
    if not callable(course.fallback):
        return course.fallback
    try:
        return course.fallback()
    except Exception as error:
        walk.fallback_failed(error)
        return None


def _one_by_one(walk: Walk) -> None:
    while (step := walk.next()) is not None:
        try:
            given = walk.course.call(step.value)
        except Exception as error:
            walk.failed(step, error)
        else:
            if walk.took(step, given):
                return


class _Race:
    """Calls that run at the same time when the first one is slow; the first good answer counts."""

    def __init__(self, walk: Walk, calls: Calls) -> None:
        self._walk = walk
        self._calls = calls
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._running: dict[Step, tuple[float, Callable[[], None]]] = {}

    def run(self) -> None:
        walk, hedge = self._walk, self._walk.course.hedge_after
        hedge_at = math.inf if hedge is None else time.monotonic() + hedge
        try:
            self._start(walk.next())
            while self._running:
                until = min(hedge_at, *(deadline for deadline, _ in self._running.values()))
                try:
                    ended = self._ended.get(timeout=_wait(until))
                except queue.Empty:
                    now = time.monotonic()
                    late = [step for step, (deadline, _) in self._running.items() if deadline <= now]
                    for step in late:
                        self._running.pop(step)[1]()
                        walk.failed(step, TimeoutError(f"no answer within {walk.course.timeout} s"))
                    if late or hedge_at <= now:
                        hedge_at = math.inf
                        self._start(walk.next())
                else:
                    if self._take(ended):
                        return
        finally:
            for _, leave in self._running.values():
                leave()

    def _take(self, ended: Ended) -> bool:
        if self._running.pop(ended.step, None) is None:
            return False  # it was late
        if ended.error is None:
            if self._walk.took(ended.step, ended.given):
                return True
        elif isinstance(ended.error, Exception):
            self._walk.failed(ended.step, ended.error)
        else:
            raise ended.error
        self._start(self._walk.next())
        return False

    def _start(self, step: Step | None) -> None:
        while step is not None:
            timeout = self._walk.course.timeout
            try:
                leave = self._calls.begin(self._walk.course.call, step, self._ended)
            except Exception as error:  # too many hang, or the process can start no thread
                self._walk.failed(step, error)
                step = self._walk.next()
            else:
                self._running[step] = math.inf if timeout is None else time.monotonic() + timeout, leave
                return


def _wait(until: float) -> float | None:
    return None if until == math.inf else max(0.0, min(until - time.monotonic(), threading.TIMEOUT_MAX))
