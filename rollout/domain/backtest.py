"""What another plan would have decided: the recorded looks of a rollout, taken again from the first under that plan.

The evidence keeps the exposure that it was gathered at and counts for the stay that the other plan is in, for a test
holds under any allocation. Decisions fall on recorded looks. The log cannot know what another exposure would have
brought; `Backtest.unknown` says so, and whatever else had to be left out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from rollout.domain.decide import after_look
from rollout.domain.decision import Outcome
from rollout.domain.document import Problem
from rollout.domain.evidence import Evidence, Increments, in_order, merge
from rollout.domain.metric import Metric
from rollout.domain.missing import is_blind, lapse_reason, still_blind
from rollout.domain.plan import PlanBody
from rollout.domain.recorded import RecordedLook, UnitsSince, happened_before, repeated, with_cells_of
from rollout.domain.rollout import ENDED, EXPOSED, State, Status, percentage_now, stage_name
from rollout.domain.transition import Change, Step, calibrate, lapse, regain, start
from rollout_client.evaluation.evidence import ArmIncrement, SlotIncrement

Ended = Literal["rolled_back", "completed", "cancelled", "running"]
"""How a rollout ended; "running" when it still stood somewhere as the log ended."""


class Engine(Protocol):
    """The engine's own pure functions, which the core is given: a look, and the state that follows from a decision."""

    def look(self, evidence: Evidence, added: Increments, inputs: Any) -> tuple[Evidence, Outcome]:
        """Evidence forward, verdicts, decision; consumes `evidence`."""

    def follow(self, state: State, outcome: Outcome, attempt: str, now: datetime) -> tuple[State, Step, str] | None:
        """The state after a decision that is no hold, and why; None where an observed rollout said so already."""


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """A decision: when, at which look, in which stage, why; percent of exposure after it, candidate requests before."""

    at: datetime
    tick: int
    step: Step
    stage: str
    percentage: float
    requests: int
    reason: str


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided, how it ended, in which stage, and the candidate's requests until then."""

    decisions: tuple[Decided, ...]
    ended: Ended
    stage: str
    requests: int


class Backtest(msgspec.Struct, frozen=True, kw_only=True):
    """The other plan's course beside the recorded one, over `looks` looks, and in sentences what cannot be known."""

    rollout: str
    looks: int
    backtest: Course
    recorded: Course
    unknown: tuple[str, ...]


class Log(NamedTuple):
    """What was recorded beside the looks: the plan, the changes in order with the look that led to each, the state."""

    rollout: str
    plan: PlanBody
    metrics: Mapping[str, Metric]
    changes: Sequence[tuple[int | None, Change]]
    state: State


def backtest_problems(plan: PlanBody, metrics: Mapping[str, Metric]) -> list[Problem]:
    """Guardrails and signals on metrics that the log has no evidence on; `metrics` are those that were watched."""
    known = ", ".join(sorted(metrics)) or "none"
    watched = [(f"guardrails[{i}].metric", each.metric) for i, each in enumerate(plan.guardrails)]
    watched += [(f"signals[{i}].metric", each.metric) for i, each in enumerate(plan.signals)]
    return [
        Problem(path, f"the log has no evidence on {metric!r}; it has some on: {known}")
        for path, metric in watched
        if metric not in metrics
    ]


def backtest(plan: PlanBody, log: Log, looks: Iterable[RecordedLook], engine: Engine) -> Backtest:
    """Take every recorded look again under another plan.

    Args:
        plan: the other one; it has no problems (`backtest_problems`, and those of any plan).
        log: of a rollout that was started.
        looks: in order, read one by one and not kept.
        engine: how a look is taken and a decision carried out.
    """
    again = _Again(plan, log, engine)
    recorded = _Recorded(log)
    for look in looks:
        if again.state.status not in ENDED:
            again.take(look)
        recorded.take(look)
    return Backtest(
        rollout=log.rollout,
        looks=recorded.looks,
        backtest=again.course(),
        recorded=recorded.course(),
        unknown=tuple(_unknown(again, recorded)),
    )


class _Again:
    """Where the rollout stands under the other plan."""

    def __init__(self, plan: PlanBody, log: Log, engine: Engine) -> None:
        self.plan, self._log, self._engine = plan, log, engine
        self._acts = [change for tick, change in log.changes if tick is None]
        self.skipped: list[Change] = []
        self.exposures: list[tuple[float, float]] = []  # recorded, and under this plan, at each look
        self.state = State()
        self._evidence, self._decided = Evidence(), list[Decided]()
        self._home: dict[str, str] = {}
        self._of_stage, self._of_attempt = UnitsSince(), UnitsSince()
        self._requests = 0

    def take(self, look: RecordedLook) -> None:
        """One look: what people did before it, then what the engine does in it."""
        while self._acts and happened_before(self._acts[0], look):
            self._repeat(self._acts.pop(0), look)
        recorded, state, now = look.inputs.state, self.state, look.inputs.now
        if state.blind and state.status in EXPOSED and not still_blind(self.plan, state, look.inputs.failing, now):
            state = regain(self.plan, state, self._attempt_at(now), now)
        if state.attempt is None or recorded.attempt is None or state.status not in EXPOSED:
            return
        self.exposures.append((recorded.attempt.percentage, state.attempt.percentage))
        self._requests += requests_of(look.added)
        self._home[recorded.attempt.id] = state.attempt.id
        inputs = msgspec.structs.replace(
            look.inputs,
            state=state,
            units=self._of_stage.count((recorded.epoch, recorded.stage), look.inputs.units, (state.epoch, state.stage)),
            attempt_units=self._of_attempt.count(recorded.attempt.id, look.inputs.attempt_units, state.attempt.id),
        )
        self.state = state
        self._evidence, outcome = self._engine.look(self._evidence, self._moved(look.added), inputs)
        fresh = {
            metric: mine.frozen
            for metric, mine in self._evidence.metrics.items()
            if mine.frozen is not None and metric not in state.frozen
        }
        state = calibrate(state, fresh) if fresh else state
        self.state = after_look(state, outcome, now)
        if outcome.decision.kind != "hold":
            self._follow(outcome, look, now)
        elif is_blind(self.plan, self.state, outcome.judgement, now):
            self._decide(lapse(self.state, now), "lapse", look, lapse_reason(self.plan, outcome.judgement))

    def course(self) -> Course:
        """What came of it."""
        return Course(
            decisions=tuple(self._decided),
            ended=_ended(self.state.status),
            stage=stage_name(self.plan, self.state.stage),
            requests=self._requests,
        )

    def _repeat(self, act: Change, look: RecordedLook) -> None:
        """What somebody did, or the engine when it could not see: repeated where it is possible, else left out."""
        if act.step == "start":
            first = min(act.to_stage, len(self.plan.stages) - 1)  # not the first stage on the fast track
            self.state = start(self.plan, self.state, self._attempt_at(act.at), act.at, stage=first)
            return
        if self.state.attempt is None:  # on the way to the start, which was recorded
            return
        after = repeated(self.plan, self.state, act, look, self._attempt_at(act.at))
        if after is None:
            self.skipped.append(act)
        else:
            self.state = after

    def _follow(self, outcome: Outcome, look: RecordedLook, now: datetime) -> None:
        followed = self._engine.follow(self.state, outcome, self._attempt_at(now), now)
        if followed is not None:
            state, step, reason = followed
            self._decide(state, step, look, reason)

    def _decide(self, state: State, step: Step, look: RecordedLook, reason: str) -> None:
        stage = stage_name(self.plan, self.state.stage)
        self.state = state
        self._decided.append(
            Decided(
                at=look.inputs.now,
                tick=look.tick,
                step=step,
                stage=stage,
                percentage=percentage_now(self.plan, self.state),
                requests=self._requests,
                reason=reason,
            )
        )

    def _moved(self, added: Increments) -> Increments:
        """The increments under the attempts of this course, without what only the recorded shares explain.

        What comes late for a recorded attempt belongs to the stay that was open when that attempt was last present.
        """
        present = self.state.attempt
        assert present is not None
        homes = {**{each.id: each.id for each in self.state.attempts}, **self._home}
        moved: Increments = {}
        for attempt, arms in added.items():
            merge(moved, {homes.get(attempt, present.id): {arm: _bare(each) for arm, each in arms.items()}})
        return with_cells_of(in_order(moved), self._evidence, self._log.state.frozen, self._log.metrics)

    def _attempt_at(self, now: datetime) -> str:
        """The id of an attempt that opens now: that of the recorded one that did, so that the same stays the same."""
        return next((each.id for each in self._log.state.attempts if each.opened_at == now), now.isoformat())


class _Recorded:
    """The course that was recorded, counted along with the looks."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._decided: list[Decided] = []
        self._changes: dict[int | None, list[Change]] = {}
        for tick, change in log.changes:
            self._changes.setdefault(tick, []).append(change)
        self._requests, self.looks = 0, 0
        self.last: datetime | None = None

    def take(self, look: RecordedLook) -> None:
        self.looks, self.last = self.looks + 1, look.inputs.now
        self._requests += requests_of(look.added)
        self._decided += [
            Decided(
                at=change.at,
                tick=look.tick,
                step=change.step,
                stage=stage_name(self._log.plan, change.from_stage),
                percentage=change.to_percentage,
                requests=self._requests,
                reason=change.reason,
            )
            for change in self._changes.get(look.tick, ())
            if change.step != "calibrate"
        ]

    def course(self) -> Course:
        return Course(
            decisions=tuple(self._decided),
            ended=_ended(self._log.state.status),
            stage=stage_name(self._log.plan, self._log.state.stage),
            requests=self._requests,
        )


def requests_of(added: Increments) -> int:
    """Requests that were answered with the candidate."""
    arms = [each["candidate"] for each in added.values() if "candidate" in each]
    return sum(sum(slot.exposures.values()) for arm in arms for slot in arm.slots.values())


def _bare(increment: ArmIncrement) -> ArmIncrement:
    """Without first exposures: whether the arms have their shares was judged for the recorded stages."""
    slots = {
        slot: SlotIncrement(exposures=each.exposures, started=each.started, metrics=each.metrics)
        for slot, each in increment.slots.items()
    }
    return ArmIncrement(slots=slots)


def _ended(status: Status) -> Ended:
    match status:
        case "rolled_back" | "completed" | "cancelled":
            return status
        case _:
            return "running"


def _unknown(again: _Again, recorded: _Recorded) -> Iterator[str]:
    yield "the sample ratio is left out: the shares of the arms are those of the recorded stages"
    higher = [(mine, seen) for seen, mine in again.exposures if mine > seen]
    lower = [(mine, seen) for seen, mine in again.exposures if mine < seen]
    if higher:
        yield _differs(higher, "higher") + ": evidence that more exposure would have brought is not in the log"
    if lower:
        yield _differs(lower, "lower") + ": less exposure would have brought this evidence later, and harmed fewer"
    for change in again.skipped:
        yield f"the {change.step} by {change.actor} at {change.at:%Y-%m-%d %H:%M:%S} is left out"
    if again.state.status not in ENDED and recorded.last is not None:
        yield f"the log ends at {recorded.last:%Y-%m-%d %H:%M:%S}: what would have followed is not known"


def _differs(looks: Sequence[tuple[float, float]], how: str) -> str:
    mine, seen = max(looks, key=lambda pair: abs(pair[0] - pair[1]))
    count = f"{len(looks)} looks" if len(looks) > 1 else "one look"
    return f"in {count} the exposure is {how} than what was recorded ({mine:g} % instead of {seen:g} % at the widest)"
