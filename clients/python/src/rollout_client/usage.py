"""Tokens and cost, read from what a model library returned; the prices are the caller's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from rollout_client.failure import PLAIN, field

_DATED = r"[-@]\d{4}-?\d{2}-?\d{2}\Z"
"""The date that providers put behind the name of a model: gpt-x-2026-01-31, claude-x-20260131, gemini-x@20260131."""
_MILLION = 1_000_000
_INPUT = ("prompt_tokens", "input_tokens", "inputTokens", "prompt_token_count")
_OUTPUT = ("completion_tokens", "output_tokens", "outputTokens", "candidates_token_count")
_APART = ("cache_read_input_tokens", "cacheReadInputTokens"), ("cache_creation_input_tokens", "cacheWriteInputTokens")
"""Reads and writes of a cache that a library counts beside its input tokens (Anthropic, Bedrock), not among them."""


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What one call used. Input tokens include those read from a cache and written to one, whatever the library."""

    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Dollars per million tokens. `cached` (read from a cache) and `written` (to one) cost as `input` unless given."""

    input: float
    output: float
    cached: float | None = None
    written: float | None = None


class Prices:
    """What models cost: `Prices({"gpt-x": Price(input=2.5, output=10.0, cached=1.25)})`.

    A model that is not listed by its full name is looked up without the date at its end, and in no other way: a name
    that merely begins like another belongs to another model, with another price.
    """

    def __init__(self, models: Mapping[str, Price]) -> None:
        self._models = dict(models)

    def cost(self, usage: Usage) -> float | None:
        """Return the dollars of one call, None when the model is not listed."""
        model = usage.model or ""
        price = self._models.get(model) or self._models.get(re.sub(_DATED, "", model))
        if price is None:
            return None
        cached = price.input if price.cached is None else price.cached
        written = price.input if price.written is None else price.written
        plain = max(0, usage.input_tokens - usage.cached_tokens - usage.written_tokens)
        dollars = plain * price.input + usage.cached_tokens * cached + usage.written_tokens * written
        return (dollars + usage.output_tokens * price.output) / _MILLION


def usage_of(response: Any) -> Usage | None:
    """Return what a response (an object or a dict) says it used, None when it says nothing; never raises.

    OpenAI chat completions and responses, Anthropic messages, Gemini and Bedrock Converse are known.
    """
    if isinstance(response, PLAIN):
        return None
    said = field(response, "usage") or field(response, "usage_metadata")
    return None if said is None else read_usage(said, field(response, "model") or field(response, "model_version"))


def read_usage(said: Any, model: Any, before: Usage | None = None) -> Usage | None:
    """Return the usage of a `usage` object; what it does not say is as in `before`. None when it says nothing."""
    given, out = _number(said, *_INPUT), _number(said, *_OUTPUT)
    if given is None and out is None:
        return None
    base = Usage() if before is None else before
    read, written = (_number(said, *names) for names in _APART)
    if read is None and written is None:
        details = field(said, "prompt_tokens_details") or field(said, "input_tokens_details")
        read = _number(details, "cached_tokens")
        read = _number(said, "cached_content_token_count") if read is None else read
        written = _number(details, "cache_write_tokens")
    elif given is not None:
        given += (read or 0) + (written or 0)
    thought = _number(said, "thoughts_token_count") or 0
    return Usage(
        model=model if isinstance(model, str) else base.model,
        input_tokens=base.input_tokens if given is None else given,
        output_tokens=base.output_tokens if out is None else out + thought,
        cached_tokens=base.cached_tokens if read is None else read,
        written_tokens=base.written_tokens if written is None else written,
    )


def _number(holder: Any, *names: str) -> int | None:
    for name in names:
        value = field(holder, name)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
    return None
