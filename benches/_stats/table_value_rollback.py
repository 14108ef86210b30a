"""Latencies and costs: how often a harmless candidate is rolled back within a day of looks."""

from collections.abc import Mapping
from typing import Any

from benches._stats.cells import Cell, Summary
from benches._stats.figures import Block, rate_at_most
from benches._stats.number_races import AS_MEAN, AS_P99, harm
from benches._stats.numbers import World
from benches._stats.our_numbers import CALIBRATED_ON
from benches._stats.proportions import OURS, SHARES, STRICT, Raced, agreement, by_method, comparison, ratio_name
from benches._stats.shapes import COST, LATENCY, PARETO, STEPS, Change, Name
from benches._stats.streams import DAY

NAME = "value-rollback"
SHAPES: tuple[Name, ...] = (LATENCY, COST, PARETO)
KINDS = {OURS: "", AS_MEAN: ", as a mean", AS_P99: ", as its p99"}


def key(shape: Name, share: float) -> str:
    """The name of a cell."""
    return f"{NAME}/{shape}, {ratio_name(share)}"


def cells(quick: bool) -> list[Cell]:
    """One cell per shape and share."""
    looks, replications = (DAY // 8, 150) if quick else (DAY, 1000)
    return [
        Cell(
            key(shape, share),
            harm,
            {
                "world": World(shape, Change(), share, looks),
                "replications": replications,
                "all_kinds": True,
            },
        )
        for shape in SHAPES
        for share in SHARES
    ]


def summary(results: Mapping[str, Any]) -> Summary:
    """A row per shape, share and kind of test at alpha .05, and one at .01."""
    blocks, rows = [], []
    for shape in SHAPES:
        raced: list[Raced] = [results[key(shape, share)] for share in SHARES]
        title = f"{shape} (R = {raced[0].replications:,})"
        blocks.append(Block(title, [ratio_name(share) for share in SHARES], by_method(raced, lambda of: of.rate)))
        for share, result in zip(SHARES, raced, strict=True):
            peers = result.rates([name for name in result.crossings if name not in (*KINDS, STRICT)])
            name = f"false rollback, {shape}, {ratio_name(share)}"
            for method, kind in KINDS.items():
                rows.append(rate_at_most(f"{name}{kind}", result.crossings[method].crossed, 0.05, peers))
            rows.append(rate_at_most(f"{name}, alpha .01", result.crossings[STRICT].crossed, 0.01, {}))
    return Summary(TEXT + comparison(results), blocks, [*rows, *agreement(NAME, results)])


TEXT = f"""P(rollback within 24 h of one-minute looks; quick: 3 h) of a candidate without any difference, alpha .05, 10
candidate requests a minute. Ours is a "distribution" metric where not said otherwise; cap and thresholds are frozen
from {CALIBRATED_ON:,} baseline values before the rollout. Buckets: {STEPS} to a doubling.
"""
