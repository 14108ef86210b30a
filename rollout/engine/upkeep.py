"""What is kept only for a while: batch ids that nobody would send again, and orphaned increments."""

from datetime import timedelta

from rollout.db import increments
from rollout.engine.control import Control

REPEATS_FOR = timedelta(days=7)
"""How long a repeated batch is recognised. Clients give up within minutes, or with a disk spool within days."""
ORPHANS_FOR = timedelta(days=30)
"""How long increments that belong to no running attempt can be looked into."""
EVERY = timedelta(hours=1)


async def tidy(control: Control) -> int:
    """Forget batch ids older than `REPEATS_FOR` and orphans older than `ORPHANS_FOR`; how many rows."""
    now = control.now()
    async with control.database.write() as session:
        forgotten = await increments.forget_batches(session, now - REPEATS_FOR)
        return forgotten + await increments.forget_orphans(session, now - ORPHANS_FOR)
