"""What a rollout's status says: the percentage now, the next change, why it is held, what is still needed."""

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from rollout.domain.decision import Decision, Reason
from rollout.domain.document import duration
from rollout.domain.holdout import Holdout
from rollout.domain.judge import Judgement, Reading
from rollout.domain.plan import RolloutDocument, percentage_of
from rollout.domain.protect import KILLED
from rollout.domain.rollout import ENDED, EXPOSED, Breach, State, Status, Waiver, Would, percentage_now, stage_name
from rollout.domain.starting import start_reasons
from rollout.domain.transition import goes_in_steps


class NextChange(msgspec.Struct, frozen=True, kw_only=True):
    """What happens next if every gate opens, and the earliest moment it can."""

    to: str
    percentage: float
    not_before: datetime | None


class Around(msgspec.Struct, frozen=True, kw_only=True):
    """What a status needs beside the rollout: whether its flag is killed, the moment, and the environment's holdout."""

    killed: bool
    now: datetime
    holdout: Holdout | None = None


class RolloutStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of GET /rollouts/{id}/status: for people on call and for programs.

    `percentage` is what is served the candidate now, of everyone or, with a `cohort`, of that cohort. Under a holdout,
    or in an exclusion group, only `reach` percent of the units take part at all, and the percentage is of these.
    `would` is what a rollout that is only observed would have done; `waivers` are those that stand; `document` numbers
    its version.
    """

    id: str
    flag: str
    environment: str
    baseline: str
    candidate: str
    status: Status
    stage: str
    percentage: float
    cohort: str | None
    reach: float
    group: str | None
    killed: bool
    guarded: bool
    proven: bool
    awaiting_approval: bool
    held: tuple[Reason, ...]
    next_change: NextChange | None
    needed: tuple[str, ...]
    readings: tuple[Reading, ...]
    units: int
    epoch: int
    breach: Breach | None
    mode: Literal["enforce", "observe"]
    would: Would | None
    waivers: tuple[Waiver, ...]
    document: int
    decision: str | None
    judged_at: datetime | None
    revision: int


def status_of(
    identity: tuple[str, int],
    document: RolloutDocument,
    state: State,
    latest: tuple[Judgement, Decision, datetime] | None,
    around: Around,
) -> RolloutStatus:
    """Join the record of a rollout with its latest evaluation; `identity` is (id, revision)."""
    judgement, decision, judged_at = latest if latest is not None else (None, None, None)
    live = state.status in EXPOSED
    held = decision.reasons if live and decision is not None and decision.kind == "hold" else ()
    if state.status != "paused":
        held = tuple(reason for reason in held if reason.code != "paused")  # resumed since the look that said so
    if live and state.blind:
        held = (Reason("blind", "the engine could not see its evidence for a whole lease; nobody is exposed"), *held)
    if live and state.withheld:
        restored = state.paused_reason == KILLED and not around.killed
        why = "the flag was killed, and is restored" if restored else state.paused_reason
        held = (Reason("withheld", f"nobody is exposed until the rollout is resumed: {why}"),)
    if state.status == "scheduled":
        held = start_reasons(document, state, around.now)
    return RolloutStatus(
        id=identity[0],
        flag=document.flag,
        environment=document.environment,
        baseline=document.baseline,
        candidate=document.candidate,
        status=state.status,
        stage=stage_name(document, state.stage),
        percentage=0.0 if around.killed else percentage_now(document, state),
        cohort=_cohort(document, state),
        reach=_reach(document, state, around.holdout),
        group=document.exclusion.group if document.exclusion is not None else None,
        killed=around.killed,
        guarded=bool(document.guardrails),
        proven=bool(document.guardrails) and not state.unproven_stages,
        awaiting_approval=any(reason.code == "awaiting_approval" for reason in held),
        held=held,
        next_change=_next_change(document, state),
        needed=tuple(reason.message for reason in held),
        readings=judgement.readings if judgement else (),
        units=judgement.units if judgement else 0,
        epoch=state.epoch,
        breach=state.breach,
        mode=document.mode,
        would=state.would,
        waivers=tuple(waiver for waiver in state.waivers if around.now < waiver.expires_at),
        document=state.document,
        decision=decision.kind if decision else None,
        judged_at=judged_at,
        revision=identity[1],
    )


def _cohort(document: RolloutDocument, state: State) -> str | None:
    """Whose percentage it is, when not everyone's."""
    present = state.status in EXPOSED and 0 <= state.stage < len(document.stages)
    return document.stages[state.stage].cohort if present else None


def _reach(document: RolloutDocument, state: State, holdout: Holdout | None) -> float:
    """Percentage of the units that can be in either arm; a holdout and a group are drawn independently."""
    if state.status in ENDED:
        return 100.0
    share = document.exclusion.share if document.exclusion is not None else 100.0
    return share * (100.0 - (holdout.percentage if holdout is not None else 0.0)) / 100.0


def _next_change(document: RolloutDocument, state: State) -> NextChange | None:
    if state.status == "scheduled":
        return NextChange(to=stage_name(document, 0), percentage=percentage_of(document, 0), not_before=state.start_at)
    if state.retreat_at is not None and goes_in_steps(document, state):
        lower = state.stage - 1
        to = stage_name(document, lower)
        return NextChange(to=to, percentage=percentage_of(document, lower), not_before=state.retreat_at)
    if state.retreat_at is not None:
        return NextChange(to="rolled_back", percentage=0.0, not_before=state.retreat_at)
    if state.status not in ("running", "baking") or state.clock_since is None:
        return None
    if state.status == "baking" and document.bake is not None:
        least, following = duration(document.bake.duration), None
    else:
        least, following = duration(document.stages[state.stage].min_duration), state.stage + 1
    begun = state.clock_since - timedelta(seconds=state.elapsed)
    if following is None or (following == len(document.stages) and document.bake is None):
        return NextChange(to="completed", percentage=100.0, not_before=begun + least)
    return NextChange(
        to=stage_name(document, following), percentage=percentage_of(document, following), not_before=begun + least
    )
