"""protect() and progress(): what is decided from which verdicts."""

from typing import Any

import msgspec
import pytest

from rollout.domain import transition
from rollout.domain.decide import decide
from rollout.domain.decision import Situation
from rollout.domain.document import content_hash
from rollout.domain.judge import ArmNumbers, Judgement, Reading, Verdict
from rollout.domain.missing import missing_now
from rollout.domain.rollout import Absence, Approval, Breach, State
from rollout.domain.watch import watches
from rollout.stats.margin import Margin
from tests.core.domain.plans import World, at, rollout


def reading(verdict: Verdict, metric: str = "error_rate", role: str = "guardrail") -> Reading:
    return Reading(
        metric=metric, role=role, verdict=verdict, candidate=ArmNumbers(100, 3), baseline=ArmNumbers(900, 20),
        log_e_harm=0.0, harm_threshold=4.6, log_e_gate=1.0, gate_threshold=3.0, gate_margin=Margin(0.02, False),
        design_effect=1.0,
    )  # fmt: skip


def judgement(*readings: Reading, **changes: Any) -> Judgement:
    found = Judgement(
        readings=readings, combined=0.0, combined_max=0.0, breach_threshold=4.6, culprit=None, culprits=(),
        srm_log_e=0.0, srm_alarm=False, units=1000, exposures=ArmNumbers(100, 900),
    )  # fmt: skip
    return msgspec.structs.replace(found, **changes)


def situation(
    verdict: Verdict | Judgement, *, after: float = 3600, state: State | None = None, killed: bool = False, **plan: Any
) -> Situation:
    document = rollout(**plan)
    running = state or transition.start(document, State(), "at_1", at(0))
    found = verdict if isinstance(verdict, Judgement) else judgement(reading(verdict))
    return Situation(
        plan=document, state=running, judgement=found, watches=watches(document, World.metrics), killed=killed,
        now=at(after),
    )  # fmt: skip


def codes(wanted: Situation) -> tuple[str, list[str]]:
    decision = decide(wanted)
    return decision.kind, [reason.code for reason in decision.reasons]


def test_only_pass_opens_a_gate() -> None:
    assert decide(situation("pass")).kind == "advance"
    blocking: list[Verdict] = ["breach", "undecided", "insufficient", "no_traffic", "no_data", "stale", "error"]
    for verdict in blocking:
        assert codes(situation(verdict)) == ("hold", [verdict])


def test_it_holds_until_the_stage_is_old_enough_and_wide_enough() -> None:
    assert codes(situation("pass", after=599)) == ("hold", ["min_duration"])
    assert codes(situation(judgement(reading("pass"), units=19))) == ("hold", ["min_units"])


def test_a_breach_acts_before_any_gate_and_in_every_exposed_status() -> None:
    breach = judgement(reading("breach"), culprit="error_rate", combined_max=5.0)
    assert codes(situation(breach, after=1)) == ("roll_back", ["breach"])
    document = rollout()
    running = transition.start(document, State(), "at_1", at(0))
    assert codes(situation(breach, state=transition.pause(running, at(5), "lunch"))) == ("roll_back", ["breach"])
    baking = transition.advance(document, running, "at_2", at(5), proven=True)
    assert decide(situation(breach, state=baking)).kind == "roll_back"


def test_a_breach_does_what_its_guardrail_says() -> None:
    pausing = [{"metric": "error_rate", "max_regression": {"absolute": 0.02}, "on_breach": "pause"}]
    breach = judgement(reading("breach"), culprit="error_rate", combined_max=5.0)
    assert codes(situation(breach, guardrails=pausing)) == ("pause", ["breach"])


def test_a_latched_breach_is_not_acted_on_twice_but_a_harder_one_is() -> None:
    guardrails = [
        {"metric": "quality", "max_regression": {"absolute": 0.02}, "on_breach": "pause"},
        {"metric": "error_rate", "max_regression": {"absolute": 0.02}},
    ]
    document = rollout(guardrails=guardrails)
    running = transition.start(document, State(), "at_1", at(0))
    latched = Breach(at=at(1), epoch=1, metric="quality", log_e=5.0, threshold=4.6)
    paused = transition.pause(running, at(1), "quality breach", latched)
    same = judgement(reading("breach", "quality"), reading("pass"), culprit="quality")
    assert codes(situation(same, state=paused, guardrails=guardrails)) == ("hold", ["paused"])
    proven = msgspec.structs.replace(reading("breach"), log_e_harm=6.0)
    harder = judgement(reading("breach", "quality"), proven, culprit="quality")
    assert codes(situation(harder, state=paused, guardrails=guardrails)) == ("roll_back", ["breach"])
    recovered = judgement(reading("undecided", "quality"), reading("undecided"), culprit="error_rate")
    assert codes(situation(recovered, state=paused, guardrails=guardrails)) == ("hold", ["paused"]), "not proven itself"


def test_a_killed_flag_pauses_whatever_the_evidence_says() -> None:
    assert codes(situation("pass", killed=True)) == ("pause", ["killed"])


def test_a_signal_holds_while_it_is_worse_and_a_warning_never() -> None:
    signals = [{"metric": "quality", "max_regression": {"absolute": 0.02}}]
    for verdict, kind in (("breach", "hold"), ("no_data", "hold"), ("undecided", "advance"), ("pass", "advance")):
        found = judgement(reading("pass"), reading(verdict, "quality", "signal"))
        assert decide(situation(found, signals=signals)).kind == kind
    warned = judgement(reading("pass"), reading("breach", "quality", "warning"))
    assert decide(situation(warned)).kind == "advance"


def test_a_sample_ratio_alarm_holds_everything_but_protection() -> None:
    assert codes(situation(judgement(reading("pass"), srm_alarm=True))) == ("hold", ["srm"])
    breached = judgement(reading("breach"), srm_alarm=True, culprit="error_rate")
    assert decide(situation(breached)).kind == "roll_back"


@pytest.mark.parametrize(("policy", "kind"), [("hold", "hold"), ("roll_back", "roll_back"), ("advance", "advance")])
def test_at_max_duration_the_plan_says_what_undecided_means(policy: str, kind: str) -> None:
    stages = [
        {"name": "canary", "percentage": 10, "max_duration": "30m"},
        {"name": "half", "percentage": 50},
    ]
    late = situation("undecided", stages=stages, on_undecided=policy)
    assert decide(late).kind == kind
    assert decide(late).proven == (kind != "advance")
    assert decide(situation("undecided", after=1200, stages=stages, on_undecided=policy)).kind == "hold"


def test_undecided_never_stands_for_absent_evidence() -> None:
    stages = [{"name": "canary", "percentage": 10, "max_duration": "30m"}, {"name": "half", "percentage": 50}]
    for verdict in ("no_traffic", "no_data", "insufficient", "stale", "breach"):
        assert decide(situation(verdict, stages=stages, on_undecided="advance")).kind == "hold"
    few = judgement(reading("undecided"), units=3)
    assert decide(situation(few, stages=stages, on_undecided="advance")).kind == "hold"


def test_a_signal_holds_a_plan_that_has_no_guardrail() -> None:
    plan: dict[str, Any] = {
        "guardrails": [],
        "signals": [{"metric": "error_rate", "max_regression": {"absolute": 0.02}}],
    }
    worse = judgement(reading("breach", role="signal"))
    assert codes(situation(worse, **plan)) == ("hold", ["breach"])
    assert decide(situation(judgement(reading("undecided", role="signal")), **plan)).kind == "advance"


def test_evidence_that_is_there_again_ends_the_wait_for_it() -> None:
    guardrails = [{"metric": "error_rate", "max_regression": {"absolute": 0.02}, "on_missing": "roll_back"}]
    running = transition.start(rollout(guardrails=guardrails), State(), "at_1", at(0))
    state = msgspec.structs.replace(running, missing={"error_rate": Absence(sort="unseen", since=at(1))})
    assert decide(situation("undecided", state=state, guardrails=guardrails)).kind == "hold"
    assert decide(situation("no_data", state=state, guardrails=guardrails)).kind == "roll_back"


def test_a_breach_that_was_seen_while_a_kill_paused_is_acted_on_once_the_kill_is_over() -> None:
    breach = judgement(reading("breach"), culprit="error_rate", combined_max=5.0)
    assert codes(situation(breach, killed=True)) == ("pause", ["killed"])
    running = transition.start(rollout(), State(), "at_1", at(0))
    paused = transition.pause(running, at(1), "the flag was killed", withheld=True)
    assert codes(situation(breach, state=paused, killed=True)) == ("roll_back", ["breach"])


def test_undecided_never_overrules_an_alarm_or_an_approval() -> None:
    stages = [
        {"name": "canary", "percentage": 10, "max_duration": "30m", "approval": "required"},
        {"name": "half", "percentage": 50},
    ]
    alarmed = judgement(reading("pass"), srm_alarm=True)
    assert decide(situation(alarmed, stages=stages, on_undecided="advance")).kind == "hold"
    assert "awaiting_approval" in codes(situation("undecided", stages=stages, on_undecided="advance"))[1]


def test_an_approval_is_the_last_gate_and_binds_to_attempt_and_plan() -> None:
    stages = [{"name": "canary", "percentage": 10, "approval": "required"}, {"name": "half", "percentage": 50}]
    document = rollout(stages=stages)
    running = transition.start(document, State(), "at_1", at(0))
    assert codes(situation("pass", state=running, stages=stages)) == ("hold", ["awaiting_approval"])
    assert codes(situation("undecided", state=running, stages=stages)) == ("hold", ["undecided"])
    right = Approval(by="eve", at=at(9), attempt="at_1", content_hash=content_hash(document))
    for approval, kind in (
        (right, "advance"),
        (msgspec.structs.replace(right, attempt="at_0"), "hold"),
        (msgspec.structs.replace(right, content_hash="other"), "hold"),
    ):
        approved = transition.approve(running, approval)
        assert decide(situation("pass", state=approved, stages=stages)).kind == kind


def test_absent_evidence_acts_by_policy_only_after_a_whole_lease() -> None:
    for policy in ("hold", "pause", "roll_back"):
        guardrails = [{"metric": "error_rate", "max_regression": {"absolute": 0.02}, "on_missing": policy}]
        document = rollout(guardrails=guardrails, lease="15m")
        running = transition.start(document, State(), "at_1", at(0))
        since = missing_now(judgement(reading("no_data")), running, at(100))
        state = msgspec.structs.replace(running, missing=since)
        assert decide(situation("no_data", after=900, state=state, guardrails=guardrails, lease="15m")).kind == "hold"
        assert decide(situation("no_data", after=1000, state=state, guardrails=guardrails, lease="15m")).kind == policy
        assert missing_now(judgement(reading("pass")), state, at(1001)) == {}
        quiet = msgspec.structs.replace(running, missing=missing_now(judgement(reading("no_traffic")), state, at(1)))
        assert decide(situation("no_traffic", after=9000, state=quiet, guardrails=guardrails)).kind == "hold", (
            "no traffic harms nobody"
        )


def test_a_plan_without_guardrails_is_a_timed_ramp() -> None:
    stages = [{"name": "tenth", "percentage": 10, "min_duration": "10m"}, {"name": "all", "percentage": 100}]
    plan: dict[str, Any] = {"guardrails": [], "stages": stages}
    assert decide(situation(judgement(units=0), after=599, **plan)).kind == "hold"
    assert decide(situation(judgement(units=0), after=601, **plan)).kind == "advance"
    waiting = [{**stages[0], "min_units": 5}, stages[1]]
    assert codes(situation(judgement(units=4), guardrails=[], stages=waiting)) == ("hold", ["min_units"])


def test_the_last_stage_completes_or_bakes_and_the_bake_completes() -> None:
    bake = {"duration": "1h", "holdback": 2}
    document = rollout(bake=bake)
    last = transition.advance(document, transition.start(document, State(), "at_1", at(0)), "at_2", at(0), proven=True)
    assert decide(situation("pass", state=last)).kind == "complete"
    assert decide(situation("pass", state=last, bake=bake)).kind == "advance"
    baking = transition.advance(document, last, "at_3", at(0), proven=True)
    assert codes(situation("undecided", state=baking, after=3599, bake=bake)) == ("hold", ["baking"])
    for verdict in ("stale", "insufficient", "no_traffic", "breach"):
        assert codes(situation(verdict, state=baking, bake=bake)) == ("hold", [verdict])
    unproven = transition.advance(document, last, "at_3", at(0), proven=False)
    assert codes(situation("undecided", state=unproven, bake=bake)) == ("hold", ["undecided"])
    assert decide(situation("pass", state=unproven, bake=bake)).kind == "complete"
    assert decide(situation("undecided", state=baking, bake=bake)).kind == "complete"


def test_a_held_decision_says_the_numbers() -> None:
    message = decide(situation("undecided")).reasons[0].message
    assert "3/100" in message
    assert "20/900" in message
