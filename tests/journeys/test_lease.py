"""With no engine at work, exposure lapses by itself, and what reduces exposure still works."""

import signal
from pathlib import Path

from rollout_client import Client, Context
from tests.journeys.service import service, until

USERS = [Context(f"user-{i}") for i in range(60)]


def served(client: Client) -> set[tuple[str | None, str]]:
    return {(answer.variant, answer.reason) for answer in (client.evaluate("answer", user) for user in USERS)}


def test_clients_leave_the_candidate_when_nobody_watches_and_people_can_still_act(
    database_url: str, tmp_path: Path
) -> None:
    with service(database_url, tmp_path) as opened:
        identifier = opened.rollout(lease="10s", stages=[{"name": "half", "percentage": 50, "min_duration": "1h"}])
        with Client(opened.url, opened.sdk_key, environment="production") as client:
            assert client.wait_ready(10)
            split = {("v7", "SPLIT"), ("v8", "SPLIT")}
            until(lambda: served(client) == split, 5, "both arms are served")
            assert opened.kill(signal.SIGTERM) == 0
            opened.start(ROLLOUT_ROLE="api", ROLLOUT_HEARTBEAT_SECONDS="0.5")
            took = until(lambda: served(client) == {("v7", "STALE")}, 20, "the lease lapses")
            assert took < 12
            attempts = client.status().revision
            opened.kill(signal.SIGTERM)
            opened.start(ROLLOUT_HEARTBEAT_SECONDS="0.5")
            until(lambda: served(client) == split, 15, "a healthy pass brings it back")
            opened.kill(signal.SIGTERM)
            opened.start(ROLLOUT_ROLE="api", ROLLOUT_HEARTBEAT_SECONDS="0.5")
            opened.post("flags/answer/kill", {"environment": "production", "reason": "drill"})
            until(lambda: served(client) == {("v7", "DISABLED")}, 10, "the kill is served")
            opened.post("flags/answer/restore", {"environment": "production", "reason": "drill"})
            assert opened.status(identifier)["status"] == "paused"
            opened.act(identifier, "roll_back")
            until(lambda: served(client) == {("v7", "STATIC")}, 10, "the rollback is served")
            assert (client.status().revision or 0) > (attempts or 0)
        assert opened.status(identifier)["status"] == "rolled_back"
