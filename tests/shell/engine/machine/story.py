"""What a rollout has been through, told by its transitions alone: a model of its own, simpler than the product's.

It takes nothing of the product's state but what it compares with it.
"""

from datetime import datetime

import msgspec

from rollout.domain.document import duration
from rollout.domain.plan import ApprovalGate, RolloutDocument, Stage
from rollout_client.evaluation.bucketing import bucket
from tests.shell.engine.machine.records import Flags, Json, Record, Step

Given = dict[tuple[str, str], dict[str, str]]
"""(flag, environment) -> unit -> the variant that a person gave it, as the newest ruleset serves it."""
UNITS = ["ann", "bob", "cay", *(f"u{number}" for number in range(12))]
EXPOSED = {"running", "paused", "baking"}
ENDED = {"completed", "rolled_back", "cancelled"}


class Story:
    """One rollout. `ran` (seconds) and `since` are the clock of its stage; `units` and `sent` what each attempt was
    sent. `spending` sums what was sent of proportions by stage, `spent` what of it was there a step ago. `yes` is the
    plan that somebody approved in the present stay, and until when.
    """

    def __init__(self, record: Record, document: bytes) -> None:
        self.id, self.flag, self.environment, self.author = record.id, record.flag, record.environment, record.author
        self.plan = msgspec.json.decode(document, type=RolloutDocument)
        self.status, self.stage, self.percentage = "draft", -1, 0.0
        self.seq, self.tick, self.epoch, self.revision = 0, 0, 0, 0
        self.ran = 0.0
        self.since: datetime | None = None
        self.paused, self.blind, self.withheld = False, False, False
        self.yes: tuple[bytes, datetime | None] | None = None
        self.writers = [self.author]
        self.start_at: datetime | None = None
        self.breach: Json | None = None
        self.state: Json = record.state
        self.units: dict[str, set[int]] = {}
        self.sent: dict[str, int] = {}
        self.spending: dict[tuple[int, str], float] = {}
        self.spent: dict[tuple[int, str], float] = {}

    @property
    def observed(self) -> bool:
        """Whether nothing may move by itself."""
        return self.plan.mode == "observe"

    @property
    def lease(self) -> float | None:
        """Seconds; None: it never lapses."""
        return None if self.plan.lease == "none" or self.observed else duration(self.plan.lease).total_seconds()

    @property
    def gate(self) -> ApprovalGate | None:
        """Whose yes is needed to go on."""
        wanted = self.present.approval if self.present else self.plan.start_approval if self.stage < 0 else None
        return ApprovalGate() if wanted == "required" else wanted

    def approved(self, now: datetime) -> bool:
        """Whether somebody has said yes to this plan and this stay, and it stands still."""
        if self.yes is None or self.yes[0] != msgspec.json.encode(self.plan):
            return False
        return self.yes[1] is None or now < self.yes[1]

    def wrote(self, who: str) -> bool:
        """Whether any version of the plan is this person's."""
        return any(each.startswith(f"{who} (") for each in self.writers)

    def waived(self, now: datetime, stage: int) -> set[str]:
        """Metrics that somebody answers for at a moment."""
        return {
            each["metric"] for each in self.state["waivers"]
            if each["stage"] == stage and now < datetime.fromisoformat(each["expires_at"])
        }  # fmt: skip

    @property
    def present(self) -> Stage | None:
        """The stage it is in; None before the start and in the bake."""
        return self.plan.stages[self.stage] if 0 <= self.stage < len(self.plan.stages) else None

    def level(self, stage: int) -> float:
        """The percentage that a stage gives its population; the one behind the last is the bake."""
        if stage < len(self.plan.stages):
            return self.plan.stages[stage].percentage
        return 100.0 - self.plan.bake.holdback if self.plan.bake else 100.0

    def age(self, now: datetime) -> float:
        """Seconds in the present stage while it was running and served."""
        return self.ran + (max(0.0, (now - self.since).total_seconds()) if self.since else 0.0)

    def shortest(self) -> float:
        """Seconds that the present stage, or the bake, must last."""
        least = self.present.min_duration if self.present else self.plan.bake.duration if self.plan.bake else "0s"
        return duration(least).total_seconds()

    def units_in_stage(self, state: Json) -> int:
        """How many different units were ever sent as candidates of the present stage in the present epoch."""
        attempts = [a["id"] for a in state["attempts"] if (a["stage"], a["epoch"]) == (self.stage, state["epoch"])]
        return len(set().union(*(self.units.get(attempt, set()) for attempt in attempts)))

    def take(self, step: Step, document: bytes) -> None:
        """Go on by one transition; `document` is the plan as it is now."""
        change, name = step.change, step.change["step"]
        if name == "revise":
            before, self.plan = self.plan, msgspec.json.decode(document, type=RolloutDocument)
            self.writers.append(change["actor"])
            if change["to_status"] == "scheduled" and before.start_at != self.plan.start_at:
                self.start_at = max(self.plan.start_at or step.at, step.at)
        if name == "schedule":
            self.start_at = max(self.plan.start_at or step.at, step.at)
        self.seq, self.status, self.stage = step.seq, change["to_status"], change["to_stage"]
        self.percentage = change["to_percentage"]
        if name == "approve":
            until = self.gate.expires if self.gate is not None else None
            self.yes = (msgspec.json.encode(self.plan), None if until is None else step.at + duration(until))
        elif name in ("start", "advance", "resume", "regain", "step_back"):
            self.yes = None
        self.paused = change["to_status"] == "paused"
        self.blind = name == "lapse" or (self.blind and name not in ("regain", "roll_back", "complete"))
        self._tell_time(name, step.at)

    def _tell_time(self, name: str, at: datetime) -> None:
        if name in ("start", "advance", "step_back"):
            self.ran, self.since = 0.0, at
        elif name in ("pause", "lapse"):
            self.ran, self.since = self.age(at), None
        elif name in ("resume", "regain"):
            self.ran = self.age(at)
        running = self.status in ("running", "baking") and not self.blind
        self.since = (self.since or at) if running else None


class Serving:
    """What one flag must answer in one environment, at one moment."""

    def __init__(self, flag: str, environment: str, recorded: Flags, given: Given, story: Story | None) -> None:
        document = recorded.flags[flag]
        self.released, self.killed = recorded.states.get((flag, environment), (None, False))
        self.default: str = document["default_variant"]
        self.salt = document.get("salt") or flag
        targeting = document.get("targeting", {}).get(environment, {})
        self.overrides: dict[str, str] = {**targeting.get("overrides", {}), **given.get((flag, environment), {})}
        self.held_out = round(recorded.holdouts[environment] * 1000)
        self.vip: str | None = next((rule["variant"] for rule in targeting.get("rules", ())), None)
        self.cohorts = {key: set(cohort.get("units", ())) for key, cohort in recorded.cohorts.items()}
        self.story = story
        if story is not None:
            self.plan, self.stage, self.on = story.plan, story.stage, story.percentage > 0
            self.levels = [story.level(stage) for stage in range(story.stage + 1)]
            self.attempt = story.state["attempts"][-1]["id"] if self.on else None
            self.lease = story.lease
            self.range = story.state["slice"]

    def answer(self, unit: str, *, vip: bool, lapsed: bool) -> tuple[str, str | None]:
        """(variant, attempt that it is evidence of) for a unit; `lapsed`: nobody vouches for the lease any more."""
        if self.killed:
            return self.default, None
        if unit in self.overrides:
            return self.overrides[unit], None
        if vip and self.vip is not None:
            return self.vip, None
        if self.story is None:
            return self.released or self.default, None
        level, attempt = self._level(unit)
        if not self.takes_part(unit):
            confined = self.stage < len(self.plan.stages) and self.plan.stages[self.stage].cohort
            return self.plan.baseline if confined else self.released or self.default, None
        if lapsed and self.lease is not None:
            return self.plan.baseline, None
        salt = f"{self.salt}:{self.story.id}" if self.plan.reseed else self.salt
        has_it = self.on and bucket(salt, unit) < level * 1000
        return self.plan.candidate if has_it else self.plan.baseline, attempt

    def takes_part(self, unit: str) -> bool:
        """Whether a unit is outside the holdout, and in what the rollout owns of its group."""
        if self.held_out and bucket("holdout/holdout", unit) < self.held_out:
            return False
        group = self.plan.exclusion
        if group is None:
            return True
        return bool(self.range["start"] <= bucket(f"exclusion/{group.group}", unit) < self.range["end"])

    def has_it(self) -> set[str]:
        """Units that have the candidate by the rollout."""
        assert self.story is not None
        return {unit for unit in UNITS if self.answer(unit, vip=False, lapsed=False)[0] == self.plan.candidate}

    def _level(self, unit: str) -> tuple[float, str | None]:
        """The percentage that holds for a unit, and the attempt that it then is part of.

        A cohort keeps what an earlier stage gave it while that is more, and takes no part in evidence then.
        """
        stages, now = self.plan.stages, self.levels[self.stage]
        present = stages[self.stage].cohort if self.stage < len(stages) else None
        had = [
            earlier.percentage
            for earlier in stages[: self.stage]
            if earlier.cohort and earlier.cohort != present and unit in self.cohorts[earlier.cohort]
        ]
        most = max(had, default=0.0)
        outside = present is not None and unit not in self.cohorts[present]
        if outside or most >= 100 or most > now:
            return most, None
        return now, self.attempt

    def admits_lapse(self, age: float) -> bool:
        """Whether the lease is over when the last protect pass is `age` seconds old."""
        return self.story is not None and self.lease is not None and age > self.lease


def guardrails(plan: RolloutDocument) -> set[str]:
    """Metrics whose guardrails act."""
    return {each.metric for each in plan.guardrails if each.on_breach != "warn"}
