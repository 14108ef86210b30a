"""What a call gave, beyond its answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec

from rollout_client.failure import FailureKind

Answer = TypeVar("Answer")


class Outcome(msgspec.Struct, Generic[Answer], frozen=True):
    """What a call may return instead of its plain answer: `Outcome(text, confidence=0.4, response=completion)`.

    `confidence` is compared with `min_confidence` of `run`; None is not compared. `metrics` are recorded against
    the arm that the request was assigned to, whichever variant gave this answer. `response` is what the model library
    returned (the value itself, when nothing is given): tokens and cost are read from it, and a response that admits to
    be no whole answer (truncated, refused, blocked) is a failure. `failure` says that this is one, in any case.
    """

    value: Answer
    confidence: float | None = None
    metrics: Mapping[str, Any] = {}
    response: Any = None
    failure: FailureKind | None = None

    def readable_metrics(self) -> dict[str, Any]:
        """Return the metrics by key, none when they are no mapping or cannot be read: the call put them there."""
        given: object = self.metrics
        try:
            return {str(name): value for name, value in given.items()} if isinstance(given, Mapping) else {}
        except Exception:
            return {}
