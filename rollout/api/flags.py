"""Flags: authored documents, and the switch that kills and restores them in one environment."""

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

import msgspec
from litestar import Response, Router, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from rollout.api import documents
from rollout.api.auth import EDIT, REDUCE, VIEW, Caller, admits
from rollout.api.problems import REFUSALS
from rollout.api.service import Service
from rollout.db import documents as stored
from rollout.db import environments, flag_states
from rollout.db.world import World
from rollout.domain.document import Document, Problem, Why
from rollout.domain.flag import Flag, FlagState, TargetingRule, changed_variants, flag_problems
from rollout.engine import switch
from rollout.errors import NotFound
from rollout_client.evaluation.targeting import cohort_names


class Switch(Document, frozen=True, kw_only=True):
    """Where to kill or restore a flag, and why."""

    environment: str
    reason: Why = ""


class FlagStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A flag in one environment: what happened to it there. `already`: it was killed before."""

    flag: str
    environment: str
    killed: bool
    state: FlagState
    already: bool = False


def problems(flag: Flag, before: Flag | None, world: World) -> list[Problem]:
    """Everything wrong with a flag: by itself, as a successor of what was served, and in what it refers to."""
    found = flag_problems(flag)
    if before is not None:
        found += changed_variants(before, flag)
    for i, required in enumerate(flag.prerequisites):
        other = flag if required.flag == flag.key else world.flags.get(required.flag)
        path = f"prerequisites[{i}]"
        if other is None:
            found.append(_unknown(f"{path}.flag", "flag", required.flag, world.flags))
            continue
        found += [
            _unknown(f"{path}.variants[{n}]", f"variant of {other.key!r}", variant, other.variants)
            for n, variant in enumerate(required.variants)
            if variant not in other.variants
        ]
    found += _cycle(flag, world)
    for environment, targeting in flag.targeting.items():
        if environment not in world.environments:
            known = dict.fromkeys(world.environments)
            found.append(_unknown(f"targeting.{environment}", "environment", environment, known))
        for i, rule in enumerate(targeting.rules):
            found += _cohorts(rule, f"targeting.{environment}.rules[{i}].when", world)
    return found


def _cohorts(rule: TargetingRule, path: str, world: World) -> list[Problem]:
    named = sorted(set(cohort_names(rule.when))) if rule.when is not None else []
    return [_unknown(path, "cohort", name, world.cohorts) for name in named if name not in world.cohorts]


def _cycle(flag: Flag, world: World) -> list[Problem]:
    flags = {**world.flags, flag.key: flag}
    needs = {key: [required.flag for required in each.prerequisites] for key, each in flags.items()}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        around = list(reversed(error.args[1]))
        if flag.key in around and len(around) > 2:
            message = f"the flags would wait for each other: {' -> '.join(around)}; break the cycle"
            return [Problem("prerequisites", message)]
    return []


def _unknown(path: str, what: str, name: str, known: Mapping[str, Any]) -> Problem:
    some = ", ".join(sorted(known)[:8]) or "none yet"
    return Problem(path, f"there is no {what} {name!r} (known: {some}); create it first or correct the name")


@get("/", opt=VIEW, responses=REFUSALS)
async def list_flags(
    service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> list[documents.Stored[Flag]]:
    """Every flag with its revision; a bound key sees the targeting of its own environment only."""
    found = await documents.listed(service, Flag)
    return [documents.Stored(each.revision, documents.visible(caller, each.document)) for each in found]


@get("/{key:str}", opt=VIEW, responses=REFUSALS)
async def get_flag(
    key: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> Response[Flag]:
    """One flag; its revision is the ETag. A bound key sees the targeting of its own environment only."""
    found = await documents.one(service, Flag, key)
    return Response(documents.visible(caller, found.content), headers=found.headers)


@post("/", opt=EDIT, responses=REFUSALS)
async def create_flag(
    data: JSONBody[Flag], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> Response[Flag]:
    """Make a flag."""
    return await documents.save(service, caller, data, problems, 0)


@put("/{key:str}", opt=EDIT, responses=REFUSALS)
async def put_flag(
    key: FromPath[str],
    data: JSONBody[Flag],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
    if_match: documents.IfMatch = None,
) -> Response[Flag]:
    """Make or replace a flag; variants that exist stay as they are."""
    documents.same_key(key, data)
    return await documents.save(service, caller, data, problems, documents.expected_revision(if_match))


@get("/{key:str}/state", opt=VIEW, responses=REFUSALS)
async def get_state(
    key: FromPath[str],
    environment: FromQuery[str],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
) -> FlagStatus:
    """What happened to a flag in an environment: killed, released."""
    caller.require(environment)
    async with service.control.database.read() as session:
        if await stored.find(session, Flag, key) is None:
            raise NotFound(f"there is no flag {key!r}")
        if await environments.find(session, environment) is None:
            raise NotFound(f"there is no environment {environment!r}")
        state = await flag_states.find(session, key, environment)
    return FlagStatus(flag=key, environment=environment, killed=state.killed, state=state)


@post("/{key:str}/kill", status_code=200, opt=REDUCE, responses=REFUSALS)
async def kill_flag(
    key: FromPath[str], data: JSONBody[Switch], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> FlagStatus:
    """Serve the default variant to everyone in an environment, now; pauses the rollout that runs there."""
    caller.require(data.environment)
    asked = service.control.now()
    state = await switch.kill(service.control, key, data.environment, caller.name, data.reason)
    already = state.killed_at is not None and state.killed_at < asked
    return FlagStatus(flag=key, environment=data.environment, killed=state.killed, state=state, already=already)


@post("/{key:str}/restore", status_code=200, opt=admits("operator"), responses=REFUSALS)
async def restore_flag(
    key: FromPath[str], data: JSONBody[Switch], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> FlagStatus:
    """End a kill. The rollout that it paused stays paused until somebody resumes it."""
    caller.require(data.environment)
    state = await switch.restore(service.control, key, data.environment, caller.name, data.reason)
    return FlagStatus(flag=key, environment=data.environment, killed=state.killed, state=state)


routes = Router(
    "/flags",
    route_handlers=[list_flags, get_flag, create_flag, put_flag, get_state, kill_flag, restore_flag],
    tags=["flags"],
)
