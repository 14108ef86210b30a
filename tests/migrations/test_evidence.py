"""Evidence that an older version stored is read after the migration as the same evidence, and can go back."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import msgspec
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from rollout.db.migrate import configuration, migrate
from rollout.db.session import Database
from rollout.domain.cells import NO_CELLS, Cells
from rollout.domain.evidence import Evidence
from rollout.engine.replay import replay
from tests.core.domain.observed import KINDS, attempt, calibrated, mine, seen, watched
from tests.shell.engine.lab import Lab

ARM = {"cells": {"3": [10, 2], "255": [4, 1]}, "squares": [3.0], "totals": [14, 3]}
LONG = {"cells": {"1": [4, 2], "2": [6, 3, 9]}, "totals": [10]}
NOBODY: dict[str, Any] = {"candidate": {}, "baseline": {}}
BEFORE = {
    "epoch": 1,
    "metrics": {
        "errors": {
            "cells": {"at_1": {"candidate": ARM, "baseline": {"totals": [0, 0]}}},
            "carried": {"at_1": {"baseline": LONG}},
            "past": {"candidate": {"cells": {"7": [5, -120]}, "independent": [1.5], "part": [1.5]}},
        }
    },
    "samples": {
        "0": {"share": 0.1, "counts": {"candidate": 3, "baseline": 9}, "effect": 8.0, "cells": NOBODY},
        "1": {
            "share": 0.1,
            "counts": {"candidate": 3, "baseline": 9},
            "effect": 1.0,
            "cells": {**NOBODY, "candidate": {"8": 3}},
        },
    },
}


async def stored(database: Database) -> Any:
    async with database.read() as session:
        return (await session.execute(text("SELECT evidence FROM rollouts"))).scalar_one()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Lab]:
    database = Database(url)
    lab = Lab(database)
    try:
        await lab.open()
        yield lab
    finally:
        await database.close()


async def migrated(lab: Lab, step: Callable[[Config, str], None], to: str) -> None:
    async with lab.database.engine.begin() as connection:
        await connection.run_sync(lambda sync: step(configuration(sync), to))


async def test_what_an_older_version_stored_is_read_as_the_same_evidence(database_url: str) -> None:
    async with opened(database_url) as lab:
        await lab.draft()
        await migrated(lab, command.downgrade, "0004")
        async with lab.database.write() as session:
            await session.execute(text("UPDATE rollouts SET evidence = :body"), {"body": json.dumps(BEFORE)})
        await migrate(lab.database)
        evidence = msgspec.json.decode(await stored(lab.database), type=Evidence)
        mine = evidence.metrics["errors"]
        assert mine.cells["at_1"].candidate.cells == Cells.of({3: [10, 2], 255: [4, 1]})
        assert mine.cells["at_1"].candidate.totals == [14, 3]
        assert mine.cells["at_1"].baseline.cells is NO_CELLS
        assert mine.carried["at_1"].baseline.cells == Cells.of({1: [4, 2, 0], 2: [6, 3, 9]})
        assert mine.past["candidate"].cells == Cells.of({7: [5, -120]})
        assert evidence.samples[1].cells == {"candidate": Cells.counts({8: 3})}
        assert (evidence.samples[0].cells, evidence.samples[0].effect) == ({}, 8.0), "a stage that is over"
        await migrated(lab, command.downgrade, "0004")
        padded = json.loads(json.dumps(BEFORE).replace('"1": [4, 2]', '"1": [4, 2, 0]'))
        assert json.loads(await stored(lab.database)) == padded


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_of_every_kind_goes_there_and_back(kind: str) -> None:
    script = import_module("migrations.versions.0005_tables_of_cells")
    world = watched(kind)
    evidence = calibrated(world, kind)
    for number in (2, 3):
        world.attempts = (*world.attempts, attempt(f"at_{number}", stage=number - 2))
        numbers = seen(kind, "candidate", range(16)) + seen(kind, "baseline", 3 * list(range(16)))
        evidence = world.take(evidence, world.batch(numbers, mine(evidence).frozen), float(number))
    evidence = msgspec.json.decode(msgspec.json.encode(evidence), type=Evidence)  # numbers as their columns have them
    stored = json.loads(msgspec.json.encode(evidence))
    body = json.loads(json.dumps(stored))
    script._to_objects(body)
    older = json.dumps(body)
    assert '"rows"' not in older
    assert all(set(sample["cells"]) == {"candidate", "baseline"} for sample in body["samples"].values())
    script._to_tables(body)
    again = msgspec.json.decode(json.dumps(body), type=Evidence)
    assert again == evidence
    restored = json.loads(msgspec.json.encode(again))
    assert json.dumps(restored, sort_keys=True) == json.dumps(stored, sort_keys=True), "whole numbers stay whole"


async def test_a_running_rollout_goes_there_and_back_and_on(database_url: str) -> None:
    async with opened(database_url) as lab:
        identifier = await lab.start()
        for _ in range(3):
            await lab.send(identifier, 0.02, 0.02)
            await lab.pass_time(60)
        await lab.act(identifier, "advance", "by hand")
        await lab.send(identifier, 0.02, 0.02)
        await lab.pass_time(60)
        before = await stored(lab.database)
        await migrated(lab, command.downgrade, "0004")
        older = json.loads(await stored(lab.database))
        assert isinstance(older["metrics"]["error_rate"]["cells"], dict)
        assert "rows" not in json.dumps(older)
        await migrate(lab.database)
        assert json.loads(await stored(lab.database)) == json.loads(before)
        await lab.send(identifier, 0.02, 0.02)
        await lab.pass_time(60)
        async with lab.database.read() as session:
            assert (await replay(session, identifier)).exact
