"""Buckets are those of the clients, and a threshold inside one never makes evidence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.stats.histogram import Histogram, LinearGrid, LogGrid
from rollout.stats.margin import Direction
from rollout_client.evaluation import histogram as wire

LOG = LogGrid()
EVERY = np.arange(wire.ZERO_BUCKET, wire.HIGHEST_BUCKET + 1)
BOUNDS = [(0.0, 1.0), (1.0, 5.0), (-1.0, 1.0), (0.1, 0.7), (-273.15, 3.0)]


def test_log_edges_are_the_clients_to_the_last_bit() -> None:
    low, high = LOG.edges(EVERY)
    assert list(zip(low.tolist(), high.tolist(), strict=True)) == [wire.log_edges(index) for index in EVERY.tolist()]
    assert (low[1:] == high[:-1]).all()


@pytest.mark.parametrize(("low", "high"), BOUNDS)
def test_linear_edges_are_the_clients_to_the_last_bit(low: float, high: float) -> None:
    below, above = LinearGrid(low, high).edges(np.arange(1000))
    expected = [wire.linear_edges(index, low, high) for index in range(1000)]
    assert list(zip(below.tolist(), above.tolist(), strict=True)) == expected


def test_the_middle_of_a_bucket_is_in_it() -> None:
    inside = np.delete(EVERY, [1, -1])  # the first and the last are cut by 1e-9 and 1e12
    assert [wire.log_bucket(value) for value in LOG.middle(inside).tolist()] == inside.tolist()
    for low, high in BOUNDS:
        middles = LinearGrid(low, high).middle(np.arange(1000)).tolist()
        assert [wire.linear_bucket(value, low, high) for value in middles] == list(range(1000))


@given(st.one_of(st.just(0.0), st.floats(1e-9, 1e12)))
def test_a_value_is_snapped_to_the_nearest_edge_of_its_bucket(value: float) -> None:
    snapped = float(LOG.snap(value))
    low, high = wire.log_edges(wire.log_bucket(value))
    assert snapped in (low, high)
    if low > 0:
        assert max(snapped / value, value / snapped) <= 2 ** (1 / 128) * (1 + 1e-9)


def test_snapping_stays_on_the_grid() -> None:
    low, high = LOG.edges(EVERY)
    assert set(LOG.snap([0.0, 1e-300, 1e-10, 6e-10, 1e-9, 5e12]).tolist()) <= {0.0, *low.tolist(), *high.tolist()}
    assert LinearGrid(1.0, 5.0).snap([0.0, 1.0019, 1.0021, 7.0]).tolist() == [1.0, 1.0, 1.004, 5.0]


def counted(grid: LogGrid | LinearGrid, values: list[float]) -> Histogram:
    counts: dict[int, float] = {}
    for value in values:
        at = wire.log_bucket(value) if isinstance(grid, LogGrid) else wire.linear_bucket(value, grid.low, grid.high)
        counts[at] = counts.get(at, 0) + 1
    return Histogram.of(grid, counts)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=60), st.sampled_from([0.01, 0.05, 0.5, 0.9, 0.95, 0.99]))
def test_a_quantile_has_at_most_its_share_beyond_and_one_bucket_less_has_more(
    values: list[float], level: float
) -> None:
    histogram = counted(LOG, values)
    upper = float(histogram.quantile(level, "lower_is_better"))
    beyond = sum(value >= upper for value in values) / len(values)
    assert beyond <= 1 - level + 1e-9
    inner = max(low for low in LOG.edges(histogram.index)[0].tolist() if low < upper)
    assert sum(value >= inner for value in values) / len(values) > 1 - level - 1e-9
    lower = float(histogram.quantile(level, "higher_is_better"))
    assert sum(value < lower for value in values) / len(values) <= level + 1e-9


def test_an_empty_histogram_has_no_quantile() -> None:
    for empty in (Histogram.of(LOG, {}), Histogram.of(LOG, {3: 0.0})):
        with pytest.raises(ValueError, match="empty"):
            empty.quantile(0.5, "lower_is_better")
        assert empty.beyond([1.0], "lower_is_better").tolist() == [0.0]


@pytest.mark.parametrize(
    ("direction", "beyond"), [("lower_is_better", [5, 3, 3, 0]), ("higher_is_better", [0, 2, 2, 5])]
)
def test_beyond_counts_whole_buckets_on_the_bad_side_of_an_edge(direction: Direction, beyond: list[float]) -> None:
    histogram = Histogram.of(LOG, {0: 2, 64: 3})  # 1.0 to 1.011, and 2.0 to 2.022
    assert histogram.beyond([1.0, 2 ** (1 / 64), 2.0, 4.0], direction).tolist() == beyond
    rounded = [1.0 * (1 + 1e-12), 2.0 * (1 - 1e-12)]
    assert histogram.beyond(rounded, direction).tolist() == [beyond[0], beyond[2]], "an edge met to rounding is met"


@given(
    values=st.lists(st.floats(0.01, 100), min_size=1, max_size=30), threshold=st.floats(0.005, 200),
    direction=st.sampled_from(["lower_is_better", "higher_is_better"]),
)  # fmt: skip
def test_a_threshold_inside_a_bucket_is_outward_for_harm_and_inward_for_a_gate(
    values: list[float], threshold: float, direction: Direction
) -> None:
    histogram = counted(LOG, values)
    truly = sum(value >= threshold if direction == "lower_is_better" else value < threshold for value in values)
    sure = float(histogram.beyond([threshold], direction)[0])
    doubtful = float(histogram.beyond([threshold], direction, doubtful=True)[0])
    assert sure <= truly <= doubtful or any(abs(value / threshold - 1) < 1e-8 for value in values)


def test_leading_axes_are_replications() -> None:
    counts = np.array([[[2.0, 1, 0], [0, 1, 5]], [[1, 1, 1], [9, 0, 0]]])
    grid, index = LinearGrid(0, 3, 3), np.arange(3)
    many = Histogram(grid, index, counts)
    thresholds = np.array([1.0, 2.0])
    for place in np.ndindex(2, 2):
        one = Histogram(grid, index, counts[place])
        assert many.quantile(0.6, "lower_is_better")[place] == one.quantile(0.6, "lower_is_better")
        assert (
            many.beyond(thresholds, "higher_is_better")[place].tolist()
            == one.beyond(thresholds, "higher_is_better").tolist()
        )
        assert many.n[place] == one.n
