"""Somebody else's yes: no revision, no completion and no fast track goes around the approval that a plan asks for."""

from typing import Any

import pytest

from rollout.domain.starting import fast_stage
from rollout.engine.rights import Actor
from rollout.errors import Forbidden, Invalid
from tests.core.domain.plans import rollout
from tests.shell.engine.lab import ANN, EVE, ONCALL, lab
from tests.shell.engine.test_scheduled import tomorrow

CANARY: dict[str, Any] = {"name": "canary", "percentage": 10, "min_duration": "1m"}
HALF: dict[str, Any] = {"name": "half", "percentage": 50, "min_duration": "1m"}
RAMP: dict[str, Any] = {"guardrails": []}
SOMEBODY: dict[str, Any] = {"approval": "required"}
ADMIN = Actor(name="root", may_operate=True, may_approve=True, is_admin=True)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([{**CANARY, **SOMEBODY}, HALF], [CANARY, HALF]),
        ([CANARY, {**HALF, **SOMEBODY}], [CANARY, HALF]),
        ([CANARY, {**HALF, **SOMEBODY}], [CANARY, {**HALF, "percentage": 80, **SOMEBODY}]),
        ([{**CANARY, **SOMEBODY}, {**HALF, **SOMEBODY}], [{**CANARY, **SOMEBODY}, HALF]),
        ([{**CANARY, "approval": {"role": "admin"}}, HALF], [{**CANARY, **SOMEBODY}, HALF]),
        ([{**CANARY, "approval": {"expires": "1h"}}, HALF], [{**CANARY, **SOMEBODY}, HALF]),
    ],
)
async def test_the_author_cannot_take_an_approval_out_of_a_plan_that_runs(
    sqlite_url: str, before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(stages=before, **RAMP)
        with pytest.raises(Forbidden, match="takes away an approval"):
            await service.revise(identifier, stages=after, **RAMP)
        await service.revise(identifier, actor=ADMIN, stages=after, **RAMP)
        assert (await service.row(identifier)).state.document == 2


async def test_an_approval_can_be_asked_for_earlier_by_anybody_who_operates(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(stages=[CANARY, {**HALF, **SOMEBODY}], **RAMP)
        await service.revise(identifier, stages=[{**CANARY, **SOMEBODY}, HALF], **RAMP)
        await service.pass_time(300)
        assert (await service.row(identifier)).state.stage == 0


async def test_whoever_revised_a_plan_cannot_approve_it(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(stages=[{**CANARY, **SOMEBODY}, HALF], **RAMP)
        await service.revise(identifier, actor=EVE, stages=[{**CANARY, **SOMEBODY}, {**HALF, "percentage": 90}], **RAMP)
        for who, act in ((ANN, "approve"), (EVE, "approve"), (EVE, "advance")):
            with pytest.raises(Forbidden, match="author"):
                await service.act(identifier, act, "looks good", actor=who)
        await service.act(identifier, "approve", actor=ADMIN)


async def test_a_completion_by_hand_needs_every_approval_that_it_leaves_out(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(stages=[CANARY, {**HALF, **SOMEBODY}], **RAMP)
        with pytest.raises(Forbidden, match="a later stage needs an approval"):
            await service.act(identifier, "complete", "in a hurry")
        await service.act(identifier, "complete", "checked", actor=EVE)
        assert (await service.row(identifier)).status == "completed"


async def test_what_is_scheduled_is_changed_only_by_who_could_start_it(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await tomorrow(service, start_approval="required")
        everybody: dict[str, Any] = {"stages": [{"name": "all", "percentage": 99}], **RAMP}
        with pytest.raises(Forbidden, match="operator"):
            await service.revise(identifier, actor=ONCALL, **everybody)
        with pytest.raises(Invalid, match="say why"):
            await service.revise(identifier, reason="", start_approval="required", **everybody)
        with pytest.raises(Forbidden, match="takes away an approval"):
            await service.revise(identifier, **everybody)
        await service.pass_time(90_000, look_every=3600)
        assert (await service.row(identifier)).status == "scheduled"


def test_the_fast_track_leaves_no_approval_out() -> None:
    most = {"name": "most", "percentage": 80}
    for stages, begins in (
        ([CANARY, HALF, most], 2),
        ([CANARY, {**HALF, **SOMEBODY}, most], 1),
        ([{**CANARY, **SOMEBODY}, HALF, {**most, **SOMEBODY}], 0),
    ):
        assert fast_stage(rollout(stages=stages, fast_track="7d")) == begins
