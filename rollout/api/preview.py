"""Why would this unit get that? Answered by the evaluator that the applications run, on the ruleset they are served."""

from typing import Any

import msgspec
from litestar import Router, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from rollout.api.auth import VIEW, Caller
from rollout.api.problems import REFUSALS
from rollout.api.service import Service
from rollout.domain.document import Document
from rollout.errors import NotFound
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import compile_ruleset, evaluate


class PreviewContext(Document, frozen=True, kw_only=True):
    """Who would ask."""

    targeting_key: str | None = None
    attributes: dict[str, Any] = {}


class PreviewRequest(Document, frozen=True, kw_only=True):
    """Which flag, where, for whom."""

    environment: str
    flag: str
    context: PreviewContext = msgspec.field(default_factory=PreviewContext)


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """The answer an application with a fresh ruleset gives now."""

    value: Any
    variant: str | None
    reason: str
    error: str | None
    revision: int
    rollout: str | None
    attempt: str | None
    arm: str | None


@post("/", status_code=200, opt=VIEW, responses=REFUSALS)
async def preview(
    data: JSONBody[PreviewRequest], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> Preview:
    """Evaluate a flag for a context; nothing is recorded."""
    caller.require(data.environment)
    hub = service.control.hub
    newest = hub.newest(data.environment)
    if newest is None:
        raise NotFound(f"there is no environment {data.environment!r}")
    if data.flag not in newest.ruleset.flags:
        raise NotFound(f"there is no flag {data.flag!r}")
    compiled = compile_ruleset(newest.ruleset)
    age = hub.engine_age_ms()
    lapsed = frozenset({*compiled.leases, None} if age is None else {x for x in compiled.leases if age > x})
    slot = int(service.control.now().timestamp()) // 60
    context = Context(data.context.targeting_key, data.context.attributes)
    found = evaluate(compiled, data.flag, context, lapsed, slot)
    return Preview(
        value=found.value,
        variant=found.variant,
        reason=found.reason,
        error=found.error,
        revision=found.revision,
        rollout=found.rollout,
        attempt=found.attempt,
        arm=found.arm,
    )


routes = Router("/preview", route_handlers=[preview], tags=["preview"])
