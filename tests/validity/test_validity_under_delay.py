"""Error rates when the arms take different times to fail or to succeed; with retries; and with samples.

Every candidate is exactly on its line, so a rollback and an advance are both wrong. Attempts start at random (Poisson);
a second is the unit of time. There is a look each second for two minutes, then every twenty seconds.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from rollout.stats.betting import Batch, settle
from rollout.stats.guess import YOUNG, mix_guesses, settled_guess, young_guesses
from rollout.stats.in_flight import Side, Started, settled_against, virtual_batch, wealth_by_cut
from rollout.stats.margin import Margin
from rollout.stats.proportion import ADVANCE_WEIGHTS, HARM_WEIGHTS, advance_bets, harm_bets

pytestmark = pytest.mark.slow

Floats = NDArray[np.float64]

REPLICATIONS = 120
ALPHA = 0.05
MARGIN = Margin(0.5, relative=True)
LOOKS = np.concatenate([np.arange(1, 121), np.arange(140, 781, 20)])
MINUTES = 13
HORIZON = 600  # seconds after the end of a minute when its attempts without outcome are given up
NEVER = 10**6
MAKERS = {"harm": (harm_bets, HARM_WEIGHTS), "advance": (advance_bets, ADVANCE_WEIGHTS)}
SIDES: tuple[Side, ...] = ("harm", "advance")

FAST, SLOW, USUAL = (0,), (10,), (2,)
TAIL = tuple(round(2 * math.exp(1.4 * norm.ppf((i + 0.5) / 8))) for i in range(8))  # 0 to 17 seconds
LONG_TAIL = tuple(5 * delay for delay in TAIL)


class Step(NamedTuple):
    """One attempt of a request: seconds from the request to its start and to its outcome, and whether it failed."""

    start: int
    finish: int
    failed: bool


class Way(NamedTuple):
    """One way a request can go, and how probable it is."""

    probability: float
    steps: tuple[Step, ...]


class Arm(NamedTuple):
    """Counts up to each look of the attempts of each minute of exposure: (looks, replications, minutes)."""

    started: Floats
    finished: Floats
    failed: Floats


class Delays(NamedTuple):
    """Seconds until a failure and until a success, equally likely each; `lost` never finish."""

    failures: Sequence[int]
    successes: Sequence[int]
    lost: float = 0.0

    def ways(self, rate: float) -> list[Way]:
        found = []
        for share, failed, delays in ((rate, True, self.failures), (1 - rate, False, self.successes)):
            found += [Way(share * (1 - self.lost) / len(delays), (Step(0, delay, failed),)) for delay in delays]
            found.append(Way(share * self.lost, (Step(0, NEVER, failed),)))
        return found


PATTERNS = {
    "equal": (Delays(USUAL, USUAL), Delays(USUAL, USUAL)),
    "candidate fails fast": (Delays(FAST, SLOW), Delays(SLOW, SLOW)),
    "candidate fails slowly": (Delays(SLOW, FAST), Delays(FAST, FAST)),
    "fails fast, baseline the reverse": (Delays(FAST, SLOW), Delays(SLOW, FAST)),
    "fails slowly, baseline the reverse": (Delays(SLOW, FAST), Delays(FAST, SLOW)),
    "candidate 5x slower": (Delays(SLOW, SLOW), Delays(USUAL, USUAL)),
    "baseline 5x slower": (Delays(USUAL, USUAL), Delays(SLOW, SLOW)),
    "heavy tails": (Delays(TAIL, LONG_TAIL), Delays(LONG_TAIL, TAIL)),
    "0.5 % lost": (Delays(FAST, SLOW, 0.005), Delays(SLOW, FAST, 0.005)),
}
REVERSED = PATTERNS["fails fast, baseline the reverse"]


def simulated(ways: Sequence[Way], per_second: float, rng: np.random.Generator, sampled: float = 1.0) -> Arm:
    """Thinned Poisson processes: one per way in which a request can go; `sampled` is the part that is reported."""
    last = int(LOOKS[-1])
    opens = 60 * np.arange(MINUTES)
    closes = opens + 60
    counts = np.zeros((3, LOOKS.size, REPLICATIONS, MINUTES))
    for way in ways:
        requests = np.zeros((REPLICATIONS, last + 1))
        requests[:, 1:] = rng.poisson(per_second * sampled * way.probability, (REPLICATIONS, last)).cumsum(axis=1)

        def seen(after: int, requests: Floats = requests) -> Floats:
            until = np.clip(LOOKS[:, None] - after, opens, closes)
            return np.moveaxis(requests[:, until] - requests[:, None, opens], 0, 1)

        for step in way.steps:
            if step.start < NEVER:
                counts[0] += seen(step.start)
            if step.finish < NEVER:
                outcome = seen(step.finish)
                counts[1] += outcome
                counts[2] += step.failed * outcome
    return Arm(*counts)


def both(delays: tuple[Delays, Delays], rate: float, ratio: float, traffic: float, share: float) -> tuple[Arm, Arm]:
    rng = np.random.default_rng(31)
    return (
        simulated(delays[0].ways(rate * ratio), traffic * share, rng),
        simulated(delays[1].ways(rate), traffic * (1 - share), rng),
    )


class Guess:
    """The judge's guesses of the baseline's rate, with weight 0 for three of the four once the history is old."""

    def __init__(self, events: Floats, outcomes: Floats) -> None:
        young, weights = young_guesses(events, outcomes)
        old = (outcomes >= YOUNG)[..., None]
        self.rates = np.where(old, settled_guess(events, outcomes)[..., None], young)
        self.weights = np.where(old, np.array([1.0, 0.0, 0.0, 0.0]), weights)

    def log_factors(self, started: Started, batch: Batch, side: Side, margin: Margin = MARGIN) -> Floats:
        """Log factors (R, K); 0 where an arm is empty."""
        n_t, n_c = (np.asarray(n, np.float64)[..., None] for n in started)
        make = MAKERS[side][0]
        bets = make(np.maximum(n_t, 1), np.maximum(n_c, 1), self.rates, margin, "lower_is_better")
        mixed = mix_guesses(settle(bets, Batch(*(np.asarray(count)[..., None] for count in batch))), self.weights)
        return np.where((n_t > 0) & (n_c > 0), mixed, 0.0)


def mixture(wealth: Floats, side: Side) -> Floats:
    top = wealth.max(axis=-1, keepdims=True)
    return np.asarray(top[..., 0] + np.log(np.exp(wealth - top) @ MAKERS[side][1]))


def best_by_start(arms: tuple[Arm, Arm], side: Side, margin: Margin = MARGIN, until: int = NEVER) -> Floats:
    """Largest log e over all looks (R,): minutes of start, what is in flight settled against the evidence."""
    t, c = arms
    over = np.zeros((REPLICATIONS, MAKERS[side][1].size))
    best = np.zeros(REPLICATIONS)
    guesses: list[Guess] = []
    first = 0  # minute that is not over
    for look, second in enumerate(LOOKS[until >= LOOKS]):
        newest = min((int(second) - 1) // 60, MINUTES - 1)
        if newest == len(guesses):
            known = c.failed[look - 1], c.finished[look - 1]
            guesses.append(Guess(*(np.zeros(REPLICATIONS) if look == 0 else total.sum(axis=-1) for total in known)))
        factors = []
        for minute in range(first, newest + 1):
            at = (look, slice(None), minute)
            finished = Batch(t.finished[at], t.failed[at], c.finished[at], c.failed[at])
            given_up = second >= 60 * (minute + 1) + HORIZON
            started = Started(finished.n_t, finished.n_c) if given_up else Started(t.started[at], c.started[at])
            settled = settled_against(started, finished, side, "lower_is_better")
            factors.append(guesses[minute].log_factors(started, settled, side, margin))
        cuts = wealth_by_cut(over, np.stack(factors, axis=-2))
        best = np.maximum(best, mixture(cuts, side).max(axis=-1))
        while first < newest and _is_over(arms, look, first, int(second)):
            over, first = cuts[:, 1], first + 1
            cuts = cuts[:, 1:]
    return best


def _is_over(arms: tuple[Arm, Arm], look: int, minute: int, second: int) -> bool:
    complete = all(np.array_equal(arm.started[look, :, minute], arm.finished[look, :, minute]) for arm in arms)
    return second >= 60 * (minute + 1) + (0 if complete else HORIZON)


def best_of_batches(batches: Sequence[Batch], side: Side, margin: Margin = MARGIN) -> Floats:
    """Largest log e (R,) of batches that are bet for good, one after the other; empty ones wait for the next."""
    wealth, best = np.zeros((REPLICATIONS, MAKERS[side][1].size)), np.zeros(REPLICATIONS)
    events, outcomes = np.zeros(REPLICATIONS), np.zeros(REPLICATIONS)
    waiting = np.zeros((4, REPLICATIONS))
    for batch in batches:
        waiting += np.stack([np.asarray(count) for count in batch])
        due = Batch(*waiting)
        wealth += Guess(events, outcomes).log_factors(Started(due.n_t, due.n_c), due, side, margin)
        best = np.maximum(best, mixture(wealth, side))
        bet = (waiting[0] > 0) & (waiting[2] > 0)
        events, outcomes = events + bet * waiting[3], outcomes + bet * waiting[2]
        waiting = waiting * ~bet
    return best


def as_they_finish(arms: tuple[Arm, Arm]) -> list[Batch]:
    """What each look finds new, whenever it started."""
    totals = [counts.sum(axis=-1) for arm in arms for counts in (arm.finished, arm.failed)]
    return [Batch(*step) for step in np.moveaxis(np.diff(np.stack(totals), axis=1, prepend=0.0), 1, 0)]


def by_maturity(arms: tuple[Arm, Arm], maturity: int) -> list[Batch]:
    """Minutes of exposure when they are due: n is what started, and what has not finished counts as the failure."""
    batches = []
    for minute in range(MINUTES):
        due = 60 * (minute + 1) + maturity
        if due <= LOOKS[-1]:
            at = (int(np.searchsorted(LOOKS, due, side="right")) - 1, slice(None), minute)
            x = [arm.failed[at] + arm.started[at] - arm.finished[at] for arm in arms]
            batches.append(Batch(arms[0].started[at], x[0], arms[1].started[at], x[1]))
    return batches


def wrong(best: Floats, alpha: float = ALPHA) -> float:
    return float((best >= math.log(1 / alpha)).mean())


def line(alpha: float = ALPHA) -> float:
    return alpha + 2 * math.sqrt(alpha * (1 - alpha) / REPLICATIONS)


@pytest.mark.parametrize(("rate", "traffic", "share"), [(0.2, 100, 0.5), (0.02, 100, 0.1)])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_is_in_flight_is_no_evidence(pattern: str, rate: float, traffic: float, share: float) -> None:
    arms = both(PATTERNS[pattern], rate, 1.5, traffic, share)
    for side in SIDES:
        best = best_by_start(arms, side)
        assert wrong(best) <= line()
        assert wrong(best, 0.01) <= line(0.01)


def test_any_regression_is_not_seen_in_delays_alone() -> None:
    arms = both(REVERSED, 0.2, 1.0, 100, 0.5)
    assert wrong(best_by_start(arms, "harm", Margin(0.0, relative=True))) <= line()


def test_outcomes_bet_as_they_finish_are_invalid_under_such_delays() -> None:
    """Why this module exists, and what shows that the tests above can fail."""
    arms = both(REVERSED, 0.2, 1.0, 100, 0.5)
    assert wrong(best_of_batches(as_they_finish(arms), "harm")) > 0.9


def test_settling_against_on_top_of_bets_by_finish_is_not_enough() -> None:
    """Bets made on a guess that the delays had bent are never taken back: hence the bets by minute of start."""
    arms = both(REVERSED, 0.2, 1.0, 100, 0.5)
    margin = Margin(0.0, relative=True)
    wealth, best = np.zeros((REPLICATIONS, HARM_WEIGHTS.size)), np.zeros(REPLICATIONS)
    t, c = arms
    for look, batch in enumerate(as_they_finish(arms)[:20]):
        learned = [
            counts[look - 1].sum(axis=-1) if look else np.zeros(REPLICATIONS) for counts in (c.failed, c.finished)
        ]
        wealth += Guess(*learned).log_factors(Started(batch.n_t, batch.n_c), batch, "harm", margin)
        started = Started(t.started[look].sum(axis=-1), c.started[look].sum(axis=-1))
        finished = Batch(*(counts[look].sum(axis=-1) for arm in arms for counts in (arm.finished, arm.failed)))
        virtual = virtual_batch(started, finished, "harm", "lower_is_better")
        now = Guess(c.failed[look].sum(axis=-1), c.finished[look].sum(axis=-1))
        best = np.maximum(best, mixture(wealth + now.log_factors(started, virtual, "harm", margin), "harm"))
    assert wrong(best) > 0.5


@pytest.mark.parametrize(("delays", "until"), [((USUAL, USUAL), 45), ((SLOW, USUAL), 60), ((SLOW, SLOW), 90)])
def test_a_catastrophe_is_acted_on_within_a_few_delays(delays: tuple[Sequence[int], Sequence[int]], until: int) -> None:
    """Half of one candidate request a second fails, instead of 2 %: alpha .01, any regression."""
    pattern = Delays(delays[0], delays[0]), Delays(delays[1], delays[1])
    best = best_by_start(both(pattern, 0.02, 25, 10, 0.1), "harm", Margin(0.0, relative=True), until)
    assert wrong(best, 0.01) >= 0.9


@pytest.mark.parametrize("pattern", PATTERNS)
def test_minutes_that_wait_for_the_timeout_are_valid(pattern: str) -> None:
    """Lost attempts count as failures in both arms, which moves both rates by the same half point."""
    for rate in (0.02, 0.2):
        arms = both(PATTERNS[pattern], rate, 1.5, 100, 0.5)
        for side in SIDES:
            if pattern == "0.5 % lost" and side == "advance":
                continue  # the half point is common to both arms, so the candidate is no longer beyond its margin
            assert wrong(best_of_batches(by_maturity(arms, 120), side)) <= line()


def retried(rate: float, retries: int, delay: int) -> list[Way]:
    """A request is attempted until it succeeds, or has been retried that often; every attempt counts."""
    ways = []
    for failures in range(retries + 2):
        given_up = failures == retries + 1
        steps = [Step(i * delay, (i + 1) * delay, True) for i in range(failures)]
        if not given_up:
            steps.append(Step(failures * delay, (failures + 1) * delay, False))
        ways.append(Way(rate**failures * (1.0 if given_up else 1 - rate), tuple(steps)))
    return ways


@pytest.mark.parametrize(("retries_t", "retries_c"), [(2, 2), (2, 0), (0, 2)])
@pytest.mark.parametrize("delay", [0, 2])
def test_retries_are_valid_although_they_depend_on_outcomes(retries_t: int, retries_c: int, delay: int) -> None:
    """Bet by minute, that is. By second, with five requests each, arms that retry differently are not quite.

    Measured with 1,500 replications, 30 % against 20 %: retries by the candidate only advance .093 by second and .023
    by minute. By second the excess is gone from 20 requests a second on, or with 3 % against 2 %.
    """
    rng = np.random.default_rng(32)
    arms = simulated(retried(0.3, retries_t, delay), 5, rng), simulated(retried(0.2, retries_c, delay), 5, rng)
    for side in SIDES:
        assert wrong(best_by_start(arms, side)) <= line()
        assert wrong(best_of_batches(by_maturity(arms, 60), side)) <= line()
        if retries_t == retries_c:
            assert wrong(best_of_batches(as_they_finish(arms), side)) <= line()


@pytest.mark.parametrize(("sampled_t", "sampled_c"), [(1.0, 0.1), (0.1, 1.0)])
def test_a_sample_needs_no_weights_though_the_arms_are_sampled_differently(sampled_t: float, sampled_c: float) -> None:
    rng = np.random.default_rng(33)
    ways = Delays(FAST, FAST)
    arms = simulated(ways.ways(0.3), 10, rng, sampled_t), simulated(ways.ways(0.2), 10, rng, sampled_c)
    for side in SIDES:
        assert wrong(best_of_batches(as_they_finish(arms), side)) <= line()
