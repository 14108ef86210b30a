"""Sentences of verdicts: each names its numbers, of every verdict and of every kind of metric."""

from typing import Any, get_args

import msgspec
import pytest

from rollout.domain.evidence import Evidence
from rollout.domain.explain import Effect, Lines, growth, whole_sentence
from rollout.domain.findings import Finding, Recorded, findings
from rollout.domain.judge import ArmNumbers, Reading, Verdict
from rollout.stats.margin import Margin
from rollout_client.evaluation.ruleset import MetricKind
from tests.core.domain.observed import KINDS, Watched, calibrated, joined, mine, seen, watched

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
ARM: dict[MetricKind, tuple[ArmNumbers, str]] = {
    "proportion": (ArmNumbers(400, 30), "30/400 (7.50 %)"),
    "count_rate": (ArmNumbers(200, 50), "50 events in 200 (0.25 each)"),
    "ratio": (ArmNumbers(90, 60), "90/60 (1.5)"),
    "mean": (ArmNumbers(40, 100), "40 values, mean 2.5"),
    "quantile": (ArmNumbers(70, 0), "70 values"),
    "distribution": (ArmNumbers(80, 40), "80 values, mean 0.5"),
}


def reading(kind: MetricKind, verdict: Verdict, **changes: Any) -> Reading:
    numbers, _ = ARM[kind]
    fields: dict[str, Any] = {
        "metric": "m", "kind": kind, "role": "guardrail", "verdict": verdict, "candidate": numbers,
        "baseline": numbers, "log_e_harm": 0.5, "harm_threshold": 4.6052, "log_e_gate": 1.5,
        "gate_threshold": 2.9957, "gate_margin": Margin(0.06, False, 3.0), "design_effect": 1.0,
        "units_needed": 411.2,
    }  # fmt: skip
    of_verdict: dict[str, dict[str, Any]] = {
        "breach": {"log_e_harm": 5.0}, "pass": {"log_e_gate": 3.25}, "error": {"source_error": "timed out"},
    }  # fmt: skip
    fields |= of_verdict.get(verdict, {})
    return Reading(**{**fields, **changes})


def said(found: Reading, effect: Effect | None = None, **lines: Any) -> str:
    drawn = {"direction": "lower_is_better", "rollback": Margin(0.02, False), "gate": found.gate_margin, **lines}
    return whole_sentence(found, Lines(**drawn), effect, ArmNumbers(412, 398))


def effect(**changes: Any) -> Effect:
    known = {"estimate": 0.0123, "lower": -0.02, "upper": 0.05, "alpha_lower": 0.01, "alpha_upper": 0.05}
    return Effect(**{"form": "difference", **known, **changes})


@pytest.mark.parametrize("kind", ARM)
@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_names_the_numbers_of_both_arms(kind: MetricKind, verdict: Verdict) -> None:
    sentence = said(reading(kind, verdict), effect())
    level = ARM[kind][1]
    assert f"candidate {level}, baseline {level}" in sentence
    assert "\n" not in sentence
    read = msgspec.json.decode(msgspec.json.encode(reading(kind, verdict)), type=Reading)
    assert said(read, effect()) == sentence, "numbers that were read back are the same numbers"


@pytest.mark.parametrize(
    ("verdict", "parts"),
    [
        ("pass", ["passed", "25.8-fold, 20-fold opens the gate (log e 3.25 >= 3.00)", "nothing more is needed"]),
        ("breach", ["worse", "148-fold, 100-fold proves it (log e 5.00 >= 4.61)", "nothing more is needed to prove"]),
        ("undecided", [
            "4.48-fold, 20-fold opens the gate (log e 1.50 < 3.00)",
            "1.65-fold, 100-fold proves it (log e 0.50 < 4.61)",
            "about 412 more candidate requests",
        ]),
        ("insufficient", ["not enough outcomes yet", "412 and 398 requests"]),
        ("no_traffic", ["no request reached this stage lately", "412 and 398 requests", "requests to both arms"]),
        ("no_data", ["no outcome of this metric", "412 and 398 requests", "is it observed"]),
        ("stale", ["no outcome of this metric lately", "412 and 398 requests", "newer outcomes"]),
        ("error", ["its source could not be asked (timed out)", "412 and 398 requests", "an answer of its source"]),
    ],
)  # fmt: skip
def test_a_verdict_says_how_much_evidence_there_is_and_what_it_still_takes(verdict: Verdict, parts: list[str]) -> None:
    sentence = said(reading("proportion", verdict), effect())
    assert [part for part in parts if part not in sentence] == []
    assert "a rise beyond 2 points is harm, this gate accepts one up to 6 points, 3 times the plan's margin" in sentence


def test_the_size_of_the_change_comes_with_both_ends_and_their_levels() -> None:
    found = reading("proportion", "undecided")
    ends = "the change is +1.23 points, at least -2 points (99 %) and at most +5 points (95 %), however often one looks"
    assert ends in said(found, effect())
    assert "the change is +1.23 points, at most +5 points (95 %), however" in said(found, effect(lower=None))
    assert "the change is +1.23 points, known no closer yet" in said(found, effect(lower=None, upper=None))
    assert "has no size yet" in said(found, effect(estimate=None, lower=None, upper=None))
    assert "the change" not in said(found), "what was not computed is not spoken of"


def test_a_change_is_said_in_the_unit_of_its_kind() -> None:
    ratio = effect(form="ratio", estimate=1.26, lower=0.98, upper=30.0)
    assert "+26 %, at least -2 % (99 %) and at most +2,900 %" in said(reading("mean", "undecided"), ratio)
    assert "is +0.0123, at least -0.02" in said(reading("mean", "undecided"), effect())
    share = said(reading("quantile", "undecided"), effect(form="share_beyond"))
    assert "the change of the share beyond is +1.23 points" in share


def test_lines_are_said_in_the_direction_that_harms() -> None:
    falling = said(reading("mean", "undecided"), direction="higher_is_better", rollback=Margin(0.1, True))
    assert "a fall beyond 10 % is harm, this gate accepts one up to 0.06" in falling
    assert "any rise is harm" in said(reading("mean", "undecided"), rollback=Margin(0.0, True))


def test_what_is_needed_depends_on_what_is_missing() -> None:
    unseen = reading("proportion", "insufficient", candidate=ArmNumbers(0, 0))
    assert "outcomes of the candidate are needed" in said(unseen, effect())
    assert "the change" not in said(unseen, effect()), "one arm has no change"
    awaited = said(reading("mean", "insufficient", awaits=321))
    assert "321 more baseline outcomes until its thresholds are frozen" in awaited
    assert "about very many more" in said(reading("mean", "undecided", units_needed=1e12))
    assert "about 41,235 more" in said(reading("mean", "undecided", units_needed=41234.5))
    assert "cannot be said yet" in said(reading("mean", "undecided", units_needed=None))
    assert "holds until" in said(reading("mean", "breach", role="signal"))
    assert "holds nothing" in said(reading("mean", "breach", role="warning"))
    several = said(reading("mean", "undecided", gates={"mean": 0.0, "tail": 2.0}))
    assert "mean 1-fold and tail 7.39-fold, 20-fold opens the gate" in several


def test_evidence_in_words_keeps_its_size() -> None:
    grown = [growth(log_e) for log_e in (-50.0, 0.0, 3.0, 8.0, 13.0, 900.0)]
    assert grown == ["1.93e-22-fold", "1-fold", "20.1-fold", "2,981-fold", "442,413-fold", "over 1,000,000-fold"]


def found(world: Watched, evidence: Evidence, now: float = 62, *, whole: bool = True) -> Finding:
    judgement = world.judge(evidence, now)
    recorded = Recorded(judgement=judgement, tick=7, evidence=evidence if whole else None)
    (finding,) = findings(world.plan, {"m": world.metric}, recorded)
    return finding


def measured(kind: str, candidate: list[int]) -> tuple[Watched, Evidence]:
    """A rollout of which the baseline has been seen, then as many values of each arm as the candidate's."""
    world = watched(kind)
    evidence = calibrated(world, kind)
    frozen = mine(evidence).frozen
    values = [world.batch(seen(kind, "candidate", candidate), frozen)]
    values.append(world.batch(seen(kind, "baseline", [place % 16 for place in range(len(candidate))]), frozen))
    return world, world.take(evidence, joined(values), 61)


@pytest.mark.parametrize("kind", KINDS)
def test_a_finding_has_the_numbers_of_its_sentence(kind: str) -> None:
    world, evidence = measured(kind, [place % 16 for place in range(1600)])
    finding = found(world, evidence)
    assert (finding.metric, finding.tick, finding.verdict) == ("m", 7, world.judge(evidence, 62).readings[0].verdict)
    assert finding.candidate.level == pytest.approx(finding.baseline.level, rel=0.1)
    assert finding.candidate.n >= 1600
    assert finding.effect is not None
    size, lower, upper = finding.effect.estimate, finding.effect.lower, finding.effect.upper
    assert size is not None
    assert lower is None or lower <= size
    assert upper is None or upper >= size
    assert lower is not None or upper is not None
    assert finding.sentence == found(world, evidence).sentence
    assert f"log e {finding.log_e_gate:.2f}" in finding.sentence
    assert (finding.lines.rollback, finding.lines.gate) == (world.watch.harm_margin, world.watch.margin)


@pytest.mark.parametrize("kind", KINDS)
def test_harm_is_found_with_an_effect_on_the_side_that_harms(kind: str) -> None:
    bad = [0 if KINDS[kind][0].get("direction") == "higher_is_better" else 15] * 1600
    if kind == "count_rate":
        bad = [2] * 1600  # the number with the most events
    world, evidence = measured(kind, bad)
    finding = found(world, evidence)
    if kind == "quantile":
        assert finding.effect is not None
        assert finding.effect.form == "share_beyond"
        assert (finding.effect.lower or 0) > 0.5, "nearly every value lies beyond the baseline's p95"
        return
    assert finding.verdict == "breach"
    assert finding.effect is not None
    none = 1.0 if finding.effect.form == "ratio" else 0.0
    near = finding.effect.upper if finding.lines.direction == "higher_is_better" else finding.effect.lower
    assert near is not None
    assert near < none if finding.lines.direction == "higher_is_better" else near > none


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_kept_at_a_precision_that_a_replay_repeats(kind: str) -> None:
    world, evidence = measured(kind, [place % 16 for place in range(1600)])
    effect = found(world, evidence).effect
    assert effect is not None
    needed = world.judge(evidence, 62).readings[0].units_needed
    for number in (effect.estimate, effect.lower, effect.upper, needed):
        assert number is None or number == float(f"{number:.6g}")
    again = msgspec.json.decode(msgspec.json.encode(evidence), type=Evidence)
    assert msgspec.json.encode(found(world, again)) == msgspec.json.encode(found(world, evidence))


def test_without_evidence_no_statistic_is_asked_and_the_verdict_stays() -> None:
    world, evidence = measured("proportion", [1] * 1600)
    bare, whole = (found(world, evidence, whole=each) for each in (False, True))
    assert bare.effect is None
    assert "the change" not in bare.sentence
    assert (bare.verdict, bare.candidate, bare.log_e_harm) == (whole.verdict, whole.candidate, whole.log_e_harm)


def test_an_interval_that_cannot_be_computed_stands_in_no_way() -> None:
    world, evidence = measured("proportion", [1] * 1600)
    judgement = world.judge(evidence, 62)
    mine(evidence).totals["at_1"]["candidate"] = [10.0, 11.0]  # more events than requests
    (finding,) = findings(world.plan, {"m": world.metric}, Recorded(judgement=judgement, tick=7, evidence=evidence))
    assert finding.effect is None
    assert finding.verdict == judgement.readings[0].verdict
