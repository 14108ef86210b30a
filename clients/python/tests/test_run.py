"""Nothing that a call, its outcome or its settings are makes `run` raise, or count a good call as a failure."""

import math
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from clients.python.tests.service import Service, eventually
from rollout_client import Client, Context, Outcome
from rollout_client.calls import ABANDONED
from rollout_client.evaluation.operators import _read_date, _read_semver, instant, parse_semver

FLAG = "support-answer"
Connect = Callable[..., Client]


class Hostile:
    """An object of which nothing can be asked."""

    def _no(self, *_: Any) -> Any:
        raise ZeroDivisionError

    __str__ = __repr__ = __eq__ = __ge__ = __bool__ = __float__ = __abs__ = _no
    __hash__ = object.__hash__


class Amount(float):
    """A number that cannot be compared."""

    def __abs__(self) -> float:
        raise ZeroDivisionError

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    __hash__ = float.__hash__


@pytest.mark.parametrize(
    "metrics", [{"self": 1}, {Hostile(): 1}, {"thumbs_down": Hostile()}, {"thumbs_down": Amount(1)}, Hostile()]
)
def test_whatever_an_outcome_says_of_itself_it_is_answered(service: Service, connect: Connect, metrics: Any) -> None:
    client = connect()
    assert client.wait_ready(5)
    assert client.run(FLAG, Context("user-1"), lambda _: Outcome("fine", metrics=metrics)) == "fine"
    client.close()
    assert service.measured("error_rate") == {("at_1", "candidate"): [1, 0]}


@pytest.mark.parametrize("confidence", [Hostile(), Decimal("NaN"), [0.9], "high"])
def test_a_confidence_that_cannot_be_compared_is_not_enough(
    service: Service, connect: Connect, confidence: Any
) -> None:
    client = connect()
    assert client.wait_ready(5)
    answer = client.run(FLAG, None, lambda _: Outcome("x", confidence=confidence), "person", min_confidence=0.5)
    assert answer == "person"


@pytest.mark.parametrize("timeout", [math.inf, 1e12, "4", math.nan, [], True])
def test_an_odd_timeout_is_no_failure_of_the_call(service: Service, connect: Connect, timeout: Any) -> None:
    client = connect()
    assert client.wait_ready(5)
    assert client.run(FLAG, Context("user-1"), lambda value: value, timeout=timeout) == "large"
    assert ("timeout" in (client.status().last_error or "")) == (timeout not in (math.inf, 1e12))
    client.close()
    assert service.measured("error_rate") == {("at_1", "candidate"): [1, 0]}


def test_calls_that_hang_hold_a_bounded_number_of_threads(service: Service, connect: Connect) -> None:
    client = connect()
    assert client.wait_ready(5)
    release = threading.Event()

    def release_or(_: Any) -> Any:
        return release.wait(20)

    def hanging() -> int:
        return sum(thread.name == "rollout-client-call" for thread in threading.enumerate())

    runs = ABANDONED
    for _ in range(runs):
        assert client.run(FLAG, Context("user-1"), release_or, "person", timeout=0.001, breaker=False) == "person"
    assert hanging() <= ABANDONED
    release.set()
    eventually(lambda: hanging() == 0)
    assert client.run(FLAG, Context("user-1"), lambda value: value, timeout=5.0, breaker=False) == "large"
    client.close()
    assert service.measured("error_rate") == {("at_1", "candidate"): [runs + 1, runs]}


def test_no_long_text_of_a_user_is_remembered() -> None:
    _read_semver.cache_clear()
    _read_date.cache_clear()
    long = "1.0.0-" + "a" * 1_000
    assert str(parse_semver(long)) == long
    assert instant("2026-11-23T08:00:00Z" + "0" * 1_000) is None
    assert _read_semver.cache_info().currsize == _read_date.cache_info().currsize == 0
