"""Estimates that people read: consistent with the verdicts, and honest about what is not known."""

from typing import Any

import numpy as np
import pytest

from rollout.domain.estimates import Audience, Estimates, estimates_of
from rollout.domain.evidence import Evidence
from rollout.domain.gather import Round, gather
from rollout.domain.judge import Judgement, Look, harm_level, judge
from rollout.domain.metric import Metric
from rollout.domain.rollout import Attempt
from rollout.domain.watch import watches
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from tests.core.domain.plans import START, at, rollout

SLOT = int(START.timestamp()) // 60
AUDIENCE = Audience(alpha_harm=0.01, alpha_gate=0.05, units=500)


def found(metric: Metric, margin: dict[str, float], arms: dict[str, MetricIncrement], **guardrail: Any) -> Any:
    """(estimates, judgement) after one tick in which both arms brought these increments."""
    plan = rollout(guardrails=[{"metric": metric.key, "max_regression": margin, **guardrail}])
    watched = watches(plan, {metric.key: metric})
    attempt = Attempt(id="at_1", number=1, stage=0, epoch=1, percentage=50, opened_at=START)
    margins = {metric.key: watched[0].margin}
    added = {
        arm: ArmIncrement(slots={SLOT: SlotIncrement(exposures={0: 9}, metrics={metric.key: increment})})
        for arm, increment in arms.items()
    }
    evidence = gather(Evidence(), {"at_1": added}, Round(watched, [attempt], margins, at(1)))
    look = Look(
        plan=plan, watches=watched, attempts=(attempt,), margins=margins, units=500, attempt_units=500, now=at(1),
        patience=900,
    )  # fmt: skip
    judgement = judge(evidence, look)
    mine = evidence.metrics[metric.key]
    audience = Audience(alpha_harm=harm_level(watched[0], watched, plan.analysis), alpha_gate=0.05, units=500)
    return estimates_of(mine, watched[0], judgement.readings[0], audience), judgement


def spread(n: int, x: int) -> MetricIncrement:
    """n requests of n units over all cells, x of them with the event."""
    failed = np.random.default_rng(n + x).permutation(np.arange(n) < x)
    cells = {
        cell: [float(failed[cell::256].size), float(failed[cell::256].sum())]
        for cell in range(256)
        if failed[cell::256].size
    }
    return MetricIncrement(cells=cells)


ERRORS = Metric(key="error_rate", kind="proportion", event="it failed")
SOLVED = Metric(key="solved", kind="proportion", event="solved", direction="higher_is_better")


def errors(candidate: tuple[int, int], baseline: tuple[int, int], **margin: float) -> tuple[Estimates, Judgement]:
    arms = {"candidate": spread(*candidate), "baseline": spread(*baseline)}
    return found(ERRORS, margin or {"absolute": 0.02}, arms)


def test_proven_harm_has_an_interval_beyond_the_line_and_says_whom_it_has_hurt() -> None:
    estimates, judgement = errors((500, 100), (500, 10))
    assert judgement.breached
    assert estimates.effect.estimate == pytest.approx(0.18)
    assert estimates.effect.lower is not None
    assert estimates.effect.lower >= estimates.accepted == 0.02
    assert estimates.harmed_units == pytest.approx(500 * 0.18, rel=0.01)


def test_a_gate_that_has_passed_has_an_interval_within_the_line() -> None:
    estimates, judgement = errors((20_000, 400), (20_000, 400))
    assert judgement.readings[0].verdict == "pass"
    assert estimates.effect.upper is not None
    assert estimates.effect.upper <= 0.02
    assert estimates.harmed_units == 0.0


def test_an_undecided_metric_has_an_interval_that_reaches_the_line() -> None:
    estimates, judgement = errors((60, 2), (60, 1))
    assert judgement.readings[0].verdict == "undecided"
    assert estimates.effect.lower is not None
    assert estimates.effect.lower <= 0.02 <= (estimates.effect.upper or 0.0)


def test_success_rates_are_read_the_other_way_round() -> None:
    arms = {"candidate": spread(2000, 1000), "baseline": spread(2000, 1600)}
    estimates, judgement = found(SOLVED, {"absolute": 0.05}, arms)
    assert judgement.breached
    assert estimates.accepted == -0.05
    assert (estimates.effect.upper or 0.0) <= -0.05
    assert estimates.harmed_units == pytest.approx(500 * (1 - 0.7**4), rel=0.1), "four requests a unit, one fails"


def test_nothing_is_claimed_of_an_arm_without_outcomes() -> None:
    estimates, _ = found(ERRORS, {"relative": 0.5}, {"candidate": spread(30, 3)})
    assert estimates.effect.estimate is None
    assert estimates.baseline.estimate is None
    assert estimates.candidate.estimate == pytest.approx(0.1)


def test_a_count_rate_above_one_has_levels_and_an_effect() -> None:
    rate = Metric(key="retries", kind="count_rate")
    arms = {
        arm: MetricIncrement(cells={cell: [10.0, 10.0 * level] for cell in range(256)})
        for arm, level in (("candidate", 6), ("baseline", 3))
    }
    estimates, judgement = found(rate, {"relative": 0.2}, arms)
    assert judgement.breached
    assert estimates.candidate.estimate == pytest.approx(6)
    assert (estimates.candidate.lower or 0) < 6 < (estimates.candidate.upper or 0)
    assert estimates.effect.estimate == pytest.approx(2.0, rel=0.02)
    assert 1.2 <= (estimates.effect.lower or 0) < 2 < (estimates.effect.upper or 0)


def test_a_mean_has_levels_in_its_own_units() -> None:
    cost = Metric(key="cost", kind="mean")
    cells = {cell: [10.0, 10.0 * (2 + cell % 3), 10.0 * (2 + cell % 3) ** 2] for cell in range(256)}
    histogram = {64: 860, 101: 850, 128: 850}
    arms = {arm: MetricIncrement(cells=dict(cells), histogram=dict(histogram)) for arm in ("candidate", "baseline")}
    estimates, judgement = found(cost, {"relative": 0.2}, arms)
    assert judgement.readings[0].verdict == "undecided", "the first values calibrate, nothing is bet yet"
    assert estimates.candidate.estimate == pytest.approx(3.0, rel=0.01)
    assert (estimates.effect.lower or 0) < 1.0 < (estimates.effect.upper or 0)
