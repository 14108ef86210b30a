"""Claiming due rollouts a few at a time, with everything that a look at each asks for: four queries for all."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rollout.db import due, increments, sources
from rollout.db.due import Due
from rollout.db.increments import Taken
from rollout.db.session import Session
from rollout.db.tables import RolloutRow
from rollout.domain.judge import SourceFailure


@dataclass(frozen=True, slots=True)
class Claimed:
    """A rollout whose row this transaction has locked, and what its look is made from."""

    row: RolloutRow
    killed: bool
    taken: Taken
    sketches: Mapping[str, bytes]
    failing: dict[str, SourceFailure]

    def units(self, attempts: Iterable[str]) -> int:
        """About how many different units the attempts have served the candidate."""
        return increments.estimated(self.sketches[attempt] for attempt in attempts if attempt in self.sketches)


async def claim(
    session: Session, until: datetime, now: datetime, most: int, passed: Collection[str] = ()
) -> list[Claimed]:
    """Lock those that were due by `until` and are not quiet, the longest due first, and read what came to them."""
    return await _read(session, await due.claim(session, until, now, most, passed))


async def claim_held(session: Session, until: datetime, passed: set[str]) -> list[Claimed]:
    """Wait for one that somebody holds, and lock it; one that is held all the while joins `passed`."""
    return await _read(session, await due.claim_held(session, until, passed))


async def _read(session: Session, found: Sequence[Due]) -> list[Claimed]:
    if not found:
        return []
    fresh = {row.id: row.accepted for row, _ in found if row.accepted > row.judged}
    taken = await increments.unbet(session, fresh)
    attempts = [attempt.id for row, _ in found for attempt in row.state.attempts if attempt.epoch == row.state.epoch]
    sketches = await increments.sketches(session, attempts, "candidate")
    failing = await sources.failing(session, (row.environment for row, _ in found))
    return [
        Claimed(row, killed, taken.get(row.id, Taken({})), sketches, _of(row, failing.get(row.environment, {})))
        for row, killed in found
    ]


def _of(row: RolloutRow, failing: Mapping[str, SourceFailure]) -> dict[str, SourceFailure]:
    """The failures that concern a rollout."""
    return {metric: failure for metric, failure in failing.items() if metric in row.metrics}
