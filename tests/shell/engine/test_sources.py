"""Nobody is exposed to what cannot be seen: sources that fail, leases that lapse, and kills, and what follows them."""

import asyncio
from typing import Any

import pytest

from rollout.db import documents, sources
from rollout.delivery.publish import publish_everywhere
from rollout.domain.flag import Flag
from rollout.engine import switch
from rollout.engine.replay import replay
from rollout.errors import Conflict
from tests.shell.engine.lab import Lab, lab


def guardrail(**changes: Any) -> dict[str, Any]:
    return {"guardrails": [{"metric": "error_rate", "max_regression": {"absolute": 0.02}, "error_limit": 1, **changes}]}


async def failing(service: Lab, minutes: int) -> None:
    """A source that fails for some minutes."""
    for _ in range(minutes):
        await service.report("error_rate", "timed out")
        await service.pass_time(60)


async def test_a_blind_source_ends_the_exposure_after_a_lease_and_it_comes_back_by_itself(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await service.start(lease="5m", **guardrail())
        await failing(service, 4)
        assert (await service.status(identifier)).percentage == 10
        await failing(service, 3)
        status = await service.status(identifier)
        assert (status.status, status.percentage) == ("running", 0)
        assert {reason.code for reason in status.held} >= {"blind", "error"}
        await failing(service, 3)
        assert await service.steps(identifier) == ["start", "lapse"]
        await service.report("error_rate", None)
        await service.pass_time(5)
        assert (await service.status(identifier)).percentage == 10
        assert await service.steps(identifier) == ["start", "lapse", "regain"]
        async with service.database.read() as session:
            assert (await replay(session, identifier)).exact


async def test_each_sort_of_missing_evidence_has_its_own_policy_and_patience(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        policies = {"error": {"then": "roll_back", "after": "2m"}, "no_traffic": {"then": "pause", "after": "30m"}}
        identifier = await service.start(**guardrail(on_missing=policies))
        await service.pass_time(29 * 60)
        assert (await service.row(identifier)).status == "running"
        await service.pass_time(120)
        row = await service.row(identifier)
        assert row.status == "paused"
        assert row.state.paused_reason is not None
        assert "no request has reached this stage" in row.state.paused_reason
        await service.act(identifier, "resume")
        await failing(service, 1)
        assert (await service.row(identifier)).status == "running", "patience is of one sort"
        await failing(service, 3)
        assert (await service.row(identifier)).status == "rolled_back"


async def test_outcomes_that_come_after_a_failure_speak_for_themselves(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**guardrail())
        await failing(service, 1)
        assert "error" in {reason.code for reason in (await service.status(identifier)).held}
        await service.send(identifier, 0.02, 0.02)
        await service.pass_time(60)
        assert "error" not in {reason.code for reason in (await service.status(identifier)).held}


async def blind(service: Lab, **changes: Any) -> str:
    """A rollout whose exposure lapsed because its source fails."""
    identifier: str = await service.start(lease="1m", **guardrail(**changes))
    await failing(service, 4)
    assert (await service.row(identifier)).state.blind
    return identifier


async def test_a_person_who_answers_for_a_blind_metric_gets_the_exposure_back(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await blind(service)
        await service.act(identifier, "waive", "the warehouse moves", metric="error_rate", expires="1d")
        await failing(service, 3)
        assert (await service.status(identifier)).percentage == 10


async def test_a_source_that_is_only_warned_of_keeps_no_exposure_away(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        warning = {"metric": "quality", "max_regression": {"absolute": 0.1}, "on_breach": "warn", "error_limit": 1}
        identifier = await service.start(lease="1m", guardrails=[*guardrail()["guardrails"], warning])
        await service.report("quality", "timed out")
        await failing(service, 4)
        assert (await service.status(identifier)).percentage == 0
        await service.report("error_rate", None)
        await service.pass_time(5)
        assert (await service.status(identifier)).percentage == 10


@pytest.mark.parametrize("act", ["resume", "advance"])
async def test_no_act_lets_a_stage_grow_old_while_nobody_is_exposed(sqlite_url: str, act: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await blind(service)
        if act == "resume":
            await service.act(identifier, "pause")
        await service.act(identifier, act, "go on")
        before = (await service.row(identifier)).state.stage_age(service.now)
        await failing(service, 4)
        assert (await service.row(identifier)).state.stage_age(service.now) == before
        await service.report("error_rate", None)
        await service.pass_time(60)
        assert (await service.row(identifier)).state.clock_since is not None


async def test_the_quiet_after_a_kill_is_no_missing_evidence(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        policies = {verdict: {"then": "roll_back", "after": "10m"} for verdict in ("no_traffic", "stale", "no_data")}
        identifier = await service.start(**guardrail(on_missing=policies))
        await service.send(identifier, 0.02, 0.02)
        await service.pass_time(60)
        await switch.kill(service.control, "answer", "production", "ann", "drill")
        await service.pass_time(2 * 3600)
        assert (await service.row(identifier)).status == "paused"


async def test_a_kill_that_could_not_pause_gives_nothing_back_when_it_is_restored(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab(database_url) as service:
        identifier = await service.start()

        async def unavailable(*_: object) -> None:
            raise Conflict("somebody else changed this rollout meanwhile")

        with monkeypatch.context() as broken:
            broken.setattr(switch, "_pause_rollout", unavailable)
            await switch.kill(service.control, "answer", "production", "ann", "drill")
        assert (await service.row(identifier)).status == "running"
        await switch.restore(service.control, "answer", "production", "ann", "over")
        status = await service.status(identifier)
        assert (status.status, status.percentage, status.killed) == ("paused", 0, False)
        await switch.restore(service.control, "answer", "production", "ann", "there is nothing to restore")
        await service.act(identifier, "resume")
        await switch.restore(service.control, "answer", "production", "ann", "there is nothing to restore")
        assert (await service.status(identifier)).percentage == 10


async def test_reports_and_batches_of_several_rollouts_at_one_moment_are_all_taken(database_url: str) -> None:
    async with lab(database_url) as service:
        async with service.database.write() as session:
            for key in ("first", "second", "third"):
                flag = Flag(key=key, variants={"v7": 1, "v8": 2}, default_variant="v7")
                await documents.save(session, flag, None)
            await publish_everywhere(session, service.now)
        started = [await service.start(flag=key) for key in ("third", "first", "second")]
        attempts = [(await service.row(each)).state.attempts[-1].id for each in started]

        async def post() -> None:
            for _ in range(10):
                arms: Any = {"candidate": service.arm(3, 0.0), "baseline": service.arm(3, 0.0)}
                await service.post({attempt: dict(arms) for attempt in attempts})

        async def report() -> None:
            for _ in range(10):
                await service.report("error_rate", "timed out")

        await asyncio.gather(post(), report(), report(), post())
        async with service.database.read() as session:
            found = await sources.failing(session, ["production"])
        assert found["production"]["error_rate"].times == 20
