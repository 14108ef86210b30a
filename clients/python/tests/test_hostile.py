"""Hostile values and unlucky moments lose nobody else's evidence, show no user, and break nothing."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from clients.python.tests.service import KEY, Service, document, eventually
from rollout_client import AsyncClient, Client, Context, Options
from rollout_client import sending as sending_module
from rollout_client.evaluation.evaluate import compile_ruleset, evaluate
from rollout_client.evaluation.ruleset import Ruleset

FLAG = "support-answer"


class Unhashable(str):
    """A text that cannot be a key."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]  # as Python itself does for a class with __eq__ alone


def connected(service: Service) -> Client:
    client = Client(service.url, KEY, environment="production", options=Options(flush_interval=60.0))
    client.start()
    assert client.wait_ready(5)
    return client


@pytest.mark.parametrize("by", ["targeting_key", "account"])
def test_a_unit_of_a_strange_kind_is_a_text_like_any_other(service: Service, by: str) -> None:
    made = document()
    if by == "account":
        made["flags"][FLAG]["rules"][-1]["unit"] = "account"
    service.serve(made, announce=False)
    client = connected(service)
    for unit in ("user-1", Unhashable("user-1"), Unhashable("user-2")):
        context = Context(unit) if by == "targeting_key" else Context("somebody", account=unit)
        assert client.evaluate(FLAG, context).attempt == "at_1"
        client.observe("thumbs_down", True, context)
    client.close()
    assert sum(service.counted("first_exposures").values()) == 2
    assert sum(service.counted("exposures").values()) == 3
    assert not client.status().dropped


def test_what_is_evaluated_while_the_client_closes_is_counted_or_dropped(service: Service) -> None:
    client = connected(service)
    answer = client.evaluate(FLAG, Context("user-1"))
    client.close()
    client._folder.noted.append(answer)  # by a thread that had looked up what is served before it lapsed
    assert client.status().dropped == {"exposures": 1}
    assert client.status().dropped == {"exposures": 1}


async def test_a_flush_that_is_cancelled_before_anybody_began_loses_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending_module, "LARGE", 100)
    options = Options(flush_interval=0.2, exit_timeout=3.0)
    async with AsyncClient(service.url, KEY, environment="production", options=options) as client:
        assert await client.wait_ready(5)
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        busy = loop.run_in_executor(None, time.sleep, 1.5)  # the only one there is
        for number in range(1_000):
            client.evaluate(FLAG, Context(f"user-{number}"))
        await asyncio.sleep(0.5)
        await client.close(1.0)
        await busy
    assert sum(service.counted("exposures").values()) + client.status().dropped.get("exposures", 0) == 1_000


def test_a_ruleset_that_could_not_be_fetched_at_first_is_fetched_again(service: Service) -> None:
    whole, service.body = service.body, None
    options = Options(poll_interval=0.2)
    client = Client(service.url, KEY, environment="production", options=options)
    client.start()
    eventually(lambda: service.streams)
    time.sleep(0.3)
    service.body = whole
    assert client.wait_ready(5)
    client.close()


def test_no_unit_is_shown(service: Service) -> None:
    client = connected(service)
    answer = client.evaluate(FLAG, Context("alice@example.com"))
    shown: list[Any] = [repr(answer), str(answer), answer.__rich_repr__()]
    assert "alice" not in str(shown)
    assert "variant='v8'" in shown[0]
    client.close()


def test_thousands_of_rules_are_asked_one_after_the_other() -> None:
    made = document()
    rules: list[Any] = [
        {"kind": "serve", "variant": "v7", "when": {"attribute": "n", "op": "in", "values": [f"v{number}"]}}
        for number in range(8_003)
    ]
    flag = made["flags"][FLAG]
    made["flags"][FLAG] = flag | {"rules": [*rules, *flag["rules"]]}
    compiled = compile_ruleset(msgspec.convert(made, Ruleset))
    for value, attempt in (("v0", None), ("v8", None), ("v8002", None), ("v8003", "at_1")):
        answer = evaluate(compiled, FLAG, Context("user-1", n=value))
        assert (answer.error, answer.attempt) == (None, attempt)
