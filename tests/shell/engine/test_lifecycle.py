"""A rollout on both databases: it advances on proof, goes back on harm, and people overrule it."""

import msgspec
import pytest

from rollout.db import audit, flag_states, rollouts
from rollout.domain.document import content_hash
from rollout.engine import commands, drafting, switch
from rollout.engine.replay import replay
from rollout.engine.rights import Act, Actor
from rollout.errors import Conflict, Forbidden, Invalid, NotFound
from rollout_client.evaluation.evidence import ArmIncrement
from rollout_client.evaluation.ruleset import RolloutRule
from tests.core.domain.plans import rollout
from tests.shell.engine.lab import ANN, Lab, lab


def threshold(lab: Lab) -> int | None:
    """Width of the candidate in the newest ruleset; None without a rollout rule."""
    newest = lab.control.hub.newest("production")
    assert newest is not None
    rules = [rule for rule in newest.ruleset.flags["answer"].rules if isinstance(rule, RolloutRule)]
    return rules[-1].threshold if rules else None


async def test_a_harmless_candidate_is_completed_and_released(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await service.start()
        assert threshold(service) == 10_000
        for _ in range(60):
            await service.send(identifier, 0.02, 0.02)
            await service.pass_time(60)
            if (await service.row(identifier)).status == "completed":
                break
        assert await service.steps(identifier) == ["start", "advance", "complete"]
        async with service.database.read() as session:
            assert (await flag_states.find(session, "answer", "production")).released == "v8"
            assert (await replay(session, identifier)).exact
        assert threshold(service) is None


async def test_harm_is_rolled_back_at_once_and_everyone_returns_to_the_baseline(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await service.start()
        for _ in range(10):
            await service.send(identifier, 0.5, 0.02)
            await service.watchman.round()
            if (await service.row(identifier)).status == "rolled_back":
                break
        row = await service.row(identifier)
        assert await service.steps(identifier) == ["start", "roll_back"]
        assert row.state.breach is not None
        assert row.state.breach.metric == "error_rate"
        assert row.next_check_at is None
        assert threshold(service) is None
        async with service.database.read() as session:
            assert (await flag_states.find(session, "answer", "production")).released == "v7"
            assert (await replay(session, identifier)).exact
        with pytest.raises(Conflict, match="new rollout"):
            await service.act(identifier, "resume", "again")


async def test_a_stage_is_never_skipped_and_needs_evidence_of_its_own(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await service.start()
        for _ in range(40):
            await service.send(identifier, 0.01, 0.02)
            await service.pass_time(10)
        await service.pass_time(3600)
        assert await service.steps(identifier) == ["start", "advance"]
        await service.pass_time(7200)
        assert await service.steps(identifier) == ["start", "advance"], "no evidence of the second stage, no advance"


async def test_pause_freezes_exposure_and_clocks_but_not_protection(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start()
        await service.pass_time(300)
        await service.act(identifier, "pause", "lunch")
        await service.pass_time(7200)
        assert threshold(service) == 10_000
        row = await service.row(identifier)
        assert row.state.stage_age(service.now).total_seconds() == 300
        for _ in range(10):
            await service.send(identifier, 0.5, 0.02)
        await service.watchman.round()
        assert (await service.steps(identifier))[-1] == "roll_back"


async def test_resume_asks_for_new_evidence_and_after_a_breach_starts_a_new_epoch(sqlite_url: str) -> None:
    guardrails = [{"metric": "error_rate", "max_regression": {"absolute": 0.02}, "on_breach": "pause"}]
    async with lab(sqlite_url) as service:
        identifier = await service.start(guardrails=guardrails)
        await service.act(identifier, "pause", "lunch")
        await service.act(identifier, "resume")
        assert (await service.row(identifier)).state.epoch == 1
        for _ in range(5):
            await service.send(identifier, 0.5, 0.02)
        await service.watchman.round()
        row = await service.row(identifier)
        assert (row.status, row.state.breach is not None) == ("paused", True)
        await service.send(identifier, 0.0, 0.02, n=4000)
        await service.watchman.round()
        assert (await service.row(identifier)).state.breach is not None, "a breach is latched"
        with pytest.raises(Invalid, match="say why"):
            await service.act(identifier, "resume")
        old = (await service.row(identifier)).state.attempt
        await service.act(identifier, "resume", "the upstream is repaired")
        row = await service.row(identifier)
        assert (row.status, row.state.epoch, row.state.breach) == ("running", 2, None)
        answer = await service.post({old.id: {"candidate": service.arm(50, 1.0)}})
        assert (answer.accepted, answer.orphaned) == (0, 1), "evidence of the former epoch is kept apart"
        await service.send(identifier, 0.02, 0.02)
        await service.watchman.round()
        assert (await service.row(identifier)).status == "running"
        async with service.database.read() as session:
            assert (await replay(session, identifier)).exact


async def test_a_kill_serves_the_default_pauses_the_rollout_and_restore_does_not_resume_it(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await service.start()
        await switch.kill(service.control, "answer", "production", "ann", "it burns")
        assert service.control.hub.newest("production").ruleset.flags["answer"].killed
        assert (await service.row(identifier)).status == "paused"
        with pytest.raises(Conflict, match="killed"):
            await service.act(identifier, "resume")
        await switch.restore(service.control, "answer", "production", "ann", "fire is out")
        assert not service.control.hub.newest("production").ruleset.flags["answer"].killed
        await service.pass_time(600)
        assert (await service.row(identifier)).status == "paused"
        assert threshold(service) == 0, "a restore alone exposes nobody"
        await service.act(identifier, "resume")
        assert threshold(service) == 10_000
        with pytest.raises(NotFound):
            await switch.kill(service.control, "nope", "production", "ann", "")


async def test_only_one_rollout_is_exposed_on_a_flag(database_url: str) -> None:
    async with lab(database_url) as service:
        first = await service.start()
        second = await drafting.create(service.control, rollout(), "ann")
        with pytest.raises(Conflict, match=first):
            await service.act(second, "start")
        await service.act(first, "roll_back", "changed our minds")
        await service.act(second, "start")


async def test_the_author_cannot_approve_and_an_approval_opens_the_last_gate(sqlite_url: str) -> None:
    stages = [
        {"name": "canary", "percentage": 10, "approval": "required", "min_units": 0},
        {"name": "half", "percentage": 50},
    ]
    async with lab(sqlite_url) as service:
        identifier = await service.start(stages=stages)
        for _ in range(40):
            await service.send(identifier, 0.01, 0.02)
            await service.pass_time(20)
        assert (await service.row(identifier)).latest.decision.reasons[0].code == "awaiting_approval"
        with pytest.raises(Forbidden, match="author"):
            await service.act(identifier, "approve")
        with pytest.raises(Forbidden, match="approver"):
            await service.act(identifier, "approve", actor=Actor(name="eve"))
        with pytest.raises(Forbidden, match="somebody other than the author"):
            await service.act(identifier, "advance", "I am in a hurry")
        await service.act(identifier, "approve", actor=Actor(name="eve", may_approve=True))
        await service.pass_time(10, look_every=5)
        assert (await service.steps(identifier))[-1] == "advance"


async def test_raising_exposure_by_hand_needs_the_right_and_a_reason(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start()
        with pytest.raises(Forbidden, match="operator"):
            await service.act(identifier, "advance", "go", actor=Actor(name="eve"))
        with pytest.raises(Invalid, match="say why"):
            await service.act(identifier, "advance")
        await service.act(identifier, "advance", "the demo is tomorrow")
        row = await service.row(identifier)
        assert (row.state.stage, row.state.unproven_stages) == (1, ("canary",))
        async with service.database.read() as session:
            entries = await audit.page(session)
        assert [entry.action for entry in entries][:2] == ["rollout.advance", "rollout.start"]
        assert entries[0].detail == {"reason": "the demo is tomorrow"}


async def test_a_draft_is_frozen_and_a_named_plan_is_copied_into_it(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await drafting.create(service.control, rollout(), "ann")
        row = await service.row(identifier)
        assert row.content_hash == content_hash(rollout())
        with pytest.raises(Invalid) as refused:
            await drafting.create(service.control, rollout(plan="careful"), "ann")
        assert refused.value.path == "plan"
        with pytest.raises(Conflict, match="start it first"):
            await service.act(identifier, "roll_back")
        await service.act(identifier, "cancel")
        assert (await service.row(identifier)).status == "cancelled"


async def test_two_people_at_once_make_one_change(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await service.start()
        seen = (await service.row(identifier)).revision
        pause = Act(action="pause", revision=seen)
        await commands.act(service.control, identifier, pause, ANN)
        with pytest.raises(Conflict, match="read it again"):
            await commands.act(service.control, identifier, pause, ANN)


async def test_evidence_does_not_make_a_person_conflict(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start()
        seen = (await service.row(identifier)).revision
        await service.send(identifier, 0.02, 0.02)
        await service.watchman.round()
        await commands.act(service.control, identifier, Act(action="pause", revision=seen), ANN)


async def test_a_replay_notices_a_changed_log(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start()
        await service.send(identifier, 0.02, 0.02)
        await service.watchman.round()
        async with service.database.write() as session:
            evaluation = (await rollouts.evaluations(session, identifier, newest=1))[0]
            inputs = msgspec.json.decode(evaluation.inputs)
            evaluation.inputs = msgspec.json.encode({**inputs, "units": 9999}).decode()
        async with service.database.read() as session:
            assert not (await replay(session, identifier)).exact


async def test_a_rollout_never_takes_back_what_was_released_to_everyone(database_url: str) -> None:
    async with lab(database_url) as service:
        plain = {"guardrails": [], "stages": [{"name": "all", "percentage": 100, "min_duration": "0s"}]}
        identifier = await service.start(**plain)
        await service.pass_time(60, look_every=10)
        assert (await service.row(identifier)).status == "completed"
        with pytest.raises(Conflict, match="make 'v8' the baseline"):
            await service.start(candidate="off")
        await service.start(baseline="v8", candidate="off")


async def test_sticky_units_that_never_fail_do_not_open_the_gate_by_their_number_of_requests(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start()
        attempt = (await service.row(identifier)).state.attempt
        assert attempt is not None
        for _ in range(10):
            few = ArmIncrement(sketch=[(unit * 50, 1) for unit in range(20)])
            few.slots = service.arm(80, 0.0).slots
            await service.post({attempt.id: {"candidate": few, "baseline": service.arm(720, 0.0)}})
            await service.pass_time(120)
        row = await service.row(identifier)
        assert row.state.stage == 0, "800 requests without a failure, but of twenty units only"
        assert row.latest is not None
        assert row.latest.judgement.readings[0].verdict == "undecided"
