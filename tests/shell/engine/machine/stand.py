"""What the machine's rules are made of: two processes of the service, acts that may fail, batches, and the watch."""

import asyncio
import sys
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import msgspec
from hypothesis.stateful import RuleBasedStateMachine

from rollout.api import flags as flag_routes
from rollout.api import rollouts as rollout_routes
from rollout.db.session import Unavailable
from rollout.delivery.publish import gathered
from rollout.domain.compile import compile_ruleset
from rollout.engine import overrides
from rollout.engine.replay import replay
from rollout.errors import Invalid, RolloutError
from rollout.ingest.accept import accept
from rollout_client.evaluation.evidence import Batch, BatchAnswer
from rollout_client.evaluation.ruleset import Frozen
from tests.shell.engine.machine.documents import ENVIRONMENTS, METRICS
from tests.shell.engine.machine.evidence import Arms, Traffic, arms_of
from tests.shell.engine.machine.ground import Crash, Ground, Process
from tests.shell.engine.machine.people import ask
from tests.shell.engine.machine.story import EXPOSED, Story
from tests.shell.engine.machine.watch import Watch


class Sent(msgspec.Struct):
    """A batch of evidence of one attempt: its candidate `units`, its `requests` in both arms, the `failed` ones of the
    candidate, and the stored answer.
    """

    id: str
    environment: str
    body: bytes
    story: str
    attempt: str
    epoch: int
    units: set[int]
    requests: int
    stage: int
    failed: int
    answer: bytes | None = None


class Stand(RuleBasedStateMachine):
    """One example without its rules."""

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
        await overrides.expire(self.a.control)
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

    def _act(
        self, identifier: str, action: str, name: str, reason: str, revision: int | None, **waived: str | None
    ) -> Any:
        return self.done(self.a, self._asked(identifier, action, name, reason, revision, **waived))

    def _asked(
        self, identifier: str, action: str, name: str, reason: str, revision: int | None, **waived: str | None
    ) -> Any:
        data = rollout_routes.ActRequest(reason=reason, revision=revision, **waived)
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
            attempt["stage"],
            _failed(arms),
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
            place = (batch.stage, "errors")
            story.spending[place] = story.spending.get(place, 0.0) + batch.failed
            story.sent[batch.attempt] = story.sent.get(batch.attempt, 0) + batch.requests
        batch.answer = stored


def _orphaned(answer: bytes) -> bool:
    return msgspec.json.decode(answer, type=BatchAnswer).orphaned > 0


def _failed(arms: Arms) -> int:
    """Failed requests of the candidate."""
    slots = arms["candidate"].slots.values() if "candidate" in arms else ()
    cells = (slot.metrics["errors"].cells.values() for slot in slots if "errors" in slot.metrics)
    return int(sum(numbers[1] for each in cells for numbers in each))
