"""The guess of the baseline's rate that bets are built on, before and after there is history.

A wrong guess never makes a bet invalid, but it can make it ruinous: too low a guess by a factor of 2 overbets
twofold and stops growing, one by 35 (1 % guessed, 35 % true, as for "the answer was correct") can lose the
whole stake on the first batch. So a young history bets on several guesses at once.

Four Beta priors stand side by side, each at another scale of rates. Each gives one guess, its posterior mean
from the baseline outcomes seen so far; their weights are their posterior probabilities. A batch's e-factor is
the weighted mean of the e-factors of the guesses.

Valid: guesses and weights depend on earlier batches only, and given the past a mean of e-variables with
fixed weights is an e-variable. Strong: the first batch costs at most log(1 / prior weight) against the
right guess (0.5 nats for rare errors, at most 2.7), and after some ten outcomes the weights have settled.
Nothing is thrown away, so a catastrophe in the very first batch still counts. From YOUNG outcomes on, the
four agree, and one is kept.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln

YOUNG = 200.0  # baseline outcomes after which one guess is enough

# One prior per column: rare events, events of a few per cent, of a third or more, and near certainty.
CENTRES = np.array([0.01, 0.1, 0.4, 0.9])
STRENGTHS = np.array([50.0, 10.0, 4.0, 10.0])  # pseudo-observations
PRIOR_WEIGHTS = np.array([0.62, 0.14, 0.17, 0.07])
JEFFREYS = 0.5
SMALLEST_WEIGHT = 1e-300  # keeps the logarithm of an underflowed weight finite

Floats = NDArray[np.float64]


def young_guesses(events: ArrayLike, outcomes: ArrayLike) -> tuple[Floats, Floats]:
    """Guesses and their weights, each (..., 4), after `events` in `outcomes` of the baseline, both (...)."""
    x, n = np.asarray(events, np.float64)[..., None], np.asarray(outcomes, np.float64)[..., None]
    a, b = CENTRES * STRENGTHS, (1.0 - CENTRES) * STRENGTHS
    log_evidence = betaln(a + x, b + n - x) - betaln(a, b)
    weights = PRIOR_WEIGHTS * np.exp(log_evidence - log_evidence.max(axis=-1, keepdims=True))
    return (a + x) / (STRENGTHS + n), weights / weights.sum(axis=-1, keepdims=True)


def settled_guess(events: ArrayLike, outcomes: ArrayLike) -> Floats:
    """The single guess of a grown history, shape (...): the posterior mean under Jeffreys' prior."""
    x, n = np.asarray(events, np.float64), np.asarray(outcomes, np.float64)
    return np.asarray((x + JEFFREYS) / (n + 2.0 * JEFFREYS), np.float64)


def mix_guesses(log_factors: Floats, weights: Floats) -> Floats:
    """The log of the weighted mean e-factor: log_factors (..., G, K) and weights (..., G) give (..., K)."""
    terms = log_factors + np.log(np.maximum(weights, SMALLEST_WEIGHT))[..., None]
    top = terms.max(axis=-2, keepdims=True)
    return np.asarray(top[..., 0, :] + np.log(np.exp(terms - top).sum(axis=-2)), np.float64)
