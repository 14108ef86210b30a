"""Rollouts of one group on both databases: apart from the start to the end, and refused when there is no room."""

import asyncio

import msgspec
import pytest

from rollout.db import documents, environments, rollouts
from rollout.delivery.publish import publish_everywhere
from rollout.domain.environment import Environment
from rollout.domain.exclusion import Range
from rollout.domain.flag import Flag
from rollout.domain.holdout import Holdout
from rollout.domain.rollout import State
from rollout.engine import drafting
from rollout.engine.replay import replay
from rollout.errors import Conflict
from rollout_client.evaluation.bucketing import bucket
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import CompiledRuleset, compile_ruleset, evaluate
from tests.core.domain.plans import rollout
from tests.shell.engine.lab import Lab, lab

FLAGS = ("search", "mail", "chat")
UNITS = [f"user-{number}" for number in range(2_000)]
SEVENTY = {"exclusion": {"group": "pages", "share": 70}}
THIRTY = {"exclusion": {"group": "pages", "share": 30}}


async def more_flags(service: Lab) -> None:
    async with service.database.write() as session:
        for key in FLAGS:
            flag = Flag(key=key, variants={"v7": "small", "v8": "large"}, default_variant="v7")
            await documents.save(session, flag, None)
        await publish_everywhere(session, service.now)


async def place(service: Lab, identifier: str) -> tuple[int, int] | None:
    place = (await service.row(identifier)).state.slice
    return None if place is None else (place.start, place.end)


async def served(service: Lab) -> CompiledRuleset:
    await service.control.hub.refresh()
    newest = service.control.hub.newest("production")
    assert newest is not None
    return compile_ruleset(newest.ruleset)


def taking_part(answers: CompiledRuleset, flag: str) -> set[str]:
    return {unit for unit in UNITS if evaluate(answers, flag, Context(unit)).attempt is not None}


async def reason(service: Lab, identifier: str) -> str:
    async with service.database.read() as session:
        return (await rollouts.transitions(session, identifier))[0].change.reason


async def test_two_rollouts_share_a_group_a_third_is_refused_and_the_end_of_one_frees_its_place(
    database_url: str,
) -> None:
    async with lab(database_url) as service:
        await more_flags(service)
        first = await service.start(**SEVENTY)
        second = await service.start(flag="search", **THIRTY)
        assert await place(service, first) == (0, 70_000)
        assert await place(service, second) == (70_000, 100_000)
        answers = await served(service)
        taken = [taking_part(answers, flag) for flag in ("answer", "search")]
        assert not taken[0] & taken[1]
        assert taken[0] | taken[1] == set(UNITS)

        third = await drafting.create(service.control, rollout(flag="mail", **THIRTY), "ann")
        full = rf"group 'pages' has 0 % left; {first} holds 70 %, {second} holds 30 %; end one of them first"
        fuller = rf"group 'pages' has 0 % left; {second} holds 30 %, {first} holds 70 %; end one of them first"
        with pytest.raises(Conflict, match=f"{full}|{fuller}"):
            await service.act(third, "start")
        assert (await service.row(third)).status == "draft"
        assert await service.steps(third) == []

        await service.act(first, "roll_back", "enough")
        await service.act(third, "start")
        assert await place(service, third) == (0, 30_000)
        assert await place(service, first) == (0, 70_000), "what it held stays on record"
        assert not taking_part(await served(service), "mail") & taken[1]


async def test_what_a_rollout_owns_stays_for_its_life(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        await more_flags(service)
        first = await service.start(**THIRTY)
        second = await service.start(flag="search", **THIRTY)
        before = taking_part(await served(service), "search")
        await service.act(first, "roll_back", "enough")
        for action in ("pause", "resume", "advance"):
            await service.act(second, action, "on purpose")
            assert await place(service, second) == (30_000, 60_000)
        await service.send(second, 0.02, 0.02)
        await service.pass_time(60)
        assert taking_part(await served(service), "search") == before
        async with service.database.read() as session:
            assert (await replay(session, second)).exact


async def test_two_that_start_at_once_get_ranges_of_their_own(database_url: str) -> None:
    async with lab(database_url) as service:
        await more_flags(service)
        drafts = [
            await drafting.create(service.control, rollout(flag=flag, **THIRTY), "ann") for flag in ("answer", *FLAGS)
        ]
        done = await asyncio.gather(*(service.act(draft, "start") for draft in drafts), return_exceptions=True)
        refused = [each for each in done if isinstance(each, BaseException)]
        assert len(refused) == 1, "three times 30 % fit"
        assert isinstance(refused[0], Conflict)
        assert "has 10 % left" in str(refused[0])
        places = [await place(service, draft) for draft in drafts]
        assert sorted(each for each in places if each) == [(0, 30_000), (30_000, 60_000), (60_000, 90_000)]


async def test_a_group_is_divided_by_one_kind_of_unit_and_per_environment(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        await more_flags(service)
        async with service.database.write() as session:
            await environments.save(session, Environment(key="staging"), service.now)
            await publish_everywhere(session, service.now)
        first = await service.start(unit="user_id", **THIRTY)
        other = await drafting.create(service.control, rollout(flag="search", **THIRTY), "ann")
        with pytest.raises(Conflict, match=rf"divided by 'user_id' \({first}\).*use another group"):
            await service.act(other, "start")
        elsewhere = await service.start(environment="staging", flag="search", **SEVENTY)
        assert await place(service, elsewhere) == (0, 70_000)
        mails = await service.start(flag="mail", exclusion={"group": "mails", "share": 100})
        assert await place(service, mails) == (0, 100_000)


async def test_a_start_records_its_place_and_whom_it_may_meet(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        await more_flags(service)
        alone = await service.start()
        assert await reason(service, alone) == "start by hand"
        second = await service.start(flag="search", **THIRTY)
        assert await reason(service, second) == (
            f"start by hand; owns 0 % to 30 % of group 'pages'; runs beside {alone} on answer (both watch error_rate), "
            "which both arms meet equally"
        )
        third = await service.start(flag="mail", exclusion={"group": "pages", "share": 20})
        assert second not in await reason(service, third), "the group keeps them apart"
        assert alone in await reason(service, third)


async def test_a_holdout_reaches_every_rollout_of_its_environment_at_once(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        await more_flags(service)
        await service.start(stages=[{"name": "half", "percentage": 50}])
        await service.start(flag="search", **THIRTY)
        before = await served(service)
        async with service.database.write() as session:
            await environments.save(session, Environment(key="production", holdout=Holdout(percentage=20)), service.now)
            await publish_everywhere(session, service.now)
        after = await served(service)
        held_out = {unit for unit in UNITS if bucket("holdout/holdout", unit) < 20_000}
        for flag in ("answer", "search"):
            assert taking_part(after, flag) == taking_part(before, flag) - held_out
            assert not [unit for unit in held_out if evaluate(after, flag, Context(unit)).variant == "v8"]


def test_a_state_of_before_there_were_groups_is_read() -> None:
    old = msgspec.to_builtins(State())
    del old["slice"]
    assert msgspec.convert(old, State).slice is None
    stored = msgspec.json.encode(msgspec.structs.replace(State(), slice=Range(start=0, end=5)))
    assert msgspec.json.decode(stored, type=State).slice == Range(start=0, end=5)
