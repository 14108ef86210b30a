"""Evidence of a rollout as the judge keeps it: counts by attempt, arm and cluster cell, open minutes of slow metrics.

Everything adds up: increments merge in any order to the same evidence.
"""

import operator
from collections.abc import Sequence
from itertools import zip_longest

import msgspec

from rollout.domain.cells import NO_CELLS, Cells
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import Arm, Frozen

Increments = dict[str, dict[Arm, ArmIncrement]]
"""Attempt id -> arm -> what it adds."""
SECONDS_PER_SLOT = 60
ARMS: tuple[Arm, Arm] = ("candidate", "baseline")


class ArmSums(msgspec.Struct, omit_defaults=True):
    """Outcomes of one metric in one arm: by cell, squares of the scores, by histogram bucket, and in all.

    What the scores of a cell are depends on the metric's kind (`kinds`).
    `totals` is what people read: (n, events), or (n, sum, sum of squares) of values, or a ratio's two sums.
    """

    cells: Cells = NO_CELLS
    squares: list[float] = msgspec.field(default_factory=list)
    histogram: dict[int, float] = msgspec.field(default_factory=dict)
    totals: list[float] = msgspec.field(default_factory=list)

    def add(self, other: "ArmSums") -> None:
        """Merge by addition. Rows of numbers are replaced, never changed, so they may be shared."""
        self.add_cells(other)
        for bucket, count in other.histogram.items():
            self.histogram[bucket] = self.histogram.get(bucket, 0) + count
        self.totals = added(self.totals, other.totals)

    def add_cells(self, other: "ArmSums") -> None:
        """Merge what the design effect needs, cells and squares, and nothing else."""
        self.cells = self.cells + other.cells
        self.squares = added(self.squares, other.squares)


class Arms(msgspec.Struct, omit_defaults=True):
    """The same of both arms. `guessed` is the history that a minute is bet on; None: the newest."""

    candidate: ArmSums = msgspec.field(default_factory=ArmSums)
    baseline: ArmSums = msgspec.field(default_factory=ArmSums)
    guessed: tuple[float, float] | None = None

    def of(self, arm: Arm) -> ArmSums:
        """Sums of one arm."""
        return self.candidate if arm == "candidate" else self.baseline

    def add(self, other: "Arms") -> None:
        """Merge by addition."""
        for arm in ARMS:
            self.of(arm).add(other.of(arm))
        self.guessed = self.guessed or other.guessed


class ArmPast(msgspec.Struct, omit_defaults=True):
    """Former attempts of one arm, all that the design effect needs of them: `rollout.stats.design_effect.Clusters`.

    A cell holds n and the residual of each score, in hundredths.
    """

    cells: Cells = NO_CELLS
    independent: list[float] = msgspec.field(default_factory=list)
    part: list[float] = msgspec.field(default_factory=list)


class Calibrated(msgspec.Struct, frozen=True, kw_only=True):
    """What was frozen from the baseline, in numbers: see `rollout.stats.calibration.Calibration`."""

    cap: float
    centre: float
    scale: float
    body: tuple[float, ...]
    ladder: tuple[float, ...]
    gate: float


class GuardrailEvidence(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one watched metric has shown in the present epoch.

    Of the baseline, for the guesses of later bets: `history` (x, n) or (events, exposure), `histogram`, and what was
    frozen (`calibration`, and as clients hear it `frozen`); these outlive an epoch. `harm` is the log wealth of each
    harm bet by stage; `gate` that of each advance bet of the attempt `gate_attempt`, `gate_best` the largest log e of
    each gate. `cells` holds the present attempt, `past` the former ones by arm, `totals` all of them. `watermark`: the
    last minute already bet of a metric with maturity, `guesses` the history that each open minute is bet on. `staked`:
    outcomes that were bet, by arm; `per_unit` the most requests per unit that an attempt had. `ceiling` is the
    detector's wealth, `uncovered` events that still wait for their exposure. `spent_by_day` and `spent_by_stage` are
    what the candidate spent of a budget, `level` the detector of a budget per request.
    """

    history: tuple[float, float] | None = None
    histogram: dict[int, float] = msgspec.field(default_factory=dict)
    calibration: Calibrated | None = None
    frozen: Frozen | None = None
    harm: dict[int, list[float]] = msgspec.field(default_factory=dict)
    gate: list[float] = msgspec.field(default_factory=list)
    gate_best: list[float] = msgspec.field(default_factory=list)
    gate_attempt: str = ""
    log_e_harm: float = 0.0
    log_e_gate: float = 0.0
    design_effect: float = 1.0
    cells: dict[str, Arms] = msgspec.field(default_factory=dict)
    past: dict[Arm, ArmPast] = msgspec.field(default_factory=dict)
    totals: dict[str, dict[Arm, list[float]]] = msgspec.field(default_factory=dict)
    carried: dict[str, Arms] = msgspec.field(default_factory=dict)
    staked: dict[Arm, float] = msgspec.field(default_factory=dict)
    per_unit: float = 1.0
    ceiling: list[float] = msgspec.field(default_factory=list)
    uncovered: list[float] = msgspec.field(default_factory=list)
    spent_by_day: dict[int, float] = msgspec.field(default_factory=dict)
    spent_by_stage: dict[int, float] = msgspec.field(default_factory=dict)
    level: list[float] = msgspec.field(default_factory=list)
    watermark: int = 0
    guesses: dict[int, tuple[float, float]] = msgspec.field(default_factory=dict)
    late: int = 0
    seen_at: float = 0.0


class AttemptEvidence(msgspec.Struct, kw_only=True):
    """Exposure of one attempt: requests per arm, evaluated and started."""

    exposures: dict[Arm, int] = msgspec.field(default_factory=lambda: {"candidate": 0, "baseline": 0})
    started: dict[Arm, int] = msgspec.field(default_factory=lambda: {"candidate": 0, "baseline": 0})


class SampleRatio(msgspec.Struct, kw_only=True):
    """First exposures of one stage, all its attempts together: units that return are the same randomisation.

    `cells` holds the present stage's by cell; of a former one `effect` is kept, the design effect they had.
    """

    share: float
    counts: dict[Arm, int] = msgspec.field(default_factory=lambda: {"candidate": 0, "baseline": 0})
    effect: float = 1.0
    cells: dict[Arm, Cells] = msgspec.field(default_factory=dict)

    def add(self, arm: Arm, exposures: Cells) -> None:
        """Count first exposures of an arm by cell."""
        if exposures:
            self.cells[arm] = self.of(arm) + exposures

    def of(self, arm: Arm) -> Cells:
        """First exposures of an arm by cell."""
        return self.cells.get(arm, NO_CELLS)


class Evidence(msgspec.Struct, kw_only=True):
    """All that was gathered in one epoch: a pure function of the increment log, stored only to save time.

    `culprit` and `culprits` are those of the look that set `combined_max`.
    """

    epoch: int = 0
    bets: int = 0
    attempts: dict[str, AttemptEvidence] = msgspec.field(default_factory=dict)
    metrics: dict[str, GuardrailEvidence] = msgspec.field(default_factory=dict)
    open_slots: dict[str, dict[int, dict[Arm, SlotIncrement]]] = msgspec.field(default_factory=dict)
    samples: dict[int, SampleRatio] = msgspec.field(default_factory=dict)
    combined_max: float = 0.0
    culprit: str = ""
    culprits: tuple[str, ...] = ()
    srm_log_e: float = 0.0
    exposed_at: float = 0.0


def added(mine: Sequence[float], more: Sequence[float]) -> list[float]:
    """Sum of two rows of numbers; a shorter one is padded with zeros."""
    if len(mine) == len(more):
        return list(map(operator.add, mine, more))
    return [a + b for a, b in zip_longest(mine, more, fillvalue=0)]


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
    """Merge one minute of one arm by addition. Rows of numbers are replaced, never changed, so they may be shared."""
    for mine, added in (
        (into.exposures, more.exposures),
        (into.first_exposures, more.first_exposures),
        (into.started, more.started),
    ):
        if not mine:
            mine.update(added)
            continue
        for cell, count in added.items():
            mine[cell] = mine.get(cell, 0) + count
    for metric, increment in more.metrics.items():
        known = into.metrics.get(metric)
        if known is None:
            into.metrics[metric] = MetricIncrement(cells=dict(increment.cells), histogram=dict(increment.histogram))
        else:
            _merge_metric(known, increment)


def _merge_metric(into: MetricIncrement, more: MetricIncrement) -> None:
    """Merge by addition; what was measured before something was frozen is shorter, and padded with zeros."""
    for cell, numbers in more.cells.items():
        into.cells[cell] = added(into.cells.get(cell, ()), numbers)
    for bucket, count in more.histogram.items():
        into.histogram[bucket] = into.histogram.get(bucket, 0) + count
