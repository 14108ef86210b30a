"""The walk of `run`: assigned variant, baseline, fallback. It ends with an answer, never with an exception."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from rollout_client.outcome import Outcome


class Course(NamedTuple):
    """What to try, in order: (variant, value) pairs, how good is good enough, and whom to tell of failures."""

    steps: list[tuple[str | None, Any]]
    call: Callable[[Any], Any]
    fallback: Any
    timeout: float | None
    min_confidence: float | None
    failed_call: Callable[[str, Exception], None]


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
            given = _call(course.call, value, course.timeout)
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
    except TypeError:
        return False


def _fall_back(course: Course) -> Any:
    if not callable(course.fallback):
        return course.fallback
    try:
        return course.fallback()
    except Exception as error:
        course.failed_call("the fallback", error)
        return None


def _call(call: Callable[[Any], Any], value: Any, timeout: float | None) -> Any:
    """Call in this thread, or, with a timeout, in one of its own that is left behind when the time is over."""
    if timeout is None:
        return call(value)
    results: list[Any] = []
    errors: list[BaseException] = []
    context = contextvars.copy_context()

    def work() -> None:
        try:
            results.append(context.run(call, value))
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="rollout-client-call", daemon=True)
    thread.start()
    thread.join(timeout)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {timeout} s")
    return results[0]
