"""The machine: everything that may happen to the service, one thing at a time, in any order.

Hypothesis draws the steps; the service under them is the real one, on a clock that jumps and on commits that fail.
"""

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from rollout.domain.rollout import ALLOWED
from rollout.engine import overrides, upkeep
from rollout.ingest.accept import accept
from tests.shell.engine.machine import documents as drawn
from tests.shell.engine.machine.documents import ENVIRONMENTS, METRICS, PLACES
from tests.shell.engine.machine.evidence import Traffic, traffic
from tests.shell.engine.machine.ground import FAULTS, Fault
from tests.shell.engine.machine.paperwork import Paperwork, people, places, which

reasons = st.sampled_from(["because", "because", "because", " "])
waivers = st.fixed_dictionaries(
    {
        "metric": st.sampled_from(["errors", "errors", *sorted(METRICS)]),
        "stage": st.sampled_from([None, None, None, "s0", "s1"]),
        "expires": st.sampled_from(["30s", "10m", "2h", "91d", None]),
    }
)
waits = st.sampled_from([1, 20, 61, 61, 700, 700, 4000, 90_000, -3, -8])
"""Seconds; the time of day is set back by a few."""
FRACTION = 0.4
"""Seconds beside every wait, so that few moments are just the end of a lease."""


class Machine(Paperwork):
    """One example: a service from its first moment through some tens of steps."""

    # ------------------------------------------------------------------------------------------- documents
    @initialize(plan=drawn.plans(), other=drawn.plans(), place=st.sampled_from(PLACES[1:]))
    def begin(self, plan: drawn.Plan, other: drawn.Plan, place: tuple[str, str]) -> None:
        """Every example begins with two rollouts that run."""
        self.draft(plan, PLACES[0], "ann", "v8", True, {"start_approval": None})
        self.draft(other, place, "ben", "v9", True, {"start_approval": None})

    # ---------------------------------------------------------------------------------------------- people
    @precondition(lambda self: self.watch.last)
    @rule(number=which, name=people, stale=st.sampled_from([False] * 5 + [True]), reason=reasons, data=st.data())
    def act(self, number: int, name: str, reason: str, stale: bool, data: st.DataObject) -> None:
        """A person acts, allowed or not, on what they saw or on what is no more."""
        record = self.watch.last[self._rollout(number)]
        fitting = [action for action, statuses in sorted(ALLOWED.items()) if record.status in statuses]
        action = data.draw(st.sampled_from([*fitting, *fitting, *sorted(ALLOWED)]), "action")
        waived = data.draw(waivers, "waived") if action == "waive" else {}
        outcome = self._act(record.id, action, name, reason, record.revision - stale, **waived)
        assert not (stale and hasattr(outcome, "seq")), "acted on what was no more"

    @precondition(lambda self: any(story.plan.guardrails for story in self._exposed()))
    @rule(number=which, metric=st.integers(0, 1), expires=st.sampled_from(["30s", "10m", "2h"]))
    def waive(self, number: int, metric: int, expires: str) -> None:
        """Somebody with every right answers for what is watched, for a while."""
        guarded = [story for story in self._exposed() if story.plan.guardrails]
        story = guarded[number % len(guarded)]
        watched = story.plan.guardrails[metric % len(story.plan.guardrails)].metric
        self._act(story.id, "waive", "root", "known", None, metric=watched, expires=expires)

    @precondition(lambda self: self._exposed())
    @rule(number=which, bold=st.booleans())
    def help(self, number: int, bold: bool) -> None:
        """Somebody with every right lets an exposed rollout go on, whatever keeps it."""
        story = self._chosen(number)
        place = (story.flag, story.environment)
        if self.watch.flags.states.get(place, (None, False))[1]:
            self.done(self.a, self._switch(place, False, "root"))
        action = "resume" if story.status == "paused" else "advance" if bold else "approve"
        self._act(story.id, action, "root", "go on", None)

    @rule(place=places, kill=st.booleans(), name=people)
    def switch(self, place: tuple[str, str], kill: bool, name: str) -> None:
        """A flag is killed, and at once every connected application serves its default; or it is restored."""
        self.done(self.a, self._switch(place, kill, name))

    # -------------------------------------------------------------------------------------------- evidence
    @precondition(lambda self: self._exposed())
    @rule(number=which, seen=traffic(), look=st.booleans())
    def flush(self, number: int, seen: Traffic, look: bool) -> None:
        """A client of a running attempt sends what it has counted."""
        story = self._chosen(number)
        self._send(story, story.state["attempts"][-1], seen)
        if look:
            self.done(self.b, self.b.watchman.round())

    @precondition(lambda self: any(story.state["attempts"] for story in self.watch.stories.values()))
    @rule(number=which, earlier=st.integers(0, 3), seen=traffic())
    def flush_late(self, number: int, earlier: int, seen: Traffic) -> None:
        """A client was away, and sends for an attempt that is over, or for a rollout that has ended."""
        story = self.watch.stories[self._rollout(number)]
        attempts = story.state["attempts"]
        if attempts:
            self._send(story, attempts[max(0, len(attempts) - 1 - earlier)], seen)

    @precondition(lambda self: self.sent)
    @rule(back=st.integers(0, 5))
    def send_again(self, back: int) -> None:
        """A client did not hear the answer: it gets the first one again, and nothing counts twice."""
        self._post(self.sent[max(0, len(self.sent) - 1 - back)])

    # ------------------------------------------------------------------------------------ time and trouble
    @precondition(lambda self: self._exposed())
    @rule(number=which, seen=traffic(), seconds=waits)
    def live(self, number: int, seen: Traffic, seconds: float) -> None:
        """A while as most are: requests are made and counted, time passes, the engine looks."""
        self.flush(number, seen, False)
        self.wait(seconds, True, False)

    @rule(seconds=waits, look=st.sampled_from([True, True, True, False]), doubt=st.sampled_from([True, False, False]))
    def wait(self, seconds: float, look: bool, doubt: bool) -> None:
        """Time passes, or is set back by some seconds; and the engine looks, or is not there."""
        self.clock.move(seconds + FRACTION)
        if look:
            self.done(self.b, self.b.watchman.round())
            if self.watch.flags.overrides:
                self.done(self.b, overrides.expire(self.b.control))
            if doubt:
                self._doubt()

    def _doubt(self) -> None:
        """Those that the engine passed over just now are looked at after all, and nothing comes of it."""
        self.watch.look()
        passed = self.watch.passed_over(self.clock.now)
        if not passed:
            return
        self.ground.faults.disarm()
        self.looks_fail[0] = 0
        self.ground.store.wake(passed, self.clock.now)
        self.done(self.b, self.b.watchman.round())
        before = {identifier: self.watch.last[identifier] for identifier in passed}
        self.watch.look()
        for identifier, record in before.items():
            after = self.watch.last[identifier]
            assert after.judged_at != record.judged_at, f"{identifier} was not looked at"
            assert (after.tick, after.revision) == (record.tick, record.revision), f"{identifier} was no quiet rollout"
            self.seen["passed over"] += 1

    @rule(what=st.tuples(st.sampled_from(FAULTS), st.integers(1, 4)))
    def fail(self, what: tuple[Fault, int]) -> None:
        """One of the next commits will fail: how, and which."""
        self.ground.faults.arm(*what)

    @rule(what=st.sampled_from(["looks 1", "looks 3", "looks 0", "reader 1", "reader 1", "reader 3", "tidy"]))
    def trouble(self, what: str) -> None:
        """The next looks fail as on a defect; an application loses the service or finds it; old ids are forgotten."""
        match what.split():
            case ["looks", count]:
                self.looks_fail[0] = int(count)
            case ["reader", number]:
                reader = self.watch.readers[int(number)]
                reader.connected = not reader.connected
            case _:
                self.done(self.a, upkeep.tidy(self.a.control))
                self.sent = []

    @precondition(lambda self: self._exposed())
    @rule(
        number=which, seen=traffic(), action=st.sampled_from(["round", "flush", "kill", *sorted(ALLOWED)]),
        name=people, seconds=st.sampled_from([0, 20, 700]),
    )  # fmt: skip
    def at_once(self, number: int, seen: Traffic, action: str, name: str, seconds: float) -> None:
        """Two processes at the same time: one looks, the other looks too, or carries out what came in."""
        story = self._chosen(number)
        self.clock.move(seconds)
        batch = None
        if action == "round":
            other = self.a.watchman.round()
        elif action == "flush":
            batch = self._batch(story, story.state["attempts"][-1], seen)
            other = accept(self.a.database, batch.environment, batch.body, self.clock.now)
        elif action == "kill":
            other = self._switch((story.flag, story.environment), True, name)
        else:
            other = self._asked(story.id, action, name, "in time", None)
        outcomes = self.run(self._settled([(self.b, self.b.watchman.round()), (self.a, other)]))
        if batch is not None:
            self._heard(batch, outcomes[1])

    # -------------------------------------------------------------------------------------------- the laws
    @invariant()
    def laws_hold(self) -> None:
        """What was committed is lawful, and every application is served it."""
        type(self).steps_taken += 1
        self.watch.look()
        for reader in self.watch.readers:
            process = self.a if reader.environment == ENVIRONMENTS[0] else self.b
            if reader.connected or reader not in self.watch.held:
                self.watch.follow(reader, process)
            self.watch.compare(reader)
