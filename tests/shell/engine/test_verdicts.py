"""Every transition carries the verdicts of its look, in sentences with numbers that a replay finds again."""

import msgspec
import pytest
from sqlalchemy import select, update

from rollout.db import rollouts
from rollout.db.rollouts import Transition
from rollout.db.tables import TransitionRow
from rollout.engine import record as record_module
from rollout.engine import switch
from rollout.engine.replay import Replayed, replay
from tests.shell.engine.lab import Lab, lab


async def transitions(service: Lab, identifier: str) -> list[Transition]:
    async with service.database.read() as session:
        return await rollouts.transitions(session, identifier)


async def replayed(service: Lab, identifier: str) -> Replayed:
    async with service.database.read() as session:
        return await replay(session, identifier)


async def completed(service: Lab) -> str:
    identifier = await service.start()
    for _ in range(60):
        await service.send(identifier, 0.02, 0.02)
        await service.pass_time(60)
        if (await service.row(identifier)).status == "completed":
            break
    return identifier


async def rolled_back(service: Lab) -> str:
    identifier = await service.start()
    for _ in range(10):
        await service.send(identifier, 0.5, 0.02)
        await service.watchman.round()
        if (await service.row(identifier)).status == "rolled_back":
            break
    return identifier


async def test_decisions_carry_the_numbers_they_were_made_with(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await completed(service)
        started, advanced, ended = await transitions(service, identifier)
        assert started.change.verdicts == (), "nothing was measured before the start"
        for made in (advanced, ended):
            (verdict,) = made.change.verdicts
            assert (verdict.metric, verdict.verdict, verdict.tick) == ("error_rate", "pass", made.tick)
            assert verdict.effect is not None
            assert verdict.effect.upper is not None
            assert verdict.effect.upper <= verdict.lines.gate.size
            assert f"/{verdict.candidate.n:g} (" in verdict.sentence
            assert "nothing more is needed" in verdict.sentence
        assert (await replayed(service, identifier)).exact


async def test_a_rollback_says_how_much_worse_it_was(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await rolled_back(service)
        (verdict,) = (await transitions(service, identifier))[-1].change.verdicts
        assert verdict.verdict == "breach"
        assert verdict.effect is not None
        assert (verdict.effect.lower or 0) >= verdict.lines.rollback.size == 0.02
        assert verdict.candidate.level == pytest.approx(0.5, abs=0.2)
        assert verdict.log_e_harm >= verdict.harm_threshold
        assert (await replayed(service, identifier)).exact


async def test_peoples_acts_carry_the_verdicts_of_the_newest_look(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start()
        await service.send(identifier, 0.02, 0.02)
        await service.watchman.round()
        tick = (await service.row(identifier)).tick
        done = await service.act(identifier, "pause", "lunch")
        (verdict,) = done.change.verdicts
        assert (done.tick, verdict.tick, verdict.verdict) == (None, tick, "undecided")
        assert "more candidate requests are needed" in verdict.sentence
        await service.act(identifier, "resume")
        await switch.kill(service.control, "answer", "production", "ann", "it burns")
        killed = (await transitions(service, identifier))[-1].change
        assert (killed.step, killed.verdicts[0].effect) == ("pause", None), "no statistic is on the way of a kill"
        assert killed.verdicts[0].log_e_gate == verdict.log_e_gate
        assert (await replayed(service, identifier)).exact


@pytest.mark.parametrize("what", ["sentence", "number", "look", "effect"])
async def test_replay_finds_a_verdict_that_no_look_said(sqlite_url: str, what: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await rolled_back(service)
        assert (await replayed(service, identifier)).misquoted == ()
        async with service.database.write() as session:
            query = select(TransitionRow).where(TransitionRow.rollout == identifier, TransitionRow.seq == 2)
            change = msgspec.to_builtins((await session.execute(query)).scalar_one().change)
            (verdict,) = change["verdicts"]
            match what:
                case "sentence":
                    verdict["sentence"] = verdict["sentence"].replace("worse", "a little worse")
                case "number":
                    verdict["effect"]["lower"] += 1e-5
                case "look":
                    verdict["tick"] += 1
                case "effect":
                    verdict["effect"] = None
            changed = update(TransitionRow).where(TransitionRow.rollout == identifier, TransitionRow.seq == 2)
            await session.execute(changed.values(change=change))
        found = await replayed(service, identifier)
        assert (found.exact, found.differing, found.misquoted) == (False, (), (2,))


async def test_a_transition_recorded_before_there_were_verdicts_is_read_and_quotes_none(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await rolled_back(service)
        async with service.database.write() as session:
            for row in (await session.execute(select(TransitionRow))).scalars().all():
                row.change = {name: value for name, value in row.change.items() if name != "verdicts"}
        assert [each.change.verdicts for each in await transitions(service, identifier)] == [(), ()]
        assert (await replayed(service, identifier)).exact


async def test_what_cannot_be_explained_is_done_all_the_same(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ArithmeticError("no sentence today")

    monkeypatch.setattr(record_module, "findings", fails)
    async with lab(database_url) as service:
        identifier = await rolled_back(service)
        assert (await transitions(service, identifier))[-1].change.verdicts == ()
        assert (await service.row(identifier)).status == "rolled_back"
        again = await service.start()
        await service.send(again, 0.02, 0.02)
        await service.watchman.round()
        assert (await service.act(again, "roll_back", "enough")).change.to_status == "rolled_back"


async def test_a_revised_plan_leaves_the_verdicts_of_the_look_before(database_url: str) -> None:
    stages = [
        {"name": "canary", "percentage": 10, "min_duration": "10m", "min_units": 20},
        {"name": "early", "percentage": 25, "min_duration": "10m", "min_units": 20},
        {"name": "half", "percentage": 50, "min_duration": "20m", "min_units": 20},
    ]
    async with lab(database_url) as service:
        identifier = await service.start(stages=stages)
        await service.send(identifier, 0.02, 0.02)
        await service.watchman.round()
        await service.revise(identifier, stages=[stages[0], {**stages[1], "percentage": 20}, stages[2]])
        await service.act(identifier, "pause", "before anybody has looked with the wider gate")
        await service.act(identifier, "resume")
        await service.send(identifier, 0.02, 0.02)
        await service.watchman.round()
        await service.act(identifier, "pause", "after")
        found = [each.change for each in await transitions(service, identifier)]
        said = [(each.step, *(verdict.lines.gate.size for verdict in each.verdicts)) for each in found]
        assert said == [("start",), ("revise", 0.04), ("pause", 0.04), ("resume", 0.04), ("pause", 0.05)]
        assert "2.5 times the plan's margin" in found[-1].verdicts[0].sentence
        assert (await replayed(service, identifier)).exact


async def test_a_blind_source_is_in_the_verdicts_of_the_lapse(database_url: str) -> None:
    guardrails = [{"metric": "error_rate", "max_regression": {"absolute": 0.02}, "error_limit": 1}]
    async with lab(database_url) as service:
        identifier = await service.start(lease="5m", guardrails=guardrails)
        await service.send(identifier, 0.02, 0.02)
        await service.pass_time(60)
        for _ in range(8):
            await service.report("error_rate", "timed out")
            await service.pass_time(60)
        lapsed = (await transitions(service, identifier))[-1]
        assert (lapsed.change.step, lapsed.tick) == ("lapse", lapsed.change.verdicts[0].tick)
        assert lapsed.change.verdicts[0].verdict == "error"
        assert "its source could not be asked (timed out): candidate" in lapsed.change.verdicts[0].sentence
        assert (await replayed(service, identifier)).exact


async def test_what_an_observed_rollout_would_do_carries_its_verdicts(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(mode="observe")
        for _ in range(6):
            await service.send(identifier, 0.5, 0.02)
            await service.pass_time(60)
        observed = [each for each in await transitions(service, identifier) if each.change.step == "observe"]
        assert [each.change.verdicts[0].verdict for each in observed] == ["breach"]
        assert observed[0].tick == observed[0].change.verdicts[0].tick
        await service.act(identifier, "pause", "lunch")
        await service.act(identifier, "resume", "the breach was looked at")
        await service.pass_time(60)
        assert (await replayed(service, identifier)).exact
