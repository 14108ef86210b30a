"""Metrics: what is measured. A rollout froze its own copies when it was made, so a change concerns later ones only.

Whoever measures a metric outside the applications (a judge of answers, a nightly query) reports when it cannot:
failures in a row are the verdict `error`, which is no `breach` and never a `pass`.
"""

import msgspec
from litestar import Response, Router, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from rollout.api import documents
from rollout.api.auth import EDIT, VIEW, Caller, admits
from rollout.api.problems import REFUSALS
from rollout.api.service import Service
from rollout.db import documents as stored
from rollout.db import environments, sources
from rollout.db.world import World
from rollout.domain.document import Document, Problem
from rollout.domain.metric import Metric, metric_problems
from rollout.errors import NotFound

LONGEST_ERROR = 500


class SourceReport(Document, frozen=True, kw_only=True):
    """What happened when the metric's source was asked: `error` null when it answered."""

    environment: str
    error: str | None = None


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How often in a row the source of a metric has failed in an environment."""

    metric: str
    environment: str
    failures: int


def problems(metric: Metric, before: Metric | None, _: World) -> list[Problem]:
    """Everything wrong with a metric, by itself and as a successor of the one that clients report already."""
    found = metric_problems(metric)
    if before is not None and before.kind != metric.kind:
        message = f"the metric {metric.key!r} is a {before.kind} and stays one; make another metric for a {metric.kind}"
        found.insert(0, Problem("kind", message))
    return found


@get("/", opt=VIEW, responses=REFUSALS)
async def list_metrics(service: NamedDependency[Service]) -> list[documents.Stored[Metric]]:
    """Every metric with its revision."""
    return await documents.listed(service, Metric)


@get("/{key:str}", opt=VIEW, responses=REFUSALS)
async def get_metric(key: FromPath[str], service: NamedDependency[Service]) -> Response[Metric]:
    """One metric; its revision is the ETag."""
    return await documents.one(service, Metric, key)


@post("/", opt=EDIT, responses=REFUSALS)
async def create_metric(
    data: JSONBody[Metric], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> Response[Metric]:
    """Make a metric."""
    return await documents.save(service, caller, data, problems, 0)


@put("/{key:str}", opt=EDIT, responses=REFUSALS)
async def put_metric(
    key: FromPath[str],
    data: JSONBody[Metric],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
    if_match: documents.IfMatch = None,
) -> Response[Metric]:
    """Make or replace a metric."""
    documents.same_key(key, data)
    return await documents.save(service, caller, data, problems, documents.expected_revision(if_match))


@post("/{key:str}/reports", status_code=200, opt=admits("editor", "sdk:evidence"), responses=REFUSALS)
async def report_source(
    key: FromPath[str],
    data: JSONBody[SourceReport],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
) -> SourceStatus:
    """Say that the metric's source failed, or that it answers again; rollouts that watch it are looked at soon."""
    caller.require(data.environment)
    error = None if data.error is None else (_printable(data.error) or "it failed")
    async with service.control.database.write() as session:
        if await stored.find(session, Metric, key) is None:
            raise NotFound(f"there is no metric {key!r}")
        if await environments.find(session, data.environment) is None:
            raise NotFound(f"there is no environment {data.environment!r}")
        failures = await sources.report(session, data.environment, key, error, service.control.now())
    service.nudge()
    return SourceStatus(metric=key, environment=data.environment, failures=failures)


def _printable(text: str) -> str:
    """On one line and without control characters: it is shown on terminals, and whoever measures may write it."""
    shown = "".join(each if each.isprintable() else " " for each in text[: 4 * LONGEST_ERROR])
    return " ".join(shown.split())[:LONGEST_ERROR]


routes = Router(
    "/metrics",
    route_handlers=[list_metrics, get_metric, create_metric, put_metric, report_source],
    tags=["metrics"],
)
