"""What the tests of applications are given: clients in memory that remember."""

import inspect
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from clients.python.tests.service import document
from rollout_client import AsyncClient, Client, Context, Options, Outcome
from rollout_client.testing import InMemoryAsyncClient, InMemoryClient, in_memory_client

FLAG, USER = "support-answer", Context("user-1")
flags = pytest.fixture(in_memory_client)


@pytest.fixture
def rolled(flags: InMemoryClient) -> InMemoryClient:
    flags.set(FLAG, "v7", {"model": "small"})
    flags.set(FLAG, "v8", {"model": "large"}, baseline="v7")
    return flags


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_a_flag_is_set_in_one_line(flags: InMemoryClient) -> None:
    assert flags.evaluate(FLAG, USER, "mine").value == "mine"
    flags.set(FLAG, "v8", {"model": "large"})
    assert flags.evaluate(FLAG, None).value == {"model": "large"}
    flags.set(FLAG, "v9")
    assert flags.evaluate(FLAG, USER).value == "v9"
    flags.set(FLAG, "v8")
    assert flags.evaluate(FLAG, USER).value == {"model": "large"}
    flags.set(FLAG, "v9", units=["user-2"])
    assert [flags.evaluate(FLAG, Context(f"user-{number}")).variant for number in (1, 2)] == ["v8", "v9"]
    flags.remove(FLAG)
    assert flags.evaluate(FLAG, USER).error == "FLAG_NOT_FOUND"


def test_an_override_ends_with_its_block(flags: InMemoryClient) -> None:
    flags.set(FLAG, "v7", "small")
    with flags.override(FLAG, "v8", "large"), flags.override("other", "on", True):
        assert flags.evaluate(FLAG, USER).value == "large"
        assert flags.evaluate("other", USER).value is True
    assert flags.evaluate(FLAG, USER).value == "small"
    assert flags.evaluate("other", USER).error == "FLAG_NOT_FOUND"
    with pytest.raises(ZeroDivisionError), flags.override(FLAG, "v8"):
        raise ZeroDivisionError
    assert flags.evaluate(FLAG, USER).value == "small"


def test_a_run_goes_back_to_the_baseline_and_all_of_it_is_remembered(rolled: InMemoryClient) -> None:
    def ask(variant: Any) -> Any:
        if variant["model"] == "large":
            raise ConnectionError
        return Outcome("fine", metrics={"cost_usd": 0.01})

    assert rolled.run(FLAG, USER, ask, "person") == "fine"
    [exposed] = rolled.exposures
    assert (exposed.flag, exposed.variant, exposed.context) == (FLAG, "v8", USER)
    assert exposed.evaluation.arm == "candidate"
    assert rolled.observed("error_rate") == [True]
    assert rolled.observed("fallback_rate") == [True]
    assert rolled.observed("cost_usd") == [0.01]
    assert all(each.evaluation is exposed.evaluation for each in rolled.observations)
    rolled.forget()
    assert (rolled.exposures, rolled.observations) == ([], [])


def test_attempts_and_observations_are_remembered(rolled: InMemoryClient) -> None:
    with rolled.attempt(FLAG, USER) as attempt:
        attempt.record(tokens=3)
    assert rolled.observed("tokens") == [3]
    rolled.observe("thumbs_down", True, USER)
    rolled.observe("thumbs_down", False, receipt=attempt.evaluation.receipt)
    assert rolled.observed("thumbs_down") == [True, False]
    last = rolled.observations[-1].receipt
    assert last is not None
    assert (last.flag, last.arm) == (FLAG, "candidate")


def test_alerts_are_remembered_and_passed_on() -> None:
    told: list[Any] = []
    client = InMemoryClient(options=Options(on_alert=told.append))
    client.set(FLAG, "v7", 1)
    client.set(FLAG, "v8", 2, baseline="v7")

    def fail(_: Any) -> None:
        raise ConnectionError

    for _ in range(200):
        client.run(FLAG, USER, fail, "person")
    assert client.alerts == told
    assert {each.variant for each in client.alerts} == {"v7", "v8"}


def test_a_share_of_units_gets_the_candidate(rolled: InMemoryClient) -> None:
    rolled.set(FLAG, "v8", baseline="v7", percentage=50)
    variants = [rolled.evaluate(FLAG, Context(f"user-{number}")).variant for number in range(1000)]
    assert 420 < variants.count("v8") < 580
    assert variants.count("v7") == 1000 - variants.count("v8")


@pytest.mark.parametrize("wrong", [{"baseline": "gone"}, {"percentage": 101}, {"percentage": -1}])
def test_what_cannot_be_is_refused(rolled: InMemoryClient, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"baseline|percentage"):
        rolled.set(FLAG, "v8", **wrong)
    assert rolled.evaluate(FLAG, USER).variant == "v8"


def test_it_begins_with_a_ruleset_where_one_is_given() -> None:
    client = InMemoryClient(document(revision=4), environment="staging")
    answer = client.evaluate(FLAG, USER)
    assert (answer.value, answer.attempt, answer.revision) == ("large", "at_1", 4)
    client.set("other", "v1", 1)
    assert client.evaluate(FLAG, USER).value == "large"
    with pytest.raises(ValueError, match="gone"):
        InMemoryClient(document(candidate="gone"))


def test_it_is_ready_and_has_nothing_to_wait_for(flags: InMemoryClient) -> None:
    flags.start()
    assert flags.wait_ready(0)
    status = flags.status()
    assert (status.ready, status.source, status.stream, status.pending) == (True, "service", "open", 0)
    flags.close()
    assert flags.status().stream == "closed"


async def test_the_one_of_asyncio_does_the_same() -> None:
    async with InMemoryAsyncClient() as client:
        assert await client.wait_ready(0)
        client.set(FLAG, "v7", "small")
        client.set(FLAG, "v8", "large", baseline="v7")

        async def ask(value: str) -> str:
            return value

        assert await client.run(FLAG, USER, ask) == "large"
        assert client.observed("error_rate") == [False]
        assert client.status().stream == "open"
    assert client.status().stream == "closed"


@pytest.mark.parametrize(("ours", "real"), [(InMemoryClient, Client), (InMemoryAsyncClient, AsyncClient)])
def test_every_call_is_the_same_call(ours: type, real: type) -> None:
    for name, method in inspect.getmembers(real, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(getattr(ours, name)) == inspect.signature(method), name
