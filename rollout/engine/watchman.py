"""Passes over every rollout that is due. A pass that reaches the end vouches for every lease.

A rollout that cannot be looked at does not stop the others; once it has not been seen for its lease, its exposure is
taken to zero by the shortest path there is, and comes back with the first look that succeeds.
"""

import asyncio
from datetime import datetime, timedelta

import structlog

from rollout.db import heartbeat, rollouts
from rollout.db.tables import RolloutRow
from rollout.domain import transition
from rollout.domain.plan import lease_seconds
from rollout.domain.rollout import EXPOSED
from rollout.engine.control import Control
from rollout.engine.look import ACTOR, look
from rollout.engine.record import Cause, record
from rollout.telemetry import DECISIONS

_RETRY = timedelta(seconds=2)
_log = structlog.get_logger("rollout.engine")


class Watchman:
    """Runs passes, one at a time in this process."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._one_at_a_time = asyncio.Lock()

    async def round(self) -> int:
        """Look at every rollout that is due, then record the completed protect pass; how many were looked at."""
        async with self._one_at_a_time:
            looked = 0
            while await self._next():
                looked += 1
            async with self._control.database.write() as session:
                await heartbeat.beat(session)
            await self._control.hub.refresh()
            return looked

    async def _next(self) -> bool:
        """Claim and look at one due rollout; whether there was one."""
        now = self._control.now()
        claimed: str | None = None
        try:
            async with self._control.database.write() as session:
                row = await rollouts.claim_due(session, now)
                if row is None:
                    return False
                claimed = row.id
                decision = await look(session, self._control, row, now)
            if decision.kind != "hold":
                DECISIONS.labels(decision.kind).inc()
                _log.info("decided", rollout=claimed, decision=decision.kind, reason=decision.reasons[0].message)
                await self._control.hub.refresh()
        except Exception:
            if claimed is None:
                raise
            _log.exception("look failed", rollout=claimed)
            await self._unseen(claimed, now)
        return True

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
                await record(session, row, transition.lapse(row.state), cause)
            await rollouts.postpone(session, row, now + _RETRY)


def _unwatched(row: RolloutRow, now: datetime) -> bool:
    lease = lease_seconds(row.document)
    since = row.protected_at or row.state.started_at
    return lease is not None and since is not None and (now - since).total_seconds() >= lease
