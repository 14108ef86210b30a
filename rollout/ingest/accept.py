"""Accept one batch: checked, attributed, stored and answered in one transaction; a repeated id changes nothing."""

import re
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime

import msgspec
import structlog

from rollout.db import increments, rollouts
from rollout.db.outage import Failed, passing
from rollout.db.session import Database, Duplicate, Session
from rollout.db.tables import RolloutRow
from rollout.domain.document import problem_of
from rollout.domain.evidence import Increments, merge_slot
from rollout.domain.rollout import EXPOSED
from rollout.errors import Invalid, Malformed
from rollout.ingest.check import Known, check
from rollout.telemetry import ALERTS
from rollout_client.evaluation.evidence import MOST_ALERTS, Alert, ArmIncrement, Batch, BatchAnswer, SlotIncrement
from rollout_client.evaluation.ruleset import SCHEMA

MOST_ATTEMPTS = 1_000
"""Attempts one batch may speak of; a process follows as many as rollouts are running."""
_NAME = re.compile(r"[!-~]{1,64}", re.ASCII)
_KINDS = frozenset({"breaker_open"})
"""Kinds of alerts that a label may say; a client may know others."""
_log = structlog.get_logger("rollout.ingest")
_decoder = msgspec.json.Decoder(Batch)


async def accept(
    database: Database, environment: str, body: bytes, now: datetime, nudge: Callable[[], None] = lambda: None
) -> bytes:
    """The encoded answer, only after the commit. `nudge` tells the engine that there is something to look at.

    Raises:
        Malformed: the body is no JSON.
        Invalid: the batch has a problem; nothing of it was stored.
    """
    batch = _decode(body, environment)
    try:
        answer = await _stored(database, environment, batch, now)
    except Duplicate:  # the same batch at the same time: whoever came first has the answer
        async with database.read() as session:
            first = await increments.answered(session, environment, batch.batch_id)
        if first is None:
            raise
        return first
    for alert in batch.alerts:
        _report(environment, alert)
    nudge()
    return answer


def _decode(body: bytes, environment: str) -> Batch:
    try:
        batch = _decoder.decode(body)
    except msgspec.ValidationError as error:
        problem = problem_of(error)
        raise Invalid([(problem.path, problem.message)]) from error
    except RecursionError as error:
        raise Malformed("the body is nested too deeply") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"the body is no JSON document: {error}") from error
    if batch.schema != SCHEMA:
        raise Invalid([("schema", f"this service reads schema {SCHEMA}; update the service or the client")])
    if not _NAME.fullmatch(batch.batch_id):
        raise Invalid([("batch_id", "use 1 to 64 plain characters, the same ones when the batch is sent again")])
    if len(batch.attempts) > MOST_ATTEMPTS:
        raise Invalid([("attempts", f"more than {MOST_ATTEMPTS} attempts in one batch; send several batches")])
    if len(batch.alerts) > MOST_ALERTS:
        raise Invalid([("alerts", f"more than {MOST_ALERTS} alerts in one batch; send several batches")])
    for attempt in batch.attempts:
        if not _NAME.fullmatch(attempt):
            raise Invalid([("attempts", "an attempt is named by 1 to 64 plain characters, as the ruleset names it")])
    if batch.environment != environment:
        raise Invalid([("environment", f"the key belongs to {environment!r}; send the batch with the key of its own")])
    return batch


async def _stored(database: Database, environment: str, batch: Batch, now: datetime) -> bytes:
    """Stored and answered; tried twice, because the batch id makes it safe where a server was lost, or the turn."""
    try:
        return await _store(database, environment, batch, now)
    except Failed as error:
        if not passing(error):
            raise
        _log.info("a batch is stored again", environment=environment, cause=type(error.orig).__name__)
        return await _store(database, environment, batch, now)


async def _store(database: Database, environment: str, batch: Batch, now: datetime) -> bytes:
    async with database.write() as session:
        first = await increments.answered(session, environment, batch.batch_id)
        if first is not None:
            return first
        rows, epochs = await _rollouts(session, environment, batch)
        alive = {
            attempt: rows[rollout]
            for attempt, (rollout, epoch) in epochs.items()
            if rows[rollout].status in EXPOSED and rows[rollout].state.epoch == epoch
        }
        known = {attempt: Known(row.metrics, row.state.frozen) for attempt, row in alive.items()}
        problem = check(batch.attempts, known)
        if problem is not None:
            raise Invalid([(problem.path, problem.message)])
        _hold_to_now(batch.attempts, now)
        shares: dict[str, Increments] = defaultdict(dict)
        orphans: Increments = {}
        for attempt, arms in batch.attempts.items():
            (shares[alive[attempt].id] if attempt in alive else orphans)[attempt] = arms
        accepted = sum([await _append(session, rows[rollout], share, now) for rollout, share in sorted(shares.items())])
        await increments.add_orphans(session, environment, batch.batch_id, orphans, now)
        answer = BatchAnswer(batch_id=batch.batch_id, accepted=accepted, orphaned=len(orphans))
        encoded = msgspec.json.encode(answer)
        await increments.keep_answer(session, environment, batch.batch_id, encoded, now)
        return encoded


def _report(environment: str, alert: Alert) -> None:
    """Say it to the operator, and to nobody else: an alert is no evidence, and told twice it is logged twice."""
    ALERTS.labels(alert.kind if alert.kind in _KINDS else "other").inc()
    where = {name: value for name, value in msgspec.structs.asdict(alert).items() if value is not None}
    _log.warning("a client raised an alert", environment=environment, **where)


async def _rollouts(
    session: Session, environment: str, batch: Batch
) -> tuple[dict[str, RolloutRow], dict[str, tuple[str, int]]]:
    """The rollouts a batch speaks of, locked in one order for everybody, and each attempt's (rollout, epoch)."""
    epochs = await increments.owners(session, environment, batch.attempts)
    rows = {}
    for identifier in sorted({rollout for rollout, _ in epochs.values()}):
        row = await rollouts.find(session, identifier, lock=True)
        if row is not None:
            rows[identifier] = row
    return rows, epochs


async def _append(session: Session, row: RolloutRow, share: Increments, now: datetime) -> int:
    seq = await rollouts.accept(session, row, now)
    for attempt, arms in share.items():
        for arm, increment in arms.items():
            if increment.sketch:
                await increments.raise_registers(session, attempt, arm, increment.sketch)
    return await increments.append(session, row.id, seq, share)


def _hold_to_now(attempts: Increments, now: datetime) -> None:
    """A minute that has not begun yet (a client's clock is fast) counts as the present one; nothing is lost."""
    present = int(now.timestamp()) // 60
    for arms in attempts.values():
        for increment in arms.values():
            _fold_future(increment, present)


def _fold_future(increment: ArmIncrement, present: int) -> None:
    for slot in [slot for slot in increment.slots if slot > present]:
        merge_slot(increment.slots.setdefault(present, SlotIncrement()), increment.slots.pop(slot))
