"""Passes over every rollout that is due. A pass that reaches the end vouches for every lease.

A rollout that cannot be looked at does not stop the others; once it has not been seen for its lease, its exposure is
taken to zero by the shortest path there is, and comes back with the first look that succeeds.
"""

import asyncio
import gc
import logging
from datetime import datetime, timedelta
from time import monotonic

import structlog

from rollout.db import due, heartbeat, rollouts
from rollout.db.session import Session
from rollout.db.tables import RolloutRow
from rollout.domain import transition
from rollout.domain.decision import Decision
from rollout.domain.plan import lease_seconds
from rollout.domain.rollout import EXPOSED
from rollout.engine.carry_out import ACTOR
from rollout.engine.claim import claim, claim_held
from rollout.engine.control import Control, tell
from rollout.engine.look import CHECK, look
from rollout.engine.notes import Notes
from rollout.engine.record import Cause, record
from rollout.telemetry import DECISIONS

_RETRY = timedelta(seconds=2)
_OVERDUE = timedelta(seconds=10)
_TOGETHER = 16
"""Looks in one transaction, at most: most of what one costs beside its judgement is the transaction's."""
_LONGEST = 0.1
"""Seconds after which such a transaction ends, for people's acts and batches wait for the rows it holds. What it has
claimed and not looked at is due still."""
_CONTAINERS = 100_000
_AT_ONCE = 500
"""Quiet rollouts passed over in one transaction."""
_log = structlog.get_logger("rollout.engine")


def let_garbage_wait() -> None:
    """Raise the collector's threshold to what a transaction of looks makes and frees again, to the last container.

    At its default every evidence read is walked several times, which is a quarter of what a look takes.
    """
    gc.set_threshold(max(gc.get_threshold()[0], _CONTAINERS), *gc.get_threshold()[1:])


class _ComeTo:
    """Whom a round has come to: looked at, or `passed` from now on, since they would be looked at a second time.

    What falls due again at once (by a batch whose process has a slow clock) is claimed twice and no more: to name
    everybody to every claim would make the claims of a large fleet long.
    """

    def __init__(self) -> None:
        self.looked: set[str] = set()
        self.passed: set[str] = set()


class Watchman:
    """Runs passes, one at a time in this process."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._one_at_a_time = asyncio.Lock()

    async def round(self) -> int:
        """Look once at every rollout that was due when the round began, then vouch for it; how many were due.

        What falls due meanwhile is for the next round: a steady stream of batches cannot keep a round from ending.
        Those at which a look could only hold are passed over, after the others; those that somebody held are waited
        for at the end.
        """
        async with self._one_at_a_time:
            began = self._control.now()
            async with self._control.database.read() as session:
                began_ms = await heartbeat.moment_ms(session)
            come_to = _ComeTo()
            looked = await self._look_at_all(began, come_to)
            if self._control.database.is_sqlite:  # it has one writer, so nobody else holds anything
                passed = await self._pass_over(began, began_ms)
            else:
                passed = await self._pass_over(began)
                looked += await self._look_at_all(began, come_to, held=True)
                async with self._control.database.write() as session:
                    await self._vouch(session, began_ms)
            await tell(self._control)
            return looked + passed

    async def _look_at_all(self, began: datetime, come_to: "_ComeTo", *, held: bool = False) -> int:
        """Look at whatever is due and not quiet, a few in one transaction; how many.

        When a transaction fails, those it had claimed are looked at one by one, and only the one that fails is not.
        """
        looked, alone = 0, 0
        while True:
            claimed: list[str] = []
            most = 0 if held else 1 if alone > 0 else _TOGETHER
            try:
                done = await self._together(began, come_to, most, claimed)
            except Exception:
                if not claimed:
                    raise
                if len(claimed) > 1:
                    alone = len(claimed)
                    continue
                _log.exception("look failed", rollout=claimed[0])
                await self._unseen(claimed[0], self._control.now())
                come_to.passed.add(claimed[0])
                done = 1
            if not claimed:
                return looked
            looked, alone = looked + done, alone - 1
            if done == len(claimed) < most and self._control.database.is_sqlite:
                return looked  # there were no more; elsewhere somebody may have held some just then

    async def _together(self, began: datetime, come_to: "_ComeTo", most: int, claimed: list[str]) -> int:
        """Claim a few, or with `most` 0 wait for one that is held, and look until something is to be done; how many.

        What was recorded is committed at once, and those that were claimed and not looked at are still due. So it holds
        one environment at most, and nobody who publishes several can be waiting for it while it waits for them.
        """
        now, looked = self._control.now(), 0
        decision: Decision | None = None
        async with self._control.database.write() as session:
            passed = come_to.passed
            free = claim(session, began, now, most, passed) if most else claim_held(session, began, passed)
            found, notes = await free, Notes()
            claimed += [each.row.id for each in found]
            fresh = [each for each in found if each.row.id not in come_to.looked]
            passed.update(come_to.looked & {*claimed})
            started = monotonic()
            for each in fresh:
                before = (each.row.status, each.row.revision)
                decision = await look(session, self._control, each, now, notes)
                looked += 1
                if before[0] == "scheduled" or before != (each.row.status, each.row.revision):
                    break
                if monotonic() - started > _LONGEST:
                    break
                await asyncio.sleep(0)  # whoever waits for this process waits for one look at most
            await notes.write(session)
        come_to.looked.update(each.row.id for each in fresh[:looked])
        if decision is not None and decision.kind != "hold":
            reason = decision.reasons[0]
            DECISIONS.labels(decision.kind, reason.code).inc()
            level = logging.WARNING if decision.kind in ("pause", "roll_back") else logging.INFO
            _log.log(level, "decided", **_named(fresh[looked - 1].row), decision=decision.kind, reason=reason.message)
            await tell(self._control)
        return looked

    async def _pass_over(self, began: datetime, began_ms: int | None = None) -> int:
        """Vouch for those that are due and quiet, many in one transaction; how many. With `began_ms`, then for all."""
        total = 0
        while True:
            now = self._control.now()
            async with self._control.database.write() as session:
                passed = await due.pass_over(session, began, now, now + CHECK, _AT_ONCE)
                if began_ms is not None and passed < _AT_ONCE:
                    await self._vouch(session, began_ms)
            total += passed
            if passed < _AT_ONCE:
                return total

    async def _vouch(self, session: Session, began_ms: int) -> None:
        """Record the completed pass, unless an exposed rollout has been out of everybody's sight for its whole lease.

        Such a row is held by a process that does nothing; withholding the beat is what is left to end its exposure.
        """
        now = self._control.now()
        overdue = await due.overdue(session, now - _OVERDUE)
        unwatched = [row.id for row in overdue if not row.state.blind and _unwatched(row, now)]
        if unwatched:
            _log.error("nobody can look at a rollout; leases are not vouched for", rollouts=unwatched)
            return
        await heartbeat.beat(session, began_ms)

    async def _unseen(self, identifier: str, now: datetime) -> None:
        """A failed look: try again soon, and end the exposure once it was unwatched for a whole lease."""
        async with self._control.database.write() as session:
            row = await rollouts.find(session, identifier, lock=True)
            if row is None or row.status not in EXPOSED:
                return
            if not row.state.blind and _unwatched(row, now):
                reason = (
                    f"no look has succeeded for the lease of {row.document.lease}; nobody is exposed until one does"
                )
                cause = Cause(step="lapse", reason=reason, actor=ACTOR, at=now)
                await record(session, row, transition.lapse(row.state, now), cause)
            await rollouts.postpone(session, row, now + _RETRY)


def _named(row: RolloutRow) -> dict[str, str]:
    return {"rollout": row.id, "flag": row.flag, "environment": row.environment}


def _unwatched(row: RolloutRow, now: datetime) -> bool:
    lease = lease_seconds(row.document)
    since = row.protected_at or row.state.started_at
    return lease is not None and since is not None and (now - since).total_seconds() >= lease
