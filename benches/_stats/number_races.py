"""One cell of latencies or costs: our tests and the peers on the same stream, for harm and for advance."""

from dataclasses import dataclass

import numpy as np

from benches._stats.closed_forms import MixtureSPRT, Naive
from benches._stats.group_sequential import GroupSequential
from benches._stats.numbers import World, stream
from benches._stats.our_numbers import DISTRIBUTION, GateLine, Gates, Harm
from benches._stats.proportions import OURS, STRICT, Gate, Raced, growthbook_tests, raced_by
from benches._stats.race import Method
from rollout.stats.margin import Margin
from rollout.stats.values import ValueTest

MEAN = ValueTest("mean")
P99 = ValueTest("quantile", focus=0.99)
P95 = ValueTest("quantile", focus=0.95)

AS_MEAN = f"{OURS}, as a mean"
AS_P99 = f"{OURS}, as its p99"
MEAN_GATE = f"{OURS}, capped mean"
WHOLE_GATE = f"{OURS}, capped mean and tail"
P95_GATE = f"{OURS}, p95"

TESTS = {OURS: (DISTRIBUTION, 0.05), STRICT: (DISTRIBUTION, 0.01)}
MORE_TESTS = {AS_MEAN: (MEAN, 0.05), AS_P99: (P99, 0.05)}


def harm(rng: np.random.Generator, world: World, replications: int, all_kinds: bool) -> Raced:
    """Who calls for a rollback, and when; ours as a distribution, and with all kinds as a mean and a p99 too."""
    both = world.pair
    mean = float(both.baseline @ both.values)
    hours = world.looks // 60
    methods: list[Method] = [
        Harm(both, replications, rng, TESTS | (MORE_TESTS if all_kinds else {})),
        Naive("naive Welch, p < .05 at each look"),
        MixtureSPRT("mSPRT, normal mixture, tau 10 % of the mean", tau=0.1 * mean),
        GroupSequential("group-sequential O'Brien-Fleming, hourly", "O'Brien-Fleming", hours),
        GroupSequential("group-sequential Pocock, hourly", "Pocock", hours),
    ]
    return raced_by(stream(world, replications, rng), methods, growthbook_tests(None, "mean"), replications)


@dataclass(frozen=True, slots=True)
class ValueGate:
    """A cell about advance: the margin's ratio; the candidate is on it, or equal to its baseline."""

    ratio: float
    quantile: bool


def advance(rng: np.random.Generator, world: World, replications: int, gate: ValueGate) -> Raced:
    """Who lets the candidate through the gate, and when."""
    both, margin = world.pair, Margin(gate.ratio - 1.0, relative=True)
    mean = float(both.baseline @ both.values)
    lines = {MEAN_GATE: GateLine("mean", "mean"), WHOLE_GATE: GateLine("mean", None)}
    tests = {"mean": MEAN}
    if gate.quantile:
        lines[P95_GATE] = GateLine("p95", None)
        tests["p95"] = P95
    known = Gate(margin, (mean * world.change.factor, mean), world.looks // 60)
    methods: list[Method] = [
        Gates(both, replications, rng, tests, lines, margin),
        Naive("naive Welch, each look from 30 requests on", known.difference, least=30),
        GroupSequential("group-sequential O'Brien-Fleming, hourly", "O'Brien-Fleming", known.hours, known.difference),
        GroupSequential("group-sequential Pocock, hourly", "Pocock", known.hours, known.difference),
    ]
    return raced_by(stream(world, replications, rng), methods, growthbook_tests(known, "mean"), replications)
