"""Work aside: answered by another process, one at a time, killed when its time is over or nobody wants it any more."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator

import msgspec
import pytest

from rollout.domain.expectation import Expectation, ExpectedMetric, Regression
from rollout.domain.forecast import Forecast, forecast
from rollout.domain.plan import PlanBody
from rollout.engine.aside import Aside, Busy, Failed, Stopping, TooLong
from rollout.engine.worker import Wanted
from tests.core.domain.plans import World, rollout


def wanted(runs: int = 20, regressions: int = 0) -> Wanted:
    expectation = Expectation(
        requests_per_minute=2000.0,
        metrics={"error_rate": ExpectedMetric(rate=0.02)},
        regressions=(Regression(metric="error_rate", times=1.01),) * regressions,
        runs=runs,
    )
    body = {field: getattr(rollout(), field) for field in PlanBody.__struct_fields__}
    metrics = {"error_rate": World.metrics["error_rate"]}
    return Wanted(plan=PlanBody(**body), metrics=metrics, expectation=expectation)


async def lines(work: Wanted | bytes) -> AsyncGenerator[bytes]:
    yield work if isinstance(work, bytes) else msgspec.json.encode(work)


ENDLESS = wanted(runs=5000, regressions=200)


async def begun(aside: Aside) -> int:
    """The id of the process, once there is one."""
    while not aside._running:  # noqa: ASYNC110 (a test need not be told)
        await asyncio.sleep(0.01)
    return next(iter(aside._running)).pid


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_a_forecast_is_that_of_the_same_code_and_holds_nobody_up() -> None:
    work, ticks = wanted(), 0
    running = asyncio.create_task(Aside().run("forecast", lines(work)))
    while not running.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert msgspec.json.decode(await running, type=Forecast) == forecast(work.plan, work.metrics, work.expectation)
    assert ticks > 10, "the loop went on"


async def test_work_that_takes_too_long_is_stopped_and_makes_room() -> None:
    aside = Aside(seconds=1.0)
    running = asyncio.create_task(aside.run("forecast", lines(ENDLESS)))
    pid = await begun(aside)
    with pytest.raises(Busy):
        await aside.run("forecast", lines(wanted()))
    with pytest.raises(TooLong, match=r"stopped after 1 s: ask for fewer runs"):
        await running
    assert is_gone(pid)
    with pytest.raises(TooLong):
        await aside.run("forecast", lines(ENDLESS))


async def test_nobody_works_for_a_caller_who_has_gone() -> None:
    aside = Aside()
    running = asyncio.create_task(aside.run("forecast", lines(ENDLESS)))
    pid = await begun(aside)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert is_gone(pid)
    assert await aside.run("forecast", lines(wanted()))


async def test_closing_ends_what_runs_at_once() -> None:
    aside = Aside()
    running = asyncio.create_task(aside.run("forecast", lines(ENDLESS)))
    pid, began = await begun(aside), time.monotonic()
    await aside.close()
    with pytest.raises(Stopping):
        await running
    assert is_gone(pid)
    assert time.monotonic() - began < 5
    with pytest.raises(Stopping):
        await aside.run("forecast", lines(wanted()))


async def test_work_that_breaks_says_so_and_not_more() -> None:
    with pytest.raises(Failed, match="the service's log says where"):
        await Aside().run("forecast", lines(b"{"))


async def test_a_process_whose_service_was_killed_ends_by_itself() -> None:
    aside = Aside(seconds=-4.0)  # the process itself waits five seconds longer
    process = await asyncio.create_subprocess_exec(*aside.command("forecast"), stdin=asyncio.subprocess.PIPE)
    assert await asyncio.wait_for(process.wait(), 20) < 0, "ended by a signal, though its input never ended"
