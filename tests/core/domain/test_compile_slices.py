"""Groups and holdouts as they are served: who is in which rollout, and what every share is of."""

from typing import Any

import msgspec
import pytest

from rollout.domain import transition
from rollout.domain.compile import Running, Served, compile_ruleset, difference
from rollout.domain.exclusion import Range
from rollout.domain.flag import Flag, FlagState
from rollout.domain.holdout import Holdout
from rollout.domain.rollout import State
from rollout.stats.samples import srm_design_effect, srm_log_e
from rollout_client.evaluation.bucketing import bucket, cell
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import CompiledRuleset, apply_patch, evaluate
from rollout_client.evaluation.evaluate import compile_ruleset as compile_flags
from rollout_client.evaluation.ruleset import RolloutRule, Ruleset, Serve
from tests.core.domain.plans import World, at, rollout

UNITS = [f"user-{number}" for number in range(10_000)]
FLAGS = {key: Flag(key=key, variants={"v7": "a", "v8": "b"}, default_variant="v7") for key in ("answer", "search")}
GROUP = {"exclusion": {"group": "pages", "share": 30}}


def running(flag: str = "answer", place: tuple[int, int] | None = None, stage: int = 0, **plan: Any) -> Running:
    document = rollout(flag=flag, **plan)
    state = transition.start(document, State(), f"at_{flag}_0", at(0))
    for number in range(stage):
        state = transition.advance(document, state, f"at_{flag}_{number + 1}", at(number), proven=True)
    if place is not None:
        state = msgspec.structs.replace(state, slice=Range(start=place[0], end=place[1]))
    return Running(id=f"ro_{flag}", document=document, state=state, metrics={})


def compiled(*rollouts: Running, holdout: Holdout | None = None, revision: int = 1) -> Ruleset:
    served = Served(
        environment="production", flags=FLAGS, states={"answer": FlagState(released="v7")}, cohorts=World.cohorts,
        rollouts=rollouts, holdout=holdout,
    )  # fmt: skip
    return compile_ruleset(served, revision, f"edition-{revision}")


def taking_part(answers: CompiledRuleset, flag: str) -> set[str]:
    return {unit for unit in UNITS if evaluate(answers, flag, Context(unit)).attempt is not None}


def with_the_candidate(answers: CompiledRuleset, flag: str) -> set[str]:
    return {unit for unit in UNITS if evaluate(answers, flag, Context(unit)).variant == "v8"}


def test_two_rollouts_of_a_group_never_share_a_unit_at_any_stage() -> None:
    for stage in (0, 1):
        answer, search = (
            running("answer", (0, 30_000), stage, **GROUP),
            running("search", (30_000, 60_000), stage, **GROUP),
        )
        answers = compile_flags(compiled(answer, search))
        taken = [taking_part(answers, flag) for flag in FLAGS]
        assert not taken[0] & taken[1]
        assert all(2_800 < len(each) < 3_200 for each in taken)


def test_a_ramp_within_a_slice_only_adds_units_and_stays_within_it() -> None:
    answers = [compile_flags(compiled(running("answer", (0, 30_000), stage, **GROUP))) for stage in (0, 1)]
    few, half = (with_the_candidate(each, "answer") for each in answers)
    inside = {unit for unit in UNITS if bucket("exclusion/pages", unit) < 30_000}
    assert few < half < inside
    assert taking_part(answers[0], "answer") == taking_part(answers[1], "answer") == inside


def test_who_lies_outside_gets_what_was_released_even_before_a_cohort_has_the_candidate() -> None:
    stages = [{"name": "pilot", "cohort": "staff", "percentage": 100}, {"name": "open", "percentage": 10}]
    place = (bucket("exclusion/pages", "bob"), bucket("exclusion/pages", "bob") + 1)
    assert bucket("exclusion/pages", "ann") not in range(*place)
    for stage in (0, 1):
        answers = compile_flags(compiled(running("answer", place, stage, stages=stages, **GROUP)))
        assert evaluate(answers, "answer", Context("bob")).variant == "v8"
        assert evaluate(answers, "answer", Context("ann")).variant == "v7"
        assert evaluate(answers, "answer", Context("ann")).rollout is None


def test_held_out_units_get_no_candidate_of_any_flag() -> None:
    stages = [{"name": "pilot", "cohort": "everyone", "percentage": 100}, {"name": "open", "percentage": 50}]
    rollouts = [running("answer", (0, 60_000), 1, **GROUP), running("search", stage=1, stages=stages)]
    served = Served(
        environment="production", flags=FLAGS, states={}, cohorts={"everyone": World.cohorts["staff"]},
        rollouts=rollouts, holdout=Holdout(percentage=10),
    )  # fmt: skip
    answers = compile_flags(compile_ruleset(served, 1))
    held_out = {unit for unit in [*UNITS, "ann", "bob"] if bucket("holdout/holdout", unit) < 10_000}
    assert 900 < len(held_out) < 1_100
    for flag in FLAGS:
        for unit in held_out:
            answer = evaluate(answers, flag, Context(unit))
            assert (answer.variant, answer.rollout, answer.attempt) == ("v7", None, None)
        assert with_the_candidate(answers, flag)


def test_a_holdout_that_grows_takes_units_away_and_moves_none_between_the_arms() -> None:
    before, after = (
        compile_flags(compiled(running(stage=1), holdout=holdout)) for holdout in (None, Holdout(percentage=20))
    )
    for unit in UNITS:
        was, now = (evaluate(answers, "answer", Context(unit)).arm for answers in (before, after))
        assert now in (was, None)


@pytest.mark.parametrize("holdout", [None, Holdout(percentage=5)])
@pytest.mark.parametrize("place", [(0, 30_000), (30_000, 100_000)])
@pytest.mark.parametrize("stage", [0, 1])
def test_the_sample_ratio_within_a_slice_is_the_stages_own(
    holdout: Holdout | None, place: tuple[int, int], stage: int
) -> None:
    rollout = running("answer", place, stage, **GROUP)
    answers = compile_flags(compiled(rollout, holdout=holdout))
    attempt = rollout.state.attempt
    assert attempt is not None
    cells = {"candidate": [0] * 256, "baseline": [0] * 256}
    for number in range(60_000):
        unit = f"user-{number}"
        arm = evaluate(answers, "answer", Context(unit)).arm
        if arm is not None:
            cells[arm][cell(unit)] += 1
    counts = {arm: sum(of) for arm, of in cells.items()}
    share = attempt.percentage / 100
    assert counts["candidate"] + counts["baseline"] > 16_000
    assert srm_log_e(counts["candidate"], counts["baseline"], share) < 1.0, "no sign of a mismatch"
    assert srm_design_effect(cells["candidate"], cells["baseline"], share) < 1.5, "nor of clusters"
    off = share * 1.1
    assert srm_log_e(counts["candidate"], counts["baseline"], off) > 4.6, "a share off by a tenth would be seen"


def test_only_a_ruleset_with_slices_has_their_schema() -> None:
    plain, grouped = compiled(running()), compiled(running("answer", (0, 30_000), **GROUP), revision=2)
    assert (plain.schema, grouped.schema) == (1, 2)
    assert compiled(running(), holdout=Holdout(percentage=1)).schema == 2
    assert compiled(holdout=Holdout(percentage=1)).schema == 1, "a holdout without a rollout confines nothing"
    assert apply_patch(plain, difference(plain, grouped)) == grouped
    back = compiled(running(), revision=3)
    assert apply_patch(grouped, difference(grouped, back)) == back


def test_every_rule_that_exposes_somebody_is_confined() -> None:
    stages = [
        {"name": "pilot", "cohort": "staff", "percentage": 50},
        {"name": "wide", "cohort": "board", "percentage": 20},
    ]
    rollout = running("answer", (0, 30_000), 1, stages=stages, guardrails=[], **GROUP)
    rules = compiled(rollout, holdout=Holdout(percentage=5, salt="2026", unit="company")).flags["answer"].rules
    assert [type(rule) for rule in rules] == [RolloutRule, RolloutRule, Serve]
    for rule in rules[:2]:
        assert isinstance(rule, RolloutRule)
        assert [msgspec.to_builtins(each) for each in rule.slices] == [
            {"salt": "holdout/2026", "start": 5_000, "end": 100_000, "unit": "company"},
            {"salt": "exclusion/pages", "start": 0, "end": 30_000, "unit": None},
        ]
