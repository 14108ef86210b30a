"""What a cell of each kind may hold, before and after something was frozen."""

from typing import Any

import pytest

from rollout.domain.evidence import merge_slot
from rollout.domain.metric import Metric
from rollout.ingest.check import Known, check
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Frozen

CAP, LINES, BOTH = Frozen(cap=5.0), Frozen(thresholds=(2.0, 3.0)), Frozen(cap=5.0, thresholds=(2.0, 3.0))
NONE = Frozen()


def refused(kind: Any, frozen: Frozen, numbers: list[float]) -> str | None:
    """The message of the problem that one cell has, None when it is taken; the path is always the cell's."""
    histogram = {0: int(numbers[0])} if kind in ("mean", "quantile", "distribution") and numbers[0] >= 0 else {}
    added = SlotIncrement(metrics={"m": MetricIncrement(cells={7: numbers}, histogram=histogram)})
    metric = Metric(key="m", kind=kind, event="it failed")
    known = {"at_1": Known({"m": metric}, {"m": frozen} if frozen != NONE else {})}
    problem = check({"at_1": {"candidate": ArmIncrement(slots={9: added})}}, known)
    assert problem is None or problem.path == "attempts.at_1.candidate.slots.9.metrics.m.cells.7"
    return None if problem is None else problem.message


@pytest.mark.parametrize(
    ("kind", "frozen", "numbers"),
    [
        ("proportion", NONE, [4, 1]),
        ("count_rate", NONE, [2.5, 3]),
        ("ratio", NONE, [-2, 3, 4, 9, -6]),
        ("mean", NONE, [2, 8, 32]),
        ("mean", NONE, [2, -8, 32]),
        ("mean", CAP, [2, 8, 32]),
        ("mean", CAP, [2, 8, 32, 1, 4, 16]),
        ("mean", BOTH, [2, 8, 32, 2, 8, 32, 2, 1]),
        ("mean", LINES, [2, 8, 32]),
        ("quantile", NONE, [4]),
        ("quantile", LINES, [4]),
        ("quantile", LINES, [4, 0, 0, 0]),
        ("quantile", LINES, [4, 4, 4, 4]),
        ("quantile", LINES, [4, 3, 2, 0]),
        ("quantile", BOTH, [4, 3, 2, 0]),
        ("distribution", CAP, [2, 8, 32, 1, 4, 16]),
        ("distribution", BOTH, [2, 8, 32]),
        ("distribution", BOTH, [2, 8, 32, 1, -4, 16, 1, 0]),
    ],
)
def test_what_a_cell_may_hold(kind: str, frozen: Frozen, numbers: list[float]) -> None:
    assert refused(kind, frozen, numbers) is None


@pytest.mark.parametrize(
    ("kind", "frozen", "numbers", "said"),
    [
        ("proportion", LINES, [4, 1, 1], "has 2 numbers"),
        ("count_rate", NONE, [-1, 3], "negative"),
        ("count_rate", NONE, [1, -3], "negative"),
        ("ratio", NONE, [2, 3], "has 5 numbers"),
        ("mean", NONE, [2, 8, 32, 2, 8, 32], "frozen nothing yet"),
        ("mean", LINES, [2, 8, 32, 2, 8, 32], "frozen nothing yet"),
        ("mean", CAP, [2, 8, 32, 2, 8, 32, 1], "froze, 6 numbers"),
        ("mean", BOTH, [2, 8, 32, 2, 8, 32], "froze, 8 numbers"),
        ("mean", CAP, [2, 8, 32, 3, 8, 32], "no more is measured"),
        ("mean", CAP, [2, 8, 32, 1.5, 8, 32], "whole"),
        ("mean", CAP, [2, 8, 32, -1, 8, 32], "no more is measured"),
        ("mean", NONE, [2, 8, -32], "squares"),
        ("mean", CAP, [2, 8, 32, 1, 4, -16], "squares"),
        ("distribution", BOTH, [2, 8, 32, 1, 4, 16, 2, 0], "exceeds"),
        ("distribution", BOTH, [2, 8, 32, 2, 4, 16, 1, 2], "exceeds"),
        ("quantile", NONE, [4, 4, 1, 1], "frozen nothing yet"),
        ("quantile", CAP, [4, 4, 1, 1], "frozen nothing yet"),
        ("quantile", LINES, [4, 4, 1], "froze, 4 numbers"),
        ("quantile", LINES, [4, 5, 1, 1], "no more is measured"),
        ("quantile", LINES, [4, 4, 1, 2], "exceeds"),
        ("quantile", LINES, [4, 4, 1, -1], "exceeds"),
        ("quantile", LINES, [4, 4, 1.5, 1], "whole"),
        ("quantile", LINES, [-4, 0, 0, 0], "negative"),
    ],
)
def test_what_a_cell_may_not_hold(kind: str, frozen: Frozen, numbers: list[float], said: str) -> None:
    message = refused(kind, frozen, numbers)
    assert message is not None
    assert said in message


@pytest.mark.parametrize("turn", [1, -1])
def test_short_and_long_cells_of_one_minute_merge_in_any_order(turn: int) -> None:
    cells: list[list[float]] = [[2], [3, 3, 2, 1], [1, 1, 0, 0]]
    into = SlotIncrement()
    for numbers in cells[::turn]:
        merge_slot(into, SlotIncrement(metrics={"m": MetricIncrement(cells={7: numbers})}))
    assert into.metrics["m"].cells == {7: [6, 4, 2, 1]}
    assert cells == [[2], [3, 3, 2, 1], [1, 1, 0, 0]], "what is merged stays as it is"
