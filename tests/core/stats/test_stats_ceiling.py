"""Absolute ceilings: exact validity of each look, the average run length, fast alarms, and clearing."""

import math
from collections.abc import Iterable

import numpy as np
import pytest
from scipy.stats import binom, multinomial, poisson

from rollout.stats.ceiling import (
    ALPHA,
    FRESH,
    HEADROOM,
    WEIGHTS,
    Ceiling,
    Levels,
    ceiling_log_factors,
    is_exceeded,
    log_detector,
    mean_log_factors,
    proportion_log_factors,
    rate_log_factors,
    restarted,
)
from rollout.stats.count_rate import Exposed
from rollout.stats.margin import Direction
from rollout.stats.proportion import Counts

LOWER: Direction = "lower_is_better"
HIGHER: Direction = "higher_is_better"

State = list[float] | tuple[float, ...]


def looks_until(
    exceeded: bool, ceiling: Ceiling, looks: Iterable[Counts | Levels | Exposed], state: State = FRESH
) -> tuple[float, State]:
    """How many looks it takes until the alarm is on (or off), and the state then; infinity if it never is."""
    for number, look in enumerate(looks, 1):
        state = restarted(state, ceiling_log_factors(look, ceiling))
        if is_exceeded(state) is exceeded:
            return number, state
    return math.inf, state


def tolerated(level: float, direction: Direction, top: float) -> np.ndarray:
    """Levels on the ceiling and on its good side."""
    return np.linspace(0.0, level, 9) if direction == LOWER else np.linspace(level, top, 9)


def test_weights_are_a_distribution() -> None:
    assert WEIGHTS.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("direction", [LOWER, HIGHER])
@pytest.mark.parametrize("level", [0.001, 0.05, 0.5, 0.97])
@pytest.mark.parametrize("n", [1, 7, 40])
def test_no_look_at_a_tolerated_proportion_gains_on_average(direction: Direction, level: float, n: int) -> None:
    x = np.arange(n + 1)
    e = np.exp(proportion_log_factors(n, x, Ceiling(level, direction)))
    p = tolerated(level, direction, 1.0)
    assert (binom.pmf(x, n, p[:, None]) @ e).max() <= 1.0 + 1e-9


@pytest.mark.parametrize("direction", [LOWER, HIGHER])
@pytest.mark.parametrize("level", [0.05, 0.5, 3.0])
@pytest.mark.parametrize("exposure", [0.05, 1.0])
def test_no_look_at_a_tolerated_rate_gains_on_average(direction: Direction, level: float, exposure: float) -> None:
    x = np.arange(90)
    logs = rate_log_factors(exposure, x, Ceiling(level, direction))
    for rate in tolerated(level, direction, 3.0 * level):
        log_p = poisson.logpmf(x, rate * exposure) if rate > 0.0 else np.where(x == 0, 0.0, -np.inf)
        assert np.exp(log_p[:, None] + logs).sum(axis=0).max() <= 1.0 + 1e-9


@pytest.mark.parametrize("direction", [LOWER, HIGHER])
@pytest.mark.parametrize("level", [0.4, 1.0, 2.5])
def test_no_look_at_a_tolerated_mean_gains_on_average(direction: Direction, level: float) -> None:
    """Four observations of three values: every histogram, over all distributions whose mean is tolerated."""
    values, cap, n = np.array([0.0, 1.0, 5.0]), 3.0, 4
    tables = np.array([(n - a - b, a, b) for a in range(n + 1) for b in range(n + 1 - a)])
    e = np.exp(mean_log_factors(tables, values, cap, Ceiling(level, direction)))
    grid = np.linspace(0.0, 1.0, 21)
    shares = np.array([(1.0 - b - c, b, c) for b in grid for c in grid if b + c <= 1.0]).clip(0.0)
    mean = shares @ np.minimum(values, cap)
    inside = shares[mean <= level + 1e-12 if direction == LOWER else mean >= level - 1e-12]
    assert len(inside) >= 14
    for p in inside:
        assert (multinomial.pmf(tables, n, p / p.sum()) @ e).max() <= 1.0 + 1e-9


@pytest.mark.parametrize(("batch", "alpha"), [(1, 0.05), (20, 0.05), (1, 0.02)])
def test_a_level_exactly_at_the_ceiling_alarms_rarer_than_promised(batch: int, alpha: float) -> None:
    """The average number of looks to a false alarm is at least 1 / alpha (runs are cut off, which shortens them)."""
    rng = np.random.default_rng(1)
    runs, longest = 150, round(8.0 / alpha)
    lengths = np.full(runs, longest)
    states: list[State] = [FRESH] * runs
    alive = list(range(runs))
    factors = proportion_log_factors(batch, np.arange(batch + 1), Ceiling(0.05, LOWER))
    for look in range(1, longest + 1):
        for run, x in zip(list(alive), rng.binomial(batch, 0.05, len(alive)), strict=True):
            states[run] = restarted(states[run], factors[x], alpha)
            if is_exceeded(states[run], alpha):
                lengths[run] = look
                alive.remove(run)
    assert (lengths < longest).any()
    assert lengths.mean() >= 1.0 / alpha


def test_a_level_well_below_the_ceiling_does_not_alarm() -> None:
    rng = np.random.default_rng(2)
    looks = [Counts(50, int(x)) for x in rng.binomial(50, 0.02, 4_000)]
    assert looks_until(True, Ceiling(0.05, LOWER), looks)[0] == math.inf


@pytest.mark.parametrize(("level", "direction"), [(0.05, LOWER), (0.95, HIGHER)])
def test_five_straight_failures_suffice_when_five_percent_may_fail(level: float, direction: Direction) -> None:
    failure = Counts(1, 1 if direction == LOWER else 0)
    assert looks_until(True, Ceiling(level, direction), [failure] * 20)[0] <= 5


def test_twenty_failures_suffice_at_once_and_after_a_long_good_time() -> None:
    ceiling = Ceiling(0.05, LOWER)
    assert looks_until(True, ceiling, [Counts(20, 20)])[0] == 1
    good = [Counts(1_000, 3)] * 500
    _, state = looks_until(True, ceiling, good)
    assert looks_until(True, ceiling, [Counts(1, 1)] * 20, state)[0] <= 5


def test_a_moderate_excess_is_found() -> None:
    rng = np.random.default_rng(3)
    for level, direction, p in ((0.05, LOWER, 0.1), (0.95, HIGHER, 0.9)):
        looks = [Counts(10, int(x)) for x in rng.binomial(10, p, 200)]
        assert looks_until(True, Ceiling(level, direction), looks)[0] <= 60


@pytest.mark.parametrize("outage", [20, 10_000])
def test_it_clears_within_ten_times_the_requests_that_a_failure_is_allowed_in(outage: int) -> None:
    ceiling, state = Ceiling(0.05, LOWER), FRESH
    for _ in range(outage // 20):
        state = restarted(state, ceiling_log_factors(Counts(20, 20), ceiling))
    assert is_exceeded(state)
    taken, _ = looks_until(False, ceiling, [Counts(1, 0)] * 1_000, state)
    assert 10 <= taken <= 10 / 0.05


def test_it_clears_at_half_the_ceiling_too_and_stays_on_above_it() -> None:
    rng = np.random.default_rng(4)
    ceiling, capped = Ceiling(0.05, LOWER), [math.log(HEADROOM / (ALPHA * weight)) for weight in WEIGHTS]
    for _ in range(10):
        recovered = [Counts(1, int(x)) for x in rng.random(2_000) < 0.025]
        assert looks_until(False, ceiling, recovered, capped)[0] <= 1_000
    state, off = capped, 0
    for x in rng.binomial(10, 0.1, 1_000):
        state = restarted(state, ceiling_log_factors(Counts(10, int(x)), ceiling))
        off += not is_exceeded(state)
    assert off <= 30


def test_the_cap_never_prevents_an_alarm() -> None:
    """Each alternative alone can raise it, with all others ruined."""
    for k in range(len(WEIGHTS)):
        factors = np.full(len(WEIGHTS), -1e6)
        factors[k] = 1e6
        assert log_detector(restarted(FRESH, factors)) == pytest.approx(math.log(HEADROOM / ALPHA))


def test_a_mean_ceiling_alarms_and_clears() -> None:
    values = np.array([0.0, 0.5, 1.0, 2.0, 10.0])
    ceiling = Ceiling(1.0, LOWER)

    def look(*counts: int) -> Levels:
        return Levels(values, np.array(counts, np.float64), 10.0)

    assert looks_until(True, ceiling, [look(1, 5, 3, 1, 0)] * 300)[0] == math.inf
    assert looks_until(True, ceiling, [look(0, 0, 0, 0, 1)] * 20)[0] <= 8
    taken, state = looks_until(True, ceiling, [look(0, 3, 3, 4, 0)] * 200)
    assert taken <= 60
    assert looks_until(False, ceiling, [look(2, 6, 2, 0, 0)] * 100, state)[0] <= 20


def test_a_mean_floor_alarms_when_everything_is_worthless() -> None:
    scores, floor = np.array([0.0, 0.5, 1.0]), Ceiling(0.8, HIGHER)
    good, bad = (Levels(scores, np.array(counts, np.float64), 1.0) for counts in ((1, 2, 17), (1, 0, 0)))
    assert looks_until(True, floor, [good] * 300)[0] == math.inf
    assert looks_until(True, floor, [bad] * 20)[0] <= 8


def test_a_rate_ceiling_alarms_and_clears() -> None:
    ceiling = Ceiling(2.0, LOWER)
    assert looks_until(True, ceiling, [Exposed(10.0, 15)] * 300)[0] == math.inf
    taken, state = looks_until(True, ceiling, [Exposed(1.0, 6)] * 100)
    assert taken <= 6
    assert looks_until(False, ceiling, [Exposed(1.0, 1)] * 100, state)[0] <= 10
    assert looks_until(True, Ceiling(2.0, HIGHER), [Exposed(1.0, 0)] * 20)[0] <= 8


def test_a_look_without_observations_changes_nothing_that_counts() -> None:
    state = restarted(FRESH, ceiling_log_factors(Counts(3, 3), Ceiling(0.05, LOWER)))
    for nothing in (Counts(0, 0), Exposed(0.0, 0), Levels(np.array([1.0]), np.array([0.0]), 2.0)):
        assert restarted(state, ceiling_log_factors(nothing, Ceiling(0.05, LOWER))) == state


def test_a_state_is_a_plain_list_and_the_old_one_is_left_alone() -> None:
    old = [0.5] * len(WEIGHTS)
    new = restarted(old, ceiling_log_factors(Counts(5, 0), Ceiling(0.05, LOWER)))
    assert old == [0.5] * len(WEIGHTS)
    assert all(type(w) is float for w in new)


def test_ceilings_that_nothing_could_exceed_are_refused() -> None:
    for level in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite number above 0"):
            Ceiling(level, LOWER)
    with pytest.raises(ValueError, match="between 0 and 1"):
        ceiling_log_factors(Counts(1, 1), Ceiling(1.0, LOWER))
    with pytest.raises(ValueError, match="between 0 and the cap"):
        ceiling_log_factors(Levels(np.array([1.0]), np.array([1.0]), 2.0), Ceiling(2.0, LOWER))


def test_impossible_histograms_are_refused() -> None:
    one = np.array([1.0])
    with pytest.raises(ValueError, match="one count per value"):
        Levels(one, np.array([1.0, 2.0]), 2.0)
    with pytest.raises(ValueError, match="a cap is"):
        Levels(one, one, math.inf)
    for values, counts in ((-one, one), (one, -one), (one, one * math.nan)):
        with pytest.raises(ValueError, match="values and counts"):
            Levels(values, counts, 2.0)
