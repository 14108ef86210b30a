"""What a plan would do before it starts, and what it would have done: worked out by a process beside the service."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Literal

import msgspec
from litestar import Request, Router, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from rollout.api.auth import VIEW, Caller
from rollout.api.documents import refuse
from rollout.api.problems import REFUSALS
from rollout.api.service import Service
from rollout.db import rollouts, world
from rollout.db.session import Session
from rollout.domain.backtest import Backtest, backtest_problems
from rollout.domain.document import Document, Problem
from rollout.domain.expectation import Expectation, expectation_problems
from rollout.domain.forecast import Forecast, forecast_problems
from rollout.domain.plan import PlanBody, RolloutDocument
from rollout.domain.plan_problems import plan_problems, rollout_problems
from rollout.domain.watch import watches
from rollout.engine import backtest
from rollout.engine.drafting import resolve_plan
from rollout.engine.worker import Wanted
from rollout.errors import Invalid, NotFound, RolloutError


class Gone(RolloutError):
    """The caller went away before the answer; the work was stopped."""

    status = 499
    title = "Client closed the request"


class AnyPlan(PlanBody, frozen=True, kw_only=True):
    """A plan as it would be saved; a key is not needed."""

    key: str = ""
    kind: Literal["Plan"] = "Plan"
    description: str = ""


class Asked(Document, frozen=True, kw_only=True):
    """A rollout, which may name a plan of the service, or else a plan."""

    rollout: RolloutDocument | None = None
    plan: AnyPlan | None = None


class SimulateRequest(Asked, frozen=True, kw_only=True):
    """The plan, and what is expected; metrics and cohorts are the service's own."""

    expectation: Expectation


@post("/simulate", status_code=200, opt=VIEW, responses=REFUSALS)
async def simulate(
    data: JSONBody[SimulateRequest],
    request: Request[Any, Any, Any],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
) -> Forecast:
    """Say what a plan would do: false rollbacks, time to the end, and for each regression the harm until a rollback.

    One is worked out at a time (429 beyond), for at most a minute.
    """
    async with service.control.database.read() as session:
        known = await world.load(session)
        path, plan = await _asked(session, caller, data)
    found = rollout_problems(plan, known) if isinstance(plan, RolloutDocument) else plan_problems(plan, known)
    refuse(_under(path, found))
    refuse(
        _under(path, forecast_problems(plan, known.metrics))
        + _under("expectation", expectation_problems(data.expectation, plan, known.metrics))
    )
    named = {watch.metric for watch in watches(plan, known.metrics)} | data.expectation.metrics.keys()
    wanted = Wanted(
        plan=_body(plan), metrics={key: known.metrics[key] for key in sorted(named)}, expectation=data.expectation
    )
    answer = await _attended(request, service.aside.run("forecast", _one(msgspec.json.encode(wanted))))
    return msgspec.json.decode(answer, type=Forecast)


@post("/{rollout:str}/backtest", status_code=200, opt=VIEW, responses=REFUSALS)
async def backtest_rollout(
    rollout: FromPath[str],
    data: JSONBody[Asked],
    request: Request[Any, Any, Any],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
) -> Backtest:
    """Replay a rollout's recorded looks under another plan: what it would have decided, beside what was decided.

    One is worked out at a time (429 beyond), for at most a minute.
    """
    database = service.control.database
    async with database.read() as session:
        row = await rollouts.find(session, rollout)
        if row is None or not caller.sees(row.environment):
            raise NotFound(f"there is no rollout {rollout!r}")
        known = await world.load(session)
        path, plan = await _asked(session, caller, data)
    unseen = backtest_problems(plan, row.metrics)
    named = {problem.path for problem in unseen}
    found = plan_problems(plan, replace(known, metrics=row.metrics))
    refuse(_under(path, unseen + [problem for problem in found if problem.path not in named]))
    begin = await backtest.head(database, row, _body(plan))
    answer = await _attended(request, service.aside.run("backtest", backtest.lines(database, begin)))
    return msgspec.json.decode(answer, type=Backtest)


async def _asked(session: Session, caller: Caller, data: Asked) -> tuple[str, PlanBody]:
    """The plan that is meant, and the field it came in."""
    if data.rollout is not None and data.plan is None:
        caller.require(data.rollout.environment)
        try:
            return "rollout", await resolve_plan(session, data.rollout)
        except Invalid as error:
            raise Invalid([(f"rollout.{path}", message) for path, message in error.problems]) from error
    if data.plan is None or data.rollout is not None:
        raise Invalid([("plan", "give a plan or a rollout, one of them")])
    return "plan", data.plan


def _under(path: str, problems: Sequence[Problem]) -> list[Problem]:
    return [Problem(f"{path}.{problem.path}", problem.message) for problem in problems]


def _body(plan: PlanBody) -> PlanBody:
    """What a plan and a rollout share, alone."""
    return PlanBody(**{field: getattr(plan, field) for field in PlanBody.__struct_fields__})


async def _one(line: bytes) -> AsyncGenerator[bytes]:
    yield line


async def _attended(request: Request[Any, Any, Any], work: Coroutine[Any, Any, bytes]) -> bytes:
    """The answer to a caller who waits for it; the work ends when the caller goes away.

    Raises:
        Gone: the caller did.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        return working.result()
    finally:
        for each in (working, leaving):
            each.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request[Any, Any, Any]) -> None:
    """Return when the caller's connection is closed."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


routes = Router("/rollouts", route_handlers=[simulate, backtest_rollout], tags=["rollouts"])
