"""What is frozen from the baseline: quantiles on edges, a ladder away from the floor, and always a number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.stats.calibration import CALIBRATION, Calibration, calibrate
from rollout.stats.histogram import Grid, Histogram, LinearGrid, LogGrid
from rollout.stats.margin import Direction

LOG = LogGrid()
LOWER: Direction = "lower_is_better"
HIGHER: Direction = "higher_is_better"
SPREAD = Histogram.of(LOG, {64 + i: 1 for i in range(CALIBRATION)})


def frozen(past: Histogram, direction: Direction, level: float, gate: float, high: float | None = None) -> Calibration:
    return calibrate(past, direction, ladder=level, gate=gate, high=high)


def edge(index: int) -> float:
    return float(2.0 ** (index / 64))


def test_thresholds_lie_at_the_quantiles_and_the_cap_at_the_bucket_of_its_own() -> None:
    found = frozen(SPREAD, LOWER, 0.99, 0.95)
    first = 64
    assert found.body.tolist() == [edge(first + n) for n in (250, 375, 450, 475)]
    assert float(found.gate) == edge(first + 475)
    foot = first + 495
    assert found.ladder[0] == edge(foot)
    for rung, ratio in zip(found.ladder.tolist()[1:], (1.5, 2.0, 3.0), strict=True):
        assert rung == pytest.approx(edge(foot) * ratio, rel=0.0055)
        assert rung in LOG.edges(np.arange(0, 2000))[0]
    assert float(found.cap) == pytest.approx(2 ** ((first + 497.5) / 64))
    assert float(SPREAD.beyond([float(found.gate)], LOWER)[0]) == 25


def test_where_higher_is_better_thresholds_go_down() -> None:
    found = frozen(SPREAD, HIGHER, 0.01, 0.05)
    first = 64
    assert found.body.tolist() == [edge(first + n) for n in (250, 125, 50, 25)]
    assert float(found.gate) == edge(first + 25)
    assert found.ladder[0] == edge(first + 5)
    assert (np.diff(found.ladder) < 0).all()


def test_bounds_are_the_cap_and_a_ladder_climbs_from_the_floor() -> None:
    grid = LinearGrid(-1.0, 1.0)
    past = Histogram.of(grid, {100 + i: 1 for i in range(500)})
    found = frozen(past, LOWER, 0.5, 0.5, high=1.0)
    assert float(found.cap) == 1.0
    foot = float(found.ladder[0])
    assert foot == pytest.approx(-0.3)
    assert found.ladder.tolist() == pytest.approx([-0.3, 0.05, 0.4, 1.0]), "0.7 above the floor times 1.5, 2 and 3"
    falling = frozen(past, HIGHER, 0.5, 0.5, high=1.0)
    assert falling.ladder.tolist() == pytest.approx([-0.3, -0.534, -0.65, -0.766], abs=0.0011)


@pytest.mark.parametrize("direction", [LOWER, HIGHER])
@pytest.mark.parametrize(
    ("grid", "counts"),
    [
        (LOG, {-1915: 500}),
        (LOG, {2551: 500}),
        (LOG, {-1915: 499, 2551: 1}),
        (LinearGrid(0.0, 1.0), {0: 500}),
        (LinearGrid(1.0, 5.0), {999: 50}),
    ],
)
def test_a_baseline_of_one_value_freezes_numbers_on_the_grid(
    grid: Grid, counts: dict[int, float], direction: Direction
) -> None:
    high = None if isinstance(grid, LogGrid) else grid.ceiling
    for level in (0.01, 0.5, 0.99):
        found = frozen(Histogram.of(grid, counts), direction, level, level, high)
        every = np.concatenate([found.body, found.ladder, [found.gate, found.cap, found.centre, found.scale]])
        assert np.isfinite(every).all()
        assert float(found.scale) > 0
        assert (found.ladder >= grid.floor).all()
        assert (found.ladder <= grid.ceiling).all()


@given(
    counts=st.dictionaries(st.integers(-1915, 2551), st.integers(1, 40), min_size=1, max_size=20),
    direction=st.sampled_from([LOWER, HIGHER]), level=st.sampled_from([0.01, 0.05, 0.5, 0.95, 0.99]),
)  # fmt: skip
def test_body_and_ladder_go_from_mild_to_extreme(counts: dict[int, float], direction: Direction, level: float) -> None:
    found = frozen(Histogram.of(LOG, counts), direction, level, level)
    sign = 1.0 if direction == LOWER else -1.0
    assert (np.diff(sign * found.body) >= 0).all()
    assert (np.diff(sign * found.ladder) >= 0).all()
    edges = set(LOG.edges(np.arange(-1915, 2552))[0].tolist()) | set(LOG.edges(np.array([2551]))[1].tolist())
    assert {*found.body.tolist(), *found.ladder.tolist(), float(found.gate)} <= edges


def test_where_many_values_are_the_largest_the_gate_counts_them() -> None:
    """One in twenty ends at the time-out: beyond its bucket lies nothing, which a gate could never judge."""
    past = Histogram.of(LOG, {**dict.fromkeys(range(100, 125), 19), 400: 25})
    found = frozen(past, LOWER, 0.99, 0.99)
    assert float(found.gate) == edge(400)
    assert found.ladder[0] == edge(401), "harm is looked for beyond it"
    zeros = Histogram.of(LinearGrid(0.0, 1.0), {0: 50, **dict.fromkeys(range(100, 550), 1)})
    assert float(frozen(zeros, HIGHER, 0.05, 0.05, 1.0).gate) == 0.001
    assert float(frozen(zeros, HIGHER, 0.05, 0.05, 1.0).ladder[0]) == 0.0


def test_a_few_costs_among_zeros_are_not_capped_at_zero() -> None:
    assert float(frozen(Histogram.of(LOG, {-1915: 499, 64: 1}), LOWER, 0.99, 0.99).cap) == pytest.approx(2.01, 0.01)
    assert float(frozen(Histogram.of(LOG, {-1915: 500}), LOWER, 0.99, 0.99).cap) == 0.0


def test_leading_axes_are_replications() -> None:
    rng = np.random.default_rng(5)
    index = np.arange(0, 640, 40)
    counts = rng.integers(1, 60, (3, index.size)).astype(np.float64)
    together = frozen(Histogram(LOG, index, counts), LOWER, 0.95, 0.9)
    for place in range(3):
        alone = frozen(Histogram(LOG, index, counts[place]), LOWER, 0.95, 0.9)
        for name in ("cap", "centre", "scale", "body", "ladder", "gate"):
            np.testing.assert_allclose(getattr(together, name)[place], getattr(alone, name), rtol=1e-12)
