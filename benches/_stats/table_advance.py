"""The gate: how often a candidate exactly on the margin is let through, and how long an equal one waits."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from benches._stats.cells import Cell, Summary
from benches._stats.figures import Block, at_most, multiples, rate_at_most
from benches._stats.proportions import OURS, SHARES, Gate, Raced, advance, agreement, by_method, comparison, ratio_name
from benches._stats.streams import DAY, steady
from rollout.stats.margin import Margin, null_line
from rollout.stats.planning import information

NAME = "advance"
ALPHA = 0.05


class Setting(NamedTuple):
    """A base rate and a margin."""

    base: float
    margin: Margin

    def __str__(self) -> str:
        """As in the tables."""
        size = self.margin.size
        line = f"x {1.0 + size:g}" if self.margin.relative else f"+ {100.0 * size:g} pt"
        return f"base {100.0 * self.base:g} %, margin {line}"

    @property
    def on_line(self) -> float:
        """The candidate's rate exactly on the margin."""
        line = null_line(self.margin, "lower_is_better")
        return line.ratio * self.base + line.difference


SETTINGS = [
    *(Setting(base, Margin(size, relative=True)) for base in (0.02, 0.002) for size in (0.25, 0.5, 1.0)),
    *(Setting(base, Margin(size, relative=False)) for base, size in ((0.02, 0.005), (0.02, 0.01), (0.002, 0.002))),
]
EQUAL = {Setting(0.02, Margin(0.5, relative=True)): 1.3, Setting(0.02, Margin(0.01, relative=False)): 1.3}


def key(what: str, setting: Setting, share: float) -> str:
    """The name of a cell."""
    return f"{NAME}/{what}, {setting}, {ratio_name(share)}"


def cells(quick: bool) -> list[Cell]:
    """On the margin for every setting and share, and at equality for some."""
    replications = 300 if quick else 2000
    made = []
    for what, settings in (("on the margin", SETTINGS), ("equal", list(EQUAL))):
        for setting in settings:
            rate = setting.on_line if what == "on the margin" else setting.base
            for share in SHARES:
                gate = Gate(setting.margin, (rate, setting.base))
                looks = DAY // 4 if quick and what == "on the margin" else DAY
                world = steady(share, setting.base, rate, looks)
                arguments = {"world": world, "replications": replications, "gate": gate}
                made.append(Cell(key(what, setting, share), advance, arguments))
    return made


def summary(results: Mapping[str, Any]) -> Summary:
    """A row per setting and share."""
    blocks, rows = [], []
    titles = [ratio_name(share) for share in SHARES]
    for setting in SETTINGS:
        raced: list[Raced] = [results[key("on the margin", setting, share)] for share in SHARES]
        title = f"P(advance) on the margin, {setting} (R = {raced[0].replications:,})"
        blocks.append(Block(title, titles, by_method(raced, lambda of: of.rate)))
        for share, result in zip(SHARES, raced, strict=True):
            peers = result.rates([name for name in result.crossings if name != OURS])
            name = f"wrong advance, {setting}, {ratio_name(share)}"
            rows.append(rate_at_most(name, result.crossings[OURS].crossed, ALPHA, peers))
    for setting, target in EQUAL.items():
        raced = [results[key("equal", setting, share)] for share in SHARES]
        limits = [limit(setting, share) for share in SHARES]
        title = f"requests until the advance of an equal candidate, {setting} (R = {raced[0].replications:,})"
        lines = {"information limit": [f"{value:,.0f}" for value in limits]}
        blocks.append(Block(title, titles, lines | multiples(by_method(raced, lambda of: of.delay), limits)))
        for share, bound, result in zip(SHARES, limits, raced, strict=True):
            delays = {name: of.delay.over(bound) for name, of in result.crossings.items()}
            peers = {name: delay.value for name, delay in delays.items() if name != OURS}
            name = f"time to advance, {setting}, {ratio_name(share)}"
            rows.append(at_most(name, delays[OURS], "x limit", target, None, peers))
    return Summary(TEXT + comparison(results), blocks, [*rows, *agreement(NAME, results)])


def limit(setting: Setting, share: float) -> float:
    """Candidate requests below which no gate of level alpha and power one stays, on average."""
    line = null_line(setting.margin, "lower_is_better")
    return math.log(1.0 / ALPHA) / information(setting.base, setting.base, share, line)


TEXT = """P(the gate opens within 24 h of one-minute looks) for a candidate exactly on the margin, alpha .05 (quick: 6
h); and the mean candidate requests until it opens for a candidate that equals its baseline, 10 a minute, restricted at
24 h. The peers are told the margin as a difference from the true baseline, which an operator would not know;
"relative" is GrowthBook's default.
"""
