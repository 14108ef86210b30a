"""A rollout that starts by itself: at its time, once it is approved, and when nothing is in its way."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from rollout.db import documents, rollouts
from rollout.engine import switch
from rollout.errors import Conflict, Forbidden, Invalid
from tests.shell.engine.lab import ANN, EVE, ONCALL, Lab, lab
from tests.shell.engine.test_neighbours import FLAGS, more_flags


async def tomorrow(service: Lab, **plan: object) -> str:
    """A rollout that is to start in a day."""
    at = (service.now + timedelta(days=1)).isoformat()
    identifier = await service.draft(start_at=at, **plan)
    await service.act(identifier, "start")
    return identifier


async def test_a_rollout_starts_at_its_time_and_not_before(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await tomorrow(service)
        status = await service.status(identifier)
        assert (status.status, status.percentage) == ("scheduled", 0)
        assert status.next_change is not None
        assert status.next_change.not_before == service.now + timedelta(days=1)
        assert [reason.code for reason in status.held] == ["scheduled"]
        await service.pass_time(86_390, look_every=3600)
        assert (await service.row(identifier)).status == "scheduled"
        await service.pass_time(20, look_every=5)
        assert (await service.status(identifier)).percentage == 10
        assert await service.steps(identifier) == ["schedule", "start"]


async def test_a_start_that_needs_an_approval_waits_for_somebody_else(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.draft(start_approval="required")
        await service.act(identifier, "start")
        assert (await service.row(identifier)).status == "scheduled"
        for early in ("approve", "start"):
            with pytest.raises(Forbidden, match=r"author|approval"):
                await service.act(identifier, early, actor=ANN)
        await service.pass_time(600)
        assert [reason.code for reason in (await service.status(identifier)).held] == ["awaiting_approval"]
        await service.act(identifier, "approve", actor=EVE)
        await service.pass_time(1)
        assert (await service.row(identifier)).status == "running"


async def test_what_is_in_the_way_is_said_and_the_start_is_tried_again(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        running = await service.start()
        identifier = await tomorrow(service)
        await service.pass_time(90_000, look_every=3600)
        [held] = (await service.status(identifier)).held
        assert (held.code, running in held.message) == ("obstacle", True)
        await service.act(running, "roll_back")
        await switch.kill(service.control, "answer", "production", "ann", "drill")
        await service.pass_time(10)
        assert "is killed" in (await service.status(identifier)).held[0].message
        await switch.restore(service.control, "answer", "production", "ann", "over")
        await service.pass_time(10)
        assert (await service.row(identifier)).status == "running"


async def test_a_scheduled_rollout_can_be_started_early_revised_and_cancelled(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        early = await tomorrow(service)
        await service.act(early, "start")
        assert (await service.row(early)).status == "running"
        await service.act(early, "roll_back")
        changed = await tomorrow(service)
        await service.revise(changed, stages=[{"name": "all", "percentage": 60}])
        await service.act(changed, "start")
        assert (await service.status(changed)).percentage == 60
        await service.act(changed, "roll_back")
        dropped = await tomorrow(service)
        await service.act(dropped, "cancel", actor=ONCALL)
        await service.pass_time(90_000, look_every=3600)
        assert (await service.row(dropped)).status == "cancelled"
        with pytest.raises(Conflict, match="has ended"):
            await service.revise(dropped, stages=[{"name": "all", "percentage": 70}])


async def test_a_start_in_another_time_zone_is_said_in_utc(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.draft(start_at="2026-03-02T09:00:00+02:00")
        done = await service.act(identifier, "start")
        assert "starts at 2026-03-02 07:00:00 UTC" in done.change.reason
        assert "starts at 2026-03-02 07:00:00 UTC" in (await service.status(identifier)).held[0].message


async def test_a_revised_start_counts_from_then_on(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await tomorrow(service)
        await service.revise(identifier, start_at=(service.now + timedelta(days=3)).isoformat())
        await service.pass_time(2 * 86_400, look_every=3600)
        assert (await service.row(identifier)).status == "scheduled"
        await service.revise(identifier, start_at=(service.now - timedelta(days=1)).isoformat())
        await service.pass_time(10)
        assert (await service.row(identifier)).status == "running"


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
async def test_a_start_that_no_calendar_can_write_is_refused(sqlite_url: str, at: str) -> None:
    async with lab(sqlite_url) as service:
        with pytest.raises(Invalid) as refused:
            await service.draft(start_at=at)
        assert refused.value.problems[0][0] == "start_at"


async def soon(service: Lab) -> str:
    """A rollout that is due now, while nothing else is."""
    identifier = await service.draft(start_at=(service.now + timedelta(minutes=2)).isoformat())
    await service.act(identifier, "start")
    await service.pass_time(118, look_every=59)
    service.now += timedelta(seconds=3)
    return identifier


async def test_what_a_rollout_leaves_behind_is_read_after_it_has_ended(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab(postgres_url) as service:
        running = await service.start()
        identifier = await soon(service)
        real = documents.find

        async def it_ends_meanwhile(*arguments: Any, **named: Any) -> Any:
            monkeypatch.undo()
            await service.act(running, "complete", "by hand")
            return await real(*arguments, **named)

        monkeypatch.setattr(documents, "find", it_ends_meanwhile)
        await service.watchman.round()
        assert await service.steps(running) == ["start", "complete"]
        [held] = (await service.status(identifier)).held
        assert "gets 'v8' today" in held.message


async def test_a_look_at_what_is_scheduled_waits_for_nobody_while_it_holds_others(postgres_url: str) -> None:
    """A batch that speaks of both would wait for the one, and the look for the other: a deadlock."""
    async with lab(postgres_url) as service:
        await more_flags(service)
        running, beside = await service.start(), await service.start(flag=FLAGS[0])
        await soon(service)
        await service.send(beside, 0.02, 0.02)
        async with service.database.write() as session:
            await rollouts.find(session, running, lock=True)
            round_of_looks = asyncio.create_task(service.watchman.round())
            await asyncio.sleep(0.5)
            await rollouts.find(session, beside, lock=True)
        await round_of_looks
