"""The design effect of sticky units, from cluster cells."""

import math

import numpy as np
import pytest

from rollout.stats.design_effect import CELLS, ArmsCells, design_effect
from rollout.stats.margin import Margin
from rollout.stats.mixture import log_mixture
from rollout.stats.proportion import HARM_WEIGHTS, ControlHistory, Counts, harm_log_factors


def arm(rng: np.random.Generator, units: int, requests: int, icc: float, rate: float = 0.1) -> dict:
    """Cells of one arm: each unit makes `requests`, with a rate of its own (beta, intra-class correlation icc)."""
    spread = (1.0 - icc) / icc if icc > 0.0 else math.inf
    rates = np.full(units, rate) if icc == 0.0 else rng.beta(rate * spread, (1 - rate) * spread, units)
    x, cell = rng.binomial(requests, rates), rng.integers(0, CELLS, units)
    n = np.bincount(cell, minlength=CELLS) * requests
    events = np.bincount(cell, x, minlength=CELLS).astype(int)
    return {i: (int(n[i]), int(events[i])) for i in range(CELLS) if n[i]}


@pytest.mark.parametrize(("icc", "requests"), [(0.0, 10), (0.05, 20), (0.2, 20)])
def test_it_finds_the_design_effect_of_equal_clusters(icc: float, requests: int) -> None:
    """Kish: D = 1 + (requests per unit - 1) * icc."""
    rng = np.random.default_rng(1)
    found = [
        design_effect([ArmsCells(arm(rng, 400, requests, icc), arm(rng, 3600, requests, icc))]) for _ in range(100)
    ]
    assert np.mean(found) == pytest.approx(1.0 + (requests - 1) * icc, rel=0.08)


def test_units_that_return_in_a_later_attempt_are_still_one_cluster() -> None:
    """The same deviation in two attempts counts as one of twice the size, not as two."""
    rng = np.random.default_rng(2)
    cells = arm(rng, 2000, 10, 0.2)
    once = design_effect([ArmsCells(cells, cells)])
    twice = design_effect([ArmsCells(cells, cells), ArmsCells(cells, cells)])
    assert twice == pytest.approx(2.0 * once, rel=0.01)


def test_rates_that_differ_between_attempts_are_not_clustering() -> None:
    def flat(rate: float) -> dict[int, tuple[int, int]]:
        rng = np.random.default_rng(int(rate * 1000))
        return {cell: (100, int(rng.binomial(100, rate))) for cell in range(CELLS)}

    attempts = [ArmsCells(flat(rate), flat(rate + 0.01)) for rate in (0.05, 0.2, 0.5)]
    assert design_effect(attempts) < 1.15


def test_observations_in_cells_of_their_own_have_no_design_effect() -> None:
    candidate = {cell: (1, cell % 2) for cell in range(6)}
    assert design_effect([ArmsCells(candidate, dict.fromkeys(range(50, 90), (1, 0)))]) == 1.0


@pytest.mark.parametrize(
    ("candidate", "baseline"),
    [
        ({}, {}),
        ({1: (5, 5)}, {}),
        ({1: (5, 5), 2: (5, 5)}, dict.fromkeys(range(200), (9, 0))),
    ],
    ids=["nothing", "one cell", "all fail against none"],
)
def test_without_variation_in_either_arm_it_is_one(candidate: dict, baseline: dict) -> None:
    assert design_effect([ArmsCells(candidate, baseline)]) == 1.0


def test_an_arm_that_cannot_tell_borrows_from_the_other() -> None:
    rng = np.random.default_rng(3)
    sticky = arm(rng, 2000, 20, 0.2)
    alone = design_effect([ArmsCells({}, sticky)])
    assert alone > 3.0
    assert design_effect([ArmsCells({7: (12, 12)}, sticky)]) == pytest.approx(alone)


@pytest.mark.parametrize("requests", [5, 10])
def test_a_catastrophe_is_seen_in_its_first_requests(requests: int) -> None:
    """Every candidate request fails; different units, and a baseline of 99 times as many requests."""
    rng = np.random.default_rng(4)
    for _ in range(100):
        cells = rng.integers(0, CELLS, requests)
        n = np.bincount(cells, minlength=CELLS)
        candidate = {cell: (int(n[cell]), int(n[cell])) for cell in range(CELLS) if n[cell]}
        baseline = arm(rng, 99 * requests, 1, 0.0, rate=0.02)
        failures = sum(x for _, x in baseline.values())
        log_e = log_mixture(
            harm_log_factors(
                Counts(requests, requests),
                Counts(99 * requests, failures),
                ControlHistory().guess,
                Margin(0.5, relative=True),
                "lower_is_better",
            ),
            HARM_WEIGHTS,
        )
        assert log_e / design_effect([ArmsCells(candidate, baseline)]) >= math.log(100.0)


def test_a_burst_of_one_unit_is_not_a_catastrophe() -> None:
    """Twenty failures of one unit beside two units without any: about one unit's worth of evidence."""
    rng = np.random.default_rng(6)
    candidate = {3: (20, 20), 90: (6, 0), 201: (4, 0)}
    assert design_effect([ArmsCells(candidate, arm(rng, 3000, 1, 0.0, rate=0.02))]) > 8.0


@pytest.mark.parametrize("cells", [{256: (1, 0)}, {-1: (1, 0)}, {0: (1, 2)}])
def test_impossible_cells_are_refused(cells: dict[int, tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="cells are numbered 0 to 255"):
        design_effect([ArmsCells(cells, {})])
