"""What client libraries ask: the ruleset, the stream of its changes, and where evidence goes (decision record 0001)."""

from collections.abc import Collection
from typing import Annotated, Any

from litestar import Request, Response, Router, get, post
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromQuery, HeaderParameter
from litestar.response import Stream

from rollout.api.auth import Caller, admits
from rollout.api.body import inflate
from rollout.api.problems import REFUSALS
from rollout.api.service import Service
from rollout.api.stream import changes
from rollout.db.outage import passing
from rollout.delivery.hub import Hub, Snapshot
from rollout.errors import NotFound, RolloutError
from rollout.ingest.accept import accept
from rollout.telemetry import BATCHES
from rollout_client.evaluation.evidence import BatchAnswer
from rollout_client.evaluation.ruleset import Ruleset

JSON = "application/json"


async def snapshot(hub: Hub, environment: str, seen: Collection[str] = ()) -> Snapshot:
    """The newest ruleset this process knows, after a look at the database if the client has seen another.

    Raises:
        NotFound: no such environment.
    """
    newest = hub.newest(environment)
    if newest is None or (seen and newest.tag not in seen):
        await hub.refresh()
        newest = hub.newest(environment)
    if newest is None:
        raise NotFound(f"there is no environment {environment!r}", path="environment")
    return newest


@get(
    "/ruleset",
    opt=admits("sdk:read"),
    responses={
        200: ResponseSpec(Ruleset, generate_examples=False, description="The newest ruleset."),
        304: ResponseSpec(None, description="The revision of If-None-Match is the newest."),
        **REFUSALS,
    },
)
async def get_ruleset(
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
    environment: FromQuery[str | None] = None,
    if_none_match: Annotated[str | None, HeaderParameter(name="If-None-Match")] = None,
) -> Response[bytes]:
    """The newest ruleset, or 304; `Rollout-Engine-Age` (ms) on both says how old the engine's last complete pass is."""
    hub = service.control.hub
    seen = _tags(if_none_match)
    newest = await snapshot(hub, caller.environment(environment), seen)
    headers = {"ETag": f'"{newest.tag}"', "Cache-Control": "no-cache"}
    age = hub.engine_age_ms()
    if age is not None:
        headers["Rollout-Engine-Age"] = str(age)
    if newest.tag in seen:
        return Response(b"", status_code=304, headers=headers, media_type=JSON)
    return Response(newest.body, headers=headers, media_type=JSON)


@get("/stream", opt=admits("sdk:read"), responses=REFUSALS, media_type="text/event-stream")
async def get_stream(
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
    environment: FromQuery[str | None] = None,
    after: FromQuery[str | None] = None,
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID")] = None,
) -> Stream:
    """Server-sent events: `ruleset`, `patch` and `heartbeat`; resumes after `Last-Event-ID`, else after `after`."""
    seen = last_event_id or after
    where = caller.environment(environment)
    await snapshot(service.control.hub, where, {seen} if seen else ())

    async def admitted() -> bool:
        try:
            return await service.keyring.holds(caller.key.id)
        except Exception as error:  # a database that is away has revoked nothing, and the stream says how long it was
            if passing(error):
                return True
            raise

    return Stream(
        changes(service.control.hub, where, seen, admitted, beat=service.heartbeat, life=service.stream_life),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


@post(
    "/events",
    opt=admits("sdk:evidence"),
    responses={
        200: ResponseSpec(BatchAnswer, generate_examples=False, description="Committed; the answer of its batch id."),
        **REFUSALS,
    },
)
async def post_events(
    request: Request[Caller, Any, Any],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
    environment: FromQuery[str | None] = None,
    content_encoding: Annotated[str | None, HeaderParameter(name="Content-Encoding")] = None,
) -> Response[bytes]:
    """One batch of folded evidence, whole or not at all; answered after the commit. May be gzipped."""
    where = caller.environment(environment)
    try:
        body = inflate(await request.body(), (content_encoding or "").lower(), service.most_decompressed)
        control = service.control
        answer = await accept(control.database, where, body, control.now(), service.nudge)
    except (RolloutError, HTTPException):
        BATCHES.labels("refused").inc()
        raise
    BATCHES.labels("accepted").inc()
    return Response(answer, status_code=200, media_type=JSON)


def _tags(if_none_match: str | None) -> set[str]:
    """The tags of an If-None-Match header; what is no tag of ours matches nothing."""
    tags = (tag.strip().removeprefix("W/").strip('"') for tag in (if_none_match or "").split(","))
    return {tag for tag in tags if tag}


routes = Router("/sdk/v1", route_handlers=[get_ruleset, get_stream, post_events], tags=["sdk"])
