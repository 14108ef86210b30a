"""One attempt of an AI call, counted against the arm it was assigned to (intent to treat)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from rollout_client.breaker import Breaker
from rollout_client.evaluation.answer import Evaluation
from rollout_client.failure import KINDS, FailureKind, is_kind
from rollout_client.streams import AsyncStream, Stream, Watch
from rollout_client.toolkit import Step, Toolkit
from rollout_client.usage import Usage, usage_of
from rollout_client.walk import SOFT, Walk

Chunk = TypeVar("Chunk")

NO_FAILURE: dict[str, bool] = {f"failure.{kind}": False for kind in KINDS}
AUTOMATIC = frozenset(
    {
        "error_rate", "fallback_rate", "latency_ms", "time_to_first_token_ms",
        "cost_usd", "input_tokens", "output_tokens", *NO_FAILURE,
    }
)  # fmt: skip
"""What an attempt records by itself, in rollouts that ask for it; and `latency_ms.<step>` of its steps."""


class Attempt:
    """The long form of `run`: `with client.attempt(flag, context) as a: ...`, or `async with`.

    The attempt counts as started when the block begins and its outcome as final when the block ends. An exception
    is a failure of the assigned arm (`error_rate`, and `fallback_rate`, since something else must answer) and goes
    on to the caller. When the caller itself is cancelled or closed (CancelledError, GeneratorExit), or leaves a stream
    unread, the outcome is a `user_abandon`, which is no error. What else is no Exception (KeyboardInterrupt) leaves the
    attempt without an outcome.

    Attributes:
        evaluation: what was answered. broken: the circuit breaker of the variant is open; answer with a fallback, and
        say so with `fail()`. Whoever calls all the same may: a call that succeeds closes the breaker after a while.
    """

    def __init__(self, evaluation: Evaluation, kit: Toolkit, breaker: Breaker | None = None) -> None:
        self.evaluation = evaluation
        self.broken = False
        self._kit = kit
        self._breaker = breaker
        self._recorded: dict[str, Any] = {}
        self._steps: dict[str, float] = {}
        self._usages: list[Usage] = []
        self._streams: list[Watch] = []
        self._said: FailureKind | None = None
        self._last: FailureKind | None = None
        self._began = 0.0
        self._first_token: float | None = None

    @property
    def value(self) -> Any:
        """The value of the variant to use."""
        return self.evaluation.value

    def record(self, /, **metrics: Any) -> None:
        """Record metrics of this attempt, by key; the last value of a metric counts."""
        self._recorded.update(metrics)

    def fail(self, kind: FailureKind | None = None) -> None:
        """Say that the attempt failed though no exception leaves the block; `kind` is one of `FailureKind`.

        Without a kind it is what opened the breaker, else `other`.
        """
        if kind is None and self.broken and self._breaker is not None:
            kind = self._breaker.kind
        if kind is not None and not is_kind(kind):
            self._kit.reporter.trouble("kind", f"there is no failure kind {kind!r}; it counts as other")
            kind = None
        self._said = kind or "other"

    def step(self, name: str) -> Timer:
        """Time a part of the attempt: `with a.step("retrieve"): ...`, recorded as `latency_ms.retrieve`.

        A name that is used again adds up. `async with` works as well.
        """
        return Timer(self._steps, name)

    def response(self, response: Any) -> None:
        """Read tokens, cost and failure (truncated, refused, blocked, ...) from what a model library returned.

        Tokens and cost of several responses add up; whether it failed is what the last one says, so a retry counts.
        """
        used = usage_of(response)
        if used is not None:
            self._usages.append(used)
        self._last = self._kit.kind_in(response)

    @overload
    def stream(self, chunks: AsyncIterable[Chunk]) -> AsyncStream[Chunk]: ...

    @overload
    def stream(self, chunks: Iterable[Chunk]) -> Stream[Chunk]: ...

    def stream(self, chunks: Iterable[Chunk] | AsyncIterable[Chunk]) -> Stream[Chunk] | AsyncStream[Chunk]:
        """Pass on the chunks of a streamed response, to be read inside of the block.

        Recorded are `time_to_first_token_ms`, from the beginning of the block to the first chunk with a part of the
        answer, and what the chunks say of tokens and of failure. A stream that was begun and not read to its end is a
        `user_abandon`.
        """
        watch = Watch(self._kit.kind_of, self._kit.kind_in, self._token, self._over)
        self._streams.append(watch)
        if isinstance(chunks, AsyncIterable):
            return AsyncStream(chunks, watch)
        return Stream(chunks, watch)

    def settle(self, walk: Walk) -> None:
        """Take over what a walk came to."""
        self._said = walk.kind
        self._recorded.update(walk.metrics())

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if self._breaker is not None:
            self.broken = not self._breaker.admits(self._kit.breakers.now())
        self._kit.folder.start(self.evaluation)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for watch in self._streams:
            watch.leave()
        failure = self._said or self._last
        if error is not None:
            kind_of_error = self._kit.kind_of(error)
            if not isinstance(error, Exception) and kind_of_error != "user_abandon":
                return
            failure = failure if self._said and kind_of_error == "user_abandon" else kind_of_error
        self._finish(failure)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def _finish(self, failure: FailureKind | None) -> None:
        if not (self.broken and failure is not None):  # else there was no call
            told = self.evaluation
            self._kit.feed(self._breaker, failure, told, Step(told.variant, told.value, told.arm))
        measured: dict[str, Any] = {
            **NO_FAILURE,
            "error_rate": failure not in SOFT,
            "fallback_rate": failure is not None and failure != "user_abandon",
            "latency_ms": (time.monotonic() - self._began) * 1000,
            **self._kit.measure(self._usages),
        }
        if failure is not None:
            measured[f"failure.{failure}"] = True
        if self._first_token is not None:
            measured["time_to_first_token_ms"] = self._first_token
        automatic = AUTOMATIC
        if self._steps:
            measured |= self._steps
            automatic = AUTOMATIC | self._steps.keys()
        self._kit.folder.finish(self.evaluation, measured | self._recorded, automatic)

    def _token(self) -> None:
        if self._first_token is None:
            self._first_token = (time.monotonic() - self._began) * 1000

    def _over(self, watch: Watch) -> None:
        if watch.usage is not None:
            self._usages.append(watch.usage)
        self._last = watch.kind


class Timer:
    """Times one block, with `with` or `async with`, also when it raises."""

    def __init__(self, into: dict[str, float], name: str) -> None:
        self._into = into
        self._name = f"latency_ms.{name}"
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(self, *raised: object) -> None:
        self._into[self._name] = self._into.get(self._name, 0.0) + (time.monotonic() - self._began) * 1000

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *raised: object) -> None:
        self.__exit__()
