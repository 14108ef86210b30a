"""The client against a real service: rulesets, streams, disk, leases, and what goes wrong with them."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from clients.python.tests.service import FAST, KEY, Service, document, eventually
from rollout_client import Client, Context

FLAG = "support-answer"
Connect = Callable[..., Client]


def variant(client: Client, unit: str = "user-1") -> str | None:
    return client.evaluate(FLAG, Context(unit)).variant


def test_it_serves_what_the_service_says_and_follows_its_changes(service: Service, connect: Connect) -> None:
    client = connect()
    assert client.wait_ready(5)
    assert variant(client) == "v8"
    eventually(lambda: client.status().stream == "open")
    assert service.asked_for == {"environment=production"}
    service.serve(document(revision=2, threshold=0))
    eventually(lambda: variant(client) == "v7")
    patch = {"base": 2, "revision": 3, "flags": {FLAG: document()["flags"][FLAG]}}
    service.revision, service.body = 3, json.dumps(document(3)).encode()
    service.push("patch", json.dumps(patch).encode(), 3)
    eventually(lambda: variant(client) == "v8")
    assert client.status().revision == 3
    assert client.status().last_error is None


def test_the_constructor_and_start_do_not_wait_for_a_service(service: Service) -> None:
    service.hangs.set()
    for url in (service.url, "http://127.0.0.1:9", "no address at all"):
        before = time.perf_counter()
        client = Client(url, KEY, environment="production", options=FAST)
        client.start()
        answer = client.evaluate(FLAG, Context("user-1"), default="small")
        assert time.perf_counter() - before < 0.25
        assert (answer.value, answer.reason, answer.error) == ("small", "ERROR", "PROVIDER_NOT_READY")
        assert not client.wait_ready(0.01)
        before = time.perf_counter()
        client.close(0.2)
        assert time.perf_counter() - before < 1.5


def test_a_patch_for_another_revision_makes_it_fetch_the_whole(service: Service, connect: Connect) -> None:
    client = connect()
    eventually(lambda: client.status().stream == "open")
    service.serve(document(revision=7, threshold=0), announce=False)
    service.push("patch", b'{"base": 5, "revision": 6, "flags": {"support-answer": null}}', 6)
    eventually(lambda: client.status().revision == 7)
    assert variant(client) == "v7"


def test_a_heartbeat_of_another_revision_makes_it_fetch(service: Service, connect: Connect) -> None:
    client = connect()
    eventually(lambda: client.status().stream == "open")
    service.serve(document(revision=2, threshold=0), announce=False)
    service.push_raw(service.heartbeat())
    eventually(lambda: variant(client) == "v7")


def test_it_polls_while_there_is_no_stream_and_asks_by_etag(service: Service, connect: Connect) -> None:
    service.refuses_stream = True
    client = connect()
    eventually(lambda: variant(client) == "v8")
    eventually(lambda: client.status().stream == "polling")
    service.serve(document(revision=2, threshold=0))
    eventually(lambda: variant(client) == "v7")
    polls = [headers for path, headers in service.seen_headers if path == "/sdk/v1/ruleset"]
    assert "If-None-Match" not in polls[0]
    assert polls[-1]["If-None-Match"] in ('"1"', '"2"')
    service.refuses_stream = False
    eventually(lambda: client.status().stream == "open")


def test_a_dropped_stream_is_resumed_with_its_last_id(service: Service, connect: Connect) -> None:
    client = connect()
    eventually(lambda: client.status().stream == "open")
    service.drop_streams()
    eventually(lambda: service.requests["/sdk/v1/stream"] == 2 and client.status().stream == "open")
    streams = [headers for path, headers in service.seen_headers if path == "/sdk/v1/stream"]
    assert streams[-1]["Last-Event-ID"] == "1"


def test_a_silent_stream_is_given_up(service: Service, connect: Connect) -> None:
    client = connect(options=msgspec.structs.replace(FAST, stream_silence=0.2))
    eventually(lambda: service.requests["/sdk/v1/stream"] >= 2)
    assert variant(client) == "v8"


def test_it_serves_what_it_had_while_the_service_is_away_and_returns(service: Service, connect: Connect) -> None:
    client = connect()
    eventually(lambda: client.status().stream == "open")
    service.down()
    eventually(lambda: client.status().stream == "polling")
    assert variant(client) == "v8"
    service.serve(document(revision=2, threshold=0))
    service.up()
    eventually(lambda: variant(client) == "v7")


@pytest.mark.parametrize("key", ["wrong", " \nwrong\n"])
def test_a_refused_key_is_reported(connect: Connect, key: str) -> None:
    client = connect(key=key)
    eventually(lambda: "401" in (client.status().last_error or ""))
    assert client.evaluate(FLAG, Context("user-1"), default="small").value == "small"
    assert not client.status().ready


@pytest.mark.parametrize("key", ["", "sécret", "se\ncret"])
def test_a_key_that_cannot_be_sent_is_reported_and_not_quoted(
    connect: Connect, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(key=key)
    eventually(lambda: client.status().last_error)
    assert client.evaluate(FLAG, Context("user-1"), default="small").value == "small"
    assert "cret" not in caplog.text


def test_a_client_whose_thread_ended_says_so_and_counts_nothing(connect: Connect) -> None:
    client = connect(key="sécret", bootstrap=document(4, lease_ms=None))
    eventually(lambda: client.status().stream == "closed")
    answer = client.evaluate(FLAG, Context("user-1"))
    assert (answer.variant, answer.attempt) == ("v8", None)


def test_evidence_is_sent_at_the_end_though_the_cache_cannot_be_written(service: Service, connect: Connect) -> None:
    client = connect(cache_dir="no\0where", options=msgspec.structs.replace(FAST, flush_interval=60.0))
    assert client.wait_ready(5)
    client.evaluate(FLAG, Context("user-1"))
    client.close()
    assert service.counted("exposures") == {("at_1", "candidate"): 1}


def test_the_ruleset_of_another_environment_is_not_served(service: Service, connect: Connect) -> None:
    client = connect(environment="staging")
    eventually(lambda: "production" in (client.status().last_error or ""))
    assert variant(client) is None


GARBAGE = [
    b"",
    b"\xff\xfe\x00",
    b"[]",
    b'{"environment": "production", "revision": "x"}',
    b"[" * 100_000,
    b'{"environment": "production", "revision": 9, "schema": 3}',
    json.dumps(document(9) | {"algorithm": "other"}).encode(),
    json.dumps(document(9, candidate="gone")).encode(),
    json.dumps(document(9, when={"unless": {}})).encode(),
]


@pytest.mark.parametrize("body", GARBAGE)
def test_no_bytes_take_away_what_it_serves(service: Service, connect: Connect, body: bytes) -> None:
    client = connect()
    eventually(lambda: client.status().stream == "open")
    good, service.body, service.revision = service.body, body, 9
    for event in ("ruleset", "patch", "heartbeat", "other"):
        service.push(event, body.replace(b"\n", b" "), 9)
    service.push_raw(body + b"\n\n" + b"data\n:\nid\n\n\x00\n\n")
    service.drop_streams()
    eventually(lambda: service.requests["/sdk/v1/stream"] >= 2)
    assert variant(client) == "v8"
    assert client.status().revision == 1
    service.body = (good or b"").replace(b'"revision": 1', b'"revision": 10')
    service.revision = 10
    service.drop_streams()
    eventually(lambda: client.status().revision == 10)


def test_a_start_without_the_service_answers_from_disk_without_a_lease(
    service: Service, connect: Connect, tmp_path: Path
) -> None:
    first = connect(cache_dir=tmp_path)
    assert first.wait_ready(5)
    first.close()
    service.down()
    second = connect(cache_dir=tmp_path)
    eventually(lambda: second.status().source == "disk")
    answer = second.evaluate(FLAG, Context("user-1"))
    assert (answer.variant, answer.reason, answer.attempt) == ("v7", "STALE", None)
    assert not second.status().ready
    service.up()
    eventually(lambda: variant(second) == "v8")
    assert second.status().source == "service"


@pytest.mark.parametrize("damage", [b"", b"rampline-ruleset 1 0000\n{}", b"\xff" * 500, None])
def test_a_damaged_cache_is_ignored(service: Service, connect: Connect, tmp_path: Path, damage: bytes | None) -> None:
    first = connect(cache_dir=tmp_path)
    assert first.wait_ready(5)
    first.close()
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-20] if damage is None else damage)
    service.down()
    second = connect(cache_dir=tmp_path, bootstrap=document(4, lease_ms=None))
    eventually(lambda: "cache" in second._reporter._logged)
    assert second.status().source == "bootstrap"
    assert variant(second) == "v8"
    assert second.evaluate(FLAG, Context("user-1")).attempt is None


def test_nothing_is_evidence_that_nobody_vouches_for(service: Service, connect: Connect) -> None:
    service.serve(document(4, lease_ms=None))
    client = connect(bootstrap=document(3, lease_ms=None))
    eventually(lambda: client.evaluate(FLAG, Context("user-1")).attempt == "at_1")
    assert not client.status().lapsed
    client.close()
    answer = client.evaluate(FLAG, Context("user-1"))
    assert (answer.variant, answer.attempt) == ("v8", None)
    assert not client.status().lapsed
    assert not client.status().dropped


def test_a_bootstrap_document_answers_at_once_and_vouches_for_nothing(service: Service) -> None:
    client = Client("http://127.0.0.1:9", KEY, environment="production", bootstrap=document(4), options=FAST)
    answer = client.evaluate(FLAG, Context("user-1"))
    assert (answer.value, answer.reason, answer.revision) == ("small", "STALE", 4)
    assert client.status().source == "bootstrap"


def test_a_bootstrap_file_answers_when_there_is_nothing_else(
    service: Service, connect: Connect, tmp_path: Path
) -> None:
    service.down()
    file = tmp_path / "bootstrap.json"
    file.write_text(json.dumps(document(4)))
    client = connect(bootstrap=file)
    eventually(lambda: variant(client) == "v7")
    broken = connect(bootstrap=tmp_path / "missing.json")
    eventually(lambda: broken.status().last_error)
    assert variant(broken) is None


def test_a_flag_killed_here_serves_its_default_whatever_the_service_says(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAMPLINE_KILL", f"other, {FLAG}")
    client = connect()
    assert client.wait_ready(5)
    answer = client.evaluate(FLAG, Context("user-1"))
    assert (answer.variant, answer.reason, answer.attempt) == ("v7", "DISABLED", None)


def test_a_file_kills_flags_as_long_as_it_names_them(
    connect: Connect, service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "killed"
    file.write_text(f"# since the outage of last night\nother, {FLAG}  # ann\n")
    monkeypatch.setenv("RAMPLINE_KILL_FILE", str(file))
    client = connect()
    assert client.wait_ready(5)
    assert client.evaluate(FLAG, Context("user-1")).reason == "DISABLED"
    service.serve(document(revision=2))
    eventually(lambda: client.status().revision == 2)
    assert variant(client) == "v7", "whatever the service says"
    file.write_bytes(b"\xff")
    eventually(lambda: "cannot be read" in (client.status().last_error or ""))
    assert variant(client) == "v7", "a damaged file brings nothing back"
    file.unlink()
    eventually(lambda: variant(client) == "v8")
    file.write_text(FLAG)
    eventually(lambda: client.evaluate(FLAG, Context("user-1")).reason == "DISABLED")


def test_a_lease_lapses_when_nobody_vouches_and_returns_when_somebody_does(service: Service, connect: Connect) -> None:
    service.serve(document(revision=2, lease_ms=400))
    client = connect()
    eventually(lambda: variant(client) == "v8")
    eventually(lambda: client.status().stream == "open")
    service.engine_age = None
    began = time.monotonic()
    eventually(lambda: client.evaluate(FLAG, Context("user-1")).reason == "STALE")
    assert time.monotonic() - began < 0.6
    assert client.status().lapsed
    service.engine_age = 5_000
    service.push_raw(service.heartbeat())
    time.sleep(0.05)
    assert variant(client) == "v7"
    service.engine_age = 10
    service.push_raw(service.heartbeat())
    eventually(lambda: variant(client) == "v8")


def test_a_lease_follows_the_clock_it_is_given() -> None:
    now = [1_000.0]
    options = msgspec.structs.replace(FAST, monotonic=lambda: now[0])
    client = Client("http://127.0.0.1:9", KEY, environment="production", bootstrap=document(4), options=options)
    served = client._served
    served.vouch(800)
    for after, expected in ((0.0, "v8"), (899.2, "v8"), (899.3, "v7")):
        now[0] = 1_000.0 + after
        again = served.look()
        assert variant(client) == expected
        assert again == (pytest.approx(1_899.2) if expected == "v8" else None)
    served.vouch(None)
    assert variant(client) == "v7"
    served.vouch(900_000)
    assert variant(client) == "v8"
    served.vouch(950_000)
    assert variant(client) == "v8", "an older answer takes nothing back"
