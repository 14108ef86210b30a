"""Environments: where flags are served. Each has a ruleset from the moment it is made."""

from litestar import Response, Router, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from rollout.api.auth import EDIT, VIEW, Caller
from rollout.api.documents import refuse, same_key
from rollout.api.problems import REFUSALS
from rollout.api.service import Service
from rollout.db import audit, environments, rollouts
from rollout.db.audit import Entry
from rollout.db.session import Session
from rollout.delivery.publish import publish
from rollout.domain.environment import Environment, environment_problems
from rollout.domain.holdout import holdout_refusal
from rollout.errors import Conflict, NotFound


async def _save(service: Service, caller: Caller, document: Environment, *, replace: bool) -> Response[Environment]:
    caller.require_shared("environments")
    refuse(environment_problems(document))
    now = service.control.now()
    async with service.control.database.write() as session:
        before = await environments.find(session, document.key, lock=True)
        if before is not None and not replace:
            raise Conflict(f"there is an environment {document.key!r} already; PUT replaces it")
        await _refuse_returning(session, before, document)
        if before != document:
            await environments.save(session, document, now)
            await publish(session, document.key, now)
            await audit.record(session, Entry(
                at=now, actor=caller.name, action=f"environment.{'create' if before is None else 'change'}",
                target=f"environment:{document.key}", environment=document.key, detail={"document": document},
            ))  # fmt: skip
    await service.control.hub.refresh()
    return Response(document, status_code=201 if before is None else 200)


async def _refuse_returning(session: Session, before: Environment | None, after: Environment) -> None:
    """A holdout may take units out of running rollouts, and must not bring any back."""
    if before is None or before.holdout in (None, after.holdout):
        return
    exposed = [each.id for each in await rollouts.exposed(session, after.key)]
    refused = holdout_refusal(before.holdout, after.holdout, exposed)
    if refused is not None:
        raise Conflict(refused.message, path=refused.path)


@get("/", opt=VIEW, responses=REFUSALS)
async def list_environments(service: NamedDependency[Service], caller: NamedDependency[Caller]) -> list[Environment]:
    """Every environment that exists for the key."""
    async with service.control.database.read() as session:
        found = await environments.every(session)
    return [each for key, each in found.items() if caller.sees(key)]


@get("/{key:str}", opt=VIEW, responses=REFUSALS)
async def get_environment(
    key: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> Environment:
    """One environment."""
    async with service.control.database.read() as session:
        found = await environments.find(session, key) if caller.sees(key) else None
    if found is None:
        raise NotFound(f"there is no environment {key!r}")
    return found


@post("/", opt=EDIT, responses=REFUSALS)
async def create_environment(
    data: JSONBody[Environment], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> Response[Environment]:
    """Make an environment; needs a key of all environments."""
    return await _save(service, caller, data, replace=False)


@put("/{key:str}", opt=EDIT, responses=REFUSALS)
async def put_environment(
    key: FromPath[str],
    data: JSONBody[Environment],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
) -> Response[Environment]:
    """Make or replace an environment; needs a key of all environments."""
    same_key(key, data)
    return await _save(service, caller, data, replace=True)


routes = Router(
    "/environments",
    route_handlers=[list_environments, get_environment, create_environment, put_environment],
    tags=["environments"],
)
