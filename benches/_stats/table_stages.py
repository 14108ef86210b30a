"""A rollout in stages while the baseline moves: a harmful candidate must still be found."""

from collections.abc import Mapping
from typing import Any

from benches._stats.cells import Cell, Summary
from benches._stats.figures import Block, Row, at_least
from benches._stats.proportions import (
    GROWTHBOOK,
    IMPROVED,
    OURS,
    STRICT,
    Harm,
    Raced,
    agreement,
    by_method,
    comparison,
    harm,
)
from benches._stats.streams import DAY, staged

NAME = "stages"
KEY = f"{NAME}/errors x 1.5 while the baseline falls"
SHARES = (0.01, 0.05, 0.25, 0.5)
FALLING = (0.04, 0.03, 0.02, 0.01)
TARGET = 0.99


def cells(quick: bool) -> list[Cell]:
    """One world."""
    world = staged(SHARES, FALLING, 1.5, 200.0, DAY // 4)
    arguments = {
        "world": world,
        "replications": 200 if quick else 2000,
        "options": Harm(stages=len(SHARES), improvement=True),
    }
    return [Cell(KEY, harm, arguments)]


def summary(results: Mapping[str, Any]) -> Summary:
    """Found at both levels; and what the peers found, or called an improvement."""
    raced: Raced = results[KEY]
    found, delay = by_method([raced], lambda of: of.rate), by_method([raced], lambda of: of.delay)
    lines = {name: [found[name][0], delay[name][0]] for name in found}
    title = f"base 4, 3, 2, 1 % at 1, 5, 25, 50 %, errors x 1.5 (R = {raced.replications:,})"
    block = Block(title, ["found", "candidate requests until then"], lines)
    peers = raced.rates([name for name in raced.crossings if name not in (OURS, STRICT)])
    rows = []
    for name, level in ((OURS, ""), (STRICT, ", alpha .01")):
        title = f"found, errors x 1.5, baseline falling over the stages{level}"
        rows.append(at_least(title, raced.crossings[name].rate, "probability", TARGET, peers))
    improved = raced.rates([IMPROVED]).get(IMPROVED)
    shown = f"{GROWTHBOOK} called the harmful candidate an improvement"
    rows.append(Row(shown, improved, "probability", holds=True))
    return Summary(TEXT + comparison(results), [block], [*rows, *agreement(NAME, results)])


TEXT = """200 requests a minute, six hours in each stage, Poisson arrivals, one-minute looks. Tests that pool the
totals compare a candidate that was mostly seen late with a baseline that was mostly seen early (Simpson's paradox).
The harmless counterpart, with a rising baseline, is in false-rollback.
"""
