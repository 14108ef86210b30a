"""The engine and the API in processes of their own: one shows at once what the other does, and may be stopped."""

import random
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from rollout_client import Client, Context
from tests.journeys.service import Service, service, until

USERS = [Context(f"user-{number}") for number in range(60)]
STAGES = [{"name": "half", "percentage": 50, "min_duration": "1h"}]
SELDOM = {"ROLLOUT_TICK_SECONDS": "60"}


@contextmanager
def worker(database_url: str, folder: Path, name: str = "worker", **settings: str) -> Iterator[Service]:
    opened = Service(database_url, folder / f"{name}.log")
    try:
        opened.start(ROLLOUT_ROLE="worker", **settings)
        yield opened
    finally:
        opened.close()


def plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def row(connection: Any, identifier: str) -> tuple[str, bool]:
    """The status, and whether everything accepted was judged."""
    found = connection.execute("SELECT status, judged = accepted FROM rollouts WHERE id = %s", (identifier,))
    status, done = found.fetchone()
    return status, done


def batch(attempt: str, rng: random.Random, number: int) -> dict[str, Any]:
    """Three hundred requests in each arm; the candidate fails in most."""

    def arm(rate: float) -> dict[str, Any]:
        cells: dict[str, list[int]] = {}
        for _ in range(300):
            numbers = cells.setdefault(str(rng.randrange(256)), [0, 0])
            numbers[0] += 1
            numbers[1] += rng.random() < rate
        seen = {cell: numbers[0] for cell, numbers in cells.items()}
        counts = {"exposures": seen, "first_exposures": seen, "started": seen}
        slot = {**counts, "metrics": {"error_rate": {"cells": cells}}}
        return {"sketch": [], "slots": {str(int(time.time()) // 60): slot}}

    return {
        "schema": 1, "batch_id": f"{attempt}-{number}", "environment": "production", "process": "p", "client": "test",
        "attempts": {attempt: {"baseline": arm(0.02), "candidate": arm(0.9)}},
    }  # fmt: skip


def harm(opened: Service, attempt: str, numbers: Iterator[int]) -> float:
    """Send one batch that shows harm; when it was accepted."""
    answer = httpx.post(
        f"{opened.url}/sdk/v1/events",
        json=batch(attempt, random.Random(7), next(numbers)),
        headers={"Authorization": f"Bearer {opened.sdk_key}"},
    )
    assert answer.status_code == 200, answer.text
    return time.monotonic()


def test_a_worker_answers_probes_and_nothing_else_and_runs_the_engine(postgres_url: str, tmp_path: Path) -> None:
    with service(postgres_url, tmp_path, ROLLOUT_ROLE="api") as opened, worker(postgres_url, tmp_path) as engine:
        assert engine.http.get("/health/live").json() == {"status": "live"}
        assert engine.http.get("/health/ready").json() == {"status": "ready"}
        assert "rampline_engine_age_seconds" in engine.http.get("/metrics").text
        for path in ("/api/v1/rollouts", "/sdk/v1/ruleset?environment=production", "/schema/openapi.json"):
            assert engine.http.get(path).status_code == 404, path
        identifier = opened.rollout(
            stages=[{"name": "all", "percentage": 100, "min_duration": "1s", "min_units": 0}], guardrails=[]
        )
        until(lambda: opened.status(identifier)["status"] == "completed", 15, "the worker moves it on")


def test_a_deciding_batch_reaches_the_clients_of_another_process_well_within_a_second(
    postgres_url: str, tmp_path: Path
) -> None:
    numbers = iter(range(10_000))
    with (
        service(postgres_url, tmp_path, ROLLOUT_ROLE="api") as opened,
        worker(postgres_url, tmp_path, **SELDOM),  # by its clock alone it would look a minute later
        Client(opened.url, opened.sdk_key, environment="production") as client,
        psycopg.connect(plain(postgres_url), autocommit=True) as connection,
    ):
        assert client.wait_ready(10)
        took = []
        for _ in range(5):
            identifier = opened.rollout(stages=STAGES)
            until(lambda: "v8" in {client.evaluate("answer", user).variant for user in USERS}, 10, "it is served")
            attempt = next(found for user in USERS if (found := client.evaluate("answer", user).attempt))
            until(lambda rollout=identifier: row(connection, rollout)[1], 10, "nothing is left to judge")
            while row(connection, identifier)[0] == "running":
                accepted = harm(opened, attempt, numbers)
                until(lambda rollout=identifier: row(connection, rollout)[1], 10, "the batch is judged")
            until(lambda: {client.evaluate("answer", user).variant for user in USERS} == {"v7"}, 10, "it is taken back")
            took.append(time.monotonic() - accepted)
    assert statistics.median(took) < 0.5, took


@pytest.mark.slow
def test_a_worker_that_is_stopped_with_a_rollout_in_its_hands_does_not_act_on_what_it_read(
    postgres_url: str, tmp_path: Path
) -> None:
    numbers = iter(range(10_000))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
    with (
        service(postgres_url, tmp_path, ROLLOUT_ROLE="api") as opened,
        worker(postgres_url, tmp_path, "first") as first,
        psycopg.connect(plain(postgres_url), autocommit=True) as connection,
    ):
        identifier = opened.rollout(stages=STAGES)
        state = opened.get(f"rollouts/{identifier}")["state"]
        with psycopg.connect(plain(postgres_url)) as barrier:  # its look waits where it is about to publish
            barrier.execute("SELECT 1 FROM environments FOR UPDATE")

            def waits() -> bool:
                return bool(connection.execute(waiting, (barrier.info.backend_pid,)).fetchone() == (1,))

            while not waits():
                harm(opened, state["attempts"][0]["id"], numbers)
                until(lambda: waits() or row(connection, identifier)[1], 15, "it is judged, or waits to be published")
            first.signal(signal.SIGSTOP)
        with worker(postgres_url, tmp_path, "second") as second:
            took = until(lambda: row(connection, identifier)[0] == "rolled_back", 15, "another worker takes it back")
            assert took < 5
            first.signal(signal.SIGCONT)
            until(lambda: "look failed" in first.log.read_text(), 10, "the first one finds its hold gone")
            second.kill()
            following = opened.rollout(
                stages=[{"name": "all", "percentage": 100, "min_duration": "1s", "min_units": 0}], guardrails=[]
            )
            until(lambda: opened.status(following)["status"] == "completed", 15, "the first one works on")
        steps = [each["change"]["step"] for each in opened.get(f"rollouts/{identifier}/transitions")]
        assert steps == ["start", "roll_back"]
        assert opened.get(f"rollouts/{identifier}/replay")["exact"]
