"""Mistakes rollout systems have made with their evidence; each test names the behaviour that their users asked for.

The numbers are those of a survey of public issue trackers; the systems do not matter here.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.domain.decide import decide
from rollout.domain.judge import Reading
from rollout_client.evaluation.evidence import ArmIncrement, SlotIncrement
from tests.core.domain.test_decide import judgement, reading, situation
from tests.shell.engine.lab import Lab, lab

UNGATED: dict[str, Any] = {
    "stages": [
        {"name": "canary", "percentage": 10, "min_duration": "1m", "min_units": 0},
        {"name": "half", "percentage": 50, "min_duration": "1m", "min_units": 0},
    ]
}


def guardrail(**changes: Any) -> dict[str, Any]:
    return {"guardrails": [{"metric": "error_rate", "max_regression": {"absolute": 0.02}, **changes}]}


async def traffic(service: Lab, identifier: str, candidate: float, baseline: float, *, minutes: int = 1) -> None:
    """Requests of both arms for some minutes, looked at as they come."""
    for _ in range(minutes):
        await service.send(identifier, candidate, baseline)
        await service.pass_time(60)


async def advanced(service: Lab, identifier: str) -> bool:
    """Whether a harmless candidate is let through by itself within an hour."""
    for _ in range(60):
        await traffic(service, identifier, 0.0, 0.02)
        if "advance" in await service.steps(identifier):
            return True
    return False


async def unobserved(service: Lab, identifier: str, minutes: int) -> None:
    """Requests are served, and nobody observes how they ended."""
    attempt = (await service.row(identifier)).state.attempts[-1].id
    for _ in range(minutes):
        minute = int(service.now.timestamp()) // 60
        few, many = (
            ArmIncrement(slots={minute: SlotIncrement(exposures={1: 10 * n}, first_exposures={1: n})}) for n in (1, 9)
        )
        await service.post({attempt: {"candidate": few, "baseline": many}})
        await service.pass_time(60)


def held(codes: Any) -> set[str]:
    return {reason.code for reason in codes.held}


async def test_01_a_metric_without_values_holds_and_goes_on_by_itself_when_they_return(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**UNGATED)
        await unobserved(service, identifier, 5)
        assert "no_data" in held(await service.status(identifier))
        assert await advanced(service, identifier)


async def test_02_a_failed_verdict_is_latched_until_a_person_clears_it(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**UNGATED, **guardrail(on_breach="pause"))
        await traffic(service, identifier, 0.5, 0.02, minutes=3)
        assert (await service.row(identifier)).status == "paused"
        await traffic(service, identifier, 0.0, 0.02, minutes=20)
        row = await service.row(identifier)
        assert row.status == "paused"
        assert row.state.breach is not None
        assert row.state.stage == 0
        await service.act(identifier, "resume", "the fault was in the test data")
        row = await service.row(identifier)
        assert (row.status, row.state.breach, row.state.epoch) == ("running", None, 2)


@given(
    verdicts=st.lists(
        st.sampled_from(["pass", "breach", "undecided", "insufficient", "no_traffic", "no_data", "stale", "error"]),
        min_size=1,
        max_size=1,
    ),
    hours=st.floats(0, 10_000),
    policy=st.sampled_from(["hold", "roll_back"]),
)
def test_03_what_is_not_a_pass_never_satisfies_a_gate(verdicts: list[Any], hours: float, policy: str) -> None:
    stages = [{"name": "canary", "percentage": 10, "max_duration": "14d"}, {"name": "half", "percentage": 50}]
    found = situation(judgement(reading(verdicts[0])), after=hours * 3600, stages=stages, on_undecided=policy)
    if verdicts[0] != "pass":
        assert decide(found).kind not in ("advance", "complete")


async def test_04_an_undecided_gate_can_be_waived_once_instead_of_resumed_for_ever(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**UNGATED, **guardrail(max_regression={"absolute": 0.0001}))
        await traffic(service, identifier, 0.02, 0.02, minutes=5)
        assert held(await service.status(identifier)) == {"undecided"}
        await service.act(identifier, "waive", "too small to measure here", metric="error_rate", expires="1h")
        await traffic(service, identifier, 0.02, 0.02)
        row = await service.row(identifier)
        assert row.state.stage == 1
        assert row.state.unproven_stages == ("canary",), "a waiver proves nothing"
        await traffic(service, identifier, 0.02, 0.02, minutes=3)
        assert (await service.row(identifier)).state.stage == 1, "it was for one stage"


@pytest.mark.parametrize(
    ("on_breach", "status"), [("roll_back", "rolled_back"), ("pause", "paused"), ("warn", "running")]
)
async def test_05_each_guardrail_says_what_its_breach_does(sqlite_url: str, on_breach: str, status: str) -> None:
    async with lab(sqlite_url) as service:
        other = {"metric": "quality", "max_regression": {"absolute": 0.1}}
        plan = {"guardrails": [*guardrail(on_breach=on_breach)["guardrails"], other]}
        identifier = await service.start(**UNGATED, **plan)
        await traffic(service, identifier, 0.6, 0.02, minutes=3)
        assert (await service.row(identifier)).status == status


async def test_06_a_rollout_can_be_observed_only_and_records_what_it_would_have_done(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**UNGATED, mode="observe")
        await traffic(service, identifier, 0.0, 0.02, minutes=10)
        assert await service.steps(identifier) == ["start", "observe"]
        await service.act(identifier, "advance", "a person drives")
        await traffic(service, identifier, 0.6, 0.02, minutes=3)
        status = await service.status(identifier)
        assert (status.status, status.percentage, status.mode) == ("running", 50, "observe")
        assert status.would is not None
        assert status.would.kind == "roll_back"
        assert await service.steps(identifier) == ["start", "observe", "advance", "observe"]
    async with lab(f"{sqlite_url}.quiet") as service:
        quiet = guardrail(on_breach="pause", on_missing={"no_traffic": {"then": "pause", "after": "5m"}})
        identifier = await service.start(**UNGATED, **quiet, mode="observe")
        await service.pass_time(600)
        await traffic(service, identifier, 0.6, 0.02, minutes=3)
        would = (await service.status(identifier)).would
        assert would is not None
        assert (would.kind, would.code) == ("pause", "breach"), "the same step for another reason is another decision"


async def test_07_a_guardrail_that_tends_to_be_worse_blocks_the_advance_before_it_is_significant(
    sqlite_url: str,
) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**UNGATED)
        await traffic(service, identifier, 0.045, 0.02, minutes=8)
        row = await service.row(identifier)
        assert (row.status, row.state.stage, row.state.breach) == ("running", 0, None)
        assert held(await service.status(identifier)) == {"undecided"}


async def test_08_one_failure_of_a_source_is_tolerated_and_several_in_a_row_are_no_failure_of_the_candidate(
    sqlite_url: str,
) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**UNGATED)
        await unobserved(service, identifier, 2)
        await service.report("error_rate", "timed out")
        await service.pass_time(5)
        assert "error" not in held(await service.status(identifier))
        for _ in range(2):
            await service.report("error_rate", "timed out")
        await service.pass_time(5)
        assert "error" in held(await service.status(identifier))
        assert (await service.row(identifier)).status == "running"
        await service.report("error_rate", None)
        assert await advanced(service, identifier)


async def test_09_the_status_carries_the_error_that_blocks(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**UNGATED, **guardrail(error_limit=1))
        await service.report("error_rate", "401 from the warehouse")
        await service.pass_time(1)
        status = await service.status(identifier)
        assert any("401 from the warehouse" in reason.message for reason in status.held)
        assert any("401 from the warehouse" in needed for needed in status.needed)


async def test_10_evidence_of_a_stage_that_was_left_never_opens_the_gate_of_the_next(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**UNGATED)
        before = (await service.row(identifier)).state.attempts[-1].id
        await service.act(identifier, "advance", "by hand")
        for _ in range(20):
            late = {"candidate": service.arm(200, 0.0), "baseline": service.arm(200, 0.02)}
            await service.post({before: late})  # type: ignore[dict-item]  # arms are literals
            await service.pass_time(60)
        row = await service.row(identifier)
        assert (row.state.stage, row.status) == (1, "running")
        assert row.latest is not None
        assert row.latest.judgement.readings[0].verdict == "no_traffic"


async def test_11_no_traffic_extends_a_stage_and_is_never_a_failure(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        stages = [{**stage, "min_units": 50, "max_duration": "10m"} for stage in UNGATED["stages"]]
        identifier = await service.start(stages=stages, on_undecided="roll_back")
        await service.pass_time(8 * 3600, look_every=600)
        row = await service.row(identifier)
        assert (row.status, row.state.stage) == ("running", 0)
        assert {"min_units", "no_traffic"} <= held(await service.status(identifier))
        assert await advanced(service, identifier), "max_duration counts from when there was enough to judge by"


async def test_12_a_single_failure_at_almost_no_traffic_neither_fails_nor_passes(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(stages=UNGATED["stages"])
        attempt = (await service.row(identifier)).state.attempts[-1].id
        await service.post({attempt: {"candidate": service.arm(1, 1.0), "baseline": service.arm(3, 0.0)}})
        await service.pass_time(3600)
        row = await service.row(identifier)
        assert (row.status, row.state.stage) == ("running", 0)


async def test_13_what_was_not_measured_is_no_zero(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**UNGATED)
        await unobserved(service, identifier, 30)
        row = await service.row(identifier)
        assert row.state.stage == 0
        assert row.latest is not None
        found: Reading = row.latest.judgement.readings[0]
        assert (found.verdict, found.candidate.n, found.log_e_gate) == ("no_data", 0, 0.0)
