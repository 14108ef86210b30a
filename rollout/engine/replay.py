"""Making every recorded look again from its inputs; the same bytes must come out."""

import asyncio

import msgspec

from rollout.db import increments, rollouts
from rollout.db.session import Session
from rollout.domain.document import canonical
from rollout.domain.evidence import Evidence
from rollout.engine.look import ENGINE_VERSION, Inputs, digest, examine
from rollout.errors import NotFound


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay found: `exact` when every look came out as recorded and the evidence is the same.

    `differing` ticks came out otherwise, `foreign` ones were made by another engine.
    """

    rollout: str
    exact: bool
    ticks: int
    differing: tuple[int, ...]
    foreign: tuple[int, ...]


async def replay(session: Session, identifier: str) -> Replayed:
    """Recompute every recorded look of a rollout from the increment log.

    Raises:
        NotFound: no such rollout.
    """
    row = await rollouts.find(session, identifier, evidence=True)
    if row is None:
        raise NotFound(f"there is no rollout {identifier!r}")
    documents = await rollouts.documents(session, row)
    evidence = Evidence()
    differing, foreign = [], []
    recorded = await rollouts.evaluations(session, identifier)
    for evaluation in recorded:
        await asyncio.sleep(0)  # a long rollout has many looks; nobody else waits for more than one of them
        inputs = msgspec.json.decode(evaluation.inputs, type=Inputs)
        added = await increments.of_tick(session, identifier, evaluation.tick)
        evidence, outcome = examine(documents[inputs.state.document], row.metrics, evidence, added, inputs)
        same = digest(outcome) == evaluation.digest
        if evaluation.outcome is not None:
            same = same and canonical(outcome).decode() == evaluation.outcome
        if not same:
            differing.append(evaluation.tick)
        if evaluation.engine_version != ENGINE_VERSION:
            foreign.append(evaluation.tick)
    return Replayed(
        rollout=identifier,
        exact=not differing and (not recorded or evidence == row.evidence),
        ticks=len(recorded),
        differing=tuple(differing),
        foreign=tuple(foreign),
    )
