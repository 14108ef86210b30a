"""Latencies and costs: how many candidate requests are harmed before a rollback, over the information limit."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from benches._stats.cells import Cell, Summary
from benches._stats.figures import Block, at_most, multiples
from benches._stats.number_races import harm
from benches._stats.numbers import World
from benches._stats.our_numbers import CALIBRATED_ON
from benches._stats.proportions import OURS, SHARES, STRICT, Raced, agreement, by_method, comparison, ratio_name
from benches._stats.shapes import COST, LATENCY, PARETO, STEPS, Change, Name, full_limit, pair
from benches._stats.streams import DAY

NAME = "value-delay"
FINE = 64  # the judge's buckets, for the limit


class Harmful(NamedTuple):
    """A shape and a harmful change."""

    shape: Name
    change: Change

    def __str__(self) -> str:
        """As in the tables."""
        return f"{self.shape}, {self.change}"


TARGETS = {
    Harmful(LATENCY, Change(1.1)): (1.9, 1.9, 1.9),
    Harmful(LATENCY, Change(1.3)): (1.9, 1.9, 1.9),
    Harmful(LATENCY, Change(2.0, tail_only=True)): (6.5, 6.5, 8.0),
    Harmful(COST, Change(1.2)): (2.1, 2.1, 2.1),
    Harmful(PARETO, Change(1.2)): (2.1, 2.1, 2.1),
}


def key(harmful: Harmful, share: float) -> str:
    """The name of a cell."""
    return f"{NAME}/{harmful}, {ratio_name(share)}"


def cells(quick: bool) -> list[Cell]:
    """One cell per change and share."""
    return [
        Cell(
            key(harmful, share),
            harm,
            {
                "world": World(*harmful, share, DAY),
                "replications": 60 if quick else 400,
                "all_kinds": False,
            },
        )
        for harmful in TARGETS
        for share in SHARES
    ]


def summary(results: Mapping[str, Any]) -> Summary:
    """One row per cell, over its limit."""
    blocks, rows = [], []
    for harmful, targets in TARGETS.items():
        raced: list[Raced] = [results[key(harmful, share)] for share in SHARES]
        fine = pair(*harmful, FINE)
        limits = [full_limit(fine, share, 0.05) for share in SHARES]
        strict = [full_limit(fine, share, 0.01) for share in SHARES]
        lines = {
            "information limit, alpha .05": [f"{value:,.0f}" for value in limits],
            "information limit, alpha .01": [f"{value:,.0f}" for value in strict],
        } | multiples(by_method(raced, lambda of: of.delay), limits, {STRICT: strict})
        title = f"{harmful} (R = {raced[0].replications:,})"
        blocks.append(Block(title, [ratio_name(share) for share in SHARES], lines))
        for share, bound, target, result in zip(SHARES, limits, targets, raced, strict=True):
            delays = {name: of.delay.over(bound) for name, of in result.crossings.items()}
            peers = {name: delay.value for name, delay in delays.items() if name not in (OURS, STRICT)}
            name = f"delay of a rollback, {harmful}, {ratio_name(share)}"
            rows.append(at_most(name, delays[OURS], "x limit", target, 1.0, peers))
    return Summary(TEXT + comparison(results), blocks, [*rows, *agreement(NAME, results)])


TEXT = f"""Mean candidate requests until the rollback, alpha .05, one look a minute at 10 candidate requests a minute,
restricted at 24 h (">", with the part found). Limit: log(1 / alpha) over the best growth of a test that knows both
distributions. Ours is a "distribution" metric; cap and thresholds are frozen from {CALIBRATED_ON:,} baseline values
before the rollout. Buckets: {STEPS} to a doubling, for the limit {FINE}.
"""
