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


async def no_room(session: Session, row: RolloutRow) -> str | None:
    """Why the rollout's exclusion group has no place for it now; None when it has one, or there is no group."""
    exclusion = row.document.exclusion
    return None if exclusion is None else no_place(exclusion, row.document.unit, await _holders(session, row))


async def beside(session: Session, row: RolloutRow, state: State) -> tuple[State, str]:
    """What a start adds to the state and to its reason: its place in its group, and whom it may meet."""
    exclusion = row.document.exclusion
    if exclusion is not None:
        taken = [holder.range for holder in await _holders(session, row)]
        state = msgspec.structs.replace(state, slice=first_fit(taken, width_of(exclusion.share)))
    said = [place_said(exclusion, state.slice), warning(await met(session, row))]
    return state, "".join(f"; {each}" for each in said if each)


async def _holders(session: Session, row: RolloutRow) -> list[Holder]:
    """Who owns ranges of the rollout's group.

    Takes the environment's row lock first: two that start at once follow each other, and the second sees the first.
    """
    exclusion = row.document.exclusion
    await environments.find(session, row.environment, lock=True)
    return [
        Holder(rollout=each.id, unit=each.document.unit, range=each.state.slice)
        for each in await rollouts.exposed(session, row.environment)
        if each.document.exclusion is not None
        and exclusion is not None
        and each.document.exclusion.group == exclusion.group
        and each.state.slice is not None
    ]


async def met(session: Session, row: RolloutRow) -> tuple[Concurrent, ...]:
    """The exposed rollouts of the environment that this one may meet."""
    exposed = await rollouts.exposed(session, row.environment)
    if not any(each.id != row.id for each in exposed):
        return ()
    cohorts = {key: cohort for key, (cohort, _) in (await documents.every(session, Cohort)).items()}
    mine = Running(id=row.id, document=row.document, state=row.state, metrics=row.metrics)
    return concurrent(mine, exposed, cohorts)
