"""What a look decides with and what it says: the situation, a decision with its reasons, and both together."""

from datetime import datetime
from typing import Literal

import msgspec

from rollout.domain.judge import Judgement
from rollout.domain.plan import PlanBody
from rollout.domain.rollout import State
from rollout.domain.watch import Watch

DecisionKind = Literal["hold", "advance", "complete", "pause", "roll_back"]


class Reason(msgspec.Struct, frozen=True):
    """Why: a stable code for programs, a sentence for people, and the metric if one is concerned."""

    code: str
    message: str
    metric: str | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, and why. A hold lists everything that holds."""

    kind: DecisionKind
    reasons: tuple[Reason, ...]
    proven: bool = True


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a look found and what was decided."""

    judgement: Judgement
    decision: Decision


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a decision may look at."""

    plan: PlanBody
    state: State
    judgement: Judgement
    watches: tuple[Watch, ...]
    killed: bool
    now: datetime

    @property
    def waived(self) -> frozenset[str]:
        """Metrics that a person's waiver covers now."""
        return self.state.waived(self.now)


def hold(*reasons: Reason) -> Decision:
    """Nothing moves."""
    return Decision(kind="hold", reasons=reasons)
