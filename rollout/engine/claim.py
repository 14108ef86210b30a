"""Claiming due rollouts a few at a time, with everything that a look at each asks for: three queries for all."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from rollout.db import due, increments
from rollout.db.increments import Taken
from rollout.db.session import Session
from rollout.db.tables import RolloutRow


@dataclass(frozen=True, slots=True)
class Claimed:
    """A rollout whose row this transaction has locked, and what its look is made from."""

    row: RolloutRow
    killed: bool
    taken: Taken
    sketches: Mapping[str, bytes]

    def units(self, attempts: Iterable[str]) -> int:
        """About how many different units the attempts have served the candidate."""
        return increments.estimated(self.sketches[attempt] for attempt in attempts if attempt in self.sketches)


async def claim(
    session: Session, until: datetime, now: datetime, most: int, passed: Collection[str] = ()
) -> list[Claimed]:
    """Lock those that were due by `until` and are not quiet, the longest due first, and read what came to them."""
    found = await due.claim(session, until, now, most, passed)
    if not found:
        return []
    fresh = {row.id: row.accepted for row, _ in found if row.accepted > row.judged}
    taken = await increments.unbet(session, fresh)
    attempts = [attempt.id for row, _ in found for attempt in row.state.attempts if attempt.epoch == row.state.epoch]
    sketches = await increments.sketches(session, attempts, "candidate")
    return [Claimed(row, killed, taken.get(row.id, Taken({})), sketches) for row, killed in found]
