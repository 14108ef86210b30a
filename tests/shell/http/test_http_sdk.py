"""What client libraries ask: the ruleset with its revision and the engine's age, and where evidence goes."""

import gzip
import json
import time
import tracemalloc
from copy import deepcopy
from typing import Any

import pytest

from rollout.api.body import inflate
from rollout.api.limits import Limiter, Rates, TooMany
from rollout.errors import TooLarge
from tests.shell.http.server import ROLLOUT, Site, serving

RULESET = "/sdk/v1/ruleset?environment=production"
EVENTS = "/sdk/v1/events?environment=production"


def batch(attempt: str, number: int = 1, **changes: Any) -> dict[str, Any]:
    """Four requests of two units in each arm, one of them failed."""
    slot = str(int(time.time()) // 60)
    arm = {
        "sketch": [[7, 2], [9, 1]],
        "slots": {
            slot: {
                "exposures": {"36": 4},
                "first_exposures": {"36": 2},
                "started": {"36": 4},
                "metrics": {"error_rate": {"cells": {"36": [4, 1]}}},
            }
        },
    }
    body = {
        "schema": 1, "batch_id": f"b{number}", "environment": "production", "process": "p_1", "client": "test/1",
        "dropped": {"observations": 0}, "attempts": {attempt: {"baseline": deepcopy(arm), "candidate": arm}},
    }  # fmt: skip
    return {**body, **changes}


def running(site: Site) -> str:
    """The attempt of a rollout that has just begun."""
    site.populate()
    rollout = site.draft()
    site.act(rollout, "start")
    attempt: str = site.http.get(f"/api/v1/rollouts/{rollout}").json()["state"]["attempts"][-1]["id"]
    return attempt


def test_a_ruleset_carries_its_revision_and_the_engines_age(each_site: Site) -> None:
    site = each_site
    site.populate()
    first = site.http.get(RULESET)
    assert first.status_code == 200
    served = first.json()
    assert first.headers["etag"] == f'"{served["revision"]}.{served["edition"]}"'
    assert 0 <= int(first.headers["rollout-engine-age"]) < 10_000
    for tag in (first.headers["etag"], f"W/{first.headers['etag']}", f'"0", {first.headers["etag"]}'):
        same = site.http.get(RULESET, headers={"If-None-Match": tag})
        assert (same.status_code, same.content) == (304, b"")
        assert same.headers["etag"] == first.headers["etag"]
        assert int(same.headers["rollout-engine-age"]) >= 0
    other = site.http.get(RULESET, headers={"If-None-Match": f'"{served["revision"]}.0123456789ab"'})
    assert other.status_code == 200


def test_without_an_engine_there_is_no_age(sqlite_url: str) -> None:
    with serving(sqlite_url, role="api") as site:
        site.populate()
        assert "rollout-engine-age" not in site.http.get(RULESET).headers


def test_a_batch_is_answered_after_it_is_committed_and_only_once(each_site: Site) -> None:
    site = each_site
    attempt = running(site)
    body = json.dumps(batch(attempt)).encode()
    first = site.http.post(EVENTS, content=body)
    assert first.status_code == 200, first.text
    assert first.json()["batch_id"] == "b1"
    assert first.json()["accepted"] > 0
    packed = gzip.compress(body)
    again = site.http.post(EVENTS, content=packed, headers={"Content-Encoding": "gzip"})
    assert (again.status_code, again.content) == (200, first.content)
    orphan = site.http.post(EVENTS, json=batch("at_gone", 2))
    assert (orphan.json()["accepted"], orphan.json()["orphaned"]) == (0, 1)


def test_evidence_is_looked_at_within_a_second(site: Site) -> None:
    attempt = running(site)
    rollout = site.http.get("/api/v1/rollouts").json()[0]["id"]
    site.http.post(EVENTS, json=batch(attempt))
    deadline = time.monotonic() + 1.5
    while True:
        status = site.http.get(f"/api/v1/rollouts/{rollout}/status").json()
        if status["readings"] and status["readings"][0]["candidate"] == {"n": 4, "x": 1}:
            break
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    assert status["users_exposed"] == 2


def test_a_malformed_batch_is_refused_whole_and_loses_nothing_accepted(each_site: Site) -> None:
    site = each_site
    attempt = running(site)
    assert site.http.post(EVENTS, json=batch(attempt)).status_code == 200
    bad = batch(attempt, 2)
    slot = next(iter(bad["attempts"][attempt]["candidate"]["slots"]))
    bad["attempts"][attempt]["candidate"]["slots"][slot]["metrics"]["error_rate"]["cells"]["36"] = [4, 5]
    refused = site.http.post(EVENTS, json=bad)
    assert refused.status_code == 422
    path = f"attempts.{attempt}.candidate.slots.{slot}.metrics.error_rate.cells.36"
    assert refused.json()["path"] == path
    assert site.http.post(EVENTS, content=b"{").status_code == 400
    foreign = site.http.post(EVENTS, json=batch(attempt, 3, environment="moon"))
    assert foreign.json()["path"] == "environment"
    rollout = site.http.get("/api/v1/rollouts").json()[0]["id"]
    assert site.http.get(f"/api/v1/rollouts/{rollout}/status").json()["users_exposed"] == 2


def test_a_body_beyond_the_limit_is_refused(sqlite_url: str) -> None:
    with serving(sqlite_url, max_body_bytes=4096, max_decompressed_bytes=50_000) as site:
        site.populate()

        def post(body: bytes, encoding: str = "identity") -> Any:
            return site.http.post(EVENTS, content=body, headers={"Content-Encoding": encoding})

        large = post(b"x" * 5000)
        assert (large.status_code, large.json()["title"]) == (413, "Too large")
        chunks = site.http.post(EVENTS, content=iter([b"x" * 3000, b"x" * 3000]))
        assert chunks.status_code == 413
        document = {**ROLLOUT, "description": "x" * 5000}
        assert site.http.post("/api/v1/rollouts", json=document).status_code == 413
        bomb = gzip.compress(b" " * 4_000_000)
        assert len(bomb) < 4096
        exploded = post(bomb, "gzip")
        assert exploded.status_code == 413
        assert "after decompression" in exploded.json()["detail"]
        for body, encoding in [(b"no gzip", "gzip"), (bomb[:-20], "gzip"), (b"{}", "br")]:
            assert post(body, encoding).status_code in (400, 413)
        assert post(gzip.compress(b"{}")[:-4], "gzip").status_code == 400
        assert site.http.get("/health/ready").status_code == 200


def test_a_bomb_is_never_inflated() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            inflate(bomb, "gzip", 100_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_key_that_asks_too_often_is_told_when_to_come_back(sqlite_url: str) -> None:
    with serving(sqlite_url, evidence_requests_per_minute=3) as site:
        site.populate()
        with site.with_key("sdk:read", "sdk:evidence", environment="production") as app:
            answers = [app.post("/sdk/v1/events", json=batch("at_gone", i)) for i in range(5)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
            assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
            assert answers[-1].headers["content-type"] == "application/problem+json"
            assert app.get("/sdk/v1/ruleset").status_code == 200
        assert site.http.post(EVENTS, json=batch("at_gone", 9)).status_code == 200


def test_a_bucket_refills_as_time_goes_by() -> None:
    now = [0.0]
    limiter = Limiter(Rates(read=60, evidence=60, api=2), clock=lambda: now[0])
    limiter.count("k", {"viewer"})
    limiter.count("k", {"viewer"})
    limiter.count("other", {"viewer"})
    with pytest.raises(TooMany) as refused:
        limiter.count("k", {"viewer"})
    assert refused.value.retry_after == 30
    now[0] = 30.0
    limiter.count("k", {"viewer"})
    with pytest.raises(TooMany):
        limiter.count("k", {"viewer"})


def test_what_is_measured_is_there_for_prometheus(sqlite_url: str) -> None:
    with serving(sqlite_url) as site:
        site.populate()
        site.http.get(RULESET)
        site.http.post(EVENTS, json=batch("at_gone"))
        text = site.http.get("/metrics").text
        assert 'rampline_request_seconds_count{method="GET",path="/sdk/v1/ruleset",status="200"}' in text
        assert 'rampline_batches_total{outcome="accepted"}' in text
        assert "rampline_engine_age_seconds 0." in text


def test_an_alert_is_logged_and_counted_and_is_no_evidence(each_site: Site) -> None:
    site = each_site
    attempt = running(site)
    alert = {
        "flag": "support-answer", "kind": "breaker_open", "at": 1763700000.5, "variant": "v8", "attempt": attempt,
        "arm": "candidate", "failure": "timeout",
    }  # fmt: skip
    sent = batch(attempt, 1, attempts={}, alerts=[alert])
    for _ in range(2):
        answer = site.http.post(EVENTS, json=sent)
        assert (answer.status_code, answer.json()["accepted"]) == (200, 0), answer.text
    odd = site.http.post(EVENTS, json=batch(attempt, 2, attempts={}, alerts=[alert | {"kind": "new_kind"}]))
    assert odd.status_code == 200
    text = site.http.get("/metrics").text
    for kind in ("breaker_open", "other"):
        assert f'rampline_client_alerts_total{{kind="{kind}"}}' in text
    for change, path in (({"flag": "two\nlines"}, "alerts[0].flag"), ({"arm": "both"}, "alerts[0].arm")):
        refused = site.http.post(EVENTS, json=batch(attempt, 3, attempts={}, alerts=[alert | change]))
        assert (refused.status_code, refused.json()["path"]) == (422, path)
    many = site.http.post(EVENTS, json=batch(attempt, 4, attempts={}, alerts=[alert] * 101))
    assert (many.status_code, many.json()["path"]) == (422, "alerts")
