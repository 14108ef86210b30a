"""The running record of a rollout: its state, its attempts, and which act is allowed in which status."""

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from rollout.domain.exclusion import Range
from rollout.domain.plan import PlanBody, percentage_of
from rollout_client.evaluation.ruleset import Frozen

Status = Literal["draft", "scheduled", "running", "paused", "baking", "completed", "rolled_back", "cancelled"]
Action = Literal["start", "pause", "resume", "advance", "approve", "waive", "roll_back", "complete", "cancel"]

EXPOSED: frozenset[Status] = frozenset({"running", "paused", "baking"})
"""Statuses in which a candidate is served, so in which protect() runs."""
ENDED: frozenset[Status] = frozenset({"completed", "rolled_back", "cancelled"})

ALLOWED: dict[Action, frozenset[Status]] = {
    "start": frozenset({"draft", "scheduled"}),
    "pause": frozenset({"running", "baking"}),
    "resume": frozenset({"paused"}),
    "advance": frozenset({"running"}),
    "approve": frozenset({"scheduled", "running", "paused"}),
    "waive": EXPOSED,
    "roll_back": EXPOSED,
    "complete": frozenset({"running", "baking"}),
    "cancel": frozenset({"draft", "scheduled"}),
}
"""The whole table of acts; everything else is refused with `refusal`."""
REVISABLE: frozenset[Status] = frozenset({"draft", "scheduled", "running", "paused", "baking"})
"""Statuses in which a rollout's document may be replaced, as far as `rollout.domain.revision` allows."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One stay in a stage. Evidence is keyed by it, so data of one stay never opens the gate of another."""

    id: str
    number: int
    stage: int
    epoch: int
    percentage: float
    opened_at: datetime


class Breach(msgspec.Struct, frozen=True, kw_only=True):
    """A latched proof of harm: later good data cannot undo it, only a person's resume (a new epoch) can."""

    at: datetime
    epoch: int
    metric: str
    log_e: float
    threshold: float
    culprits: tuple[str, ...] = ()


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A person's yes to leave one attempt of one exact plan, or with an empty `attempt`, to start it."""

    by: str
    at: datetime
    attempt: str
    content_hash: str
    expires_at: datetime | None = None


class Waiver(msgspec.Struct, frozen=True, kw_only=True):
    """A person answers for it: one metric closes no gate and acts on no breach in one stage, for a while."""

    metric: str
    stage: int
    by: str
    at: datetime
    reason: str
    expires_at: datetime


class Absence(msgspec.Struct, frozen=True, kw_only=True):
    """Since when a metric has had no evidence, and of which sort: nobody came, too little came, or nothing is seen."""

    sort: Literal["no_traffic", "insufficient", "unseen"]
    since: datetime


class Would(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout that is only observed would have done; `code` is that of the first reason."""

    kind: str
    reason: str
    at: datetime
    code: str = ""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Where a rollout stands. `stage` -1 is before the start, len(stages) is the bake.

    `elapsed` is the time (seconds) spent in the present stage up to `clock_since`; None: the clock stands still.
    `fed_at` is the age of the stage (seconds) at which enough had come to judge by: max_duration counts from then.
    `blind`: the engine took the exposure away until it sees again. `withheld`: a kill or a spent budget took it, until
    a person resumes. `retreat_at`: it is being rolled back in steps, and the next one is then. `frozen` holds, by
    metric, what was frozen from the baseline; it stays for the life of the rollout. `steps` are the stages (and the
    bake) that it was started with: error rates are divided among them. `document` numbers the present version of its
    plan, `revised_by` says who wrote versions of it beside its author. `start_at` (UTC) and `obstacle` are of a
    scheduled rollout: when it starts, and what is in its way. `slice` is what it owns of its exclusion group from its
    start on.
    """

    status: Status = "draft"
    stage: int = -1
    epoch: int = 0
    attempts: tuple[Attempt, ...] = ()
    elapsed: float = 0.0
    clock_since: datetime | None = None
    paused_reason: str | None = None
    breach: Breach | None = None
    approval: Approval | None = None
    waivers: tuple[Waiver, ...] = ()
    blind: bool = False
    withheld: bool = False
    retreat_at: datetime | None = None
    missing: dict[str, Absence] = {}
    fed_at: float | None = None
    would: Would | None = None
    unproven_stages: tuple[str, ...] = ()
    frozen: dict[str, Frozen] = {}
    steps: int = 0
    document: int = 1
    revised_by: tuple[str, ...] = ()
    start_at: datetime | None = None
    obstacle: str | None = None
    slice: Range | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def exposed(self) -> bool:
        """Whether the stage's percentage is really served (the flag itself not killed)."""
        return self.status in EXPOSED and not self.blind and not self.withheld

    @property
    def attempt(self) -> Attempt | None:
        """The present stay, None before the start."""
        return self.attempts[-1] if self.attempts else None

    def waived(self, now: datetime) -> frozenset[str]:
        """Metrics that a waiver covers in the present stage at this moment."""
        return frozenset(each.metric for each in self.waivers if each.stage == self.stage and now < each.expires_at)

    def stage_age(self, now: datetime) -> timedelta:
        """Time spent in the present stage; pauses do not count."""
        running = now - self.clock_since if self.clock_since is not None else timedelta(0)
        return timedelta(seconds=self.elapsed) + max(running, timedelta(0))


def percentage_now(plan: PlanBody, state: State) -> float:
    """Percentage of the stage's population that is served the candidate at this moment (flag not killed)."""
    if state.status == "completed":
        return 100.0
    return percentage_of(plan, state.stage) if state.exposed else 0.0


def stage_name(plan: PlanBody, stage: int) -> str:
    """A stage's name for people; the bake and the time before the start have names too."""
    if stage < 0:
        return "not started"
    return plan.stages[stage].name if stage < len(plan.stages) else "bake"


def refusal(action: Action, status: Status) -> str | None:
    """Why an act is refused in a status, and what to do; None when it is allowed."""
    if status in ALLOWED[action]:
        return None
    if status == "completed" and action == "roll_back":
        return (
            "the rollout has ended (completed): kill the flag to take the candidate back now, or create a new rollout"
        )
    if status in ENDED:
        return f"the rollout has ended ({status}); create a new rollout to try again"
    if action == "cancel":
        return f"the rollout is {status}: its candidate is being served; use roll_back"
    if action == "approve" and status == "draft":
        return "the rollout is a draft; start it, and it waits for the approval"
    if action not in ("start", "cancel") and status in ("draft", "scheduled"):
        return f"the rollout is {status}; start it first, or cancel it"
    allowed = ", ".join(sorted(ALLOWED[action]))
    return f"{action} is possible when a rollout is {allowed}; this one is {status}"
