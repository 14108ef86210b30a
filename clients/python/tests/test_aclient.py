"""The client of an asyncio application against a real service: no thread of its own, no call that holds the loop up."""

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clients.python.tests.service import FAST, KEY, Service, document
from rollout_client import AsyncClient, Context, Options

FLAG, USER = "support-answer", Context("user-1")


@pytest.fixture
async def client(service: Service) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(service.url, KEY, environment="production", options=FAST) as made:
        yield made


async def eventually(check: Any, within: float = 5.0) -> Any:
    until = time.monotonic() + within
    while not (found := check()):
        assert time.monotonic() < until, "it did not happen in time"
        await asyncio.sleep(0.005)
    return found


async def test_it_serves_follows_and_sends(service: Service, client: AsyncClient) -> None:
    assert await client.wait_ready(5)
    assert client.evaluate(FLAG, USER).variant == "v8"
    client.observe("thumbs_down", True, USER)
    await eventually(lambda: client.status().stream == "open")
    service.serve(document(revision=2, threshold=0))
    await eventually(lambda: client.evaluate(FLAG, USER).variant == "v7")
    patch = {"base": 2, "revision": 3, "flags": {FLAG: document()["flags"][FLAG]}}
    service.revision, service.body = 3, json.dumps(document(3)).encode()
    service.push("patch", json.dumps(patch).encode(), 3)
    await eventually(lambda: client.evaluate(FLAG, USER).variant == "v8")
    await eventually(lambda: service.measured("thumbs_down") == {("at_1", "candidate"): [1, 1]})
    await client.close()
    assert (client.status().stream, client.status().last_error) == ("closed", None)
    assert client.evaluate(FLAG, USER).reason == "STALE"
    await client.close()
    await client.start()
    assert client.status().stream == "closed"


async def test_it_has_no_thread_of_its_own(service: Service, client: AsyncClient) -> None:
    assert await client.wait_ready(5)
    for _ in range(20):
        client.evaluate(FLAG, USER)
        await asyncio.sleep(0.01)
    # Other tests of this process may have left threads of theirs; the synchronous client's have this name.
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("rollout-client")]
    await eventually(lambda: service.counted("exposures").get(("at_1", "candidate")) == 20)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "no address at all", None])
async def test_a_start_waits_for_nobody(service: Service, address: str | None) -> None:
    service.hangs.set()
    client = AsyncClient(address or service.url, KEY, environment="production", options=FAST)
    began = time.perf_counter()
    await client.start()
    answer = client.evaluate(FLAG, USER, default="small")
    assert time.perf_counter() - began < 0.05
    assert (answer.value, answer.error) == ("small", "PROVIDER_NOT_READY")
    assert not await client.wait_ready(0.05)
    began = time.perf_counter()
    await client.close(0.2)
    assert time.perf_counter() - began < 1.5


async def test_the_last_ruleset_is_kept_on_disk_and_served_from_there(service: Service, tmp_path: Path) -> None:
    async with AsyncClient(service.url, KEY, environment="production", cache_dir=tmp_path, options=FAST) as client:
        assert await client.wait_ready(5)
    service.down()
    async with AsyncClient(service.url, KEY, environment="production", cache_dir=tmp_path, options=FAST) as client:
        await eventually(lambda: client.status().source == "disk")
        assert client.evaluate(FLAG, USER).reason == "STALE"
        assert not await client.wait_ready(0.02)


async def test_a_bootstrap_document_answers_before_the_start() -> None:
    client = AsyncClient("http://127.0.0.1:9", KEY, environment="production", bootstrap=document())
    assert client.evaluate(FLAG, USER).variant == "v7"
    await client.close()


def test_a_loop_that_ends_sends_what_is_left_first(service: Service) -> None:
    async def work() -> AsyncClient:
        slow = msgspec.structs.replace(FAST, flush_interval=60.0)
        client = AsyncClient(service.url, KEY, environment="production", options=slow)
        await client.start()
        assert await client.wait_ready(5)
        for number in range(50):
            client.evaluate(FLAG, Context(f"user-{number}"))
        return client

    client = asyncio.run(work())
    assert service.counted("exposures") == {("at_1", "candidate"): 50}
    assert client.status().stream == "closed"
    assert client.evaluate(FLAG, USER).reason == "STALE"


async def test_what_is_not_sent_by_the_end_is_counted(service: Service, client: AsyncClient) -> None:
    assert await client.wait_ready(5)
    service.down()
    for number in range(50):
        client.evaluate(FLAG, Context(f"user-{number}"))
    began = time.monotonic()
    await client.close(0.3)
    assert time.monotonic() - began < 1.5
    assert client.status().dropped["exposures"] == 50


async def test_threads_of_the_application_may_use_it(service: Service, client: AsyncClient) -> None:
    assert await client.wait_ready(5)

    def work() -> None:
        for _ in range(200):
            client.evaluate(FLAG, USER)
            client.observe("thumbs_down", True, USER)

    await asyncio.gather(*(asyncio.to_thread(work) for _ in range(4)))
    await client.close()
    assert service.counted("exposures") == {("at_1", "candidate"): 800}


def large(revision: int = 1, flags: int = 1500) -> dict[str, Any]:
    made = document(revision)
    made["flags"] |= {f"flag-{number}": made["flags"][FLAG] for number in range(flags)}
    return made


async def test_a_large_ruleset_is_decoded_and_compiled_aside(service: Service) -> None:
    service.serve(large(), announce=False)
    seen: set[str] = set()
    client = AsyncClient(service.url, KEY, environment="production", options=FAST)
    compiling = client._served.compile

    def compile_here(*given: Any) -> Any:
        seen.add(threading.current_thread().name)
        return compiling(*given)

    client._served.compile = compile_here
    async with client:
        assert await client.wait_ready(10)
        await eventually(lambda: client.status().stream == "open")
        assert client.evaluate("flag-7", USER).variant == "v8"
        service.serve(large(revision=2))
        await eventually(lambda: client.status().revision == 2)
        patch = {"base": 2, "revision": 3, "flags": {"flag-7": None}}
        service.revision, service.body = 3, json.dumps(large(3)).encode()
        service.push("patch", json.dumps(patch).encode(), 3)
        await eventually(lambda: client.evaluate("flag-7", USER).error == "FLAG_NOT_FOUND")
        assert client.status().last_error is None
    assert threading.current_thread().name not in seen


async def test_what_is_too_large_for_an_event_is_fetched_instead(service: Service) -> None:
    service.serve(large(flags=3000), announce=False)
    async with AsyncClient(service.url, KEY, environment="production", options=FAST) as client:
        await eventually(lambda: client.status().stream == "open")
        client._served.patched = None  # nobody asks it
        service.serve(large(2, 3000), announce=False)
        service.push("patch", json.dumps(large(2, 3000) | {"base": 1}).encode(), 2)
        await eventually(lambda: client.status().revision == 2)
        assert client.status().last_error is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_answers_and_may_start_it_again(service: Service) -> None:
    client = AsyncClient(service.url, KEY, environment="production", options=FAST)
    reading, writing = os.pipe()

    async def again() -> list[str | None]:
        stale = client.evaluate(FLAG, USER).reason
        await client.start()
        assert await client.wait_ready(5)
        await eventually(lambda: client.evaluate(FLAG, USER).reason == "SPLIT")
        await client.close()
        return [stale, client.status().last_error]

    async def work() -> None:
        async with client:
            assert await client.wait_ready(5)
            client.evaluate(FLAG, USER)
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    asyncio._set_running_loop(None)
                    os.write(writing, json.dumps(asyncio.run(again())).encode())
                    status = 0
                finally:
                    os._exit(status)
            assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0

    asyncio.run(work())
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert json.loads(pipe.read()) == ["STALE", None]
    assert len({one.process for one in service.batches.values()}) == 2


async def test_the_loop_is_not_held_up_by_a_start(service: Service) -> None:
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0)
            worst = max(worst, time.perf_counter() - before)

    ticking = asyncio.create_task(tick())
    client = AsyncClient(service.url, KEY, environment="production", options=Options(flush_interval=0.05))
    async with client:
        assert await client.wait_ready(5)
        await asyncio.sleep(0.2)
    ticking.cancel()
    assert worst < 0.25, "the whole start, with imports and certificates, would have taken longer on the loop"
