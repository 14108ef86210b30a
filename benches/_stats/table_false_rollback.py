"""How often a harmless candidate is rolled back within a day of looks, one a minute."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benches._stats.cells import Cell, Summary
from benches._stats.figures import Block, rate_at_most
from benches._stats.proportions import (
    OURS,
    SHARES,
    STRICT,
    Harm,
    Raced,
    agreement,
    by_method,
    comparison,
    harm,
    ratio_name,
)
from benches._stats.streams import DAY, World, drifting, staged, steady

NAME = "false-rollback"
BASE = 0.02


def worlds(looks: int = DAY) -> dict[str, list[World]]:
    """Scenario -> its worlds, one for each share; no candidate differs from its baseline."""
    time = np.arange(looks)
    outage = np.where(np.isin(time // 30, (10, 30)), 0.2, BASE)
    same = [steady(share, BASE, BASE, looks) for share in SHARES]
    return {
        "steady, base 2 %": same,
        "common drift: a sine between 0.4 and 3.6 % over six hours": [
            drifting(world, BASE * (1.0 + 0.8 * np.sin(2.0 * np.pi * time / 360.0))) for world in same
        ],
        "common drift: two outages of half an hour at 20 %": [drifting(world, outage) for world in same],
        "common drift: a ramp from 1 to 6 %": [drifting(world, np.linspace(0.01, 0.06, looks)) for world in same],
        "low traffic: one candidate request in five minutes": [
            steady(share, BASE, BASE, looks, units=0.2) for share in SHARES
        ],
        "holdback: 190 candidate and 10 baseline requests a minute": [steady(0.95, BASE, BASE, looks, units=190.0)],
        "Simpson: stages 1, 5, 25, 50 % of a quarter of the time each, base 1, 2, 3, 4 %": [
            staged((0.01, 0.05, 0.25, 0.5), (0.01, 0.02, 0.03, 0.04), 1.0, 200.0, looks // 4)
        ],
    }


def column(world: World) -> str:
    """The share of a world, or that it changes."""
    return ratio_name(float(world.share[0])) if np.ptp(world.share) == 0.0 else "1:99 to 50:50"


def cells(quick: bool) -> list[Cell]:
    """One cell per world."""
    return [
        Cell(
            f"{NAME}/{scenario}, {column(world)}",
            harm,
            {"world": world, "replications": 300 if quick else 4000, "options": Harm(stages=int(world.stage[-1]) + 1)},
        )
        for scenario, several in worlds(DAY // 4 if quick else DAY).items()
        for world in several
    ]


def summary(results: Mapping[str, Any]) -> Summary:
    """Two rows per world: at alpha .05 with the peers, and at alpha .01."""
    blocks, rows = [], []
    for scenario, several in worlds().items():
        columns = [column(world) for world in several]
        raced: list[Raced] = [results[f"{NAME}/{scenario}, {title}"] for title in columns]
        blocks.append(
            Block(f"{scenario} (R = {raced[0].replications:,})", columns, by_method(raced, lambda of: of.rate))
        )
        for title, result in zip(columns, raced, strict=True):
            name, crossings = f"false rollback, {scenario}, {title}", result.crossings
            peers = result.rates([method for method in crossings if method not in (OURS, STRICT)])
            rows.append(rate_at_most(name, crossings[OURS].crossed, 0.05, peers))
            rows.append(rate_at_most(f"{name}, alpha .01", crossings[STRICT].crossed, 0.01, {}))
    return Summary(TEXT + comparison(results), blocks, [*rows, *agreement(NAME, results)])


TEXT = """P(rollback within 24 h of one-minute looks; quick: 6 h) of a candidate that does no harm; alpha .05 where not
said otherwise. Poisson arrivals, 10 candidate requests a minute where not said otherwise; `rollback_on:
any_regression`, which has the larger null. With several stages, ours is the mean over its start times, as the judge
takes it.
"""
