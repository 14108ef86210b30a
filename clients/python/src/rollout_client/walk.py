"""The walk of `run`: assigned variant, baseline, fallback. It ends with an answer, never with an exception.

Nothing here waits. `calls` (threads) and `acalls` (tasks) ask what to try next, try it, and say how it went.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from rollout_client.breaker import Breaker
from rollout_client.evaluation.answer import Evaluation
from rollout_client.failure import FailureKind
from rollout_client.outcome import Outcome
from rollout_client.toolkit import Step, Toolkit
from rollout_client.usage import Usage, usage_of

if TYPE_CHECKING:
    from rollout_client.served import Serving

SOFT: frozenset[FailureKind | None] = frozenset({None, "low_confidence", "user_abandon"})
"""What is no failure of the call: the answer was not sure, or whoever asked went away."""


class Course(NamedTuple):
    """What `run` was asked for. Times are seconds, and None where there is no limit."""

    call: Callable[[Any], Any]
    fallback: Any
    timeout: float | None
    min_confidence: float | None
    check: Callable[[Any], Any] | None
    hedge_after: float | None
    breaker: bool


class Walk:
    """One walk. How the first step went is what counts for its arm, whatever answered in the end (intent to treat).

    Attributes:
        course: what was asked for. outcome: the answer, None for as long as there is none. fell_back: it is not that of
        the assigned variant. kind: why the assigned variant gave none, None when it did, or has not ended yet.
    """

    def __init__(self, course: Course, steps: Iterable[Step], told: Evaluation, kit: Toolkit) -> None:
        self.course = course
        self.outcome: Outcome[Any] | None = None
        self.fell_back = False
        self.kind: FailureKind | None = None
        self._ahead = deque(steps)
        self._assigned = self._ahead[0]
        self._told = told
        self._kit = kit
        self._usages: list[Usage] = []

    def next(self) -> Step | None:
        """Return what to try now, None when nothing is left. What a breaker cuts short has failed."""
        while self._ahead:
            step = self._ahead.popleft()
            breaker = self._breaker(step)
            if breaker is None or breaker.admits(self._kit.breakers.now()):
                return step
            self._fell(step, breaker.kind)
        return None

    def took(self, step: Step, given: Any) -> bool:
        """Look at what a call returned; True when it is the answer."""
        outcome = given if isinstance(given, Outcome) else Outcome(given)
        response = outcome.value if outcome.response is None else outcome.response
        used = usage_of(response)
        if used is not None:
            self._usages.append(used)
        kind = self._kit.kind_in(response) if outcome.failure is None else outcome.failure
        if kind is None and not self._passes(step, outcome.value):
            kind = "schema_invalid"
        if kind is None and not _good_enough(outcome.confidence, self.course.min_confidence):
            kind = "low_confidence"
        self._kit.feed(self._breaker(step), kind, self._told, step)
        if kind is not None:
            self._fell(step, kind)
            return False
        self.outcome = outcome
        self.fell_back = step is not self._assigned
        return True

    def failed(self, step: Step, error: BaseException) -> None:
        """Take note of a call that raised, or took too long."""
        kind = self._kit.kind_of(error)
        if isinstance(error, Exception):
            self._kit.reporter.failed_call(f"the call with variant {step.variant}", error)
        self._kit.feed(self._breaker(step), kind, self._told, step)
        self._fell(step, kind)

    def fallback_failed(self, error: Exception) -> None:
        """Take note of a fallback that raised."""
        self._kit.reporter.failed_call("the fallback", error)

    def metrics(self) -> dict[str, Any]:
        """Return what the attempt records: what the outcome says, and what it may not say for itself."""
        own = {} if self.outcome is None else self.outcome.readable_metrics()
        measured = self._kit.measure(self._usages)
        # Without an answer the walk came to its end, or was cancelled on its way: before or after a failure.
        fell_back = self.fell_back if self.outcome is not None else self.kind is not None
        return measured | own | {"error_rate": self.kind not in SOFT, "fallback_rate": fell_back}

    def _fell(self, step: Step, kind: FailureKind) -> None:
        if step is self._assigned:
            self.kind = kind

    def _breaker(self, step: Step) -> Breaker | None:
        return self._kit.breaker(self._told.flag, step.variant) if self.course.breaker else None

    def _passes(self, step: Step, value: Any) -> bool:
        if self.course.check is None:
            return True
        try:
            said = self.course.check(value)
            return said is None or bool(said)
        except Exception as error:
            self._kit.reporter.failed_call(f"the check of variant {step.variant}", error)
            return False


def begin(course: Course, told: Evaluation, kit: Toolkit, serving: Serving | None) -> Walk:
    """Return the walk of one `run`; times that are no numbers are reported, and are none."""
    steps = _steps(told, serving)
    hedge_after = _seconds("hedge_after", course.hedge_after, kit) if len(steps) > 1 else None
    course = course._replace(timeout=_seconds("timeout", course.timeout, kit), hedge_after=hedge_after)
    return Walk(course, steps, told, kit)


def _steps(told: Evaluation, serving: Serving | None) -> list[Step]:
    steps = [Step(told.variant, told.value, told.arm)]
    if serving is not None and told.arm == "candidate":
        baseline = serving.compiled.baseline(told.flag, told.rollout)
        if baseline is not None and baseline != told.variant:
            steps.append(Step(baseline, serving.compiled.flags[told.flag].variants[baseline], "baseline"))
    return steps


def _seconds(name: str, given: float | None, kit: Toolkit) -> float | None:
    try:
        return _bearable(given)
    except ValueError as error:
        kit.reporter.trouble(name, f"run was called without a {name}: {error}")
        return None


def _bearable(timeout: object) -> float | None:
    """Return the seconds that a thread can wait for, None for no timeout.

    Raises:
        ValueError: this is no number of seconds.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or math.isnan(timeout):
        raise ValueError(f"a timeout is a number of seconds, not a {type(timeout).__name__}")
    return max(0.0, min(timeout, threading.TIMEOUT_MAX))


def _good_enough(confidence: float | None, least: float | None) -> bool:
    if least is None or confidence is None:
        return True
    try:
        return bool(confidence >= least)
    except Exception:  # whatever the call gave: an array, a NaN of Decimal
        return False
