"""Cap and thresholds frozen from the baseline: recorded once, published, measured with, and accepted in both forms."""

from typing import Any

import msgspec
import pytest

from rollout.db import increments, rollouts
from rollout.domain import transition
from rollout.domain.evidence import Evidence
from rollout.engine import look as look_module
from rollout.engine import replay as replay_module
from rollout.engine.record import Cause, record
from rollout.engine.replay import replay
from rollout.errors import Invalid
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import compile_ruleset, evaluate
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Frozen, RolloutRule, Ruleset
from rollout_client.fold import Folder
from rollout_client.options import Options
from tests.core.domain.plans import World
from tests.shell.engine.lab import Lab, lab

FROZEN = Frozen(thresholds=(200.0, 400.0))


def served(service: Lab) -> Ruleset:
    newest = service.control.hub.newest("production")
    assert newest is not None
    return newest.ruleset


def rule_of(service: Lab) -> RolloutRule:
    rule = served(service).flags["answer"].rules[-1]
    assert isinstance(rule, RolloutRule)
    return rule


@pytest.fixture
def freezing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evidence that freezes something in the look that takes in the first outcomes."""
    real = look_module.examine

    def examine(*inputs: Any, **more: Any) -> Any:
        evidence, outcome = real(*inputs, **more)
        assert isinstance(evidence, Evidence)
        if evidence.attempts:
            evidence.metrics["error_rate"].frozen = FROZEN
        return evidence, outcome

    monkeypatch.setattr(look_module, "examine", examine)
    monkeypatch.setattr(replay_module, "examine", examine)


@pytest.mark.usefixtures("freezing")
async def test_what_the_evidence_freezes_is_recorded_once_and_published(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await service.start()
        await service.watchman.round()
        before = served(service).revision
        assert rule_of(service).frozen == {}
        for _ in range(3):
            await service.send(identifier, 0.02, 0.02)
            await service.pass_time(10)
        assert await service.steps(identifier) == ["start", "calibrate"]
        rule = rule_of(service)
        assert (rule.frozen, rule.threshold) == ({"error_rate": FROZEN}, 10_000)
        assert served(service).metrics["error_rate"].thresholds == ()
        async with service.database.read() as session:
            made = (await rollouts.transitions(session, identifier))[-1]
            assert (await replay(session, identifier)).exact
        assert made.change.reason == "error_rate: thresholds frozen from the baseline"
        assert (made.change.from_percentage, made.change.to_percentage, made.tick) == (10, 10, 2)
        assert made.ruleset_revision == before + 1


@pytest.mark.usefixtures("freezing")
async def test_a_decision_of_the_same_look_follows_from_the_calibrated_state(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await service.start()
        for _ in range(5):
            await service.send(identifier, 0.9, 0.02)
        revision = (await service.row(identifier)).revision
        await service.watchman.round()
        assert await service.steps(identifier) == ["start", "calibrate", "roll_back"]
        row = await service.row(identifier)
        assert (row.state.frozen, row.revision) == ({"error_rate": FROZEN}, revision + 2)
        assert row.state.breach is not None
        async with service.database.read() as session:
            assert (await replay(session, identifier)).exact


@pytest.mark.usefixtures("freezing")
async def test_what_is_frozen_is_served_after_a_resume_too(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start()
        await service.send(identifier, 0.02, 0.02)
        await service.watchman.round()
        await service.act(identifier, "pause", "lunch")
        await service.act(identifier, "resume", "on we go")
        await service.send(identifier, 0.02, 0.02)
        await service.watchman.round()
        assert await service.steps(identifier) == ["start", "calibrate", "pause", "resume"]
        assert rule_of(service).frozen == {"error_rate": FROZEN}


async def calibrated(service: Lab) -> tuple[str, str]:
    """A rollout that also takes latencies, and has frozen the thresholds of them; (id, attempt)."""
    identifier = await service.start()
    async with service.database.write() as session:
        row = await rollouts.find(session, identifier, lock=True)
        assert row is not None
        assert row.state.attempt is not None
        row.metrics = {**row.metrics, "latency_ms": World.metrics["latency_ms"]}
        state = transition.calibrate(row.state, {"latency_ms": FROZEN})
        await record(session, row, state, Cause(step="calibrate", reason="frozen", actor="engine", at=service.now))
    await service.control.hub.refresh()
    return identifier, row.state.attempt.id


def latencies(cells: dict[int, list[float]], histogram: dict[int, int]) -> Any:
    slot = SlotIncrement(metrics={"latency_ms": MetricIncrement(cells=cells, histogram=histogram)})
    return {"baseline": ArmIncrement(slots={29_500_000: slot})}


async def test_a_client_measures_with_what_is_published_and_its_long_cells_are_accepted(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier, attempt = await calibrated(service)
        wire = msgspec.json.decode(msgspec.json.encode(served(service)), type=Ruleset)
        compiled = compile_ruleset(wire)
        folder = Folder(Options(), lambda: None)
        folder.follow(compiled)
        minute = int(service.now.timestamp()) // 60
        for number, value in enumerate((100, 200, 300, 500)):
            answer = evaluate(compiled, "answer", Context(f"user-{number}"), slot=minute)
            folder.noted.append(answer)
            folder.finish(answer, {"latency_ms": value}, ())
        [attempts] = folder.take(minute)
        found = [slot.metrics["latency_ms"] for arm in attempts[attempt].values() for slot in arm.slots.values()]
        cells = [numbers for one in found for numbers in one.cells.values()]
        assert [sum(each) for each in zip(*cells, strict=True)] == [4, 4, 3, 1]
        await service.post(attempts)
        assert (await service.row(identifier)).accepted == 1


async def test_short_cells_are_still_accepted_and_merge_with_long_ones(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier, attempt = await calibrated(service)
        await service.post({attempt: latencies({7: [2]}, {425: 2})})
        await service.post({attempt: latencies({7: [3, 3, 2, 1]}, {425: 3})})
        await service.watchman.round()
        row = await service.row(identifier)
        assert (row.accepted, row.judged) == (2, 2)
        async with service.database.read() as session:
            taken = await increments.of_tick(session, identifier, row.tick)
            assert (await replay(session, identifier)).exact
        metric = taken[attempt]["baseline"].slots[29_500_000].metrics["latency_ms"]
        assert (metric.cells, metric.histogram) == ({7: [5, 3, 2, 1]}, {425: 5})


async def test_a_long_cell_that_cannot_be_is_refused_with_its_path(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier, attempt = await calibrated(service)
        with pytest.raises(Invalid) as refused:
            await service.post({attempt: latencies({7: [3, 3, 1, 2]}, {425: 3})})
        assert refused.value.path == f"attempts.{attempt}.baseline.slots.29500000.metrics.latency_ms.cells.7"
        assert (await service.row(identifier)).accepted == 0
