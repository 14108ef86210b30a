"""Acts and looks at the same moment: each is carried out, or refused with its reason, and none waits in a circle."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete

from rollout.api.flags import put_flag
from rollout.db import documents
from rollout.db.tables import FlagStateRow
from rollout.domain.flag import Flag
from rollout.engine import record, switch, watchman
from rollout.errors import Conflict
from rollout.ingest.accept import accept
from rollout_client.evaluation.evidence import Batch
from tests.shell.engine.lab import ONCALL, Lab, lab
from tests.shell.engine.machine.people import ask


async def test_of_two_starts_on_a_flag_one_is_refused_with_its_reason(database_url: str) -> None:
    async with lab(database_url) as service:
        for _ in range(5):
            drafts = [await service.draft(), await service.draft(exclusion={"group": "g", "share": 10})]
            acts = (service.act(identifier, "start") for identifier in drafts)
            done = await asyncio.gather(*acts, return_exceptions=True)
            [refused] = [each for each in done if isinstance(each, BaseException)]
            assert isinstance(refused, Conflict)
            assert "end it first" in str(refused)
            for identifier, each in zip(drafts, done, strict=True):
                await service.act(identifier, "cancel" if each is refused else "roll_back")


async def _edited(service: Lab, default: str) -> None:
    async with service.database.read() as session:
        found = await documents.find(session, Flag, "answer")
    assert found is not None
    flag = msgspec.structs.replace(found[0], default_variant=default)
    await ask(put_flag, "root", service.control, key="answer", data=flag)


async def test_the_default_does_not_change_under_a_rollout_that_starts_just_then(database_url: str) -> None:
    async with lab(database_url) as service:
        for wait in range(6):
            identifier = await service.draft(baseline="v7")

            async def late(wait: int = wait) -> None:
                await asyncio.sleep(wait / 500)
                await _edited(service, "off")

            acts = (service.act(identifier, "start"), late())
            done = await asyncio.gather(*acts, return_exceptions=True)
            refused = [each for each in done if isinstance(each, BaseException)]
            assert len(refused) == 1, f"both or none: {done}"
            assert isinstance(refused[0], Conflict)
            started = (await service.row(identifier)).status == "running"
            await service.act(identifier, "roll_back" if started else "cancel")
            if not started:
                await _edited(service, "v7")
            async with service.database.write() as session:  # a rollout that ended has released its baseline
                await session.execute(delete(FlagStateRow))


async def test_a_kill_waits_for_a_look_that_publishes_twice_and_not_in_a_circle(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab(database_url) as service:
        identifier = await service.start(lease="1m")
        for _ in range(4):
            await service.report("error_rate", "down")
        await service.pass_time(180)
        assert (await service.row(identifier)).state.blind
        for _ in range(6):
            await service.send(identifier, 0.9, 0.02, n=2000)
        await service.report("error_rate", None)
        real = record.publish

        async def slowly(*arguments: Any) -> int:
            revision = await real(*arguments)
            await asyncio.sleep(0.1)
            return revision

        async def killed() -> None:
            await asyncio.sleep(0.05)
            await switch.kill(service.control, "answer", "production", ONCALL.name, "now")

        monkeypatch.setattr(record, "publish", slowly)
        monkeypatch.setattr(switch, "passing", lambda _: False)  # not even once
        await asyncio.gather(service.watchman.round(), killed())
        assert (await service.steps(identifier))[:4] == ["start", "lapse", "regain", "roll_back"]
        assert (await service.status(identifier)).killed


async def test_a_round_looks_once_although_the_clock_of_whoever_accepts_is_behind(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab(database_url) as service:
        identifier = await service.start()
        attempt = (await service.row(identifier)).state.attempts[-1].id
        real, looks = watchman.claim, [0]

        async def arrive(number: int) -> None:
            arms = {"candidate": service.arm(5, 0.0), "baseline": service.arm(45, 0.0)}
            batch = Batch(
                batch_id=f"late-{number}", environment="production", process="p", client="t", attempts={attempt: arms}
            )
            await accept(service.database, "production", msgspec.json.encode(batch), service.now - timedelta(seconds=6))

        async def claim(*arguments: Any) -> Any:
            found = await real(*arguments)
            looks[0] += bool(found)
            return found

        done = watchman.Watchman._together

        async def together(self: Any, *arguments: Any) -> int:
            looked = await done(self, *arguments)
            await arrive(looks[0])
            return looked

        def ticking() -> datetime:
            service.now += timedelta(milliseconds=1)
            return service.now

        await arrive(100)
        service.now += timedelta(seconds=1)
        monkeypatch.setattr(watchman, "claim", claim)
        monkeypatch.setattr(watchman.Watchman, "_together", together)
        moving = watchman.Watchman(replace(service.control, now=ticking))
        assert await asyncio.wait_for(moving.round(), 20) == 1
        assert looks[0] <= 2, "claimed once more, to be passed"
