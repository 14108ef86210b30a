"""Making every recorded look again from its inputs; the same bytes must come out, and the same sentences."""

import asyncio
from collections.abc import Iterable

import msgspec

from rollout.db import increments, rollouts
from rollout.db.rollouts import Transition
from rollout.db.session import Session
from rollout.db.tables import RolloutRow
from rollout.domain.document import canonical
from rollout.domain.evidence import Evidence
from rollout.domain.findings import Recorded, findings
from rollout.engine.look import ENGINE_VERSION, Inputs, digest, examine
from rollout.errors import NotFound


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay found: `exact` when looks and verdicts all came out as recorded, and the evidence is the same.

    `differing` ticks came out otherwise, `foreign` ones were made by another engine. `misquoted` transitions (their
    numbers) carry verdicts that their look did not say.
    """

    rollout: str
    exact: bool
    ticks: int
    differing: tuple[int, ...]
    misquoted: tuple[int, ...]
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
    quotes = _by_tick(await rollouts.transitions(session, identifier))
    misquoted: list[int] = []
    recorded = await rollouts.evaluations(session, identifier)
    for evaluation in recorded:
        await asyncio.sleep(0)  # a long rollout has many looks; nobody else waits for more than one of them
        inputs = msgspec.json.decode(evaluation.inputs, type=Inputs)
        added = await increments.of_tick(session, identifier, evaluation.tick)
        evidence, outcome = examine(documents[inputs.state.document], row.metrics, evidence, added, inputs)
        same = digest(outcome) == evaluation.digest
        if evaluation.outcome is not None:
            same = same and canonical(outcome).decode() == evaluation.outcome
        newest = Recorded(judgement=outcome.judgement, tick=evaluation.tick, evidence=evidence)
        quoted = quotes.pop(evaluation.tick, [])
        if not same:
            differing.append(evaluation.tick)
        if evaluation.engine_version != ENGINE_VERSION:  # it had words of its own
            foreign.append(evaluation.tick)
        else:
            misquoted += [each.seq for each in quoted if not _quotes(row, newest, each)]
    misquoted += [each.seq for quoted in quotes.values() for each in quoted]  # looks that were never recorded
    return Replayed(
        rollout=identifier,
        exact=not differing and not misquoted and (not recorded or evidence == row.evidence),
        ticks=len(recorded),
        differing=tuple(differing),
        misquoted=tuple(sorted(misquoted)),
        foreign=tuple(foreign),
    )


def _by_tick(transitions: Iterable[Transition]) -> dict[int, list[Transition]]:
    """Transitions with verdicts by the look they quote; those recorded before there were any quote none."""
    quoting: dict[int, list[Transition]] = {}
    for each in transitions:
        if each.change.verdicts:
            tick = each.tick if each.tick is not None else each.change.verdicts[0].tick
            quoting.setdefault(tick, []).append(each)
    return quoting


def _quotes(row: RolloutRow, look: Recorded, transition: Transition) -> bool:
    """Whether a transition carries what the look said, to the byte; a kill and a lapse leave the effects out."""
    verdicts = transition.change.verdicts
    if transition.tick is None and all(finding.effect is None for finding in verdicts):
        look = msgspec.structs.replace(look, evidence=None)
    return canonical(verdicts) == canonical(findings(row.document, row.metrics, look))
