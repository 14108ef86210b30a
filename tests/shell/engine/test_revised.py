"""Revising a rollout that runs: what was passed stays, the present stage changes its gates, what comes is free."""

from typing import Any

import pytest

from rollout.engine.replay import replay
from rollout.errors import Conflict, Forbidden, Invalid
from tests.shell.engine.lab import ONCALL, Lab, lab

STAGES = [
    {"name": "canary", "percentage": 10, "min_duration": "10m", "min_units": 20},
    {"name": "early", "percentage": 25, "min_duration": "10m", "min_units": 20},
    {"name": "half", "percentage": 50, "min_duration": "20m", "min_units": 20},
]


def changed(index: int, **fields: Any) -> list[dict[str, Any]]:
    """The stages with one of them changed."""
    return [{**stage, **fields} if i == index else stage for i, stage in enumerate(STAGES)]


async def in_the_second_stage(service: Lab) -> str:
    identifier = await service.start(stages=STAGES)
    await service.act(identifier, "advance", "by hand")
    return identifier


async def test_gates_of_the_present_stage_and_whole_future_stages_can_change(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await in_the_second_stage(service)
        await service.send(identifier, 0.02, 0.02)
        await service.pass_time(60)
        await service.revise(identifier, stages=changed(1, min_duration="2h", approval="required"))
        kept = changed(1, min_duration="2h", approval="required")[:2]
        await service.revise(identifier, stages=[*kept, {"name": "most", "percentage": 70}])
        row = await service.row(identifier)
        assert (row.state.stage, row.state.document, row.document.stages[2].name) == (1, 3, "most")
        await service.send(identifier, 0.02, 0.02)
        await service.pass_time(60)
        async with service.database.read() as session:
            assert (await replay(session, identifier)).exact
        assert (await service.steps(identifier))[-2:] == ["revise", "revise"]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"stages": changed(0, min_duration="1m")}, "stages[0]"),
        ({"stages": changed(1, percentage=30)}, "stages[1].percentage"),
        ({"stages": STAGES[:1]}, "stages[1]"),
        ({"stages": [*STAGES, {"name": "most", "percentage": 80}]}, "stages"),
        ({"stages": STAGES, "bake": {"duration": "1h", "holdback": 5}}, "stages"),
        ({"stages": STAGES, "candidate": "off"}, "candidate"),
        ({"stages": STAGES, "guardrails": []}, "guardrails"),
        ({"stages": STAGES, "analysis": {"alpha_rollback": 0.05}}, "analysis"),
        ({"stages": STAGES, "flag": "question"}, "flag"),
    ],
)
async def test_what_the_evidence_is_about_and_what_was_passed_stays(
    sqlite_url: str, change: dict[str, Any], path: str
) -> None:
    async with lab(sqlite_url) as service:
        identifier = await in_the_second_stage(service)
        before = await service.row(identifier)
        with pytest.raises(Invalid) as refused:
            await service.revise(identifier, **change)
        assert path in [each[0] for each in refused.value.problems]
        after = await service.row(identifier)
        assert (after.revision, after.document) == (before.revision, before.document)


async def test_fewer_stages_leave_the_error_rates_as_they_were_divided(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await in_the_second_stage(service)
        await service.revise(identifier, stages=STAGES[:2])
        row = await service.row(identifier)
        assert (row.state.steps, len(row.document.stages)) == (3, 2)
        await service.send(identifier, 0.02, 0.02)
        await service.pass_time(60)
        await service.act(identifier, "advance", "by hand")
        assert (await service.row(identifier)).status == "completed"


async def test_a_gate_whose_margin_changes_begins_anew(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await in_the_second_stage(service)
        before = (await service.row(identifier)).state
        await service.revise(identifier, stages=changed(1, min_duration="3h"))
        same = (await service.row(identifier)).state
        assert same.attempts == before.attempts
        await service.revise(identifier, stages=[*changed(1, min_duration="3h")[:2], {**STAGES[2], "percentage": 90}])
        anew = (await service.row(identifier)).state
        assert len(anew.attempts) in (len(before.attempts), len(before.attempts) + 1)
        rule = service.served().flags["answer"].rules[-1]
        assert getattr(rule, "attempt", None) == anew.attempts[-1].id, "what is recorded is what is served"


async def test_a_revision_needs_a_right_a_reason_and_something_to_change(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await in_the_second_stage(service)
        with pytest.raises(Forbidden, match="operator"):
            await service.revise(identifier, actor=ONCALL, stages=changed(1, min_duration="1h"))
        with pytest.raises(Invalid, match="say why"):
            await service.revise(identifier, reason=" ", stages=changed(1, min_duration="1h"))
        with pytest.raises(Conflict, match="already"):
            await service.revise(identifier, stages=STAGES)
        draft = await service.draft(stages=STAGES)
        await service.revise(draft, reason="", actor=ONCALL, candidate="off")
        assert (await service.row(draft)).document.candidate == "off"


async def test_a_waiver_does_not_move_to_whatever_takes_the_place_of_its_stage(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        bake = {"duration": "1h", "holdback": 5}
        identifier = await service.start(stages=STAGES, bake=bake)
        for stage in ("early", "half"):
            await service.act(identifier, "waive", "known", metric="error_rate", expires="1d", stage=stage)
        await service.revise(identifier, stages=STAGES[:2], bake=bake)
        assert [waiver.stage for waiver in (await service.row(identifier)).state.waivers] == [1], "the bake is no half"


async def test_stages_that_a_rollback_in_steps_went_down_from_stay_as_they_were(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        plan: dict[str, Any] = {"stages": STAGES, "rollback": {"strategy": "stepped"}}
        identifier = await service.start(**plan)
        await service.act(identifier, "advance", "by hand")
        for _ in range(3):
            await service.send(identifier, 0.6, 0.02)
            await service.pass_time(60)
        await service.act(identifier, "resume", "a fault of the test data")
        assert (await service.row(identifier)).state.stage == 0
        with pytest.raises(Invalid) as refused:
            await service.revise(identifier, **{**plan, "stages": changed(1, percentage=30)})
        assert [each[0] for each in refused.value.problems] == ["stages[1]"]
        await service.revise(identifier, **{**plan, "stages": changed(2, percentage=60)})


async def test_the_lease_that_is_served_follows_the_mode(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(stages=STAGES, mode="observe")
        for mode, lease in (("enforce", 900_000), ("observe", None)):
            await service.revise(identifier, stages=STAGES, mode=mode)
            assert [getattr(rule, "lease_ms", 0) for rule in service.served().flags["answer"].rules] == [lease]
