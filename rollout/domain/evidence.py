"""Evidence of a rollout as the judge keeps it: counts by attempt, arm and cluster cell, open minutes of slow metrics.

Everything adds up: increments merge in any order to the same evidence.
"""

import msgspec

from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Arm

Increments = dict[str, dict[Arm, ArmIncrement]]
"""Attempt id -> arm -> what it adds."""
CellCounts = dict[int, list[int]]
"""Cluster cell -> [n, x]."""
SECONDS_PER_SLOT = 60
ARMS: tuple[Arm, Arm] = ("candidate", "baseline")


class ArmCells(msgspec.Struct):
    """The same cells in both arms."""

    candidate: CellCounts = msgspec.field(default_factory=dict)
    baseline: CellCounts = msgspec.field(default_factory=dict)

    def of(self, arm: Arm) -> CellCounts:
        """Cells of one arm."""
        return self.candidate if arm == "candidate" else self.baseline

    def add(self, other: "ArmCells") -> None:
        """Merge by addition."""
        for arm in ARMS:
            add_cells(self.of(arm), other.of(arm))


class GuardrailEvidence(msgspec.Struct, kw_only=True):
    """What one watched metric has shown in the present epoch.

    `history` is the predictable memory of the baseline (x, n); `harm` the log wealth of each harm bet by stage; `gate`
    that of each advance bet of the attempt `gate_attempt`; `watermark` the last minute already bet of a metric with
    maturity.
    """

    history: tuple[float, float] = (0.5, 50.0)
    harm: dict[int, list[float]] = msgspec.field(default_factory=dict)
    gate: list[float] = msgspec.field(default_factory=list)
    gate_attempt: str = ""
    log_e_harm: float = 0.0
    log_e_gate: float = 0.0
    design_effect: float = 1.0
    cells: dict[str, ArmCells] = msgspec.field(default_factory=dict)
    carried: dict[str, ArmCells] = msgspec.field(default_factory=dict)
    watermark: int = 0
    late: int = 0
    seen_at: float = 0.0


class AttemptEvidence(msgspec.Struct, kw_only=True):
    """Exposure of one attempt: requests per arm, and first exposures per cell for the sample-ratio test."""

    share: float
    exposures: dict[Arm, int] = msgspec.field(default_factory=lambda: {"candidate": 0, "baseline": 0})
    started: dict[Arm, int] = msgspec.field(default_factory=lambda: {"candidate": 0, "baseline": 0})
    first: ArmCells = msgspec.field(default_factory=ArmCells)


class Evidence(msgspec.Struct, kw_only=True):
    """All that was gathered in one epoch: a pure function of the increment log, stored only to save time."""

    epoch: int = 0
    bets: int = 0
    attempts: dict[str, AttemptEvidence] = msgspec.field(default_factory=dict)
    metrics: dict[str, GuardrailEvidence] = msgspec.field(default_factory=dict)
    open_slots: dict[str, dict[int, dict[Arm, SlotIncrement]]] = msgspec.field(default_factory=dict)
    combined_max: float = 0.0
    srm_log_e: float = 0.0
    exposed_at: float = 0.0


def add_cells(into: CellCounts, more: CellCounts) -> None:
    """Merge [n, x] by cell."""
    for cell, counts in more.items():
        mine = into.get(cell)
        if mine is None:
            into[cell] = list(counts)
        else:
            mine[0] += counts[0]
            mine[1] += counts[1]


def merge(into: Increments, more: Increments) -> None:
    """Merge increments by addition; sketches are merged where they are kept."""
    for attempt, arms in more.items():
        mine = into.setdefault(attempt, {})
        for arm, increment in arms.items():
            target = mine.setdefault(arm, ArmIncrement())
            for slot, added in increment.slots.items():
                merge_slot(target.slots.setdefault(slot, SlotIncrement()), added)


def in_order(increments: Increments) -> Increments:
    """The same increments in one order, whatever order they came in: what makes a replay equal to the last bit."""
    return {
        attempt: {arm: ArmIncrement(slots=dict(sorted(arms[arm].slots.items()))) for arm in sorted(arms)}
        for attempt, arms in sorted(increments.items())
    }


def merge_slot(into: SlotIncrement, more: SlotIncrement) -> None:
    """Merge one minute of one arm by addition."""
    for mine, added in (
        (into.exposures, more.exposures),
        (into.first_exposures, more.first_exposures),
        (into.started, more.started),
    ):
        for cell, count in added.items():
            mine[cell] = mine.get(cell, 0) + count
    for metric, increment in more.metrics.items():
        _merge_metric(into.metrics.setdefault(metric, MetricIncrement()), increment)


def _merge_metric(into: MetricIncrement, more: MetricIncrement) -> None:
    for cell, numbers in more.cells.items():
        mine = into.cells.get(cell)
        into.cells[cell] = list(numbers) if mine is None else [a + b for a, b in zip(mine, numbers, strict=True)]
    for bucket, count in more.histogram.items():
        into.histogram[bucket] = into.histogram.get(bucket, 0) + count


def totals(cells: CellCounts) -> tuple[int, int]:
    """(n, x) over all cells."""
    return sum(counts[0] for counts in cells.values()), sum(counts[1] for counts in cells.values())
