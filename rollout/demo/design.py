"""Why the demonstration ends as it must: its plans and its traffic, simulated with the true rates before it runs.

Stages, margins, weights and levels are read from the plans that are posted, and the rates from the recorded answers.
What the simulation leaves out is put on the safe side:

- every second brings what the quietest minute of the recorded hour would (the mean is 1.7 times that), so a machine
  that delivers no more than this is covered too;
- the judge divides log e by the design effect it sees, which for independent requests is 1 but is estimated with
  noise. Every outcome is simulated with 1 and with `NOISY_DESIGN_EFFECT`, and the worse of the two is reported;
- while an arm has fewer than ten effective events, the judge divides a gate's log e by no less than the requests per
  unit of the attempt. No recorded answer fails, so this holds for the gate of `error_rate` throughout: about 1.1
  when the quietest traffic opens that gate, and about 1.3 in an attempt of the demonstration, both below
  `NOISY_DESIGN_EFFECT`, by which every gate is divided here;
- a false alarm of the sample ratio would hold a rollout; its level is taken off the bound in full;
- whatever is undecided after `LONGEST_RUN` counts as wrong.

`python -m rollout.demo.design` prints the figure with more replications than the demonstration takes.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv

from rollout.demo.data import correct_rate
from rollout.demo.documents import EXPECTED, Ramp, ramps, shared
from rollout.demo.traffic import quietest_rate
from rollout.domain.document import duration
from rollout.domain.plan import Guardrail, units_wanted
from rollout.domain.watch import margin
from rollout.stats.simulate import Scenario, SimulatedGuardrail, SimulatedStage, simulate

LONGEST_RUN = 180.0
"""Seconds after which a rollout that has not ended counts as wrong."""
NOISY_DESIGN_EFFECT = 1.5
"""Its estimate from 256 cells has a standard deviation of about 0.09 around 1. In 2,100 runs of the real judge with
such traffic, sticky users and all, the highest moment of a run was 1.09 on average and 1.78 at most, and all ended as
they must; here it stands at this height throughout."""
REPLICATIONS = 4_000
CONFIDENCE = 0.95
SECONDS_PER_TICK = 1.0


class Figure(NamedTuple):
    """How sure it is that all three rollouts end as they must.

    Attributes:
        wrong: simulated demonstrations in which at least one did not, under the worse design effect.
        replications: simulated demonstrations.
        estimate: part that ended right.
        bound: the true probability is at least this, with 95 % confidence (Clopper-Pearson, less the level of the
            sample-ratio alarms).
    """

    wrong: int
    replications: int
    estimate: float
    bound: float


def figure(replications: int = REPLICATIONS, seed: int = 1) -> Figure:
    """Simulate whole demonstrations, the three rollouts independently of one another."""
    wrong = max(
        int(np.count_nonzero(_any_wrong(design_effect, replications, seed)))
        for design_effect in (1.0, NOISY_DESIGN_EFFECT)
    )
    certain = 1.0 - float(betaincinv(wrong + 1, replications - wrong, CONFIDENCE)) if wrong < replications else 0.0
    alarms = sum(ramp.rollout.analysis.alpha_srm for ramp in ramps())
    return Figure(wrong, replications, 1.0 - wrong / replications, max(0.0, certain - alarms))


def scenario(ramp: Ramp, design_effect: float = 1.0) -> Scenario:
    """A plan as the simulator takes it, every bet divided by the design effect throughout."""
    plan = ramp.rollout
    stages = tuple(
        SimulatedStage(
            percentage=stage.percentage,
            min_ticks=math.ceil(duration(stage.min_duration).total_seconds() / SECONDS_PER_TICK),
            min_units=units_wanted(plan, stage),
        )
        for stage in plan.stages
    )
    return Scenario(
        stages=stages,
        guardrails=tuple(_guardrail(ramp, guardrail) for guardrail in plan.guardrails),
        requests_per_tick=quietest_rate() * SECONDS_PER_TICK,
        horizon=int(LONGEST_RUN / SECONDS_PER_TICK),
        alpha_rollback=plan.analysis.alpha_rollback,
        alpha_advance=plan.analysis.alpha_advance,
        risk_scaled=plan.analysis.risk_scaled,
        design_effect=design_effect,
    )


def _any_wrong(design_effect: float, replications: int, seed: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    wrong = np.zeros(replications, np.bool_)
    for number, ramp in enumerate(ramps()):
        rng = np.random.default_rng([seed, number])
        outcomes = simulate(scenario(ramp, design_effect), replications, rng)
        wrong |= ~(outcomes.completed if EXPECTED[ramp.name] == "completed" else outcomes.rolled_back)
    return wrong


def _guardrail(ramp: Ramp, guardrail: Guardrail) -> SimulatedGuardrail:
    """The true rates: those recorded of the models; no failures, as looking up a recorded answer cannot fail."""
    plan = ramp.rollout
    candidate, baseline = (
        correct_rate(ramp.model_of(variant)) if guardrail.metric == "answer_correct" else 0.0
        for variant in (plan.candidate, plan.baseline)
    )
    directions = {document["key"]: document["direction"] for document in shared()[1:]}
    return SimulatedGuardrail(
        candidate_rate=candidate,
        baseline_rate=baseline,
        margin=margin(guardrail.max_regression),
        direction=directions[guardrail.metric],
        weight=float(guardrail.weight),
    )


def sentence(found: Figure) -> str:
    """The figure for people."""
    simulated = f"{found.wrong} of {found.replications:,} simulated demonstrations went wrong"
    return (
        f"all three outcomes are right with probability >= {100 * found.bound:.2f} % "
        f"({simulated}; {100 * CONFIDENCE:.0f} % confidence)"
    )


if __name__ == "__main__":
    print(sentence(figure(20_000)))
