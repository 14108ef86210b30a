"""The increment log: batches in, exactly once; ticks out, compacted; units counted."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import msgspec
from sqlalchemy import ColumnElement, Row, bindparam, delete, insert, select, update

from rollout.db.session import Session
from rollout.db.tables import AttemptRow, BatchRow, IncrementRow, OrphanRow, SketchRow
from rollout.domain.evidence import Increments, in_order, merge
from rollout_client.evaluation.evidence import REGISTERS, ArmIncrement, MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Arm
from rollout_client.evaluation.sketch import EMPTY, estimate
from rollout_client.evaluation.sketch import merge as merge_sketches

EXPOSURES = "$exposures"
"""Stands in the metric column of rows that count exposures and started attempts."""
_log = IncrementRow.metadata.tables[IncrementRow.__tablename__]
_exposures = msgspec.json.Decoder(dict[int, SlotIncrement])
_metrics = msgspec.json.Decoder(dict[int, MetricIncrement])


class Taken(NamedTuple):
    """What a tick takes in of one rollout. `single`: one row each (attempt, arm, metric) already, as compacted ones."""

    increments: Increments
    single: bool = True


class Cover(NamedTuple):
    """What was accepted of a rollout up to a sequence number becomes part of a tick."""

    rollout: str
    until: int
    tick: int
    taken: Taken


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
        {"rollout": rollout, "seq": seq, "tick": tick, "attempt": attempt, "arm": arm, "metric": metric, "body": body}
        for attempt, arms in sorted(increments.items())
        for arm, increment in sorted(arms.items())
        for metric, body in _bodies(increment)
    ]
    if rows:
        await session.execute(insert(_log), rows)
    return len(rows)


async def unbet(session: Session, accepted: Mapping[str, int]) -> dict[str, Taken]:
    """Of each rollout, everything that was accepted up to a sequence number and is not yet covered by a tick."""
    if not accepted:
        return {}
    query = select(_log).where(_log.c.rollout.in_(accepted), _log.c.tick.is_(None)).order_by(_log.c.seq, _log.c.id)
    found: dict[str, list[Row[Any]]] = {rollout: [] for rollout in accepted}
    for row in await session.execute(query):
        if row.seq <= accepted[row.rollout]:
            found[row.rollout].append(row)
    return {
        rollout: Taken(gathered(rows), len({(row.attempt, row.arm, row.metric) for row in rows}) == len(rows))
        for rollout, rows in found.items()
    }


async def of_tick(session: Session, rollout: str, tick: int) -> Increments:
    """The increments one tick was made from."""
    query = select(_log).where(_log.c.rollout == rollout, _log.c.tick == tick).order_by(_log.c.id)
    return gathered((await session.execute(query)).all())


async def cover(session: Session, covers: Sequence[Cover]) -> None:
    """Put the rows of each tick under its number, replaced by one per (attempt, arm, metric) where there are more."""
    several = [each for each in covers if not each.taken.single]
    if several:
        await session.execute(delete(_log).where(*_of_cover()), [_named(each) for each in several])
    for each in several:
        await append(session, each.rollout, each.until, each.taken.increments, each.tick)
    single = [{**_named(each), "covered_by": each.tick} for each in covers if each.taken.single]
    if single:
        await session.execute(update(_log).where(*_of_cover()).values(tick=bindparam("covered_by")), single)


def _of_cover() -> Sequence[ColumnElement[bool]]:
    return _log.c.rollout == bindparam("of"), _log.c.tick.is_(None), _log.c.seq <= bindparam("until")


def _named(cover: Cover) -> dict[str, Any]:
    return {"of": cover.rollout, "until": cover.until}


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
    return estimated((await sketches(session, attempts, arm)).values())


async def sketches(session: Session, attempts: Iterable[str], arm: Arm) -> dict[str, bytes]:
    """The unit sketch of each attempt that has served somebody in an arm."""
    query = select(SketchRow.attempt, SketchRow.registers).where(
        SketchRow.attempt.in_(list(attempts)), SketchRow.arm == arm
    )
    return {row.attempt: row.registers for row in await session.execute(query)}


def estimated(registers: Iterable[bytes]) -> int:
    """About how many different units some sketches have seen together."""
    merged = EMPTY
    for more in registers:
        merged = merge_sketches(merged, more) if merged is not EMPTY else more
    return round(estimate(merged))


def _bodies(increment: ArmIncrement) -> Iterable[tuple[str, str]]:
    exposures = {
        slot: SlotIncrement(exposures=s.exposures, first_exposures=s.first_exposures, started=s.started)
        for slot, s in increment.slots.items()
        if s.exposures or s.first_exposures or s.started
    }
    if exposures:
        yield EXPOSURES, msgspec.json.encode(exposures).decode()
    for metric in sorted({metric for s in increment.slots.values() for metric in s.metrics}):
        slots = {slot: s.metrics[metric] for slot, s in increment.slots.items() if metric in s.metrics}
        yield metric, msgspec.json.encode(slots).decode()


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
