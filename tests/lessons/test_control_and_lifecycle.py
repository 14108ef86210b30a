"""Mistakes rollout systems have made with control; each test names the behaviour that their users asked for.

The numbers go on from those of `test_analysis_and_missing_data`.
"""

from datetime import timedelta
from typing import Any

import pytest

from rollout.db import documents, rollouts
from rollout.delivery.publish import publish_everywhere
from rollout.domain.flag import Flag
from rollout.engine import switch
from rollout.engine.replay import replay
from rollout.errors import Conflict, Forbidden
from rollout.telemetry import exposition
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import compile_ruleset, evaluate
from tests.lessons.test_analysis_and_missing_data import UNGATED, held, traffic
from tests.shell.engine.lab import ANN, EVE, ONCALL, Lab, lab

APPROVED = {
    "stages": [
        {"name": "canary", "percentage": 10, "min_duration": "1m", "min_units": 0, "approval": "required"},
        {"name": "half", "percentage": 50, "min_duration": "1m", "min_units": 0},
    ]
}


def answers(service: Lab, flag: str = "answer", units: int = 4000, **attributes: Any) -> list[str]:
    """Which variant each of many units gets from the newest ruleset."""
    compiled = compile_ruleset(service.served())
    found = [evaluate(compiled, flag, Context(f"user-{i}", **attributes)) for i in range(units)]
    return [str(each.variant) for each in found]


async def to_the_approval(service: Lab) -> str:
    """A rollout whose every gate is open but the person's."""
    identifier = await service.start(**APPROVED)
    for _ in range(60):
        await traffic(service, identifier, 0.0, 0.02)
        if held(await service.status(identifier)) == {"awaiting_approval"}:
            return identifier
    raise AssertionError("the gates before the approval never opened")


async def test_14_protection_goes_on_while_a_person_is_waited_for(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await to_the_approval(service)
        await traffic(service, identifier, 0.6, 0.02, minutes=3)
        assert (await service.row(identifier)).status == "rolled_back"
    async with lab(f"{sqlite_url}.paused") as service:
        identifier = await service.start(**APPROVED)
        await service.act(identifier, "pause", "lunch")
        await traffic(service, identifier, 0.6, 0.02, minutes=3)
        assert (await service.row(identifier)).status == "rolled_back"


async def test_15_anybody_on_call_can_roll_back_in_every_status_in_which_somebody_is_exposed(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        for status in ("running", "paused", "baking"):
            bake = {"duration": "1h", "holdback": 5}
            identifier = await service.start(**UNGATED, bake=bake)
            if status == "paused":
                await service.act(identifier, "pause")
            if status == "baking":
                await service.act(identifier, "advance", "by hand")
                await service.act(identifier, "advance", "by hand")
            assert (await service.row(identifier)).status == status
            await service.act(identifier, "roll_back", actor=ONCALL)
            assert (await service.row(identifier)).status == "rolled_back"
        draft = await service.draft(**UNGATED)
        await service.act(draft, "cancel", actor=ONCALL)
        with pytest.raises(Conflict, match="has ended"):
            await service.act(draft, "roll_back", actor=ONCALL)


async def test_16_a_rollback_can_go_down_the_stages_and_is_at_once_unless_asked(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**UNGATED, rollback={"strategy": "stepped", "every": "5m"})
        await service.act(identifier, "advance", "by hand")
        await traffic(service, identifier, 0.5, 0.02)
        status = await service.status(identifier)
        assert (status.status, status.percentage) == ("paused", 10)
        assert status.breach is not None
        assert status.next_change is not None
        assert (status.next_change.to, status.next_change.percentage) == ("rolled_back", 0)
        await service.pass_time(360)
        assert (await service.row(identifier)).status == "rolled_back"
        assert await service.steps(identifier) == ["start", "advance", "step_back", "roll_back"]
        assert set(answers(service)) == {"v7"}


async def test_17_an_emergency_rollback_waits_for_no_gate_no_evidence_and_no_scheduler(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start()
        assert "v8" in answers(service)
        await service.act(identifier, "roll_back", actor=ONCALL)
        assert set(answers(service)) == {"v7"}, "no look of the engine was needed"


async def test_17_a_variant_that_was_proven_lately_is_released_again_on_the_fast_track(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        first = await service.start(**UNGATED)
        for _ in range(200):
            await traffic(service, first, 0.0, 0.02)
            if (await service.row(first)).status == "completed":
                break
        assert (await service.row(first)).state.unproven_stages == ()
        back = await service.start(**UNGATED, baseline="v8", candidate="v7")
        await service.act(back, "complete", "v8 has to go for a while")
        slow = await service.start(**UNGATED)
        assert (await service.row(slow)).state.stage == 0
        await service.act(slow, "cancel" if (await service.row(slow)).status == "draft" else "roll_back")
        again = await service.start(**UNGATED, fast_track="7d")
        assert (await service.row(again)).state.stage == 1
        async with service.database.read() as session:
            why = (await rollouts.transitions(session, again))[0].change.reason
        assert first in why
        await traffic(service, again, 0.6, 0.02, minutes=3)
        assert (await service.row(again)).status == "rolled_back", "the fast track is watched like any other"
        after_harm = await service.start(**UNGATED, fast_track="7d")
        assert (await service.row(after_harm)).state.stage == 0, "what did harm since is proven no more"


async def test_18_what_is_decided_and_how_long_is_waited_for_what_is_exported(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await to_the_approval(service)
        await service.pass_time(120)
        await traffic(service, identifier, 0.6, 0.02, minutes=3)
        said = exposition().decode()
        assert 'rampline_decisions_total{kind="roll_back",reason="breach"}' in said
        assert 'rampline_hold_seconds_total{reason="awaiting_approval"}' in said


async def test_19_every_status_says_the_percentage_the_next_change_and_what_holds(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start()
        await service.pass_time(60)
        status = await service.status(identifier)
        assert status.percentage == 10
        assert status.next_change is not None
        assert (status.next_change.to, status.next_change.percentage) == ("half", 50)
        assert status.next_change.not_before == service.now - timedelta(seconds=60) + timedelta(minutes=10)
        assert {"min_duration", "min_units", "no_traffic"} == held(status)
        assert all(reason.message for reason in status.held)


async def test_20_a_timed_ramp_needs_no_metric_and_says_that_it_proves_nothing(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**UNGATED, guardrails=[])
        await service.pass_time(180)
        status = await service.status(identifier)
        assert (status.status, status.guarded, status.proven) == ("completed", False, False)


async def test_21_a_stage_exposes_a_pair_of_variants_of_any_type(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        await service.start(**UNGATED, candidate="off")
        compiled = compile_ruleset(service.served())
        found = {evaluate(compiled, "answer", Context(f"user-{i}")).value for i in range(500)}
        assert found == {"small", "none"}, "the third variant is in neither arm"


async def test_22_raising_a_percentage_moves_nobody_who_has_the_candidate(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**UNGATED)
        at_ten = answers(service)
        await service.act(identifier, "advance", "by hand")
        at_fifty = answers(service)
        moved = [(before, after) for before, after in zip(at_ten, at_fifty, strict=True) if before != after]
        assert moved
        assert set(moved) == {("v7", "v8")}


async def test_23_flags_that_share_a_salt_ramp_the_same_users_together(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        async with service.database.write() as session:
            for key in ("question", "retrieval"):
                flag = Flag(key=key, variants={"v7": 1, "v8": 2}, default_variant="v7", salt="search")
                await documents.save(session, flag, None)
            await publish_everywhere(session, service.now)
        for key in ("question", "retrieval"):
            await service.start(**UNGATED, flag=key)
        assert answers(service, "question") == answers(service, "retrieval")
        assert "v8" in answers(service, "question")


async def test_24_a_plan_says_which_unit_it_randomises(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        await service.start(stages=[{"name": "half", "percentage": 50}], unit="org")
        for org in range(40):
            assert len(set(answers(service, units=5, org=f"org-{org}"))) == 1, "an organisation stays together"
        assert len({answers(service, units=1, org=f"org-{org}")[0] for org in range(40)}) == 2


async def test_25_other_edits_go_on_while_a_rollout_runs_and_a_kill_stops_it(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**UNGATED)
        async with service.database.write() as session:
            found = await documents.find(session, Flag, "answer")
            assert found is not None
            wider = {**found[0].variants, "v9": "huge"}
            changed = Flag(key="answer", variants=wider, default_variant="v7", description="edited meanwhile")
            await documents.save(session, changed, found)
            await publish_everywhere(session, service.now)
        await service.control.hub.refresh()
        assert "v8" in answers(service)
        await switch.kill(service.control, "answer", "production", "ann", "drill")
        status = await service.status(identifier)
        assert (status.status, status.percentage) == ("paused", 0)
        assert set(answers(service)) == {"v7"}
        await switch.restore(service.control, "answer", "production", "ann", "over")
        assert set(answers(service)) == {"v7"}, "what a kill took, only a resume gives back"


async def waits_for(service: Lab, identifier: str, minutes: int = 70) -> str:
    """What the approval gate says once everything else is open."""
    for _ in range(minutes):
        await traffic(service, identifier, 0.0, 0.02)
    found = (await service.status(identifier)).held
    assert [reason.code for reason in found] == ["awaiting_approval"]
    return found[0].message


async def test_26_an_approval_binds_to_the_plan_and_is_superseded_without_a_deadlock(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        stages = [{**APPROVED["stages"][0], "min_duration": "1h"}, APPROVED["stages"][1]]
        identifier = await service.start(stages=stages)
        with pytest.raises(Forbidden, match="author"):
            await service.act(identifier, "approve", actor=ANN)
        await service.act(identifier, "approve", actor=EVE)
        await service.revise(identifier, stages=[stages[0], {**stages[1], "percentage": 40}])
        assert "the plan was changed after eve approved it" in await waits_for(service, identifier)
        await service.act(identifier, "approve", actor=EVE)
        await service.pass_time(5)
        status = await service.status(identifier)
        assert (status.stage, status.percentage, status.document) == ("half", 40, 2)
        async with service.database.read() as session:
            assert (await replay(session, identifier)).exact, "each look with the plan it was made with"


async def test_26_an_approval_expires_when_the_plan_says_so(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        gate = {"role": "approver", "expires": "30m"}
        stages = [{**APPROVED["stages"][0], "approval": gate, "min_duration": "1h"}, APPROVED["stages"][1]]
        identifier = await service.start(stages=stages)
        await service.act(identifier, "approve", actor=EVE)
        assert "the one by eve expired at" in await waits_for(service, identifier)
        await service.act(identifier, "approve", actor=EVE)
        await service.pass_time(5)
        assert (await service.row(identifier)).state.stage == 1
