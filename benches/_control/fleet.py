"""A database on a disk with so many running rollouts, each with three guardrails and the evidence of a working day.

One rollout runs for real: what the client folds from its requests is accepted and judged minute by minute. The others
are its copies under names of their own, a hundred to an environment, and their environments are published.
"""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from rollout.db import documents, environments
from rollout.db.migrate import migrate
from rollout.db.session import Database
from rollout.delivery.hub import Hub
from rollout.delivery.publish import publish
from rollout.domain.environment import Environment
from rollout.domain.flag import Flag
from rollout.domain.metric import Metric
from rollout.domain.plan import RolloutDocument
from rollout.engine import commands
from rollout.engine.commands import Act, Actor
from rollout.engine.control import Control
from rollout.engine.watchman import Watchman, let_garbage_wait
from rollout.ingest.accept import accept
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import CompiledRuleset, compile_ruleset, evaluate
from rollout_client.evaluation.evidence import Batch
from rollout_client.evaluation.ruleset import RolloutRule
from rollout_client.fold import Folder
from rollout_client.options import Options

PER_ENVIRONMENT = 100
METRICS = (
    Metric(key="error_rate", kind="proportion", event="the call failed"),
    Metric(key="latency_ms", kind="quantile", unit="ms"),
    Metric(key="thumbs_down", kind="proportion", event="thumbs down", denominator="exposure", maturity="2m"),
)
PLAN: dict[str, Any] = {
    "stages": [
        {"name": "canary", "percentage": 10, "min_duration": "14d"},
        {"name": "half", "percentage": 50, "min_duration": "14d"},
    ],
    "guardrails": [
        {"metric": "error_rate", "max_regression": {"absolute": 0.02}},
        {"metric": "latency_ms", "focus": "p95", "max_regression": {"relative": 0.1}},
        {"metric": "thumbs_down", "max_regression": {"relative": 0.2}},
    ],
}
MINUTES, REQUESTS, USERS = 45, 100, 5_000
_PERSON = Actor(name="bench", may_operate=True)


@dataclass(frozen=True)
class Member:
    """One rollout of the fleet: its environment, its id and the id of its only attempt."""

    environment: str
    rollout: str
    attempt: str


class Fleet:
    """The running rollouts, under a clock that only the bench moves."""

    def __init__(self, database: Database) -> None:
        self.now = datetime(2026, 3, 2, 9, tzinfo=UTC)
        self.control = Control(database, Hub(database), now=lambda: self.now)
        self.watchman = Watchman(self.control)
        self.members: list[Member] = []
        self._rng = random.Random(5)
        self._batches = 0

    async def send(self, members: list[Member]) -> None:
        """One flush of an application for each environment, with fresh evidence of these members."""
        body = self._folded().decode()
        for environment in sorted({member.environment for member in members}):
            attempts = [member.attempt for member in members if member.environment == environment]
            await self._accept(environment, {attempt: msgspec.Raw(body.encode()) for attempt in attempts})

    async def first(self) -> None:
        """Open the database and let the first rollout run for its half hour."""
        control, database = self.control, self.control.database
        await migrate(database)
        async with database.write() as session:
            await environments.save(session, Environment(key=environment_of(0)), self.now)
            for number in range(PER_ENVIRONMENT):
                flag = Flag(key=flag_of(number), variants={"v7": 7, "v8": 8}, default_variant="v7")
                await documents.save(session, flag, None)
            for metric in METRICS:
                await documents.save(session, metric, None)
        named = {"flag": flag_of(0), "environment": environment_of(0), "baseline": "v7", "candidate": "v8"}
        identifier = await commands.create(control, msgspec.convert({**PLAN, **named}, RolloutDocument), "bench")
        await commands.act(control, identifier, Act(action="start"), _PERSON)
        self.members = [Member(environment_of(0), identifier, self._rule().attempt or "")]
        for _ in range(MINUTES):
            self.now += timedelta(minutes=1)
            await self.send(self.members)
            await self.watchman.round()
        for _ in range(5):  # until every minute is due
            self.now += timedelta(minutes=1)
            await self.watchman.round()

    async def publish(self) -> None:
        """Publish every environment as it is after the copies were made."""
        for environment in sorted({member.environment for member in self.members}):
            async with self.control.database.write() as session:
                await publish(session, environment, self.now)
        await self.control.hub.refresh()

    def _rule(self) -> RolloutRule:
        rule = self._compiled().ruleset.flags[flag_of(0)].rules[-1]
        assert isinstance(rule, RolloutRule)
        return rule

    def _compiled(self) -> CompiledRuleset:
        newest = self.control.hub.newest(environment_of(0))
        assert newest is not None
        return compile_ruleset(newest.ruleset)

    def _folded(self) -> bytes:
        """What one process counts in a minute, as the client folds it: both arms of the first rollout."""
        compiled, slot, rng = self._compiled(), int(self.now.timestamp()) // 60, self._rng
        folder = Folder(Options(), lambda: None)
        folder.follow(compiled)
        for _ in range(REQUESTS):
            answer = evaluate(compiled, flag_of(0), Context(f"user-{rng.randrange(USERS)}"), slot=slot)
            folder.noted.append(answer)
            folder.crowd()
            folder.start(answer)
            outcomes = {"error_rate": rng.random() < 0.02, "latency_ms": rng.lognormvariate(6.7, 0.6)}
            if rng.random() < 0.1:
                outcomes["thumbs_down"] = rng.random() < 0.3
            folder.finish(answer, outcomes, ())
        return msgspec.json.encode(folder.take(slot)[0][self.members[0].attempt])

    async def _accept(self, environment: str, attempts: dict[str, Any]) -> None:
        self._batches += 1
        named = Batch(batch_id=f"b{self._batches}", environment=environment, process="p", client="bench", attempts={})
        document = msgspec.to_builtins(named) | {"attempts": attempts}
        await accept(self.control.database, environment, msgspec.json.encode(document), self.now)


def environment_of(number: int) -> str:
    """Where the member with this number runs."""
    return f"env-{number // PER_ENVIRONMENT:03}"


def flag_of(number: int) -> str:
    """The flag it runs on; environments share their flags."""
    return f"flag-{number % PER_ENVIRONMENT:02}"


@asynccontextmanager
async def fleet(folder: Path, size: int) -> Any:
    """A fleet of so many running rollouts on SQLite, closed whatever happens."""
    let_garbage_wait()
    path = folder / f"fleet-{size}.db"
    database = Database(f"sqlite:///{path}")
    try:
        opened = Fleet(database)
        await opened.first()
        opened.members += _copied(path, opened.members[0], size)
        await opened.publish()
        yield opened
    finally:
        await database.close()


def _copied(path: Path, first: Member, size: int) -> Iterator[Member]:
    """Copies of the first member's rows under other names."""
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    [template] = connection.execute("SELECT * FROM rollouts").fetchall()
    [home] = connection.execute("SELECT * FROM environments").fetchall()
    [attempt] = connection.execute("SELECT * FROM attempts").fetchall()
    sketches = connection.execute("SELECT * FROM sketches").fetchall()
    for number in range(1, size):
        member = Member(environment_of(number), f"ro_{number:016x}", f"at_{number:016x}")
        names = (
            (first.rollout, member.rollout),
            (first.attempt, member.attempt),
            (first.environment, member.environment),
            (flag_of(0), flag_of(number)),
        )
        if number % PER_ENVIRONMENT == 0:
            _insert(connection, "environments", home, names)
        _insert(connection, "rollouts", template, names)
        _insert(connection, "attempts", attempt, names)
        for sketch in sketches:
            _insert(connection, "sketches", sketch, names)
        yield member
    connection.commit()
    connection.close()


def _insert(connection: sqlite3.Connection, table: str, row: sqlite3.Row, names: tuple[tuple[str, str], ...]) -> None:
    values = list(row)
    for old, new in names:
        values = [value.replace(old, new) if isinstance(value, str) else value for value in values]
    connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(values))})", values)
