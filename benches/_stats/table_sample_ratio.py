"""Sample-ratio mismatch: how many units until a loss of candidate units is noticed, and how often without a loss."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln
from scipy.stats import chi2

from benches._stats.cells import Cell, Summary
from benches._stats.figures import Block, at_most, rate_at_most
from benches._stats.proportions import OURS, SHARES, by_method, ratio_name
from benches._stats.race import Crossings, race
from rollout.stats.samples import srm_log_e

NAME = "sample-ratio"
ALPHA = 0.001
LOST = 0.2
TARGETS = {0.01: 60_000.0, 0.1: 7_000.0, 0.5: 3_000.0}
NAIVE = "chi-square, p < .001 at each look"
LOOKS_TO_TARGET = 200  # so a look is half a per cent of the target
CONCENTRATION = 100.0


@dataclass(frozen=True, slots=True)
class Assigned:
    """A look: units assigned so far, of both arms and to the candidate, each (R,)."""

    number: int
    units: NDArray[np.int64]
    candidate: NDArray[np.int64]


class Ours:
    """`samples.srm_log_e` as an array expression; held to the function itself on some rows of each look."""

    def __init__(self, share: float) -> None:
        self.lines = {OURS: math.log(1.0 / ALPHA)}
        self.share = share

    def look(self, seen: Assigned, waiting: NDArray[np.int64]) -> NDArray[np.float64]:
        """Log e, (R,)."""
        a, b = CONCENTRATION * self.share, CONCENTRATION * (1.0 - self.share)
        t, c = seen.candidate, seen.units - seen.candidate
        log_e = betaln(a + t, b + c) - betaln(a, b) - t * math.log(self.share) - c * math.log1p(-self.share)
        row = int(waiting[0])
        assert abs(srm_log_e(int(t[row]), int(c[row]), self.share) - log_e[row]) < 1e-6
        return log_e


class ChiSquare:
    """The usual alarm, at each look."""

    def __init__(self, share: float) -> None:
        self.lines = {NAIVE: float(chi2.isf(ALPHA, 1))}
        self.share = share

    def look(self, seen: Assigned, waiting: NDArray[np.int64]) -> NDArray[np.float64]:
        """The statistic, (R,)."""
        expected = self.share * seen.units
        return (seen.candidate - expected) ** 2 / (expected * (1.0 - self.share))


def cells(quick: bool) -> list[Cell]:
    """With and without a loss, for each share."""
    return [
        Cell(key(lost, share), simulate, {"share": share, "lost": lost, "replications": 500 if quick else 4000})
        for lost in (LOST, 0.0)
        for share in SHARES
    ]


def key(lost: float, share: float) -> str:
    """The name of a cell."""
    return f"{NAME}/{lost:.0%} lost, {ratio_name(share)}"


def simulate(rng: np.random.Generator, share: float, lost: float, replications: int) -> dict[str, Crossings]:
    """Assign units until both alarms rang, or five times the target."""
    step = round(TARGETS[share] / LOOKS_TO_TARGET)
    left = share * (1.0 - lost)
    true_share = left / (left + 1.0 - share)

    def stream() -> object:
        candidate = np.zeros(replications, np.int64)
        for number in range(5 * LOOKS_TO_TARGET):
            candidate = candidate + rng.binomial(step, true_share, replications)
            yield Assigned(number, np.full(replications, (number + 1) * step), candidate)

    return race(stream(), [Ours(share), ChiSquare(share)], replications)


def summary(results: Mapping[str, Any]) -> Summary:
    """Units until the alarm, and how often it is false."""
    blocks, rows = [], []
    titles = [ratio_name(share) for share in SHARES]
    for lost in (LOST, 0.0):
        crossings = [results[key(lost, share)] for share in SHARES]
        size = crossings[0][OURS].crossed.size
        what = f"units of both arms until the alarm, {lost:.0%} lost" if lost else "P(false alarm), nothing lost"
        figures = by_method(crossings, (lambda of: of.delay) if lost else (lambda of: of.rate))
        blocks.append(Block(f"{what} (R = {size:,})", titles, figures))
        for share, result in zip(SHARES, crossings, strict=True):
            name = ratio_name(share)
            if lost:
                peers = {NAIVE: result[NAIVE].delay.value}
                target = TARGETS[share]
                rows.append(at_most(f"{what}, {name}", result[OURS].delay, "units", target, None, peers))
            else:
                peers = {NAIVE: result[NAIVE].rate.value}
                rows.append(rate_at_most(f"false sample-ratio alarm, {name}", result[OURS].crossed, ALPHA, peers))
    return Summary(TEXT, blocks, rows)


TEXT = """Each unit is assigned at random, alpha .001; "lost" are candidate units that never report. A look after each
half per cent of the target, up to five times the target.
"""
