"""A plan: stages, guardrails and analysis, as people write them (DESIGN.md section 4)."""

from typing import Literal

import msgspec

from rollout.domain.document import Document, duration
from rollout.domain.exclusion import Exclusion

FEWEST_UNITS = 50
"""Candidate units a guarded stage waits for unless it says otherwise (statistics.md 3.5)."""
OnBreach = Literal["roll_back", "pause", "warn"]
OnMissing = Literal["hold", "pause", "roll_back"]


class MaxRegression(Document, frozen=True, kw_only=True):
    """The worst true change accepted at the end: exactly one of a share of the baseline or a difference to it."""

    relative: float | None = None
    absolute: float | None = None


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
    approval: Literal["required"] | None = None


class Bake(Document, frozen=True, kw_only=True):
    """After the last stage everyone but a holdback has the candidate for a while, still watched."""

    duration: str
    holdback: float


class Guardrail(Document, frozen=True, kw_only=True):
    """A metric that must not get worse. A breach acts; a signal (listed apart) only holds and clears itself.

    `rollback_on: any_regression` draws the rollback line at equality instead of at `max_regression`. `focus` says which
    number of a latency or a cost is meant: mean, or a quantile such as p95. `ceiling` holds the rollout while the
    candidate's own level is beyond it, even if the baseline is as bad.
    """

    metric: str
    max_regression: MaxRegression
    focus: str | None = None
    direction: Literal["lower_is_better", "higher_is_better"] | None = None
    maturity: str | None = None
    on_breach: OnBreach = "roll_back"
    on_missing: OnMissing = "hold"
    rollback_on: Literal["beyond_tolerance", "any_regression"] = "beyond_tolerance"
    weight: float = 1.0
    ceiling: float | None = None


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


class PlanBody(Document, frozen=True, kw_only=True):
    """What a reusable plan and a rollout share. `lease: none` never lapses."""

    stages: tuple[Stage, ...] = ()
    bake: Bake | None = None
    guardrails: tuple[Guardrail, ...] = ()
    signals: tuple[Signal, ...] = ()
    lease: str = "15m"
    analysis: Analysis = Analysis()
    on_undecided: Literal["hold", "roll_back", "advance"] = "hold"
    on_rollback: Literal["cut", "drain"] = "cut"
    mode: Literal["enforce"] = "enforce"


class Plan(PlanBody, frozen=True, kw_only=True):
    """A reusable, versioned plan: `plan: careful` in a rollout takes its latest version, `careful@2` that one."""

    key: str
    kind: Literal["Plan"] = "Plan"
    description: str = ""


class RolloutDocument(PlanBody, frozen=True, kw_only=True):
    """One run of a plan: which flag, where, from which variant to which."""

    flag: str
    environment: str
    baseline: str
    candidate: str
    kind: Literal["Rollout"] = "Rollout"
    plan: str | None = None
    unit: str | None = None
    pin: str | None = None
    reseed: bool = False
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


def lease_seconds(plan: PlanBody) -> float | None:
    """Length of the exposure lease, None when it never lapses."""
    return None if plan.lease == "none" else duration(plan.lease).total_seconds()
