"""A rollout that measures everything an attempt can record, and models that fail in the ways real ones do."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from clients.python.tests.service import Service, document
from rollout_client.failure import KINDS

FLAG = "support-answer"
MEANS = ("latency_ms", "latency_ms.retrieve", "time_to_first_token_ms", "cost_usd", "input_tokens", "output_tokens")


def measuring(revision: int = 1, threshold: int = 100_000) -> dict[str, Any]:
    """A ruleset whose rollout asks for all of it."""
    metrics = {name: {"kind": "proportion"} for name in ("error_rate", "fallback_rate")}
    metrics |= {f"failure.{kind}": {"kind": "proportion"} for kind in KINDS}
    metrics |= {name: {"kind": "mean"} for name in MEANS}
    made = document(revision, threshold, metrics=list(metrics))
    return made | {"metrics": metrics}


def counted(service: Service, arm: str = "candidate") -> dict[str, list[float]]:
    """What arrived for one arm: the proportions as [n, x], without failures that never happened."""
    names = ("error_rate", "fallback_rate", *(f"failure.{kind}" for kind in KINDS))
    found = {name: service.measured(name).get(("at_1", arm)) for name in names}
    return {name: numbers for name, numbers in found.items() if numbers and (numbers[1] or "failure" not in name)}


def mean(service: Service, metric: str, arm: str = "candidate") -> Any:
    """(n, sum) of a mean, None when nothing arrived."""
    numbers = service.measured(metric).get(("at_1", arm))
    return None if numbers is None else (numbers[0], numbers[1])


def completion(model: str = "gpt-x", reason: str = "stop") -> dict[str, Any]:
    """A chat completion of 1,000 tokens in and 100 out."""
    return {
        "model": model,
        "choices": [{"finish_reason": reason, "message": {"content": "text"}}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 100},
    }


def chat_chunks(reason: str = "stop") -> Iterator[Any]:
    """A streamed chat completion: an envelope, two texts, an end, and the usage."""

    def chunk(content: str | None = None, reason: str | None = None, usage: Any = None) -> Any:
        delta = SimpleNamespace(content=content)
        choices = [] if usage else [SimpleNamespace(delta=delta, finish_reason=reason)]
        return SimpleNamespace(model="gpt-x", choices=choices, usage=usage)

    yield chunk("")
    yield chunk("Hello")
    yield chunk(" you")
    yield chunk(None, reason)
    yield chunk(usage=SimpleNamespace(prompt_tokens=1000, completion_tokens=100))


def message_events(reason: str = "end_turn") -> Iterator[Any]:
    """A streamed message, as dicts: what it read is said first, what it wrote last."""
    used = {"input_tokens": 10, "cache_read_input_tokens": 990, "output_tokens": 1}
    yield {"type": "message_start", "message": {"model": "claude-x", "usage": used}}
    yield {"type": "content_block_start"}
    yield {"type": "content_block_delta", "delta": {"text": "Hello"}}
    yield {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 100}}
    yield {"type": "message_stop"}


def response_events(reason: str | None = None) -> Iterator[Any]:
    """A streamed response, as dicts."""
    yield {"type": "response.created", "response": {"model": "gpt-x", "usage": None}}
    yield {"type": "response.output_text.delta", "delta": "Hello"}
    said = {"model": "gpt-x", "usage": {"input_tokens": 1000, "output_tokens": 100}}
    yield {"type": "response.completed", "response": said | {"incomplete_details": {"reason": reason}}}
