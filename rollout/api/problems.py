"""What went wrong, as a problem document (RFC 9457): where it is and what to do, and never what only we should know."""

from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec

from rollout.api.access import note
from rollout.api.limits import TooMany
from rollout.api.wording import worded
from rollout.db.outage import Crowded, Failed, passing
from rollout.db.session import Duplicate, Unstorable
from rollout.domain.document import Problem
from rollout.engine.aside import Busy
from rollout.errors import Invalid, RolloutError, Unauthenticated
from rollout.telemetry import places

MEDIA_TYPE = "application/problem+json"
_log = structlog.get_logger("rollout.api")


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`detail` and `path` are the first of `problems`; `path` is like `stages[1].percentage`."""

    status: int
    title: str
    detail: str
    type: str = msgspec.field(default_factory=lambda: "about:blank")
    path: str | None = None
    problems: list[Problem] = []


def _spec(description: str) -> ResponseSpec:
    return ResponseSpec(ProblemDetails, generate_examples=False, description=description, media_type=MEDIA_TYPE)


REFUSALS = {
    400: _spec("The request cannot be read."),
    401: _spec("No key, or one that is unknown or revoked."),
    403: _spec("The key does not allow this."),
    404: _spec("There is no such thing, or not for this key."),
    409: _spec("Somebody else changed it meanwhile, or its status forbids the act."),
    413: _spec("The body is too large."),
    422: _spec("The document has problems, each with its path."),
    429: _spec("The key asks too often, or too much is being worked out; see Retry-After."),
    503: _spec("The database does not answer now; see Retry-After."),
}
"""What any route with a key may answer."""


def refused(_: Request[Any, Any, Any], error: RolloutError) -> Response[ProblemDetails]:
    """What a caller can act on, said by whoever found it."""
    found = error.problems if isinstance(error, Invalid) else ()
    details = ProblemDetails(
        status=error.status,
        title=error.title,
        detail=str(error),
        path=error.path,
        problems=[Problem(path, message) for path, message in found],
    )
    headers = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooMany | Busy):
        headers["Retry-After"] = str(error.retry_after)
    return _answer(details, headers)


def unfit(request: Request[Any, Any, Any], error: msgspec.ValidationError) -> Response[ProblemDetails]:
    """A document whose fields are not those of its kind."""
    declared = request.route_handler.parsed_fn_signature.parameters.get("data")
    problem = worded(error, declared.annotation if declared else None)
    return refused(request, Invalid([(problem.path, problem.message)]))


def unreadable(_: Request[Any, Any, Any], error: Exception) -> Response[ProblemDetails]:
    """A body that is no JSON."""
    return _answer(ProblemDetails(status=400, title="Malformed request", detail=f"the body is no JSON: {error}"))


def duplicate(_: Request[Any, Any, Any], __: Exception) -> Response[ProblemDetails]:
    """Two writers at the same moment; the first one won."""
    detail = "somebody else wrote the same thing at the same moment; read it again and repeat the change"
    return _answer(ProblemDetails(status=409, title="Conflict", detail=detail))


def unanswered(request: Request[Any, Any, Any], error: HTTPException) -> Response[ProblemDetails]:
    """What the framework refuses: no such route or method, a parameter that is none, a body that is too large."""
    extra: Any = error.extra if isinstance(error, ValidationException) else None
    found = extra if isinstance(extra, list) else []
    problems = [
        Problem("", "the body is empty; send the document as JSON")
        if each.get("key") == "data"
        else Problem(str(each.get("key", "")), str(each.get("message", "")))
        for each in found
    ]
    titles = {404: "Not found", 405: "Method not allowed", 413: "Too large"}
    details = {
        404: "there is nothing at this address; /schema/openapi.json lists what there is",
        405: "this address does not take this method; /schema/openapi.json lists what it takes",
        413: "the body is larger than this service accepts; send less at once",
    }
    status = error.status_code
    if not request.scope.get("path_template"):  # refused before any route, so before the access log
        note(request.scope, status, 0.0)
    return _answer(
        ProblemDetails(
            status=status,
            title=titles.get(status, "Malformed request" if status < 500 else "Internal error"),
            detail=problems[0].message if problems else details.get(status, error.detail if status < 500 else ""),
            path=problems[0].path if problems else None,
            problems=problems,
        ),
        dict(error.headers or {}),
    )


def unstorable(_: Request[Any, Any, Any], __: Exception) -> Response[ProblemDetails]:
    """A text with a character that the database cannot hold; the driver's message would quote it."""
    detail = "a text or a number in the request cannot be stored (a NUL character, or far too large); correct it"
    return _answer(ProblemDetails(status=400, title="Malformed request", detail=detail))


def broken(request: Request[Any, Any, Any], error: Exception) -> Response[ProblemDetails]:
    """A fault of ours: logged by its places, told without any."""
    _log.error("request failed", path=request.scope.get("path_template"), exception=places(error))
    detail = "the service failed; nothing was changed. Try again, and look at its log if it fails again"
    return _answer(ProblemDetails(status=500, title="Internal error", detail=detail))


def away(request: Request[Any, Any, Any], error: Exception) -> Response[ProblemDetails]:
    """A database that is changing over, or busy: whoever asks again in a moment is served."""
    if not passing(error):
        return broken(request, error)
    _log.warning("the database is away", path=request.scope.get("path_template"), exception=places(error))
    detail = (
        "the database does not answer now; try again in a moment, and look first whether a change was made after all"
    )
    return _answer(ProblemDetails(status=503, title="Not now", detail=detail), {"Retry-After": "1"})


def _answer(details: ProblemDetails, headers: dict[str, str] | None = None) -> Response[ProblemDetails]:
    return Response(details, status_code=details.status, media_type=MEDIA_TYPE, headers=headers)


HANDLERS: dict[Any, Any] = {
    RolloutError: refused,
    msgspec.ValidationError: unfit,
    msgspec.DecodeError: unreadable,
    UnicodeDecodeError: unreadable,
    RecursionError: unreadable,
    Unstorable: unstorable,
    Duplicate: duplicate,
    Failed: away,
    Crowded: away,
    HTTPException: unanswered,
    Exception: broken,
}
"""Exception type to handler, for the whole application."""
