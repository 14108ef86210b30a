"""What people write down: rollouts and their revisions, flags and cohorts, holdouts, overrides, reports of sources."""

from datetime import timedelta
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from rollout.api import cohorts as cohort_routes
from rollout.api import environments as environment_routes
from rollout.api import flags as flag_routes
from rollout.api import metrics as metric_routes
from rollout.api import overrides as override_routes
from rollout.api import rollouts as rollout_routes
from rollout.api.metrics import SourceReport
from rollout.domain.cohort import Cohort
from rollout.domain.environment import Environment
from rollout.domain.flag import Flag
from rollout.domain.holdout import Holdout
from rollout.domain.override import OverrideRequest
from rollout.domain.plan import RolloutDocument
from rollout.engine.overrides import Place
from rollout.errors import Invalid
from tests.shell.engine.machine import documents as drawn
from tests.shell.engine.machine.documents import ENVIRONMENTS, GIVEN, PLACES, VARIANTS
from tests.shell.engine.machine.people import SCOPES, ask
from tests.shell.engine.machine.stand import Stand
from tests.shell.engine.machine.story import ENDED, Story

places = st.sampled_from([PLACES[0], *PLACES])
people = st.sampled_from(["ann", "ben", "root", "root", *SCOPES])
which = st.integers(0, 3)
"""Which of the rollouts, counted from the newest."""


class Paperwork(Stand):
    """The rules of what is written."""

    @rule(
        plan=drawn.plans(), place=places, author=people, candidate=st.sampled_from(sorted(VARIANTS)),
        start=st.booleans(), begins=drawn.beginnings(),
    )  # fmt: skip
    def draft(
        self, plan: drawn.Plan, place: tuple[str, str], author: str, candidate: str, start: bool, begins: drawn.Plan
    ) -> None:
        """A person drafts a rollout from what everyone gets today, and may start it at once."""
        today = self._today(place)
        if candidate == today:
            candidate = "v9" if today != "v9" else "v8"
        whole = {**drawn.document(plan, place, today, candidate), **begins}
        if "start_at" in whole:
            whole["start_at"] = self.clock.now + timedelta(seconds=whole["start_at"])
        document = msgspec.convert(whole, RolloutDocument)
        outcome = self.done(self.a, ask(rollout_routes.create_rollout, author, self.a.control, data=document))
        assert not isinstance(outcome, Invalid), f"a valid plan was refused: {outcome} at {outcome.path}"
        self.watch.look()
        if start and not isinstance(outcome, BaseException):
            self._act(outcome.content.id, "start", author, "off we go", None)

    @rule(broken=drawn.broken_plans(), place=places, number=which, revise=st.booleans())
    def refuse(self, broken: tuple[drawn.Plan, str], place: tuple[str, str], number: int, revise: bool) -> None:
        """A plan with one thing wrong is refused with its path, and leaves no trace; so is a revision to it."""
        plan, path = broken
        document = msgspec.convert(drawn.document(plan, place, "off", "v8"), RolloutDocument)
        audit, known = self.watch.audit, set(self.watch.last)
        drafts = [each for each in self.watch.stories.values() if each.status == "draft"]
        if revise and drafts:
            story = drafts[number % len(drafts)]
            outcome = self._revised(story, "root", {**plan, "baseline": "off", "candidate": "v8"}, story.revision)
        else:
            outcome = self.done(self.a, ask(rollout_routes.create_rollout, "ben", self.a.control, data=document))
        assert isinstance(outcome, Invalid), f"{path} was accepted: {outcome}"
        assert path in {problem for problem, _ in outcome.problems}
        self.watch.look()
        assert (self.watch.audit, set(self.watch.last)) == (audit, known)

    @precondition(lambda self: any(story.status not in ENDED for story in self.watch.stories.values()))
    @rule(number=which, name=people, change=drawn.revisions(), stale=st.sampled_from([False] * 5 + [True]))
    def revise(self, number: int, name: str, change: drawn.Plan, stale: bool) -> None:
        """Somebody replaces the plan of a rollout by its next version, where it may be replaced."""
        open_now = [story for story in self.watch.stories.values() if story.status not in ENDED]
        story = open_now[number % len(open_now)]
        before = msgspec.json.encode(story.plan)
        outcome = self._revised(story, name, drawn.revised(story.plan, story.stage, change), story.revision - stale)
        assert not (stale and hasattr(outcome, "seq")), "revised what was no more"
        if not hasattr(outcome, "seq"):
            return
        self.seen["revised"] += 1
        self.watch.look()
        assert "candidate" not in change or story.stage < 0, "the candidate of a started rollout was replaced"
        assert before != msgspec.json.encode(story.plan), "a revision that says nothing new"

    def _revised(self, story: Story, name: str, fields: drawn.Plan, revision: int) -> Any:
        document = msgspec.convert({**msgspec.to_builtins(story.plan), **fields}, RolloutDocument)
        data = rollout_routes.Revision(document=document, reason="as agreed", revision=revision)
        return self.done(self.a, ask(rollout_routes.revise_rollout, name, self.a.control, rollout=story.id, data=data))

    @rule(
        edit=drawn.edits(), name=people, environment=st.sampled_from(ENVIRONMENTS),
        held=st.sampled_from([None, None, 5.0, 20.0, 30.0]), what=st.sampled_from(["edit", "holdout", "override"]),
        unit=st.sampled_from(GIVEN), variant=st.sampled_from(sorted(VARIANTS)),
        last=st.sampled_from(["1m", "20m", "2h", ""]),
    )  # fmt: skip
    def write(
        self, edit: Flag | Cohort, name: str, environment: str, held: float | None, what: str, unit: str, variant: str,
        last: str,
    ) -> None:  # fmt: skip
        """Somebody changes a flag or a cohort, holds units out, or gives a unit a variant for a while, or ends that."""
        control = self.a.control
        if what == "edit":
            handler: Any = flag_routes.put_flag if isinstance(edit, Flag) else cohort_routes.put_cohort
            self.done(self.a, ask(handler, name, control, key=edit.key, data=edit))
        elif what == "holdout":
            holdout = Holdout(percentage=held) if held is not None else None
            data = Environment(key=environment, holdout=holdout)
            self.done(self.a, ask(environment_routes.put_environment, name, control, key=environment, data=data))
        else:
            place = Place(flag=edit.key if isinstance(edit, Flag) else "answer", environment=environment, unit=unit)
            if last:
                wanted = OverrideRequest(variant=variant, reason="on the line", expires=last)
                self.done(self.a, ask(override_routes.put_override, name, control, place=place, data=wanted))
            else:
                self.done(self.a, ask(override_routes.delete_override, name, control, place=place, reason="done"))

    @precondition(lambda self: self._exposed())
    @rule(
        number=which, metric=st.integers(0, 2), fails=st.sampled_from([3, 3, 1, 0, 0]), seconds=st.sampled_from([1, 61])
    )
    def report(self, number: int, metric: int, fails: int, seconds: float) -> None:
        """The source of a metric fails some times in a row, or answers again; then the engine looks."""
        story = self._chosen(number)
        watched = [each.metric for each in story.plan.guardrails] or ["errors"]
        key = watched[metric % len(watched)]
        for _ in range(max(fails, 1)):
            said = SourceReport(environment=story.environment, error="timed out" if fails else None)
            self.done(self.a, ask(metric_routes.report_source, "root", self.a.control, key=key, data=said))
        self.clock.move(seconds + 0.4)
        self.done(self.b, self.b.watchman.round())
