"""A unit that a person gave the candidate: served within a moment, in no arm, and back by itself at its end."""

from pathlib import Path
from typing import Any

from rollout_client import Client, Context
from tests.journeys.service import service, until

TESTER = Context("tester-1")


def failing(model: Any) -> str:
    if model == "large":
        raise RuntimeError("every request of the candidate fails")
    return "fine"


def test_an_overridden_unit_is_served_is_no_evidence_and_comes_back(sqlite_url: str, tmp_path: Path) -> None:
    with service(sqlite_url, tmp_path) as opened:
        identifier = opened.rollout(stages=[{"name": "few", "percentage": 1, "min_duration": "1h"}])
        client = Client(opened.url, opened.sdk_key, environment="production")
        try:
            client.start()
            assert client.wait_ready(10)
            assert client.evaluate("answer", TESTER).variant == "v7"
            given = opened.http.put(
                "/api/v1/flags/answer/overrides/production/tester-1",
                json={"variant": "v8", "reason": "tries the candidate", "expires": "4s"},
            )
            assert given.status_code == 200, given.text
            until(lambda: client.evaluate("answer", TESTER).variant == "v8", 3, "the tester gets the candidate")
            for _ in range(200):
                assert client.run("answer", TESTER, failing, fallback="sorry") == "sorry"
            until(lambda: client.evaluate("answer", TESTER).variant == "v7", 10, "it ends by itself")
            answer = client.run("answer", TESTER, failing, fallback="sorry")
            assert answer == "fine", "the baseline answers again"
        finally:
            client.close()
        until(lambda: _outcomes(opened.status(identifier)) == (0, 1), 10, "what was no override is evidence")
        found = opened.status(identifier)
        assert (found["status"], found["users_exposed"], found["overrides"]) == ("running", 0, 0)


def _outcomes(status: dict[str, Any]) -> tuple[float, float] | None:
    """Outcomes of the candidate and of the baseline."""
    return next(((each["candidate"]["n"], each["baseline"]["n"]) for each in status["readings"]), None)
