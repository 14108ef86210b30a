"""The increment log: batches in, exactly once; ticks out, compacted; units counted."""

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

import msgspec
from sqlalchemy import delete, select

from rollout.db.session import Session
from rollout.db.tables import AttemptRow, BatchRow, IncrementRow, OrphanRow, SketchRow
from rollout.domain.evidence import Increments, in_order, merge
from rollout_client.evaluation.evidence import REGISTERS, ArmIncrement, MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Arm
from rollout_client.evaluation.sketch import estimate

EXPOSURES = "$exposures"
"""Stands in the metric column of rows that count exposures and started attempts."""
_exposures = msgspec.json.Decoder(dict[int, SlotIncrement])
_metrics = msgspec.json.Decoder(dict[int, MetricIncrement])


async def answered(session: Session, environment: str, batch: str) -> bytes | None:
    """The answer a batch id already got, None for a new one."""
    row = await session.get(BatchRow, (environment, batch))
    return row.answer.encode() if row is not None else None


async def keep_answer(session: Session, environment: str, batch: str, answer: bytes, now: datetime) -> None:
    """Remember a batch id with its answer; a second writer of the same id fails on the primary key."""
    session.add(BatchRow(environment=environment, batch=batch, answer=answer.decode(), received_at=now))
    await session.flush()


async def forget_batches(session: Session, before: datetime) -> int:
    """Drop the ids of batches received before a moment; how many."""
    dropped = await session.execute(delete(BatchRow).where(BatchRow.received_at < before).returning(BatchRow.batch))
    return len(dropped.all())


async def forget_orphans(session: Session, before: datetime) -> int:
    """Drop orphans received before a moment; how many."""
    dropped = await session.execute(delete(OrphanRow).where(OrphanRow.received_at < before).returning(OrphanRow.id))
    return len(dropped.all())


async def owners(session: Session, environment: str, attempts: Iterable[str]) -> dict[str, tuple[str, int]]:
    """(rollout, epoch) of those attempts that exist in this environment."""
    query = select(AttemptRow).where(AttemptRow.environment == environment, AttemptRow.id.in_(list(attempts)))
    return {row.id: (row.rollout, row.epoch) for row in (await session.execute(query)).scalars()}


async def add_orphans(session: Session, environment: str, batch: str, orphans: Increments, now: datetime) -> None:
    """Keep what belongs to no running attempt, apart from all evidence: one row for a batch."""
    if orphans:
        body = msgspec.json.encode(orphans).decode()
        session.add(OrphanRow(environment=environment, batch=batch, body=body, received_at=now))
        await session.flush()


async def append(session: Session, rollout: str, seq: int, increments: Increments, tick: int | None = None) -> int:
    """Write one row per (attempt, arm, metric); how many."""
    rows = [
        IncrementRow(rollout=rollout, seq=seq, tick=tick, attempt=attempt, arm=arm, metric=metric, body=body.decode())
        for attempt, arms in sorted(increments.items())
        for arm, increment in sorted(arms.items())
        for metric, body in _bodies(increment)
    ]
    session.add_all(rows)
    await session.flush()
    return len(rows)


async def unbet(session: Session, rollout: str, until: int) -> Increments:
    """Everything accepted and not yet covered by a tick, up to a sequence number."""
    query = select(IncrementRow).where(
        IncrementRow.rollout == rollout, IncrementRow.tick.is_(None), IncrementRow.seq <= until
    )
    return gathered((await session.execute(query.order_by(IncrementRow.seq, IncrementRow.id))).scalars())


async def of_tick(session: Session, rollout: str, tick: int) -> Increments:
    """The increments one tick was made from."""
    query = select(IncrementRow).where(IncrementRow.rollout == rollout, IncrementRow.tick == tick)
    return gathered((await session.execute(query.order_by(IncrementRow.id))).scalars())


async def compact(session: Session, rollout: str, until: int, tick: int, increments: Increments) -> None:
    """Replace the rows of a tick by one per (attempt, arm, metric)."""
    await session.execute(
        delete(IncrementRow).where(
            IncrementRow.rollout == rollout, IncrementRow.tick.is_(None), IncrementRow.seq <= until
        )
    )
    await append(session, rollout, until, increments, tick)


async def raise_registers(session: Session, attempt: str, arm: Arm, entries: Iterable[tuple[int, int]]) -> None:
    """Merge (register, rank) pairs into an attempt's sketch by maximum; call under the rollout's row lock."""
    row = await session.get(SketchRow, (attempt, arm), with_for_update=True)
    registers = bytearray(row.registers if row is not None else REGISTERS)
    for register, rank in entries:
        registers[register] = max(registers[register], rank)
    if row is None:
        session.add(SketchRow(attempt=attempt, arm=arm, registers=bytes(registers)))
    else:
        row.registers = bytes(registers)
    await session.flush()


async def units(session: Session, attempts: Iterable[str], arm: Arm) -> int:
    """About how many different units the attempts served in one arm (HyperLogLog, standard error 3.3 %)."""
    query = select(SketchRow.registers).where(SketchRow.attempt.in_(list(attempts)), SketchRow.arm == arm)
    merged = bytearray(REGISTERS)
    for registers in (await session.execute(query)).scalars():
        merged = bytearray(map(max, merged, registers))
    return round(estimate(merged))


def _bodies(increment: ArmIncrement) -> Iterable[tuple[str, bytes]]:
    exposures = {
        slot: SlotIncrement(exposures=s.exposures, first_exposures=s.first_exposures, started=s.started)
        for slot, s in increment.slots.items()
        if s.exposures or s.first_exposures or s.started
    }
    if exposures:
        yield EXPOSURES, msgspec.json.encode(exposures)
    for metric in sorted({metric for s in increment.slots.values() for metric in s.metrics}):
        slots = {slot: s.metrics[metric] for slot, s in increment.slots.items() if metric in s.metrics}
        yield metric, msgspec.json.encode(slots)


class Logged(Protocol):
    """A row of the log."""

    @property
    def attempt(self) -> str:
        """Whose increment it is."""

    @property
    def arm(self) -> str:
        """Of which arm."""

    @property
    def metric(self) -> str:
        """Which metric, or `EXPOSURES`."""

    @property
    def body(self) -> str | msgspec.Raw:
        """By minute, as JSON."""


def gathered(rows: Iterable[Logged]) -> Increments:
    """The rows of one tick as increments, in one order."""
    gathered: Increments = {}
    for row in rows:
        if row.metric == EXPOSURES:
            slots = _exposures.decode(row.body)
        else:
            slots = {slot: SlotIncrement(metrics={row.metric: one}) for slot, one in _metrics.decode(row.body).items()}
        arm: Arm = "candidate" if row.arm == "candidate" else "baseline"
        merge(gathered, {row.attempt: {arm: ArmIncrement(slots=slots)}})
    return in_order(gathered)
