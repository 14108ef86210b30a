"""The judge as the engine runs it, under nulls that a hostile reader would try: users whose requests repeat each other.

Each scenario broke an error rate once. Rates are over simulated rollouts of the real gather and judge.
"""

import math

import numpy as np
import pytest

from rollout.domain.metric import Metric
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from tests.validity.judged import FIRST, Rollout

pytestmark = pytest.mark.slow
ERRORS = Metric(key="e", kind="proportion", event="it failed")
ARMS = ("candidate", "baseline")


def bursts(rng: np.random.Generator, timed: bool) -> bool:
    """Four users a minute, twenty requests each; a tenth of the users fail always, in either arm. Rolled back?"""
    metric = Metric(key="e", kind="proportion", event="it failed", timeout="30s", maturity="10m") if timed else ERRORS
    guardrail = {"metric": "e", "max_regression": {"relative": 0.25}, "rollback_on": "any_regression"}
    subject, users, units = Rollout(metric, guardrails=[guardrail]), [], 0
    for second in range(0, 12 * 60, 15):
        if second % 60 == 0:
            users = [(ARMS[rng.integers(2)], int(rng.integers(256)), int(rng.random() < 0.1)) for _ in range(4)]
            units += sum(arm == "candidate" for arm, _, _ in users)
        arms = {}
        for arm in ARMS:
            cells: dict[int, list[float]] = {}
            for _, cell, fails in (user for user in users if user[0] == arm):
                numbers = cells.setdefault(cell, [0.0, 0.0])
                numbers[0], numbers[1] = numbers[0] + 5, numbers[1] + 5 * fails
            n = {cell: int(numbers[0]) for cell, numbers in cells.items()}
            slot = SlotIncrement(exposures=n, started=dict(n), metrics={"e": MetricIncrement(cells=cells)})
            arms[arm] = ArmIncrement(slots={FIRST + second // 60: slot} if cells else {})
        if subject.look(second + 14, arms, units).breached:
            return True
    return False


@pytest.mark.parametrize("timed", [True, False])
def test_users_who_always_or_never_fail_are_no_harm_while_their_first_minutes_are_open(timed: bool) -> None:
    rng = np.random.default_rng(5)
    assert sum(bursts(rng, timed) for _ in range(100)) <= 3, "alpha is .01"


def heavy(rng: np.random.Generator, *, harm: bool) -> bool:
    """3 % of the users make 300 requests, all their outcomes alike; the candidate is on its margin. Wrong?"""
    guardrail = {"metric": "e", "max_regression": {"absolute": 0.05}}
    subject = Rollout(ERRORS, guardrails=[guardrail], analysis={"alpha_rollback": 0.05})
    for look in range(40):
        arms = {}
        for arm, rate in (("candidate", 0.15), ("baseline", 0.10)):
            cells: dict[int, list[float]] = {}
            for _ in range(10):
                requests = 300 if rng.random() < 0.03 else 1
                numbers = cells.setdefault(int(rng.integers(256)), [0.0, 0.0])
                numbers[0], numbers[1] = numbers[0] + requests, numbers[1] + requests * (rng.random() < rate)
            n = {cell: int(numbers[0]) for cell, numbers in cells.items()}
            slot = SlotIncrement(exposures=n, metrics={"e": MetricIncrement(cells=cells)})
            arms[arm] = ArmIncrement(slots={FIRST: slot})
        found = subject.look(look, arms, 10 * (look + 1))
        if found.breached if harm else found.readings[0].verdict == "pass":
            return True
    return False


@pytest.mark.parametrize("harm", [True, False])
def test_a_few_heavy_users_neither_roll_back_nor_open_a_gate(harm: bool) -> None:
    rng = np.random.default_rng(6)
    assert sum(heavy(rng, harm=harm) for _ in range(100)) <= 9, "alpha is .05"


def uncounted(rng: np.random.Generator) -> bool:
    """Latencies from clients that count no thresholds, alike within a user, reopened each quarter of an hour."""
    guardrail = {"metric": "l", "focus": "p90", "max_regression": {"relative": 0.1}, "rollback_on": "any_regression"}
    subject, units = Rollout(Metric(key="l", kind="quantile"), guardrails=[guardrail]), 0
    for minute in range(60):
        if minute and minute % 15 == 0:
            subject.reopen(60.0 * minute)
            units = 0
            if subject.look(60.0 * minute, {}, 0).breached:
                return True
        arms = {}
        for arm in ARMS:
            users = max(1, int(rng.binomial(20, 0.5)))
            units += users if arm == "candidate" else 0
            where = rng.integers(0, 256, users).tolist()
            buckets = [math.floor(64 * (math.log2(100) + 1.15 * z)) for z in rng.normal(size=users).tolist()]
            metric = MetricIncrement()
            for cell, bucket in zip(where, buckets, strict=True):
                metric.cells[cell] = [metric.cells.get(cell, [0.0])[0] + 20]
                metric.histogram[bucket] = metric.histogram.get(bucket, 0) + 20
            n = {cell: int(numbers[0]) for cell, numbers in metric.cells.items()}
            arms[arm] = ArmIncrement(slots={FIRST + minute: SlotIncrement(exposures=n, metrics={"l": metric})})
        if subject.look(60.0 * minute + 1, arms, units).breached:
            return True
    return False


def test_a_new_attempt_does_not_forget_that_users_repeat_themselves() -> None:
    rng = np.random.default_rng(2)
    assert sum(uncounted(rng) for _ in range(60)) <= 2, "alpha is .01"


def returning(rng: np.random.Generator, attempts: int) -> bool:
    """Two thousand users of whom nine tenths come in each attempt of a stage, always in the same arm. An alarm?"""
    guardrail = {"metric": "e", "max_regression": {"relative": 0.2}}
    subject = Rollout(ERRORS, guardrails=[guardrail])
    candidate, cell = rng.random(2000) < 0.5, rng.integers(256, size=2000)
    for number in range(attempts):
        if number:
            subject.reopen(600.0 * number)
        seen, arms = rng.random(2000) < 0.9, {}
        for arm, mine in (("candidate", candidate), ("baseline", ~candidate)):
            n = {c: int(k) for c, k in enumerate(np.bincount(cell[seen & mine], minlength=256)) if k}
            arms[arm] = ArmIncrement(slots={FIRST + 10 * number: SlotIncrement(exposures=n, first_exposures=dict(n))})
        if subject.look(600.0 * number + 1, arms, 900).srm_alarm:
            return True
    return False


def test_users_who_return_in_every_attempt_are_one_randomisation() -> None:
    rng = np.random.default_rng(3)
    assert sum(returning(rng, 12) for _ in range(150)) <= 2, "alpha is .001"
