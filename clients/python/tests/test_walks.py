"""`run`, in threads and in tasks alike: checks, breakers, hedges, and what each counts against the assigned arm."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Literal

import msgspec
import pytest

from clients.python.tests.service import FAST, KEY, Service, eventually
from clients.python.tests.walks import FLAG, completion, counted, mean, measuring
from rollout_client import Alert, AsyncClient, BreakerOptions, Client, Context, Options, Outcome, Price, Prices

USER = Context("user-1")
Mode = Literal["threads", "tasks"]


class Asker:
    """One of the two clients, used as if it were the first: the tests read the same for both."""

    def __init__(self, mode: Mode, url: str, options: Options) -> None:
        self.asked: list[Any] = []
        self._mode = mode
        self._loop = asyncio.Runner()
        kind = Client if mode == "threads" else AsyncClient
        self.client: Any = kind(url, KEY, environment="production", options=options)
        self._do(self.client.start)
        assert self._do(self.client.wait_ready, 5)

    def run(self, call: Callable[[Any], Any], *arguments: Any, **named: Any) -> Any:
        """`call` may return a number of seconds to wait as (seconds, answer)."""

        def sync(value: Any) -> Any:
            self.asked.append(value)
            given = call(value)
            if isinstance(given, tuple):
                time.sleep(given[0])
                given = given[1]
            return given

        async def tasks(value: Any) -> Any:
            self.asked.append(value)
            given = call(value)
            if isinstance(given, tuple):
                await asyncio.sleep(given[0])
                given = given[1]
            return given

        chosen: Any = sync if self._mode == "threads" else tasks
        return self._do(self.client.run, FLAG, USER, chosen, *arguments, **named)

    def close(self) -> None:
        self._do(self.client.close, 1.0)

    def end(self) -> None:
        self.close()
        self._loop.close()

    def _do(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        async def waited() -> Any:
            given: Awaitable[Any] = work(*arguments, **named)
            return await given

        return work(*arguments, **named) if self._mode == "threads" else self._loop.run(waited())


@pytest.fixture(params=["threads", "tasks"])
def ask(request: pytest.FixtureRequest, service: Service) -> Iterator[Callable[..., Asker]]:
    """Make clients of a service whose rollout measures everything; they are closed after the test."""
    service.serve(measuring(), announce=False)
    made: list[Asker] = []

    def make(**options: Any) -> Asker:
        made.append(Asker(request.param, service.url, msgspec.structs.replace(FAST, **options)))
        return made[-1]

    yield make
    for asker in made:
        asker.end()


def fails(*broken: str, error: Exception | None = None) -> Callable[[Any], str]:
    def call(value: Any) -> str:
        if value in broken:
            raise error or TimeoutError
        return f"answer of {value}"

    return call


def test_an_exception_falls_to_the_baseline_with_its_kind(service: Service, ask: Callable[..., Asker]) -> None:
    asker = ask()
    assert asker.run(fails("large", error=ConnectionResetError())) == "answer of small"
    assert asker.run(fails("large", "small"), "person") == "person"
    assert asker.run(fails("large", "small"), lambda: "a person") == "a person"
    asker.close()
    assert counted(service) == {
        "error_rate": [3, 3], "fallback_rate": [3, 3], "failure.provider_error": [3, 1], "failure.timeout": [3, 2],
    }  # fmt: skip
    assert service.measured("failure.other") == {("at_1", "candidate"): [3, 0]}
    assert not asker.client.status().dropped


def test_a_call_that_is_too_slow_is_left(service: Service, ask: Callable[..., Asker]) -> None:
    asker = ask()
    began = time.monotonic()
    assert asker.run(lambda value: (3.0 if value == "large" else 0.0, value), "person", timeout=0.1) == "small"
    assert time.monotonic() - began < 1.0
    asker.close()
    assert counted(service) == {"error_rate": [1, 1], "fallback_rate": [1, 1], "failure.timeout": [1, 1]}


@pytest.mark.parametrize("timeout", [None, 2.0])
def test_an_answer_that_fails_its_check_falls_back(
    service: Service, ask: Callable[..., Asker], timeout: float | None
) -> None:
    asker = ask()

    def parses(answer: str) -> None:
        if "large" in answer:
            raise ValueError

    assert asker.run(lambda value: value, check=lambda answer: answer != "large", timeout=timeout) == "small"
    assert asker.run(lambda value: value, check=parses, timeout=timeout) == "small"
    assert asker.run(lambda value: value, "person", check=lambda _: False, timeout=timeout) == "person"
    assert asker.run(lambda value: value, check=lambda _: None, timeout=timeout) == "large"
    asker.close()
    assert counted(service) == {"error_rate": [4, 3], "fallback_rate": [4, 3], "failure.schema_invalid": [4, 3]}


def test_an_answer_that_is_not_sure_falls_back_and_is_no_error(service: Service, ask: Callable[..., Asker]) -> None:
    asker = ask()
    sure = {"large": 0.2, "small": 0.9}
    assert asker.run(lambda value: Outcome(value, confidence=sure[value]), min_confidence=0.5) == "small"
    asker.close()
    assert counted(service) == {"error_rate": [1, 0], "fallback_rate": [1, 1], "failure.low_confidence": [1, 1]}


def test_a_response_that_is_no_whole_answer_falls_back(service: Service, ask: Callable[..., Asker]) -> None:
    asker = ask(prices=Prices({"gpt-x": Price(input=1.0, output=10.0)}))

    def call(value: str) -> Outcome[str]:
        return Outcome(value, response=completion(reason="length" if value == "large" else "stop"))

    assert asker.run(call) == "small"
    assert asker.run(lambda value: Outcome(value, failure="refusal" if value == "large" else None)) == "small"
    raw = asker.run(lambda value: completion(reason="content_filter" if value == "large" else "stop"))
    assert raw == completion()
    asker.close()
    assert counted(service) == {
        "error_rate": [3, 3], "fallback_rate": [3, 3],
        "failure.truncated": [3, 1], "failure.refusal": [3, 1], "failure.safety_block": [3, 1],
    }  # fmt: skip
    assert mean(service, "input_tokens") == (2, 4000), "both calls of a walk were paid for"
    assert mean(service, "output_tokens") == (2, 400)
    assert mean(service, "cost_usd") == (2, pytest.approx(4 * (1000 * 1.0 + 100 * 10.0) / 1e6))


def test_a_model_without_a_price_costs_nothing_known_and_is_reported_once(
    service: Service, ask: Callable[..., Asker], caplog: pytest.LogCaptureFixture
) -> None:
    asker = ask(prices=Prices({"gpt-x": Price(input=1.0, output=10.0)}))
    for _ in range(3):
        asker.run(lambda _: completion("gpt-y"))
    asker.close()
    assert asker.client.status().dropped == {"unpriced": 3}
    assert mean(service, "input_tokens") == (3, 3000)
    assert mean(service, "cost_usd") is None
    assert [record.message for record in caplog.records if "gpt-y" in record.message and record.levelname == "WARNING"]
    assert sum("gpt-y" in record.message and record.levelname == "WARNING" for record in caplog.records) == 1


def test_the_application_may_say_what_a_failure_is(service: Service, ask: Callable[..., Asker]) -> None:
    def breaks(_: Any) -> Any:
        raise ZeroDivisionError

    asker = ask(classify=lambda _: "refusal", classify_response=lambda response: "truncated" if response == 1 else None)
    assert asker.run(fails("large")) == "answer of small"
    assert asker.run(lambda value: 1 if value == "large" else 2) == 2
    broken = ask(classify=breaks, classify_response=breaks)
    assert broken.run(fails("large")) == "answer of small"
    odd = ask(classify=lambda _: "no such kind")
    assert odd.run(fails("large")) == "answer of small"
    for one in (asker, broken, odd):
        one.close()
    found = counted(service)
    assert (found["failure.refusal"], found["failure.truncated"]) == ([4, 1], [4, 1])
    assert found["failure.other"] == [4, 2]


def test_an_open_breaker_skips_the_call_and_counts_it_against_its_arm(
    service: Service, ask: Callable[..., Asker]
) -> None:
    now = [100.0]
    heard: list[Alert] = []
    asker = ask(breaker=BreakerOptions(consecutive=3, cooldown=30.0), monotonic=lambda: now[0], on_alert=heard.append)
    for _ in range(5):
        assert asker.run(fails("large")) == "answer of small"
    assert asker.asked == ["large", "small"] * 3 + ["small"] * 2
    [alert] = heard
    assert (alert.kind, alert.flag, alert.variant, alert.failure) == ("breaker_open", FLAG, "v8", "timeout")
    assert (alert.rollout, alert.attempt, alert.arm) == ("ro_1", "at_1", "candidate")
    assert (asker.client.status().breakers, asker.client.status().alerts) == ({f"{FLAG}/v8": "timeout"}, 1)
    assert asker.run(lambda value: value, breaker=False) == "large"
    now[0] += 31.0
    assert asker.run(lambda value: value) == "large", "after the cool-down one may try, and closes it"
    assert asker.client.status().breakers == {}
    asker.close()
    assert counted(service) == {"error_rate": [7, 5], "fallback_rate": [7, 5], "failure.timeout": [7, 5]}


def test_both_arms_have_a_breaker_and_with_both_open_the_fallback_answers(ask: Callable[..., Asker]) -> None:
    asker = ask(breaker=BreakerOptions(consecutive=2))
    for _ in range(4):
        assert asker.run(fails("large", "small"), "person") == "person"
    assert asker.asked == ["large", "small"] * 2
    assert asker.client.status().breakers == {f"{FLAG}/v7": "timeout", f"{FLAG}/v8": "timeout"}
    without = ask(breaker=None)
    for _ in range(10):
        without.run(fails("large"))
    assert without.client.status().alerts == 0


def test_what_users_ask_for_opens_no_breaker(ask: Callable[..., Asker]) -> None:
    asker = ask(breaker=BreakerOptions(consecutive=2))
    for _ in range(5):
        asker.run(lambda value: Outcome(value, failure="refusal"), "person")
        asker.run(lambda value: Outcome(value, confidence=0.1), "person", min_confidence=0.5)
    assert asker.client.status().alerts == 0


def test_an_alert_travels_at_once_alone_and_moves_no_evidence(service: Service, ask: Callable[..., Asker]) -> None:
    def broken(_: Alert) -> None:
        raise ZeroDivisionError

    asker = ask(breaker=BreakerOptions(consecutive=2), flush_interval=60.0, on_alert=broken)
    service.faults.extend([503, "cut"])
    for _ in range(3):
        asker.run(fails("large"))

    def arrived() -> list[Alert]:
        if asker._mode == "tasks":
            asker._loop.run(asyncio.sleep(0.02))
        return [alert for batch in list(service.batches.values()) for alert in batch.alerts]

    eventually(arrived)
    assert [(alert.kind, alert.arm) for alert in arrived()] == [("breaker_open", "candidate")]
    assert all(not batch.attempts for batch in service.batches.values()), "evidence waits for its own clock"
    asker.close()
    assert counted(service)["error_rate"] == [3, 3]
    assert all(not batch.alerts for batch in service.batches.values() if batch.attempts)


def test_a_hedge_answers_when_the_candidate_is_slow(service: Service, ask: Callable[..., Asker]) -> None:
    asker = ask()
    slow = {"large": 1.0, "small": 0.0}
    began = time.monotonic()
    assert asker.run(lambda value: (slow[value], value), hedge_after=0.05) == "small"
    assert time.monotonic() - began < 0.8
    assert asker.run(lambda value: (0.0, value), hedge_after=0.3) == "large"
    assert asker.run(lambda value: (0.15 if value == "large" else 0.5, value), hedge_after=0.05) == "large"
    assert asker.asked == ["large", "small", "large", "large", "small"]
    asker.close()
    assert counted(service) == {"error_rate": [3, 0], "fallback_rate": [3, 1]}


def test_a_candidate_that_fails_during_the_hedge_has_failed(service: Service, ask: Callable[..., Asker]) -> None:
    asker = ask()

    def call(value: str) -> Any:
        return (0.15, Outcome(value, failure="refusal")) if value == "large" else (0.3, value)

    assert asker.run(call, hedge_after=0.05) == "small"
    assert asker.run(lambda value: (9.0 if value == "large" else 0.3, value), hedge_after=0.05, timeout=0.2) is None
    asker.close()
    found = counted(service)
    assert (found["error_rate"], found["fallback_rate"]) == ([2, 2], [2, 2])
    assert (found["failure.refusal"], found["failure.timeout"]) == ([2, 1], [2, 1])


@pytest.mark.parametrize("odd", ["4", [], True])
def test_odd_times_are_reported_and_no_failure(ask: Callable[..., Asker], odd: Any) -> None:
    asker = ask()
    assert asker.run(lambda value: value, timeout=odd, hedge_after=odd) == "large"
    assert "run was called without" in asker.client.status().last_error


def test_values_that_cannot_be_hashed_can_be_hedged(service: Service, ask: Callable[..., Asker]) -> None:
    made = measuring(2)
    made["flags"][FLAG]["variants"] = {"v7": {"model": "small"}, "v8": {"model": "large"}}
    service.serve(made, announce=False)
    asker = ask()
    assert asker.run(lambda value: (0.5 if value["model"] == "large" else 0.0, value), hedge_after=0.02) == {
        "model": "small"
    }


def test_a_call_that_is_cancelled_with_whoever_awaits_it_is_an_abandonment(service: Service) -> None:
    service.serve(measuring(), announce=False)

    async def work() -> None:
        async with AsyncClient(service.url, KEY, environment="production", options=FAST) as client:
            assert await client.wait_ready(5)
            stopped = asyncio.Event()

            async def hangs(_: Any) -> None:
                try:
                    await asyncio.sleep(20)
                finally:
                    stopped.set()

            async def fails_then_hangs(value: str) -> None:
                if value == "large":
                    raise TimeoutError
                await hangs(value)

            for call, timeout in ((hangs, None), (hangs, 10.0), (fails_then_hangs, 10.0)):
                stopped.clear()
                task = asyncio.create_task(client.run(FLAG, USER, call, timeout=timeout))
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await asyncio.wait_for(stopped.wait(), 1)

            async def cancels_itself(value: str) -> str:
                if value == "large":
                    raise asyncio.CancelledError
                return value

            for timeout in (None, 1.0):
                assert await client.run(FLAG, USER, cancels_itself, timeout=timeout) == "small"

    asyncio.run(work())
    assert counted(service) == {
        "error_rate": [5, 3], "fallback_rate": [5, 3],
        "failure.user_abandon": [5, 2], "failure.timeout": [5, 1], "failure.other": [5, 2],
    }  # fmt: skip


def test_a_call_that_ignores_its_cancellation_holds_nobody_up(service: Service) -> None:
    async def work() -> None:
        async with AsyncClient(service.url, KEY, environment="production", options=FAST) as client:
            assert await client.wait_ready(5)
            release = asyncio.Event()

            async def stubborn(value: str) -> str:
                while value == "large" and not release.is_set():
                    try:
                        await release.wait()
                    except asyncio.CancelledError:
                        continue
                return value

            began = time.monotonic()
            assert await client.run(FLAG, USER, stubborn, timeout=0.05) == "small"
            assert time.monotonic() - began < 1.0
            release.set()
            await asyncio.sleep(0)

    asyncio.run(work())


def test_a_late_thread_is_heard_no_more(service: Service, ask: Callable[..., Asker]) -> None:
    asker = ask()

    def call(value: str) -> Any:
        return (0.2, Outcome(value, failure="refusal")) if value == "large" else value

    assert asker.run(call, timeout=0.05) == "small"
    time.sleep(0.3)
    asker.close()
    assert counted(service)["error_rate"] == [1, 1]
