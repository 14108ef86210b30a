"""A catastrophe is acted on soon after the deciding batch, not at the next tick, and every connected client sees it."""

import time
from pathlib import Path
from typing import Any

from rollout_client import Client, Context
from tests.journeys.service import service, until


def failing(model: Any) -> str:
    if model == "large":
        raise RuntimeError("every request of the candidate fails")
    return "fine"


def test_a_catastrophe_is_taken_back_at_once_everywhere(database_url: str, tmp_path: Path) -> None:
    with service(database_url, tmp_path, ROLLOUT_TICK_SECONDS="3600") as opened:
        identifier = opened.rollout(stages=[{"name": "tenth", "percentage": 10, "min_duration": "1h"}])
        watching = [Client(opened.url, opened.sdk_key, environment="production") for _ in range(5)]
        try:
            for client in watching:
                client.start()
            assert all(client.wait_ready(10) for client in watching)
            began = time.monotonic()
            for number in range(400):
                watching[0].run("answer", Context(f"user-{number}"), failing, fallback="sorry")
            until(lambda: opened.status(identifier)["status"] == "rolled_back", 10, "it rolls back")
            until(lambda: all(_baseline_only(client) for client in watching), 5, "every client serves the baseline")
            took = time.monotonic() - began
            assert took < 8, "a second of folding, a fraction to act, the way there, and a busy machine"
        finally:
            for client in watching:
                client.close()
        found = opened.get(f"rollouts/{identifier}/transitions")[-1]["change"]
        assert found["actor"] == "engine"
        assert "error_rate breach" in found["reason"]
        assert found["to_percentage"] == 0


def _baseline_only(client: Client) -> bool:
    return {client.evaluate("answer", Context(f"user-{number}")).variant for number in range(400)} == {"v7"}
