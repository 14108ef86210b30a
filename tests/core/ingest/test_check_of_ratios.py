"""A ratio that is divided by something negative would stop every later look at its rollout, so it is refused."""

import pytest

from rollout.domain.metric import Metric
from rollout.ingest.check import Known, check
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import RulesetMetric
from rollout_client.increments import measure


@pytest.mark.parametrize(
    ("cell", "refused"),
    [
        ([-2.0, 3.0, 4.0, 9.0, -6.0], False),
        ([2.0, 0.0, 4.0, 0.0, 0.0], False),
        ([2.0, -3.0, 4.0, 9.0, -6.0], True),
        ([2.0, 3.0, -4.0, 9.0, 6.0], True),
        ([2.0, 3.0, 4.0, -9.0, 6.0], True),
    ],
)
def test_a_denominator_and_squares_are_never_negative(cell: list[float], refused: bool) -> None:
    slot = SlotIncrement(metrics={"m": MetricIncrement(cells={7: cell})})
    known = {"at_1": Known({"m": Metric(key="m", kind="ratio")}, {})}
    problem = check({"at_1": {"baseline": ArmIncrement(slots={29_500_000: slot})}}, known)
    if not refused:
        assert problem is None
        return
    assert problem is not None
    assert problem.path == "attempts.at_1.baseline.slots.29500000.metrics.m.cells.7"


def test_a_client_measures_no_negative_denominator() -> None:
    metric = RulesetMetric(kind="ratio")
    assert measure(metric, (-2, 3)) == ([-2, 3, 4, 9, -6], None)
    with pytest.raises(ValueError, match="negative"):
        measure(metric, (2, -3))
