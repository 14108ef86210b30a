"""E[e] <= 1 for every single bet at every point of its null, computed exactly from all outcomes of a batch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from benches._stats.cells import Cell, Summary
from benches._stats.figures import Row
from benches._stats.ours import BetMaker
from rollout.stats.betting import Batch, settle
from rollout.stats.margin import Direction, Margin, null_line
from rollout.stats.proportion import advance_bets, harm_bets

Floats = NDArray[np.float64]

NAME = "enumeration"
LIMIT = 1e-9

CANDIDATES = range(1, 11)
BASELINES = range(1, 61)
QUICK = ((1, 2, 5, 10), (1, 5, 23, 60))
GUESSES = np.array([1e-4, 0.002, 0.01, 0.1, 0.35, 0.6, 0.97, 0.999])
BASELINE_RATES = np.concatenate([[0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03], np.linspace(0.05, 1.0, 20)])
DEPTHS = np.array([0.0, 0.3, 0.6, 0.9, 0.99, 1.0])  # from the far end of the null to its line
RELATIVE = (0.0, 0.1, 0.5, 5.0)
ABSOLUTE = (0.0, 0.005, 0.05, 0.25)
DIRECTIONS: tuple[Direction, ...] = ("lower_is_better", "higher_is_better")


class Family(NamedTuple):
    """Bets of one kind, against one line."""

    kind: str
    margin: Margin
    direction: Direction

    def __str__(self) -> str:
        """As in the names of cells."""
        line = "relative" if self.margin.relative else "absolute"
        return f"{self.kind}, {line} {self.margin.size:g}, {self.direction}"


def families() -> Iterable[Family]:
    """Every kind of bet, line and direction there is."""
    for size, relative in [*((size, True) for size in RELATIVE), *((size, False) for size in ABSOLUTE)]:
        for direction in DIRECTIONS:
            if relative and size >= 1.0 and direction == "higher_is_better":
                continue  # nothing can fall by more than all
            for kind in ("harm", "advance") if size > 0.0 else ("harm",):
                yield Family(kind, Margin(size, relative), direction)


def cells(quick: bool) -> list[Cell]:
    """One cell per family of bets."""
    sizes = [(n_t, n_c) for n_t in (QUICK[0] if quick else CANDIDATES) for n_c in (QUICK[1] if quick else BASELINES)]
    return [Cell(f"{NAME}/{family}", largest, {"family": family, "sizes": sizes}) for family in families()]


def largest(rng: np.random.Generator, family: Family, sizes: Sequence[tuple[int, int]]) -> float:
    """The largest E[e] of the bets of a family over all batch sizes, guesses, alternatives and points of the null."""
    kind, margin, direction = family
    bets = harm_bets if kind == "harm" else advance_bets
    p_t, p_c = whole_null(kind, margin, direction)
    top = 0.0
    for n_t, n_c in sizes:
        of_candidate = binom.pmf(np.arange(n_t + 1), n_t, p_t[:, None])
        of_baseline = binom.pmf(np.arange(n_c + 1), n_c, p_c[:, None])
        e = np.exp(every_outcome(bets, (n_t, n_c), margin, direction))
        given_baseline = np.tensordot(of_candidate, e, axes=(1, 0))
        top = max(top, float(np.einsum("pj,pjk->pk", of_baseline, given_baseline).max()))
    return top


def every_outcome(bets: BetMaker, sizes: tuple[int, int], margin: Margin, direction: Direction) -> Floats:
    """Log e of every outcome of a batch, (n_t + 1, n_c + 1, guesses and alternatives)."""
    n_t, n_c = sizes
    x_t, x_c = np.meshgrid(np.arange(n_t + 1), np.arange(n_c + 1), indexing="ij")
    batch = Batch(n_t, x_t[..., None], n_c, x_c[..., None])
    return settle(bets(n_t, n_c, GUESSES, margin, direction), batch).reshape(n_t + 1, n_c + 1, -1)


def whole_null(kind: str, margin: Margin, direction: Direction) -> tuple[Floats, Floats]:
    """Points (p_t, p_c) on the line and at every depth behind it."""
    line = null_line(margin, direction)
    on_line = line.ratio * BASELINE_RATES + line.difference
    if (kind == "harm") == (direction == "lower_is_better"):  # the null lies below the line
        reachable, edge, far = on_line >= 0.0, np.minimum(on_line, 1.0), 0.0
    else:
        reachable, edge, far = on_line <= 1.0, np.maximum(on_line, 0.0), 1.0
    p_c = np.repeat(BASELINE_RATES[reachable], DEPTHS.size)
    return (far + (edge[reachable, None] - far) * DEPTHS).ravel(), p_c


def summary(results: Mapping[str, Any]) -> Summary:
    """One row for harm and one for advance."""
    rows = []
    for kind in ("harm", "advance"):
        over = max(value for name, value in results.items() if name.startswith(f"{NAME}/{kind}")) - 1.0
        rows.append(Row(f"largest E[e] - 1 on the null, {kind} bets", over, "e", LIMIT, over <= LIMIT))
    return Summary(TEXT, [], rows)


TEXT = f"""Exact, no simulation: batches of 1 to 10 candidate and 1 to 60 baseline requests (quick: some of them), all
their outcomes, 8 guesses from 0.0001 to 0.999, {len(list(families()))} combinations of bet, margin and direction,
every alternative, 27 baseline rates and six depths of the null.
"""
