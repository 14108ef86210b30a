"""A source that cannot be asked: an error and no failure, and after a whole lease an end of the exposure."""

from typing import Any

from rollout.engine.replay import replay
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
