"""A backtest's two ends: the log written as lines where the database is, and the lines read where the work is done."""

from collections.abc import AsyncGenerator, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

import msgspec

from rollout.db import increments, looks, rollouts
from rollout.db.looks import Look
from rollout.db.rollouts import Transition
from rollout.db.session import Database
from rollout.db.tables import RolloutRow
from rollout.domain.backtest import Backtest, Log, backtest
from rollout.domain.decision import Outcome
from rollout.domain.evidence import Evidence, Increments
from rollout.domain.metric import Metric
from rollout.domain.plan import PlanBody, RolloutDocument
from rollout.domain.recorded import RecordedLook
from rollout.domain.rollout import State
from rollout.domain.transition import Step
from rollout.engine.carry_out import next_state
from rollout.engine.look import Inputs, examine
from rollout.errors import Conflict


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: the other plan as a rollout of its own, and everything that was recorded beside the looks."""

    document: RolloutDocument
    rollout: str
    plan: RolloutDocument
    metrics: dict[str, Metric]
    transitions: list[Transition]
    state: State


class _Row(NamedTuple):
    attempt: str
    arm: str
    metric: str
    body: msgspec.Raw


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded look; its texts are passed on as they were stored."""

    tick: int
    inputs: msgspec.Raw
    rows: tuple[_Row, ...]


_head = msgspec.json.Decoder(Head)
_line = msgspec.json.Decoder(_Line)
_inputs = msgspec.json.Decoder(Inputs)


async def head(database: Database, row: RolloutRow, plan: PlanBody) -> Head:
    """What a backtest of a rollout under another plan begins with.

    Raises:
        Conflict: nothing is recorded yet.
    """
    async with database.read() as session:
        made = await rollouts.transitions(session, row.id)
    if row.tick == 0 or not made:
        raise Conflict("nothing is recorded yet; a backtest needs a rollout that was started and looked at")
    document = row.document.filled(plan, row.document.plan or "")
    return Head(
        document=msgspec.structs.replace(document, plan=None),
        rollout=row.id,
        plan=row.document,
        metrics=row.metrics,
        transitions=made,
        state=row.state,
    )


async def lines(database: Database, begin: Head) -> AsyncGenerator[bytes]:
    """The head, then one line for each recorded look; the log is never in memory as a whole."""
    yield msgspec.json.encode(begin) + b"\n"
    async for look in looks.recorded(database, begin.rollout):
        yield msgspec.json.encode(_written(look)) + b"\n"


def run(written: Iterable[bytes]) -> Backtest:
    """The backtest of what `lines` wrote."""
    each = iter(written)
    begin = _head.decode(next(each))
    changes = [(made.tick, made.change) for made in begin.transitions]
    log = Log(begin.rollout, begin.plan, begin.metrics, changes, begin.state)
    return backtest(begin.document, log, _looks(each), _Engine(begin.document, begin.metrics))


class _Engine:
    """The engine's look and its decisions, under one plan."""

    def __init__(self, document: RolloutDocument, metrics: dict[str, Metric]) -> None:
        self._document, self._metrics = document, metrics

    def look(self, evidence: Evidence, added: Increments, inputs: Inputs) -> tuple[Evidence, Outcome]:
        """As the engine looks."""
        return examine(self._document, self._metrics, evidence, added, inputs)

    def follow(self, state: State, outcome: Outcome, attempt: str, now: datetime) -> tuple[State, Step]:
        """As the engine follows."""
        return next_state(self._document, state, outcome, attempt, now)


def _written(look: Look) -> _Line:
    rows = tuple(_Row(*each[:3], msgspec.Raw(each.body.encode())) for each in look.rows)
    return _Line(tick=look.tick, inputs=msgspec.Raw(look.inputs.encode()), rows=rows)


def _looks(written: Iterator[bytes]) -> Iterator[RecordedLook]:
    for each in written:
        line = _line.decode(each)
        yield RecordedLook(line.tick, _inputs.decode(line.inputs), increments.gathered(line.rows))
