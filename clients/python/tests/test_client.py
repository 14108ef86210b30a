"""The client against a real service: rulesets, streams, evidence, and what goes wrong with them."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clients.python.tests.service import FAST, KEY, Service, document, eventually
from rollout_client import Client, Context, Options, Outcome
from rollout_client.evaluation.bucketing import bucket

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
    b'{"environment": "production", "revision": 9, "schema": 2}',
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


def test_exposures_are_counted_once_each_with_their_units(service: Service, connect: Connect) -> None:
    service.serve(document(revision=2, threshold=50_000))
    client = connect()
    eventually(lambda: client.status().revision == 2)
    units = [f"user-{number}" for number in range(200)]
    for unit in units * 3:
        client.evaluate(FLAG, Context(unit))
    client.close()
    candidates = sum(bucket("support-answer", unit) < 50_000 for unit in units)
    expected = {("at_1", "candidate"): candidates, ("at_1", "baseline"): 200 - candidates}
    assert service.counted("first_exposures") == expected
    assert service.counted("exposures") == {key: 3 * number for key, number in expected.items()}
    assert service.counted("started") == {}
    raw = b"".join(msgspec.json.encode(batch) for batch in service.batches.values())
    assert b"user-" not in raw


@pytest.mark.parametrize("faults", [[503], [429, 500], ["cut"], ["commit then cut"], ["portal"], ["cut", 503, 429]])
def test_a_batch_is_sent_again_with_its_id_until_it_is_acknowledged(
    service: Service, connect: Connect, faults: list[Any]
) -> None:
    client = connect()
    assert client.wait_ready(5)
    service.faults.extend(faults)
    client.evaluate(FLAG, Context("user-1"))
    eventually(lambda: service.posts and client.status().pending == 0 and not service.faults)
    assert len({identity for identity, _ in service.posts}) == 1
    assert len(service.posts) == len(faults) + 1
    assert service.counted("exposures") == {("at_1", "candidate"): 1}
    assert not client.status().dropped


def test_a_batch_that_is_refused_is_dropped_counted_and_said_in_the_next(service: Service, connect: Connect) -> None:
    client = connect()
    assert client.wait_ready(5)
    service.faults.append(422)
    client.evaluate(FLAG, Context("user-1"))
    eventually(lambda: client.status().dropped == {"batches": 1, "exposures": 1, "observations": 0})
    assert "422" in (client.status().last_error or "")
    client.evaluate(FLAG, Context("user-1"))
    eventually(lambda: service.batches)
    [batch] = service.batches.values()
    assert batch.dropped == {"batches": 1, "exposures": 1}


def test_evidence_waits_for_a_service_that_is_away(service: Service, connect: Connect) -> None:
    client = connect()
    assert client.wait_ready(5)
    service.down()
    for _ in range(20):
        client.evaluate(FLAG, Context("user-1"))
        time.sleep(0.02)
    assert client.status().pending <= 5
    service.up()
    eventually(lambda: service.counted("exposures") == {("at_1", "candidate"): 20})


def test_what_is_not_sent_by_the_end_is_counted(service: Service, connect: Connect) -> None:
    client = connect()
    assert client.wait_ready(5)
    service.down()
    for number in range(50):
        client.evaluate(FLAG, Context(f"user-{number}"))
    began = time.monotonic()
    client.close(0.3)
    assert time.monotonic() - began < 1.5
    assert client.status().dropped["exposures"] == 50
    assert client.status().stream == "closed"
    assert client.evaluate(FLAG, Context("user-1")).reason == "STALE"


def test_a_hanging_service_blocks_nobody(service: Service, connect: Connect) -> None:
    client = connect()
    assert client.wait_ready(5)
    service.hangs.set()
    slowest = 0.0
    for number in range(300):
        began = time.perf_counter()
        client.evaluate(FLAG, Context(f"user-{number}"))
        client.observe("thumbs_down", True, Context(f"user-{number}"))
        slowest = max(slowest, time.perf_counter() - began)
        time.sleep(0.001)
    assert slowest < 0.1
    service.hangs.clear()
    eventually(lambda: service.measured("thumbs_down") == {("at_1", "candidate"): [300, 300]})


def test_an_observation_belongs_to_the_recorded_exposure_or_to_the_receipt(service: Service, connect: Connect) -> None:
    client = connect()
    assert client.wait_ready(5)
    context = Context("user-1")
    answer = client.evaluate(FLAG, context)
    client.observe("thumbs_down", True, context)
    client.observe("thumbs_down", False, context)
    client.observe("thumbs_down", True, Context("user-2"))
    client.observe("thumbs_down", True)
    client.observe("thumbs_down", "yes", context)
    client.observe("thumbs_down", True, receipt="r1.nonsense")
    client.observe("thumbs_down", True, context, receipt="r1.nonsense")
    client.observe("other", True, context)
    elsewhere = connect()
    assert elsewhere.wait_ready(5)
    elsewhere.observe("thumbs_down", True, receipt=answer.receipt)
    elsewhere.close()
    client.close()
    assert service.measured("thumbs_down") == {("at_1", "candidate"): [3, 2]}
    assert client.status().dropped == {"no_exposure": 4, "bad_value": 1, "unused": 1}
    assert sum(batch.dropped.get("observations", 0) for batch in service.batches.values()) <= 5


class Model:
    """An AI call that fails for the variants it is told to."""

    def __init__(self, *broken: str, slow: str | None = None) -> None:
        self.broken, self.slow, self.asked = broken, slow, list[Any]()

    def __call__(self, value: Any) -> str:
        self.asked.append(value)
        if value in self.broken:
            raise RuntimeError("overloaded")
        if value == self.slow:
            time.sleep(0.3)
        return f"answer of {value}"


@pytest.mark.parametrize(
    ("threshold", "model", "answer", "asked", "failed", "fell_back"),
    [
        (100_000, Model(), "answer of large", ["large"], 0, 0),
        (100_000, Model("large"), "answer of small", ["large", "small"], 1, 1),
        (100_000, Model("large", "small"), "a person will help", ["large", "small"], 1, 1),
        (100_000, Model("small"), "answer of large", ["large"], 0, 0),
        (0, Model(), "answer of small", ["small"], 0, 0),
        (0, Model("small"), "a person will help", ["small"], 1, 1),
        (100_000, Model(slow="large"), "answer of small", ["large", "small"], 1, 1),
    ],
)
def test_run_walks_to_an_answer_and_counts_against_the_assigned_arm(
    service: Service,
    connect: Connect,
    threshold: int,
    model: Model,
    answer: str,
    asked: list[str],
    failed: int,
    fell_back: int,
) -> None:
    service.serve(document(revision=2, threshold=threshold))
    client = connect()
    eventually(lambda: client.status().revision == 2)
    timeout = 0.1 if model.slow else None
    assert client.run(FLAG, Context("user-1"), model, fallback="a person will help", timeout=timeout) == answer
    assert model.asked == asked
    client.close()
    where = ("at_1", "candidate" if threshold else "baseline")
    assert service.counted("started") == service.counted("exposures") == {where: 1}
    assert service.measured("error_rate") == {where: [1, failed]}
    assert service.measured("fallback_rate") == {where: [1, fell_back]}


def test_the_time_an_attempt_took_counts_where_a_rollout_asks_for_it(service: Service, connect: Connect) -> None:
    timed = document(revision=2, metrics=["latency_ms"])
    timed["metrics"]["latency_ms"] = {"kind": "mean", "cap": 1.0}
    service.serve(timed)
    client = connect()
    eventually(lambda: client.status().revision == 2)
    client.run(FLAG, Context("user-1"), Model(slow="large"))
    client.close()
    [[n, total, squares, capped]] = service.measured("latency_ms").values()
    assert (n, capped) == (1, 1)
    assert 300 <= total < 600
    assert squares == pytest.approx(total * total)
    assert not client.status().dropped


def test_a_failing_call_is_logged_with_its_trace_once(
    service: Service, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect()
    assert client.wait_ready(5)
    for _ in range(20):
        client.run(FLAG, Context("user-1"), Model("large"))
    [record] = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "variant v8" in record.message
    assert record.exc_info is not None
    assert client.status().last_error is None


def test_low_confidence_falls_back_without_being_an_error(service: Service, connect: Connect) -> None:
    client = connect()
    assert client.wait_ready(5)
    sure = {"large": 0.3, "small": 0.9}

    def call(value: str) -> Outcome[str]:
        return Outcome(value, confidence=sure[value], metrics={"thumbs_down": True, "other": 1, "error_rate": True})

    assert client.run(FLAG, Context("user-1"), call, min_confidence=0.6) == "small"
    assert client.run(FLAG, Context("user-1"), call, lambda: "person", min_confidence=0.95) == "person"
    assert client.run(FLAG, Context("user-1"), call) == "large"
    client.close()
    assert service.measured("error_rate") == {("at_1", "candidate"): [3, 0]}
    assert service.measured("fallback_rate") == {("at_1", "candidate"): [3, 2]}
    assert service.measured("thumbs_down") == {("at_1", "candidate"): [2, 2]}


def test_run_answers_without_a_service_and_with_a_broken_fallback() -> None:
    client = Client("http://127.0.0.1:9", KEY, environment="production")
    asked: list[Any] = []

    def call(value: Any) -> Any:
        asked.append(value)
        raise RuntimeError("no model")

    def broken() -> str:
        raise RuntimeError("no person")

    assert client.run(FLAG, Context("user-1"), call, "sorry") == "sorry"
    assert client.run(FLAG, Context("user-1"), call, broken) is None
    assert client.run(FLAG, Context("user-1"), lambda _: Outcome("x", metrics=3)) == "x"  # type: ignore[arg-type]
    assert asked == [None, None]


def test_what_is_no_exception_passes_and_leaves_the_attempt_open(service: Service, connect: Connect) -> None:
    client = connect()
    assert client.wait_ready(5)

    def interrupted(_: Any) -> Any:
        raise KeyboardInterrupt

    for timeout in (None, 1.0):
        with pytest.raises(KeyboardInterrupt):
            client.run(FLAG, Context("user-1"), interrupted, timeout=timeout)
    client.close()
    assert service.counted("started") == {("at_1", "candidate"): 2}
    assert service.measured("error_rate") == {}


def test_the_long_form_records_what_it_is_told_and_lets_exceptions_through(service: Service, connect: Connect) -> None:
    client = connect()
    assert client.wait_ready(5)
    with client.attempt(FLAG, Context("user-1")) as attempt:
        assert attempt.value == "large"
        attempt.record(thumbs_down=True)
        attempt.record(thumbs_down=False)

    def breaks() -> None:
        with client.attempt(FLAG, Context("user-1")) as attempt:
            attempt.record(thumbs_down=True)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        breaks()
    client.close()
    assert service.counted("started") == {("at_1", "candidate"): 2}
    assert service.measured("error_rate") == {("at_1", "candidate"): [2, 1]}
    assert service.measured("thumbs_down") == {("at_1", "candidate"): [2, 1]}


def test_an_answer_that_is_no_evidence_ends_the_exposure(service: Service, connect: Connect) -> None:
    client = connect()
    eventually(lambda: client.status().stream == "open")
    client.evaluate(FLAG, Context("user-1"))
    killed = document(revision=2)
    killed["flags"][FLAG]["killed"] = True
    service.serve(killed)
    eventually(lambda: client.evaluate(FLAG, Context("user-1")).reason == "DISABLED")
    client.observe("thumbs_down", True, Context("user-1"))
    assert client.run(FLAG, Context("user-1"), lambda value: value) == "small"
    service.serve(document(revision=3))
    eventually(lambda: client.evaluate(FLAG, Context("user-1")).reason == "SPLIT")
    client.observe("thumbs_down", True, Context("user-1"))
    client.close()
    assert service.measured("thumbs_down") == {("at_1", "candidate"): [1, 1]}
    assert service.counted("started") == {}
    assert service.counted("first_exposures") == {("at_1", "candidate"): 1}


def test_nothing_an_application_passes_makes_it_raise(service: Service, connect: Connect) -> None:
    client = connect()
    assert client.wait_ready(5)
    odd: list[Any] = [None, "", 7, [], {}, object(), "\ud800", Context("\ud800"), Context(None), Context(3, {"a": 1})]  # type: ignore[arg-type]
    for thing in odd:
        for flag in (FLAG, thing):
            answer = client.evaluate(flag, thing, default="d")
            assert answer.value in ("small", "large", "d")
            client.observe(flag, thing, thing, receipt=thing)
            client.observe("thumbs_down", thing, thing)
            assert client.run(flag, thing, lambda value: "answered", thing) == "answered"
    assert client.evaluate(FLAG, None).error == "TARGETING_KEY_MISSING"


def test_a_client_can_be_closed_twice_and_before_it_starts() -> None:
    client = Client("http://127.0.0.1:9", KEY, environment="production")
    assert client.status().stream == "off"
    client.close()
    client.close()
    client.start()
    assert client.status().stream == "closed"


def test_options_are_keywords_with_defaults() -> None:
    assert Options().poll_interval == 5.0
    assert Options().flush_exposures == 5_000
