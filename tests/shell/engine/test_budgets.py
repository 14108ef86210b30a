"""Budgets: what the candidate may spend in a day and in a stage, whatever the baseline spends."""

from typing import Any

import pytest

from rollout.db import documents
from rollout.domain.metric import Metric
from rollout.errors import Conflict, Invalid
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from rollout_client.evaluation.histogram import log_bucket
from tests.core.domain.plans import World
from tests.shell.engine.lab import Lab, lab

WIDE = {"stages": [{"name": "half", "percentage": 50, "min_duration": "1m", "min_units": 0, "max_duration": "30d"}]}


def guardrail(**budget: float) -> dict[str, Any]:
    """Failures that are counted, and a test that never decides anything."""
    return {
        "guardrails": [
            {
                "metric": "error_rate", "max_regression": {"absolute": 0.9}, "on_breach": "pause", "budget": budget,
            }
        ],
        "analysis": {"alpha_advance": 0.000001},
    }  # fmt: skip


async def failures(service: Lab, identifier: str, n: int) -> None:
    """So many failures of the candidate, and as many of the baseline."""
    attempt = (await service.row(identifier)).state.attempts[-1].id
    await service.post({attempt: {"candidate": service.arm(n, 1.0), "baseline": service.arm(n, 1.0)}})
    await service.pass_time(1)


async def test_a_spent_day_takes_the_exposure_away_until_a_person_gives_it_back(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**WIDE, **guardrail(per_day=100))
        await failures(service, identifier, 100)
        assert (await service.row(identifier)).status == "running", "a budget may be used up"
        await failures(service, identifier, 1)
        status = await service.status(identifier)
        assert (status.status, status.percentage) == ("paused", 0)
        assert "101 spent today of a budget of 100 per day" in status.held[0].message
        assert status.breach is None, "nothing was proven"
        with pytest.raises(Conflict, match="101 spent today of a budget of 100 per day, and the next look would"):
            await service.act(identifier, "resume")
        await service.act(identifier, "waive", "the launch is worth it", metric="error_rate", expires="6h")
        await service.act(identifier, "resume")
        await failures(service, identifier, 50)
        assert (await service.row(identifier)).status == "running"


async def test_the_next_day_has_a_budget_of_its_own(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**WIDE, **guardrail(per_day=100))
        await failures(service, identifier, 90)
        await service.pass_time(86_400, look_every=7200)
        await failures(service, identifier, 90)
        assert "pause" not in await service.steps(identifier)


async def test_a_stage_may_do_so_much_harm_and_no_more(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        plan = guardrail(per_stage=150)
        plan["guardrails"][0]["on_breach"] = "roll_back"
        identifier = await service.start(**WIDE, **plan)
        await failures(service, identifier, 100)
        await service.pass_time(86_400, look_every=7200)
        await failures(service, identifier, 51)
        row = await service.row(identifier)
        assert (row.status, row.state.breach) == ("rolled_back", None)


@pytest.mark.parametrize(
    ("metric", "budget", "path"),
    [
        ("error_rate", {"per_day": 0}, "guardrails[0].budget.per_day"),
        ("error_rate", {}, "guardrails[0].budget"),
        ("error_rate", {"per_request": 1}, "guardrails[0].budget.per_request"),
        ("quality", {"per_day": 5}, "guardrails[0].budget"),
        ("latency_ms", {"per_day": 5}, "guardrails[0].budget"),
    ],
)
async def test_a_budget_of_what_cannot_be_spent_is_refused(
    sqlite_url: str, metric: str, budget: dict[str, float], path: str
) -> None:
    focus = {"focus": "p95"} if World.metrics[metric].kind == "quantile" else {}
    wrong = {"metric": metric, "max_regression": {"relative": 0.1}, "budget": budget, **focus}
    async with lab(sqlite_url) as service:
        with pytest.raises(Invalid) as refused:
            await service.draft(guardrails=[wrong])
    assert path in [each[0] for each in refused.value.problems]


async def costs(service: Lab, identifier: str, n: int, each: float) -> None:
    """So many requests of both arms that cost so much each."""
    attempt = (await service.row(identifier)).state.attempts[-1].id
    cost = MetricIncrement(cells={1: [n, n * each, n * each * each]}, histogram={log_bucket(each): n})
    slot = SlotIncrement(exposures={1: n}, first_exposures={1: n}, started={1: n}, metrics={"cost_usd": cost})
    arm = ArmIncrement(slots={int(service.now.timestamp()) // 60: slot})
    await service.post({attempt: {"candidate": arm, "baseline": arm}})
    await service.pass_time(1)


async def test_a_level_that_was_too_high_is_measured_anew_after_a_resume(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        async with service.database.write() as session:
            await documents.save(session, Metric(key="cost_usd", kind="mean", unit="USD"), None)
        budget = {"metric": "cost_usd", "max_regression": {"relative": 9}, "on_breach": "pause"}
        identifier = await service.start(**WIDE, guardrails=[{**budget, "budget": {"per_request": 0.01}}])
        await costs(service, identifier, 1000, 0.05)
        assert (await service.row(identifier)).state.withheld
        await service.act(identifier, "resume", "the cache is warm again")
        for _ in range(3):
            await service.pass_time(1)
        assert (await service.row(identifier)).status == "running", "nothing has been spent since"
        await costs(service, identifier, 1000, 0.005)
        assert (await service.row(identifier)).status == "running"
        await costs(service, identifier, 1000, 0.05)
        assert (await service.row(identifier)).status == "paused"


async def test_a_new_day_is_seen_at_midnight_although_nothing_comes(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier = await service.start(**WIDE, **guardrail(per_day=100), mode="observe")
        await service.pass_time(12 * 3600 - 120, look_every=3600)
        await failures(service, identifier, 101)
        await service.pass_time(110, look_every=5)
        latest = (await service.row(identifier)).latest
        assert latest is not None
        assert latest.decision.reasons[0].code == "budget"
        await service.pass_time(15, look_every=5)
        latest = (await service.row(identifier)).latest
        assert latest is not None
        assert latest.decision.reasons[0].code != "budget"


async def test_what_was_accepted_before_a_resume_and_not_judged_is_spent_all_the_same(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        strict = {"metric": "error_rate", "max_regression": {"absolute": 0.02}, "on_breach": "pause"}
        identifier = await service.start(**WIDE, guardrails=[{**strict, "budget": {"per_day": 1000}}])
        while (await service.row(identifier)).status == "running":
            await service.send(identifier, 0.5, 0.02, n=200)
            await service.pass_time(1)
        attempt = (await service.row(identifier)).state.attempts[-1].id
        await service.post({attempt: {"candidate": service.arm(1001, 1.0), "baseline": service.arm(1001, 1.0)}})
        await service.act(identifier, "resume", "mended")
        assert (await service.row(identifier)).state.epoch == 2, "the evidence begins afresh"
        await service.pass_time(1)
        row = await service.row(identifier)
        assert row.status == "paused"
        assert row.state.paused_reason is not None
        assert "spent today of a budget of 1000 per day" in row.state.paused_reason
