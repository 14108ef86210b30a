"""Running the machine on a database: for the suite, for long runs, and for `faults`."""

import asyncio
import gc
import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import make_url

from rollout.db import heartbeat
from rollout.delivery import hub
from rollout.engine import watchman
from tests.shell.engine.machine.documents import ENVIRONMENTS, SEEDS
from tests.shell.engine.machine.episodes import Episodes
from tests.shell.engine.machine.ground import Ground, PostgresStore, SqliteStore

STEPS_PER_EXAMPLE = 100
EXAMPLES_AT_ONCE = 10
_AS_FOUND = (Phase.explicit, Phase.generate)


def store_of(url: str) -> SqliteStore | PostgresStore:
    """The store behind a database's address."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        assert parsed.database is not None
        return SqliteStore(Path(parsed.database))
    return PostgresStore(psycopg.connect(url.replace("+psycopg", ""), autocommit=True))


@contextmanager
def machine_on(database_url: str, patch: pytest.MonkeyPatch) -> Iterator[type[Episodes]]:
    """The machine on a database that is laid out once; `patch` is undone by whoever gave it."""
    ground = Ground(database_url, store_of(database_url))
    real, failing = watchman.look, Episodes.looks_fail

    async def look(*args: object) -> object:
        if failing[0] > 0:
            failing[0] -= 1
            raise RuntimeError("this look fails")
        return await real(*args)  # type: ignore[arg-type]  # whatever a look is called with

    patch.setattr(heartbeat, "_own_ms", ground.clock.milliseconds)
    patch.setattr(heartbeat, "_now_ms", ground.clock.now_ms)
    patch.setattr(hub, "monotonic", lambda: ground.clock.monotonic)
    patch.setattr(watchman, "look", look)
    patch.setattr(Episodes, "ground", ground, raising=False)
    patch.setattr(Episodes, "steps_taken", 0)
    patch.setattr(Episodes, "seen", Counter())
    structlog.configure(processors=[_drop])
    thresholds = gc.get_threshold()
    watchman.let_garbage_wait()
    with asyncio.Runner() as runner:
        patch.setattr(Episodes, "runner", runner, raising=False)
        runner.run(ground.lay(SEEDS, ENVIRONMENTS))
        yield Episodes
        runner.run(ground.close())
    ground.store.close()
    gc.set_threshold(*thresholds)
    structlog.reset_defaults()


def walk(machine: type[Episodes], steps: int, first: int, *, shrink: bool = False) -> None:
    """Take so many steps, in the order that the number `first` stands for; the first broken law is raised.

    What is found is told as it was found: to `shrink` it to fewer steps takes minutes.
    """
    phases = (*_AS_FOUND, Phase.shrink) if shrink else _AS_FOUND
    for number in itertools.count(first):
        if machine.steps_taken >= steps:
            return
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
                phases=phases,
            ),
        )


def _drop(*_: object) -> object:
    """Expected failures by the thousand are not worth a line each."""
    raise structlog.DropEvent
