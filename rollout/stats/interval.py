"""Intervals that people read: at all looks together they miss the true value with at most the stated probability.

They explain decisions and take none: decisions come from the e-processes of `proportion` and its siblings, which see
every batch; intervals are made from totals per attempt. `consistent` settles the rare disagreement.

An interval is what is not rejected. Each end has a level of its own, because harm and gate are tested at different
levels. Attempts are strata: they differ in allocation and in what the baseline does meanwhile, so they are never
pooled (Simpson's paradox); their log e add up.

Effect of a proportion. Against "p_t <= r p_c + d in every attempt" (s = +1: lower end) and against ">=" (s = -1:
upper end), with w = n_t / (n_t + n_c) the candidate's share of an attempt and constants k, m:

    e = prod_{i in t} (1 + s k (1 - w) ((x_i - d) / r - m)) * prod_{j in c} (1 - s k w (x_j - m)).

This is the two-sample bet of `betting` with constant bets, so it depends on totals only. Valid: as long as the arms
keep their proportion n_t (1 - w) k = n_c w k holds in every batch, hence E[e | past] <= 1 as proved there, also while
the baseline drifts within the attempt. Under random assignment the realised share stands for the planned one, which
changes log e by a relative O(n^-1/2); measured coverage shows no trace of it. Strong: any (k, m) is the likelihood
ratio against the line for *some* pair of rates, so a mixture over scales of k and centres m does: measured, each end
is 3.9 to 4.3 standard errors from the estimate (at 0.025), from a hundred events to a million, with one attempt or
four (4.7 for a difference while the baseline rises sixteenfold). Beta-binomial mixtures of both arms over their
likelihood, minimised over the baseline's rate, are valid too, but pay for learning both rates in every attempt anew:
4.7 to 5.9 standard errors with one attempt, 8.9 with four.

What is left is one interval, and its ends can be searched, because every factor is monotone in r and in d for fixed
(k, m).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln

from rollout.stats.margin import Direction

Floats = NDArray[np.float64]
Form = Literal["ratio", "difference"]
End = Literal["lower", "upper"]

ENDS: tuple[End, End] = ("lower", "upper")

SCALES = 2.0 ** np.arange(6.0, -11.0, -1.0)  # of the bet k: from catastrophes to effects that a million events show
CENTRES = np.array([0.0, 0.12, 0.35, 0.65, 0.88, 0.99])  # m, one of which is near any baseline's rate
PRIOR = np.where(SCALES > 4.0, 0.5, 1.0)[:, None] * np.array([0.3, 0.15, 0.15, 0.12, 0.13, 0.15])
PRIOR /= PRIOR.sum()
SWITCH = 0.1  # probability that the best bet of the next attempt is another one
LARGEST_BET = 0.95  # part of the stake that a single outcome can cost
SMALLEST_FACTOR = 1e-300
RUINED = -1e9

FURTHEST_RATIO = 1e6
FINEST_DIFFERENCE = 1e-5  # differences are searched on a scale that is logarithmic beyond this
POINTS, ROUNDS = 9, 5  # each round narrows the search eightfold; then log e is close to a straight line
BISECTIONS = 60


class Interval(NamedTuple):
    """Both ends belong to it; -inf or inf where nothing is known."""

    lower: float
    upper: float


class Levels(NamedTuple):
    """Probability that the lower end ever lies above the true effect, and the upper end below it; each in (0, 1)."""

    lower: float
    upper: float


class Stratum(NamedTuple):
    """Totals of one attempt: outcomes and events of the candidate (t) and of the baseline (c)."""

    n_t: int
    x_t: int
    n_c: int
    x_c: int


def proportion_interval(x: int, n: int, alpha: float, effect: float = 1.0) -> Interval:
    """The rate of one arm, at all times together with probability 1 - alpha.

    The Beta(1/2, 1/2) mixture of likelihoods over the likelihood of p is an e-process for "the rate is p" (Robbins,
    Ann. Math. Stat. 1970); the interval holds every p whose log e is below log(1 / alpha). Exact for independent
    outcomes of one rate; with D > 1, and while the rate drifts, an approximation.

    Args:
        x: events.
        n: outcomes; 0 gives (0, 1).
        alpha: of both ends together, inside (0, 1).
        effect: design effect D >= 1, by which both counts are divided.

    Raises:
        ValueError: unless 0 <= x <= n and level and effect are in their ranges.
    """
    _check(x, n, effect)
    check_level(alpha)
    if n == 0:
        return Interval(0.0, 1.0)
    events, others = x / effect, (n - x) / effect
    mixture = float(betaln(0.5 + events, 0.5 + others) - betaln(0.5, 0.5))
    threshold = -math.log(alpha)

    def rejected(p: float) -> bool:
        if not 0.0 < p < 1.0:
            return bool((events if p <= 0.0 else others) > 0.0)
        return bool(mixture - events * math.log(p) - others * math.log1p(-p) >= threshold)

    estimate = x / n  # the rate with the smallest log e: log e rises from here to both sides
    return Interval(_bisect(rejected, 0.0, estimate), _bisect(rejected, 1.0, estimate))


def effect_interval(strata: Sequence[Stratum], form: Form, alphas: Levels, effect: float = 1.0) -> Interval:
    """The candidate's effect on a rate, at all times together with probability 1 - alphas.lower - alphas.upper.

    See the module. It is the interval of an effect that all attempts share. If they do not, the largest one is above
    the lower end and the smallest one below the upper end; should these ends cross, they are given in order, and the
    effect is known to have changed over the whole range between them.

    Args:
        strata: totals of each attempt, in any fixed order; one with an empty arm says nothing.
        form: "ratio" p_t / p_c, from 0 to inf; or "difference" p_t - p_c, from -1 to 1.
        alphas: level of each end.
        effect: design effect D >= 1, by which every bet is divided (`mixture.log_tempered`).

    Raises:
        ValueError: unless 0 <= x <= n and levels and effect are in their ranges.
    """
    for n_t, x_t, n_c, x_c in strata:
        _check(x_t, n_t, effect)
        _check(x_c, n_c, effect)
    totals = np.array([stratum for stratum in strata if stratum[0] and stratum[2]], np.float64)
    if not totals.size:
        return _widest(form)
    lower, upper = (
        crossing(partial(effect_log_e, totals, form=form, end=end, effect=effect), form, end, level)
        for end, level in zip(ENDS, alphas, strict=True)
    )
    return Interval(min(lower, upper), max(lower, upper))


def effect_estimate(strata: Sequence[Stratum], form: Form) -> float | None:
    """The estimated effect, never pooled over attempts: Mantel & Haenszel (JNCI 1959), weights n_t n_c / (n_t + n_c).

    Returns:
        None without outcomes in both arms of an attempt, or for a ratio to a baseline without events.
    """
    used = [stratum for stratum in strata if stratum[0] and stratum[2]]
    candidate = sum(x_t * n_c / (n_t + n_c) for n_t, x_t, n_c, _ in used)
    baseline = sum(x_c * n_t / (n_t + n_c) for n_t, _, n_c, x_c in used)
    if not used or (form == "ratio" and baseline == 0.0):
        return None
    if form == "ratio":
        return candidate / baseline
    return (candidate - baseline) / sum(n_t * n_c / (n_t + n_c) for n_t, _, n_c, _ in used)


def consistent(
    interval: Interval,
    line: float,
    harm_proven: bool,
    gate_proven: bool,
    direction: Direction,
    gate_line: float | None = None,
) -> Interval:
    """The interval, made to agree with decisions that sharper e-processes have taken.

    "Beyond" is above for lower_is_better and below for higher_is_better. Harm proven: the interval lies beyond `line`
    (its near end is moved to the line at least). Not proven: it is not wholly beyond, it reaches the line. Gate
    passed: it lies within `gate_line`. Not passed: it reaches or crosses the gate's line. If both are proven on one
    line, harm is what is shown.

    What it does to coverage. Moving an end outwards costs nothing. Moving it inwards is right unless the *test* was
    wrong, so an end errs with at most the sum of two levels: the interval's own and the test's. Harm side: alphas of
    the interval's end + alpha_rollback * weight share (twice that level, if the end is shown at it). Gate side: +
    alpha_advance for the gate of this attempt; read over a rollout of G gates, + G * alpha_advance, since every gate
    spends its level anew. It is a union bound; the tests use the same data, so the sum is hardly ever reached.

    Args:
        interval: of the effect, in the form of the lines.
        line: the rollback's, a ratio or a difference as in `margin.null_line`.
        harm_proven: log e for harm beyond `line` has reached its threshold.
        gate_proven: log e for being within `gate_line` has reached its threshold in this attempt.
        direction: which way the metric is good.
        gate_line: of the gate of this attempt, if it is another than `line`; early gates are wider.
    """
    sign = 1.0 if direction == "lower_is_better" else -1.0
    low, high = sorted((sign * interval.lower, sign * interval.upper))  # harm is now always upwards
    harm, gate = sign * line, sign * (line if gate_line is None else gate_line)
    within = gate_proven and not (harm_proven and gate <= harm)
    least, most = harm if harm_proven else -math.inf, gate if within else math.inf
    low, high = min(max(low, least), most), min(max(high, least), most)
    low, high = low if harm_proven else min(low, harm), high if within else max(high, gate)
    return Interval(*sorted((sign * low, sign * high)))


def harmed_units(units: float, requests: float, p_t: float, p_c: float, effect: float = 1.0) -> float:
    """Estimated units that met an event which the baseline would have spared them.

    units * (1 - (1 - d)^(requests per unit / D)), d = max(0, p_t - p_c). Of D requests of a unit that repeat each
    other, one counts. Sticky units (always or never; D is then the requests per unit): units * d. Independent
    requests (D = 1): each of them may hit one more unit.

    Args:
        units: of the candidate's arm, >= 0.
        requests: that they made, >= units for a sensible answer.
        p_t: rate of the harmful event in the candidate's arm, 0 to 1.
        p_c: in the baseline's arm, 0 to 1.
        effect: design effect D >= 1.

    Raises:
        ValueError: if an argument is outside its range.
    """
    if not (units >= 0.0 and requests >= 0.0 and 0.0 <= p_t <= 1.0 and 0.0 <= p_c <= 1.0 and effect >= 1.0):
        raise ValueError(f"impossible numbers: {units} units, {requests} requests, rates {p_t}, {p_c}, D {effect}")
    if units == 0.0 or requests == 0.0:
        return 0.0
    excess = max(0.0, p_t - p_c)
    # Units of unequal traffic can make D larger than the requests per unit; a unit cannot be less than one chance.
    chances = max(1.0, requests / units / effect)
    return float(units * (1.0 - (1.0 - excess) ** chances))


def effect_log_e(totals: ArrayLike, lines: ArrayLike, form: Form, end: End, effect: float = 1.0) -> Floats:
    """Log e of the module's bet against each line, shape (T,): what `effect_interval` inverts.

    Args:
        totals: n_t, x_t, n_c, x_c of each attempt, shape (attempts, 4), or of T rollouts, (T, attempts, 4). An attempt
            with an empty arm adds nothing.
        lines: ratios > 0 or differences from -1 to 1, shape (T,).
        form: of the lines.
        end: "lower" tests that the effect is at most the line, "upper" that it is at least the line.
        effect: design effect D >= 1, by which each bet is divided.
    """
    n_t, x_t, n_c, x_c = np.moveaxis(np.asarray(totals, np.float64) / effect, -1, 0)[..., None, None]
    line, sign = np.asarray(lines, np.float64)[:, None, None, None], 1.0 if end == "lower" else -1.0
    w, m = n_t / np.maximum(n_t + n_c, 1.0 / effect), CENTRES
    # The largest bets that no outcome can ruin on any line; with larger ones the mixture would only hold more losers.
    at_stake = np.maximum((1.0 - w) * m, w * (1.0 - m)) if end == "lower" else w * m
    k = np.minimum(SCALES[:, None], LARGEST_BET / np.maximum(at_stake, 1e-9))
    k_t, k_c = sign * k * (1.0 - w), sign * k * w
    of_baseline = x_c * np.log1p(-k_c * (1.0 - m)) + (n_c - x_c) * np.log1p(k_c * m)
    moved = (1.0 / line, np.zeros(1)) if form == "ratio" else (1.0 - line, -line)
    event, other = (1.0 + k_t * (value - m) for value in moved)
    factors = (
        of_baseline
        + x_t * np.log(np.maximum(event, SMALLEST_FACTOR))
        + (n_t - x_t) * np.log(np.maximum(other, SMALLEST_FACTOR))
    )
    # A bet that some outcome could ruin on this line is no bet on it, whether or not the outcome was seen: to cut a
    # single factor off at 0 would raise its mean above 1.
    return _mixed(np.where((event > 0.0) & (other > 0.0), factors, RUINED))


def crossing(log_e: Callable[[Floats], Floats], form: Form, end: End, level: float) -> float:
    """The line at which log e crosses log(1 / level), between two points of a search that narrows in rounds.

    Args:
        log_e: of lines (T,), falling in the line for a lower end, rising for an upper one.
        form: of the lines: ratios are searched from 1e-6 to 1e6, differences from -1 to 1.
        end: which one is looked for.
        level: inside (0, 1).

    Returns:
        The line, to five digits and better; the end of the widest interval if no line is rejected.

    Raises:
        ValueError: if the level is outside its range.
    """
    check_level(level)
    reach = math.log(FURTHEST_RATIO) if form == "ratio" else math.asinh(1.0 / FINEST_DIFFERENCE)
    start, stop = (-reach, reach) if end == "lower" else (reach, -reach)
    first = last = 0.0
    for step in range(ROUNDS):
        grid = np.linspace(start, stop, POINTS)
        above = log_e(_decoded(grid, form)) + math.log(level)
        kept = np.flatnonzero(above < 0.0)
        if step == 0 and kept.size and kept[0] == 0:
            return _widest(form)[ENDS.index(end)]
        at = max(1, int(kept[0])) if kept.size else POINTS - 1
        start, stop, first, last = float(grid[at - 1]), float(grid[at]), float(above[at - 1]), float(above[at])
    part = first / (first - last) if first > last and last < 0.0 else 1.0
    return float(_decoded(np.array([start + part * (stop - start)]), form)[0])


def check_level(alpha: float) -> None:
    """Raise ValueError unless a level is inside (0, 1)."""
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"a level lies between 0 and 1, not {alpha}")


def _mixed(log_factors: Floats) -> Floats:
    """Log of the mixture (T,) of log factors (T, attempts, scales, centres).

    Over the paths of a bet that stays the same from one attempt to the next, or is drawn anew with probability SWITCH
    (fixed share: Herbster & Warmuth, Machine Learning 1998): what was learned is kept, changed traffic is met.
    """
    log_e, belief = np.zeros(len(log_factors)), PRIOR[None]
    for attempt in np.moveaxis(log_factors, 1, 0):
        top = attempt.max(axis=(1, 2), keepdims=True)
        grown = belief * np.exp(attempt - top)
        total = grown.sum(axis=(1, 2), keepdims=True)
        log_e += (np.log(total) + top)[:, 0, 0]
        belief = (1.0 - SWITCH) * grown / total + SWITCH * PRIOR
    return log_e


def _decoded(points: Floats, form: Form) -> Floats:
    return np.asarray(np.exp(points) if form == "ratio" else FINEST_DIFFERENCE * np.sinh(points), np.float64)


def _widest(form: Form) -> Interval:
    return Interval(0.0, math.inf) if form == "ratio" else Interval(-1.0, 1.0)


def _bisect(rejected: Callable[[float], bool], outer: float, inner: float) -> float:
    """The rejected point next to `inner` on the way from `outer`; `outer` itself if nothing is rejected."""
    if not rejected(outer):
        return outer
    for _ in range(BISECTIONS):
        middle = 0.5 * (outer + inner)
        outer, inner = (middle, inner) if rejected(middle) else (outer, middle)
    return outer


def _check(x: int, n: int, effect: float) -> None:
    if not 0 <= x <= n:
        raise ValueError(f"events lie between 0 and the number of outcomes; got x={x} of n={n}")
    if not effect >= 1.0:
        raise ValueError(f"a design effect is at least 1; got {effect}")
