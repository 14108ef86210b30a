"""Plans: reusable recipes. A change adds a version; a rollout keeps the one it was made from."""

from typing import Annotated

from litestar import Response, Router, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody, QueryParameter

from rollout.api.auth import EDIT, VIEW, Caller
from rollout.api.documents import IfMatch, Stored, expected_revision, refuse, same_key, tagged
from rollout.api.problems import REFUSALS
from rollout.api.service import Service
from rollout.db import audit, plans, world
from rollout.db.audit import Entry
from rollout.domain.document import key_problems
from rollout.domain.plan import Plan
from rollout.domain.plan_problems import plan_problems
from rollout.errors import Conflict, NotFound

Version = Annotated[int | None, QueryParameter(ge=1, le=2**31 - 1)]


async def _save(service: Service, caller: Caller, plan: Plan, expected: int | None) -> Response[Plan]:
    caller.require_shared("plans")
    now = service.control.now()
    async with service.control.database.write() as session:
        found = await plans.find(session, plan.key)
        newest = found[1] if found is not None else 0
        if expected == 0 and newest:
            raise Conflict(f"there is a plan {plan.key!r} already; PUT adds a version")
        if expected not in (None, newest):
            raise Conflict(f"{plan.key!r} is at version {newest}, not {expected}; read it again and repeat the change")
        refuse(key_problems(plan.key) + plan_problems(plan, await world.load(session)))
        version = await plans.add(session, plan, now)
        if version != newest:
            await audit.record(session, Entry(
                at=now, actor=caller.name, action=f"plan.{'change' if newest else 'create'}",
                target=f"plan:{plan.key}", detail={"version": version, "document": plan},
            ))  # fmt: skip
    return tagged(plan, version, 200 if newest else 201)


@get("/", opt=VIEW, responses=REFUSALS)
async def list_plans(service: NamedDependency[Service]) -> list[Stored[Plan]]:
    """The newest version of every plan; `revision` is the version."""
    async with service.control.database.read() as session:
        return [Stored(version, plan) for plan, version in await plans.every(session)]


@get("/{key:str}", opt=VIEW, responses=REFUSALS)
async def get_plan(
    key: FromPath[str],
    service: NamedDependency[Service],
    version: Version = None,
) -> Response[Plan]:
    """A version of a plan, the newest one if none is named; the version is the ETag."""
    async with service.control.database.read() as session:
        found = await plans.find(session, key, version)
    if found is None:
        raise NotFound(f"there is no plan {key!r}" + (f" in version {version}" if version is not None else ""))
    return tagged(found[0], found[1])


@post("/", opt=EDIT, responses=REFUSALS)
async def create_plan(
    data: JSONBody[Plan], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> Response[Plan]:
    """Make a plan."""
    return await _save(service, caller, data, 0)


@put("/{key:str}", opt=EDIT, responses=REFUSALS)
async def put_plan(
    key: FromPath[str],
    data: JSONBody[Plan],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
    if_match: IfMatch = None,
) -> Response[Plan]:
    """Add a version of a plan, unless it says the same as the newest."""
    same_key(key, data)
    return await _save(service, caller, data, expected_revision(if_match))


routes = Router("/plans", route_handlers=[list_plans, get_plan, create_plan, put_plan], tags=["plans"])
