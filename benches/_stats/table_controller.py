"""Whole rollouts: three guardrails, four stages, every look, one level."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from benches._stats.cells import Cell, Summary
from benches._stats.controller import COMPLETED, MINUTES, REQUESTS, ROLLED_BACK, MakeJudge, Outcome, Truth, simulate
from benches._stats.figures import Block, Figure, Row, at_least, at_most, mean, median, rate_at_most
from benches._stats.our_controller import Ours, on_margin
from benches._stats.our_numbers import CALIBRATED_ON
from benches._stats.peer_controllers import GrowthBookPooled, NaiveTimer
from benches._stats.shapes import STEPS, Change

NAME = "controller"
OURS = "rampline, any regression"
ON_MARGIN = "rampline, beyond the margin"
GROWTHBOOK = "GrowthBook's intervals, pooled, fixed margins"
NAIVE = "naive Welch, an hour per stage"
CONTROLLERS: dict[str, MakeJudge] = {OURS: Ours, ON_MARGIN: on_margin, GROWTHBOOK: GrowthBookPooled, NAIVE: NaiveTimer}
ALPHA = 0.01
PARTS = 4  # of the harmless scenario, so that processes share it


class Scenario(NamedTuple):
    """What is true, and the most hours that the median decision may take."""

    truth: Truth
    hours: float


HARMLESS = "no difference"
SCENARIOS = {
    HARMLESS: Scenario(Truth(), 5.0),
    "errors x 2": Scenario(Truth(errors=2.0), 3.0),
    "only above the p99, latency x 2": Scenario(Truth(latency=Change(2.0, tail_only=True)), 2.5),
    "errors x 2 from 25 % on": Scenario(Truth(errors=2.0, from_stage=2), 3.0),
}


def key(scenario: str, controller: str, part: int) -> str:
    """The name of a cell."""
    return f"{NAME}/{scenario}, part {part}, {controller}"


def parts(scenario: str) -> int:
    """In how many cells a scenario is run."""
    return PARTS if scenario == HARMLESS else 1


def cells(quick: bool) -> list[Cell]:
    """One cell per scenario, controller and part."""
    size = 25 if quick else 500
    return [
        Cell(
            key(scenario, name, part),
            simulate,
            {
                "make": CONTROLLERS[name],
                "truth": truth,
                "replications": size if name == OURS or scenario != HARMLESS else max(size // 5, 20),
            },
        )
        for scenario, (truth, _) in SCENARIOS.items()
        for name in CONTROLLERS
        for part in range(parts(scenario))
    ]


def merged(results: Mapping[str, Any], scenario: str, controller: str) -> Outcome:
    """All parts of a scenario."""
    outcomes = [results[key(scenario, controller, part)] for part in range(parts(scenario))]
    columns = zip(*((outcome.status, outcome.hours, outcome.units) for outcome in outcomes), strict=True)
    return Outcome(*(np.concatenate(column) for column in columns))


def line(outcome: Outcome) -> list[Figure | str]:
    """Rolled back, reached 100 %, median hours to each, mean candidate requests until the rollback."""
    back, done = outcome.status == ROLLED_BACK, outcome.status == COMPLETED
    enough = 5
    return [
        mean(back),
        mean(done),
        median(outcome.hours[back]) if back.sum() >= enough else "-",
        mean(outcome.units[back]) if back.sum() >= enough else "-",
        median(outcome.hours[done]) if done.sum() >= enough else "-",
    ]


COLUMNS = ("rolled back", "at 100 %", "hours to rollback", "candidate requests", "hours to 100 %")


def summary(results: Mapping[str, Any]) -> Summary:
    """Level and duration of a harmless rollout; whether and when a harmful one is taken back."""
    blocks, rows = [], []
    for scenario, (_, target) in SCENARIOS.items():
        outcomes = {name: merged(results, scenario, name) for name in CONTROLLERS}
        ours = outcomes[OURS]
        title = f"{scenario} (R = {ours.status.size:,}; peers {outcomes[NAIVE].status.size:,})"
        blocks.append(Block(title, COLUMNS, {name: line(outcome) for name, outcome in outcomes.items()}))
        rows += verdicts(scenario, outcomes, target)
    return Summary(TEXT, blocks, rows)


def verdicts(scenario: str, outcomes: Mapping[str, Outcome], target: float) -> list[Row]:
    """The claims about one scenario."""
    ours = outcomes[OURS]
    wanted = COMPLETED if scenario == HARMLESS else ROLLED_BACK
    others = {name: outcome for name, outcome in outcomes.items() if name != OURS}
    part = {name: float((outcome.status == wanted).mean()) for name, outcome in others.items()}
    hours = {name: float(np.median(np.where(o.status == wanted, o.hours, np.inf))) for name, o in others.items()}
    decided = median(np.where(ours.status == wanted, ours.hours, np.inf))
    if scenario == HARMLESS:
        backs = {name: float((outcome.status == ROLLED_BACK).mean()) for name, outcome in others.items()}
        false = rate_at_most("whole rollout: rolled back without reason", ours.status == ROLLED_BACK, ALPHA, backs)
        return [false, at_most("whole rollout: hours from 1 to 100 %, median", decided, "h", target, None, hours)]
    found = mean(ours.status == ROLLED_BACK)
    return [
        at_least(f"whole rollout: rolled back, {scenario}", found, "probability", 0.99, part),
        at_most(f"whole rollout: hours to rollback, {scenario}, median", decided, "h", target, None, hours),
    ]


TEXT = f"""Stages of 1, 5, 25, 50 %, then 100 %; {REQUESTS / MINUTES:g} requests a minute, a look every {MINUTES}
minutes; guardrails: errors (base 2 %, margin x 1.5), latency (a distribution, lognormal s = 1, x 1.25), cost (a mean,
lognormal s = 1.5, x 1.25), independent of one another. Ours: alpha .01 over guardrails, start times and looks, gates
.05 with risk-scaled margins, at least {2 * MINUTES} minutes and 50 candidate requests in a stage; thresholds from
{CALIBRATED_ON:,} values before the rollout; {STEPS} buckets to a doubling. A controller decides its own traffic: the
streams are the same only until two controllers decide differently. Horizon: two days.
"""
