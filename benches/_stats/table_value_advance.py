"""Latencies and costs: how often a candidate on the margin passes the gate, and how long an equal one waits."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from benches._stats.cells import Cell, Summary
from benches._stats.figures import Block, Row, at_most, multiples, rate_at_most
from benches._stats.number_races import MEAN_GATE, P95_GATE, WHOLE_GATE, ValueGate, advance
from benches._stats.numbers import World
from benches._stats.our_numbers import CALIBRATED_ON
from benches._stats.proportions import SHARES, Raced, agreement, by_method, comparison, ratio_name
from benches._stats.shapes import COST, LATENCY, PARETO, STEPS, Change, Name, mean_limit, pair
from benches._stats.streams import DAY

NAME = "value-advance"
ALPHA = 0.05
FINE = 64
UNIT = "x limit of means"
LONGEST = 1.8  # times the limit of a test by means


class Setting(NamedTuple):
    """A shape and the ratio that is tolerated."""

    shape: Name
    ratio: float

    def __str__(self) -> str:
        """As in the tables."""
        return f"{self.shape}, margin x {self.ratio:g}"


SETTINGS = [Setting(LATENCY, 1.1), Setting(LATENCY, 1.25), Setting(COST, 1.2), Setting(PARETO, 1.2)]
OURS = (MEAN_GATE, WHOLE_GATE, P95_GATE)


def key(what: str, setting: Setting, share: float) -> str:
    """The name of a cell."""
    return f"{NAME}/{what}, {setting}, {ratio_name(share)}"


def cells(quick: bool) -> list[Cell]:
    """On the margin and at equality, for every setting and share."""
    made = []
    for what, looks, replications in (
        ("on the margin", DAY // 6 if quick else DAY, 100 if quick else 1000),
        ("equal", DAY, 40 if quick else 300),
    ):
        for setting in SETTINGS:
            change = Change(setting.ratio) if what == "on the margin" else Change()
            for share in SHARES:
                gate = ValueGate(setting.ratio, quantile=what == "on the margin")
                world = World(setting.shape, change, share, looks)
                arguments = {"world": world, "replications": replications, "gate": gate}
                made.append(Cell(key(what, setting, share), advance, arguments))
    return made


def summary(results: Mapping[str, Any]) -> Summary:
    """A row per setting, share and gate."""
    blocks, rows = [], []
    titles = [ratio_name(share) for share in SHARES]
    for setting in SETTINGS:
        raced: list[Raced] = [results[key("on the margin", setting, share)] for share in SHARES]
        title = f"P(advance) on the margin, {setting} (R = {raced[0].replications:,})"
        blocks.append(Block(title, titles, by_method(raced, lambda of: of.rate)))
        for share, result in zip(SHARES, raced, strict=True):
            peers = result.rates([name for name in result.crossings if name not in OURS])
            for gate in OURS:
                name = f"wrong advance,{gate.partition(',')[2]}: {setting}, {ratio_name(share)}"
                rows.append(rate_at_most(name, result.crossings[gate].crossed, ALPHA, peers))
    for setting in SETTINGS:
        raced = [results[key("equal", setting, share)] for share in SHARES]
        fine = pair(setting.shape, Change(), FINE)
        limits = [mean_limit(fine, share, setting.ratio, ALPHA) for share in SHARES]
        title = f"requests until the advance of an equal candidate, {setting} (R = {raced[0].replications:,})"
        lines = {"limit of a test by means": [f"{bound:,.0f}" for bound in limits]}
        blocks.append(Block(title, titles, lines | multiples(by_method(raced, lambda of: of.delay), limits)))
        for share, bound, result in zip(SHARES, limits, raced, strict=True):
            delays = {name: of.delay.over(bound) for name, of in result.crossings.items()}
            peers = {name: delay.value for name, delay in delays.items() if name not in OURS}
            where, whole = f"{setting}, {ratio_name(share)}", delays[WHOLE_GATE]
            title = f"time to advance, capped mean: {where}"
            rows.append(at_most(title, delays[MEAN_GATE], UNIT, LONGEST, None, peers))
            title = f"time to advance, capped mean and tail: {where}"
            rows.append(Row(title, whole.value, UNIT, peers=peers, error=whole.error))
    return Summary(TEXT + comparison(results), blocks, [*rows, *agreement(NAME, results)])


TEXT = f"""P(the gate opens within 24 h of one-minute looks; quick: 4 h) for a candidate whose every value is the
baseline's times the margin, so that capped mean and p95 are exactly on it, alpha .05; and the mean candidate requests
until it opens for an equal candidate, 10 a minute, restricted at 24 h. A mean's gate asks for the capped mean and for
no heavier tail. Cap and thresholds are frozen from {CALIBRATED_ON:,} baseline values before the rollout; buckets:
{STEPS} to a doubling. The limit is that of a test that goes by the mean alone, and knows the variance. The peers are
told the margin as a difference from the true mean.
"""
