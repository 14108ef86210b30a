"""A rollout on a real database under a clock of its own, fed through the real ingestion."""

import random
from collections.abc import Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import msgspec

from rollout.db import documents, environments, flag_states, rollouts, sources
from rollout.db.migrate import migrate
from rollout.db.rollouts import Transition
from rollout.db.session import Database
from rollout.db.tables import RolloutRow
from rollout.delivery.hub import Hub
from rollout.delivery.publish import publish_everywhere
from rollout.domain.environment import Environment
from rollout.domain.status import Around, RolloutStatus, status_of
from rollout.engine import commands, drafting
from rollout.engine.control import Control
from rollout.engine.rights import Act, Actor
from rollout.engine.watchman import Watchman
from rollout.ingest.accept import accept
from rollout_client.evaluation.evidence import ArmIncrement, Batch, BatchAnswer, MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Arm, Ruleset
from tests.core.domain.plans import World, rollout

ANN = Actor(name="ann", may_operate=True, may_approve=True)
EVE = Actor(name="eve", may_operate=True, may_approve=True)
ONCALL = Actor(name="oncall")


class Lab:
    """Everything a test does to one service."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.control = Control(database, Hub(database), now=lambda: self.now)
        self.watchman = Watchman(self.control)
        self.rng = random.Random(7)
        self._numbers: Iterator[int] = count(1)

    async def open(self) -> None:
        await migrate(self.database)
        async with self.database.write() as session:
            await environments.save(session, Environment(key="production"), self.now)
            for document in (*World.flags.values(), *World.cohorts.values(), *World.metrics.values()):
                await documents.save(session, document, None)
            await publish_everywhere(session, self.now)

    async def start(self, **plan: Any) -> str:
        """A started rollout."""
        identifier = await self.draft(**plan)
        await self.act(identifier, "start")
        return identifier

    async def draft(self, author: str = "ann", **plan: Any) -> str:
        """A rollout that nobody has started."""
        return await drafting.create(self.control, rollout(**plan), author)

    async def act(self, identifier: str, action: str, reason: str = "", actor: Actor = ANN, **rest: Any) -> Transition:
        return await commands.act(self.control, identifier, Act(action=action, reason=reason, **rest), actor)

    async def revise(self, identifier: str, reason: str = "as agreed", actor: Actor = ANN, **plan: Any) -> Transition:
        return await drafting.revise(self.control, identifier, rollout(**plan), actor, (reason, None))

    async def report(self, metric: str, error: str | None) -> None:
        """What the source of a metric says about itself."""
        async with self.database.write() as session:
            await sources.report(session, "production", metric, error, self.now)

    async def status(self, identifier: str) -> RolloutStatus:
        """What everybody sees."""
        row = await self.row(identifier)
        async with self.database.read() as session:
            killed = (await flag_states.find(session, row.flag, row.environment)).killed
        latest = (row.latest.judgement, row.latest.decision, row.judged_at) if row.latest and row.judged_at else None
        return status_of((row.id, row.revision), row.document, row.state, latest, Around(killed=killed, now=self.now))

    def served(self, environment: str = "production") -> Ruleset:
        """The newest ruleset that this process serves."""
        newest = self.control.hub.newest(environment)
        assert newest is not None
        return newest.ruleset

    async def row(self, identifier: str) -> RolloutRow:
        async with self.database.read() as session:
            row = await rollouts.find(session, identifier, evidence=True)
        assert row is not None
        return row

    async def steps(self, identifier: str) -> list[str]:
        async with self.database.read() as session:
            found = await rollouts.transitions(session, identifier)
        assert [transition.seq for transition in found] == list(range(1, len(found) + 1))
        return [transition.change.step for transition in found]

    async def pass_time(self, seconds: float, look_every: float = 60) -> None:
        """Let the clock run, looking as the engine would."""
        left = seconds
        while left > 0:
            self.now += timedelta(seconds=min(look_every, left))
            left -= look_every
            await self.watchman.round()

    async def send(self, identifier: str, candidate: float, baseline: float, n: int = 400, **rest: Any) -> BatchAnswer:
        """One batch of n requests at the present exposure, failing at the given rates."""
        row = await self.row(identifier)
        attempt = row.state.attempt
        assert attempt is not None
        in_candidate = sum(self.rng.random() < attempt.percentage / 100 for _ in range(n))
        arms: dict[Arm, ArmIncrement] = {
            "candidate": self.arm(in_candidate, candidate, **rest),
            "baseline": self.arm(n - in_candidate, baseline, **rest),
        }
        return await self.post({attempt.id: arms})

    async def post(self, attempts: dict[str, dict[Arm, ArmIncrement]], batch_id: str | None = None) -> BatchAnswer:
        batch = Batch(
            batch_id=batch_id or f"batch-{next(self._numbers)}", environment="production", process="p", client="test",
            attempts=attempts,
        )  # fmt: skip
        answer = await accept(self.database, "production", msgspec.json.encode(batch), self.now)
        return msgspec.json.decode(answer, type=BatchAnswer)

    def arm(self, n: int, rate: float, metric: str = "error_rate") -> ArmIncrement:
        cells: dict[int, list[float]] = {}
        for _ in range(n):
            numbers = cells.setdefault(self.rng.randrange(256), [0.0, 0.0])
            numbers[0] += 1
            numbers[1] += self.rng.random() < rate
        seen = {cell: int(numbers[0]) for cell, numbers in cells.items()}
        slot = SlotIncrement(
            exposures=dict(seen), first_exposures=dict(seen), started=dict(seen),
            metrics={metric: MetricIncrement(cells=cells)} if cells else {},
        )  # fmt: skip
        sketch = [(self.rng.randrange(1024), self.rng.randint(1, 6)) for _ in range(min(n, 60))]
        return ArmIncrement(sketch=sketch, slots={int(self.now.timestamp()) // 60: slot})


@asynccontextmanager
async def lab(url: str) -> Any:
    """An open lab on a fresh database, closed whatever happens."""
    database = Database(url)
    try:
        opened = Lab(database)
        await opened.open()
        yield opened
    finally:
        await database.close()
