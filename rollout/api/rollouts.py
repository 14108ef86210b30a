"""Rollouts: drafted here, moved by acts, and asked how they stand.

Whoever reduces exposure (pause, roll back) needs no more than a key that may change anything; whoever raises it (start,
resume, advance) needs `operator`; approvals need `approver`, and the author of a rollout cannot give one.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime

import msgspec
from litestar import Response, Router, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from rollout.api.auth import EDIT, REDUCE, VIEW, Caller, admits
from rollout.api.documents import tagged
from rollout.api.problems import REFUSALS
from rollout.api.service import Service
from rollout.db import environments, flag_states, overrides, rollouts
from rollout.db.rollouts import Transition
from rollout.db.session import Session
from rollout.db.tables import RolloutRow
from rollout.domain.concurrent import Concurrent
from rollout.domain.decision import Outcome
from rollout.domain.document import Document, Why
from rollout.domain.estimates import Audience, Estimates, estimates_of
from rollout.domain.flag import FlagState
from rollout.domain.judge import harm_level
from rollout.domain.metric import Metric
from rollout.domain.missing import Pending, pending
from rollout.domain.plan import Budget, RolloutDocument
from rollout.domain.rollout import ALLOWED, ENDED, State, Status
from rollout.domain.status import Around, RolloutStatus, status_of
from rollout.domain.transition import Change
from rollout.domain.watch import Watch, watches
from rollout.engine import commands, drafting, neighbours
from rollout.engine.commands import units_exposed
from rollout.engine.replay import Replayed, replay
from rollout.engine.rights import Act
from rollout.errors import Forbidden, NotFound

NEEDS = {
    "start": ("operator",),
    "resume": ("operator",),
    "advance": ("operator",),
    "complete": ("operator",),
    "waive": ("operator",),
    "approve": ("approver", "operator"),
    "pause": ("editor", "operator", "approver"),
    "roll_back": ("editor", "operator", "approver"),
    "cancel": ("editor", "operator"),
}
"""Scopes of which an act needs one."""
NEWEST_LOOKS = 50


class ActRequest(Document, frozen=True, kw_only=True):
    """Why, and the revision of the rollout that the decision was made on (409 when it has moved since).

    A waiver also names its `metric`, for how long it stands (`expires`: '24h'), and the `stage` (the present one).
    """

    reason: Why = ""
    revision: int | None = None
    metric: str | None = None
    stage: str | None = None
    expires: str | None = None


class Revision(Document, frozen=True, kw_only=True):
    """The next version of a rollout's document, why, and the revision that it was made from."""

    document: RolloutDocument
    reason: Why = ""
    revision: int | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout in a list; `percentage` of the stage's population has the candidate now.

    `breach` names the guardrail whose breach is latched: it was acted on, and only a person goes on from there.
    """

    id: str
    flag: str
    environment: str
    baseline: str
    candidate: str
    status: str
    stage: str
    percentage: float
    killed: bool
    revision: int
    author: str
    created_at: datetime
    ended_at: datetime | None
    breach: str | None
    content_hash: str


class RolloutRecord(Summary, frozen=True, kw_only=True):
    """A rollout whole: the plan it was made from and the metrics as it froze them, and where it stands."""

    document: RolloutDocument
    metrics: dict[str, Metric]
    state: State


class StatusAnswer(RolloutStatus, frozen=True, kw_only=True):
    """The status with `users_exposed` (about how many units ever had the candidate) and `transitions` so far.

    `overrides`: units that a person gave a variant of the flag here; neither the rollout nor its end moves them.
    `last_change` is the newest transition. `estimates` are for people: sizes of effects with their intervals, in the
    order of the readings. `concurrent` are the exposed rollouts of the environment that this one may meet. `pending` is
    what the plan does, and when, about evidence that is missing now; `budgets` are those of the readings with spending.
    """

    users_exposed: int
    transitions: int
    last_change: Change | None
    overrides: int
    estimates: tuple[Estimates, ...]
    concurrent: tuple[Concurrent, ...]
    pending: tuple[Pending, ...]
    budgets: dict[str, Budget]


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded look: increments (from_seq, to_seq], and what they led to. `outcome` null: the same as before."""

    tick: int
    at: datetime
    from_seq: int
    to_seq: int
    engine_version: str
    digest: str
    outcome: Outcome | None


@get("/", opt=VIEW, responses=REFUSALS)
async def list_rollouts(
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
    environment: FromQuery[str | None] = None,
    flag: FromQuery[str | None] = None,
    status: FromQuery[Status | None] = None,
) -> list[Summary]:
    """The newest 200 rollouts, as far as the filters allow."""
    if environment is not None:
        caller.require(environment)
    asked = environment or caller.key.environment
    async with service.control.database.read() as session:
        rows = await rollouts.page(session, environment=asked, flag=flag, status=status)
        states = {
            where: await flag_states.of_environment(session, where) for where in {row.environment for row in rows}
        }
    now = service.control.now()
    return [_summary(row, states[row.environment].get(row.flag, FlagState()), now) for row in rows]


@post("/", opt=EDIT, responses=REFUSALS)
async def create_rollout(
    data: JSONBody[RolloutDocument], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> Response[RolloutRecord]:
    """Draft a rollout. Its plan and its metrics are frozen now; nobody is exposed before it is started."""
    caller.require(data.environment)
    identifier = await drafting.create(service.control, data, caller.name)
    async with service.control.database.read() as session:
        row = await _find(session, caller, identifier)
        return tagged(await _record(session, row, service.control.now()), row.revision, 201)


@get("/{rollout:str}", opt=VIEW, responses=REFUSALS)
async def get_rollout(
    rollout: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> Response[RolloutRecord]:
    """One rollout whole; its revision is the ETag."""
    async with service.control.database.read() as session:
        row = await _find(session, caller, rollout)
        return tagged(await _record(session, row, service.control.now()), row.revision)


@put("/{rollout:str}", opt=admits("editor", "operator"), responses=REFUSALS)
async def revise_rollout(
    rollout: FromPath[str],
    data: JSONBody[Revision],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
) -> Transition:
    """Replace the plan by its next version: anything of a draft, what is still to come of a started rollout."""
    caller.require(data.document.environment)
    async with service.control.database.read() as session:
        await _find(session, caller, rollout)
    said = (data.reason, data.revision)
    return await drafting.revise(service.control, rollout, data.document, caller.actor, said)


@get("/{rollout:str}/status", opt=VIEW, responses=REFUSALS)
async def get_status(
    rollout: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> StatusAnswer:
    """The percentage now, the next change, why it is held, and what is still needed."""
    async with service.control.database.read() as session:
        row = await _find(session, caller, rollout, evidence=True)
        killed = (await flag_states.find(session, row.flag, row.environment)).killed
        environment = await environments.find(session, row.environment)
        met = await neighbours.met(session, row) if row.status not in ENDED else ()
        users = await units_exposed(session, row)
        made = await rollouts.transitions(session, row.id)
        given = await overrides.count(session, row.environment, service.control.now(), row.flag)
    latest = None
    if row.latest is not None and row.judged_at is not None:
        latest = (row.latest.judgement, row.latest.decision, row.judged_at)
    holdout, now = environment.holdout if environment is not None else None, service.control.now()
    identity = (row.id, row.revision)
    around = Around(killed=killed, now=now, holdout=holdout)
    status = status_of(identity, row.document, row.state, latest, around)
    fields = {name: getattr(status, name) for name in RolloutStatus.__struct_fields__}
    watched = watches(row.document, row.metrics)
    estimates = await asyncio.to_thread(_estimates, row, watched, users)
    return StatusAnswer(
        **fields,
        users_exposed=users,
        transitions=len(made),
        last_change=made[-1].change if made else None,
        overrides=given,
        estimates=estimates,
        concurrent=met,
        pending=_pending(row, watched, now),
        budgets={watch.metric: watch.budget for watch in watched if watch.budget is not None},
    )


@get("/{rollout:str}/transitions", opt=VIEW, responses=REFUSALS)
async def get_transitions(
    rollout: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> list[Transition]:
    """Every recorded change, oldest first: from where to where, why, by whom, and in which ruleset."""
    async with service.control.database.read() as session:
        row = await _find(session, caller, rollout)
        return await rollouts.transitions(session, row.id)


@get("/{rollout:str}/evaluations", opt=VIEW, responses=REFUSALS)
async def get_evaluations(
    rollout: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> list[Look]:
    """The newest fifty looks, newest first."""
    async with service.control.database.read() as session:
        row = await _find(session, caller, rollout)
        looks = await rollouts.evaluations(session, row.id, newest=NEWEST_LOOKS)
    return [
        Look(
            tick=look.tick,
            at=look.at,
            from_seq=look.from_seq,
            to_seq=look.to_seq,
            engine_version=look.engine_version,
            digest=look.digest,
            outcome=msgspec.json.decode(look.outcome, type=Outcome) if look.outcome is not None else None,
        )
        for look in looks
    ]


@get("/{rollout:str}/replay", opt=VIEW, responses=REFUSALS)
async def get_replay(
    rollout: FromPath[str], service: NamedDependency[Service], caller: NamedDependency[Caller]
) -> Replayed:
    """Make every recorded look again from the increment log; `exact` when each came out as it was recorded."""
    async with service.control.database.read() as session:
        row = await _find(session, caller, rollout)
        return await replay(session, row.id)


@post("/{rollout:str}/actions/{action:str}", status_code=200, opt=REDUCE, responses=REFUSALS)
async def act(
    rollout: FromPath[str],
    action: FromPath[str],
    service: NamedDependency[Service],
    caller: NamedDependency[Caller],
    data: JSONBody[ActRequest | None] = None,
) -> Transition:
    """Start, pause, resume, advance, approve, waive, roll back, complete or cancel; answers with what was recorded."""
    known = next((each for each in ALLOWED if each == action), None)
    if known is None:
        raise NotFound(f"there is no action {action!r}; there are {', '.join(ALLOWED)}")
    if not caller.may(*NEEDS[known]):
        raise Forbidden(f"{known} needs a key with the scope {_either(NEEDS[known])}")
    async with service.control.database.read() as session:
        await _find(session, caller, rollout)
    wanted = data or ActRequest()
    what = Act(action=known, **{field: getattr(wanted, field) for field in ActRequest.__struct_fields__})
    return await commands.act(service.control, rollout, what, caller.actor)


async def _find(session: Session, caller: Caller, identifier: str, *, evidence: bool = False) -> RolloutRow:
    row = await rollouts.find(session, identifier, evidence=evidence)
    if row is None or not caller.sees(row.environment):
        raise NotFound(f"there is no rollout {identifier!r}")
    return row


def _summary(row: RolloutRow, flag: FlagState, now: datetime) -> Summary:
    stands = status_of((row.id, row.revision), row.document, row.state, None, Around(killed=flag.killed, now=now))
    return Summary(
        id=row.id,
        flag=row.flag,
        environment=row.environment,
        baseline=row.document.baseline,
        candidate=row.document.candidate,
        status=row.status,
        stage=stands.stage,
        percentage=stands.percentage,
        killed=flag.killed,
        revision=row.revision,
        author=row.author,
        created_at=row.created_at,
        ended_at=row.ended_at,
        breach=row.state.breach.metric if row.state.breach is not None else None,
        content_hash=row.content_hash,
    )


def _estimates(row: RolloutRow, watched: Sequence[Watch], units: int) -> tuple[Estimates, ...]:
    """Estimates of every metric that has been read; nothing before the first look."""
    if row.latest is None:
        return ()
    analysis = row.document.analysis
    readings = {reading.metric: reading for reading in row.latest.judgement.readings}
    return tuple(
        estimates_of(
            row.evidence.metrics[watch.metric],
            watch,
            readings[watch.metric],
            Audience(alpha_harm=harm_level(watch, watched, analysis), alpha_gate=analysis.alpha_advance, units=units),
        )
        for watch in watched
        if watch.metric in row.evidence.metrics and watch.metric in readings
    )


def _pending(row: RolloutRow, watched: Sequence[Watch], now: datetime) -> tuple[Pending, ...]:
    """What is still to come; of what is only observed, the moment passes and the status says what would have been."""
    if row.latest is None:
        return ()
    found = pending(row.document, row.state, row.latest.judgement, watched, now)
    return tuple(each for each in found if now < each.at or row.document.mode == "enforce")


async def _record(session: Session, row: RolloutRow, now: datetime) -> RolloutRecord:
    flag = await flag_states.find(session, row.flag, row.environment)
    summary = msgspec.structs.asdict(_summary(row, flag, now))
    return RolloutRecord(**summary, document=row.document, metrics=row.metrics, state=row.state)


def _either(scopes: Sequence[str]) -> str:
    return " or ".join(scopes)


routes = Router(
    "/rollouts",
    route_handlers=[
        list_rollouts,
        create_rollout,
        get_rollout,
        revise_rollout,
        get_status,
        get_transitions,
        get_evaluations,
        get_replay,
        act,
    ],
    tags=["rollouts"],
)
