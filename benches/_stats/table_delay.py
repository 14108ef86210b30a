"""How many candidate requests are harmed before a rollback, over the information limit."""

import math
from collections.abc import Mapping
from typing import Any

from benches._stats.cells import Cell, Summary
from benches._stats.figures import Block, Row, at_least, at_most, multiples, quotient
from benches._stats.proportions import (
    GROWTHBOOK,
    ORACLE,
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
from benches._stats.streams import DAY, steady
from rollout.stats.margin import NullLine
from rollout.stats.planning import information

NAME = "delay"
BASE = 0.02
TARGETS = {0.03: (1.4, 1.4, 1.5), 0.04: (1.4, 1.4, 1.5), 0.1: (1.8, 1.8, 1.8)}  # by rate, then share
PER_MINUTE = 5.0  # candidate requests
SOONER = 1.8  # than GrowthBook, at 1:99


def key(rate: float, share: float) -> str:
    """The name of a cell."""
    return f"{NAME}/2 to {100.0 * rate:g} %, {ratio_name(share)}"


def limit(rate: float, share: float, alpha: float) -> float:
    """Fewer candidate requests than this, on average, no test of level alpha and power one can do with."""
    return math.log(1.0 / alpha) / information(rate, BASE, share, NullLine(1.0, 0.0))


def cells(quick: bool) -> list[Cell]:
    """One cell per rate and share."""
    return [
        Cell(
            key(rate, share),
            harm,
            {
                "world": steady(share, BASE, rate, looks=2 * DAY, units=PER_MINUTE),
                "replications": 300 if quick else 2000,
                "options": Harm(rates=(rate, BASE), hours=24),
            },
        )
        for rate in TARGETS
        for share in SHARES
    ]


def summary(results: Mapping[str, Any]) -> Summary:
    """One row per cell over its limit, and one against GrowthBook."""
    blocks, rows, races = [], [], []
    for rate, targets in TARGETS.items():
        raced: list[Raced] = [results[key(rate, share)] for share in SHARES]
        limits, strict = ([limit(rate, share, alpha) for share in SHARES] for alpha in (0.05, 0.01))
        lines = {"information limit, alpha .05": [f"{value:,.0f}" for value in limits]}
        lines |= {"information limit, alpha .01": [f"{value:,.0f}" for value in strict]}
        titles = [ratio_name(share) for share in SHARES]
        lines |= multiples(by_method(raced, lambda of: of.delay), limits, {STRICT: strict})
        blocks.append(Block(f"2 to {100.0 * rate:g} % (R = {raced[0].replications:,})", titles, lines))
        for result, share, bound, target in zip(raced, SHARES, limits, targets, strict=True):
            delays = {name: crossing.delay.over(bound) for name, crossing in result.crossings.items()}
            peers = {name: delays[name].value for name in delays if name not in (OURS, STRICT, ORACLE)}
            name = f"delay of a rollback, errors {key(rate, share).partition('/')[2]}"
            rows.append(at_most(name, delays[OURS], "x limit", target, delays[ORACLE].value, peers))
            if share == SHARES[0]:
                races.append(against_growthbook(rate, share, result))
    return Summary(TEXT + comparison(results), blocks, [*rows, *races, *agreement(NAME, results)])


def against_growthbook(rate: float, share: float, result: Raced) -> Row:
    """How much sooner than GrowthBook's two-sided test, on the same streams."""
    name = f"sooner than GrowthBook, errors {key(rate, share).partition('/')[2]}"
    if GROWTHBOOK not in result.crossings:
        return Row(f"{name} (at least)", None, "x", SOONER, holds=False)
    sooner = quotient(result.crossings[GROWTHBOOK].units, result.crossings[OURS].units)
    return at_least(name, sooner, "x", SOONER, {})


TEXT = f"""Mean candidate requests until the rollback, alpha .05, one look a minute at {PER_MINUTE:g} candidate
requests a minute, no history, restricted at 48 h (">", with the part found). Limit: log(1 / alpha) / information,
which no test of power one beats on average. GrowthBook is two-sided with N* = 5000 and the absolute difference where
not said otherwise; the group-sequential tests know their horizon of 24 h. A method that also fires on harmless
candidates is no winner here: see false-rollback.
"""
