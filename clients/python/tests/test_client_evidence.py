"""What the client counts and sends, and how `run` and `attempt` walk to an answer, against a real service."""

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from clients.python.tests.service import KEY, Service, document, eventually
from rollout_client import Client, Context, Options, Outcome
from rollout_client.evaluation.bucketing import bucket

FLAG = "support-answer"
Connect = Callable[..., Client]


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
    frozen = {"latency_ms": {"cap": 1.0, "thresholds": [100.0, 900.0]}}
    timed = document(revision=2, metrics=["latency_ms"], frozen=frozen)
    timed["metrics"]["latency_ms"] = {"kind": "mean"}
    service.serve(timed)
    client = connect()
    eventually(lambda: client.status().revision == 2)
    client.run(FLAG, Context("user-1"), Model(slow="large"))
    client.close()
    [[n, total, squares, *measured]] = service.measured("latency_ms").values()
    assert (n, measured) == (1, [1, 1, 1, 1, 0])
    assert 300 <= total < 600
    assert squares == pytest.approx(total * total)
    assert not client.status().dropped


def test_a_failing_call_is_logged_once_with_its_place_and_without_its_text(
    service: Service, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect()
    assert client.wait_ready(5)
    for _ in range(20):
        client.run(FLAG, Context("user-1"), Model("large"))
    record, alert = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "breaker_open support-answer/v8" in alert.message
    assert "variant v8" in record.message
    assert "RuntimeError in __call__ (test_client_evidence.py:" in record.message
    assert record.exc_info is None
    assert "overloaded" not in caplog.text
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
    assert client.run(FLAG, Context("user-1"), lambda _: Outcome("x", metrics=3)) == "x"
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
    odd: list[Any] = [None, "", 7, [], {}, object(), "\ud800", Context("\ud800"), Context(None), Context(3, {"a": 1})]
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
