"""One cell of yes/no outcomes: our test and all peers on the same stream, for harm and for advance."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benches._stats.closed_forms import CountTest, MixtureSPRT, Naive, Oracle
from benches._stats.figures import Figure, Row
from benches._stats.group_sequential import GroupSequential
from benches._stats.growthbook import CLOSE, VERSION, GrowthBook, Kind, package
from benches._stats.minutes import RankTest, Threshold
from benches._stats.ours import Proportion, lines
from benches._stats.race import Crossings, Method, race
from benches._stats.streams import World, minutes, requests
from rollout.stats.margin import Margin, null_line

OURS = "rampline"
STRICT = "rampline, alpha 0.01"
GROWTHBOOK = "GrowthBook sequential"
IMPROVED = "GrowthBook sequential, says improved"
ORACLE = "oracle SPRT (knows both rates)"
SHARES = (0.01, 0.1, 0.5)


def ratio_name(share: float) -> str:
    """1:99, 10:90, 50:50, ..."""
    return f"{100.0 * share:g}:{100.0 * (1.0 - share):g}"


@dataclass(frozen=True, slots=True)
class Raced:
    """Result of a cell.

    Attributes:
        replications: R.
        crossings: by method.
        difference: the largest one between gbstats and its formula, relative to the half-width.
        compared: on how many looks.
    """

    replications: int
    crossings: dict[str, Crossings]
    difference: float = 0.0
    compared: int = 0

    def rates(self, names: Sequence[str]) -> dict[str, float]:
        """How often each of the methods decided, where it took part."""
        return {name: self.crossings[name].rate.value for name in names if name in self.crossings}


@dataclass(frozen=True, slots=True)
class Harm:
    """Options of a cell about harm.

    Attributes:
        stages: start times of our e-process.
        rates: for the oracle: the candidate's and the baseline's; None where they change.
        single: whether to look at each single request.
        slow_peers: whether the peers that go by minutes and hours take part.
        hours: the horizon of the group-sequential tests, if it is not that of the world.
        improvement: whether to note when GrowthBook calls the candidate better than the baseline.
    """

    stages: int = 1
    rates: tuple[float, float] | None = None
    single: bool = False
    slow_peers: bool = True
    hours: int | None = None
    improvement: bool = False


def harm(rng: np.random.Generator, world: World, replications: int, options: Harm = Harm()) -> Raced:
    """Who calls for a rollback, and when; ours with `rollback_on: any_regression`."""
    share = float(world.share[0])
    methods: list[Method] = [
        Proportion(replications, "harm", stages=options.stages, lines=lines(OURS, 0.05, 0.01)),
        Naive("naive z, p < .05 at each look"),
        MixtureSPRT("mSPRT, normal mixture, tau .01", tau=0.01),
    ]
    if np.ptp(world.share) == 0.0:
        methods.append(CountTest("Lindon-Malek, event counts", share))
    if options.slow_peers:
        hours = options.hours or world.looks // 60
        methods += [
            GroupSequential("group-sequential O'Brien-Fleming, hourly", "O'Brien-Fleming", hours),
            GroupSequential("group-sequential Pocock, hourly", "Pocock", hours),
            Threshold("Flagger-like: over 5 % in 5 minutes", replications),
            RankTest("Kayenta-like: ranks of 60 minutes", replications),
        ]
    if options.rates is not None:
        methods.append(Oracle(ORACLE, share, options.rates))
    growthbook = growthbook_tests(None, "proportion")
    if options.improvement and growthbook:
        growthbook.append(GrowthBook(IMPROVED, margin=0.0))
    stream = (requests if options.single else minutes)(world, replications, rng)
    return raced_by(stream, methods, growthbook, replications)


@dataclass(frozen=True, slots=True)
class Gate:
    """Options of a cell about advance.

    Attributes:
        margin: of the gate.
        rates: the true rates (or means) of the candidate and the baseline, which the peers are told.
        hours: the horizon of the group-sequential tests.
    """

    margin: Margin
    rates: tuple[float, float]
    hours: int = 24

    @property
    def difference(self) -> float:
        """The margin as a difference from the true baseline, which the peers are told."""
        line = null_line(self.margin, "lower_is_better")
        return line.ratio * self.rates[1] + line.difference - self.rates[1]


def advance(rng: np.random.Generator, world: World, replications: int, gate: Gate) -> Raced:
    """Who lets the candidate through the gate, and when."""
    margin = gate.difference
    methods: list[Method] = [
        Proportion(replications, "advance", gate.margin, lines=lines(OURS, 0.05)),
        Naive("naive z, each look from 30 requests on", margin, least=30),
        GroupSequential("group-sequential O'Brien-Fleming, hourly", "O'Brien-Fleming", gate.hours, margin),
        GroupSequential("group-sequential Pocock, hourly", "Pocock", gate.hours, margin),
    ]
    return raced_by(minutes(world, replications, rng), methods, growthbook_tests(gate, "proportion"), replications)


def growthbook_tests(gate: Gate | None, kind: Kind) -> list[GrowthBook]:
    """GrowthBook's tests for harm, or for a gate; none if the package is not there."""
    if package() is None:
        return []
    if gate is None:
        return [
            GrowthBook(GROWTHBOOK, kind=kind),
            GrowthBook(f"{GROWTHBOOK}, relative", relative=True, kind=kind),
            GrowthBook(f"{GROWTHBOOK}, one-sided (formula)", alpha=0.1, kind=kind, checked=False),
        ]
    return [
        GrowthBook(f"{GROWTHBOOK}, absolute", margin=gate.difference, kind=kind),
        GrowthBook(f"{GROWTHBOOK}, relative", relative=True, margin=gate.difference / gate.rates[1], kind=kind),
    ]


def raced_by(
    stream: Iterable[Any], methods: Sequence[Method], growthbook: Sequence[GrowthBook], replications: int
) -> Raced:
    """Race them all on one stream."""
    crossings = race(stream, [*methods, *growthbook], replications)
    return Raced(
        replications,
        crossings,
        max((method.largest_difference for method in growthbook), default=0.0),
        sum(method.compared for method in growthbook),
    )


def by_method(
    results: Sequence[Raced | dict[str, Crossings]], figure: Callable[[Crossings], Figure]
) -> dict[str, list[Figure | str]]:
    """Lines of a block: for each method a figure of its crossings in each cell; a dash where it took no part."""
    cells = [result.crossings if isinstance(result, Raced) else result for result in results]
    names = dict.fromkeys(name for crossings in cells for name in crossings)
    return {name: [figure(cell[name]) if name in cell else "-" for cell in cells] for name in names}


def comparison(results: Mapping[str, Raced]) -> str:
    """How near gbstats and its formula came in these cells."""
    compared = sum(result.compared for result in results.values())
    if compared == 0:
        return "gbstats is not installed: no figures for GrowthBook."
    off = f"largest difference from the formula {_off(results):.1e} half-widths"
    return f"gbstats {VERSION} itself on {compared:,} of the looks; {off}."


def agreement(table: str, results: Mapping[str, Raced]) -> list[Row]:
    """The claim that the array form is gbstats, in half-widths of its interval; none if it is not installed."""
    if not any(result.compared for result in results.values()):
        return []
    off = _off(results)
    return [Row(f"gbstats against its array form, {table}", off, "half-widths", CLOSE, off <= CLOSE)]


def _off(results: Mapping[str, Raced]) -> float:
    return max((result.difference for result in results.values()), default=0.0)
