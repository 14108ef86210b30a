"""Evidence of a tick: what is bet, when, and with which n; nothing depends on how increments were cut into batches."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.domain.evidence import Evidence, Increments, in_order, merge
from rollout.domain.gather import Round, gather
from rollout.domain.metric import Metric
from rollout.domain.rollout import Attempt
from rollout.domain.watch import Watch, gate_margin, watches
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from tests.core.domain.plans import START, World, at, rollout

MINUTE = int(START.timestamp()) // 60


def attempt(identifier: str = "at_1", stage: int = 0, epoch: int = 1) -> Attempt:
    return Attempt(id=identifier, number=1, stage=stage, epoch=epoch, percentage=10, opened_at=START)


def watched(metric: str = "error_rate", **changes: Any) -> tuple[Watch, ...]:
    plan = rollout(guardrails=[{"metric": metric, "max_regression": {"absolute": 0.02}, **changes}])
    return watches(plan, World.metrics)


def increments(
    arm: str, cells: dict[int, tuple[int, int]], metric: str = "error_rate", slot: int = MINUTE
) -> Increments:
    n = {cell: count for cell, (count, _) in cells.items()}
    outcomes = {metric: MetricIncrement(cells={cell: [float(v) for v in both] for cell, both in cells.items()})}
    added = SlotIncrement(exposures=dict(n), first_exposures=dict(n), started=dict(n), metrics=outcomes)
    return {"at_1": {arm: ArmIncrement(slots={slot: added})}}


def both(candidate: dict[int, tuple[int, int]], baseline: dict[int, tuple[int, int]], **rest: Any) -> Increments:
    result = increments("candidate", candidate, **rest)
    merge(result, increments("baseline", baseline, **rest))
    return result


def tick(now: float = 1, watching: tuple[Watch, ...] | None = None, attempts: tuple[Attempt, ...] = ()) -> Round:
    plan = rollout()
    chosen = watching or watched()
    margins = {watch.metric: gate_margin(plan, watch, 0) for watch in chosen}
    return Round(chosen, attempts or (attempt(),), margins, at(now))


def test_a_tick_is_bet_and_teaches_the_next_guess() -> None:
    evidence = gather(Evidence(), both({1: (50, 25)}, {2: (450, 9)}), tick())
    mine = evidence.metrics["error_rate"]
    assert max(mine.harm[0]) > 5, "half of the candidate's requests failing is strong evidence of harm"
    assert max(mine.gate) < 0
    assert mine.history == (9.5, 500.0)
    assert evidence.attempts["at_1"].exposures == {"candidate": 50, "baseline": 450}


def test_an_interval_without_one_arm_is_carried_over_to_the_next() -> None:
    evidence = gather(Evidence(), increments("candidate", {1: (5, 5)}), tick())
    assert evidence.metrics["error_rate"].harm == {}
    assert evidence.metrics["error_rate"].carried["at_1"].candidate.totals == [5, 5]
    evidence = gather(evidence, increments("baseline", {1: (45, 0)}), tick(2))
    together = gather(Evidence(), both({1: (5, 5)}, {1: (45, 0)}), tick(2))
    assert evidence.metrics["error_rate"].harm == together.metrics["error_rate"].harm
    assert evidence.metrics["error_rate"].carried == {}


def test_an_empty_cell_of_one_arm_does_not_make_the_other_arm_disappear() -> None:
    evidence = gather(Evidence(), both({1: (300, 300)}, {2: (0, 0)}), tick())
    assert evidence.metrics["error_rate"].carried["at_1"].candidate.totals == [300, 300]
    evidence = gather(evidence, increments("baseline", {1: (300, 5)}), tick(2))
    assert max(evidence.metrics["error_rate"].harm[0]) > 50


def test_late_data_of_an_earlier_attempt_never_enter_the_present_gate() -> None:
    second = (attempt(), attempt("at_2", stage=1))
    evidence = gather(Evidence(), both({1: (50, 0)}, {2: (450, 9)}), tick(attempts=second))
    mine = evidence.metrics["error_rate"]
    assert mine.gate_attempt == "at_2"
    assert mine.gate == [0.0] * 6
    assert set(mine.harm) == {0}


def test_evidence_of_another_epoch_is_forgotten() -> None:
    evidence = gather(Evidence(), both({1: (50, 25)}, {2: (450, 9)}), tick())
    later = tick(2, attempts=(attempt("at_9", epoch=2),))
    evidence = gather(evidence, both({1: (50, 25)}, {2: (450, 9)}), later)
    assert evidence.epoch == 2
    assert evidence.metrics["error_rate"].harm == {}, "the increments belong to an attempt of the first epoch"


class TestMaturity:
    slow = watched("error_rate", maturity="2m")

    def test_a_minute_is_bet_once_when_its_outcomes_are_due(self) -> None:
        evidence = gather(Evidence(), both({1: (50, 25)}, {2: (450, 9)}), tick(30, self.slow))
        assert evidence.metrics["error_rate"].harm == {}
        evidence = gather(evidence, {}, tick(179, self.slow))
        assert evidence.metrics["error_rate"].harm == {}
        evidence = gather(evidence, {}, tick(180, self.slow))
        once = evidence.metrics["error_rate"].harm[0]
        assert max(once) > 5
        evidence = gather(evidence, {}, tick(400, self.slow))
        assert evidence.metrics["error_rate"].harm[0] == once
        assert evidence.open_slots == {}

    def test_outcomes_of_one_minute_may_arrive_in_any_batch_until_then(self) -> None:
        started = SlotIncrement(started={1: 4})
        opened: Increments = {"at_1": {"candidate": ArmIncrement(slots={MINUTE: started})}}
        outcome = SlotIncrement(metrics={"error_rate": MetricIncrement(cells={1: [3.0, 1.0]})})
        came: Increments = {"at_1": {"candidate": ArmIncrement(slots={MINUTE: outcome})}}
        evidence = gather(Evidence(), opened, tick(10, self.slow))
        evidence = gather(evidence, came, tick(100, self.slow))
        evidence = gather(evidence, {}, tick(180, self.slow))
        assert evidence.metrics["error_rate"].totals["at_1"]["candidate"] == [4, 1]

    def test_an_outcome_after_its_minute_was_bet_is_counted_late_and_not_bet(self) -> None:
        evidence = gather(Evidence(), both({1: (50, 0)}, {2: (450, 9)}), tick(180, self.slow))
        before = evidence.metrics["error_rate"].harm[0]
        evidence = gather(evidence, both({1: (50, 50)}, {2: (50, 0)}), tick(200, self.slow))
        assert evidence.metrics["error_rate"].harm[0] == before
        assert evidence.metrics["error_rate"].late == 100

    def test_an_attempt_without_an_outcome_counts_as_the_failure_when_the_metric_has_a_timeout(self) -> None:
        metric = Metric(key="error_rate", kind="proportion", event="failed", timeout="1m", maturity="2m")
        watching = watches(rollout(), {"error_rate": metric})
        opened: Increments = {
            "at_1": {"candidate": ArmIncrement(slots={MINUTE: SlotIncrement(started={1: 4})})},
        }
        evidence = gather(Evidence(), opened, tick(180, watching))
        assert evidence.metrics["error_rate"].totals["at_1"]["candidate"] == [4, 4]

    def test_behaviour_has_the_exposures_as_its_n_and_never_more_events_than_exposures(self) -> None:
        watching = watched("thumbs_down")
        shown = SlotIncrement(exposures={1: 5}, metrics={"thumbs_down": MetricIncrement(cells={1: [9.0, 9.0]})})
        evidence = gather(Evidence(), {"at_1": {"baseline": ArmIncrement(slots={MINUTE: shown})}}, tick(180, watching))
        assert evidence.metrics["thumbs_down"].totals["at_1"]["baseline"] == [5, 5]


counts = st.integers(0, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))
arms = st.dictionaries(st.integers(0, 255), counts, max_size=5)


@settings(deadline=None, max_examples=60)
@given(batches=st.lists(st.tuples(st.sampled_from(["candidate", "baseline"]), arms), max_size=6), data=st.data())
def test_the_order_of_batches_within_a_tick_changes_nothing(batches: list[Any], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(batches))
    found = []
    for order in (batches, shuffled):
        merged: Increments = {}
        for arm, cells in order:
            merge(merged, increments(arm, cells))
        found.append(gather(Evidence(), in_order(merged), tick()))
    assert found[0] == found[1]


@pytest.mark.parametrize(("stage", "size"), [(0, 0.1), (1, 0.02)])
def test_an_early_gate_tolerates_more_of_the_excess_when_risk_scaled(stage: int, size: float) -> None:
    stages = [{"name": "a", "percentage": 1}, {"name": "b", "percentage": 10}, {"name": "c", "percentage": 50}]
    plan = rollout(stages=stages)
    watch = watches(plan, World.metrics)[0]
    assert gate_margin(plan, watch, stage).size == pytest.approx(size)
    assert watch.harm_margin.size == 0.02, "the rollback line never moves"
    unscaled = rollout(stages=stages, analysis={"risk_scaled": False})
    assert gate_margin(unscaled, watches(unscaled, World.metrics)[0], stage).size == 0.02
