"""The long form: steps, responses, streams and failures of one attempt, with `with` and `async with` alike."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import msgspec
import pytest

from clients.python.tests.service import FAST, KEY, Service
from clients.python.tests.walks import (
    FLAG,
    chat_chunks,
    completion,
    counted,
    mean,
    measuring,
    message_events,
    response_events,
)  # fmt: skip
from rollout_client import AsyncClient, Attempt, BreakerOptions, Client, Context, Price, Prices
from rollout_client.fold import Folder

USER = Context("user-1")


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    service.serve(measuring(), announce=False)
    prices = Prices({"gpt-x": Price(input=1.0, output=10.0), "claude-x": Price(input=1.0, output=10.0, cached=0.1)})
    made = Client(service.url, KEY, environment="production", options=msgspec.structs.replace(FAST, prices=prices))
    made.start()
    assert made.wait_ready(5)
    yield made
    made.close(1.0)


async def each(chunks: Iterable[Any]) -> AsyncIterator[Any]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


def read(attempt: Attempt, chunks: Iterable[Any], asynchronous: bool) -> list[Any]:
    if not asynchronous:
        return list(attempt.stream(chunks))

    async def work() -> list[Any]:
        return [chunk async for chunk in attempt.stream(each(chunks))]

    return asyncio.run(work())


def test_steps_are_timed_and_only_what_is_asked_for_is_recorded(service: Service, client: Client) -> None:
    with client.attempt(FLAG, USER) as attempt:
        for _ in range(2):
            with attempt.step("retrieve"):
                pass
        with attempt.step("generate"):
            pass
        attempt.record(thumbs_down=True)
    client.close()
    assert (mean(service, "latency_ms.retrieve") or (0,))[0] == 1
    assert client.status().dropped == {"unused": 1}, "a step nobody asks for is no loss, a metric of the caller is"


def test_a_step_that_raises_is_timed_too(service: Service, client: Client) -> None:
    def breaks() -> None:
        with client.attempt(FLAG, USER) as attempt, attempt.step("retrieve"):
            raise TimeoutError

    with pytest.raises(TimeoutError):
        breaks()
    client.close()
    assert mean(service, "latency_ms.retrieve") is not None
    assert counted(service) == {"error_rate": [1, 1], "fallback_rate": [1, 1], "failure.timeout": [1, 1]}


def test_responses_add_up_and_the_last_one_says_how_it_went(service: Service, client: Client) -> None:
    with client.attempt(FLAG, USER) as attempt:
        attempt.response(completion(reason="length"))
        attempt.response(completion())
    with client.attempt(FLAG, USER) as attempt:
        attempt.response(completion(reason="length"))
        attempt.record(fallback_rate=False)
    client.close()
    assert counted(service) == {"error_rate": [2, 1], "fallback_rate": [2, 0], "failure.truncated": [2, 1]}
    assert mean(service, "input_tokens") == (2, 3000)
    assert mean(service, "cost_usd") == (2, pytest.approx(0.006))


def test_a_failure_that_raises_nothing_can_be_said(service: Service, client: Client) -> None:
    kinds: list[Any] = ["tool_error", None, "no such kind", "low_confidence"]
    for kind in kinds:
        with client.attempt(FLAG, USER) as attempt:
            attempt.fail(kind)
    client.close()
    assert counted(service) == {
        "error_rate": [4, 3], "fallback_rate": [4, 4],
        "failure.tool_error": [4, 1], "failure.other": [4, 2], "failure.low_confidence": [4, 1],
    }  # fmt: skip
    assert "no such kind" in (client.status().last_error or "")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("make", "cost"), [(chat_chunks, 0.002), (message_events, 0.001109), (response_events, 0.002)])
def test_a_stream_is_passed_on_timed_and_read_for_its_usage(
    service: Service, client: Client, make: Callable[[], Iterator[Any]], cost: float, asynchronous: bool
) -> None:
    with client.attempt(FLAG, USER) as attempt:
        assert read(attempt, make(), asynchronous) == list(make())
    client.close()
    assert counted(service) == {"error_rate": [1, 0], "fallback_rate": [1, 0]}
    assert (mean(service, "input_tokens"), mean(service, "output_tokens")) == ((1, 1000), (1, 100))
    assert mean(service, "cost_usd") == (1, pytest.approx(cost))
    assert (mean(service, "time_to_first_token_ms") or (0,))[0] == 1


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("chunks", "kind"),
    [
        (lambda: chat_chunks("length"), "truncated"),
        (lambda: message_events("refusal"), "refusal"),
        (lambda: response_events("content_filter"), "safety_block"),
    ],
)
def test_a_stream_that_ends_early_by_itself_is_a_failure(
    service: Service, client: Client, chunks: Callable[[], Iterator[Any]], kind: str, asynchronous: bool
) -> None:
    with client.attempt(FLAG, USER) as attempt:
        read(attempt, chunks(), asynchronous)
    client.close()
    assert counted(service)[f"failure.{kind}"] == [1, 1]


def test_the_first_token_is_no_envelope(service: Service, client: Client) -> None:
    def empty() -> Iterator[Any]:
        chunks = chat_chunks()
        yield next(chunks)

    for chunks in (empty(), iter(["any", "shape"])):
        with client.attempt(FLAG, USER) as attempt:
            list(attempt.stream(chunks))
    client.close()
    assert (mean(service, "time_to_first_token_ms") or (0,))[0] == 1


class Closing:
    """A stream of a library, which is closed by whoever is done with it."""

    def __init__(self) -> None:
        self.closed = False
        self._chunks = chat_chunks()

    def __iter__(self) -> Iterator[Any]:
        return self._chunks

    def close(self) -> None:
        self.closed = True


def test_a_stream_that_is_not_read_to_its_end_is_an_abandonment(service: Service, client: Client) -> None:
    library = Closing()
    with client.attempt(FLAG, USER) as attempt:
        stream = attempt.stream(library)
        next(stream)
        stream.close()
    with client.attempt(FLAG, USER) as attempt:
        for _ in attempt.stream(chat_chunks()):
            break
    with client.attempt(FLAG, USER) as attempt:
        attempt.stream(chat_chunks())

    def generated() -> Iterator[Any]:
        with client.attempt(FLAG, USER) as attempt:
            yield from attempt.stream(chat_chunks())

    answer = generated()
    next(answer)
    answer.close()
    client.close()
    assert library.closed
    assert counted(service) == {"error_rate": [4, 0], "fallback_rate": [4, 0], "failure.user_abandon": [4, 3]}


def test_a_stream_that_breaks_is_what_its_error_says(service: Service, client: Client) -> None:
    def breaks() -> Iterator[Any]:
        yield from list(chat_chunks())[:2]
        raise ConnectionResetError

    with client.attempt(FLAG, USER) as attempt, pytest.raises(ConnectionResetError):
        list(attempt.stream(breaks()))
    with client.attempt(FLAG, USER) as attempt:
        with pytest.raises(ConnectionResetError):
            list(attempt.stream(breaks()))
        list(attempt.stream(chat_chunks()))
    client.close()
    assert counted(service) == {"error_rate": [2, 1], "fallback_rate": [2, 1], "failure.provider_error": [2, 1]}


def test_attempts_open_a_breaker_and_are_told_of_it(service: Service, client: Client) -> None:
    quick = msgspec.structs.replace(FAST, breaker=BreakerOptions(consecutive=2, cooldown=0.05))
    with Client(service.url, KEY, environment="production", options=quick) as one:
        assert one.wait_ready(5)
        for _ in range(2):
            with one.attempt(FLAG, USER) as attempt:
                assert not attempt.broken
                attempt.fail("rate_limited")
        with one.attempt(FLAG, USER) as attempt:
            assert attempt.broken
            attempt.fail()
        assert (one.status().alerts, one.status().breakers) == (1, {f"{FLAG}/v8": "rate_limited"})
    assert counted(service)["failure.rate_limited"] == [3, 3]


def test_the_long_form_works_with_async_with(service: Service) -> None:
    service.serve(measuring(), announce=False)

    async def work() -> None:
        async with AsyncClient(service.url, KEY, environment="production", options=FAST) as client:
            assert await client.wait_ready(5)
            async with client.attempt(FLAG, USER) as attempt:
                assert attempt.value == "large"
                async with attempt.step("retrieve"):
                    await asyncio.sleep(0.01)
                assert [chunk async for chunk in attempt.stream(each([1, 2]))] == [1, 2]
            async with client.attempt(FLAG, USER) as attempt:
                stream = attempt.stream(each(chat_chunks()))
                await anext(stream.__aiter__())
                await stream.aclose()

            async def hangs() -> None:
                async with client.attempt(FLAG, USER):
                    await asyncio.sleep(10)

            task = asyncio.create_task(hangs())
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.wait([task])

    asyncio.run(work())
    assert counted(service) == {"error_rate": [3, 0], "fallback_rate": [3, 0], "failure.user_abandon": [3, 2]}
    assert (mean(service, "latency_ms.retrieve") or (0, 0))[1] >= 10


def test_an_attempt_that_is_no_evidence_records_nothing(client: Client) -> None:
    with client.attempt("no such flag", USER) as attempt:
        attempt.response(completion())
        attempt.fail("timeout")
    assert isinstance(client._folder, Folder)
    assert client._folder.take(0) == []
    assert client.status().dropped == {}
