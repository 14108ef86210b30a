"""Who waits for a ruleset is told of it at once, and of nothing else; and nobody is left waiting."""

import asyncio
from time import monotonic

import msgspec
import pytest

from rollout.api import stream
from rollout.db import environments
from rollout.delivery.publish import publish
from rollout.domain.environment import Environment
from rollout_client.evaluation.ruleset import Heartbeat
from tests.shell.engine.lab import Lab, lab

LONG = 30.0


async def tag(service: Lab, environment: str) -> str:
    newest = service.control.hub.newest(environment)
    assert newest is not None
    return newest.tag


async def test_a_new_ruleset_wakes_those_who_wait_for_it_and_no_one_else(database_url: str) -> None:
    async with lab(database_url) as service:
        hub = service.control.hub
        async with service.database.write() as session:
            await environments.save(session, Environment(key="staging"), service.now)
            await publish(session, "staging", service.now)
        await hub.refresh()
        here = [asyncio.create_task(hub.wait("production", await tag(service, "production"), LONG)) for _ in range(3)]
        there = asyncio.create_task(hub.wait("staging", await tag(service, "staging"), LONG))
        await asyncio.sleep(0.05)
        await service.start()
        await asyncio.wait_for(asyncio.gather(*here), 5)
        assert not there.done()
        await hub.close()
        await asyncio.wait_for(there, 5)
        assert not any(hub._waiting.values())


async def test_a_wait_ends_when_its_time_is_over_or_was_never_needed(database_url: str) -> None:
    async with lab(database_url) as service:
        hub = service.control.hub
        await hub.refresh()
        began = monotonic()
        await hub.wait("production", "an older one", LONG)
        await hub.wait("production", await tag(service, "production"), 0.05)
        await hub.wait("nowhere", None, 0.05)
        leaving = asyncio.create_task(hub.wait("production", await tag(service, "production"), LONG))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert (leaving.cancelled(), any(hub._waiting.values())) == (True, False)
        await hub.close()
        await hub.wait("production", await tag(service, "production"), LONG)
        assert 0.1 <= monotonic() - began < LONG / 2


async def test_what_is_huge_is_named_and_not_sent(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HUGE", 10)

    async def admitted() -> bool:
        return True

    async with lab(database_url) as service:
        await service.control.hub.refresh()
        whole = stream.changes(service.control.hub, "production", None, admitted, beat=LONG, life=LONG)
        assert [b"\nevent: ruleset\n" in await anext(whole) for _ in range(2)] == [False, True], "to whom holds none"
        events = stream.changes(service.control.hub, "production", "0.older", admitted, beat=LONG, life=LONG)
        for _ in range(2):
            name, data = (await anext(events)).decode().splitlines()[:2]
            said = msgspec.json.decode(data.removeprefix("data: "), type=Heartbeat)
            assert (name, f"{said.revision}.{said.edition}") == ("event: heartbeat", await tag(service, "production"))
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.05)
        assert not waiting.done(), "once for each ruleset"
        await service.control.hub.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
