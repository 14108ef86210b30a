"""Sample-ratio mismatch: false alarms at alpha 0.001, and detection of a fifth of the candidate's units lost."""

import math

import numpy as np
import pytest

from rollout.stats.samples import srm_design_effect, srm_log_e

ALPHA = 0.001
LINE = math.log(1.0 / ALPHA)


def alarm_after(rng: np.random.Generator, share: float, kept: float, looks: int, units: int) -> int | None:
    """Units seen at the first of `looks` looks, `units` apart, whose log e reaches the line."""
    candidate = baseline = 0
    for look in range(1, looks + 1):
        assigned = int(rng.binomial(units, share))
        candidate += int(rng.binomial(assigned, kept))
        baseline += units - assigned
        if srm_log_e(candidate, baseline, share) >= LINE:
            return look * units
    return None


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_false_alarms_stay_below_alpha(share: float) -> None:
    rng = np.random.default_rng(40)
    runs = 500
    alarms = sum(alarm_after(rng, share, 1.0, 100, 200) is not None for _ in range(runs))
    assert alarms / runs <= ALPHA + 2.0 * math.sqrt(ALPHA * (1.0 - ALPHA) / runs)


@pytest.mark.parametrize(("share", "target"), [(0.01, 60_000), (0.1, 7_000), (0.5, 3_000)])
def test_a_fifth_of_the_candidates_units_lost_is_found_in_time(share: float, target: int) -> None:
    rng = np.random.default_rng(41)
    found = [alarm_after(rng, share, 0.8, 400, target // 60) for _ in range(60)]
    assert None not in found
    assert np.mean([units for units in found if units is not None]) <= target


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_units_seen_by_several_processes_raise_no_false_alarm(share: float) -> None:
    """Each unit is first exposed in 1 to 12 processes; undivided, its exposures count as independent."""
    rng = np.random.default_rng(42)
    runs, tempered, raw = 300, 0, 0
    for _ in range(runs):
        processes, cell = rng.integers(1, 13, 3_000), rng.integers(0, 256, 3_000)
        in_candidate = rng.random(3_000) < share
        candidate = np.bincount(cell, processes * in_candidate, 256).astype(int)
        baseline = np.bincount(cell, processes * ~in_candidate, 256).astype(int)
        log_e = srm_log_e(int(candidate.sum()), int(baseline.sum()), share)
        effect = srm_design_effect(candidate, baseline, share)
        raw += log_e >= LINE
        tempered += log_e / effect >= LINE
    assert tempered / runs <= ALPHA + 2.0 * math.sqrt(ALPHA * (1.0 - ALPHA) / runs)
    assert raw > tempered
