"""Numbers of rulesets start again when a database is restored: the edition says which ruleset one is."""

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from clients.python.tests.service import Service, document, eventually
from rollout_client import Client, Context
from rollout_client.evaluation.evaluate import apply_patch
from rollout_client.evaluation.ruleset import Patch, Ruleset

FLAG = "support-answer"
Connect = Callable[..., Client]


def edition(name: str, revision: int = 5, **changes: Any) -> dict[str, Any]:
    return document(revision, **changes) | {"edition": name}


def variant(client: Client) -> str | None:
    return client.evaluate(FLAG, Context("user-1")).variant


@pytest.mark.parametrize("revision", [5, 3])
def test_a_heartbeat_of_another_edition_makes_it_adopt_the_restored_ruleset(
    service: Service, connect: Connect, revision: int
) -> None:
    service.serve(edition("aaaa"))
    client = connect()
    eventually(lambda: client.status().stream == "open")
    assert variant(client) == "v8"
    service.serve(edition("bbbb", revision, threshold=0), announce=False)
    service.push_raw(service.heartbeat())
    eventually(lambda: variant(client) == "v7")
    assert client.status().revision == revision
    fetches = [headers for path, headers in service.seen_headers if path == "/sdk/v1/ruleset"]
    assert "If-None-Match" not in fetches[-1]


def test_a_poll_finds_another_edition_of_the_same_revision(service: Service, connect: Connect) -> None:
    service.refuses_stream = True
    service.serve(edition("aaaa"))
    client = connect()
    eventually(lambda: variant(client) == "v8")
    eventually(
        lambda: ("/sdk/v1/ruleset", '"5.aaaa"') in [(p, h.get("If-None-Match")) for p, h in service.seen_headers]
    )
    service.serve(edition("bbbb", threshold=0))
    eventually(lambda: variant(client) == "v7")


def test_a_stream_resumes_with_the_id_it_was_given(service: Service, connect: Connect) -> None:
    service.serve(edition("aaaa"))
    client = connect()
    eventually(lambda: client.status().stream == "open")
    changed = edition("bbbb", 6, threshold=0)
    patch = {"base": 5, "base_edition": "aaaa", "revision": 6, "edition": "bbbb", "flags": changed["flags"]}
    service.serve(changed, announce=False)
    service.push("patch", json.dumps(patch).encode(), service.tag)
    eventually(lambda: variant(client) == "v7")
    service.drop_streams()
    eventually(lambda: service.requests["/sdk/v1/stream"] == 2 and client.status().stream == "open")
    streams = [headers for path, headers in service.seen_headers if path == "/sdk/v1/stream"]
    assert [headers.get("Last-Event-ID") for headers in streams] == ["5.aaaa", "6.bbbb"]


def test_a_patch_from_another_edition_of_its_base_makes_it_fetch_the_whole(service: Service, connect: Connect) -> None:
    service.serve(edition("aaaa"))
    client = connect()
    eventually(lambda: client.status().stream == "open")
    service.serve(edition("cccc", 6, threshold=0), announce=False)
    patch = {"base": 5, "base_edition": "bbbb", "revision": 6, "edition": "cccc", "flags": {}}
    service.push("patch", json.dumps(patch).encode(), service.tag)
    eventually(lambda: variant(client) == "v7")


def test_nobody_vouches_for_an_edition_that_is_served_no_more(service: Service, connect: Connect) -> None:
    service.serve(edition("aaaa", lease_ms=400))
    client = connect()
    eventually(lambda: client.status().stream == "open")
    service.edition, service.body = "bbbb", b"damaged"
    until = time.monotonic() + 3
    while client.evaluate(FLAG, Context("user-1")).reason != "STALE":
        assert time.monotonic() < until, "a heartbeat of another edition kept the lease alive"
        service.push_raw(service.heartbeat())
        time.sleep(0.05)


def test_a_heartbeat_that_comes_before_its_ruleset_vouches_for_it(service: Service, connect: Connect) -> None:
    good, service.body = edition("aaaa"), b"damaged"
    client = connect()
    eventually(lambda: service.requests["/sdk/v1/ruleset"] >= 1 and service.streams)
    service.body, service.revision, service.edition = b"damaged", 5, "aaaa"
    service.push_raw(service.heartbeat())
    service.push("ruleset", json.dumps(good).encode(), service.tag)
    eventually(lambda: variant(client) == "v8")


@pytest.mark.parametrize("change", [{"base_edition": "bbbb"}, {"base_edition": ""}, {"base": 4}])
def test_a_patch_fits_the_edition_it_was_made_from(change: dict[str, Any]) -> None:
    ruleset = msgspec.convert(edition("aaaa"), Ruleset)
    patch = {"base": 5, "base_edition": "aaaa", "revision": 6, "edition": "bbbb"}
    after = apply_patch(ruleset, msgspec.convert(patch, Patch))
    assert after is not None
    assert (after.revision, after.edition) == (6, "bbbb")
    assert apply_patch(ruleset, msgspec.convert(patch | change, Patch)) is None
