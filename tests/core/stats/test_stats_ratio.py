"""Ratios per unit: the estimate by hand, the guards, catastrophes against a clean baseline, and stages."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.stats.margin import Direction, Margin
from rollout.stats.normal import normal_mixture_log_e
from rollout.stats.ratio import (
    ADVANCE_CELLS,
    HARM_CELLS,
    CellSums,
    harm_log_e,
    merge_stages,
    ratio_advance_log_e,
    ratio_estimate,
    ratio_harm_log_e,
)

LOWER: Direction = "lower_is_better"
HIGHER: Direction = "higher_is_better"
ALPHA = 0.05
LINE = math.log(1.0 / ALPHA)
NOTHING = Margin(0.0, relative=True)
QUARTER = Margin(0.25, relative=True)
CENT = Margin(0.01, relative=False)


def arm(cells: int, *levels: float, d: float = 2.0) -> dict[int, tuple[float, float]]:
    """Cells with the denominator d whose ratios repeat `levels`."""
    return {cell: (levels[cell % len(levels)] * d, d) for cell in range(cells)}


def verdicts(candidate: dict, baseline: dict, margin: Margin, direction: Direction) -> tuple[float, float]:
    harm = ratio_harm_log_e(candidate, baseline, margin, direction, ALPHA)
    return harm, ratio_advance_log_e(candidate, baseline, margin, direction, ALPHA) if margin.size else 0.0


def test_the_estimate_by_hand() -> None:
    """R = 9 / 6; residuals 1 - 1.5, 4 - 3, 4 - 4.5 = -.5, 1, -.5; variance 3 / 2 * 1.5 / 36; support 81 / 33."""
    found = ratio_estimate({3: (1.0, 1.0), 7: (4.0, 2.0), 200: (4.0, 3.0)})
    assert found == pytest.approx((1.5, 1.5 * 1.5 / 36.0, 3, 81.0 / 33.0))


def test_the_support_of_rare_events_is_their_number() -> None:
    assert ratio_estimate({cell: (float(cell < 7), 1.0) for cell in range(100)}).support == pytest.approx(7.0)


@pytest.mark.parametrize("cells", [{}, {1: (2.0, 4.0)}, {1: (0.0, 0.0), 2: (0.0, 0.0)}, {1: (3.0, 0.0), 2: (1.0, 0.0)}])
def test_where_nothing_is_known_the_variance_is_infinite(cells: dict) -> None:
    assert ratio_estimate(cells).variance == math.inf


def test_cells_without_a_trace_are_not_in_use() -> None:
    used = arm(50, 1.0, 3.0)
    assert ratio_estimate(used | dict.fromkeys(range(60, 90), (0.0, 0.0))) == ratio_estimate(used)


@pytest.mark.parametrize(
    "cells", [{256: (1.0, 1.0)}, {-1: (1.0, 1.0)}, {0: (math.nan, 1.0)}, {0: (math.inf, 1.0)}, {0: (1.0, -1.0)}]
)
def test_impossible_cells_are_refused(cells: dict) -> None:
    with pytest.raises(ValueError, match="finite sums"):
        ratio_estimate(cells)


def test_harm_is_the_mixture_of_the_deviation_tuned_to_the_margin() -> None:
    """Symmetric, equally many and equally variable cells: nothing is corrected or borrowed.

    R 2 and 1, residuals +-.5 d in both: V = 2 * 100/99 * 100 * (.5 d)^2 / (100 d)^2 = 1/198 for r = 1.
    """
    candidate, baseline = arm(100, 1.5, 2.5), arm(100, 0.5, 1.5)
    information = 198.0
    v_opt = 2.0 * LINE / (0.2 * 1.5) ** 2  # any regression: a fifth of the mean of both ratios
    expected = float(normal_mixture_log_e(1.0 * information, information, v_opt, ALPHA))
    assert ratio_harm_log_e(candidate, baseline, NOTHING, LOWER, ALPHA) == pytest.approx(expected, abs=1e-9)


def test_advance_is_the_mixture_of_what_is_left_of_the_margin() -> None:
    candidate, baseline = arm(200, 0.5, 1.5), arm(200, 0.5, 1.5)
    information = 1.0 / (2.0 * 0.25 / 199.0)
    expected = float(normal_mixture_log_e(0.4 * information, information, 2.0 * LINE / 0.4**2, ALPHA))
    margin = Margin(0.4, relative=False)
    assert ratio_advance_log_e(candidate, baseline, margin, LOWER, ALPHA) == pytest.approx(expected, abs=1e-9)
    assert ratio_advance_log_e(candidate, baseline, margin, HIGHER, ALPHA) == pytest.approx(expected, abs=1e-9)


def test_the_unit_of_the_numerator_and_of_the_denominator_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    t, c = ({cell: (rng.gamma(2.0), rng.gamma(3.0)) for cell in range(150)} for _ in range(2))
    scaled_t, scaled_c = ({cell: (1e-4 * y, 60.0 * d) for cell, (y, d) in side.items()} for side in (t, c))
    for margin in (NOTHING, QUARTER):
        assert verdicts(scaled_t, scaled_c, margin, LOWER) == pytest.approx(verdicts(t, c, margin, LOWER))


@pytest.mark.parametrize("least", [HARM_CELLS, ADVANCE_CELLS])
def test_with_a_cell_too_few_nothing_is_said(least: int) -> None:
    for few, many in ((least - 1, 200), (200, least - 1), (least, 200), (200, least)):
        worse, better, baseline = arm(few, 2.5, 3.5), arm(few, 0.4, 0.6), arm(many, 0.5, 1.5)
        harm = ratio_harm_log_e(worse, baseline, QUARTER, LOWER, ALPHA)
        advance = ratio_advance_log_e(better, baseline, QUARTER, LOWER, ALPHA)
        assert (harm != 0.0) == (min(few, many) >= HARM_CELLS)
        assert (advance != 0.0) == (min(few, many) >= ADVANCE_CELLS)


def test_nine_events_are_too_few_to_speak_of_and_ten_are_enough() -> None:
    baseline = arm(200, 0.0)
    candidate = {cell: (float(cell < 10), 1.0) for cell in range(60)}
    assert ratio_harm_log_e(candidate, baseline, NOTHING, LOWER, ALPHA) > 0.0
    assert ratio_harm_log_e(candidate | {9: (0.0, 1.0)}, baseline, NOTHING, LOWER, ALPHA) == 0.0


def test_one_huge_bill_is_no_verdict() -> None:
    """Its support is one cell; the other arm's events are what is left to judge by, and they agree."""
    ordinary = arm(60, 0.9, 1.1)
    assert ratio_harm_log_e(ordinary | {0: (2000.0, 2.0)}, arm(200, 0.9, 1.1), NOTHING, LOWER, ALPHA) < LINE


@pytest.mark.parametrize("margin", [NOTHING, QUARTER, CENT, Margin(0.01, relative=True)])
@pytest.mark.parametrize("baseline_cells", [HARM_CELLS, 256])
@pytest.mark.parametrize("good", [0.0, 0.02, 1.0])
def test_a_candidate_whose_fifty_units_are_all_bad_is_found(margin: Margin, baseline_cells: int, good: float) -> None:
    """Against a clean baseline or one with few events, with one good unit or none."""
    clean = {cell: (4.0 if cell / 256 < good / 20 else 0.0, 4.0) for cell in range(baseline_cells)}
    for candidate in (arm(HARM_CELLS, 1.0), arm(HARM_CELLS, 1.0) | {0: (0.0, 2.0)}):
        assert ratio_harm_log_e(candidate, clean, margin, LOWER, 0.01) > math.log(1000.0)


@pytest.mark.parametrize("margin", [NOTHING, QUARTER, CENT])
def test_a_candidate_that_loses_every_success_is_found(margin: Margin) -> None:
    for baseline in (arm(256, 1.0), arm(256, 1.0, 0.0), arm(256, 1.0, 0.9)):
        assert ratio_harm_log_e(arm(HARM_CELLS, 0.0), baseline, margin, HIGHER, 0.01) > math.log(100.0)


@pytest.mark.parametrize("level", [0.0, 0.1, 1.0 / 3.0, 1e-12, 1e12])
@pytest.mark.parametrize("direction", [LOWER, HIGHER])
def test_two_arms_of_the_same_constant_are_no_harm(level: float, direction: Direction) -> None:
    """The differences are rounding, and so are the variances; neither is divided by the other."""
    rng = np.random.default_rng(2)
    candidate, baseline = ({cell: (level * d, d) for cell, d in enumerate(rng.gamma(1.0, 5.0, n))} for n in (60, 256))
    for margin in (NOTHING, QUARTER, CENT):
        assert ratio_harm_log_e(candidate, baseline, margin, direction, ALPHA) <= 0.0


def test_two_arms_without_a_single_event_do_not_pass() -> None:
    assert ratio_advance_log_e(arm(200, 0.0), arm(256, 0.0), CENT, LOWER, ALPHA) == 0.0


def test_a_fixed_price_passes_its_gate() -> None:
    assert ratio_advance_log_e(arm(200, 0.1), arm(256, 0.1), QUARTER, LOWER, ALPHA) > LINE


def test_a_clean_candidate_passes_a_gate_that_its_baseline_gives_events_for() -> None:
    baseline = arm(256, 0.0, 0.0, 0.0, 0.2)
    assert ratio_advance_log_e(arm(256, 0.0), baseline, Margin(0.5, relative=True), LOWER, ALPHA) > LINE


@pytest.mark.parametrize("empty", [{}, {0: (0.0, 0.0)}, dict.fromkeys(range(200), (1.0, 0.0))])
def test_without_a_denominator_nothing_is_said(empty: dict) -> None:
    for direction in (LOWER, HIGHER):
        assert verdicts(empty, arm(200, 0.5, 1.5), QUARTER, direction) == (0.0, 0.0)
        assert verdicts(arm(200, 0.5, 1.5), empty, QUARTER, direction) == (0.0, 0.0)


def test_a_part_of_a_negative_ratio_is_no_tolerance() -> None:
    assert verdicts(arm(200, -0.5, 1.0), arm(200, -1.5, -0.5), QUARTER, LOWER) == (0.0, 0.0)
    assert ratio_harm_log_e(arm(200, -0.5, 1.0), arm(200, -1.5, -0.5), NOTHING, LOWER, ALPHA) > LINE


sums = st.dictionaries(
    st.integers(0, 255),
    st.tuples(st.sampled_from([0.0, 1.0, -3.0, 1e-9, 7e8]), st.sampled_from([0.0, 1.0, 5.0, 1e6])),
    min_size=150,
)


@settings(max_examples=30)
@given(sums, sums, st.sampled_from([NOTHING, QUARTER, CENT]), st.sampled_from([LOWER, HIGHER]))
def test_whatever_the_cells_hold_log_e_is_a_number(
    candidate: dict, baseline: dict, margin: Margin, direction: Direction
) -> None:
    assert all(math.isfinite(log_e) for log_e in verdicts(candidate, baseline, margin, direction))


def test_a_gate_without_a_margin_is_refused() -> None:
    with pytest.raises(ValueError, match="margin of 0"):
        ratio_advance_log_e(arm(200, 1.0, 2.0), arm(200, 1.0, 2.0), NOTHING, LOWER, ALPHA)


@pytest.mark.parametrize("alpha", [0.0, 0.5, -1.0, math.nan])
def test_a_level_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="one-sided level"):
        ratio_harm_log_e({}, {}, NOTHING, LOWER, alpha)


def test_many_rollouts_at_once_have_the_values_of_each() -> None:
    rng = np.random.default_rng(3)
    y, d = rng.gamma(1.0, 2.0, (2, 5, 256)), rng.gamma(1.0, 3.0, (2, 5, 256))
    together = harm_log_e(CellSums(y[0], d[0]), CellSums(y[1], d[1]), NOTHING, LOWER, ALPHA)
    for index in range(5):
        t, c = (dict(enumerate(zip(y[a, index].tolist(), d[a, index].tolist(), strict=True))) for a in (0, 1))
        assert ratio_harm_log_e(t, c, NOTHING, LOWER, ALPHA) == pytest.approx(float(together[index]))


def test_stages_share_the_mean_and_those_to_come_count_one() -> None:
    assert merge_stages([math.log(9.0), math.log(0.5)], 4) == pytest.approx(math.log((9.0 + 0.5 + 2.0) / 4.0))
    assert merge_stages([], 3) == pytest.approx(0.0)


def test_more_stages_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="stages have begun"):
        merge_stages([0.0, 0.0], 1)
    with pytest.raises(ValueError, match="stages have begun"):
        merge_stages([], 0)
