"""Until when a look can find nothing but what the last one found, as long as no evidence comes and nobody acts.

A look depends on the clock in a few places only: each is a moment at which a verdict, a gate or a policy may turn. As
long as none of them has come, looking again holds for the same reasons, so the engine need not do it. Whoever lets
`gather`, `judge` or `decide` ask the clock anew adds the moment here.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from rollout.domain.document import duration
from rollout.domain.evidence import SECONDS_PER_SLOT, Evidence
from rollout.domain.missing import patience_of
from rollout.domain.plan import PlanBody
from rollout.domain.rollout import State
from rollout.domain.watch import Watch

HORIZON = timedelta(minutes=10)
"""Even the quietest rollout is looked at this often."""
_BLUR = timedelta(milliseconds=1)
"""Seconds since 1970 are rounded a little: this near to a moment it may have come or not."""


def quiet_until(plan: PlanBody, watches: Sequence[Watch], state: State, evidence: Evidence, now: datetime) -> datetime:
    """The first moment after a hold at `now` at which a look could find something else; `now` if that is too near.

    Args:
        plan: what the rollout is run by.
        watches: all that is watched.
        state: the state after the look, with what it remembers (`decide.after_look`).
        evidence: the evidence after the look.
        now: when it was.
    """
    nearest = now + HORIZON
    for moment in _moments(plan, watches, state, evidence):
        if abs(moment - now) <= _BLUR:
            return now
        if now < moment < nearest:
            nearest = moment
    return nearest


def _moments(plan: PlanBody, watches: Sequence[Watch], state: State, evidence: Evidence) -> Iterator[datetime]:
    """Everything that the clock may turn, past or to come."""
    yield from _of_the_stage(plan, state)
    patience = patience_of(plan)
    for watch in watches:
        absence = state.missing.get(watch.metric)
        if absence is not None:
            yield absence.since + patience
            yield from (absence.since + timedelta(seconds=each.after) for each in watch.on_missing if each.after)
    yield from _of_people(state)
    yield from _of_the_attempt(state, watches)
    yield _at(evidence.exposed_at + patience.total_seconds())
    for watch in watches:
        mine = evidence.metrics[watch.metric]
        yield _at(mine.seen_at + patience.total_seconds() + _awaited(watch))
        if watch.maturity > 0:
            due = (slot for minutes in evidence.open_slots.values() for slot in minutes if slot > mine.watermark)
            first = min(due, default=None)
            if first is not None:
                yield _at((first + 1) * SECONDS_PER_SLOT + watch.maturity)


def _of_the_stage(plan: PlanBody, state: State) -> Iterator[datetime]:
    """When the stage or the bake has lasted long enough, or too long; a clock that stands still never gets there."""
    if state.clock_since is None:
        return
    began = state.clock_since - timedelta(seconds=state.elapsed)
    if state.stage < len(plan.stages):
        stage = plan.stages[state.stage]
        yield began + duration(stage.min_duration)
        if stage.max_duration is not None and state.fed_at is not None:
            yield began + timedelta(seconds=state.fed_at) + duration(stage.max_duration)
    elif plan.bake is not None:
        yield began + duration(plan.bake.duration)


def _of_people(state: State) -> Iterator[datetime]:
    """When what a person said ends, and when a rollback in steps goes on."""
    yield from (waiver.expires_at for waiver in state.waivers)
    if state.approval is not None and state.approval.expires_at is not None:
        yield state.approval.expires_at
    if state.retreat_at is not None:
        yield state.retreat_at


def _of_the_attempt(state: State, watches: Sequence[Watch]) -> Iterator[datetime]:
    """When outcomes of a new attempt should have come."""
    attempt = state.attempt
    if attempt is not None:
        for watch in watches:
            yield attempt.opened_at + timedelta(seconds=_awaited(watch) + SECONDS_PER_SLOT)


def _awaited(watch: Watch) -> float:
    """Seconds until the outcomes of an exposure are due."""
    return watch.maturity + SECONDS_PER_SLOT if watch.maturity else 0.0


def _at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
