"""Every table. Columns exist for what SQL filters, locks or counts; the rest is a document."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from rollout.db.base import Base, Big, Json, UtcDateTime
from rollout.domain.cohort import Cohort
from rollout.domain.decision import Outcome
from rollout.domain.environment import Environment
from rollout.domain.evidence import Evidence
from rollout.domain.flag import Flag
from rollout.domain.metric import Metric
from rollout.domain.plan import Plan, RolloutDocument
from rollout.domain.rollout import State

Key = String(100)
Id = String(40)


class EnvironmentRow(Base):
    """An environment, and the number and the edition of its newest ruleset."""

    __tablename__ = "environments"
    key: Mapped[str] = mapped_column(Key, primary_key=True)
    revision: Mapped[int] = mapped_column(Integer)
    edition: Mapped[str] = mapped_column(String(20))
    document: Mapped[Environment] = mapped_column(Json(Environment))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class FlagRow(Base):
    """An authored flag; `revision` guards against lost updates."""

    __tablename__ = "flags"
    key: Mapped[str] = mapped_column(Key, primary_key=True)
    revision: Mapped[int] = mapped_column(Integer)
    document: Mapped[Flag] = mapped_column(Json(Flag))


class FlagStateRow(Base):
    """What happened to a flag in an environment."""

    __tablename__ = "flag_states"
    flag: Mapped[str] = mapped_column(Key, ForeignKey("flags.key"), primary_key=True)
    environment: Mapped[str] = mapped_column(Key, ForeignKey("environments.key"), primary_key=True)
    released: Mapped[str | None] = mapped_column(Key)
    killed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    killed_by: Mapped[str | None] = mapped_column(String(200))
    kill_reason: Mapped[str | None] = mapped_column(Text)


class CohortRow(Base):
    """An authored cohort."""

    __tablename__ = "cohorts"
    key: Mapped[str] = mapped_column(Key, primary_key=True)
    revision: Mapped[int] = mapped_column(Integer)
    document: Mapped[Cohort] = mapped_column(Json(Cohort))


class MetricRow(Base):
    """An authored metric."""

    __tablename__ = "metrics"
    key: Mapped[str] = mapped_column(Key, primary_key=True)
    revision: Mapped[int] = mapped_column(Integer)
    document: Mapped[Metric] = mapped_column(Json(Metric))


class PlanRow(Base):
    """One version of a reusable plan."""

    __tablename__ = "plans"
    key: Mapped[str] = mapped_column(Key, primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    document: Mapped[Plan] = mapped_column(Json(Plan))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RolloutRow(Base):
    """One run of a plan. `exclusive` is flag@environment while exposed, so that only one can be.

    `accepted` numbers the batches of increments, `judged` is the last one a tick has covered; both move under the
    row's lock. Every other change is a compare-and-set on `revision`. Until `quiet_until` a look could only hold,
    unless evidence comes or somebody acts.
    """

    __tablename__ = "rollouts"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    flag: Mapped[str] = mapped_column(Key, ForeignKey("flags.key"), index=True)
    environment: Mapped[str] = mapped_column(Key, ForeignKey("environments.key"))
    status: Mapped[str] = mapped_column(String(20))
    exclusive: Mapped[str | None] = mapped_column(String(210), unique=True)
    revision: Mapped[int] = mapped_column(Integer)
    author: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    document: Mapped[RolloutDocument] = mapped_column(Json(RolloutDocument))
    metrics: Mapped[dict[str, Metric]] = mapped_column(Json(dict[str, Metric]))
    content_hash: Mapped[str] = mapped_column(String(64))
    state: Mapped[State] = mapped_column(Json(State))
    evidence: Mapped[Evidence] = mapped_column(Json(Evidence), deferred=True)
    accepted: Mapped[int] = mapped_column(Big)
    judged: Mapped[int] = mapped_column(Big)
    tick: Mapped[int] = mapped_column(Big)
    latest: Mapped[Outcome | None] = mapped_column(Json(Outcome))
    judged_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    next_check_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    protected_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    quiet_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    __table_args__ = (Index("ix_rollouts_next_check_at", "next_check_at"),)
    __mapper_args__ = {"version_id_col": revision, "version_id_generator": False}


class RolloutDocumentRow(Base):
    """A former version of a rollout's document: looks were made with it, and replay makes them again."""

    __tablename__ = "rollout_documents"
    rollout: Mapped[str] = mapped_column(Id, ForeignKey("rollouts.id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    document: Mapped[RolloutDocument] = mapped_column(Json(RolloutDocument))
    content_hash: Mapped[str] = mapped_column(String(64))
    replaced_by: Mapped[str] = mapped_column(String(200))
    replaced_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SourceRow(Base):
    """What the source of a metric said last in an environment: how often in a row it has failed, and when."""

    __tablename__ = "sources"
    environment: Mapped[str] = mapped_column(Key, ForeignKey("environments.key"), primary_key=True)
    metric: Mapped[str] = mapped_column(Key, ForeignKey("metrics.key"), primary_key=True)
    failures: Mapped[int] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(Text)
    reported_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AttemptRow(Base):
    """Which rollout and epoch an attempt belongs to: what ingestion asks."""

    __tablename__ = "attempts"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    rollout: Mapped[str] = mapped_column(Id, ForeignKey("rollouts.id"), index=True)
    environment: Mapped[str] = mapped_column(Key)
    epoch: Mapped[int] = mapped_column(Integer)


class IncrementRow(Base):
    """The increment log. `tick` is NULL until bet; a tick's rows are compacted into one per (attempt, arm, metric)."""

    __tablename__ = "increments"
    id: Mapped[int] = mapped_column(Big, primary_key=True)
    rollout: Mapped[str] = mapped_column(Id, ForeignKey("rollouts.id"))
    seq: Mapped[int] = mapped_column(Big)
    tick: Mapped[int | None] = mapped_column(Big)
    attempt: Mapped[str] = mapped_column(Id)
    arm: Mapped[str] = mapped_column(String(10))
    metric: Mapped[str] = mapped_column(Key)
    body: Mapped[str] = mapped_column(Text)
    __table_args__ = (Index("ix_increments_rollout_tick_seq", "rollout", "tick", "seq"),)


class OrphanRow(Base):
    """Increments of unknown or ended attempts of one batch: kept apart, counted, never evidence."""

    __tablename__ = "orphans"
    id: Mapped[int] = mapped_column(Big, primary_key=True)
    environment: Mapped[str] = mapped_column(Key)
    batch: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SketchRow(Base):
    """Unit sketch of one attempt and arm: 1024 registers, merged by maximum."""

    __tablename__ = "sketches"
    attempt: Mapped[str] = mapped_column(Id, ForeignKey("attempts.id"), primary_key=True)
    arm: Mapped[str] = mapped_column(String(10), primary_key=True)
    registers: Mapped[bytes] = mapped_column(LargeBinary)


class BatchRow(Base):
    """An accepted batch and its answer: what makes ingestion exactly-once."""

    __tablename__ = "batches"
    environment: Mapped[str] = mapped_column(Key, primary_key=True)
    batch: Mapped[str] = mapped_column(String(64), primary_key=True)
    answer: Mapped[str] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class EvaluationRow(Base):
    """One look: what it was made from (increments up to `to_seq`), what it found, what was decided.

    A look that changed nothing keeps the digest of its outcome only; replay recomputes it and must get the same bytes.
    """

    __tablename__ = "evaluations"
    rollout: Mapped[str] = mapped_column(Id, ForeignKey("rollouts.id"), primary_key=True)
    tick: Mapped[int] = mapped_column(Big, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    from_seq: Mapped[int] = mapped_column(Big)
    to_seq: Mapped[int] = mapped_column(Big)
    engine_version: Mapped[str] = mapped_column(String(40))
    inputs: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str | None] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(64))


class TransitionRow(Base):
    """A recorded change: history, audit and outbox at once."""

    __tablename__ = "transitions"
    rollout: Mapped[str] = mapped_column(Id, ForeignKey("rollouts.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    tick: Mapped[int | None] = mapped_column(Big)
    ruleset_revision: Mapped[int | None] = mapped_column(Integer)
    change: Mapped[Any] = mapped_column(Json())


class RulesetRow(Base):
    """Every ruleset ever served."""

    __tablename__ = "rulesets"
    environment: Mapped[str] = mapped_column(Key, ForeignKey("environments.key"), primary_key=True)
    revision: Mapped[int] = mapped_column(Integer, primary_key=True)
    document: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class OverrideRow(Base):
    """A unit that a person gave a variant, until it ends; then the row goes."""

    __tablename__ = "overrides"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    flag: Mapped[str] = mapped_column(Key, ForeignKey("flags.key"))
    environment: Mapped[str] = mapped_column(Key, ForeignKey("environments.key"))
    unit: Mapped[str] = mapped_column(String(500))
    variant: Mapped[str] = mapped_column(Key)
    reason: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    __table_args__ = (UniqueConstraint("environment", "flag", "unit"),)


class EngineRow(Base):
    """When an engine last completed a protect pass: milliseconds since 1970 by the database's clock."""

    __tablename__ = "engine"
    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    protected_ms: Mapped[int] = mapped_column(Big)


class KeyRow(Base):
    """An access key: only the hash of its secret is stored."""

    __tablename__ = "keys"
    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(Json(list[str]))
    environment: Mapped[str | None] = mapped_column(Key)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class AuditRow(Base):
    """Who changed what, when: append-only."""

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(Big, primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(60))
    target: Mapped[str] = mapped_column(String(210))
    environment: Mapped[str | None] = mapped_column(Key)
    detail: Mapped[Any] = mapped_column(Json(), nullable=True)
