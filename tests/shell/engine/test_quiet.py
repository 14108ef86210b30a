"""Passing over what is quiet changes nothing but the work: the same looks are recorded, at the same moments.

ROLLOUT_TEST_WALKS takes more walks than the suite does.
"""

import contextlib
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from sqlalchemy import update

from rollout.db import flag_states, rollouts
from rollout.db.tables import RolloutRow
from rollout.domain.flag import FlagState
from rollout.domain.rollout import ENDED
from rollout.engine import switch
from rollout.engine import watchman as watchman_module
from rollout.engine.replay import replay
from rollout.engine.watchman import Watchman
from rollout.errors import RolloutError
from tests.shell.engine.lab import ANN, Lab, lab

SLOW = [
    {"metric": "slow_errors", "max_regression": {"absolute": 0.02}, "on_missing": "pause"},
    {"metric": "error_rate", "max_regression": {"absolute": 0.02}, "on_missing": "roll_back"},
]
PLANS: list[dict[str, Any]] = [
    {},
    {"lease": "3m", "guardrails": SLOW},
    {
        "bake": {"duration": "10m", "holdback": 5},
        "lease": "2m",
        "stages": [{"name": "half", "percentage": 50, "min_duration": "1m", "max_duration": "7m"}],
        "on_undecided": "advance",
        "guardrails": [{"metric": "error_rate", "max_regression": {"absolute": 0.2}}],
    },
    {
        "guardrails": [],
        "signals": [{"metric": "thumbs_down", "max_regression": {"absolute": 0.02}}],
        "stages": [{"name": "a", "percentage": 5, "max_duration": "19m"}, {"name": "b", "percentage": 100}],
        "on_undecided": "roll_back",
    },
]
SEEDS = int(os.environ.get("ROLLOUT_TEST_WALKS", "8"))
EVERY = [0.3, 1, 5, 7, 31, 60.5]


class Counted(Watchman):
    """A watchman that counts its looks, and passes over nothing unless it may."""

    def __init__(self, service: Lab, *, passes_over: bool) -> None:
        super().__init__(service.control)
        self._service, self._passes_over = service, passes_over

    async def round(self) -> int:
        if not self._passes_over:
            async with self._service.database.write() as session:
                await session.execute(update(RolloutRow).values(quiet_until=None))
        return await super().round()


@asynccontextmanager
async def walker(url: str, *, passes_over: bool) -> AsyncIterator[Lab]:
    """A lab in which everything is named in the order in which it was made."""
    async with lab(url) as service:
        numbers = count(1)
        service.control = replace(service.control, new_id=lambda prefix: f"{prefix}_{next(numbers):04}")
        service.watchman = Counted(service, passes_over=passes_over)
        yield service


async def walk(service: Lab, seed: int) -> None:
    """A random walk that is the same for every service."""
    rng, service.rng = random.Random(seed), random.Random(seed)
    plan = PLANS[seed % len(PLANS)]
    metric = [*plan.get("guardrails", [{"metric": "error_rate"}]), *plan.get("signals", [])][0]["metric"]
    identifier = await service.start(**plan)
    for _ in range(20):
        kind = rng.choice(["time", "time", "time", "send", "send", "send", "act", "kill"])
        if kind == "time":
            await service.pass_time(rng.choice([20, 200, 900]), look_every=rng.choice(EVERY[2:]))
        elif kind == "send" and (await service.row(identifier)).state.attempt is not None:
            rates = rng.choice([0.0, 0.02, 0.1]), 0.02
            await service.send(identifier, *rates, n=rng.choice([0, 60, 400]), metric=metric)
            await service.pass_time(rng.choice([1, 30]), look_every=rng.choice(EVERY))
        elif kind == "act":
            with contextlib.suppress(RolloutError):
                await service.act(identifier, rng.choice(["pause", "resume", "advance", "approve"]), "a random act")
        elif kind == "kill":
            await switch.kill(service.control, "answer", "production", ANN.name, "drill")
            await service.pass_time(20, look_every=rng.choice(EVERY[2:]))
            await switch.restore(service.control, "answer", "production", ANN.name, "drill")
            await service.pass_time(rng.choice([1, 60]), look_every=7)
            with contextlib.suppress(RolloutError):  # it may have ended meanwhile
                await service.act(identifier, "resume", "the drill is over")
        if (await service.row(identifier)).status in ENDED:
            return


async def told(service: Lab) -> tuple[list[Any], list[Any], Any]:
    """Every transition, every recorded look, and where the rollout stands."""
    async with service.database.read() as session:
        [row] = await rollouts.page(session, environment=None, flag=None, status=None)
        changes = [(each.seq, each.change, each.tick) for each in await rollouts.transitions(session, row.id)]
        looks = [(each.tick, each.at, each.digest, each.inputs) for each in await rollouts.evaluations(session, row.id)]
        assert (await replay(session, row.id)).exact
    return changes, looks, (row.state, row.accepted, row.judged)


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_walk_with_quiet_ones_passed_over_is_the_walk_with_a_full_look_each_time(
    sqlite_url: str, tmp_path: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    real = watchman_module.look

    async def counted(*inputs: Any) -> Any:
        nonlocal looks
        looks += 1
        return await real(*inputs)

    monkeypatch.setattr(watchman_module, "look", counted)
    async with walker(sqlite_url, passes_over=True) as service:
        await walk(service, seed)
        found, few, looks = await told(service), looks, 0
    async with walker(f"sqlite:///{tmp_path}/full.db", passes_over=False) as service:
        await walk(service, seed)
        assert await told(service) == found
    assert few < looks / 2


async def test_a_quiet_rollout_is_vouched_for_and_looked_at_again_as_soon_as_something_comes(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lab(database_url) as service:
        identifier = await service.start(lease="5m")
        await service.watchman.round()
        with monkeypatch.context() as broken:

            async def looked(*_: Any) -> Any:
                raise AssertionError("it was quiet")

            broken.setattr(watchman_module, "look", looked)
            await service.pass_time(40, look_every=10)
        row = await service.row(identifier)
        assert row.protected_at == service.now
        assert row.quiet_until == service.now + timedelta(seconds=20), "a minute after the start outcomes could be due"
        for _ in range(5):
            await service.send(identifier, 0.9, 0.02)
        await service.watchman.round()
        assert await service.steps(identifier) == ["start", "roll_back"]


async def test_a_kill_whose_pause_failed_ends_the_quiet(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier = await service.start()
        await service.watchman.round()
        async with service.database.write() as session:
            killed = FlagState(killed_at=service.now, killed_by="ann", kill_reason="it burns")
            await flag_states.kill(session, "answer", "production", killed)
        await service.pass_time(5, look_every=5)
        assert await service.steps(identifier) == ["start", "pause"]


@pytest.mark.parametrize("action", ["pause", "advance"])
async def test_an_act_ends_the_quiet(database_url: str, action: str) -> None:
    async with lab(database_url) as service:
        identifier = await service.start()
        await service.watchman.round()
        assert (await service.row(identifier)).quiet_until is not None
        await service.act(identifier, action, "by hand")
        row = await service.row(identifier)
        assert (row.quiet_until, row.next_check_at) == (None, service.now)


async def test_a_quiet_rollout_whose_row_is_held_is_not_passed_over(postgres_url: str) -> None:
    async with lab(postgres_url) as service:
        identifier = await service.start()
        await service.watchman.round()
        before = (await service.row(identifier)).protected_at
        service.now += timedelta(seconds=10)
        async with service.database.write() as session:
            await rollouts.find(session, identifier, lock=True)
            assert await service.watchman.round() == 0
        assert (await service.row(identifier)).protected_at == before
        assert await service.watchman.round() == 1
        assert (await service.row(identifier)).protected_at == service.now
