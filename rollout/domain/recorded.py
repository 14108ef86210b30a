"""A recorded look and what people did between two of them, as a backtest reads them under another plan."""

from collections.abc import Hashable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from rollout.domain import transition
from rollout.domain.approval import gate_now
from rollout.domain.document import content_hash, duration
from rollout.domain.evidence import Evidence, Increments
from rollout.domain.metric import Metric
from rollout.domain.plan import PlanBody
from rollout.domain.rollout import ALLOWED, Approval, State, Waiver
from rollout.domain.transition import Change
from rollout_client.evaluation.evidence import MetricIncrement
from rollout_client.evaluation.ruleset import Frozen


class Inputs(Protocol):
    """What a look was made with beside the increments; the engine's own record of it, a struct."""

    @property
    def state(self) -> State:
        """Where the rollout stood before the look."""

    @property
    def units(self) -> int:
        """Candidate units of the stage so far."""

    @property
    def attempt_units(self) -> int:
        """Candidate units of the attempt so far."""

    @property
    def now(self) -> datetime:
        """The moment of the look."""


class RecordedLook(NamedTuple):
    """One recorded look: its number, what it was made with, and the increments it took in."""

    tick: int
    inputs: Any
    added: Increments


class UnitsSince:
    """Candidate units since a stay began, from recorded counts that began at other moments: at least so many.

    A count is kept for each recorded stay (`of`); units that come back are not counted twice, so the largest of their
    growths is what is certain. For the very same stays it is the recorded count, also when one is come back to.
    """

    def __init__(self) -> None:
        self._stay: Hashable = None
        self._before: dict[Hashable, dict[Hashable, int]] = {}
        self._left: dict[Hashable, dict[Hashable, int]] = {}
        self._now: dict[Hashable, int] = {}

    def count(self, of: Hashable, units: int, stay: Hashable) -> int:
        """At least how many units `stay` has had, when the recorded stay `of` has had `units`."""
        if stay != self._stay:
            self._left[self._stay] = dict(self._now)
            before, left = self._before.get(stay, {}), self._left.get(stay, {})
            meanwhile = {each: total - left.get(each, 0) for each, total in self._now.items()}
            self._stay = stay
            self._before[stay] = {each: before.get(each, 0) + grown for each, grown in meanwhile.items()}
        self._now[of] = units
        return max(total - self._before[stay].get(each, 0) for each, total in self._now.items())


def happened_before(act: Change, look: RecordedLook) -> bool:
    """Whether a look already saw what somebody did; at the very same moment its recorded state tells."""
    at, state = act.at, look.inputs.state
    if at != look.inputs.now:
        return bool(at < look.inputs.now)
    match act.step:
        case "start" | "resume" | "advance" | "regain":
            return state.attempt is not None and state.attempt.opened_at == at
        case "pause":
            return bool(state.status == "paused" and (serves(act) or state.withheld or state.blind))
        case "approve":
            return state.approval is not None and state.approval.at == at
        case "waive":
            return _waiver(act, look) is not None
        case "lapse":
            return bool(state.blind)
        case _:
            return False


def repeated(plan: PlanBody, state: State, change: Change, look: RecordedLook, attempt: str) -> State | None:
    """The state after the same act under another plan; None where it does not fit.

    An act is a change that no look led to: by a person, or by an engine that could not see. A person's advance or
    approval fits in the stage in which it was recorded.
    """
    before = state.attempt
    withheld = look.inputs.state.withheld and not serves(change)
    match change.step:
        case "pause" if state.status in ALLOWED["pause"] or withheld:
            return transition.pause(state, change.at, state.paused_reason or change.reason, withheld=withheld)
        case "resume" if state.status in ALLOWED["resume"]:
            return transition.resume(plan, state, attempt, change.at, alarmed=False)
        case "advance" if state.status in ALLOWED["advance"] and state.stage == change.from_stage:
            return transition.advance(plan, state, attempt, change.at, proven=False)
        case "approve" if state.status in ALLOWED["approve"] and before is not None:
            return (
                transition.approve(state, _approval(plan, state, change, before.id))
                if state.stage == change.from_stage
                else None
            )
        case "waive" if state.status in ALLOWED["waive"]:
            waiver = _waiver(change, look)
            return transition.waive(state, waiver) if waiver is not None else None
        case "lapse":
            return transition.lapse(state, change.at)
        case "regain":
            return transition.regain(plan, state, attempt, change.at) if state.blind else state
        case _:
            return None


def _approval(plan: PlanBody, state: State, change: Change, attempt: str) -> Approval:
    gate = gate_now(plan, state)
    until = change.at + duration(gate.expires) if gate is not None and gate.expires is not None else None
    return Approval(by=change.actor, at=change.at, attempt=attempt, content_hash=content_hash(plan), expires_at=until)


def _waiver(change: Change, look: RecordedLook) -> Waiver | None:
    """What was waived, which the next look's recorded state still knows; None when it was taken back before."""
    return next((each for each in look.inputs.state.waivers if each.at == change.at), None)


def serves(change: Change) -> bool:
    """Whether somebody has the candidate after it; a pause by a kill leaves nobody."""
    return change.to_percentage > 0.0


def with_cells_of(
    added: Increments, evidence: Evidence, recorded: Mapping[str, Frozen], metrics: Mapping[str, Metric]
) -> Increments:
    """The increments, with cells counted by recorded thresholds only where the evidence has frozen the same ones.

    Elsewhere such cells are cut to what needs no thresholds, and the design effect is the requests per unit.
    """
    other = {
        name: 1 if metrics[name].kind == "quantile" else 3
        for name, mine in evidence.metrics.items()
        if mine.frozen is not None and mine.frozen != recorded.get(name)
    }
    for slot in (slot for arms in added.values() for arm in arms.values() for slot in arm.slots.values()):
        slot.metrics.update({name: _cut(slot.metrics[name], other[name]) for name in other.keys() & slot.metrics})
    return added


def _cut(increment: MetricIncrement, width: int) -> MetricIncrement:
    """The cells as clients send them before anything is frozen: n, or n with a sum and a sum of squares."""
    cells = {cell: numbers[:width] for cell, numbers in increment.cells.items()}
    return MetricIncrement(cells=cells, histogram=increment.histogram)
