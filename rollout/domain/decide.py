"""The heart: what to do with a rollout at one look. protect() first, then progress(); they never wait for each other.

protect() can only reduce exposure; progress() can only hold or go one stage further (DESIGN.md section 5).
"""

from datetime import datetime

import msgspec

from rollout.domain.decision import Decision, Outcome, Situation
from rollout.domain.missing import missing_now
from rollout.domain.progress import fed_at, progress
from rollout.domain.protect import protect
from rollout.domain.rollout import State


def decide(situation: Situation) -> Decision:
    """protect(), and if it has nothing to say, progress()."""
    return protect(situation) or progress(situation)


def after_look(state: State, outcome: Outcome, now: datetime) -> State:
    """What a look leaves in the state whatever it decided: since when evidence is missing, and when enough had come."""
    return msgspec.structs.replace(
        state,
        missing=missing_now(outcome.judgement, state, now),
        fed_at=fed_at(state, outcome.decision, now),
    )
