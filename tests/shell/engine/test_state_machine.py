"""Random plans, evidence, people, clocks and crashes on the real engine: the control rules hold after every step.

The suite takes 10,000 steps, half of them on each database, the same ones every time. ROLLOUT_TEST_STEPS takes more,
and other ones each time: `ROLLOUT_TEST_STEPS=1000000 python3 dev.py test tests/shell/engine/test_state_machine.py`.
"""

import asyncio
import itertools
import os
import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import structlog
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import make_url

from rollout.db import heartbeat
from rollout.delivery import hub
from rollout.engine import watchman
from tests.shell.engine.machine.documents import ENVIRONMENTS, SEEDS
from tests.shell.engine.machine.ground import Ground, PostgresStore, SqliteStore
from tests.shell.engine.machine.machine import Machine

IN_CI = 10_000
STEPS = int(os.environ.get("ROLLOUT_TEST_STEPS", IN_CI))
STEPS_PER_EXAMPLE = 100
EXAMPLES_AT_ONCE = 10
BY_ENGINE = ("advance", "complete", "pause", "roll_back", "lapse", "regain", "calibrate")
BY_PEOPLE = ("start", "advance", "approve", "pause", "resume", "roll_back", "cancel")
HAPPENED = {
    *(f"{step} by the engine" for step in BY_ENGINE),
    *(f"{step} by a person" for step in BY_PEOPLE),
    "pause breach", "roll_back breach", "hold min_units", "hold srm",
    "hold awaiting_approval", "hold undecided", "hold baking", "Crash", "OperationalError", "Conflict", "Forbidden",
    "Invalid", "served", "killed", "lapsed", "concluded",
}  # fmt: skip
"""What 10,000 steps must have brought about: a machine in which nothing happens holds every law."""


def store_of(url: str) -> SqliteStore | PostgresStore:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        assert parsed.database is not None
        return SqliteStore(Path(parsed.database))
    return PostgresStore(psycopg.connect(url.replace("+psycopg", ""), autocommit=True))


@pytest.fixture
def machine(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Machine]]:
    """The machine on a database that is laid out once."""
    ground = Ground(database_url, store_of(database_url))
    real, failing = watchman.look, Machine.looks_fail

    async def look(*args: object) -> object:
        if failing[0] > 0:
            failing[0] -= 1
            raise RuntimeError("this look fails")
        return await real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(heartbeat, "_now_ms", ground.clock.milliseconds)
    monkeypatch.setattr(hub, "monotonic", lambda: ground.clock.monotonic)
    monkeypatch.setattr(watchman, "look", look)
    monkeypatch.setattr(Machine, "ground", ground, raising=False)
    monkeypatch.setattr(Machine, "steps_taken", 0)
    monkeypatch.setattr(Machine, "seen", Counter())
    structlog.configure(processors=[drop])
    with asyncio.Runner() as runner:
        monkeypatch.setattr(Machine, "runner", runner, raising=False)
        runner.run(ground.lay(SEEDS, ENVIRONMENTS))
        yield Machine
        runner.run(ground.close())
    ground.store.close()
    structlog.reset_defaults()


def drop(*_: object) -> object:
    """Expected failures by the thousand are not worth a line each."""
    raise structlog.DropEvent


def test_the_control_rules_hold_whatever_happens(machine: type[Machine]) -> None:
    wanted = STEPS // 2
    first = 0 if STEPS == IN_CI else secrets.randbelow(2**32)
    for number in itertools.count(first):
        if machine.steps_taken >= wanted:
            break
        run_state_machine_as_test(
            seed(number)(machine),
            settings=settings(
                max_examples=EXAMPLES_AT_ONCE,
                stateful_step_count=STEPS_PER_EXAMPLE,
                deadline=None,
                database=None,
                print_blob=True,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
    assert STEPS < IN_CI or set(machine.seen) >= HAPPENED, f"never happened: {HAPPENED - set(machine.seen)}"
