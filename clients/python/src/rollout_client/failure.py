"""Why a call to a model failed, in eleven words, told by the shape of an error or of a response.

No model library is imported: names of classes, status codes and error codes are looked at, and nothing is believed
that is not there. Whoever knows better passes `Options(classify=..., classify_response=...)`, or lets the own error
carry an attribute `failure_kind`.

| kind | errors (class, status, code) | responses (finish or stop reason) |
|---|---|---|
| `timeout` | `*Timeout*`, `DeadlineExceeded*`, 408, 504, 524, `ModelTimeoutException` | |
| `rate_limited` | `RateLimit*`, 429, `insufficient_quota`, `ThrottlingException` | |
| `provider_error` | other statuses from 400 on, `*Connection*`, `TransportError` | `failed` |
| `refusal` | `*Refusal*` | `refusal`, or a field of that name |
| `safety_block` | `ContentFilter*`, `Guardrail*`, `content_filter` | `content_filter`, `SAFETY`, ... |
| `schema_invalid` | `ValidationError`, `JSONDecodeError`, `OutputParser*` | `MALFORMED_FUNCTION_CALL`, ... |
| `truncated` | `LengthFinishReason*`, `IncompleteOutput*` | `length`, `max_tokens`, ... |
| `tool_error` | `Tool*Error`, `Tool*Exception`, `McpError` | `UNEXPECTED_TOOL_CALL`, ... |
| `low_confidence` | none: `run` says it of an answer below `min_confidence` | |
| `user_abandon` | `CancelledError`, `GeneratorExit`, 499 | |
| `other` | everything else | |
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

FailureKind = Literal[
    "timeout",
    "provider_error",
    "rate_limited",
    "refusal",
    "safety_block",
    "schema_invalid",
    "truncated",
    "tool_error",
    "low_confidence",
    "user_abandon",
    "other",
]
KINDS: tuple[FailureKind, ...] = get_args(FailureKind)
"""Every kind; the rollouts that ask for it measure one as the proportion `failure.<kind>`."""

_CODES: dict[str, FailureKind] = {
    "content_filter": "safety_block",
    "content_policy_violation": "safety_block",
    "responsibleaipolicyviolation": "safety_block",
    "moderation_blocked": "safety_block",
    "rate_limit_exceeded": "rate_limited",
    "rate_limit_error": "rate_limited",
    "insufficient_quota": "rate_limited",
    "resource_exhausted": "rate_limited",
    "throttlingexception": "rate_limited",
    "throttling": "rate_limited",
    "toomanyrequestsexception": "rate_limited",
    "servicequotaexceededexception": "rate_limited",
    "deadline_exceeded": "timeout",
    "timeout_error": "timeout",
    "request_timeout": "timeout",
    "modeltimeoutexception": "timeout",
    "cancelled": "user_abandon",
}
_REASONS: dict[str, FailureKind] = {
    "length": "truncated",
    "max_tokens": "truncated",
    "max_output_tokens": "truncated",
    "model_context_window_exceeded": "truncated",
    "content_filter": "safety_block",
    "content_filtered": "safety_block",
    "guardrail_intervened": "safety_block",
    "safety": "safety_block",
    "recitation": "safety_block",
    "blocklist": "safety_block",
    "prohibited_content": "safety_block",
    "spii": "safety_block",
    "image_safety": "safety_block",
    "image_prohibited_content": "safety_block",
    "model_armor": "safety_block",
    "refusal": "refusal",
    "malformed_function_call": "schema_invalid",
    "malformed_response": "schema_invalid",
    "unexpected_tool_call": "tool_error",
    "too_many_tool_calls": "tool_error",
}
_STATUSES: dict[int, FailureKind] = {
    408: "timeout", 504: "timeout", 524: "timeout", 429: "rate_limited", 499: "user_abandon",
}  # fmt: skip
_NAMES: tuple[tuple[tuple[str, ...], FailureKind], ...] = (
    (("CancelledError", "GeneratorExit", "ClientClosedRequest"), "user_abandon"),
    (("LengthFinishReason", "IncompleteOutput", "MaxTokens"), "truncated"),
    (("ContentFilter", "ContentPolicy", "Guardrail", "BlockedPrompt", "Moderation", "SafetyE"), "safety_block"),
    (("Refusal",), "refusal"),
    (("RateLimit", "ResourceExhausted", "TooManyRequests", "Throttl", "QuotaExceeded"), "rate_limited"),
    (("Timeout", "DeadlineExceeded"), "timeout"),
    (
        ("ValidationError", "JSONDecodeError", "OutputParser", "SchemaError", "UnexpectedModelBehavior"),
        "schema_invalid",
    ),
    (("McpError",), "tool_error"),
)
"""Parts of names of classes; the first row that fits any class of an error counts."""
_PROVIDER = (
    "APIConnection", "APIStatus", "APIError", "ConnectionError", "TransportError", "NetworkError", "ProtocolError",
    "ServiceUnavailable", "InternalServerError", "Overloaded", "BotoCoreError", "RequestException", "ClientError",
    "BadGateway", "ServerError",
)  # fmt: skip
PLAIN = (str, bytes, int, float, list, tuple, type(None))
"""Answers that are no responses of a model library, and need not be looked at."""
_CAUSES = 3
"""Causes that are looked through when an error itself says nothing: retry libraries wrap what they gave up at."""


def classify(error: BaseException) -> FailureKind:
    """Return the kind of failure an error is; never raises, whatever the error is made of."""
    seen: BaseException | None = error
    for _ in range(_CAUSES):
        if seen is None:
            break
        try:
            kind = _kind_of(seen)
        except Exception:  # an attribute of the error that raises
            kind = None
        if kind is not None:
            return kind
        seen = seen.__cause__
    return "other"


def classify_response(response: Any) -> FailureKind | None:
    """Return the kind of failure that a response (an object or a dict) admits, None when it is whole or unknown.

    Chat completions, the Responses API, Anthropic messages, Gemini and Bedrock Converse are known; never raises.
    """
    if isinstance(response, PLAIN):
        return None
    for reason in _reasons(response):
        kind = _REASONS.get(reason)
        if kind is not None:
            return kind
    if word(field(response, "status")) == "failed":
        return _CODES.get(word(field(field(response, "error"), "code")), "provider_error")
    if word(field(field(response, "prompt_feedback"), "block_reason")):
        return "safety_block"
    return "refusal" if _refuses(response) else None


def is_kind(kind: object) -> bool:
    """Whether this is one of the eleven words."""
    return isinstance(kind, str) and kind in KINDS


def field(thing: Any, name: str) -> Any:
    """Return a field of an object or a key of a dict, None when there is none or it cannot be read."""
    try:
        return thing.get(name) if isinstance(thing, dict) else getattr(thing, name, None)
    except Exception:  # a property that raises
        return None


def first(things: Any) -> Any:
    """Return the first of a list, None when it is none or empty."""
    return things[0] if isinstance(things, (list, tuple)) and things else None


def word(said: Any) -> str:
    """Return a code or the value of an enumeration in lower case, empty when it is neither."""
    value = getattr(said, "value", said)
    return value.lower() if isinstance(value, str) else ""


def _kind_of(error: BaseException) -> FailureKind | None:
    own = getattr(error, "failure_kind", None)
    for kind in KINDS:
        if own == kind:
            return kind
    for code in _codes(error):
        if code in _CODES:
            return _CODES[code]
    names = [kind.__name__ for kind in type(error).__mro__[:-2]]
    for parts, kind in _NAMES:
        if any(part in name for name in names for part in parts):
            return kind
    if any(name.startswith("Tool") and name.endswith(("Error", "Exception")) for name in names):
        return "tool_error"
    status = _status(error)
    if status is not None and status >= 400:
        return _STATUSES.get(status, "provider_error")
    return "provider_error" if any(part in name for name in names for part in _PROVIDER) else None


def _codes(error: BaseException) -> Iterator[str]:
    body = field(error, "body")
    inner = field(body, "error")
    answer = field(error, "response")
    for holder in (error, body, inner, field(answer, "Error"), field(inner, "innererror")):
        for name in ("code", "type", "status", "Code"):
            yield word(field(holder, name))


def _status(error: BaseException) -> int | None:
    answer = field(error, "response")
    for status in (
        field(error, "status_code"), field(error, "status"), field(error, "code"), field(answer, "status_code"),
        field(field(answer, "ResponseMetadata"), "HTTPStatusCode"),
    ):  # fmt: skip
        if isinstance(status, int) and not isinstance(status, bool):
            return status
    return None


def _reasons(response: Any) -> Iterator[str]:
    yield word(field(response, "stop_reason"))
    yield word(field(response, "stopReason"))
    yield word(field(first(field(response, "choices")), "finish_reason"))
    yield word(field(first(field(response, "candidates")), "finish_reason"))
    yield word(field(field(response, "incomplete_details"), "reason"))
    yield word(field(field(response, "delta"), "stop_reason"))


def _refuses(response: Any) -> bool:
    message = field(first(field(response, "choices")), "message")
    if isinstance(field(message, "refusal"), str) and field(message, "refusal"):
        return True
    output = field(response, "output")
    for item in output if isinstance(output, (list, tuple)) else ():
        content = field(item, "content")
        for part in content if isinstance(content, (list, tuple)) else ():
            if field(part, "type") == "refusal":
                return True
    return False
