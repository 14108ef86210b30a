"""Cohorts: named groups of units, served with every ruleset."""

from litestar import Response, Router, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from rollout.api import documents
from rollout.api.auth import EDIT, VIEW, Caller
from rollout.api.problems import REFUSALS
from rollout.api.service import Service
from rollout.db.world import World
from rollout.domain.cohort import Cohort, cohort_problems
from rollout.domain.document import Problem


def problems(cohort: Cohort, _: Cohort | None, world: World) -> list[Problem]:
    """Everything wrong with a cohort and with the cohorts its rule names."""
    return cohort_problems(cohort, world.cohorts)


@get("/", opt=VIEW, responses=REFUSALS)
async def list_cohorts(service: NamedDependency[Service]) -> list[documents.Stored[Cohort]]:
    """Every cohort with its revision."""
    return await documents.listed(service, Cohort)


@get("/{key:str}", opt=VIEW, responses=REFUSALS)
async def get_cohort(key: FromPath[str], service: NamedDependency[Service]) -> Response[Cohort]:
    """One cohort; its revision is the ETag."""
    return await documents.one(service, Cohort, key)


@post("/", opt=EDIT, responses=REFUSALS)
async def create_cohort(
    data: JSONBody[Cohort], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> Response[Cohort]:
    """Make a cohort."""
    return await documents.save(service, caller, data, problems, 0)


@put("/{key:str}", opt=EDIT, responses=REFUSALS)
async def put_cohort(
    key: FromPath[str],
    data: JSONBody[Cohort],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
    if_match: documents.IfMatch = None,
) -> Response[Cohort]:
    """Make or replace a cohort; every environment serves the change at once."""
    documents.same_key(key, data)
    return await documents.save(service, caller, data, problems, documents.expected_revision(if_match))


routes = Router("/cohorts", route_handlers=[list_cohorts, get_cohort, create_cohort, put_cohort], tags=["cohorts"])
