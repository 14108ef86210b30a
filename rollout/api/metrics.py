"""Metrics: what is measured. A rollout froze its own copies when it was made, so a change concerns later ones only."""

from litestar import Response, Router, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from rollout.api import documents
from rollout.api.auth import EDIT, VIEW, Caller
from rollout.api.problems import REFUSALS
from rollout.api.service import Service
from rollout.db.world import World
from rollout.domain.document import Problem
from rollout.domain.metric import Metric, metric_problems


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


routes = Router("/metrics", route_handlers=[list_metrics, get_metric, create_metric, put_metric], tags=["metrics"])
