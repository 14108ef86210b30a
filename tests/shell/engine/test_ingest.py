"""Batches: exactly once, whole or not at all, and nothing accepted is ever lost."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from rollout.db.session import Database
from rollout.db.tables import IncrementRow, OrphanRow
from rollout.engine import upkeep
from rollout.errors import Invalid, Malformed
from rollout.ingest.accept import accept
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from tests.shell.engine.lab import Lab, lab

SLOT = 29_500_000


async def rows(database: Database, table: type) -> int:
    async with database.read() as session:
        return (await session.execute(select(func.count()).select_from(table))).scalar_one()


async def running_attempt(service: Lab) -> tuple[str, str]:
    identifier = await service.start()
    attempt = (await service.row(identifier)).state.attempt
    assert attempt is not None
    return identifier, attempt.id


def document(attempt: str, **changes: Any) -> dict[str, Any]:
    metrics = {"error_rate": {"cells": {"7": [4, 1]}}}
    slot = {"exposures": {"7": 4}, "first_exposures": {"7": 1}, "started": {"7": 4}, "metrics": metrics}
    arm = {"sketch": [[719, 2]], "slots": {str(SLOT): {**slot, **changes}}}
    return {
        "schema": 1, "batch_id": "b1", "environment": "production", "process": "p", "client": "c",
        "attempts": {attempt: {"candidate": arm}},
    }  # fmt: skip


async def test_a_repeated_batch_gets_the_first_answer_and_changes_nothing(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier, attempt = await running_attempt(service)
        body = msgspec.json.encode(document(attempt))
        first = await accept(service.database, "production", body, service.now)
        assert await accept(service.database, "production", body, service.now) == first
        other = msgspec.json.encode({**document(attempt), "attempts": {}})
        assert await accept(service.database, "production", other, service.now) == first
        assert await rows(service.database, IncrementRow) == 2
        assert (await service.row(identifier)).accepted == 1


async def test_the_same_batch_sent_at_once_by_many_is_stored_once(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier, attempt = await running_attempt(service)
        body = msgspec.json.encode(document(attempt))
        sent = [accept(service.database, "production", body, service.now) for _ in range(8)]
        assert len(set(await asyncio.gather(*sent))) == 1
        assert (await service.row(identifier)).accepted == 1


async def test_concurrent_batches_are_all_counted(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier, attempt = await running_attempt(service)

        async def send(number: int) -> None:
            body = msgspec.json.encode({**document(attempt), "batch_id": f"b{number}"})
            await accept(service.database, "production", body, service.now)
            if number % 5 == 0:
                await service.watchman.round()

        await asyncio.gather(*(send(number) for number in range(30)))
        await service.watchman.round()
        row = await service.row(identifier)
        assert (row.accepted, row.judged) == (30, 30)
        assert row.evidence.metrics["error_rate"].totals[attempt]["candidate"] == [120, 30]


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"metrics": {"error_rate": {"cells": {"7": [4, 5]}}}}, "metrics.error_rate.cells.7"),
        ({"metrics": {"error_rate": {"cells": {"7": [4.5, 1]}}}}, "metrics.error_rate.cells.7"),
        ({"metrics": {"error_rate": {"cells": {"7": [-1, -1]}}}}, "metrics.error_rate.cells.7"),
        ({"metrics": {"error_rate": {"cells": {"256": [4, 1]}}}}, "metrics.error_rate.cells.256"),
        ({"metrics": {"error_rate": {"cells": {"7": [4, 1, 1]}}}}, "metrics.error_rate.cells.7"),
        ({"metrics": {"error_rate": {"cells": {"7": []}}}}, "metrics.error_rate.cells.7"),
        ({"metrics": {"error_rate": {"histogram": {"1": 1}}}}, "metrics.error_rate.histogram"),
        ({"metrics": {"colour": {"cells": {"7": [4, 1]}}}}, "metrics.colour"),
        ({"exposures": {"300": 1}}, "exposures.300"),
        ({"started": {"3": -1}}, "started.3"),
    ],
)  # fmt: skip
async def test_a_malformed_batch_is_refused_whole_with_the_path(
    sqlite_url: str, changes: dict[str, Any], path: str
) -> None:
    async with lab(sqlite_url) as service:
        identifier, attempt = await running_attempt(service)
        await accept(service.database, "production", msgspec.json.encode(document(attempt)), service.now)
        bad = {**document(attempt, **changes), "batch_id": "b2"}
        with pytest.raises(Invalid) as refused:
            await accept(service.database, "production", msgspec.json.encode(bad), service.now)
        assert refused.value.path == f"attempts.{attempt}.candidate.slots.{SLOT}.{path}"
        assert (await service.row(identifier)).accepted == 1
        mended = {**document(attempt), "batch_id": "b2"}
        await accept(service.database, "production", msgspec.json.encode(mended), service.now)
        assert (await service.row(identifier)).accepted == 2, "a refused batch id is free again"


@pytest.mark.parametrize(
    ("body", "error", "path"),
    [
        (b"{", Malformed, None),
        (b"\xff\xfe", Malformed, None),
        (b"{}", Invalid, "batch_id"),
        (b'{"schema":9,"batch_id":"b","environment":"production","process":"","client":""}', Invalid, "schema"),
        (b'{"batch_id":"","environment":"production","process":"","client":""}', Invalid, "batch_id"),
        (b'{"batch_id":"a\\u0000","environment":"production","process":"","client":""}', Invalid, "batch_id"),
        (b'{"batch_id":"b","environment":"production","process":"","client":"","attempts":{"a\\u0000b":{}}}',
         Invalid, "attempts"),
        (msgspec.json.encode({"batch_id": "b", "environment": "production", "process": "", "client": "",
                              "attempts": {f"at_{n}": {} for n in range(1001)}}), Invalid, "attempts"),
        (b'{"batch_id":"b","environment":"elsewhere","process":"","client":""}', Invalid, "environment"),
        (b'{"batch_id":"b","environment":"production","process":"","client":"","attempts":{"a":{"third":{}}}}',
         Invalid, "attempts[...]"),
        (b'{"batch_id":"b","environment":"production","process":"","client":"","attempts":{"a":{"candidate":'
         b'{"slots":{"1":{"metrics":{"m":{"cells":{"1":[NaN]}}}}}}}}}', Malformed, None),
    ],
)  # fmt: skip
async def test_what_is_no_batch_is_refused(sqlite_url: str, body: bytes, error: type, path: str | None) -> None:
    async with lab(sqlite_url) as service:
        with pytest.raises(error) as refused:
            await accept(service.database, "production", body, service.now)
        assert refused.value.path == path


async def test_what_belongs_to_no_running_attempt_is_kept_apart(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier, attempt = await running_attempt(service)
        answer = await service.post({"at_unknown": {"candidate": service.arm(5, 0.5)}})
        assert (answer.accepted, answer.orphaned) == (0, 1)
        await service.act(identifier, "roll_back", "enough")
        answer = await service.post({attempt: {"candidate": service.arm(5, 0.5)}})
        assert (answer.accepted, answer.orphaned) == (0, 1)
        unused = await service.post({attempt: {"candidate": service.arm(5, 0.5, metric="thumbs_down")}})
        assert (unused.accepted, unused.orphaned) == (0, 1), "a metric of an ended attempt refuses nobody's batch"
        assert await rows(service.database, OrphanRow) == 3
        assert await rows(service.database, IncrementRow) == 0


async def test_late_evidence_of_an_earlier_attempt_counts_for_the_rollout_but_not_the_gate(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier, attempt = await running_attempt(service)
        await service.act(identifier, "advance", "hurry")
        answer = await service.post({attempt: {"candidate": service.arm(50, 1.0), "baseline": service.arm(450, 0.0)}})
        assert answer.orphaned == 0
        await service.watchman.round()
        assert (await service.row(identifier)).status == "rolled_back"


async def test_a_minute_that_has_not_begun_counts_as_the_present_one(sqlite_url: str) -> None:
    async with lab(sqlite_url) as service:
        identifier, attempt = await running_attempt(service)
        present = int(service.now.timestamp()) // 60
        outcome = MetricIncrement(cells={1: [2.0, 1.0]})
        fast = ArmIncrement(slots={present + 99: SlotIncrement(exposures={1: 2}, metrics={"error_rate": outcome})})
        await service.post({attempt: {"candidate": fast}})
        async with service.database.read() as session:
            bodies = (await session.execute(select(IncrementRow.body))).scalars().all()
        assert all(list(msgspec.json.decode(body)) == [str(present)] for body in bodies)
        assert (await service.row(identifier)).accepted == 1


async def test_upkeep_forgets_only_ids_that_nobody_sends_again(database_url: str) -> None:
    async with lab(database_url) as service:
        identifier, attempt = await running_attempt(service)
        body = msgspec.json.encode(document(attempt))
        first = await accept(service.database, "production", body, service.now)
        service.now += upkeep.REPEATS_FOR
        assert await upkeep.tidy(service.control) == 0
        assert await accept(service.database, "production", body, service.now) == first
        service.now += timedelta(seconds=1)
        assert await upkeep.tidy(service.control) == 1
        assert (await service.row(identifier)).accepted == 1


async def test_outcomes_that_come_after_their_minute_was_judged_are_shown_and_not_bet(sqlite_url: str) -> None:
    guardrails = [{"metric": "slow_errors", "max_regression": {"absolute": 0.02}}]
    async with lab(sqlite_url) as service:
        identifier = await service.start(guardrails=guardrails)
        await service.send(identifier, 0.02, 0.02, metric="slow_errors")
        minute = int(service.now.timestamp()) // 60
        attempt = (await service.row(identifier)).state.attempt
        assert attempt is not None
        await service.pass_time(300)
        before = (await service.row(identifier)).evidence.metrics["slow_errors"].harm
        outcome = SlotIncrement(metrics={"slow_errors": MetricIncrement(cells={1: [7.0, 7.0]})})
        await service.post({attempt.id: {"candidate": ArmIncrement(slots={minute: outcome})}})
        await service.watchman.round()
        row = await service.row(identifier)
        assert row.latest is not None
        assert row.latest.judgement.readings[0].late == 7
        assert row.evidence.metrics["slow_errors"].harm == before != {}
