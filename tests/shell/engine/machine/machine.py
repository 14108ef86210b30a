"""The machine: everything that may happen to the service, one thing at a time, in any order.

Hypothesis draws the steps; the service under them is the real one, on a clock that jumps and on commits that fail.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rollout.api import cohorts as cohort_routes
from rollout.api import flags as flag_routes
from rollout.api import rollouts as rollout_routes
from rollout.db.session import Unavailable
from rollout.delivery.publish import gathered
from rollout.domain.cohort import Cohort
from rollout.domain.compile import compile_ruleset
from rollout.domain.flag import Flag
from rollout.domain.plan import RolloutDocument
from rollout.domain.rollout import ALLOWED
from rollout.engine import upkeep
from rollout.engine.replay import replay
from rollout.errors import Invalid, RolloutError
from rollout.ingest.accept import accept
from rollout_client.evaluation.evidence import Batch, BatchAnswer
from rollout_client.evaluation.ruleset import Frozen
from tests.shell.engine.machine import documents as drawn
from tests.shell.engine.machine.documents import ENVIRONMENTS, METRICS, PLACES, VARIANTS
from tests.shell.engine.machine.evidence import Traffic, arms_of, traffic
from tests.shell.engine.machine.ground import FAULTS, Crash, Fault, Ground, Process
from tests.shell.engine.machine.people import SCOPES, ask
from tests.shell.engine.machine.story import EXPOSED, Story
from tests.shell.engine.machine.watch import Watch

places = st.sampled_from([PLACES[0], *PLACES])
people = st.sampled_from(["ann", "ben", "root", "root", *SCOPES])
reasons = st.sampled_from(["because", "because", "because", " "])
which = st.integers(0, 3)
"""Which of the rollouts, counted from the newest."""
waits = st.sampled_from([1, 20, 61, 61, 700, 700, 4000, 90_000, -3, -8])
"""Seconds; the time of day is set back by a few."""
FRACTION = 0.4
"""Seconds beside every wait, so that few moments are just the end of a lease."""


class Sent(msgspec.Struct):
    """A batch of evidence of one attempt: its candidate `units`, its `requests` in both arms, and the stored answer."""

    id: str
    environment: str
    body: bytes
    story: str
    attempt: str
    epoch: int
    units: set[int]
    requests: int
    answer: bytes | None = None


class Machine(RuleBasedStateMachine):
    """One example: a service from its first moment through some tens of steps."""

    ground: Ground
    runner: asyncio.Runner
    steps_taken = 0
    seen: Counter[str] = Counter()
    looks_fail: list[int] = [0]
    """How many of the next looks fail; shared with whoever makes them fail."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = self.ground.clock
        self.a, self.b = self.run(self.ground.renew())
        self.looks_fail[0] = 0
        self.sent: list[Sent] = []
        self.batches = 0
        self.watch = Watch(self.ground, lambda hub: self.run(hub.refresh()), self.seen)
        self.done(self.a, self.a.watchman.round())
        self.watch.look()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Carry something out that no fault ends."""
        return self.runner.run(coroutine)

    def done(self, process: Process, act: Coroutine[Any, Any, Any]) -> Any:
        """What an act of one process returned or raised; a process that died starts again."""
        (outcome,) = self.run(self._settled([(process, act)]))
        return outcome

    async def _settled(self, acts: list[tuple[Process, Coroutine[Any, Any, Any]]]) -> list[Any]:
        outcomes = await asyncio.gather(*(act for _, act in acts), return_exceptions=True)
        for (process, _), outcome in zip(acts, outcomes, strict=True):
            self.seen[type(outcome).__name__] += 1
            if isinstance(outcome, Crash):
                await process.restart()
            elif isinstance(outcome, BaseException) and not isinstance(outcome, (RolloutError, Unavailable)):
                raise outcome
        return outcomes

    # ------------------------------------------------------------------------------------------- documents
    @initialize(plan=drawn.plans(), other=drawn.plans(), place=st.sampled_from(PLACES[1:]))
    def begin(self, plan: drawn.Plan, other: drawn.Plan, place: tuple[str, str]) -> None:
        """Every example begins with two rollouts that run."""
        self.draft(plan, PLACES[0], "ann", "v8", True)
        self.draft(other, place, "ben", "v9", True)

    @rule(
        plan=drawn.plans(),
        place=places,
        author=people,
        candidate=st.sampled_from(sorted(VARIANTS)),
        start=st.booleans(),
    )
    def draft(self, plan: drawn.Plan, place: tuple[str, str], author: str, candidate: str, start: bool) -> None:
        """A person drafts a rollout from what everyone gets today, and may start it at once."""
        today = self._today(place)
        if candidate == today:
            candidate = "v9" if today != "v9" else "v8"
        document = msgspec.convert(drawn.document(plan, place, today, candidate), RolloutDocument)
        outcome = self.done(self.a, ask(rollout_routes.create_rollout, author, self.a.control, data=document))
        assert not isinstance(outcome, Invalid), f"a valid plan was refused: {outcome} at {outcome.path}"
        self.watch.look()
        if start and not isinstance(outcome, BaseException):
            self._act(outcome.content.id, "start", author, "off we go", None)

    @rule(broken=drawn.broken_plans(), place=places)
    def refuse(self, broken: tuple[drawn.Plan, str], place: tuple[str, str]) -> None:
        """A plan with one thing wrong is refused with its path, and leaves no trace."""
        plan, path = broken
        document = msgspec.convert(drawn.document(plan, place, "off", "v8"), RolloutDocument)
        audit, known = self.watch.audit, set(self.watch.last)
        outcome = self.done(self.a, ask(rollout_routes.create_rollout, "ben", self.a.control, data=document))
        assert isinstance(outcome, Invalid), f"{path} was accepted: {outcome}"
        assert path in {problem for problem, _ in outcome.problems}
        self.watch.look()
        assert (self.watch.audit, set(self.watch.last)) == (audit, known)

    @rule(edit=drawn.edits(), name=people)
    def edit(self, edit: Flag | Cohort, name: str) -> None:
        """Somebody changes a flag's default, overrides or rules, or who belongs to a cohort."""
        handler: Any = flag_routes.put_flag if isinstance(edit, Flag) else cohort_routes.put_cohort
        self.done(self.a, ask(handler, name, self.a.control, key=edit.key, data=edit))

    # ---------------------------------------------------------------------------------------------- people
    @precondition(lambda self: self.watch.last)
    @rule(number=which, name=people, stale=st.sampled_from([False] * 5 + [True]), reason=reasons, data=st.data())
    def act(self, number: int, name: str, reason: str, stale: bool, data: st.DataObject) -> None:
        """A person acts, allowed or not, on what they saw or on what is no more."""
        record = self.watch.last[self._rollout(number)]
        fitting = [action for action, statuses in sorted(ALLOWED.items()) if record.status in statuses]
        action = data.draw(st.sampled_from([*fitting, *fitting, *sorted(ALLOWED)]), "action")
        outcome = self._act(record.id, action, name, reason, record.revision - stale)
        assert not (stale and hasattr(outcome, "seq")), "acted on what was no more"

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
        self.wait(seconds, True)

    @rule(seconds=waits, look=st.sampled_from([True, True, True, False]))
    def wait(self, seconds: float, look: bool) -> None:
        """Time passes, or is set back by some seconds; and the engine looks, or is not there."""
        self.clock.move(seconds + FRACTION)
        if look:
            self.done(self.b, self.b.watchman.round())

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

    def teardown(self) -> None:
        """What holds at the end: every look can be made again, and every batch counts once."""
        self.ground.faults.disarm()
        try:
            if sys.exception() is None:  # else a law is broken already, and that one is to be told
                self.run(self._ended())
                self.watch.conclude()
                self.seen["concluded"] += 1
        finally:
            self.run(self.ground.close())

    async def _ended(self) -> None:
        async with self.a.database.read() as session:
            for identifier, record in self.watch.last.items():
                found = await replay(session, identifier)
                assert found.exact, f"{identifier} is replayed otherwise: {found}; {record.status}"
            await self.a.control.hub.refresh()
            for environment in ENVIRONMENTS:
                served = self.a.control.hub.newest(environment)
                assert served is not None
                wanted = compile_ruleset(await gathered(session, environment, self.clock.now), 0)
                assert msgspec.structs.replace(served.ruleset, revision=0, edition="") == wanted

    # --------------------------------------------------------------------------------------------- helpers
    def _rollout(self, number: int) -> str:
        known = sorted(self.watch.last, reverse=True)
        return known[number % len(known)]

    def _exposed(self) -> list[Story]:
        return [story for story in self.watch.stories.values() if story.status in EXPOSED]

    def _chosen(self, number: int) -> Story:
        exposed = self._exposed()
        return exposed[number % len(exposed)]

    def _today(self, place: tuple[str, str]) -> str:
        released, _ = self.watch.flags.states.get(place, (None, False))
        return released or str(self.watch.flags.flags[place[0]]["default_variant"])

    def _act(self, identifier: str, action: str, name: str, reason: str, revision: int | None) -> Any:
        return self.done(self.a, self._asked(identifier, action, name, reason, revision))

    def _asked(self, identifier: str, action: str, name: str, reason: str, revision: int | None) -> Any:
        data = rollout_routes.ActRequest(reason=reason, revision=revision)
        return ask(rollout_routes.act, name, self.a.control, rollout=identifier, action=action, data=data)

    def _switch(self, place: tuple[str, str], kill: bool, name: str) -> Any:
        flag, environment = place
        handler = flag_routes.kill_flag if kill else flag_routes.restore_flag
        data = flag_routes.Switch(environment=environment, reason="drill")
        return ask(handler, name, self.a.control, key=flag, data=data)

    def _send(self, story: Story, attempt: dict[str, Any], seen: Traffic) -> None:
        self._post(self._batch(story, attempt, seen))

    def _batch(self, story: Story, attempt: dict[str, Any], seen: Traffic) -> Sent:
        watched = {each.metric for each in (*story.plan.guardrails, *story.plan.signals)}
        metrics = {key: metric for key, metric in METRICS.items() if key in watched}
        frozen = msgspec.convert(story.state["frozen"], dict[str, Any])
        frozen = {key: msgspec.convert(each, Frozen) for key, each in frozen.items()}
        minute = int(self.clock.now.timestamp()) // 60
        arms, units = arms_of(seen, attempt["percentage"], metrics, frozen, minute)
        self.batches += 1
        batch = Batch(
            batch_id=f"batch-{self.batches}",
            environment=story.environment, process="p", client="test", attempts={attempt["id"]: arms},
        )  # fmt: skip
        requests = sum(sum(slot.exposures.values()) for arm in arms.values() for slot in arm.slots.values())
        sent = Sent(
            batch.batch_id,
            story.environment,
            msgspec.json.encode(batch),
            story.id,
            attempt["id"],
            attempt["epoch"],
            units,
            requests,
        )
        self.sent.append(sent)
        return sent

    def _post(self, batch: Sent) -> None:
        process = self.a if len(self.sent) % 2 else self.b
        first, story = batch.answer is None, self.watch.stories[batch.story]
        self._heard(batch, self.done(process, accept(process.database, batch.environment, batch.body, self.clock.now)))
        over = story.status not in EXPOSED or story.epoch != batch.epoch
        if first and over and batch.answer is not None:
            assert _orphaned(batch.answer), f"{batch.attempt} is over, and its evidence was taken"

    def _heard(self, batch: Sent, outcome: Any) -> None:
        """Take note of what was stored of a batch: what its sender heard, or what nobody could tell it."""
        assert not isinstance(outcome, Invalid), f"{outcome} at {outcome.path}"
        query = f"SELECT answer FROM batches WHERE batch = '{batch.id}'"
        stored = next((text.encode() for (text,) in self.ground.store.rows(query)), None)
        if isinstance(outcome, bytes):
            assert outcome == stored, "what was answered is not what was stored"
        assert batch.answer in (None, stored), "the second answer is another one"
        if stored is not None and batch.answer is None and not _orphaned(stored):
            story = self.watch.stories[batch.story]
            story.units.setdefault(batch.attempt, set()).update(batch.units)
            story.sent[batch.attempt] = story.sent.get(batch.attempt, 0) + batch.requests
        batch.answer = stored


def _orphaned(answer: bytes) -> bool:
    return msgspec.json.decode(answer, type=BatchAnswer).orphaned > 0
