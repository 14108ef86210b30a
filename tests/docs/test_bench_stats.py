"""`bench stats` measures what it says: its loops agree with the package's own functions, its peers with theirs."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benches import stats
from benches._stats import growthbook, table_delay, table_sample_ratio, table_stages
from benches._stats.figures import Figure, Row, at_least, at_most, quotient, rate_at_most
from benches._stats.group_sequential import boundaries
from benches._stats.numbers import Arm, dense, rows_of
from benches._stats.our_numbers import DISTRIBUTION, Harm
from benches._stats.our_numbers import Look as ValueLook
from benches._stats.ours import ANY_REGRESSION, Proportion, lines
from benches._stats.shapes import LATENCY, Change, full_limit, pair
from benches._stats.streams import minutes, steady
from rollout.stats import values
from rollout.stats.histogram import Histogram
from rollout.stats.margin import Direction, Margin
from rollout.stats.mixture import log_mixture
from rollout.stats.proportion import (
    ADVANCE_WEIGHTS,
    HARM_WEIGHTS,
    ControlHistory,
    Counts,
    advance_log_factors,
    harm_log_factors,
)

KEYS = {"name", "value", "unit", "target", "holds", "floor", "peers"}


@pytest.fixture
def without_gbstats(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that is offline and has never run the bench."""
    monkeypatch.setattr(growthbook, "package", lambda: None)
    monkeypatch.setattr("benches._stats.proportions.package", lambda: None)
    monkeypatch.setattr(growthbook, "install", lambda: False)


@pytest.mark.parametrize(
    ("kind", "margin", "direction"),
    [
        ("harm", ANY_REGRESSION, "lower_is_better"),
        ("advance", Margin(0.5, relative=True), "lower_is_better"),
        ("advance", Margin(0.01, relative=False), "lower_is_better"),
        ("harm", Margin(0.05, relative=False), "higher_is_better"),
    ],
)
def test_many_replications_at_once_are_the_scalar_judge(kind: Any, margin: Margin, direction: Direction) -> None:
    rng, replications = np.random.default_rng(5), 4
    weights = HARM_WEIGHTS if kind == "harm" else ADVANCE_WEIGHTS
    log_factors = harm_log_factors if kind == "harm" else advance_log_factors
    method = Proportion(replications, kind, margin, direction, lines=lines("ours", 0.05))
    histories = [ControlHistory()] * replications
    held = np.zeros((4, replications), int)
    wealth = np.zeros((replications, weights.size))
    for seen in minutes(steady(0.3, 0.1, 0.15, looks=60, units=2.0), replications, rng):
        log_e = method.look(seen, np.arange(replications))
        held += np.stack([np.asarray(count) for count in seen.tick])
        for row in range(replications):
            n_t, x_t, n_c, x_c = held[:, row].tolist()
            if n_t and n_c:
                arms = (Counts(n_t, x_t), Counts(n_c, x_c))
                wealth[row] += log_factors(*arms, histories[row].guess, margin, direction)
                histories[row] = histories[row].learn(arms[1])
                held[:, row] = 0
            assert log_e[row] == pytest.approx(log_mixture(wealth[row], weights), abs=1e-9)


def test_values_drawn_one_by_one_are_the_histogram_of_them() -> None:
    rng, replications = np.random.default_rng(6), 3
    both = pair(LATENCY, Change(1.3))
    method = Harm(both, replications, rng, {"ours": (DISTRIBUTION, 0.05)})
    rows = np.arange(replications)
    past, frozen = method.history.past(rows), method.history.calibration("distribution", rows)
    draws = Arm(both, both.candidate).tick(10.0, replications, rng)
    baseline = Arm(both, both.baseline).tick(990.0, replications, rng)
    log_e = method.look(ValueLook(0, draws, baseline, np.zeros((2, 3, replications))), rows)[0]
    candidate = Histogram(both.grid, both.index, dense(draws, both.index))
    factors = values.harm_log_factors(DISTRIBUTION, frozen, past, candidate, baseline, ANY_REGRESSION)
    for row in rows.tolist():
        assert log_e[row] == pytest.approx(log_mixture(factors[row], values.harm_weights(DISTRIBUTION)), abs=1e-9)
    assert dense(rows_of(draws, rows[1:]), both.index).tolist() == candidate.counts[1:].tolist()


def test_group_sequential_boundaries_are_the_published_ones() -> None:
    """Those of `ldbounds` (Lan & DeMets) for five looks at one-sided .025."""
    assert boundaries("O'Brien-Fleming", 5, 0.025) == pytest.approx((4.8769, 3.3569, 2.6803, 2.2898, 2.0310), abs=2e-4)
    assert boundaries("Pocock", 5, 0.025) == pytest.approx((2.4380, 2.4268, 2.4101, 2.3966, 2.3859), abs=2e-4)


def test_the_array_form_of_growthbook_is_its_package() -> None:
    if growthbook.package() is None:
        pytest.skip("gbstats is installed by `python3 dev.py bench stats`")
    method = growthbook.GrowthBook("growthbook")
    for seen in minutes(steady(0.1, 0.02, 0.05, looks=45), 3, np.random.default_rng(7)):
        method.look(seen, np.arange(3))
    assert method.compared > 3
    assert method.largest_difference <= growthbook.CLOSE


def test_the_limit_of_a_shift_is_that_of_two_normals() -> None:
    """For w -> 0 it is log(1 / alpha) over (log factor)^2 / 2."""
    limit = full_limit(pair(LATENCY, Change(1.3), steps=64), 1e-6, 0.05)
    assert limit == pytest.approx(np.log(20.0) / (0.5 * np.log(1.3) ** 2), rel=0.01)


def test_a_target_is_met_within_two_standard_errors() -> None:
    assert at_most("x", Figure(1.05, 0.03), "u", 1.0, None, {}).holds
    assert not at_most("x", Figure(1.07, 0.03), "u", 1.0, None, {}).holds
    assert at_least("x", Figure(0.95, 0.03), "u", 1.0, {}).holds
    assert not at_least("x", Figure(0.93, 0.03), "u", 1.0, {}).holds
    assert rate_at_most("x", np.arange(100) < 9, 0.05, {}).holds
    assert not rate_at_most("x", np.arange(100) < 10, 0.05, {}).holds
    assert quotient([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == Figure(2.0, 0.0)


@pytest.mark.usefixtures("without_gbstats")
def test_without_gbstats_the_others_are_measured_and_the_comparison_does_not_hold() -> None:
    cell = next(cell for cell in table_delay.cells(quick=True) if "2 to 10 %, 1:99" in cell.name)
    result = replace(cell, arguments={**cell.arguments, "replications": 20})()
    against = table_delay.against_growthbook(0.1, 0.01, result)
    assert against == Row(against.name, None, "x", table_delay.SOONER, holds=False)
    assert all("GrowthBook" not in name for name in result.crossings)


def test_a_result_is_the_same_whatever_else_was_run() -> None:
    [cell] = table_stages.cells(quick=True)
    cell = replace(cell, arguments={**cell.arguments, "replications": 5})
    first, again = cell(), cell()
    assert {name: of.units.tolist() for name, of in first.crossings.items()} == {
        name: of.units.tolist() for name, of in again.crossings.items()
    }


@pytest.mark.usefixtures("without_gbstats")
def test_the_last_line_is_one_json_object(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_sample_ratio.NAME
    monkeypatch.setattr("sys.argv", ["stats", "--quick", "--json", "--processes", "1", "--only", table])
    code = stats.main()
    printed = capsys.readouterr().out
    document = json.loads(printed.splitlines()[-1])
    assert document.keys() == {"bench", "holds", "rows"}
    assert document["bench"] == "stats"
    assert len(document["rows"]) == 6
    assert all(row.keys() == KEYS for row in document["rows"])
    assert document["holds"] is (code == 0) is all(row["holds"] for row in document["rows"])
    assert "R = " in printed
    assert "±" in printed
