"""Wrong advances of the real judge with units that always or never fail and come back many times."""

from datetime import timedelta

import numpy as np
import pytest

from rollout.domain.evidence import Evidence
from rollout.domain.gather import Round, gather
from rollout.domain.judge import Look, judge
from rollout.domain.rollout import Attempt
from rollout.domain.watch import gate_margin, watches
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from tests.core.domain.plans import START, World, rollout

REPLICATIONS, ALPHA = 120, 0.05


def arm(rng: np.random.Generator, units: int, rate: float, requests: int, slot: int) -> ArmIncrement:
    """`units` units of so many requests each; a unit fails always or never."""
    cells: dict[int, list[float]] = {}
    for _ in range(units):
        numbers = cells.setdefault(int(rng.integers(256)), [0.0, 0.0])
        numbers[0] += requests
        numbers[1] += requests * (rng.random() < rate)
    seen = {cell: int(numbers[0]) for cell, numbers in cells.items()}
    return ArmIncrement(
        slots={slot: SlotIncrement(exposures=seen, metrics={"error_rate": MetricIncrement(cells=cells)})}
    )


def advances(rng: np.random.Generator, margin: float, base: float, requests: int) -> bool:
    """Whether the gate ever opens in forty looks, the candidate exactly on its margin."""
    guardrails = [{"metric": "error_rate", "max_regression": {"absolute": margin}}]
    plan = rollout(stages=[{"name": "half", "percentage": 50}], guardrails=guardrails)
    watched = watches(plan, World.metrics)
    attempt = Attempt(id="at_1", number=1, stage=0, epoch=1, percentage=50, opened_at=START)
    margins = {watch.metric: gate_margin(plan, watch, 0) for watch in watched}
    evidence, units = Evidence(epoch=1), 0
    for number in range(40):
        now = START + timedelta(seconds=number)
        slot = int(now.timestamp()) // 60
        both = {
            "candidate": arm(rng, 10, base + margin, requests, slot),
            "baseline": arm(rng, 10, base, requests, slot),
        }
        units += 10
        evidence = gather(evidence, {"at_1": both}, Round(watched, [attempt], margins, now))
        found = judge(
            evidence,
            Look(
                plan=plan, watches=watched, attempts=(attempt,), margins=margins,
                units=units, attempt_units=units, now=now, patience=900,
            ),
        )  # fmt: skip
        if found.readings[0].verdict == "pass" and units >= 50:
            return True
    return False


@pytest.mark.parametrize(("margin", "base", "requests"), [(0.01, 0.0, 20), (0.02, 0.005, 20), (0.01, 0.01, 1)])
def test_a_candidate_on_its_margin_advances_no_more_often_than_alpha(margin: float, base: float, requests: int) -> None:
    rng = np.random.default_rng(11)
    wrong = np.mean([advances(rng, margin, base, requests) for _ in range(REPLICATIONS)])
    assert wrong <= ALPHA + 2 * np.sqrt(ALPHA * (1 - ALPHA) / REPLICATIONS)
