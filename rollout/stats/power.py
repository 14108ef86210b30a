"""How soon a regression of a rate would be rolled back, and how often a harmless candidate would be.

One stage, one guardrail, many times over: `simulate` with a gate that never opens, so bets, guesses, weights and the
threshold are those of the real judge.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rollout.stats.margin import Direction, Margin, null_line
from rollout.stats.simulate import Scenario, SimulatedGuardrail, SimulatedStage, simulate

Floats = NDArray[np.float64]

NEVER = 1e-300  # level of a gate that does not open
SOME_MARGIN = Margin(0.5, relative=True)  # the gate of a plan that rolls back on any regression needs one; never used


@dataclass(frozen=True, slots=True)
class Watched:
    """A proportion guardrail in one stage, watched until a number of candidate requests.

    Attributes:
        rate: true rate of the baseline's events, inside (0, 1).
        margin: line of the rollback; size 0 is "any regression".
        direction: which way the metric is good.
        share: the candidate's share of the requests, inside (0, 1).
        requests: of the candidate until the last look, >= looks.
        looks: evenly spread over them. Fewer looks find harm a little later: at most one look.
        alpha: level of the rollback, inside (0, 1). One guardrail among several breaches alone at alpha_rollback *
            its share of the weights; in a rollout of several stages half of the prior watches from the start, which
            is half of alpha.
        effect: design effect D >= 1; see `simulate.Scenario`.

    Raises:
        ValueError: if any of this does not hold.
    """

    rate: float
    margin: Margin
    direction: Direction
    share: float
    requests: int
    looks: int = 100
    alpha: float = 0.01
    effect: float = 1.0

    def __post_init__(self) -> None:
        if not (0.0 < self.rate < 1.0 and 0.0 < self.share < 1.0 and 0.0 < self.alpha < 1.0):
            raise ValueError(f"rate, share and level lie between 0 and 1; got {self.rate}, {self.share}, {self.alpha}")
        if not 1 <= self.looks <= self.requests:
            raise ValueError(f"at least one look, and a request for each; got {self.looks} looks at {self.requests}")
        if not self.effect >= 1.0:
            raise ValueError(f"a design effect is at least 1; got {self.effect}")


class PowerCurve(NamedTuple):
    """Probability of a rollback by each look, all of shape (looks,).

    Attributes:
        requests: of the candidate until the look.
        detected: of a candidate with the regression asked for.
        false: of the worst candidate that is still tolerated, exactly on the line: at most alpha; any better one is
            rolled back more rarely still.
    """

    requests: Floats
    detected: Floats
    false: Floats


def power_curve(watched: Watched, candidate_rate: float, replications: int, rng: np.random.Generator) -> PowerCurve:
    """Simulate the rollback of a regression, and of a candidate on the line.

    10,000 replications of 100 looks take one to five seconds. The standard error of a probability p is
    sqrt(p (1 - p) / replications).

    Args:
        watched: the guardrail and its traffic.
        candidate_rate: the supposed true rate of the candidate's events, 0 to 1.
        replications: how many, of each of the two.
        rng: the random generator; the same seed gives the same curve.

    Raises:
        ValueError: if the rate is outside its range, or there is no replication.
    """
    if not 0.0 <= candidate_rate <= 1.0 or replications < 1:
        raise ValueError(f"a rate from 0 to 1 and at least one replication; got {candidate_rate}, {replications}")
    line = null_line(watched.margin, watched.direction)
    on_line = min(max(line.ratio * watched.rate + line.difference, 0.0), 1.0)
    detected = _rolled_back(watched, candidate_rate, replications, rng)
    false = _rolled_back(watched, on_line, replications, rng)
    looks = np.arange(1, watched.looks + 1, dtype=np.float64)
    return PowerCurve(looks * (watched.requests / watched.looks), detected, false)


def requests_for_power(curve: PowerCurve, power: float) -> float | None:
    """Candidate requests by which the regression is rolled back with probability `power`; None if it never is.

    Raises:
        ValueError: if the power is not inside (0, 1].
    """
    if not 0.0 < power <= 1.0:
        raise ValueError(f"a power lies in (0, 1], not {power}")
    reached = np.flatnonzero(curve.detected >= power)
    return float(curve.requests[reached[0]]) if reached.size else None


def _rolled_back(watched: Watched, candidate_rate: float, replications: int, rng: np.random.Generator) -> Floats:
    """Share of rollouts that were rolled back by each look, (looks,)."""
    guardrail = SimulatedGuardrail(
        candidate_rate,
        watched.rate,
        watched.margin if watched.margin.size > 0.0 else SOME_MARGIN,
        watched.direction,
        rollback_margin=watched.margin,
    )
    scenario = Scenario(
        (SimulatedStage(100.0 * watched.share),),
        (guardrail,),
        watched.requests / watched.looks / watched.share,
        watched.looks,
        alpha_rollback=watched.alpha,
        alpha_advance=NEVER,
        risk_scaled=False,
        design_effect=watched.effect,
    )
    outcomes = simulate(scenario, replications, rng)
    at = np.bincount(outcomes.ticks[outcomes.rolled_back], minlength=watched.looks + 1)[1:]
    return np.asarray(np.cumsum(at) / replications, np.float64)
