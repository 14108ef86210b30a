"""What a rollout must know of those exposed beside it: a free range of its exclusion group, and whom it may meet."""

import msgspec

from rollout.db import documents, environments, rollouts
from rollout.db.session import Session
from rollout.db.tables import RolloutRow
from rollout.domain.cohort import Cohort
from rollout.domain.compile import Running
from rollout.domain.concurrent import Concurrent, concurrent, warning
from rollout.domain.exclusion import Holder, first_fit, no_place, place_said
from rollout.domain.rollout import State
from rollout.domain.share import width_of
from rollout.errors import Conflict


async def beside(session: Session, row: RolloutRow, state: State, reason: str) -> tuple[State, str]:
    """What a start adds to the state and to the reason that is recorded: its place in its group, and whom it may meet.

    Raises:
        Conflict: the group has no room, or is divided by another unit.
    """
    state = await _placed(session, row, state)
    said = [place_said(row.document.exclusion, state.slice), warning(await met(session, row))]
    return state, "; ".join([reason, *filter(None, said)])


async def _placed(session: Session, row: RolloutRow, state: State) -> State:
    """The state with the lowest free range of its group; without a group it stays as it is.

    Takes the environment's row lock first: two that start at once follow each other, and the second sees the first.
    """
    exclusion = row.document.exclusion
    if exclusion is None:
        return state
    await environments.find(session, row.environment, lock=True)
    holders = [
        Holder(rollout=each.id, unit=each.document.unit, range=each.state.slice)
        for each in await rollouts.exposed(session, row.environment)
        if each.document.exclusion is not None
        and each.document.exclusion.group == exclusion.group
        and each.state.slice is not None
    ]
    refused = no_place(exclusion, row.document.unit, holders)
    if refused is not None:
        raise Conflict(refused)
    free = first_fit([holder.range for holder in holders], width_of(exclusion.share))
    return msgspec.structs.replace(state, slice=free)


async def met(session: Session, row: RolloutRow) -> tuple[Concurrent, ...]:
    """The exposed rollouts of the environment that this one may meet."""
    exposed = await rollouts.exposed(session, row.environment)
    if not any(each.id != row.id for each in exposed):
        return ()
    cohorts = {key: cohort for key, (cohort, _) in (await documents.every(session, Cohort)).items()}
    mine = Running(id=row.id, document=row.document, state=row.state, metrics=row.metrics)
    return concurrent(mine, exposed, cohorts)
