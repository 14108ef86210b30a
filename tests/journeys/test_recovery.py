"""Kill -9 in the middle of a rollout: nothing accepted is lost or counted twice, and no decision either."""

import itertools
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from rollout_client import Client, Context
from tests.journeys.service import Service, service, until


class Application:
    """Serves users without pause and remembers what it observed."""

    def __init__(self, opened: Service, failing: float) -> None:
        self.client = Client(opened.url, opened.sdk_key, environment="production")
        self.client.start()
        assert self.client.wait_ready(10)
        self._failing, self._rng = failing, random.Random(3)
        self._users = itertools.cycle(range(700))
        self._stop = threading.Event()
        self.attempts = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._stop.wait(0.004):
            self.client.run("answer", Context(f"user-{next(self._users)}"), self._call, fallback="sorry", timeout=None)
            self.attempts += 1

    def _call(self, model: Any) -> str:
        if self._rng.random() < (self._failing if model == "large" else 0.02):
            raise RuntimeError("the model failed")
        return "fine"


def judged_requests(opened: Service, identifier: str) -> int:
    """Requests in the log of every look of the rollout, by the public record."""
    status = opened.status(identifier)
    return sum(arm["n"] for reading in status["readings"] for arm in (reading["candidate"], reading["baseline"]))


def assert_recorded_once(opened: Service, identifier: str, expected: list[str]) -> None:
    found = opened.get(f"rollouts/{identifier}/transitions")
    assert [each["seq"] for each in found] == list(range(1, len(found) + 1))
    assert [each["change"]["step"] for each in found] == expected
    assert opened.get(f"rollouts/{identifier}/replay")["exact"]


def test_a_killed_server_recovers_and_completes_a_harmless_rollout(database_url: str, tmp_path: Path) -> None:
    with service(database_url, tmp_path) as opened:
        identifier = opened.rollout()
        application = Application(opened, failing=0.02)
        try:
            for _ in range(3):
                until(lambda: judged_requests(opened, identifier) > 30, 20, "evidence is judged")
                opened.kill()
                opened.start()
            until(lambda: opened.status(identifier)["status"] == "completed", 60, "it completes")
        finally:
            application.stop()
            application.client.close()
        assert_recorded_once(opened, identifier, ["start", "advance", "complete"])


def test_a_killed_server_recovers_and_rolls_a_harmful_rollout_back(database_url: str, tmp_path: Path) -> None:
    with service(database_url, tmp_path) as opened:
        identifier = opened.rollout(guardrails=[{"metric": "error_rate", "max_regression": {"absolute": 0.1}}])
        application = Application(opened, failing=0.02)
        try:
            until(lambda: judged_requests(opened, identifier) > 30, 20, "evidence is judged")
            application._failing = 0.6
            opened.kill()
            opened.start()
            until(lambda: opened.status(identifier)["status"] == "rolled_back", 30, "it rolls back")
            users = [Context(f"user-{number}") for number in range(50)]
            took = until(
                lambda: {application.client.evaluate("answer", user).variant for user in users} == {"v7"},
                5,
                "the application serves the baseline",
            )
            assert took < 2
        finally:
            application.stop()
            application.client.close()
        steps = [each["change"]["step"] for each in opened.get(f"rollouts/{identifier}/transitions")]
        assert_recorded_once(opened, identifier, steps)
        assert steps[-1] == "roll_back"


@pytest.mark.parametrize("kills", [4])
def test_every_outcome_is_counted_exactly_once_across_kills(database_url: str, tmp_path: Path, kills: int) -> None:
    with service(database_url, tmp_path) as opened:
        forever = [{"name": "half", "percentage": 50, "min_duration": "1h"}]
        identifier = opened.rollout(stages=forever)
        application = Application(opened, failing=0.02)
        try:
            for _ in range(kills):
                before = application.attempts
                until(lambda seen=before: application.attempts > seen + 150, 20, "requests are served")
                opened.kill()
                opened.start()
        finally:
            application.stop()
            application.client.close(10)
        assert not any(application.client.status().dropped.values())
        until(lambda: judged_requests(opened, identifier) == application.attempts, 10, "every outcome is judged once")
        assert_recorded_once(opened, identifier, ["start"])
