"""The heart: what to do with a rollout at one look. protect() first, then progress(); they never wait for each other.

protect() can only reduce exposure; progress() can only hold or go one stage further (DESIGN.md section 5).
"""

from rollout.domain.decision import Decision, Situation
from rollout.domain.progress import progress
from rollout.domain.protect import protect


def decide(situation: Situation) -> Decision:
    """protect(), and if it has nothing to say, progress()."""
    return protect(situation) or progress(situation)
