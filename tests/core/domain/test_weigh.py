"""From wealth to verdicts for every kind: tempered by how outcomes cluster, gates, and ceilings that let go."""

import math
from typing import Any

import numpy as np
import pytest

from rollout.domain import transition
from rollout.domain.decide import decide
from rollout.domain.decision import Situation
from rollout.domain.evidence import ARMS, Evidence
from rollout.domain.judge import Judgement
from rollout.domain.rollout import State
from rollout.stats.design_effect import design_effects, no_clusters
from rollout.stats.mixture import log_mixture
from rollout.stats.ratio import merge_stages, ratio_advance_log_e, ratio_harm_log_e
from rollout_client.evaluation.evidence import ArmIncrement, SlotIncrement
from tests.core.domain.observed import KINDS, MINUTE, Seen, Watched, attempt, calibrated, joined, mine, watched
from tests.core.domain.plans import at

Rng = np.random.Generator


def sticky(kind: str, rng: Rng, arm: Any, units: int, many: int, worse: float = 1.0) -> list[Seen]:
    """Units of some habit: what one does it does again."""
    found = []
    for _ in range(units):
        cell, habit = int(rng.integers(0, 256)), float(rng.normal(0, 0.5))
        for _ in range(many):
            latency = round(worse * math.exp(5 + habit + rng.normal(0, 0.3)), 3)
            match kind:
                case "proportion":
                    value: Any = bool(rng.random() < worse * (0.4 if habit > 0.7 else 0.01))
                case "count_rate":
                    value = (int(rng.poisson(worse * 0.3 * math.exp(habit))), 1)
                case "ratio":
                    value = (latency, 1)
                case "mean_of_scores":
                    value = min(5.0, max(1.0, 4.0 + habit - worse + 1.0))
                case _:
                    value = latency
            found.append(Seen(arm, cell, value))
    return found


def both(kind: str, rng: Rng, units: int = 40, many: int = 5, worse: float = 1.0) -> list[Seen]:
    return sticky(kind, rng, "candidate", units, many, worse) + sticky(kind, rng, "baseline", 3 * units, many)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ratio"])
def test_former_attempts_say_the_same_about_clusters_as_all_their_cells_would(kind: str) -> None:
    world, rng = watched(kind), np.random.default_rng(4)
    evidence = world.take(Evidence(), world.batch(sticky(kind, rng, "baseline", 150, 4)))
    frozen = mine(evidence).frozen
    kept = [world.kind.clusters(mine(evidence).cells["at_1"].of(arm)) for arm in ARMS]
    for number in range(2, 6):
        world.attempts = (*world.attempts, attempt(f"at_{number}", stage=min(number - 1, 1)))
        evidence = world.take(evidence, world.batch(both(kind, rng), frozen), float(number))
        own = mine(evidence).cells[f"at_{number}"]
        kept = [sum_ + world.kind.clusters(own.of(arm)) for sum_, arm in zip(kept, ARMS, strict=True)]
    world.judge(evidence, 9.0)
    assert set(mine(evidence).cells) == {"at_5"}
    expected = float(design_effects(kept[0], kept[1]).max())
    assert expected > 1.2
    assert mine(evidence).design_effect == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("scale", [1.0, 1e10])
def test_exposure_has_no_unit_also_when_an_attempt_is_over(scale: float) -> None:
    world = watched("count_rate")
    observed = [Seen(arm, place % 250, (3 * int(place % 250 < 20), scale)) for arm in ARMS for place in range(1000)]
    evidence = world.take(Evidence(), world.batch(observed))
    before = world.judge(evidence).readings[0].design_effect
    world.attempts = (*world.attempts, attempt("at_2"))
    after = world.judge(world.take(evidence, {}, 2.0), 2.0).readings[0].design_effect
    assert before > 2
    assert after == pytest.approx(before, rel=1e-3)


def test_an_attempt_with_next_to_no_exposure_can_be_over_too() -> None:
    world = watched("count_rate")
    evidence = world.take(Evidence(), world.batch([Seen(arm, 3, (0, 1e-12)) for arm in ARMS]))
    for number in (2, 3):
        world.attempts = (*world.attempts, attempt(f"at_{number}"))
        evidence = world.take(evidence, {}, float(number))
        assert world.judge(evidence, float(number)).readings[0].design_effect == 1.0


def test_a_stage_that_is_over_keeps_how_its_first_exposures_clump() -> None:
    world = watched("proportion")
    counted = {arm: dict.fromkeys(range(start, start + 40), 8) for arm, start in zip(ARMS, (0, 100), strict=True)}
    slots = {arm: SlotIncrement(exposures=n, first_exposures=n) for arm, n in counted.items()}
    added = {"at_1": {arm: ArmIncrement(slots={MINUTE: slots[arm]}) for arm in ARMS}}
    evidence = world.take(Evidence(), added)
    world.attempts = (*world.attempts, attempt("at_2", stage=1))
    evidence = world.take(evidence, {}, 2.0)
    kept = evidence.samples[0].effect
    assert kept > 4
    assert not evidence.samples[0].cells
    few = SlotIncrement(exposures={1: 5, 2: 5}, first_exposures={1: 1, 2: 1})
    again = {"at_1": {arm: ArmIncrement(slots={MINUTE: few}) for arm in ARMS}}
    for attempts in (world.attempts[:1], world.attempts):  # a step back, and up again
        world.attempts = attempts
        evidence = world.take(evidence, again, 3.0)
    assert evidence.samples[0].effect == kept, "also when others come the second time"


def test_a_burst_without_exposure_in_its_cell_is_not_forgotten_when_the_attempt_is_over() -> None:
    world = watched("count_rate")
    steady = [Seen(arm, place % 250, (int(place % 9 == 0), 1)) for arm in ARMS for place in range(1000)]
    bursts = [Seen("candidate", 254, (30, 0)), Seen("baseline", 255, (30, 0))]
    evidence = world.take(Evidence(), world.batch(steady + bursts))
    before = world.judge(evidence).readings[0].design_effect
    assert before > 4
    world.attempts = (*world.attempts, attempt("at_2"))
    evidence = world.take(evidence, {}, 2)
    assert world.judge(evidence, 2).readings[0].design_effect == pytest.approx(before, rel=2e-3)


def test_an_exposure_in_tiny_units_is_no_error() -> None:
    world = watched("count_rate")
    tiny = [Seen(arm, cell, (1, 5e-7)) for arm in ARMS for cell in (3, 4)]
    evidence = world.take(Evidence(), world.batch(tiny))
    assert world.judge(evidence).readings[0].design_effect == 1.0


def test_a_family_is_tempered_by_the_clusters_of_its_own_score() -> None:
    world, rng = watched("distribution"), np.random.default_rng(4)
    evidence = world.take(Evidence(), world.batch(sticky("distribution", rng, "baseline", 150, 4)))
    frozen = mine(evidence).frozen
    evidence = world.take(evidence, world.batch(both("distribution", rng, many=10), frozen), 2)
    world.judge(evidence, 2)
    own = mine(evidence).cells["at_1"]
    effects = design_effects(*(world.kind.clusters(own.of(arm)) for arm in ARMS))
    assert effects.size == world.kind.scores == 4
    harm, gate = world.kind.tempering(effects)
    assert harm.size == world.kind.harm_weights.size
    assert set(harm.tolist()) == {*effects[:3].tolist()}
    assert gate.tolist() == [effects[0]] * 5 + [effects[3]] * 6


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_clearly_worse_candidate_breaches_and_an_equal_one_passes_and_keeps_passing(kind: str) -> None:
    for worse in (True, False):
        world, rng = watched(kind), np.random.default_rng(8)
        evidence = world.take(Evidence(), world.batch(sticky(kind, rng, "baseline", 200, 4)))
        frozen = mine(evidence).frozen
        verdicts = []
        for step in range(60):
            factor = {"mean_of_scores": 3.0}.get(kind, 2.5) if worse else 1.0
            batch = sticky(kind, rng, "candidate", 100, 3, factor) + sticky(kind, rng, "baseline", 400, 3)
            evidence = world.take(evidence, world.batch(batch, frozen), 2.0 + step)
            found = world.judge(evidence, 2.0 + step).readings[0]
            verdicts.append(found.verdict)
            if found.verdict == "breach" or (found.verdict == "pass" and step > 40):
                break
        if worse:
            assert verdicts[-1] == "breach", verdicts[-1]
            assert "pass" not in verdicts
        else:
            assert "breach" not in verdicts
            first = verdicts.index("pass")
            assert set(verdicts[first:]) == {"pass"}, "a gate keeps the largest evidence of its attempt"


def test_every_gate_must_pass_by_itself() -> None:
    """The capped mean is fine and the tail is three times as heavy: the mean's gate opens, the metric's does not."""
    world, rng = watched("tail"), np.random.default_rng(2)

    def latencies(arm: Any, many: int, extreme: float) -> list[Seen]:
        values = np.where(rng.random(many) < extreme, 5000.0, rng.uniform(90, 110, many))
        return [Seen(arm, int(rng.integers(0, 256)), round(float(value), 3)) for value in values]

    evidence = world.take(Evidence(), world.batch(latencies("baseline", 600, 0.004)))
    frozen = mine(evidence).frozen
    for step in range(20):
        batch = latencies("candidate", 1000, 0.03) + latencies("baseline", 3000, 0.004)
        evidence = world.take(evidence, world.batch(batch, frozen), 2.0 + step)
        found = world.judge(evidence, 2.0 + step).readings[0]
        assert found.verdict != "pass"
    mean, tail = mine(evidence).gate_best
    assert mean > 3.0
    assert tail == 0.0 == found.log_e_gate


def test_outcomes_without_cells_are_taken_to_repeat_themselves() -> None:
    """A client that has not heard of the thresholds sends short cells: nothing then says how its outcomes cluster."""
    found = []
    for long in (True, False):
        world, rng = watched("quantile"), np.random.default_rng(3)
        evidence = world.take(Evidence(), world.batch(sticky("quantile", rng, "baseline", 200, 4)))
        frozen = mine(evidence).frozen if long else None
        batch = [Seen(one.arm, place % 256, one.value) for place, one in enumerate(both("quantile", rng, 200, 10, 3.0))]
        evidence = world.take(evidence, world.batch(batch, frozen), 2)
        found.append(world.judge(evidence, 2, units=200).readings[0])
    assert found[0].log_e_harm > 2 * found[1].log_e_harm > 0


def test_a_ratio_is_the_mean_over_stages_of_what_each_showed_last() -> None:
    world, rng = watched("ratio"), np.random.default_rng(6)
    evidence = Evidence()
    sums: list[list[dict[int, tuple[float, float]]]] = []
    for stage, names in enumerate((("at_1", "at_2"), ("at_3",))):
        sums.append([{}, {}])
        for name in names:
            world.attempts = (*(each for each in world.attempts if each.id != name), attempt(name, stage=stage))
            batch = both("ratio", rng, 120, 3, 1.5)
            for one in batch:
                cells = sums[stage][ARMS.index(one.arm)]
                y, d = cells.get(one.cell, (0.0, 0.0))
                cells[one.cell] = (y + one.value[0], d + one.value[1])
            evidence = world.take(evidence, world.batch(batch), 2.0)
            world.judge(evidence, 2.0)
    margin, alphas = world.watch.harm_margin, world.plan.analysis
    stages = [ratio_harm_log_e(*arms, margin, "lower_is_better", alphas.alpha_rollback) for arms in sums]
    assert min(stages) > 1
    assert mine(evidence).log_e_harm == pytest.approx(merge_stages(stages, 2), abs=1e-6)
    assert mine(evidence).harm == {0: [pytest.approx(stages[0])], 1: [pytest.approx(stages[1])]}
    assert set(mine(evidence).cells) == {"at_3"}, "of a stage that is over only its last log e is kept"
    gate = ratio_advance_log_e(*sums[1], margin, "lower_is_better", alphas.alpha_advance)
    assert mine(evidence).log_e_gate == pytest.approx(max(0.0, gate), abs=1e-6)


def test_a_candidate_without_any_cost_is_no_missing_data() -> None:
    world, rng = watched("ratio"), np.random.default_rng(6)
    evidence = Evidence()
    for step in range(3):
        free = [Seen("candidate", int(rng.integers(0, 256)), (0.0, 1.0)) for _ in range(600)]
        batch = free + sticky("ratio", rng, "baseline", 400, 3)
        evidence = world.take(evidence, world.batch(batch), 2.0 + step)
        found = world.judge(evidence, 2.0 + step).readings[0]
    assert found.verdict == "pass"


CEILINGS: dict[str, tuple[dict[str, Any], float, Any, Any]] = {
    "proportion": ({"ceiling": 0.1}, 0.1, True, False),
    "count_rate": ({"ceiling": 0.5}, 0.5, (3, 1), (0, 1)),
    "mean": ({"ceiling": 300.0}, 300.0, 900.0, 100.0),
    "mean_of_scores": ({"ceiling": 3.0}, 3.0, 1.5, 4.8),
    "quantile": ({"ceiling": 300.0}, 300.0, 900.0, 100.0),
    "distribution": ({"ceiling": 300.0}, 300.0, 900.0, 100.0),
    "tail": ({"ceiling": 300.0}, 300.0, 900.0, 100.0),
}


def decided(world: Watched, judgement: Judgement, now: float) -> tuple[str, list[str]]:
    state = transition.start(world.plan, State(), "at_1", at(0))
    decision = decide(
        Situation(
            plan=world.plan, state=state, judgement=judgement, watches=(world.watch,), killed=False, now=at(now)
        )
    )  # fmt: skip
    return decision.kind, [reason.code for reason in decision.reasons]


@pytest.mark.parametrize("kind", list(CEILINGS))
def test_an_outage_of_both_arms_holds_at_the_ceiling_and_lets_go_when_it_is_over(kind: str) -> None:
    more, ceiling, bad, good = CEILINGS[kind]
    metric, guardrail = KINDS[kind]
    world = Watched(metric, {**guardrail, **more})
    evidence, now, open_ = Evidence(), 3600.0, []

    def look(value: Any, many: int = 300) -> tuple[str, list[str]]:
        nonlocal evidence, now
        now += 1
        batch = [Seen(arm, place % 256, value) for arm in ARMS for place in range(many)]
        evidence = world.take(evidence, world.batch(batch, mine(evidence).frozen if evidence.metrics else None), now)
        return decided(world, world.judge(evidence, now), now)

    open_ = [look(good) for _ in range(4)]
    assert all("ceiling" not in codes for _, codes in open_)
    outage = [look(bad) for _ in range(3)]
    assert outage[-1][0] == "hold"
    assert "ceiling" in outage[-1][1]
    assert "breach" not in outage[-1][1], "the baseline is as bad"
    assert world.watch.ceiling == ceiling
    later = [look(good) for _ in range(40)]
    assert any("ceiling" not in codes for _, codes in later), "it lets go by itself"


def test_the_ceiling_is_watched_while_the_baseline_is_still_being_calibrated() -> None:
    metric, guardrail = KINDS["quantile"]
    world = Watched(metric, {**guardrail, "ceiling": 300.0})
    evidence = world.take(Evidence(), world.batch([Seen("candidate", place, 900.0) for place in range(60)]))
    found = world.judge(evidence).readings[0]
    assert found.over_ceiling
    assert found.awaits == 500


def test_clusters_of_no_cells_say_nothing() -> None:
    for kind in KINDS:
        world = watched(kind)
        evidence = calibrated(world, kind)
        world.judge(evidence)
        assert mine(evidence).design_effect == 1.0 or kind in ("proportion", "count_rate")
        assert no_clusters(world.kind.scores).independent.size == world.kind.scores


def test_a_late_start_still_sees_harm_that_begins_in_the_last_stage() -> None:
    world, rng = watched("quantile"), np.random.default_rng(1)
    evidence = world.take(Evidence(), world.batch(sticky("quantile", rng, "baseline", 200, 4)))
    frozen = mine(evidence).frozen
    fine = [world.batch(both("quantile", rng, 300, 4), frozen, MINUTE) for _ in range(6)]
    evidence = world.take(evidence, joined(fine), 2)
    calm = world.judge(evidence, 2).readings[0].log_e_harm
    world.attempts = (attempt("at_1"), attempt("at_2", stage=1))
    evidence = world.take(evidence, world.batch(both("quantile", rng, 200, 2, 3.0), frozen), 3)
    found = world.judge(evidence, 3).readings[0]
    alone = log_mixture(mine(evidence).harm[1], world.kind.harm_weights)
    assert calm < 1
    assert alone > 10
    assert found.log_e_harm > 2
