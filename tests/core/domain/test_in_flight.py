"""Minutes that are not due yet: a catastrophe need not wait for them, and delays that differ by arm are no evidence."""

from typing import Any

import numpy as np
import pytest

from rollout.domain.evidence import Evidence, Increments
from rollout.domain.gather import Round, gather
from rollout.domain.judge import Judgement, Look, judge
from rollout.domain.metric import Metric
from rollout.domain.rollout import Attempt
from rollout.domain.watch import watches
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from tests.core.domain.plans import START, at, rollout

FIRST = int(START.timestamp()) // 60
TIMED = Metric(key="errors", kind="proportion", event="failed or timed out", timeout="30s", maturity="1m")
PLAN = rollout(guardrails=[{"metric": "errors", "max_regression": {"absolute": 0.02}}])
WATCHED = watches(PLAN, {"errors": TIMED})
ATTEMPT = Attempt(id="at_1", number=1, stage=0, epoch=1, percentage=50, opened_at=START)
MARGINS = {"errors": WATCHED[0].margin}


class Service:
    """Requests of both arms as a service would see them: started at once, finished after a delay of their own."""

    def __init__(self, rates: dict[str, float], delays: dict[str, tuple[float, float]], seed: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        self.rates, self.delays = rates, delays  # arm -> (seconds until a success, until a failure)
        self.flying: list[tuple[float, str, int, bool]] = []
        self.evidence = Evidence()

    def second(self, now: int, requests: int = 20) -> Judgement:
        """One second of traffic, one flush, one look."""
        slot, added = FIRST + now // 60, {arm: ArmIncrement() for arm in self.rates}
        for arm, rate in self.rates.items():
            failed = self.rng.random(requests) < rate
            cells = {int(cell): 1 for cell in self.rng.choice(256, requests, replace=False)}
            added[arm].slots[slot] = SlotIncrement(exposures=dict(cells), started=dict(cells))
            self.flying += [(now + self.delays[arm][int(x)], arm, slot, bool(x)) for x in failed]
        landed = [flight for flight in self.flying if flight[0] <= now]
        self.flying = [flight for flight in self.flying if flight[0] > now]
        for _, arm, minute, x in landed:
            found = added[arm].slots.setdefault(minute, SlotIncrement()).metrics.setdefault("errors", MetricIncrement())
            numbers = found.cells.setdefault(int(self.rng.integers(256)), [0.0, 0.0])
            numbers[0] += 1
            numbers[1] += x
        return self.look({"at_1": added}, now)

    def look(self, increments: Increments, now: int) -> Judgement:
        self.evidence = gather(self.evidence, increments, Round(WATCHED, [ATTEMPT], MARGINS, at(now)))
        asked: dict[str, Any] = {"plan": PLAN, "watches": WATCHED, "attempts": (ATTEMPT,), "margins": MARGINS}
        return judge(self.evidence, Look(**asked, units=10**6, attempt_units=10**6, now=at(now), patience=900))


def seconds_until_breach(service: Service, until: int) -> int | None:
    return next((now for now in range(until) if service.second(now).breached), None)


def test_a_catastrophe_is_found_long_before_its_minute_is_due() -> None:
    service = Service({"candidate": 0.5, "baseline": 0.02}, {"candidate": (2, 2), "baseline": (2, 2)})
    found = seconds_until_breach(service, 60)
    assert found is not None
    assert found < 30, "the minute is due after 120 seconds"


@pytest.mark.parametrize("seed", range(4))
def test_delays_that_differ_by_arm_are_no_evidence_of_harm(seed: int) -> None:
    """The candidate fails at once and succeeds late, the baseline the reverse; both fail 20 % of their requests."""
    delays = {"candidate": (10.0, 0.0), "baseline": (0.0, 10.0)}
    assert seconds_until_breach(Service({"candidate": 0.2, "baseline": 0.2}, delays, seed), 90) is None


@pytest.mark.parametrize("seed", range(4))
def test_nor_are_they_evidence_that_all_is_well(seed: int) -> None:
    """The candidate, on its margin of wrong, succeeds at once and fails late."""
    service = Service({"candidate": 0.3, "baseline": 0.2}, {"candidate": (0.0, 10.0), "baseline": (10.0, 0.0)}, seed)
    assert not any(service.second(now).readings[0].verdict == "pass" for now in range(90))


def test_once_due_a_minute_is_bet_for_good_on_the_guess_that_was_made_for_it() -> None:
    service = Service({"candidate": 0.02, "baseline": 0.02}, {"candidate": (1, 1), "baseline": (1, 1)})
    for now in range(185):
        service.second(now)
    mine = service.evidence.metrics["errors"]
    assert mine.watermark == FIRST + 1, "two minutes and their maturity have passed"
    assert mine.totals["at_1"]["candidate"][0] == 2 * 60 * 20
    assert set(mine.guesses) == {FIRST + 2, FIRST + 3}
    assert mine.guesses[FIRST + 3][1] > mine.guesses[FIRST + 2][1] > 50, "each minute knows those before it"
