"""Evidence on the wire: folded increments, batches and their answer (decision record 0001).

A flush costs the same for one event or a million and names no unit.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from rollout_client.evaluation.ruleset import SCHEMA, Arm

CELLS = 256
"""Cluster cells a unit can hash to; they carry the design effect of sticky units."""
REGISTERS = 1024
"""Registers of the unit sketch (HyperLogLog, p = 10)."""
HIGHEST_RANK = 55
MOST_ALERTS = 100
"""Alerts in one batch."""

Cells = dict[int, int]
"""Cell -> count."""


class MetricIncrement(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one interval adds to one metric: cell -> numbers (their meaning depends on the kind), bucket -> count."""

    cells: dict[int, list[float]] = msgspec.field(default_factory=dict)
    histogram: dict[int, int] = msgspec.field(default_factory=dict)


class SlotIncrement(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one interval adds to one arm for exposures of one minute."""

    exposures: Cells = msgspec.field(default_factory=dict)
    first_exposures: Cells = msgspec.field(default_factory=dict)
    started: Cells = msgspec.field(default_factory=dict)
    metrics: dict[str, MetricIncrement] = msgspec.field(default_factory=dict)


class ArmIncrement(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One arm: (register, rank) pairs that rose since the last flush, and increments by slot."""

    sketch: list[tuple[int, int]] = msgspec.field(default_factory=list)
    slots: dict[int, SlotIncrement] = msgspec.field(default_factory=dict)


_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,100}\Z")]


class Alert(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something an operator should look at now: news, and no evidence, so it moves no test.

    `kind` says what happened; `breaker_open` is a circuit breaker of one process that opened, and `failure` then the
    kind of failure that opened it. `at` is in unix seconds.
    """

    flag: _Name
    kind: _Name
    at: float
    variant: _Name | None = None
    rollout: _Name | None = None
    attempt: _Name | None = None
    arm: Arm | None = None
    failure: _Name | None = None


class Batch(msgspec.Struct, kw_only=True):
    """One flush of one process: both arms of an interval travel together; accepted or refused whole.

    Alerts travel in batches of their own, at once: a flush of evidence must not be brought forward by an outcome.
    """

    batch_id: str
    environment: str
    process: str
    client: str
    attempts: dict[str, dict[Arm, ArmIncrement]] = msgspec.field(default_factory=dict)
    dropped: dict[str, int] = msgspec.field(default_factory=dict)
    alerts: list[Alert] = msgspec.field(default_factory=list)
    schema: int = SCHEMA


class BatchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The acknowledgement, sent only after the commit: increments accepted, and those kept apart as orphans."""

    batch_id: str
    accepted: int
    orphaned: int = 0


def acknowledges(content: bytes, batch_id: str) -> bool:
    """Whether the content of an answer says that this batch was taken; a proxy may say 200 to anything."""
    try:
        return msgspec.json.decode(content, type=BatchAnswer).batch_id == batch_id
    except (msgspec.DecodeError, RecursionError):
        return False
