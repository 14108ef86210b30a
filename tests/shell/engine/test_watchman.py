"""Rounds over what is due: broken rollouts stop nobody else, leases lapse, crashes leave the work due."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from rollout.db import documents, flag_states, heartbeat, rollouts
from rollout.engine import look as look_module
from rollout.engine import switch
from rollout.engine import watchman as watchman_module
from rollout.engine.clock import Clock
from rollout.engine.replay import replay
from rollout.engine.watchman import Watchman
from tests.core.domain.plans import World
from tests.shell.engine.lab import Lab, lab


async def engine_age(service: Lab) -> int | None:
    async with service.database.read() as session:
        return await heartbeat.engine_age_ms(session)


async def several(service: Lab, many: int) -> list[str]:
    """So many rollouts, each on a flag of its own."""
    for number in range(many):
        async with service.database.write() as session:
            flag = msgspec.structs.replace(World.flags["answer"], key=f"answer-{number}")
            await documents.save(session, flag, None)
    return [await service.start(flag=f"answer-{number}") for number in range(many)]


async def test_a_completed_round_vouches_by_the_clock_of_the_database(database_url: str) -> None:
    async with lab(database_url) as service:
        assert await engine_age(service) is None
        await service.watchman.round()
        age = await engine_age(service)
        assert age is not None
        assert 0 <= age < 2000
        await asyncio.sleep(0.3)
        later = await engine_age(service)
        assert later is not None
        assert later >= age + 250


async def test_a_rollout_that_cannot_be_looked_at_stops_nobody_else_and_loses_its_exposure(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab(database_url) as service:
        identifier = await service.start(lease="5m")
        await service.watchman.round()
        real = look_module.look

        async def broken(*_: Any) -> Any:
            raise RuntimeError("this look fails")

        monkeypatch.setattr(watchman_module, "look", broken)
        await service.pass_time(240)
        assert await engine_age(service) is not None
        assert await service.steps(identifier) == ["start"]
        await service.pass_time(120)
        assert await service.steps(identifier) == ["start", "lapse"]
        rule = service.control.hub.newest("production").ruleset.flags["answer"].rules[-1]
        assert (rule.threshold, rule.attempt) == (0, None)
        await service.pass_time(600)
        assert await service.steps(identifier) == ["start", "lapse"]
        monkeypatch.setattr(watchman_module, "look", real)
        await service.pass_time(60)
        assert await service.steps(identifier) == ["start", "lapse", "regain"]
        rule = service.control.hub.newest("production").ruleset.flags["answer"].rules[-1]
        assert rule.threshold == 10_000
        assert (await service.row(identifier)).status == "running"


@pytest.mark.parametrize("place", ["add_transition", "replace_state", "add_evaluations", "looked"])
async def test_a_crash_anywhere_in_a_decision_leaves_no_half_of_it_and_the_work_due(
    database_url: str, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    async with lab(database_url) as service:
        identifier = await service.start()
        for _ in range(5):
            await service.send(identifier, 0.9, 0.02)
        before = await service.row(identifier)

        async def crash(*_: Any, **__: Any) -> Any:
            raise RuntimeError("the process dies here")

        with monkeypatch.context() as broken:
            broken.setattr(rollouts, place, crash)
            await service.watchman.round()
        after = await service.row(identifier)
        assert (after.status, after.tick, after.judged, after.state) == (
            before.status, before.tick, before.judged, before.state,
        )  # fmt: skip
        await service.pass_time(5)
        assert await service.steps(identifier) == ["start", "roll_back"]


async def test_a_look_that_fails_undoes_none_of_those_in_its_transaction(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab(database_url) as service:
        identifiers = await several(service, 5)
        for identifier in identifiers:
            await service.send(identifier, 0.02, 0.02)
        real = look_module.look

        async def one_fails(session: Any, control: Any, claimed: Any, now: Any, notes: Any) -> Any:
            decision = await real(session, control, claimed, now, notes)
            if claimed.row.id == identifiers[2]:
                raise RuntimeError("this look fails")
            return decision

        monkeypatch.setattr(watchman_module, "look", one_fails)
        assert await service.watchman.round() == 5
        rows = [await service.row(identifier) for identifier in identifiers]
        assert [row.tick for row in rows] == [1, 1, 0, 1, 1]
        assert rows[2].next_check_at == service.now + timedelta(seconds=2)
        assert [row.judged for row in rows] == [1, 1, 0, 1, 1]


async def test_a_round_looks_at_all_that_is_due_whatever_it_decides_about_some(database_url: str) -> None:
    async with lab(database_url) as service:
        identifiers = await several(service, 11)
        for identifier in identifiers:
            bad = identifier in identifiers[3:5]
            for _ in range(5 if bad else 2):
                await service.send(identifier, 0.9 if bad else 0.02, 0.02)
        assert await service.watchman.round() == 11
        for identifier in identifiers:
            row = await service.row(identifier)
            assert row.judged == row.accepted > 0
            assert row.status == ("rolled_back" if identifier in identifiers[3:5] else "running")
            async with service.database.read() as session:
                assert (await replay(session, identifier)).exact


async def test_two_engines_share_many_rollouts_and_each_is_judged_once(postgres_url: str) -> None:
    async with lab(postgres_url) as service:
        identifiers = await several(service, 20)
        for identifier in identifiers:
            await service.send(identifier, 0.02, 0.02)
        rival = Watchman(service.control)
        looked = await asyncio.gather(service.watchman.round(), rival.round())
        assert sum(looked) >= 20
        assert [(await service.row(identifier)).tick for identifier in identifiers] == [1] * 20


async def test_two_engines_on_one_database_decide_once(postgres_url: str) -> None:
    async with lab(postgres_url) as service:
        identifiers = [await service.start()]
        for _ in range(5):
            await service.send(identifiers[0], 0.9, 0.02)
        rival = Watchman(service.control)
        await asyncio.gather(*(watch.round() for watch in (service.watchman, rival) * 5))
        assert await service.steps(identifiers[0]) == ["start", "roll_back"]


async def test_the_clock_looks_soon_after_a_nudge_and_stops_clean(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await service.start()
        clock = Clock(service.control, tick=60, debounce=0.05)
        await clock.start()
        try:
            for _ in range(5):
                await service.send(identifier, 0.9, 0.02)
            clock.nudge()
            for _ in range(100):
                await asyncio.sleep(0.02)
                if (await service.row(identifier)).status == "rolled_back":
                    break
            assert await service.steps(identifier) == ["start", "roll_back"]
        finally:
            await clock.stop()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("rollout-")]


async def test_a_steady_stream_of_batches_does_not_keep_a_round_from_ending(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab(database_url) as service:
        await service.start()
        real = look_module.look

        async def followed_by_a_batch(session: Any, control: Any, claimed: Any, now: Any, notes: Any) -> Any:
            decision = await real(session, control, claimed, now, notes)
            await rollouts.postpone(session, claimed.row, now)
            return decision

        monkeypatch.setattr(watchman_module, "look", followed_by_a_batch)
        assert await asyncio.wait_for(service.watchman.round(), 10) == 1
        assert await engine_age(service) is not None


async def test_a_row_that_somebody_holds_without_looking_is_not_vouched_for(postgres_url: str) -> None:
    async with lab(postgres_url) as service:
        identifier = await service.start(lease="1m")
        await service.watchman.round()
        service.now += timedelta(minutes=5)
        async with service.database.write() as session:
            await rollouts.find(session, identifier, lock=True)
            await asyncio.sleep(0.5)
            before = await engine_age(service)
            await service.watchman.round()
            after = await engine_age(service)
        assert before is not None
        assert after is not None
        assert after >= before
        await service.watchman.round()
        again = await engine_age(service)
        assert again is not None
        assert again < after
        assert await service.steps(identifier) == ["start"]


async def test_batches_that_hold_a_row_all_the_time_do_not_keep_the_engine_from_it(postgres_url: str) -> None:
    async with lab(postgres_url) as service:
        identifier = await service.start()
        stop = asyncio.Event()

        async def hold() -> None:
            while not stop.is_set():
                async with service.database.write() as session:
                    await rollouts.find(session, identifier, lock=True)
                    await asyncio.sleep(0.03)

        holding = [asyncio.create_task(hold()) for _ in range(3)]
        try:
            for _ in range(5):
                await asyncio.sleep(0.1)
                service.now += timedelta(seconds=10)
                assert await service.watchman.round() == 1
        finally:
            stop.set()
            await asyncio.gather(*holding)


async def test_a_kill_does_not_wait_for_whoever_holds_the_rollout(postgres_url: str) -> None:
    async with lab(postgres_url) as service:
        identifier = await service.start()
        async with service.database.write() as session:
            await rollouts.find(session, identifier, lock=True)
            killing = asyncio.create_task(switch.kill(service.control, "answer", "production", "ann", "it burns"))
            for _ in range(100):
                await asyncio.sleep(0.02)
                newest = service.control.hub.newest("production")
                if newest is not None and newest.ruleset.flags["answer"].killed:
                    break
            assert newest is not None
            assert newest.ruleset.flags["answer"].killed
            assert not killing.done(), "the pause still waits for the lock"
        await killing
        assert await service.steps(identifier) == ["start", "pause"]


async def test_a_kill_and_a_rollback_at_the_same_moment_both_happen(postgres_url: str) -> None:
    async with lab(postgres_url) as service:
        for _ in range(5):
            identifier = await service.start()
            await asyncio.gather(
                switch.kill(service.control, "answer", "production", "ann", "it burns"),
                service.act(identifier, "roll_back", "it burns"),
            )
            assert (await service.row(identifier)).status == "rolled_back"
            async with service.database.read() as session:
                assert (await flag_states.find(session, "answer", "production")).killed
            await switch.restore(service.control, "answer", "production", "ann", "")
