"""Overrides: one unit gets a variant for a while, by a person's act. What raises exposure needs `operator`."""

from typing import Any
from urllib.parse import unquote

from litestar import Request, Router, delete, get, put
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery, JSONBody

from rollout.api.auth import REDUCE, VIEW, Caller
from rollout.api.problems import REFUSALS
from rollout.api.service import Service
from rollout.db import documents, environments
from rollout.db import overrides as stored
from rollout.domain.document import Why
from rollout.domain.flag import Flag
from rollout.domain.override import Override, OverrideRequest
from rollout.engine import overrides
from rollout.engine.overrides import Place
from rollout.errors import Malformed, NotFound

ADDRESS = "/api/v1/flags/KEY/overrides/ENVIRONMENT/UNIT"


async def place_of(
    request: Request[Caller, Any, Any], key: FromPath[str], environment: FromPath[str], unit: FromPath[str]
) -> Place:
    """Dependency `place`: the unit as the address spells it, since a decoded path forgets which slashes are its own.

    Raises:
        Malformed: there are slashes in the address that the route forgave.
        Forbidden: the key is bound to another environment.
    """
    request.user.require(environment)
    written = bytes(request.scope["raw_path"]).decode("latin-1").split("/", ADDRESS.count("/"))
    named = [unquote(each) for each in written]
    if len(named) != ADDRESS.count("/") + 1 or (named[4], named[6]) != (key, environment) or not unit:
        raise Malformed(f"write the address as {ADDRESS}, with everything in it percent-encoded")
    return Place(flag=key, environment=environment, unit=named[7])


@get("/{environment:str}", opt=VIEW, responses=REFUSALS)
async def list_overrides(
    key: FromPath[str],
    environment: FromPath[str],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
) -> list[Override]:
    """Who gets what by an override of this flag here, given by whom, why and until when; the soonest to end first."""
    caller.require(environment)
    now = service.control.now()
    async with service.control.database.read() as session:
        if await documents.find(session, Flag, key) is None:
            raise NotFound(f"there is no flag {key!r}")
        if await environments.find(session, environment) is None:
            raise NotFound(f"there is no environment {environment!r}")
        found = await stored.of_environment(session, environment, key)
    return [each for each in found if each.expires_at > now]


@put("/{environment:str}/{unit:path}", opt=REDUCE, responses=REFUSALS, dependencies={"place": Provide(place_of)})
async def put_override(
    place: NamedDependency[Place],
    data: JSONBody[OverrideRequest],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
) -> Override:
    """Give a unit a variant, with a reason, until `expires`: "24h" or a moment within 90 days. Replaces the former."""
    return await overrides.give(service.control, place, data, caller.actor)


@delete(
    "/{environment:str}/{unit:path}",
    status_code=200,
    opt=REDUCE,
    responses=REFUSALS,
    dependencies={"place": Provide(place_of)},
)
async def delete_override(
    place: NamedDependency[Place],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
    reason: FromQuery[Why] = "",
) -> Override:
    """End an override now; answers with what it was."""
    return await overrides.end(service.control, place, caller.name, reason)


routes = Router(
    "/flags/{key:str}/overrides", route_handlers=[list_overrides, put_override, delete_override], tags=["overrides"]
)
