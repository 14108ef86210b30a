"""Overrides on both databases: given and ended by people, expired by the engine, forgotten when they are over."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, text

from rollout.api.flags import put_flag
from rollout.db import audit
from rollout.db import overrides as stored
from rollout.db.audit import Entry
from rollout.db.session import Database
from rollout.db.tables import RulesetRow
from rollout.delivery.hub import Hub
from rollout.delivery.publish import publish
from rollout.domain.override import Override, OverrideRequest
from rollout.engine import overrides, switch
from rollout.engine.clock import Clock
from rollout.engine.control import Control
from rollout.engine.overrides import Place
from rollout.engine.rights import Actor
from rollout.errors import Conflict, Forbidden, Invalid, NotFound
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import compile_ruleset, evaluate
from tests.core.domain.plans import World
from tests.shell.engine.lab import ANN, Lab, lab
from tests.shell.engine.machine.people import ask

EDITOR = Actor(name="eve", person="eve")
SOMEBODY = "ann@example.com"


def place(unit: str = SOMEBODY, **changes: str) -> Place:
    return Place(**{"flag": "answer", "environment": "production", "unit": unit, **changes})


async def give(service: Lab, unit: str = SOMEBODY, actor: Actor = ANN, **changes: str) -> Override:
    wanted = OverrideRequest(**{"variant": "v8", "reason": "a tester", "expires": "24h", **changes})
    return await overrides.give(service.control, place(unit), wanted, actor)


def served(service: Lab) -> dict[str, str]:
    newest = service.control.hub.newest("production")
    assert newest is not None
    return newest.ruleset.flags["answer"].overrides


async def trail(service: Lab) -> list[Entry]:
    async with service.database.read() as session:
        return [each for each in await audit.page(session) if each.action.startswith("override.")]


async def rows(service: Lab) -> list[Override]:
    async with service.database.read() as session:
        return await stored.of_environment(session, "production")


async def test_an_override_is_served_recorded_and_ended_in_one_transaction_each(database_url: str) -> None:
    async with lab(database_url) as service:
        given = await give(service)
        assert served(service) == {SOMEBODY: "v8"}
        assert given.expires_at == service.now + timedelta(hours=24)
        replaced = await give(service, variant="v7", reason="changed our minds", expires="1h")
        assert (await rows(service)) == [replaced]
        assert served(service) == {SOMEBODY: "v7"}
        await overrides.end(service.control, place(), "ann", "done")
        assert (served(service), await rows(service)) == ({}, [])
        ended, second, first = await trail(service)
        assert [each.action for each in (first, second, ended)] == ["override.give", "override.give", "override.end"]
        assert (first.target, first.actor, first.environment) == ("flag:answer", "ann", "production")
        assert (first.detail["override"], first.detail["variant"], first.detail["reason"]) == (
            given.id,
            "v8",
            "a tester",
        )
        assert second.detail["instead_of"] == given.id
        assert ended.detail == {"override": replaced.id, "reason": "done"}
        with pytest.raises(NotFound, match="it may have ended"):
            await overrides.end(service.control, place(), "ann", "again")


async def test_of_those_who_give_a_unit_a_variant_at_once_the_last_one_counts(database_url: str) -> None:
    async with lab(database_url) as service:
        given = await asyncio.gather(*(give(service, reason=f"tester {number}") for number in range(8)))
        [kept] = await rows(service)
        assert kept in given
        assert served(service) == {SOMEBODY: "v8"}
        replaced = {each.detail["instead_of"] for each in await trail(service) if "instead_of" in each.detail}
        assert replaced == {each.id for each in given} - {kept.id}


async def test_an_edit_of_the_flag_and_an_override_of_it_wait_for_each_other_and_not_in_a_circle(
    database_url: str,
) -> None:
    async def edited(service: Lab, number: int) -> None:
        edited = msgspec.structs.replace(World.flags["answer"], description=f"{number}")
        await ask(put_flag, "root", service.control, key="answer", data=edited)

    async with lab(database_url) as service:
        for number in range(5):
            acts = [edited(service, number), *(give(service, f"u{number}-{other}") for other in range(3))]
            await asyncio.gather(*acts)
        assert len(served(service)) == 15


async def test_an_environment_has_a_limit_and_what_is_there_can_still_be_replaced(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overrides, "MOST", 2)
    async with lab(sqlite_url) as service:
        await give(service, "u1")
        await give(service, "u2")
        with pytest.raises(Conflict, match="has 2 overrides"):
            await give(service, "u3")
        await give(service, "u2", variant="v7")
        await overrides.end(service.control, place("u1"), "ann", "done")
        await give(service, "u3")
        assert served(service) == {"u2": "v7", "u3": "v8"}


async def test_what_raises_exposure_needs_an_operator_and_no_kill(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        await service.start()
        with pytest.raises(Forbidden, match="operator"):
            await give(service, actor=EDITOR)
        await give(service, actor=EDITOR, variant="v7")
        assert served(service) == {SOMEBODY: "v7"}, "the baseline is what everybody gets: it takes exposure away"
        await switch.kill(service.control, "answer", "production", "ann", "it burns")
        with pytest.raises(Conflict, match="restore it first"):
            await give(service)
        await give(service, variant="v7")


async def test_a_released_variant_raises_nothing(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(stages=[{"name": "half", "percentage": 50, "min_units": 0}])
        await service.act(identifier, "advance", "everybody")
        await give(service, actor=EDITOR)
        with pytest.raises(Forbidden):
            await give(service, actor=EDITOR, variant="off")


async def test_bad_requests_name_the_field(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        with pytest.raises(Invalid) as refused:
            await give(service, variant="v9", expires="1y", reason="")
        assert [path for path, _ in refused.value.problems] == ["variant", "reason", "expires"]
        wanted = OverrideRequest(variant="v8", reason="a tester", expires="1h")
        for wrong in ({"flag": "nope"}, {"environment": "nope"}):
            with pytest.raises(NotFound, match="nope"):
                await overrides.give(service.control, place(**wrong), wanted, ANN)
        assert (await rows(service), await trail(service)) == ([], [])


async def test_the_engine_ends_what_has_expired_and_nothing_else(database_url: str) -> None:
    async with lab(database_url) as service:
        short = await give(service, expires="1h")
        await give(service, unit="bob", expires="2h")
        assert await overrides.expire(service.control) == 0
        service.now += timedelta(hours=1)
        assert await overrides.expire(service.control) == 1
        assert served(service) == {"bob": "v8"}
        assert [each.unit for each in await rows(service)] == ["bob"]
        newest = (await trail(service))[0]
        assert (newest.action, newest.actor, newest.detail) == ("override.expire", "engine", {"override": short.id})
        assert await overrides.expire(service.control) == 0


async def test_what_has_expired_is_not_compiled_even_when_nobody_has_ended_it(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        await give(service, expires="1h")
        service.now += timedelta(hours=1)
        assert served(service) == {SOMEBODY: "v8"}, "nobody has published since"
        async with service.database.write() as session:
            await publish(session, "production", service.now)
        await service.control.hub.refresh()
        assert served(service) == {}
        assert len(await rows(service)) == 1
        revision = service.control.hub.newest("production").ruleset.revision
        assert await overrides.expire(service.control) == 1
        assert service.control.hub.newest("production").ruleset.revision == revision, "nothing is served differently"


async def test_many_processes_end_each_override_once(database_url: str) -> None:
    async with lab(database_url) as service:
        given = [await give(service, unit=f"user-{i}", expires="1h") for i in range(12)]
        service.now += timedelta(hours=1)
        others = [] if service.database.is_sqlite else [Database(database_url) for _ in range(3)]
        controls = [Control(each, Hub(each), now=lambda: service.now) for each in others] or [service.control] * 4
        try:
            counts = await asyncio.gather(*(overrides.expire(each) for each in controls for _ in range(3)))
        finally:
            for each in others:
                await each.close()
        assert sum(counts) == 12
        ended = [each.detail["override"] for each in await trail(service) if each.action == "override.expire"]
        assert sorted(ended) == sorted(each.id for each in given)
        await service.control.hub.refresh()
        assert served(service) == {}


async def test_the_clock_ends_an_override_within_two_seconds(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        control = Control(service.database, service.control.hub)
        clock = Clock(control, tick=0.5)
        wanted = OverrideRequest(variant="v8", reason="a tester", expires="1s")
        await overrides.give(control, place(), wanted, ANN)
        assert served(service) == {SOMEBODY: "v8"}
        await clock.start()
        try:
            await asyncio.sleep(3)
            assert served(service) == {}
            assert await rows(service) == []
        finally:
            await clock.stop()


async def test_nothing_in_the_database_names_a_unit_whose_override_is_over(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start()
        await give(service)
        await service.act(identifier, "advance", "the demo is tomorrow")
        await give(service, unit="bob", expires="2h")
        assert SOMEBODY in await everything(service)
        await overrides.end(service.control, place(), "ann", "done")
        assert SOMEBODY not in await everything(service)
        service.now += timedelta(hours=2)
        assert await overrides.expire(service.control) == 1
        assert '"bob": "v8"' not in (await everything(service)).replace('":"', '": "')
        async with service.database.read() as session:
            kept = (await session.execute(select(RulesetRow.revision).order_by(RulesetRow.revision))).scalars().all()
        assert list(kept) == list(range(1, len(kept) + 1)), "every ruleset is kept, without the units"


async def everything(service: Lab) -> str:
    """Every value in every table."""
    async with service.database.read() as session:
        tables = (await session.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'"))).scalars().all()
        found: list[Any] = []
        for table in tables:
            found += (await session.execute(text(f'SELECT * FROM "{table}"'))).all()
    return "\n".join(
        value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for row in found for value in row
    )


async def test_an_override_outlives_a_rollback_and_a_kill_beats_it(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start()
        await give(service)
        await service.act(identifier, "roll_back", "enough")
        assert served(service) == {SOMEBODY: "v8"}
        await switch.kill(service.control, "answer", "production", "ann", "it burns")
        answer = evaluate(
            compile_ruleset(service.control.hub.newest("production").ruleset), "answer", Context(SOMEBODY)
        )
        assert (answer.variant, answer.reason) == ("v7", "DISABLED")
