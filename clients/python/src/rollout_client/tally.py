"""The counts of one process between two flushes, by attempt, arm, minute and cell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from rollout_client.evaluation.evidence import REGISTERS, ArmIncrement, MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Arm

KEPT_SLOTS = 120
"""Minutes per arm that wait for a service that does not take them; the oldest is dropped, and counted."""

ENDED = -1
"""The slot of an exposure that ended: known, so that it is not counted as first again, but no outcome is its own."""

Attempts = dict[str, dict[Arm, ArmIncrement]]
Sketches = dict[str, dict[Arm, list[tuple[int, int]]]]
"""(register, rank) pairs by attempt and arm."""


class Minute:
    """One minute of one arm: its counts by cell, its metrics by name.

    `open` is the minute for as long as what is counted here will be taken, and ENDED from then on.
    """

    __slots__ = ("arm", "attempt", "exposures", "first", "metrics", "open", "slot", "started")

    def __init__(self, attempt: str, arm: Arm, slot: int) -> None:
        self.attempt = attempt
        self.arm = arm
        self.slot = self.open = slot
        self._empty()

    def metric(self, name: str) -> MetricIncrement:
        """Return the increment of a metric, new or known; the caller adds to it."""
        increment = self.metrics.get(name)
        if increment is None:
            increment = self.metrics[name] = MetricIncrement()
        return increment

    def close(self) -> None:
        """Part a forgotten minute from the memory of units: should a clock step back to it, it is made anew."""
        self.open = ENDED

    def take(self) -> SlotIncrement | None:
        """Return what was added since the last take, and forget it; None when there was nothing."""
        if not (self.exposures or self.first or self.started or self.metrics):
            return None
        taken = SlotIncrement(
            exposures=self.exposures, first_exposures=self.first, started=self.started, metrics=self.metrics
        )
        self._empty()
        return taken

    def _empty(self) -> None:
        # Added to in one step, so that a signal handler which takes them comes before or after it, and not in between.
        self.exposures: defaultdict[int, int] = defaultdict(int)
        self.first: defaultdict[int, int] = defaultdict(int)
        self.started: defaultdict[int, int] = defaultdict(int)
        self.metrics: dict[str, MetricIncrement] = {}


class ArmTally:
    """One arm of one attempt: its sketch over the life of the process, and what the next flush takes."""

    def __init__(self, attempt: str, arm: Arm) -> None:
        self.attempt = attempt
        self.arm = arm
        self.slots: dict[int, Minute] = {}
        self._registers = bytearray(REGISTERS)
        self._risen: set[int] = set()
        self._owed: set[int] = set()

    def minute(self, slot: int) -> Minute:
        """Return a minute, new or known."""
        minute = self.slots.get(slot)
        if minute is None:
            minute = self.slots[slot] = Minute(self.attempt, self.arm, slot)
        return minute

    def see(self, register: int, rank: int) -> None:
        """Raise a register of the sketch; only what rises travels."""
        if rank > self._registers[register]:
            self._registers[register] = rank
            self._risen.add(register)

    def owe(self, entries: Iterable[tuple[int, int]]) -> None:
        """Take back what a lost batch carried of the sketch: it travels with whatever this arm sends next.

        It asks for no batch of its own, because a service that refuses this arm would be asked for ever.
        """
        for register, rank in entries:
            self._registers[register] = max(self._registers[register], rank)
            self._owed.add(register)

    def take(self, now: int) -> ArmIncrement:
        """Return what was added since the last take, and forget it; minutes that are over are forgotten whole."""
        increment = ArmIncrement()
        for slot, minute in list(self.slots.items()):
            taken = minute.take()
            if taken is not None:
                increment.slots[slot] = taken
            elif slot < now - 1:  # an evaluation that began in the last minute may still count there
                self.slots.pop(slot).close()
        if increment.slots or self._risen:
            increment.sketch = [(register, self._registers[register]) for register in sorted(self._risen | self._owed)]
            self._risen, self._owed = set(), set()
        return increment

    def crowded(self) -> SlotIncrement | None:
        """Return and forget the oldest minute when more wait than are kept, else None."""
        if len(self.slots) <= KEPT_SLOTS:
            return None
        oldest = self.slots.pop(min(self.slots))
        taken = oldest.take()
        oldest.close()
        return taken


def weigh(attempts: Mapping[str, Mapping[Arm, ArmIncrement]]) -> tuple[int, int]:
    """Return (exposures, observations) in some increments: what is lost when they are."""
    exposures = observations = 0
    for arms in attempts.values():
        for arm in arms.values():
            for slot in arm.slots.values():
                heavy = weigh_slot(slot)
                exposures, observations = exposures + heavy[0], observations + heavy[1]
    return exposures, observations


def weigh_slot(slot: SlotIncrement) -> tuple[int, int]:
    """Return (exposures, observations) of one minute; the first number of a cell is its n for every kind but ratio."""
    observations = sum(int(numbers[0]) for metric in slot.metrics.values() for numbers in metric.cells.values())
    return sum(slot.exposures.values()), observations
