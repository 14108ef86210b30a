"""The compiled ruleset: what each status and stage of a rollout serves, answered by the evaluator itself."""

from typing import Any

import msgspec
import pytest

from rollout.domain import transition
from rollout.domain.compile import Running, Served, compile_ruleset, difference
from rollout.domain.flag import Flag, FlagState
from rollout.domain.rollout import State
from rollout_client.evaluation.bucketing import bucket
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import apply_patch, evaluate
from rollout_client.evaluation.evaluate import compile_ruleset as compile_flags
from rollout_client.evaluation.ruleset import Frozen, RolloutRule, Ruleset
from tests.core.domain.plans import World, at, rollout

UNITS = [f"user-{i}" for i in range(400)]


def running(state: State | None = None, **plan: Any) -> Running:
    document = rollout(**plan)
    started = state or transition.start(document, State(), "at_1", at(0))
    return Running(id="ro_1", document=document, state=started, metrics={"error_rate": World.metrics["error_rate"]})


def compiled(*rollouts: Running, flag: Flag | None = None, state: FlagState | None = None) -> Ruleset:
    served = Served(
        environment="production",
        flags={"answer": flag or World.flags["answer"]},
        states={"answer": state or FlagState()},
        cohorts=World.cohorts,
        rollouts=rollouts,
    )
    return compile_ruleset(served, 1)


def served(ruleset: Ruleset, unit: str) -> str:
    return evaluate(compile_flags(ruleset), "answer", Context(unit)).variant or ""


def candidates(ruleset: Ruleset) -> set[str]:
    return {unit for unit in UNITS if served(ruleset, unit) == "v8"}


def test_a_stage_gives_the_candidate_to_its_share_and_the_baseline_to_everyone_else() -> None:
    expected = {unit for unit in UNITS if bucket("answer", unit) < 10_000}
    assert candidates(compiled(running())) == expected
    assert expected


def test_advancing_only_adds_users_and_rolling_back_leaves_nobody() -> None:
    first = running()
    second = msgspec.structs.replace(
        first, state=transition.advance(first.document, first.state, "at_2", at(9), proven=True)
    )
    assert candidates(compiled(first)) < candidates(compiled(second))
    over = msgspec.structs.replace(first, state=transition.roll_back(first.state, at(9)))
    assert candidates(compiled(over, state=FlagState(released="v7"))) == set()


def test_after_the_end_everyone_gets_what_was_released_and_a_kill_gives_the_default() -> None:
    assert served(compiled(state=FlagState(released="v8")), "user-1") == "v8"
    killed = FlagState(released="v8", killed_at=at(0), killed_by="ann")
    assert served(compiled(running(), state=killed), "user-1") == "v7"


def test_a_paused_rollout_keeps_its_exposure_and_a_blind_one_exposes_nobody() -> None:
    live = running()
    paused = msgspec.structs.replace(live, state=transition.pause(live.state, at(5), "lunch"))
    assert candidates(compiled(paused)) == candidates(compiled(live))
    blind = msgspec.structs.replace(live, state=transition.lapse(live.state, at(9)))
    assert candidates(compiled(blind)) == set()


def test_a_pin_is_live_while_the_rollout_is_watched_and_drains_only_if_the_plan_says_so() -> None:
    live = running(pin="conversation")
    assert compiled(live).flags["answer"].pins == {"ro_1": "live"}
    blind = msgspec.structs.replace(live, state=transition.lapse(live.state, at(9)))
    assert compiled(blind).flags["answer"].pins == {}
    for policy, pins in (("cut", {}), ("drain", {"ro_1": "drain"})):
        ended = running(pin="conversation", on_rollback=policy)
        ended = msgspec.structs.replace(ended, state=transition.roll_back(ended.state, at(9)))
        assert compiled(ended).flags["answer"].pins == pins


class TestCohortStages:
    stages = [
        {"name": "pilot", "cohort": "staff", "percentage": 100},
        {"name": "canary", "percentage": 10},
        {"name": "half", "percentage": 50},
    ]

    def at_stage(self, stage: int) -> Ruleset:
        document = rollout(stages=self.stages)
        state = transition.start(document, State(), "at_0", at(0))
        for i in range(stage):
            state = transition.advance(document, state, f"at_{i + 1}", at(i), proven=False)
        return compiled(running(state, stages=self.stages))

    def test_a_cohort_stage_serves_the_cohort_and_nobody_else(self) -> None:
        ruleset = self.at_stage(0)
        assert served(ruleset, "ann") == "v8"
        assert candidates(ruleset) == set()

    def test_the_cohort_keeps_the_candidate_outside_the_evidence_of_later_stages(self) -> None:
        for stage in (1, 2):
            answer = evaluate(compile_flags(self.at_stage(stage)), "answer", Context("ann"))
            assert (answer.variant, answer.attempt) == ("v8", None)
            others = evaluate(compile_flags(self.at_stage(stage)), "answer", Context("user-1"))
            assert others.attempt == f"at_{stage}"

    def test_a_partial_cohort_is_kept_apart_until_everyone_has_as_much(self) -> None:
        stages = [{"name": "pilot", "cohort": "staff", "percentage": 30}, *self.stages[1:]]
        document = rollout(stages=stages)
        state = transition.start(document, State(), "at_0", at(0))
        state = transition.advance(document, state, "at_1", at(1), proven=True)
        rules = compiled(running(state, stages=stages)).flags["answer"].rules
        assert [(r.threshold, r.attempt) for r in rules if isinstance(r, RolloutRule)] == [
            (30_000, None),
            (10_000, "at_1"),
        ]
        state = transition.advance(document, state, "at_2", at(2), proven=True)
        rules = compiled(running(state, stages=stages)).flags["answer"].rules
        assert [(r.threshold, r.attempt) for r in rules if isinstance(r, RolloutRule)] == [(50_000, "at_2")]

    def test_a_cohort_keeps_what_it_has_through_the_stage_of_another_cohort(self) -> None:
        stages = [
            {"name": "friends", "cohort": "vip", "percentage": 50},
            {"name": "pilot", "cohort": "staff", "percentage": 80},
            *self.stages[1:],
        ]
        document = rollout(stages=stages)
        state = transition.start(document, State(), "at_0", at(0))
        levels: list[list[tuple[str, int, str | None]]] = []
        for number in range(1, 3):
            state = transition.advance(document, state, f"at_{number}", at(number), proven=True)
            rules = compiled(running(state, stages=stages)).flags["answer"].rules
            exposures = [each for each in rules if isinstance(each, RolloutRule)]
            levels.append([(each.when.cohort if each.when else "", each.threshold, each.attempt) for each in exposures])
        assert levels[0] == [("staff", 80_000, "at_1"), ("vip", 50_000, None)], "staff who are friends have the more"
        assert levels[1] == [("staff", 80_000, None), ("vip", 50_000, None), ("", 10_000, "at_2")]


@pytest.mark.parametrize(("lease", "expected"), [("15m", 900_000), ("none", None)])
def test_the_lease_travels_with_the_rule(lease: str, expected: int | None) -> None:
    rule = compiled(running(lease=lease)).flags["answer"].rules[0]
    assert isinstance(rule, RolloutRule)
    assert rule.lease_ms == expected


def test_what_is_frozen_travels_with_the_rule_of_its_attempt() -> None:
    frozen = {"error_rate": Frozen(thresholds=(1.0, 2.0))}
    live = running()
    live = msgspec.structs.replace(live, state=transition.calibrate(live.state, frozen))
    rule = compiled(live).flags["answer"].rules[0]
    assert isinstance(rule, RolloutRule)
    assert (rule.attempt, rule.frozen) == ("at_1", frozen)
    blind = msgspec.structs.replace(live, state=transition.lapse(live.state, at(9)))
    rule = compiled(blind).flags["answer"].rules[0]
    assert isinstance(rule, RolloutRule)
    assert (rule.attempt, rule.frozen) == (None, {})
    before = compiled(running())
    after = msgspec.structs.replace(compiled(live), revision=2, edition="second")
    assert apply_patch(before, difference(before, after)) == after


def test_a_reseeded_rollout_draws_new_buckets() -> None:
    assert candidates(compiled(running(reseed=True))) != candidates(compiled(running()))


def test_a_patch_turns_one_ruleset_into_the_next() -> None:
    before = compiled(running())
    changed = compiled(state=FlagState(released="v8"))
    after = msgspec.structs.replace(changed, revision=2, edition="second", cohorts={})
    patch = difference(before, after)
    assert apply_patch(before, patch) == after
    assert apply_patch(after, patch) is None, "a patch fits only its base"
    assert set(patch.cohorts) == {"staff"}
