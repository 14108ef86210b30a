"""A breaker opens on failures that say something of a variant, lets one call try, and costs nothing while closed."""

import threading
import time

from rollout_client import BreakerOptions
from rollout_client.breaker import Breaker, Breakers


def test_failures_in_a_row_open_it_and_one_try_closes_it() -> None:
    breaker = Breaker(BreakerOptions(consecutive=3, cooldown=10.0))
    assert [breaker.failed("timeout", float(second)) for second in range(3)] == [False, False, True]
    assert (breaker.is_open, breaker.kind) == (True, "timeout")
    assert [breaker.admits(now) for now in (2.1, 11.9, 12.0, 12.1, 21.9)] == [False, False, True, False, False]
    assert breaker.succeeded(13.0)
    assert breaker.admits(13.0)
    assert not breaker.failed("timeout", 14.0), "what was before it closed is forgotten"


def test_a_try_that_fails_or_says_nothing_keeps_it_open_for_another_cooldown() -> None:
    breaker = Breaker(BreakerOptions(consecutive=1, cooldown=10.0))
    assert breaker.failed("other", 0.0)
    assert breaker.admits(10.0)
    assert not breaker.failed("other", 12.0)
    assert [breaker.admits(now) for now in (21.9, 22.0)] == [False, True]
    assert [breaker.admits(now) for now in (31.9, 32.0)] == [False, True]


def test_a_success_from_before_it_opened_does_not_close_it() -> None:
    breaker = Breaker(BreakerOptions(consecutive=2, cooldown=10.0))
    breaker.failed("timeout", 0.0)
    breaker.failed("timeout", 0.0)
    assert not breaker.succeeded(1.0)
    assert not breaker.admits(1.0)


def test_a_share_of_the_last_calls_opens_it_and_old_ones_are_forgotten() -> None:
    options = BreakerOptions(consecutive=100, rate=0.5, calls=10, window=60.0)
    breaker = Breaker(options)
    opened = []
    for call in range(10):
        if call % 2:
            opened.append(breaker.failed("provider_error", float(call)))
        else:
            breaker.succeeded(float(call))
    assert opened == [False] * 4 + [True]
    slow = Breaker(options)
    for call in range(40):
        assert not slow.failed("provider_error", call * 30.0), "three calls in a window are no share of ten"


def test_a_check_costs_far_less_than_a_millisecond() -> None:
    breakers = Breakers(BreakerOptions(), time.monotonic)
    began = time.perf_counter()
    for _ in range(10_000):
        breakers.of("flag", "v8").admits(breakers.now())
    assert (time.perf_counter() - began) / 10_000 < 1e-4


def test_of_many_threads_one_may_try() -> None:
    breaker = Breaker(BreakerOptions(consecutive=1, cooldown=5.0))
    breaker.failed("timeout", 0.0)
    admitted: list[bool] = []
    threads = [threading.Thread(target=lambda: admitted.append(breaker.admits(6.0))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 1
