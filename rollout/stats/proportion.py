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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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


def both_log_factors(
    arms: tuple[Counts, Counts], guess: Guess | float, harm: Margin, gate: Margin, direction: Direction
) -> tuple[Floats, Floats]:
    """`harm_log_factors` and `advance_log_factors` of one batch (candidate, baseline), worked out at once.

    Raises:
        ValueError: as those do.
    """
    if harm.relative != gate.relative:
        return harm_log_factors(*arms, guess, harm, direction), advance_log_factors(*arms, guess, gate, direction)

    def bets(n_t: ArrayLike, n_c: ArrayLike, rates: ArrayLike, margin: Margin, way: Direction) -> Bets:
        return _bets(n_t, n_c, rates, (_harm_stakes(rates, harm, way), _advance_stakes(rates, margin, way)))

    factors = _bet(bets, arms, guess, gate, direction)
    return factors[: HARM_LAMBDAS.size], factors[HARM_LAMBDAS.size :]


def harm_bets(n_t: ArrayLike, n_c: ArrayLike, guess: ArrayLike, margin: Margin, direction: Direction) -> Bets:
    """The 12 harm bets for batches of n_t and n_c units and guesses of the baseline's rate, all (...).

    With g the guess and lambda the grid, the alternatives are, strictly beyond the line:
    lower_is_better: relative r lambda g; absolute g + d + max(g, d) (lambda - 1), so that a rate far below
    its margin still has alternatives up to a catastrophe. higher_is_better: the odds of the rate on the
    line, divided by lambda; for small rates that is the rate divided by lambda, near 1 it multiplies the
    failures by lambda.
    """
    return _bets(n_t, n_c, guess, (_harm_stakes(guess, margin, direction),))


def advance_bets(n_t: ArrayLike, n_c: ArrayLike, guess: ArrayLike, margin: Margin, direction: Direction) -> Bets:
    """The 6 advance bets for batches of n_t and n_c units and guesses of the baseline's rate, all (...).

    The alternatives lie at fractions of the way from equality to the line, and beyond equality: r^fraction
    for a relative margin (on the log scale), fraction * d for an absolute one.

    Raises:
        ValueError: if the margin is 0.
    """
    return _bets(n_t, n_c, guess, (_advance_stakes(guess, margin, direction),))


class _Stakes(NamedTuple):
    """What to bet on against one line: alternatives (..., K), as ratios or as differences like the line itself."""

    alternatives: Floats
    null: float
    relative: bool


def _harm_stakes(guess: ArrayLike, margin: Margin, direction: Direction) -> _Stakes:
    line, g = _line(margin, direction), np.maximum(guess, SMALLEST_RATE)[..., None]
    if direction == "lower_is_better":
        if margin.relative:
            return _Stakes(line.ratio * HARM_LAMBDAS, line.ratio, True)
        beyond = np.maximum(g, margin.size) * (HARM_LAMBDAS - 1.0)
        return _Stakes(line.difference + beyond, line.difference, False)
    on_line = np.maximum(line.ratio * g + line.difference, 0.0)
    rates = on_line / (on_line + HARM_LAMBDAS * (1.0 - on_line))
    if margin.relative:
        return _Stakes(rates / g, line.ratio, True)
    # A guess below the margin leaves no rate beyond the line: an alternative on the line is not bet on.
    return _Stakes(np.minimum(rates - g, line.difference), line.difference, False)


def _advance_stakes(guess: ArrayLike, margin: Margin, direction: Direction) -> _Stakes:
    if margin.size == 0.0:
        raise ValueError(
            "a margin of 0 leaves nothing to show: no data can prove that a change is at most zero; "
            "give the gate a margin above 0"
        )
    line, g = _line(margin, direction), np.asarray(guess, np.float64)[..., None]
    if margin.relative:
        return _Stakes(line.ratio**ADVANCE_FRACTIONS, line.ratio, True)
    shifts = line.difference * ADVANCE_FRACTIONS
    if direction == "lower_is_better":
        return _Stakes(np.maximum(shifts, -FURTHEST_BETTER * g), line.difference, False)
    return _Stakes(np.minimum(shifts, FURTHEST_BETTER * (1.0 - g)), line.difference, False)


def _bets(n_t: ArrayLike, n_c: ArrayLike, guess: ArrayLike, stakes: Sequence[_Stakes]) -> Bets:
    """The bets on all stakes, one after another; all of one sort."""
    make = ratio_bets if stakes[0].relative else difference_bets
    if len(stakes) == 1:
        return make(n_t, n_c, guess, stakes[0].alternatives, stakes[0].null)
    shape = np.shape(guess)
    wide = [np.broadcast_to(each.alternatives, (*shape, each.alternatives.shape[-1])) for each in stakes]
    nulls = np.repeat([each.null for each in stakes], [each.shape[-1] for each in wide])
    return make(n_t, n_c, guess, np.concatenate(wide, axis=-1), nulls)


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
