"""A backtest under the very same plan decides as it was recorded; under another one, as that plan says."""

import random
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from rollout.db import rollouts
from rollout.db.tables import RolloutRow
from rollout.domain.backtest import Backtest, backtest_problems
from rollout.domain.plan import Analysis, PlanBody
from rollout.domain.rollout import ENDED
from rollout.engine.backtest import head, lines, run
from rollout.errors import Conflict
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Arm, RulesetMetric
from rollout_client.increments import add, measure
from tests.core.domain.plans import World, rollout
from tests.shell.engine.lab import EVE, Lab, lab
from tests.shell.engine.walks import PLANS, SEEDS, step

PAUSING = [{"metric": "error_rate", "max_regression": {"absolute": 0.02}, "on_breach": "pause"}]


async def backtested(service: Lab, identifier: str, plan: PlanBody | None = None) -> Backtest:
    row = await service.row(identifier)
    begin = await head(service.database, row, plan or row.document)
    return run([line async for line in lines(service.database, begin)])


async def decisions(service: Lab, identifier: str) -> list[tuple[Any, ...]]:
    """What the engine decided by itself, from the transitions."""
    async with service.database.read() as session:
        made = await rollouts.transitions(session, identifier)
    return [
        (each.tick, each.change.at, each.change.step, each.change.reason)
        for each in made
        if each.tick is not None and each.change.step != "calibrate"
    ]


def of(found: Any) -> list[tuple[Any, ...]]:
    return [(each.tick, each.at, each.step, each.reason) for each in found.decisions]


async def drive(service: Lab, identifier: str, candidate: float, batches: int = 60, n: int = 400) -> None:
    """Batch after batch until the rollout ends."""
    for _ in range(batches):
        await service.send(identifier, candidate, 0.02, n=n)
        await service.pass_time(60)
        if (await service.row(identifier)).status in ("completed", "rolled_back"):
            return


async def test_the_same_plan_rolls_back_at_the_same_look_for_the_same_reason(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await service.start()
        while (await service.row(identifier)).state.stage == 0:
            await drive(service, identifier, 0.02, batches=1)
        await drive(service, identifier, 0.12)
        found = await backtested(service, identifier)
        recorded = await decisions(service, identifier)
        assert [step for _, _, step, _ in recorded] == ["advance", "roll_back"]
        assert of(found.backtest) == of(found.recorded) == recorded
        assert found.backtest == found.recorded
        assert found.backtest.ended == "rolled_back"
        assert [each.percentage for each in found.backtest.decisions] == [50, 0]
        assert found.backtest.decisions[0].requests < found.backtest.requests


async def test_the_same_plan_completes_through_its_bake_at_the_same_looks(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await service.start(bake={"duration": "15m", "holdback": 5})
        await drive(service, identifier, 0.015)
        found = await backtested(service, identifier)
        recorded = await decisions(service, identifier)
        assert [step for _, _, step, _ in recorded] == ["advance", "advance", "complete"]
        assert of(found.backtest) == recorded
        assert found.backtest == found.recorded
        assert found.unknown == (
            "the sample ratio is left out: the shares of the arms are those of the recorded stages",
        )


async def test_the_same_plan_pauses_and_goes_on_when_people_let_it(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(guardrails=PAUSING)
        await service.pass_time(120)
        await service.act(identifier, "pause", "lunch")
        await service.pass_time(600)
        await service.act(identifier, "resume")
        await drive(service, identifier, 0.5, batches=5)
        await service.act(identifier, "resume", "the upstream is repaired")
        await service.watchman.round()
        await drive(service, identifier, 0.02)
        found = await backtested(service, identifier)
        recorded = await decisions(service, identifier)
        assert [step for _, _, step, _ in recorded] == ["pause", "advance", "complete"]
        assert of(found.backtest) == recorded
        assert found.backtest.ended == "completed"


async def test_the_same_plan_lapses_with_its_source_and_comes_back_with_it(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(lease="3m")
        await drive(service, identifier, 0.02, batches=5)
        for _ in range(9):
            await service.report("error_rate", "timed out")
            await service.pass_time(60)
        await service.report("error_rate", None)
        await service.pass_time(60)
        await drive(service, identifier, 0.02)
        found = await backtested(service, identifier)
        recorded = await decisions(service, identifier)
        assert [step for _, _, step, _ in recorded] == ["lapse", "advance", "complete"]
        assert of(found.backtest) == recorded
        assert found.backtest == found.recorded
        free = msgspec.structs.replace((await service.row(identifier)).document, lease="none")
        found = await backtested(service, identifier, free)
        assert "lapse" not in [each.step for each in found.backtest.decisions]


async def test_the_same_plan_starts_is_approved_and_is_waived_as_people_said(sqlite_url: str) -> None:
    approval = {"role": "approver", "expires": "10m"}
    stages = [
        {"name": "canary", "percentage": 10, "min_duration": "20m", "min_units": 20, "approval": approval},
        {"name": "half", "percentage": 50, "min_duration": "20m", "min_units": 20},
    ]
    async with lab(sqlite_url) as service:
        at = (service.now + timedelta(minutes=5)).isoformat()
        identifier = await service.draft(start_at=at, start_approval="required", stages=stages)
        await service.act(identifier, "start")
        await service.act(identifier, "approve", actor=EVE)
        await service.pass_time(360)
        await service.act(identifier, "approve", actor=EVE)
        await service.act(identifier, "waive", "known", metric="error_rate", expires="24h")
        await drive(service, identifier, 0.03, batches=30)
        assert (await service.row(identifier)).state.stage == 0, "the approval has expired"
        await service.act(identifier, "approve", actor=EVE)
        await drive(service, identifier, 0.03, batches=40)
        found = await backtested(service, identifier)
        recorded = await decisions(service, identifier)
        assert [step for _, _, step, _ in recorded][:1] == ["advance"]
        assert of(found.backtest) == recorded
        assert found.backtest == found.recorded
        assert not [said for said in found.unknown if "is left out" in said and "sample ratio" not in said]


async def test_the_same_observed_plan_would_have_done_the_same_and_an_enforced_one_does_it(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(mode="observe")
        await drive(service, identifier, 0.02, batches=30)
        await drive(service, identifier, 0.3, batches=30)
        found = await backtested(service, identifier)
        recorded = await decisions(service, identifier)
        assert {step for _, _, step, _ in recorded} == {"observe"}
        assert of(found.backtest) == recorded
        assert found.backtest == found.recorded
        enforced = msgspec.structs.replace((await service.row(identifier)).document, mode="enforce")
        found = await backtested(service, identifier, enforced)
        assert found.backtest.ended == "rolled_back"


async def test_units_of_another_epoch_open_no_gate_of_the_same_plan(sqlite_url: str) -> None:
    def wanting(units: int) -> dict[str, Any]:
        stage = {"name": "half", "percentage": 50, "min_duration": "1m", "min_units": units}
        return {"guardrails": PAUSING, "stages": [stage]}

    async with lab(sqlite_url) as service:
        identifier = await service.start(**wanting(100_000))
        await drive(service, identifier, 0.02, batches=8)
        while (await service.row(identifier)).status == "running":
            await drive(service, identifier, 0.9, batches=1)
        latest = (await service.row(identifier)).latest
        assert latest is not None
        await service.act(identifier, "resume", "the upstream is repaired")
        await service.watchman.round()
        await service.revise(identifier, **wanting(latest.judgement.units - 5))
        await drive(service, identifier, 0.0)
        found = await backtested(service, identifier)
        assert of(found.backtest)[-1] == (await decisions(service, identifier))[-1]
        assert found.backtest.ended == "completed"


async def test_late_outcomes_and_frozen_thresholds_change_nothing_under_the_same_plan(sqlite_url: str) -> None:
    watched = [
        {"metric": "thumbs_down", "max_regression": {"absolute": 0.15}},
        {"metric": "latency_ms", "focus": "p95", "max_regression": {"relative": 0.5}},
    ]
    async with lab(sqlite_url) as service:
        identifier = await service.start(guardrails=watched, lease="none")
        for number in range(80):
            row = await service.row(identifier)
            if row.status != "running":
                break
            both = row.state.attempts[-2:] if number % 3 else row.state.attempts[-1:]
            await service.post(
                {each.id: slow(service, row, each.percentage, "thumbs_down", "latency_ms") for each in both}
            )
            await service.pass_time(60)
        found = await backtested(service, identifier)
        recorded = await decisions(service, identifier)
        assert [step for _, _, step, _ in recorded] == ["advance", "complete"]
        assert (await service.row(identifier)).state.frozen.keys() == {"latency_ms"}
        assert of(found.backtest) == recorded


async def test_another_margin_another_alpha_and_another_time_decide_otherwise(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start()
        await drive(service, identifier, 0.04)
        recorded = (await backtested(service, identifier)).recorded
        strict = [{"metric": "error_rate", "max_regression": {"absolute": 0.002}}]
        found = await backtested(service, identifier, rollout(guardrails=strict))
        assert found.backtest.ended == "rolled_back"
        assert found.backtest.decisions[-1].reason.startswith("error_rate breach: candidate ")
        assert found.recorded == recorded
        slack = [{"metric": "error_rate", "max_regression": {"absolute": 0.2}}]
        quick = [{"name": "all at once", "percentage": 50, "min_duration": "2m", "min_units": 0}]
        found = await backtested(service, identifier, rollout(guardrails=slack, stages=quick))
        assert (found.backtest.ended, len(found.backtest.decisions)) == ("completed", 1)
        assert found.backtest.requests < recorded.requests
        assert found.unknown[1].endswith(
            "(50 % instead of 10 % at the widest): evidence that more exposure would have brought is not in the log"
        )
        patient = msgspec.structs.replace(
            rollout(), analysis=Analysis(alpha_rollback=1e-9, alpha_advance=1e-9), guardrails=rollout().guardrails
        )
        found = await backtested(service, identifier, patient)
        assert (found.backtest.ended, found.backtest.decisions) == ("running", ())
        assert found.unknown[-1].startswith("the log ends at 2026-03-01 ")


async def test_another_focus_does_not_read_cells_that_were_counted_by_other_thresholds(sqlite_url: str) -> None:
    watched = [{"metric": "latency_ms", "focus": "p95", "max_regression": {"relative": 0.5}}]
    async with lab(sqlite_url) as service:
        identifier = await service.start(guardrails=watched, lease="none")
        for _ in range(60):
            row = await service.row(identifier)
            if row.status != "running":
                break
            each = row.state.attempts[-1]
            await service.post({each.id: slow(service, row, each.percentage, "latency_ms")})
            await service.pass_time(60)
        other = rollout(guardrails=[{**watched[0], "focus": "p80"}], lease="none")
        found = await backtested(service, identifier, other)
        assert found.recorded.ended == "completed"
        assert [each.step for each in found.backtest.decisions][:1] == ["advance"]


def slow(service: Lab, row: RolloutRow, percentage: float, *metrics: str) -> dict[Arm, ArmIncrement]:
    """Outcomes of both arms in the present minute, counted by what is frozen as a client does."""
    served = RulesetMetric(kind="quantile").measured(row.state.frozen.get("latency_ms"))
    arms: dict[Arm, ArmIncrement] = {}
    for arm, n in (("candidate", round(4 * percentage)), ("baseline", round(400 - 4 * percentage))):
        minute = SlotIncrement()
        for _ in range(n):
            cell = service.rng.randrange(256)
            for counts in (minute.exposures, minute.first_exposures, minute.started):
                counts[cell] = counts.get(cell, 0) + 1
            measured = {
                "latency_ms": measure(served, service.rng.lognormvariate(6, 0.5)),
                "thumbs_down": measure(RulesetMetric(kind="proportion"), service.rng.random() < 0.05),
            }
            for metric in metrics:
                add(minute.metrics.setdefault(metric, MetricIncrement()), cell, *measured[metric])
        sketch = [(service.rng.randrange(1024), service.rng.randint(1, 6)) for _ in range(n)]
        arms[arm] = ArmIncrement(sketch=sketch, slots={int(service.now.timestamp()) // 60: minute})
    return arms


async def test_metrics_that_were_not_watched_are_refused_with_their_paths() -> None:
    other = rollout(
        guardrails=[{"metric": name, "max_regression": {"absolute": 0.1}} for name in ("error_rate", "quality")],
        signals=[{"metric": "cost", "max_regression": {"relative": 0.1}}],
    )
    found = backtest_problems(other, {"error_rate": World.metrics["error_rate"]})
    assert [problem.path for problem in found] == ["guardrails[1].metric", "signals[0].metric"]
    assert found[0].message == "the log has no evidence on 'quality'; it has some on: error_rate"


async def test_a_rollout_without_looks_is_refused(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start()
        with pytest.raises(Conflict, match="nothing is recorded yet"):
            await backtested(service, identifier)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_whatever_happened_the_same_plan_decides_the_same(
    sqlite_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acts, kills, failing looks and clock jumps by chance; the sample ratio, which is left out, holds nobody."""
    rng = random.Random(seed)
    async with lab(sqlite_url) as service:
        service.rng = random.Random(seed)
        identifier = await service.start(**{**PLANS[seed % len(PLANS)], "analysis": {"alpha_srm": 1e-300}})
        for _ in range(25):
            await step(service, identifier, rng, monkeypatch)
            if (await service.row(identifier)).status in ENDED:
                break
        if (await service.row(identifier)).tick:
            found = await backtested(service, identifier)
            assert of(found.backtest) == of(found.recorded) == await decisions(service, identifier)
