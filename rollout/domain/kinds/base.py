"""The verbs every kind of metric has."""

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from rollout.domain.evidence import Arms, ArmSums, GuardrailEvidence
from rollout.stats.design_effect import Clusters
from rollout.stats.margin import Margin
from rollout_client.evaluation.evidence import MetricIncrement, SlotIncrement

Floats = NDArray[np.float64]


class Factors(NamedTuple):
    """Log e-factors of one batch: (K,) for harm, and the gates' one after another; None where nothing is bet."""

    harm: Floats
    gate: Floats | None


class Kind(Protocol):
    """One watched metric, as its kind counts and tests it. Stateless: what it knows is in the `GuardrailEvidence`."""

    harm_weights: Floats
    """Prior weights of the harm bets; empty for a kind that does not bet batch by batch."""
    gate_weights: tuple[Floats, ...]
    """Prior weights of the bets of each gate; every gate must pass."""
    scores: int
    """Scores that the cells carry for the design effect."""
    counts_requests: bool
    """Whether the n of a cell is a number of requests."""
    keeps_stage: bool
    """Whether the cells of all attempts of a stage are judged together."""

    def fold(self, mine: GuardrailEvidence, increment: MetricIncrement) -> ArmSums:
        """What an increment says, as it arrived."""

    def mature(self, mine: GuardrailEvidence, minute: SlotIncrement) -> ArmSums:
        """What a minute says when its outcomes are due, with everything started or exposed in it as n."""

    def amount(self, arm: ArmSums) -> float:
        """N or exposure; a batch is bet when both arms have some."""

    def awaits(self, mine: GuardrailEvidence) -> int:
        """Baseline observations that are still needed before anything is bet; 0 when calibrated."""

    def bet(self, mine: GuardrailEvidence, batch: Arms, gate: Margin | None) -> Factors:
        """Log e-factors of a batch, from what was known before it. `gate` None: the gate takes no part in it."""

    def learn(self, mine: GuardrailEvidence, baseline: ArmSums) -> None:
        """What the baseline of a batch that has been bet teaches the guesses of the next one."""

    def clusters(self, arm: ArmSums) -> Clusters:
        """The arm's cells, as the design effect reads them."""

    def effective(self, arm: ArmSums) -> float:
        """How many cells the rarer of events and non-events rests on (`design_effect.support`)."""

    def tempering(self, effects: Floats) -> tuple[Floats, Floats]:
        """The design effect of each harm bet and of each gate bet, from that of each score."""
