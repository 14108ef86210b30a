"""One attempt of an AI call, counted against the arm it was assigned to (intent to treat)."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rollout_client.evaluation.answer import Evaluation
from rollout_client.fold import Folder

AUTOMATIC = frozenset({"error_rate", "fallback_rate", "latency_ms"})
"""What an attempt records by itself, in rollouts that ask for it."""


class Attempt:
    """The long form of `run`: `with client.attempt(flag, context) as a: ...`.

    The attempt counts as started when the block begins and its outcome as final when the block ends. An exception
    is a failure of the assigned arm (`error_rate`, and `fallback_rate`, since something else must answer) and goes
    on to the caller. What is no Exception (KeyboardInterrupt, GeneratorExit) leaves the attempt without an outcome.
    """

    def __init__(self, evaluation: Evaluation, folder: Folder) -> None:
        self.evaluation = evaluation
        self._folder = folder
        self._recorded: dict[str, Any] = {}
        self._began = 0.0

    @property
    def value(self) -> Any:
        """The value of the variant to use."""
        return self.evaluation.value

    def record(self, /, **metrics: Any) -> None:
        """Record metrics of this attempt, by key; the last value of a metric counts."""
        self._recorded.update(metrics)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._folder.start(self.evaluation)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Exception):
            return
        failed = error is not None
        measured = {
            "error_rate": failed,
            "fallback_rate": failed,
            "latency_ms": (time.monotonic() - self._began) * 1000,
        }
        self._folder.finish(self.evaluation, measured | self._recorded, AUTOMATIC)
