"""The ruleset: the document an environment serves, as both sides read it (decision record 0001).

Structs ignore unknown fields: an old reader accepts a newer writer. Nothing here decides anything.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from rollout_client.evaluation.condition import Condition

SCHEMA = 1
SCHEMA_OF_SLICES = 2
"""Of a document in which a rule has slices: a reader that ignored them would expose the units outside."""
SCHEMAS = (SCHEMA, SCHEMA_OF_SLICES)
"""What this reader knows."""
ALGORITHM = "murmur3-cbor-1"
BUCKETS = 100_000
"""Positions a unit can hash to; a percentage p owns the first p * 1000 of them."""

Arm = Literal["baseline", "candidate"]
MetricKind = Literal["proportion", "count_rate", "mean", "quantile", "distribution", "ratio"]
Direction = Literal["lower_is_better", "higher_is_better"]
Denominator = Literal["attempt", "exposure"]


class Prerequisite(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Another flag must serve one of these variants, or this flag serves what it serves to everybody."""

    flag: str
    variants: tuple[str, ...]


class Serve(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="serve"):
    """Everyone the condition matches gets one variant."""

    variant: str
    when: Condition | None = None


class Split(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="split"):
    """A fixed split: `weights` are (variant, width) pairs over the buckets, in order, summing to 100,000."""

    weights: tuple[tuple[str, int], ...]
    when: Condition | None = None
    unit: str | None = None
    salt: str | None = None


class Frozen(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What was frozen of one metric from the baseline of one rollout, before it is bet on.

    `thresholds` go from mild to extreme: ascending where lower is better, descending where higher is.
    """

    thresholds: tuple[float, ...] = ()
    cap: float | None = None


class Slice(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The units whose bucket under `salt` lies in [start, end). `unit` None: the unit that the rule randomises."""

    salt: str
    start: int
    end: int
    unit: str | None = None


class RolloutRule(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="kind", tag="rollout"):
    """One randomised exposure: bucket < threshold is the candidate arm, everyone else the baseline arm.

    A unit outside one of the `slices` is in neither: the rule does not apply to it, and the next one is asked.
    `attempt` names the stay in a stage this exposure is evidence of; None serves without evidence.
    `lease_ms` None never lapses. `frozen` holds, by metric, what its observations are measured with.
    """

    rollout: str
    baseline: str
    candidate: str
    threshold: int
    attempt: str | None = None
    when: Condition | None = None
    lease_ms: int | None = None
    unit: str | None = None
    pin: str | None = None
    salt: str | None = None
    metrics: tuple[str, ...] = ()
    frozen: dict[str, Frozen] = {}
    slices: tuple[Slice, ...] = ()


Rule = Serve | Split | RolloutRule


class RulesetFlag(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One flag as compiled for one environment."""

    variants: dict[str, Any]
    default_variant: str
    salt: str
    killed: bool = False
    released: str | None = None
    prerequisites: tuple[Prerequisite, ...] = ()
    overrides: dict[str, str] = {}
    pins: dict[str, Literal["live", "drain"]] = {}
    rules: tuple[Rule, ...] = ()


class RulesetCohort(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A named group: listed units, or a condition, or both (either admits)."""

    units: tuple[str, ...] = ()
    when: Condition | None = None


class RulesetMetric(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a client must know of a metric to fold its observations.

    `thresholds` and `cap` belong to a rollout: the served document leaves them empty, `measured` fills them in.
    """

    kind: MetricKind
    direction: Direction = "lower_is_better"
    denominator: Denominator = "attempt"
    bounds: tuple[float, float] | None = None
    thresholds: tuple[float, ...] = ()
    cap: float | None = None

    def measured(self, frozen: Frozen | None) -> RulesetMetric:
        """Return the metric with what one rollout has frozen of it; None is nothing yet."""
        if frozen is None:
            return self
        return msgspec.structs.replace(self, thresholds=frozen.thresholds, cap=frozen.cap)


class Ruleset(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything one environment serves, compiled whole, immutable, numbered by `revision`.

    `edition` is made anew for each published ruleset: numbers repeat when a database is restored, editions never.
    """

    environment: str
    revision: int
    flags: dict[str, RulesetFlag] = {}
    cohorts: dict[str, RulesetCohort] = {}
    metrics: dict[str, RulesetMetric] = {}
    schema: int = SCHEMA
    algorithm: str = ALGORITHM
    edition: str = ""


class Patch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What changed from `base` (of `base_edition`) to `revision`; None removes a key.

    `schema` is that of the ruleset afterwards.
    """

    base: int
    revision: int
    flags: dict[str, RulesetFlag | None] = {}
    cohorts: dict[str, RulesetCohort | None] = {}
    metrics: dict[str, RulesetMetric | None] = {}
    schema: int = SCHEMA
    base_edition: str = ""
    edition: str = ""


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Sent on every stream: how old the engine's last complete protect pass is (milliseconds, None: never)."""

    revision: int
    engine_age_ms: int | None = None
    edition: str = ""
