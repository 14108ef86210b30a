"""One line per answered request, and its time in a histogram. The template of the path, never the path or a query."""

from time import monotonic

import structlog
from litestar.enums import ScopeType
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from rollout.db.outage import passing
from rollout.errors import RolloutError
from rollout.telemetry import REQUESTS

_log = structlog.get_logger("rollout.access")


class AccessLog(ASGIMiddleware):
    """Outermost: sees what every route answered, or raised before anybody answered."""

    scopes = (ScopeType.HTTP,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Pass on, and note the status and the time."""
        began = monotonic()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await next_app(scope, receive, noting)
        except RolloutError as error:
            status = error.status
            raise
        except Exception as error:
            status = 503 if passing(error) else status
            raise
        finally:
            note(scope, status, monotonic() - began)


METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def note(scope: Scope, status: int, seconds: float) -> None:
    """Write the line: at `debug` what went well, at `warning` a fault of ours, at `info` every other refusal."""
    method, path = str(scope.get("method", "")), str(scope.get("path_template") or "(none)")
    method = method if method in METHODS else "other"  # a client may invent any word; each would be a time series
    REQUESTS.labels(method, path, str(status)).observe(seconds)
    caller = scope.get("user")
    if path.startswith("/health") and status < 400:
        return
    key = caller.key.id if caller is not None else None
    say = _log.debug if status < 400 else _log.info if status < 500 else _log.warning
    say("request", method=method, path=path, status=status, ms=round(seconds * 1000, 1), key=key)
