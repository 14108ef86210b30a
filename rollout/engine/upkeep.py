"""What is kept only for a while: batch ids, once no client would send the batch again."""

from datetime import timedelta

from rollout.db import increments
from rollout.engine.control import Control

REPEATS_FOR = timedelta(days=7)
"""How long a repeated batch is recognised. Clients give up within minutes, or with a disk spool within days."""
EVERY = timedelta(hours=1)


async def tidy(control: Control) -> int:
    """Forget batch ids that are older than `REPEATS_FOR`; how many."""
    async with control.database.write() as session:
        return await increments.forget_batches(session, control.now() - REPEATS_FOR)
