"""Every route of the service, for the composition root."""

from typing import Any

from litestar import Router
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

import rollout
from rollout.api import (
    audit,
    cohorts,
    environments,
    flags,
    foresight,
    health,
    keys,
    metrics,
    overrides,
    plans,
    preview,
    rollouts,
    schemas,
    sdk,
)
from rollout.api.auth import ANYONE, admits

_NOUNS = (environments, flags, overrides, cohorts, metrics, plans, rollouts, foresight, keys, audit, preview, schemas)


def routes(open_metrics: bool) -> list[Any]:
    """Handlers and routers; `open_metrics` lets `/metrics` be read without a key."""
    return [Router("/api/v1", route_handlers=[noun.routes for noun in _NOUNS]), sdk.routes, *probes(open_metrics)]


def probes(open_metrics: bool) -> list[Any]:
    """What supervisors and Prometheus ask: all that a process without the API answers."""
    return [health.live, health.ready, health.open_metrics if open_metrics else health.guarded_metrics]


def openapi() -> OpenAPIConfig:
    """OpenAPI 3.1 as JSON at `/schema/openapi.json`, for anyone: it holds no data."""
    bearer = SecurityScheme(type="http", scheme="bearer", description="A key: `Authorization: Bearer rl_...`")
    return OpenAPIConfig(
        title="Rampline",
        version=rollout.__version__,
        description=rollout.__doc__ or "",
        components=Components(security_schemes={"key": bearer}),
        security=[{"key": []}],
        use_handler_docstrings=True,
        render_plugins=[JsonRenderPlugin()],
        openapi_router=Router("/schema", route_handlers=[], include_in_schema=False, opt=admits(ANYONE)),
    )
