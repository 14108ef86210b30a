"""Proportions: evidence of harm and for advance from n units of which x had the event.

lower_is_better counts failures, higher_is_better counts successes; each is tested on the events themselves.

| | harm null (tolerated) | advance null (not yet shown tolerable) |
|---|---|---|
| lower_is_better, relative m | p_t <= (1 + m) p_c | p_t >= (1 + m) p_c |
| lower_is_better, absolute d | p_t <= p_c + d | p_t >= p_c + d |
| higher_is_better, relative m | p_t >= (1 - m) p_c | p_t <= (1 - m) p_c |
| higher_is_better, absolute d | p_t >= p_c - d | p_t <= p_c - d |

Each null is tested by a fixed-weight mixture of bets (12 for harm, 6 for advance) on alternatives that all
lie strictly beyond the line. A caller keeps one log-wealth vector per e-process, adds the log factors of
each batch, and takes `mixture.log_mixture` of it with the weights below. The guess must come from earlier
batches only: bet first, then `learn`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.stats.betting import SMALLEST_RATE, Batch, Bets, difference_bets, ratio_bets, settle
from rollout.stats.guess import YOUNG, mix_guesses, settled_guess, young_guesses
from rollout.stats.margin import Direction, Margin, NullLine, null_line

Floats = NDArray[np.float64]

# Chosen by hand, so that detection stays near the limit from x1.3 up; the mass at 10 to 50 meets catastrophes.
HARM_LAMBDAS = np.array([1.15, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0, 20.0, 50.0])
HARM_WEIGHTS = np.array([1.0, 2.0, 3.0, 3.0, 3.0, 2.0, 2.0, 1.5, 1.0, 1.0, 0.5, 0.5]) / 20.5
# How far from equality (0) to the line (1) an alternative lies; below 0 the candidate is the better one.
ADVANCE_FRACTIONS = np.array([0.6, 0.35, 0.0, -0.35, -0.8, -1.6])
ADVANCE_WEIGHTS = np.array([0.1, 0.2, 0.3, 0.2, 0.1, 0.1])
FURTHEST_BETTER = 0.75  # an alternative takes at most this part of the way from the guess to perfection

MEMORY = 20_000.0
PRIOR_EVENTS, PRIOR_OUTCOMES = 0.5, 50.0


@dataclass(frozen=True, slots=True)
class Counts:
    """n units (requests) of one arm, x of which had the event.

    Raises:
        ValueError: unless 0 <= x <= n.
    """

    n: int
    x: int

    def __post_init__(self) -> None:
        if not 0 <= self.x <= self.n:
            raise ValueError(f"events lie between 0 and the number of units; got x={self.x} of n={self.n}")

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.n + other.n, self.x + other.x)


@dataclass(frozen=True, slots=True)
class Guess:
    """Guesses of the baseline's rate and the weight each is bet with; the weights sum to 1.

    Raises:
        ValueError: if lengths differ, a rate is outside [0, 1], or the weights are not a distribution.
    """

    rates: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.rates) != len(self.weights) or not self.rates:
            raise ValueError(f"as many weights as rates; got {len(self.weights)} and {len(self.rates)}")
        if not all(0.0 <= rate <= 1.0 for rate in self.rates):
            raise ValueError(f"rates lie between 0 and 1, not {self.rates}")
        if min(self.weights) < 0.0 or abs(sum(self.weights) - 1.0) > 1e-9:
            raise ValueError(f"weights are at least 0 and sum to 1, not {self.weights}")

    @property
    def mean(self) -> float:
        """The weighted mean of the rates."""
        return sum(rate * weight for rate, weight in zip(self.rates, self.weights, strict=True))


@dataclass(frozen=True, slots=True)
class ControlHistory:
    """The baseline's outcomes so far, with forgetting: what the next guess is made from.

    Attributes:
        x: events, plus the half event of the empty history.
        n: outcomes, plus the fifty of the empty history.
    """

    x: float = PRIOR_EVENTS
    n: float = PRIOR_OUTCOMES

    @property
    def outcomes(self) -> float:
        """Baseline outcomes remembered, without those of the empty history."""
        return max(0.0, self.n - PRIOR_OUTCOMES)

    @property
    def events(self) -> float:
        """Baseline events remembered, without those of the empty history."""
        return min(max(0.0, self.x - PRIOR_EVENTS), self.outcomes)

    @property
    def guess(self) -> Guess:
        """What to bet the next batch on: four guesses while the history is young (see `guess`), then one."""
        if self.outcomes >= YOUNG:
            return Guess((float(settled_guess(self.events, self.outcomes)),), (1.0,))
        rates, weights = young_guesses(self.events, self.outcomes)
        return Guess(tuple(rates.tolist()), tuple(weights.tolist()))

    def learn(self, baseline: Counts) -> "ControlHistory":
        """The history after a batch that has been bet; it remembers some 20,000 outcomes."""
        outcomes, events = self.outcomes + baseline.n, self.events + baseline.x
        keep = min(1.0, MEMORY / outcomes) if outcomes > 0.0 else 1.0
        return ControlHistory(PRIOR_EVENTS + events * keep, PRIOR_OUTCOMES + outcomes * keep)


def harm_log_factors(
    candidate: Counts, baseline: Counts, guess: Guess | float, margin: Margin, direction: Direction
) -> Floats:
    """Log e-factors of one batch for "the candidate is worse than the margin tolerates", shape (12,).

    Args:
        candidate: the batch's counts, n > 0.
        baseline: the batch's counts, n > 0.
        guess: of the baseline's rate, from earlier batches only (`ControlHistory.guess`), or a single rate.
        margin: the worst tolerated change; size 0 tolerates none.
        direction: which way the metric is good.

    Raises:
        ValueError: if an arm is empty. Hold its counts back and add them to the next batch.
    """
    return _bet(harm_bets, (candidate, baseline), guess, margin, direction)


def advance_log_factors(
    candidate: Counts, baseline: Counts, guess: Guess | float, margin: Margin, direction: Direction
) -> Floats:
    """Log e-factors of one batch for "the candidate is within the margin", shape (6,); arguments as for harm.

    Raises:
        ValueError: if an arm is empty, or the margin is 0: no amount of data can show a change of at most
        nothing.
    """
    return _bet(advance_bets, (candidate, baseline), guess, margin, direction)


def harm_bets(n_t: ArrayLike, n_c: ArrayLike, guess: ArrayLike, margin: Margin, direction: Direction) -> Bets:
    """The 12 harm bets for batches of n_t and n_c units and guesses of the baseline's rate, all (...).

    With g the guess and lambda the grid, the alternatives are, strictly beyond the line:
    lower_is_better: relative r lambda g; absolute g + d + max(g, d) (lambda - 1), so that a rate far below
    its margin still has alternatives up to a catastrophe. higher_is_better: the odds of the rate on the
    line, divided by lambda; for small rates that is the rate divided by lambda, near 1 it multiplies the
    failures by lambda.
    """
    line, g = _line(margin, direction), np.maximum(guess, SMALLEST_RATE)[..., None]
    if direction == "lower_is_better":
        if margin.relative:
            return ratio_bets(n_t, n_c, guess, line.ratio * HARM_LAMBDAS, line.ratio)
        beyond = np.maximum(g, margin.size) * (HARM_LAMBDAS - 1.0)
        return difference_bets(n_t, n_c, guess, line.difference + beyond, line.difference)
    on_line = np.maximum(line.ratio * g + line.difference, 0.0)
    rates = on_line / (on_line + HARM_LAMBDAS * (1.0 - on_line))
    if margin.relative:
        return ratio_bets(n_t, n_c, guess, rates / g, line.ratio)
    # A guess below the margin leaves no rate beyond the line: an alternative on the line is not bet on.
    return difference_bets(n_t, n_c, guess, np.minimum(rates - g, line.difference), line.difference)


def advance_bets(n_t: ArrayLike, n_c: ArrayLike, guess: ArrayLike, margin: Margin, direction: Direction) -> Bets:
    """The 6 advance bets for batches of n_t and n_c units and guesses of the baseline's rate, all (...).

    The alternatives lie at fractions of the way from equality to the line, and beyond equality: r^fraction
    for a relative margin (on the log scale), fraction * d for an absolute one.

    Raises:
        ValueError: if the margin is 0.
    """
    if margin.size == 0.0:
        raise ValueError(
            "a margin of 0 leaves nothing to show: no data can prove that a change is at most zero; "
            "give the gate a margin above 0"
        )
    line, g = _line(margin, direction), np.asarray(guess, np.float64)[..., None]
    if margin.relative:
        return ratio_bets(n_t, n_c, guess, line.ratio**ADVANCE_FRACTIONS, line.ratio)
    shifts = line.difference * ADVANCE_FRACTIONS
    if direction == "lower_is_better":
        shifts = np.maximum(shifts, -FURTHEST_BETTER * g)
    else:
        shifts = np.minimum(shifts, FURTHEST_BETTER * (1.0 - g))
    return difference_bets(n_t, n_c, guess, shifts, line.difference)


def _line(margin: Margin, direction: Direction) -> NullLine:
    if not margin.relative and margin.size > 1.0:
        raise ValueError(f"an absolute margin of a proportion is a difference of rates, at most 1, not {margin.size}")
    return null_line(margin, direction)


def _bet(
    bets: Callable[[ArrayLike, ArrayLike, ArrayLike, Margin, Direction], Bets],
    arms: tuple[Counts, Counts],
    guess: Guess | float,
    margin: Margin,
    direction: Direction,
) -> Floats:
    candidate, baseline = arms
    if candidate.n == 0 or baseline.n == 0:
        raise ValueError(
            f"a bet needs units in both arms; got {candidate.n} and {baseline.n}: "
            "hold the counts back and add them to the next batch"
        )
    guesses = guess if isinstance(guess, Guess) else Guess((guess,), (1.0,))
    batch = Batch(candidate.n, candidate.x, baseline.n, baseline.x)
    factors = settle(bets(batch.n_t, batch.n_c, np.asarray(guesses.rates), margin, direction), batch)
    return mix_guesses(factors, np.asarray(guesses.weights))
