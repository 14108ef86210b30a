"""The stream on a real socket: what it sends first, how it resumes, and that it ends."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.shell.http.server import ADMIN, COHORT, FLAG, Site, serving

STREAM = "/sdk/v1/stream"


@dataclass
class Event:
    name: str
    id: str | None
    data: Any


@contextmanager
def stream(site: Site, last: str | None = None, **query: str) -> Iterator[Iterator[Event]]:
    """The events of one connection."""
    headers = {"Authorization": f"Bearer {ADMIN}"} | ({"Last-Event-ID": last} if last is not None else {})
    parameters = {"environment": "production", **query}
    with (
        httpx.Client(base_url=site.url, timeout=5, headers=headers) as http,
        http.stream("GET", STREAM, params=parameters) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer)


def events(answer: httpx.Response) -> Iterator[Event]:
    name, identifier, data = "", None, ""
    for line in answer.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "id":
            identifier = value
        elif field == "data":
            data = value
        elif not line:
            yield Event(name, identifier, json.loads(data))
            name, identifier, data = "", None, ""


def tag(document: Any) -> str:
    """What the id of an event says of the ruleset it leads to."""
    return f"{document['revision']}.{document['edition']}"


def after_heartbeats(received: Iterator[Event]) -> Event:
    return next(event for event in received if event.name != "heartbeat")


def test_a_stream_begins_with_a_heartbeat_and_the_whole_ruleset(each_site: Site) -> None:
    each_site.populate()
    with stream(each_site) as received:
        first, second = next(received), next(received)
    assert (first.name, first.id) == ("heartbeat", None)
    assert 0 <= first.data["engine_age_ms"] < 10_000
    assert tag(first.data) == tag(second.data)
    assert len(second.data["edition"]) == 12
    assert (second.name, second.id) == ("ruleset", tag(second.data))
    assert second.data["flags"]["answer"]["default_variant"] == "v7"


def test_a_change_is_sent_as_a_patch_at_once(each_site: Site) -> None:
    site = each_site
    site.populate()
    with stream(site) as received:
        whole = after_heartbeats(received)
        began = time.monotonic()
        site.http.put("/api/v1/flags/answer", json={**FLAG, "default_variant": "v8"})
        patch = after_heartbeats(received)
        assert time.monotonic() - began < 1
    assert (patch.name, patch.id) == ("patch", tag(patch.data))
    assert (patch.data["base"], patch.data["base_edition"]) == (whole.data["revision"], whole.data["edition"])
    assert patch.data["revision"] == whole.data["revision"] + 1
    assert patch.data["flags"]["answer"]["default_variant"] == "v8"
    assert patch.data["cohorts"] == {}


def test_a_stream_resumes_where_it_was(sqlite_url: str) -> None:
    with serving(sqlite_url, heartbeat_seconds=0.2) as site:
        site.populate()
        with stream(site) as received:
            whole = after_heartbeats(received).data
        seen = tag(whole)
        with stream(site, last=seen) as received:  # current: nothing but heartbeats
            assert {next(received).name for _ in range(3)} == {"heartbeat"}
        site.http.put("/api/v1/cohorts/staff", json={**COHORT, "units": ["eve"]})
        site.http.put("/api/v1/flags/answer", json={**FLAG, "default_variant": "v8"})
        for resumed in ({"last": seen}, {"after": seen}):
            with stream(site, **resumed) as received:
                patch = after_heartbeats(received)
            assert (patch.name, patch.data["base"]) == ("patch", whole["revision"])
            assert patch.data["revision"] == whole["revision"] + 2
            assert patch.data["cohorts"]["staff"]["units"] == ["eve"]
        same_number = f"{whole['revision'] + 2}.0123456789ab"
        for unknown in ("0.x", same_number, "9" * 5000):  # older than what is kept, or from another past
            with stream(site, last=unknown) as received:
                assert after_heartbeats(received).name == "ruleset"


def test_heartbeats_come_in_time_and_a_stream_ends_when_its_life_is_over(sqlite_url: str) -> None:
    with serving(sqlite_url, heartbeat_seconds=0.2, stream_seconds=1.0) as site:
        site.populate()
        began = time.monotonic()
        with stream(site) as received:
            names = [event.name for event in received]
        assert 0.9 < time.monotonic() - began < 3
        assert names[:2] == ["heartbeat", "ruleset"]
        assert names.count("heartbeat") >= 3


def test_a_stream_ends_when_its_key_is_revoked(sqlite_url: str) -> None:
    with serving(sqlite_url, heartbeat_seconds=0.2) as site:
        site.populate()
        made = site.post("/api/v1/keys", {"name": "app", "scopes": ["sdk:read"], "environment": "production"})
        with (
            httpx.Client(base_url=site.url, headers={"Authorization": f"Bearer {made['secret']}"}, timeout=5) as http,
            http.stream("GET", STREAM) as answer,
        ):
            received = events(answer)
            assert after_heartbeats(received).name == "ruleset"
            site.http.delete(f"/api/v1/keys/{made['id']}")
            began = time.monotonic()
            assert {event.name for event in received} <= {"heartbeat"}
            assert time.monotonic() - began < 4


def test_the_service_ends_at_once_while_streams_are_open(sqlite_url: str) -> None:
    ended: list[float] = []

    def listen(site: Site) -> None:
        with stream(site) as received:
            for _ in received:
                pass
        ended.append(time.monotonic())

    with serving(sqlite_url) as site:
        site.populate()
        listeners = [threading.Thread(target=listen, args=(site,)) for _ in range(5)]
        for listener in listeners:
            listener.start()
        with stream(site) as received:
            after_heartbeats(received)
        time.sleep(0.3)
        began = time.monotonic()
    for listener in listeners:
        listener.join(5)
    assert len(ended) == 5
    assert max(ended) - began < 1


def test_a_change_in_another_process_arrives_within_two_seconds(postgres_url: str) -> None:
    with serving(postgres_url, role="all") as first, serving(postgres_url, role="api") as second:
        first.populate()
        time.sleep(1.1)
        with stream(second) as received:
            after_heartbeats(received)
            began = time.monotonic()
            first.post("/api/v1/flags/answer/kill", {"environment": "production"})
            patch = after_heartbeats(received)
        assert time.monotonic() - began < 2
        assert patch.data["flags"]["answer"]["killed"] is True
        assert int(second.http.get("/sdk/v1/ruleset?environment=production").headers["rollout-engine-age"]) < 10_000
