"""Folding: exact counts from many threads, in bounded memory, in the shape of the wire."""

import threading
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.python.tests.service import document
from rollout_client.evaluation import sketch
from rollout_client.evaluation.bucketing import cell, sketch_entry
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import CompiledRuleset, compile_ruleset, evaluate
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement
from rollout_client.evaluation.receipt import Receipt
from rollout_client.evaluation.ruleset import Ruleset, RulesetMetric
from rollout_client.fold import Folder
from rollout_client.increments import add, measure
from rollout_client.options import Options
from rollout_client.sending import fit
from rollout_client.tally import KEPT_SLOTS, Attempts, weigh

FLAG, SLOT = "support-answer", 29395000


def ruleset(metrics: dict[str, Any] | None = None, **changes: Any) -> CompiledRuleset:
    made = document(threshold=50_000, **changes)
    if metrics is not None:
        made["metrics"] = metrics
        made["flags"][FLAG]["rules"][0]["metrics"] = list(metrics)
    return compile_ruleset(msgspec.convert(made, Ruleset))


def folder_of(compiled: CompiledRuleset, **options: Any) -> Folder:
    folder = Folder(Options(**options), lambda: None)
    folder.follow(compiled)
    return folder


def expose(folder: Folder, compiled: CompiledRuleset, unit: str, slot: int = SLOT) -> None:
    folder.noted.append(evaluate(compiled, FLAG, Context(unit), slot=slot))
    if len(folder.noted) >= folder.together:
        folder.crowd()


def take(folder: Folder) -> dict[Any, ArmIncrement]:
    merged = {}
    for attempts in folder.take(SLOT):
        for attempt, arms in attempts.items():
            for arm, increment in arms.items():
                merged[attempt, arm] = increment
    return merged


def test_counts_are_exact_from_eight_threads_while_it_is_flushed() -> None:
    compiled = ruleset()
    folder = folder_of(compiled)
    taken: list[Attempts] = []
    done = threading.Event()

    def flush() -> None:
        while not done.is_set():
            taken.extend(folder.take(SLOT))

    def work(number: int) -> None:
        for turn in range(1_500):
            context = Context(f"user-{(number * 7 + turn) % 300}")
            answer = evaluate(compiled, FLAG, context, slot=SLOT + turn % 2)
            folder.noted.append(answer)
            folder.start(answer)
            folder.observe("thumbs_down", turn % 3 == 0, context, None, SLOT)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    flusher = threading.Thread(target=flush)
    for thread in (flusher, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    done.set()
    flusher.join()
    taken.extend(folder.take(SLOT))
    exposures = started = first = n = x = 0
    for attempts in taken:
        for increment in attempts["at_1"].values():
            for slot in increment.slots.values():
                exposures += sum(slot.exposures.values())
                started += sum(slot.started.values())
                first += sum(slot.first_exposures.values())
                for numbers in slot.metrics["thumbs_down"].cells.values() if slot.metrics else ():
                    n, x = n + numbers[0], x + numbers[1]
    assert (exposures, started, first, n, x) == (12_000, 12_000, 300, 12_000, 4_000)
    assert not folder.dropped


def test_an_exposure_lands_in_its_arm_minute_and_cell() -> None:
    compiled = ruleset()
    folder = folder_of(compiled)
    units = [f"user-{number}" for number in range(50)]
    for slot in (SLOT, SLOT + 1):
        for unit in units:
            expose(folder, compiled, unit, slot)
    taken = take(folder)
    for arm in ("baseline", "candidate"):
        mine = [unit for unit in units if evaluate(compiled, FLAG, Context(unit)).arm == arm]
        increment = taken["at_1", arm]
        cells = {cell(unit): sum(cell(other) == cell(unit) for other in mine) for unit in mine}
        assert increment.slots[SLOT].exposures == increment.slots[SLOT].first_exposures == cells
        assert increment.slots[SLOT + 1].exposures == cells
        assert increment.slots[SLOT + 1].first_exposures == {}
        registers = sketch.absorb(sketch.EMPTY, increment.sketch)
        assert registers == sketch.absorb(sketch.EMPTY, (sketch_entry(unit) for unit in mine))
    expose(folder, compiled, units[0])
    [(_, again)] = [(key, found) for key, found in take(folder).items() if found.slots]
    assert again.sketch == [], "only what rises travels"
    assert again.slots[SLOT].first_exposures == {}
    assert folder.take(SLOT) == []


def test_an_evaluation_that_is_no_evidence_is_not_counted() -> None:
    compiled = ruleset()
    folder = folder_of(compiled)
    stale = evaluate(compiled, FLAG, Context("user-1"), frozenset({900_000}))
    folder.start(stale)
    folder.finish(stale, {"error_rate": True}, ())
    assert folder.take(SLOT) == []


def test_what_ends_before_the_folder_has_read_its_ruleset_waits_for_that() -> None:
    former, served = ruleset(attempt="at_8", revision=6), ruleset(attempt="at_9", revision=7)
    folder = folder_of(former)
    early = evaluate(served, FLAG, Context("user-1"), slot=SLOT)
    late = evaluate(former, FLAG, Context("user-2"), slot=SLOT)
    folder.finish(early, {"error_rate": True, "latency_ms": 3.0}, ("error_rate", "latency_ms"))
    folder.finish(late, {"error_rate": False}, ("error_rate",))
    assert {attempt for attempt, _ in take(folder)} == {"at_8"}
    folder.follow(served)
    assert sum(n for n, _ in take(folder)["at_9", early.arm].slots[SLOT].metrics["error_rate"].cells.values()) == 1
    folder.finish(early, {"error_rate": True}, ("error_rate",))
    assert sum(n for n, _ in take(folder)["at_9", early.arm].slots[SLOT].metrics["error_rate"].cells.values()) == 1
    unheard = evaluate(ruleset(attempt="at_10", revision=8), FLAG, Context("user-1"), slot=SLOT)
    folder.finish(unheard, {"error_rate": True, "mine": 1}, ("error_rate",))
    folder.close()
    assert folder.dropped["unused"] == 1


def test_a_flush_is_asked_for_by_the_number_of_exposures() -> None:
    asked: list[None] = []
    compiled = ruleset()
    folder = Folder(Options(flush_exposures=100), lambda: asked.append(None))
    folder.follow(compiled)
    for number in range(350):
        expose(folder, compiled, f"user-{number % 10}")
        folder.observe("thumbs_down", True, Context(f"user-{number % 10}"), None, SLOT)
        if number in (120, 240):
            assert len(asked) == number // 120, "once until there is one"
            folder.take(SLOT)
    assert len(asked) == 3


def test_whoever_exposes_counts_when_nobody_flushes() -> None:
    compiled = ruleset()
    asked: list[None] = []
    folder = Folder(Options(flush_exposures=1_000), lambda: asked.append(None))
    folder.follow(compiled)
    most = 0
    for number in range(40_000):
        expose(folder, compiled, f"user-{number % 50}")
        most = max(most, len(folder.noted))
    assert most < 16_384
    assert len(asked) == 1
    assert sum(sum(arm.slots[SLOT].exposures.values()) for arm in folder.take(SLOT)[0]["at_1"].values()) == 40_000


def test_the_memory_of_units_is_bounded_and_keeps_the_latest() -> None:
    compiled = ruleset()
    folder = folder_of(compiled, remembered_units=100)
    for number in range(10_000):
        expose(folder, compiled, f"user-{number}")
        expose(folder, compiled, "user-0", SLOT + number)
    folder.count()
    remembered = folder._memory.flags[FLAG]
    assert len(remembered.young) + len(remembered.old) <= 200
    folder.observe("thumbs_down", True, Context("user-9999"), None, SLOT)
    folder.observe("thumbs_down", True, Context("user-0"), None, SLOT)
    assert not folder.dropped["no_exposure"]
    folder.observe("thumbs_down", True, Context("user-5"), None, SLOT)
    assert folder.dropped["no_exposure"] == 1


def test_minutes_that_nobody_takes_are_bounded_and_what_is_lost_is_counted() -> None:
    compiled = ruleset()
    folder = folder_of(compiled)
    context = Context("user-1")
    for minute in range(KEPT_SLOTS + 30):
        expose(folder, compiled, "user-1", SLOT + minute)
        folder.observe("thumbs_down", True, context, None, SLOT + minute)
    assert folder.dropped == {"exposures": 30, "observations": 30}
    exposures, observations = map(sum, zip(*(weigh(attempts) for attempts in folder.take(SLOT)), strict=True))
    assert (exposures, observations) == (KEPT_SLOTS, KEPT_SLOTS)


def test_a_new_attempt_counts_its_own_first_exposures_and_owns_what_follows() -> None:
    folder = folder_of(ruleset())
    expose(folder, ruleset(), "user-1")
    later = ruleset(attempt="at_2")
    folder.follow(later)
    folder.observe("thumbs_down", True, Context("user-1"), None, SLOT)
    expose(folder, later, "user-1")
    folder.observe("thumbs_down", True, Context("user-1"), None, SLOT)
    arm = evaluate(later, FLAG, Context("user-1")).arm
    taken = take(folder)
    for attempt in ("at_1", "at_2"):
        slot = taken[attempt, arm].slots[SLOT]
        assert sum(slot.first_exposures.values()) == 1
        assert list(slot.metrics["thumbs_down"].cells.values()) == [[1, 1]]


RECEIPT = Receipt("production", FLAG, "ro_1", "at_0", "candidate", "v8", SLOT - 600, 36, None)


def test_a_receipt_decides_attempt_arm_minute_and_cell() -> None:
    folder = folder_of(ruleset())
    folder.observe("thumbs_down", True, None, RECEIPT, SLOT)
    folder.observe("thumbs_down", True, None, msgspec.structs.replace(RECEIPT, slot=SLOT + 99), SLOT)
    slots = take(folder)["at_0", "candidate"].slots
    assert {slot: held.metrics["thumbs_down"].cells for slot, held in slots.items()} == {
        SLOT - 600: {36: [1, 1]},
        SLOT: {36: [1, 1]},
    }


def test_a_receipt_of_another_environment_or_of_an_unused_metric_is_not_counted() -> None:
    folder = folder_of(ruleset({"error_rate": {"kind": "proportion"}}))
    folder.observe("error_rate", True, None, msgspec.structs.replace(RECEIPT, environment="staging"), SLOT)
    folder.observe("thumbs_down", True, None, RECEIPT, SLOT)
    assert folder.take(SLOT) == []
    assert folder.dropped == {"no_exposure": 1, "unused": 1}


def test_a_pinned_outcome_stays_with_the_receipt() -> None:
    compiled = ruleset()
    folder = folder_of(compiled)
    folder.observe("thumbs_down", True, Context("user-1", receipt=RECEIPT), None, SLOT)
    assert take(folder)["at_0", "candidate"].slots[SLOT - 600].metrics["thumbs_down"].cells == {36: [1, 1]}


def test_forged_receipts_fill_no_memory() -> None:
    folder = folder_of(ruleset())
    for number in range(5_000):
        forged = msgspec.structs.replace(RECEIPT, attempt=f"at_{number}", slot=number)
        folder.observe("thumbs_down", True, None, forged, SLOT)
        folder.observe("thumbs_down", True, None, msgspec.structs.replace(RECEIPT, slot=number), SLOT)
    assert len(folder._tallies) + len(folder._strays) < 300
    assert len(folder._strays["at_0"]["candidate"].slots) <= KEPT_SLOTS


def test_a_metric_that_is_folded_otherwise_closes_what_was_folded_before() -> None:
    plain: dict[str, Any] = {"tokens": {"kind": "mean"}}
    compiled = ruleset(plain)
    folder = folder_of(compiled)
    expose(folder, compiled, "user-1")
    folder.observe("tokens", 250, Context("user-1"), None, SLOT)
    folder.follow(ruleset(plain))
    folder.observe("tokens", 250, Context("user-1"), None, SLOT)
    folder.follow(ruleset(plain, frozen={"tokens": {"cap": 100.0}}))
    folder.observe("tokens", 250, Context("user-1"), None, SLOT)
    arm: Any = evaluate(compiled, FLAG, Context("user-1")).arm
    cells = [list(one["at_1"][arm].slots[SLOT].metrics["tokens"].cells.values()) for one in folder.take(SLOT)]
    assert cells == [[[2, 500, 125_000]], [[1, 250, 62_500, 1, 100, 10_000]]]


LATENCY: dict[str, Any] = {"latency_ms": {"kind": "quantile"}}
FROZEN: dict[str, Any] = {"latency_ms": {"thresholds": [200.0, 400.0]}}


def latencies(folder: Folder) -> dict[Any, list[float]]:
    return {
        key: [number for numbers in slot.metrics["latency_ms"].cells.values() for number in numbers]
        for key, found in take(folder).items()
        for slot in found.slots.values()
        if "latency_ms" in slot.metrics
    }


def test_every_attempt_of_a_rollout_is_measured_with_what_that_rollout_froze() -> None:
    folder = folder_of(ruleset(LATENCY))
    later = ruleset(LATENCY, attempt="at_2", frozen=FROZEN)
    folder.follow(later)
    expose(folder, later, "user-1")
    folder.observe("latency_ms", 300, Context("user-1"), None, SLOT)
    assert list(latencies(folder).items()) == [(("at_2", evaluate(later, FLAG, Context("user-1")).arm), [1, 1, 1, 0])]
    for attempt in ("at_0", "at_1", "at_2"):
        folder.observe("latency_ms", 500, None, msgspec.structs.replace(RECEIPT, attempt=attempt, cell=9), SLOT)
    elsewhere = msgspec.structs.replace(RECEIPT, rollout="ro_9", attempt="at_90")
    folder.observe("latency_ms", 500, None, elsewhere, SLOT)
    found = {attempt: numbers for (attempt, _), numbers in latencies(folder).items()}
    assert found.pop("at_90") == [1], "what one rollout froze measures no other"
    assert found == {key: [1, 1, 1, 1] for key in ("at_0", "at_1", "at_2")}


def test_two_rollouts_that_share_a_metric_are_measured_apart() -> None:
    made = document(threshold=50_000)
    made["metrics"] = LATENCY
    for number, frozen in ((1, FROZEN), (2, {"latency_ms": {"thresholds": [900.0]}})):
        rule = made["flags"][FLAG]["rules"][0] | {"rollout": f"ro_{number}", "attempt": f"at_{number}"}
        rule |= {"metrics": ["latency_ms"], "frozen": frozen}
        made["flags"][f"flag-{number}"] = made["flags"][FLAG] | {"rules": [rule]}
    del made["flags"][FLAG]
    compiled = compile_ruleset(msgspec.convert(made, Ruleset))
    folder = folder_of(compiled)
    for number in (1, 2):
        answer = evaluate(compiled, f"flag-{number}", Context("user-1"), slot=SLOT)
        folder.finish(answer, {"latency_ms": 500}, ())
    arm = evaluate(compiled, "flag-1", Context("user-1")).arm
    assert latencies(folder) == {("at_1", arm): [1, 1, 1, 1], ("at_2", arm): [1, 1, 0]}


def test_what_was_measured_before_and_after_freezing_merges() -> None:
    increment = MetricIncrement()
    for numbers in ([1, 4, 16], [1, 4, 16, 1, 3, 9, 1], [1, 2, 4]):
        add(increment, 7, numbers, 128)
    assert increment.cells == {7: [3, 10, 36, 1, 3, 9, 1]}
    assert increment.histogram == {128: 3}


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ({"kind": "proportion"}, True, ([1, 1], None)),
        ({"kind": "proportion"}, 0, ([1, 0], None)),
        ({"kind": "proportion"}, 1.0, ([1, 1], None)),
        ({"kind": "count_rate"}, 3, ([1, 3], None)),
        ({"kind": "count_rate"}, (3, 2.5), ([2.5, 3], None)),
        ({"kind": "mean"}, 4, ([1, 4, 16], 128)),
        ({"kind": "mean", "cap": 3}, 4, ([1, 4, 16, 1, 3, 9], 128)),
        ({"kind": "mean", "cap": 9, "thresholds": [4, 5]}, 4, ([1, 4, 16, 1, 4, 16, 1, 0], 128)),
        ({"kind": "mean", "bounds": [-1, 1]}, -0.5, ([1, -0.5, 0.25], 250)),
        ({"kind": "distribution"}, 0, ([1, 0, 0], -1915)),
        ({"kind": "quantile"}, 4, ([1], 128)),
        ({"kind": "quantile", "thresholds": [3, 4, 5]}, 4, ([1, 1, 1, 1, 0], 128)),
        ({"kind": "quantile", "direction": "higher_is_better", "thresholds": [5, 4]}, 4, ([1, 1, 1, 0], 128)),
        ({"kind": "ratio"}, (2, 3), ([2, 3, 4, 9, 6], None)),
    ],
)
def test_each_kind_of_metric_folds_as_the_record_says(metric: Any, value: Any, expected: Any) -> None:
    assert measure(msgspec.convert(metric, RulesetMetric), value) == expected


NAN, INF = float("nan"), float("inf")
WRONG: list[tuple[dict[str, Any], list[Any]]] = [
    ({"kind": "proportion"}, [2, -1, 0.5, "1", None, NAN, [1]]),
    ({"kind": "count_rate"}, [-1, NAN, "3", None, True, (1,), (1, -1), (1, INF), 10**400]),
    ({"kind": "mean"}, [-0.1, NAN, INF, 1e13, "4", None, True, 10**400]),
    ({"kind": "mean", "bounds": (0, 1)}, [-0.1, 1.1, NAN, "0.5"]),
    ({"kind": "quantile"}, [-1, NAN, None]),
    ({"kind": "ratio"}, [1, (1,), (1, 2, 3), (1, NAN), ("1", 2), None]),
]


@pytest.mark.parametrize(("metric", "value"), [(metric, value) for metric, values in WRONG for value in values])
def test_a_value_a_metric_cannot_take_is_dropped_and_counted(metric: Any, value: Any) -> None:
    compiled = ruleset({"m": metric})
    folder = folder_of(compiled)
    expose(folder, compiled, "user-1")
    folder.take(SLOT)
    folder.observe("m", value, Context("user-1"), None, SLOT)
    assert folder.take(SLOT) == []
    assert folder.dropped == {"bad_value": 1}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 40), st.integers(0, 5)), max_size=60), st.integers(1, 3_000)
)
def test_pieces_of_a_flush_lose_nothing_and_keep_both_arms_of_a_minute_together(
    exposures: list[tuple[int, int, int]], limit: int
) -> None:
    compiled = [ruleset(attempt=f"at_{number}") for number in range(5)]
    folder = folder_of(compiled[0])
    for attempt, unit, minute in exposures:
        expose(folder, compiled[attempt], f"user-{unit}", SLOT + minute)
    for attempts in folder.take(SLOT):
        pieces = list(fit(attempts, limit))
        assert [sum(weights) for weights in zip(*map(weigh, pieces), strict=True)] == [len(exposures), 0]
        where = [
            {(attempt, slot) for attempt, arms in piece.items() for arm in arms.values() for slot in arm.slots}
            for piece in pieces
        ]
        assert sum(map(len, where)) == len(set().union(*where))
        sketches = [arm.sketch for piece in pieces for arms in piece.values() for arm in arms.values() if arm.sketch]
        assert sorted(sketches) == sorted(
            arm.sketch for arms in attempts.values() for arm in arms.values() if arm.sketch
        )
