"""The walk of `run`: assigned variant, baseline, fallback. It ends with an answer, never with an exception."""

from __future__ import annotations

import contextvars
import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from rollout_client.outcome import Outcome

ABANDONED = 64
"""Calls of one client that may hang at the same time, each in a thread of its own, after their time was over."""


class Calls:
    """The calls of one client that have a timeout."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._abandoned = 0

    def within(self, call: Callable[[Any], Any], value: Any, timeout: float) -> Any:
        """Call in a thread that is left behind when the time is over.

        Raises:
            TimeoutError: no answer in time, or so many earlier calls still hang that this one is not begun.
        """
        if self._abandoned >= ABANDONED:
            raise TimeoutError(f"not begun: {ABANDONED} earlier calls still hang")
        results: list[Any] = []
        errors: list[BaseException] = []
        ended = left = False
        context = contextvars.copy_context()

        def work() -> None:
            nonlocal ended
            try:
                results.append(context.run(call, value))
            except BaseException as error:
                errors.append(error)
            with self._lock:
                ended = True
                self._abandoned -= left

        thread = threading.Thread(target=work, name="rollout-client-call", daemon=True)
        thread.start()
        thread.join(timeout)
        with self._lock:
            left = not ended
            self._abandoned += left
        if errors:
            raise errors[0]
        if not results:
            raise TimeoutError(f"no answer within {timeout} s")
        return results[0]


def bearable(timeout: object) -> float | None:
    """Return the seconds that a thread can wait for, None for no timeout.

    Raises:
        ValueError: this is no number of seconds.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or math.isnan(timeout):
        raise ValueError(f"a timeout is a number of seconds, not a {type(timeout).__name__}")
    return max(0.0, min(timeout, threading.TIMEOUT_MAX))


class Course(NamedTuple):
    """What to try, in order: (variant, value) pairs, how good is good enough, and whom to tell of failures."""

    steps: list[tuple[str | None, Any]]
    call: Callable[[Any], Any]
    fallback: Any
    timeout: float | None
    min_confidence: float | None
    failed_call: Callable[[str, Exception], None]
    calls: Calls


class Walked(NamedTuple):
    """How it went: the outcome used, whether the assigned call failed, and whether something else answered."""

    outcome: Outcome[Any]
    failed: bool
    fell_back: bool


def walk(course: Course) -> Walked:
    """Try each step, then the fallback; a call fails by exception or timeout, low confidence only falls back."""
    failed = False
    for number, (variant, value) in enumerate(course.steps):
        try:
            if course.timeout is None:
                given = course.call(value)
            else:
                given = course.calls.within(course.call, value, course.timeout)
        except Exception as error:
            failed = failed or number == 0
            course.failed_call(f"the call with variant {variant}", error)
            continue
        outcome = given if isinstance(given, Outcome) else Outcome(given)
        if _good_enough(outcome.confidence, course.min_confidence):
            return Walked(outcome, failed, number > 0)
    return Walked(Outcome(_fall_back(course)), failed, True)


def _good_enough(confidence: float | None, least: float | None) -> bool:
    if least is None or confidence is None:
        return True
    try:
        return bool(confidence >= least)
    except Exception:  # whatever the call gave: an array, a NaN of Decimal
        return False


def _fall_back(course: Course) -> Any:
    if not callable(course.fallback):
        return course.fallback
    try:
        return course.fallback()
    except Exception as error:
        course.failed_call("the fallback", error)
        return None
