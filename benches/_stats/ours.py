"""The statistics under test: `rollout.stats.proportion`, run on R replications at once.

The bets, weights, guesses and the memory of the baseline are the package's own; only the loop over replications is
written again here, and a test holds it to the scalar one, `ControlHistory` and `harm_log_factors`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benches._stats.streams import Look
from rollout.stats.betting import Batch, Bets, settle
from rollout.stats.combine import start_weights
from rollout.stats.guess import YOUNG, mix_guesses, settled_guess, young_guesses
from rollout.stats.margin import Direction, Margin
from rollout.stats.proportion import ADVANCE_WEIGHTS, HARM_WEIGHTS, MEMORY, advance_bets, harm_bets

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BetMaker = Callable[[ArrayLike, ArrayLike, ArrayLike, Margin, Direction], Bets]

ANY_REGRESSION = Margin(0.0, relative=True)


def lines(prefix: str, *alphas: float) -> dict[str, float]:
    """The lines log(1 / alpha) of an e-process; the name of the first one is the prefix alone."""
    return {prefix if i == 0 else f"{prefix}, alpha {a:g}": math.log(1.0 / a) for i, a in enumerate(alphas)}


def log_mixtures(log_wealth: Floats, weights: Floats) -> Floats:
    """`rollout.stats.mixture.log_mixture` for each row of (R, K)."""
    top = log_wealth.max(axis=-1, keepdims=True)
    return np.asarray(top[..., 0] + np.log(np.exp(log_wealth - top) @ weights), np.float64)


class Baseline:
    """What R replications remember of their baselines: outcomes and events, with the judge's forgetting."""

    def __init__(self, replications: int) -> None:
        self.outcomes = np.zeros(replications)
        self.events = np.zeros(replications)

    def learn(self, rows: Ints, n_c: Ints, x_c: Ints) -> None:
        """After a batch has been bet."""
        outcomes = self.outcomes[rows] + n_c
        keep = np.minimum(1.0, MEMORY / outcomes)
        self.outcomes[rows] = outcomes * keep
        self.events[rows] = (self.events[rows] + x_c) * keep

    def factors(self, rows: Ints, bets: BetMaker, batch: Batch, margin: Margin, direction: Direction) -> Floats:
        """Log e-factors (rows, K) of one batch per row, on the guess that each row's past allows."""
        young = self.outcomes[rows] < YOUNG
        if not young.any():
            guess = settled_guess(self.events[rows], self.outcomes[rows])
            return settle(bets(batch.n_t, batch.n_c, guess, margin, direction), batch)
        if not young.all():
            both = [(part, Batch(*(np.asarray(count)[part] for count in batch))) for part in (young, ~young)]
            factors = [self.factors(rows[part], bets, some, margin, direction) for part, some in both]
            whole = np.empty((rows.size, factors[0].shape[1]))
            whole[young], whole[~young] = factors
            return whole
        rates, weights = young_guesses(self.events[rows], self.outcomes[rows])
        columns = Batch(*(np.asarray(count)[:, None] for count in batch))
        return mix_guesses(settle(bets(columns.n_t, columns.n_c, rates, margin, direction), columns), weights)


class Proportion:
    """The e-process of one proportion guardrail, for harm (with its late starts) or for advance (one stage)."""

    def __init__(
        self,
        replications: int,
        kind: Literal["harm", "advance"],
        margin: Margin = ANY_REGRESSION,
        direction: Direction = "lower_is_better",
        stages: int = 1,
        lines: Mapping[str, float] | None = None,
    ) -> None:
        self.bets: BetMaker = harm_bets if kind == "harm" else advance_bets
        weights = HARM_WEIGHTS if kind == "harm" else ADVANCE_WEIGHTS
        self.margin, self.direction = margin, direction
        self.lines = lines or {}
        self.weights = np.outer(start_weights(stages), weights)
        self.log_wealth = np.zeros((replications, *self.weights.shape))
        self.held = np.zeros((4, replications), np.int64)  # an arm was empty: bet with the next batch
        self.baseline = Baseline(replications)
        self.log_e = np.zeros(replications)

    def look(self, seen: Look, waiting: Ints) -> Floats:
        """Bet one more tick in the rows that wait; log e of all rows, (R,)."""
        self.held += np.stack([np.asarray(count) for count in seen.tick])
        rows = waiting[(self.held[0, waiting] > 0) & (self.held[2, waiting] > 0)]
        if rows.size:
            batch = Batch(*self.held[:, rows])
            factors = self.baseline.factors(rows, self.bets, batch, self.margin, self.direction)
            self.log_wealth[rows, : seen.stage + 1] += factors[:, None, :]
            self.baseline.learn(rows, batch.n_c, batch.x_c)
            self.held[:, rows] = 0
            self.log_e[rows] = log_mixtures(self.log_wealth[rows].reshape(rows.size, -1), self.weights.ravel())
        return self.log_e
