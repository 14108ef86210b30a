"""Count rates: evidence of harm and for advance from x events in an exposure e (requests, seconds) per arm.

With the line lambda_t = r lambda_c + d of the margin, and a stake B chosen before the events are seen,

    u = 1 + B / (e_t r),    v = 1 - B / e_c,    e = u^x_t v^x_c exp(-B d / r),    u, v > 0.

B > 0 bets on "above the line", B < 0 on "below it".

Valid: for Poisson counts E[u^x] = exp(e lambda (u - 1)), so log E[e] = (B / r) (lambda_t - r lambda_c - d) <= 0
wherever the null holds, on the line and everywhere behind it. Only the batch's mean rate enters: the baseline may
change between batches at will, and within one as long as both arms' exposure is spread over it alike. Sums of
independent summands in [0, 1], yes/no outcomes among them, have a smaller E[u^x] (u^x is convex): the test is then
conservative, so `proportion` is the stronger one for them. Clumped events have a larger one: divide log e by
`rate_design_effect`.

Strong: with an alternative lambda_1 and a guess g of the baseline's rate, B maximises the expected log e:
lambda_1 / (r + B / e_t) - g / (1 - B / e_c) = d / r, a quadratic. For d = 0 only lambda_1 / g matters: no guess is
needed, and e is the likelihood ratio of the conditional binomial test of x_t given x_t + x_c (Lindon & Malek,
NeurIPS 2022, arXiv:2011.03567, with realised exposures). For d != 0 a wrong guess costs growth, never validity.

The nulls are those of the table in `proportion`, with rates in place of proportions; so are the mixtures (12 bets
for harm, 6 for advance), their weights, and how a caller keeps them. Functions on arrays are vectorised over leading
axes; the last axis of a result holds the K alternatives.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from rollout.stats.design_effect import CELLS, design_effects, no_clusters, rate_clusters
from rollout.stats.guess import mix_guesses
from rollout.stats.margin import Direction, Margin, NullLine, null_line
from rollout.stats.proportion import ADVANCE_FRACTIONS, FURTHEST_BETTER, HARM_LAMBDAS

Floats = NDArray[np.float64]

LARGEST_STAKE = 1.0 - 1e-9  # part of what an arm can lose: rounding must not make u or v zero
SMALLEST_GUESS = 1e-3  # times d: a guess of zero would stake everything on a baseline without a single event
GUESS_CENTRES = np.array([0.3, 3.0, 30.0, 300.0])  # times d, the only scale of rates there is before any data
GUESS_WEIGHTS = np.array([0.3, 0.3, 0.3, 0.1])

ExposedCells = Mapping[int, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Exposed:
    """Exposure of one arm (any positive measure, the same in both arms) and the number of events in it.

    Events without exposure are no contradiction, they may arrive in different increments; they cannot be bet on.

    Raises:
        ValueError: unless both are finite and at least 0.
    """

    exposure: float
    events: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(value) and value >= 0.0 for value in (self.exposure, self.events)):
            raise ValueError(
                f"exposure and events are finite and at least 0; got events={self.events} in exposure={self.exposure}"
            )

    def __add__(self, other: "Exposed") -> "Exposed":
        return Exposed(self.exposure + other.exposure, self.events + other.events)


@dataclass(frozen=True, slots=True)
class RateGuess:
    """Guesses of the baseline's rate and the weight each is bet with; the weights sum to 1.

    Raises:
        ValueError: if lengths differ, a rate is negative or not finite, or the weights are not a distribution.
    """

    rates: tuple[float, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.rates) != len(self.weights) or not self.rates:
            raise ValueError(f"as many weights as rates; got {len(self.weights)} and {len(self.rates)}")
        if not all(math.isfinite(rate) and rate >= 0.0 for rate in self.rates):
            raise ValueError(f"rates are finite and at least 0, not {self.rates}")
        if min(self.weights) < 0.0 or abs(sum(self.weights) - 1.0) > 1e-9:
            raise ValueError(f"weights are at least 0 and sum to 1, not {self.weights}")


class RateBets(NamedTuple):
    """Log factor of one event of the candidate and of the baseline, and of the exposure as a whole; each (..., K)."""

    event_t: Floats
    event_c: Floats
    exposure: Floats


def guess_rate(history: Exposed, margin: Margin) -> RateGuess:
    """What to bet the next batch of an absolute margin on; a relative one needs no guess.

    Four exponential priors of the rate, at 0.3 to 300 times the margin, each give their posterior mean; the weights
    are their posterior probabilities, as in `guess`. They agree as soon as there are some events.

    Args:
        history: the baseline's earlier batches, added up (and faded, if the caller likes).
        margin: absolute, above 0.

    Raises:
        ValueError: if the margin is relative or 0.
    """
    if margin.relative or margin.size == 0.0:
        raise ValueError("only an absolute margin above 0 needs a guess of the baseline's rate")
    prior_exposure = 1.0 / (GUESS_CENTRES * margin.size)
    exposure, seen = prior_exposure + history.exposure, 1.0 + history.events
    log_evidence = np.log(prior_exposure) - seen * np.log(exposure) + gammaln(seen)
    weights = GUESS_WEIGHTS * np.exp(log_evidence - log_evidence.max())
    return RateGuess(tuple((seen / exposure).tolist()), tuple((weights / weights.sum()).tolist()))


def harm_log_factors(
    candidate: Exposed, baseline: Exposed, guess: RateGuess | float | None, margin: Margin, direction: Direction
) -> Floats:
    """Log e-factors of one batch for "the candidate is worse than the margin tolerates", shape (12,).

    Args:
        candidate: the batch's events, exposure > 0.
        baseline: the batch's events, exposure > 0.
        guess: of the baseline's rate, from earlier batches only (`guess_rate`), or a single rate. Used for an
            absolute margin above 0 only; None will do otherwise.
        margin: the worst tolerated change; size 0 tolerates none.
        direction: which way the metric is good.

    Raises:
        ValueError: if an arm has no exposure (hold its counts back and add them to the next batch), or a guess is
            needed and missing.
    """
    return _bet(harm_bets, (candidate, baseline), guess, margin, direction)


def advance_log_factors(
    candidate: Exposed, baseline: Exposed, guess: RateGuess | float | None, margin: Margin, direction: Direction
) -> Floats:
    """Log e-factors of one batch for "the candidate is within the margin", shape (6,); arguments as for harm.

    Raises:
        ValueError: as for harm, or if the margin is 0: no amount of data can show a change of at most nothing.
    """
    return _bet(advance_bets, (candidate, baseline), guess, margin, direction)


def harm_bets(
    e_t: ArrayLike, e_c: ArrayLike, guess: ArrayLike | None, margin: Margin, direction: Direction
) -> RateBets:
    """The 12 harm bets for batches of exposures e_t and e_c and guesses of the baseline's rate, all (...).

    With g the guess and lambda the grid, the alternatives are, strictly beyond the line: lower_is_better: relative
    r lambda g; absolute g + d + max(g, d) (lambda - 1). higher_is_better: the rate on the line, divided by lambda.

    Raises:
        ValueError: if the margin is absolute and above 0, and there is no guess.
    """
    line, lower = null_line(margin, direction), direction == "lower_is_better"
    if line.difference == 0.0:
        ratios = line.ratio * (HARM_LAMBDAS if lower else 1.0 / HARM_LAMBDAS)
        return rate_bets(e_t, e_c, 1.0, ratios, line, lower)
    g = _guessed(guess, margin)
    if lower:
        rates = g + margin.size + np.maximum(g, margin.size) * (HARM_LAMBDAS - 1.0)
    else:
        # A guess below the margin leaves no rate beyond the line; an alternative of 0 is then not bet on.
        rates = np.maximum(g - margin.size, 0.0) / HARM_LAMBDAS
    return rate_bets(e_t, e_c, g[..., 0], rates, line, lower)


def advance_bets(
    e_t: ArrayLike, e_c: ArrayLike, guess: ArrayLike | None, margin: Margin, direction: Direction
) -> RateBets:
    """The 6 advance bets for batches of exposures e_t and e_c and guesses of the baseline's rate, all (...).

    The alternatives lie at fractions of the way from equality to the line, and beyond equality: r^fraction for a
    relative margin (on the log scale), fraction * d for an absolute one, never below a quarter of the guess.

    Raises:
        ValueError: if the margin is 0, or it is absolute and there is no guess.
    """
    if margin.size == 0.0:
        raise ValueError(
            "a margin of 0 leaves nothing to show: no data can prove that a change is at most zero; "
            "give the gate a margin above 0"
        )
    line, above = null_line(margin, direction), direction == "higher_is_better"
    if margin.relative:
        return rate_bets(e_t, e_c, 1.0, line.ratio**ADVANCE_FRACTIONS, line, above)
    g = _guessed(guess, margin)
    rates = np.maximum(g + line.difference * ADVANCE_FRACTIONS, (1.0 - FURTHEST_BETTER) * g)
    return rate_bets(e_t, e_c, g[..., 0], rates, line, above)


def rate_bets(
    e_t: ArrayLike, e_c: ArrayLike, guess: ArrayLike, alternatives: ArrayLike, line: NullLine, above: bool
) -> RateBets:
    """Growth-optimal bets against one side of a line.

    Args:
        e_t: candidate exposure of the batch, > 0, shape (...).
        e_c: baseline exposure of the batch, > 0, shape (...).
        guess: of the baseline's rate, > 0, made from earlier batches only, shape (...).
        alternatives: rates of the candidate to bet on, >= 0, shape (K,) or (..., K). One that is not strictly on
            the side bet on is left out: its factor is 1.
        line: lambda_t = ratio * lambda_c + difference, ratio > 0.
        above: whether the null is "on the line or below" and the bet is on "above", or the other way round.
    """
    t, c, g = (np.asarray(value, np.float64)[..., None] for value in (e_t, e_c, guess))
    B = _stake(t * line.ratio, c, g, np.asarray(alternatives, np.float64) / line.ratio, line.difference / line.ratio)
    B = np.where((B > 0.0) == above, B, 0.0)  # the sign alone makes a bet valid against its side
    return RateBets(
        np.log1p(B / (t * line.ratio)), np.log1p(-B / c), np.asarray(-B * (line.difference / line.ratio), np.float64)
    )


def settle(bets: RateBets, x_t: ArrayLike, x_c: ArrayLike) -> Floats:
    """The log e-factors (..., K) of batches with x_t and x_c events, both (...)."""
    t, c = (np.asarray(events, np.float64)[..., None] for events in (x_t, x_c))
    return np.asarray(t * bets.event_t + c * bets.event_c + bets.exposure, np.float64)


@dataclass(frozen=True, slots=True)
class ArmsExposedCells:
    """Totals of one attempt: cell (0 to 255) -> (exposure, events), sparse, for each arm."""

    candidate: ExposedCells
    baseline: ExposedCells


def rate_design_effect(attempts: Sequence[ArmsExposedCells]) -> float:
    """D >= 1, by which log e of the whole of `attempts` is to be divided: how much more than Poisson counts vary.

    `design_effect.design_effects` of `design_effect.rate_clusters`: residuals x - lambda e with lambda the rate of the
    arm *in that attempt*, summed over attempts within a cell because a unit is always in the same cell, against the
    variance of Poisson counts. An arm with one event or none borrows the D of the other arm; if neither can tell, D
    is 1.

    Args:
        attempts: the cells of every attempt that the log e covers, in any order.

    Raises:
        ValueError: if a cell is not 0 to 255, or holds a number that is negative or not finite.
    """
    candidate, baseline = no_clusters(1), no_clusters(1)
    for attempt in attempts:
        candidate = candidate + rate_clusters(*_columns(attempt.candidate))
        baseline = baseline + rate_clusters(*_columns(attempt.baseline))
    return float(design_effects(candidate, baseline)[0])


def _bet(
    bets: Callable[[ArrayLike, ArrayLike, ArrayLike | None, Margin, Direction], RateBets],
    arms: tuple[Exposed, Exposed],
    guess: RateGuess | float | None,
    margin: Margin,
    direction: Direction,
) -> Floats:
    t, c = arms
    if t.exposure == 0.0 or c.exposure == 0.0:
        raise ValueError(
            f"a bet needs exposure in both arms; got {t.exposure} and {c.exposure}: "
            "hold the counts back and add them to the next batch"
        )
    if guess is None or margin.relative or margin.size == 0.0:  # no guess is needed, or it is missed by `_guessed`
        return settle(bets(t.exposure, c.exposure, None, margin, direction), t.events, c.events)
    guesses = guess if isinstance(guess, RateGuess) else RateGuess((guess,), (1.0,))
    factors = settle(bets(t.exposure, c.exposure, np.asarray(guesses.rates), margin, direction), t.events, c.events)
    return mix_guesses(factors, np.asarray(guesses.weights))


def _guessed(guess: ArrayLike | None, margin: Margin) -> Floats:
    """Guesses (..., 1), kept off zero."""
    if guess is None:
        raise ValueError("an absolute margin needs a guess of the baseline's rate, made from earlier batches")
    return np.maximum(np.asarray(guess, np.float64), SMALLEST_GUESS * margin.size)[..., None]


def _stake(scaled_t: Floats, e_c: Floats, g: Floats, L: Floats, delta: float) -> Floats:
    """The B in (-e_t r, e_c) with L / (1 + a B) - g / (1 - b B) = delta, where a = 1 / (e_t r) and b = 1 / e_c.

    Cleared of fractions: delta a b B^2 - q B + (L - g - delta) = 0 with q = L b + g a + delta (a - b). Growth is
    concave in B, so one root lies in the interval: (q - sqrt(q^2 - 4 ...)) / (2 delta a b), for either sign of delta.
    """
    a, b = 1.0 / scaled_t, 1.0 / e_c
    square, rest = delta * a * b, L - g - delta
    q = L * b + g * a + delta * (a - b)
    root = np.sqrt(np.maximum(q * q - 4.0 * square * rest, 0.0))
    # The same root twice, each without cancellation in its half; delta = 0 always falls into the first.
    positive = 2.0 * rest / np.where(q + root > 0.0, q + root, 1.0)
    negative = (q - root) / np.where(square == 0.0, 1.0, 2.0 * square)
    B = np.where(q >= 0.0, positive, negative)
    return np.clip(B, -LARGEST_STAKE * scaled_t, LARGEST_STAKE * e_c)


def _columns(cells: ExposedCells) -> tuple[Floats, Floats]:
    """Exposures and events of all cells, each (256,).

    Raises:
        ValueError: if a cell is not 0 to 255, or holds a number that is negative or not finite.
    """
    index = np.fromiter(cells.keys(), np.intp, len(cells))
    pairs = np.fromiter(chain.from_iterable(cells.values()), np.float64, 2 * len(cells)).reshape(-1, 2)
    if index.size and not (
        index.min() >= 0 and index.max() < CELLS and (pairs >= 0.0).all() and np.isfinite(pairs).all()
    ):
        raise ValueError(f"cells are numbered 0 to {CELLS - 1} and hold finite exposures and events of at least 0")
    dense = np.zeros((CELLS, 2))
    dense[index] = pairs
    return dense[:, 0], dense[:, 1]
