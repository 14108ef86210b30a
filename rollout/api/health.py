"""Is it alive, is it ready, and what does it measure: for supervisors and for Prometheus."""

import asyncio
from math import nan

import structlog
from litestar import Response, get
from litestar.di import NamedDependency

from rollout.api.auth import ANYONE, admits
from rollout.api.problems import MEDIA_TYPE, REFUSALS, ProblemDetails
from rollout.api.service import Service
from rollout.db import rollouts
from rollout.domain.rollout import percentage_now, stage_name
from rollout.telemetry import ENGINE_AGE, PERCENTAGE, STAGE_AGE, STATE, exposition, places

_PATIENCE = 2.0
_log = structlog.get_logger("rollout.api")
EXPOSITION = "text/plain; version=0.0.4"


@get("/health/live", opt=admits(ANYONE), tags=["health"])
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "live"}


@get("/health/ready", opt=admits(ANYONE), tags=["health"])
async def ready(service: NamedDependency[Service]) -> Response[dict[str, str] | ProblemDetails]:
    """The database answers too. Before its migrations are done the service listens to nobody."""
    try:
        async with asyncio.timeout(_PATIENCE):
            await service.control.database.ping()
    except Exception as error:
        _log.warning("database does not answer", exception=places(error))
        detail = "the database does not answer; see the service's log"
        problem = ProblemDetails(status=503, title="Not ready", detail=detail)
        return Response(problem, status_code=503, media_type=MEDIA_TYPE)
    return Response({"status": "ready"})


async def metrics(service: NamedDependency[Service]) -> Response[bytes]:
    """Prometheus' text format: counters are of this process, the state of rollouts is that of the database."""
    age = service.control.hub.engine_age_ms()
    ENGINE_AGE.set(nan if age is None else age / 1000)
    now = service.control.now()
    async with service.control.database.read() as session:
        live = await rollouts.live(session)
    for gauge in (STATE, PERCENTAGE, STAGE_AGE):
        gauge.clear()
    for row in live:
        named = (row.id, row.flag, row.environment)
        STATE.labels(*named, row.status).set(1)
        PERCENTAGE.labels(*named).set(percentage_now(row.document, row.state))
        STAGE_AGE.labels(*named, stage_name(row.document, row.state.stage)).set(
            row.state.stage_age(now).total_seconds()
        )
    return Response(exposition(), media_type=EXPOSITION)


open_metrics = get("/metrics", opt=admits(ANYONE), responses=REFUSALS, tags=["health"])(metrics)
guarded_metrics = get("/metrics", opt=admits("viewer"), responses=REFUSALS, tags=["health"])(metrics)
