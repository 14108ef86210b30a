"""After every step: what was committed is read, told to the stories, held to the laws, and compared with what every
connected and every disconnected application is served.
"""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

from rollout.delivery.hub import Hub
from rollout.domain.compile import compile_ruleset
from rollout_client.evaluation import lines
from rollout_client.evaluation.context import Context
from tests.shell.engine.machine import laws, records
from tests.shell.engine.machine.documents import ENVIRONMENTS, FLAGS, GIVEN
from tests.shell.engine.machine.ground import Ground, Process
from tests.shell.engine.machine.people import person
from tests.shell.engine.machine.readers import Reader
from tests.shell.engine.machine.records import Audited, Flags, Json, Record, Step
from tests.shell.engine.machine.story import ENDED, EXPOSED, UNITS, Given, Serving, Story

CONTEXTS = [(unit, False, Context(unit)) for unit in UNITS] + [("u0", True, Context("u0", plan="vip"))]
NEAR = 0.01
"""Seconds around the end of a lease in which either answer is right: ages travel in whole milliseconds."""


class Watch:
    """Everything that the machine has seen of one example."""

    def __init__(self, ground: Ground, refresh: Callable[[Hub], None], seen: Counter[str]) -> None:
        self.refresh, self.seen = refresh, seen
        self.ground, self.rows = ground, ground.store.rows
        self.stories: dict[str, Story] = {}
        self.last: dict[str, Record] = {}
        self.flags = records.flags(self.rows)
        self.given: Given = {}
        self.failures: dict[tuple[str, str], int] = {}
        self.audit = max((row.id for row in records.audited(self.rows, 0)), default=0)
        self.vouched = records.vouched(self.rows)
        self.tags = records.environments(self.rows)
        self.readers = [Reader(environment, ground.clock) for environment in ENVIRONMENTS for _ in range(2)]
        self.held: dict[Reader, dict[str, Serving]] = {}
        self.heard: dict[Reader, float] = {}
        self.known: dict[Process, tuple[int, float]] = {}
        """Which beat of the engine a process has read, and when that was in monotonic seconds."""

    def look(self) -> None:
        """Hold what was committed since the last look to every law."""
        found, before = records.rollouts(self.rows), self.flags
        audited = records.audited(self.rows, self.audit)
        self.audit = max((row.id for row in audited), default=self.audit)
        tags = records.environments(self.rows)
        if audited or tags != self.tags:  # nothing else changes what is served
            self.flags = records.flags(self.rows)
            self._holdouts(before)
        if found != self.last:
            self.failures = records.failures(self.rows)
        now = self.ground.clock.now
        for environment, tag in tags.items():
            if tag != self.tags[environment]:
                self.given = {place: units for place, units in self.given.items() if place[1] != environment}
                for place, units in self.flags.overrides.items():
                    if place[1] == environment:
                        self.given[place] = {unit: variant for unit, (variant, end) in units.items() if end > now}
        for record in found.values():
            if self.last.get(record.id) != record:
                self._tell(record, audited, before)
        assert set(self.last) <= set(found), "a rollout is gone"
        self.last = found
        groups = {each.id: each.plan.exclusion for each in self.stories.values()}
        laws.share_nothing(list(found.values()), {key: g.group if g else None for key, g in groups.items()})
        self._publishing(tags)
        self._vouching(found)

    def _tell(self, record: Record, audited: list[Audited], before: Flags) -> None:
        story = self.stories.get(record.id)
        if story is None:
            story = self.stories[record.id] = Story(record, records.document(self.rows, record.id))
        last = self.last.get(record.id)
        if last is not None and last.status in ENDED:
            assert record == last, f"{record.id} has ended and changes still"
        steps = records.steps(self.rows, record.id, story.seq) if record.revision != story.revision else []
        looks = records.looks(self.rows, record.id, story.tick) if record.tick != story.tick else []
        place = (story.flag, story.environment)
        killed = any(states.get(place, (None, False))[1] for states in (before.states, self.flags.states))
        was_killed = before.states.get(place, (None, False))[1]
        context = laws.Context(
            {look.tick: look for look in looks}, audited, killed, was_killed, self.failures, self._proven_at(story)
        )
        for look in looks:
            decision = look.outcome["decision"]
            self.seen.update(f"{decision['kind']} {reason['code']}" for reason in decision["reasons"])
        for step in steps:
            laws.obey(story, step, context)
            laws.match_served(story, step, self._ruleset)
            self._take(story, step, record)
            self.seen[f"{step.change['step']} by {'a person' if person(step.change['actor']) else 'the engine'}"] += 1
        resumed = any(each.change["step"] == "resume" and person(each.change["actor"]) for each in steps)
        laws.was_carried_out(story, looks, steps)
        waived = sum(each.change["step"] == "waive" for each in steps)
        laws.stay_latched(story, record, resumed, waived)
        laws.agree(story, record)
        self._release(record, story, steps)
        story.spent = dict(story.spending)
        story.tick, story.revision, story.state = record.tick, record.revision, record.state
        story.epoch, story.breach, story.withheld = (record.state[name] for name in ("epoch", "breach", "withheld"))

    def _take(self, story: Story, step: Step, record: Record) -> None:
        """Go on by one transition: an advance takes the candidate from nobody, a step back gives it to nobody."""
        name, had = step.change["step"], self._has_it(story)
        story.take(step, records.document(self.rows, story.id) if name == "revise" else b"")
        if name == "step_back" or (name == "advance" and story.status in EXPOSED and story.percentage > 0):
            story.state = record.state
            has = self._has_it(story)
            assert (has <= had) if name == "step_back" else (had <= has), f"{had} had it, {has} have it: {step.change}"

    def _has_it(self, story: Story) -> set[str]:
        if not story.state["attempts"] or story.status not in EXPOSED:
            return set()
        return Serving(story.flag, story.environment, self.flags, self.given, story).has_it()

    def _proven_at(self, story: Story) -> datetime | None:
        """When the candidate completed here before."""
        place = (story.flag, story.environment, story.plan.candidate)
        ended = [
            datetime.fromisoformat(each.state["ended_at"])
            for each in self.stories.values()
            if each.status == "completed" and (each.flag, each.environment, each.plan.candidate) == place
        ]
        return max(ended, default=None)

    def _holdouts(self, before: Flags) -> None:
        """While a rollout is exposed, a holdout only grows."""
        for environment, percent in before.holdouts.items():
            exposed = [
                each.id for each in self.last.values() if each.environment == environment and each.status in EXPOSED
            ]
            assert not exposed or self.flags.holdouts[environment] >= percent, f"a holdout shrinks under {exposed}"

    def passed_over(self, now: datetime) -> list[str]:
        """Exposed rollouts that were vouched for at this moment without a look."""
        return [
            each.id for each in self.last.values()
            if each.status in EXPOSED and each.judged_at is not None and records.moment(each.protected_at) == now
            and records.moment(each.judged_at) < now
        ]  # fmt: skip

    def _release(self, record: Record, story: Story, steps: list[Step]) -> None:
        """What ended now is what everyone gets: the candidate if it completed, its baseline if it was rolled back."""
        if steps and record.status in ("completed", "rolled_back"):
            released = story.plan.candidate if record.status == "completed" else story.plan.baseline
            assert self.flags.states[(story.flag, story.environment)][0] == released

    def _ruleset(self, environment: str, revision: int) -> Json:
        return records.ruleset(self.rows, environment, revision)

    def _publishing(self, tags: dict[str, str]) -> None:
        """Numbers of rulesets only grow, a number keeps its edition, and the newest is what the record compiles to."""
        for environment, tag in tags.items():
            number, former = (int(each.partition(".")[0]) for each in (tag, self.tags[environment]))
            assert number > former or tag == self.tags[environment], f"{self.tags[environment]} became {tag}"
            if tag != self.tags[environment]:
                served = lines.decode(records.ruleset_body(self.rows, environment, number))
                wanted = compile_ruleset(records.recorded(self.rows, environment, self.given), number, served.edition)
                assert served == wanted, f"revision {number} serves {served}, recorded is {wanted}"
        self.tags = tags

    def _vouching(self, found: dict[str, Record]) -> None:
        vouched = records.vouched(self.rows)
        if vouched == self.vouched or vouched is None:
            return
        self.vouched = vouched
        now = datetime.fromtimestamp(vouched / 1000, UTC)
        for record in found.values():
            laws.may_be_vouched_for(record, self.stories[record.id], now)

    # --------------------------------------------------------------------------------------- applications
    def serving(self, environment: str) -> dict[str, Serving]:
        """What every flag must answer in an environment now."""
        exposed = {
            story.flag: story
            for story in self.stories.values()
            if story.environment == environment and story.status in EXPOSED
        }
        return {flag: Serving(flag, environment, self.flags, self.given, exposed.get(flag)) for flag in FLAGS}

    def follow(self, reader: Reader, process: Process) -> None:
        """A connected application hears the newest of a process, which reads the database about twice a second."""
        newest, known = process.control.hub.newest(reader.environment), self.known.get(process)
        if newest is None or newest.tag != self.tags[reader.environment] or known is None or known[0] != self.vouched:
            self.refresh(process.control.hub)
            assert self.vouched is not None
            age = max(0.0, self.ground.clock.now.timestamp() - self.vouched / 1000)
            known = self.known[process] = (self.vouched, self.ground.clock.monotonic - age)
        reader.follow(process.control.hub)
        assert reader.tag == self.tags[reader.environment], "a process serves another ruleset than is published"
        self.held[reader] = self.serving(reader.environment)
        self.heard[reader] = max(known[1], self.heard.get(reader, known[1]))

    def compare(self, reader: Reader) -> None:
        """Every answer is that of the ruleset which the application holds, as long as somebody vouches for it."""
        age = self.ground.clock.monotonic - self.heard[reader]
        for flag, serving in self.held[reader].items():
            near = serving.story is not None and serving.lease is not None and abs(age - serving.lease) < NEAR
            if near:
                continue
            lapsed = serving.admits_lapse(age)
            for unit, vip, context in CONTEXTS:
                answer = reader.ask(flag, context)
                wanted = serving.answer(unit, vip=vip, lapsed=lapsed)
                assert (answer.variant, answer.attempt) == wanted, (
                    f"{unit} gets {answer} of {flag} in {reader.environment}, expected {wanted}; "
                    f"vouched for {age} s ago, killed {serving.killed}"
                )
                self.seen["killed" if serving.killed else "lapsed" if lapsed else "served"] += 1
                if serving.killed:
                    assert answer.reason == "DISABLED"
                elif lapsed and answer.reason not in ("TARGETING_MATCH", "STATIC"):
                    assert answer.reason == "STALE" or answer.rollout is None, answer

    def conclude(self) -> None:
        """What holds for a whole example: one exposed rollout for each place, no gap in what was published, and every
        request that was stored counted once.
        """
        exposed = [record.exclusive for record in self.last.values() if record.exclusive is not None]
        assert len(exposed) == len(set(exposed))
        for environment in ENVIRONMENTS:
            query = f"SELECT revision FROM rulesets WHERE environment = '{environment}' ORDER BY revision"
            numbers = [number for (number,) in self.rows(query)]
            assert numbers == list(range(1, len(numbers) + 1)), "a revision is missing"
            newest = numbers[-1]
            for number in numbers[:-1]:
                document = records.ruleset(self.rows, environment, number)
                named = {unit for flag in document["flags"].values() for unit in flag.get("overrides", {})}
                assert not named & set(GIVEN), f"revision {number} of {newest} still names {named}"
        counted = records.requests(self.rows)
        for story in self.stories.values():
            for attempt, sent in story.sent.items():
                assert counted[attempt] == sent, f"{attempt} was sent {sent} requests, {counted[attempt]} are kept"
