"""Turns of events that single steps bring about too rarely: a few steps in an order that somebody on call would know.

Each was written for a fault of `faults` that got through thousands of steps of chance. The laws are asked after every
step of an episode too.
"""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.shell.engine.machine import documents as drawn
from tests.shell.engine.machine.evidence import Traffic
from tests.shell.engine.machine.machine import Machine
from tests.shell.engine.machine.paperwork import places, which
from tests.shell.engine.machine.story import EXPOSED, Story

seeds = st.integers(0, 2**16)


class Episodes(Machine):
    """The machine with its episodes."""

    @precondition(lambda self: self._guarded())
    @rule(number=which, seed=seeds, further=st.booleans())
    def ruin(self, number: int, seed: int, further: bool) -> None:
        """A stage that was reached by hand does great harm, and the engine takes it back, in steps if so planned."""
        story = self._one_of_the_guarded(number)
        for _ in range(1 + further):
            self._act(story.id, "advance", "root", "it will be fine", None)
        self.laws_hold()
        for minute in range(3):
            if story.status in EXPOSED:
                self._send(story, story.state["attempts"][-1], _traffic("awful", seed + minute))
            self.wait(61, True, False)
            self.laws_hold()

    @precondition(lambda self: self._guarded())
    @rule(number=which, seed=seeds, seconds=st.sampled_from([700, 7300]))
    def outlast(self, number: int, seed: int, seconds: float) -> None:
        """Somebody answers for all that is watched, for half a minute; when the time has come nobody does any more."""
        story = self._one_of_the_guarded(number)
        self._send(story, story.state["attempts"][-1], _traffic("same", seed))
        for each in story.plan.guardrails:
            self._act(story.id, "waive", "root", "known", None, metric=each.metric, expires="30s")
        self.laws_hold()
        self.wait(seconds, True, False)

    @rule(plan=drawn.plans(), place=places, after=st.sampled_from([30.0, 600.0]))
    def schedule(self, plan: drawn.Plan, place: tuple[str, str], after: float) -> None:
        """A rollout is to start later; the engine looks before its time, and then in time."""
        self.draft({**plan, "start_approval": None}, place, "root", "v8", True, {"start_at": after})
        self.laws_hold()
        self.wait(after - 20, True, False)
        self.laws_hold()
        self.wait(after, True, False)

    def _guarded(self) -> list[Story]:
        return [story for story in self._exposed() if story.plan.guardrails and story.status != "paused"]

    def _one_of_the_guarded(self, number: int) -> Story:
        guarded = self._guarded()
        return guarded[number % len(guarded)]


def _traffic(quality: str, seed: int) -> Traffic:
    return Traffic(quality, 600, 1, ("candidate", "baseline"), False, 0, seed)
