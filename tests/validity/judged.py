"""One rollout as the engine judges it, without the engine: what the validity tests feed and ask."""

from datetime import timedelta
from typing import Any

from rollout.domain.evidence import Evidence, Increments
from rollout.domain.gather import Round, gather
from rollout.domain.judge import Judgement, Look, judge
from rollout.domain.metric import Metric
from rollout.domain.rollout import Attempt
from rollout.domain.watch import gate_margin, watches
from rollout_client.evaluation.evidence import ArmIncrement
from tests.core.domain.plans import START, rollout

FIRST = int(START.timestamp()) // 60


class Rollout:
    """One rollout with one stage at 50 %, as its evidence is gathered and judged."""

    def __init__(self, metric: Metric, **plan: Any) -> None:
        self.plan = rollout(stages=[{"name": "half", "percentage": 50}], **plan)
        self.watched = watches(self.plan, {metric.key: metric})
        self.evidence, self.attempts = Evidence(epoch=1), [self._attempt(1, 0)]

    def reopen(self, now: float) -> None:
        """A pause and a resume: a new attempt of the same stage."""
        self.attempts.append(self._attempt(len(self.attempts) + 1, now))

    def look(self, now: float, arms: dict[str, ArmIncrement], units: int) -> Judgement:
        at = START + timedelta(seconds=now)
        added: Increments = {self.attempts[-1].id: arms} if arms else {}
        margins = {watch.metric: gate_margin(self.plan, watch, 0) for watch in self.watched}
        self.evidence = gather(self.evidence, added, Round(self.watched, self.attempts, margins, at))
        asked: dict[str, Any] = {"plan": self.plan, "watches": self.watched, "attempts": tuple(self.attempts)}
        return judge(
            self.evidence, Look(**asked, margins=margins, units=units, attempt_units=units, now=at, patience=900)
        )

    def _attempt(self, number: int, now: float) -> Attempt:
        opened = START + timedelta(seconds=now)
        return Attempt(id=f"at_{number}", number=number, stage=0, epoch=1, percentage=50, opened_at=opened)
