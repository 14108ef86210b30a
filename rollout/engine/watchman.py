"""Passes over every rollout that is due. A pass that reaches the end vouches for every lease.

A rollout that cannot be looked at does not stop the others; once it has not been seen for its lease, its exposure is
taken to zero by the shortest path there is, and comes back with the first look that succeeds.
"""

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta

import structlog

from rollout.db import heartbeat, rollouts
from rollout.db.rollouts import Claim
from rollout.db.tables import RolloutRow
from rollout.domain import transition
from rollout.domain.plan import lease_seconds
from rollout.domain.rollout import EXPOSED
from rollout.engine.carry_out import ACTOR
from rollout.engine.control import Control, tell
from rollout.engine.look import look
from rollout.engine.record import Cause, record
from rollout.telemetry import DECISIONS

_RETRY = timedelta(seconds=2)
_OVERDUE = timedelta(seconds=10)
_log = structlog.get_logger("rollout.engine")


class Watchman:
    """Runs passes, one at a time in this process."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._one_at_a_time = asyncio.Lock()

    async def round(self) -> int:
        """Look once at every rollout that was due when the round began, then vouch for it; how many were looked at.

        What falls due meanwhile is for the next round: a steady stream of batches cannot keep a round from ending.
        """
        async with self._one_at_a_time:
            began = self._control.now()
            async with self._control.database.read() as session:
                began_ms = await heartbeat.moment_ms(session)
            claims: dict[str, Claim] = {}
            while (claim := await self._next(began, claims)) is not None:
                claims[claim.rollout] = claim
            await self._vouch(began_ms)
            await tell(self._control)
            return sum(not claim.held for claim in claims.values())

    async def _vouch(self, began_ms: int) -> None:
        """Record the completed pass, unless an exposed rollout has been out of everybody's sight for its whole lease.

        Such a row is held by a process that does nothing; withholding the beat is what is left to end its exposure.
        """
        now = self._control.now()
        async with self._control.database.write() as session:
            overdue = await rollouts.overdue(session, now - _OVERDUE)
            unwatched = [row.id for row in overdue if not row.state.blind and _unwatched(row, now)]
            if unwatched:
                _log.error("nobody can look at a rollout; leases are not vouched for", rollouts=unwatched)
                return
            await heartbeat.beat(session, began_ms)

    async def _next(self, began: datetime, passed: Collection[str]) -> Claim | None:
        """Claim and look at one rollout that is due and was not come to in this round; which, or None."""
        claim: Claim | None = None
        try:
            async with self._control.database.write() as session:
                claim = await rollouts.claim_due(session, began, passed)
                if claim is None or claim.held:
                    return claim
                row = await rollouts.find(session, claim.rollout, lock=True, evidence=True)
                assert row is not None
                decision = await look(session, self._control, row, self._control.now())
            if decision.kind != "hold":
                reason = decision.reasons[0]
                DECISIONS.labels(decision.kind, reason.code).inc()
                _log.info("decided", rollout=claim.rollout, decision=decision.kind, reason=reason.message)
                await tell(self._control)
        except Exception:
            if claim is None:
                raise
            _log.exception("look failed", rollout=claim.rollout)
            await self._unseen(claim.rollout, self._control.now())
        return claim

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


def _unwatched(row: RolloutRow, now: datetime) -> bool:
    lease = lease_seconds(row.document)
    since = row.protected_at or row.state.started_at
    return lease is not None and since is not None and (now - since).total_seconds() >= lease
