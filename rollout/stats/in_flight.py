"""Attempts in flight: evidence within seconds, valid though the arms take different times to fail or to succeed.

What has *finished* is a biased sample of what has *started*. A candidate that fails in 0.2 s and succeeds in 10 s shows
nothing but failures at first; betting outcomes as they finish rolls it back although it is as good as the baseline.

The remedy: bet by the minute in which attempts *started*, and settle what is still in flight against the evidence. Of
a minute's s_t and s_c started attempts, f_t and f_c have finished, x_t and x_c of these with the event. Then

    e_minute = bet(n_t = s_t, x_t + u_t; n_c = s_c, x_c + u_c), on a guess made before the minute began,

| | u_t: events among the candidate's s_t - f_t | u_c: among the baseline's s_c - f_c |
|---|---|---|
| harm, lower_is_better; advance, higher_is_better | none | all |
| advance, lower_is_better; harm, higher_is_better | all | none |

and E_j = e_1 e_2 ... e_j. The evidence at a look is the largest E_j: a late cut j counts what came last and pays for
what is in flight, an early cut leaves out both.

Valid: let M_j be E_j when everything has finished. Its bets are fixed by the starts of each minute and by what was
known before it, so M is a supermartingale in the order of starts, whatever the delays. Every bet rises or falls with
an outcome, so E_j <= M_j at every look, and P(E_j >= 1/alpha at some look for some j) <= P(M_j >= 1/alpha for some j)
<= alpha by Ville's inequality: that inequality covers every j at once, so moment and cut may be chosen by what is seen.
Metrics that are averaged share one cut. Two steps are approximate and were simulated: the newest minute is judged while
it fills, and attempts without outcome are given up after a horizon (the metric's maturity).

Measured (equal failure rates of 20 %, half of 100 requests/s, alpha .05, a look each second; the candidate fails at
once and succeeds after 10 s, the baseline the reverse): false rollback 1.00 betting as outcomes finish; 1.00 if the
candidate's excess in flight is added to those bets; .99 if all in flight is settled against them, for what was bet on
a guess that the delays had bent is never taken back; .01 this way. The price is time: median seconds to rollback at
alpha .01, 10 % of 10 requests/s, equal delays (in brackets: bet as outcomes finish):

| delay | instant | 2 s | 10 s | 30 s |
|---|---|---|---|---|
| 2 % -> 50 % failures | 9 (10) | 21 (12) | 57 (19) | 80 (38) |
| 2 % -> 10 % failures | 83 (89) | 122 (98) | 130 (105) | 150 (128) |

Not covered: attempts that take longer than the horizon; a metric that only some attempts report, if whether they
report depends on the outcome. If it does not (a sample), what is missing counts as in flight until the horizon is over.
Not quite covered: failures retried by one arm only, at some five requests a batch (wrong advance .09 instead of .05 at
30 % failures; nothing is left of it at twenty a batch, or at 3 %).
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rollout.stats.betting import Batch, Floats
from rollout.stats.margin import Direction

Side = Literal["harm", "advance"]


class Started(NamedTuple):
    """Attempts that started, of the candidate (t) and the baseline (c); arrays of one shape (...)."""

    n_t: ArrayLike
    n_c: ArrayLike


def virtual_batch(started: Started, finished: Batch, side: Side, direction: Direction) -> Batch:
    """The attempts in flight as a batch of their own, settled the way that speaks most against `side`.

    Args:
        started: in a minute (or in several that are bet as one).
        finished: outcomes so far of these attempts. Where they outnumber `started`, nothing is in flight.
        side: what the evidence is to show.
        direction: whether the events are failures (lower_is_better) or successes.
    """
    open_t = np.maximum(np.subtract(started.n_t, finished.n_t), 0)
    open_c = np.maximum(np.subtract(started.n_c, finished.n_c), 0)
    none = np.zeros_like(open_t)
    if (side == "harm") == (direction == "lower_is_better"):
        return Batch(open_t, none, open_c, open_c)
    return Batch(open_t, open_t, open_c, none)


def settled_against(started: Started, finished: Batch, side: Side, direction: Direction) -> Batch:
    """What a minute is bet with while attempts are in flight: `finished` plus `virtual_batch`; arguments as there.

    Whole counts stay whole. Once everything has finished it is `finished`; beyond the horizon, bet that instead.
    """
    virtual = virtual_batch(started, finished, side, direction)
    return Batch(*(np.add(known, added) for known, added in zip(finished, virtual, strict=True)))


def wealth_by_cut(over: ArrayLike, since: ArrayLike) -> Floats:
    """The log wealth of each bet at each cut: before the first open minute, then after each minute since.

    Mix it over bets (start stages, metrics) cut by cut, then take the largest: a maximum taken for each bet by itself
    would be wrong.

    Args:
        over: log wealth (..., K) of all minutes before the first that has attempts in flight.
        since: log factors (..., M, K) of the minutes from that one on, by start, each `settled_against`.

    Returns:
        Shape (..., M + 1, K).
    """
    first = np.asarray(over, np.float64)[..., None, :]
    return np.concatenate([first, first + np.cumsum(np.asarray(since, np.float64), axis=-2)], axis=-2)
