"""Every failure gets one of eleven words, by the shapes that model libraries give their errors and responses."""

from types import SimpleNamespace as Shape
from typing import Any

import msgspec
import pytest

from rollout_client import classify, classify_response
from rollout_client.failure import KINDS


def error(names: str, **fields: Any) -> Exception:
    """An error as a library makes it: its class, the classes it stands on, and what it carries."""
    made: type[Exception] = Exception
    for name in reversed(names.split()):
        made = type(name, (made,), {})
    raised = made("a text that is not looked at: timeout 429 refusal")
    for name, value in fields.items():
        setattr(raised, name, value)
    return raised


OPENAI = "APIStatusError APIError OpenAIError"
ANTHROPIC = "APIStatusError APIError AnthropicError"


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (TimeoutError(), "timeout"),
        (error("APITimeoutError APIConnectionError APIError OpenAIError"), "timeout"),
        (error(f"DeadlineExceededError InternalServerError {ANTHROPIC}", status_code=504), "timeout"),
        (error("ReadTimeout TimeoutException TransportError HTTPError"), "timeout"),
        (error("ServerTimeoutError ClientConnectionError ClientError"), "timeout"),
        (error("ClientError", response={"Error": {"Code": "ModelTimeoutException"}}), "timeout"),
        (error("ServerError APIError", code=504, status="DEADLINE_EXCEEDED"), "timeout"),
        (error(f"RateLimitError {OPENAI}", status_code=429, code="rate_limit_exceeded"), "rate_limited"),
        (error(f"RateLimitError {OPENAI}", status_code=429, code="insufficient_quota"), "rate_limited"),
        (error(ANTHROPIC, status_code=429, body={"error": {"type": "rate_limit_error"}}), "rate_limited"),
        (error("ClientError", response={"Error": {"Code": "ThrottlingException"}}), "rate_limited"),
        (error("ClientError APIError", code=429, status="RESOURCE_EXHAUSTED"), "rate_limited"),
        (error("ClientResponseError ClientError", status=429), "rate_limited"),
        (error(f"InternalServerError {OPENAI}", status_code=500), "provider_error"),
        (error(f"OverloadedError {ANTHROPIC}", status_code=529), "provider_error"),
        (error("APIConnectionError APIError OpenAIError"), "provider_error"),
        (error("HTTPStatusError HTTPError", response=Shape(status_code=503)), "provider_error"),
        (error("ClientError", response={"ResponseMetadata": {"HTTPStatusCode": 400}}), "provider_error"),
        (ConnectionResetError(), "provider_error"),
        (error(f"BadRequestError {OPENAI}", status_code=400, code="content_filter"), "safety_block"),
        (error(f"ContentPolicyViolationError BadRequestError {OPENAI}", status_code=400), "safety_block"),
        (error("ContentFilterFinishReasonError OpenAIError"), "safety_block"),
        (error("LengthFinishReasonError OpenAIError"), "truncated"),
        (error("IncompleteOutputException"), "truncated"),
        (error("RefusalError"), "refusal"),
        (error("ValidationError ValueError"), "schema_invalid"),
        (msgspec.ValidationError("x"), "schema_invalid"),
        (error("JSONDecodeError ValueError"), "schema_invalid"),
        (error("APIResponseValidationError APIError OpenAIError", status_code=200), "schema_invalid"),
        (error("OutputParserException ValueError"), "schema_invalid"),
        (error("ToolException"), "tool_error"),
        (error("ToolError"), "tool_error"),
        (error("McpError"), "tool_error"),
        (error("CancelledError"), "user_abandon"),
        (GeneratorExit(), "user_abandon"),
        (error(f"ClientClosedRequestError {ANTHROPIC}", status_code=499), "user_abandon"),
        (error("Mine", failure_kind="refusal"), "refusal"),
        (error("Mine", failure_kind="no such kind", status_code=True), "other"),
        (error("Mine", code=200, status="fine", body=[1], response="text"), "other"),
        (FileNotFoundError(), "other"),
        (KeyError("model"), "other"),
        (KeyboardInterrupt(), "other"),
    ],
)
def test_an_error_is_classified_by_its_shape(raised: BaseException, kind: str) -> None:
    assert classify(raised) == kind


def test_an_error_that_says_nothing_is_classified_by_its_cause() -> None:
    outer = error("RetryError")
    outer.__cause__ = error("Wrapper")
    outer.__cause__.__cause__ = TimeoutError()
    assert classify(outer) == "timeout"
    circle = error("RetryError")
    circle.__cause__ = circle
    assert classify(circle) == "other"


def test_an_error_of_which_nothing_can_be_asked_is_other() -> None:
    class Hostile(Exception):
        @property
        def failure_kind(self) -> str:
            raise ZeroDivisionError

    assert classify(Hostile()) == "other"


def chat(reason: str | None, **message: Any) -> dict[str, Any]:
    return {"choices": [{"finish_reason": reason, "message": {"content": "text"} | message}]}


def as_object(thing: Any) -> Any:
    if isinstance(thing, dict):
        return Shape(**{key: as_object(value) for key, value in thing.items()})
    return [as_object(one) for one in thing] if isinstance(thing, list) else thing


RESPONSES: list[tuple[Any, str | None]] = [
    (chat("stop"), None),
    (chat("tool_calls"), None),
    (chat("length"), "truncated"),
    (chat("content_filter"), "safety_block"),
    (chat("stop", refusal="I cannot help with that."), "refusal"),
    (chat("stop", refusal=None), None),
    ({"status": "completed", "output": [{"content": [{"type": "output_text"}]}]}, None),
    ({"status": "completed", "output": [{"content": [{"type": "refusal"}]}]}, "refusal"),
    ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "truncated"),
    ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "safety_block"),
    ({"status": "failed", "error": {"code": "server_error"}}, "provider_error"),
    ({"status": "failed", "error": {"code": "rate_limit_exceeded"}}, "rate_limited"),
    ({"stop_reason": "end_turn"}, None),
    ({"stop_reason": "max_tokens"}, "truncated"),
    ({"stop_reason": "model_context_window_exceeded"}, "truncated"),
    ({"stop_reason": "refusal"}, "refusal"),
    ({"stopReason": "guardrail_intervened"}, "safety_block"),
    ({"candidates": [{"finish_reason": Shape(value="STOP")}]}, None),
    ({"candidates": [{"finish_reason": Shape(value="SAFETY")}]}, "safety_block"),
    ({"candidates": [{"finish_reason": Shape(value="MAX_TOKENS")}]}, "truncated"),
    ({"candidates": [{"finish_reason": Shape(value="MALFORMED_FUNCTION_CALL")}]}, "schema_invalid"),
    ({"candidates": [], "prompt_feedback": {"block_reason": "SAFETY"}}, "safety_block"),
    ({"choices": "none", "output": 3, "status": 4}, None),
]


@pytest.mark.parametrize(("response", "kind"), RESPONSES)
def test_a_response_is_classified_as_a_dict_and_as_an_object(response: Any, kind: str | None) -> None:
    assert classify_response(response) == kind
    assert classify_response(as_object(response)) == kind


@pytest.mark.parametrize("thing", [None, "text", 7, [], {}, object(), lambda: None])
def test_what_is_no_response_is_no_failure(thing: Any) -> None:
    assert classify_response(thing) is None


def test_there_are_eleven_kinds() -> None:
    assert len(KINDS) == len(set(KINDS)) == 11
