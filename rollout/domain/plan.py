"""A plan: stages, guardrails and analysis, as people write them (DESIGN.md section 4)."""

from datetime import datetime
from typing import Literal

import msgspec

from rollout.domain.document import Document, duration
from rollout.domain.exclusion import Exclusion

FEWEST_UNITS = 50
"""Candidate units a guarded stage waits for unless it says otherwise (statistics.md 3.5)."""
OnBreach = Literal["roll_back", "pause", "warn"]
OnMissing = Literal["hold", "pause", "roll_back"]
MissingVerdict = Literal["no_traffic", "no_data", "stale", "error", "insufficient"]
"""The ways in which evidence can be missing."""
Role = Literal["approver", "operator", "admin"]
"""The scope that an approver's key must have."""


class MaxRegression(Document, frozen=True, kw_only=True):
    """The worst true change accepted at the end: exactly one of a share of the baseline or a difference to it."""

    relative: float | None = None
    absolute: float | None = None


class ApprovalGate(Document, frozen=True, kw_only=True):
    """Who must say yes, and for how long a yes stands (`expires` None: as long as plan and attempt stay the same)."""

    role: Role = "approver"
    expires: str | None = None


Approvals = Literal["required"] | ApprovalGate | None
"""Whether a person must say yes: `required` is anybody with the scope `approver` who is not the author."""


class Stage(Document, frozen=True, kw_only=True):
    """One level of exposure. With a cohort, the percentage is of the cohort.

    `min_units` None is 50 candidate units in a plan with guardrails, and 0 in a timed ramp.
    """

    name: str
    percentage: float
    cohort: str | None = None
    min_duration: str = "10m"
    max_duration: str | None = None
    min_units: int | None = None
    approval: Approvals = None


class Bake(Document, frozen=True, kw_only=True):
    """After the last stage everyone but a holdback has the candidate for a while, still watched."""

    duration: str
    holdback: float


class Budget(Document, frozen=True, kw_only=True):
    """What the candidate may spend of a metric, in its own unit: no test, a sum. Beyond it `on_breach` acts.

    `per_day` is of a day in UTC, `per_stage` of all stays in one stage (events: the harm that a stage may do),
    `per_request` the mean level, shown to be beyond it by the same detector as a ceiling.
    """

    per_day: float | None = None
    per_stage: float | None = None
    per_request: float | None = None


class Missing(Document, frozen=True, kw_only=True):
    """What to do once evidence is missing for `after` (None: for a lease, or for 15 minutes without one)."""

    then: OnMissing = "hold"
    after: str | None = None


class Guardrail(Document, frozen=True, kw_only=True):
    """A metric that must not get worse. A breach acts; a signal (listed apart) only holds and clears itself.

    `rollback_on: any_regression` draws the rollback line at equality instead of at `max_regression`. `focus` says which
    number of a latency or a cost is meant: mean, or a quantile such as p95. `ceiling` holds the rollout while the
    candidate's own level is beyond it, even if the baseline is as bad. `on_missing` as one word is for no_data, stale
    and error; by verdict, each has a policy and a patience of its own, and what is not named holds. `error_limit`: so
    many failures of its source in a row are the verdict `error`.
    """

    metric: str
    max_regression: MaxRegression
    focus: str | None = None
    direction: Literal["lower_is_better", "higher_is_better"] | None = None
    maturity: str | None = None
    on_breach: OnBreach = "roll_back"
    on_missing: OnMissing | dict[MissingVerdict, OnMissing | Missing] = "hold"
    error_limit: int = 3
    rollback_on: Literal["beyond_tolerance", "any_regression"] = "beyond_tolerance"
    weight: float = 1.0
    ceiling: float | None = None
    budget: Budget | None = None


class Signal(Document, frozen=True, kw_only=True):
    """A metric that holds the rollout while it is worse, and lets go by itself."""

    metric: str
    max_regression: MaxRegression
    focus: str | None = None
    direction: Literal["lower_is_better", "higher_is_better"] | None = None
    maturity: str | None = None


class Analysis(Document, frozen=True, kw_only=True):
    """Error rates: of a false rollback per rollout, of a wrong advance per gate, of a false sample-ratio alarm."""

    alpha_rollback: float = 0.01
    alpha_advance: float = 0.05
    alpha_srm: float = 0.001
    risk_scaled: bool = True


class Rollback(Document, frozen=True, kw_only=True):
    """How an automatic rollback goes: at once, or down the stages, `every` so long. A person's is always at once."""

    strategy: Literal["immediate", "stepped"] = "immediate"
    every: str = "10m"


class PlanBody(Document, frozen=True, kw_only=True):
    """What a reusable plan and a rollout share. `lease: none` never lapses.

    `fast_track`: a candidate that was proven here so short a time ago, by gates no looser than these, and has done no
    harm since, starts at the last stage, or at one before it that asks for an approval. `mode: observe` records what
    would have been done, and moves nothing.
    """

    stages: tuple[Stage, ...] = ()
    bake: Bake | None = None
    guardrails: tuple[Guardrail, ...] = ()
    signals: tuple[Signal, ...] = ()
    lease: str = "15m"
    analysis: Analysis = Analysis()
    on_undecided: Literal["hold", "roll_back", "advance"] = "hold"
    on_rollback: Literal["cut", "drain"] = "cut"
    rollback: Rollback = Rollback()
    start_approval: Approvals = None
    fast_track: str | None = None
    mode: Literal["enforce", "observe"] = "enforce"


class Plan(PlanBody, frozen=True, kw_only=True):
    """A reusable, versioned plan: `plan: careful` in a rollout takes its latest version, `careful@2` that one."""

    key: str
    kind: Literal["Plan"] = "Plan"
    description: str = ""


class RolloutDocument(PlanBody, frozen=True, kw_only=True):
    """One run of a plan: which flag, where, from which variant to which. `start_at` None: when somebody starts it."""

    flag: str
    environment: str
    baseline: str
    candidate: str
    kind: Literal["Rollout"] = "Rollout"
    plan: str | None = None
    unit: str | None = None
    pin: str | None = None
    reseed: bool = False
    start_at: datetime | None = None
    exclusion: Exclusion | None = None
    description: str = ""

    def filled(self, plan: PlanBody, name: str) -> "RolloutDocument":
        """The rollout with everything that a plan says, under the plan's name with its version."""
        body = {field: getattr(plan, field) for field in PlanBody.__struct_fields__}
        return msgspec.structs.replace(self, plan=name, **body)


def percentage_of(plan: PlanBody, stage: int) -> float:
    """Percentage of a stage; the one after the last is the bake."""
    if stage < len(plan.stages):
        return plan.stages[stage].percentage
    return 100.0 - plan.bake.holdback if plan.bake else 100.0


def steps_of(plan: PlanBody) -> int:
    """Stages, and the bake if there is one."""
    return len(plan.stages) + (plan.bake is not None)


def last_percentage(plan: PlanBody) -> float:
    """Exposure of the last open stage: what risk-scaled margins are scaled against (statistics.md 3.4)."""
    open_stages = [stage.percentage for stage in plan.stages if stage.cohort is None]
    return open_stages[-1] if open_stages else 100.0


def units_wanted(plan: PlanBody, stage: Stage) -> int:
    """Candidate units a stage waits for."""
    if stage.min_units is not None:
        return stage.min_units
    return FEWEST_UNITS if plan.guardrails else 0


def is_proven(plan: PlanBody, stage: int) -> bool:
    """Whether a stage has a control arm and a guardrail that acts, so that passing it proves something."""
    return any(g.on_breach != "warn" for g in plan.guardrails) and percentage_of(plan, stage) < 100.0


def approval_gate(approvals: Approvals) -> ApprovalGate | None:
    """Whose yes is asked for, None for nobody's."""
    return ApprovalGate() if approvals == "required" else approvals


def lease_seconds(plan: PlanBody) -> float | None:
    """Length of the exposure lease, None when it never lapses: nothing may move by itself where it is only observed."""
    return None if plan.lease == "none" or plan.mode == "observe" else duration(plan.lease).total_seconds()
