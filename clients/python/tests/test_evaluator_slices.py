"""Slices: who lies outside gets what everybody gets without the rollout, is in no arm, and never evidence."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.python.tests.answering import (
    FIRST_OF_ITS_BUCKET,
    HIGHEST,
    LEASE,
    LOWEST,
    ask,
    compiled,
    evidence,
    flag,
    leaf,
    rollout,
    ruleset,
    said,
    serve,
)
from rollout_client.evaluation.bucketing import bucket, cell, pin_hash
from rollout_client.evaluation.context import NOBODY, Context
from rollout_client.evaluation.evaluate import RulesetError, apply_patch, compile_ruleset, evaluate
from rollout_client.evaluation.receipt import Receipt
from rollout_client.evaluation.ruleset import BUCKETS, SCHEMA, SCHEMA_OF_SLICES, Patch, RulesetFlag

UNITS = [f"user-{number}" for number in range(10_000)]
HALVES = (0, 50_000), (50_000, BUCKETS)


def part(start: int, end: int, salt: str = "g", **more: Any) -> dict[str, Any]:
    return {"salt": salt, "start": start, "end": end, **more}


def sliced(*slices: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return rollout(slices=list(slices), **changes)


def who_is(inside: bool, one: dict[str, Any]) -> str:
    return next(u for u in UNITS if (one["start"] <= bucket(one["salt"], u) < one["end"]) is inside)


def test_a_slice_begins_and_ends_at_its_buckets() -> None:
    for unit, place in {**FIRST_OF_ITS_BUCKET, LOWEST: 0, HIGHEST: BUCKETS - 1}.items():
        inside = evidence("on", "candidate", unit)
        for start, end, expected in (
            (place, place + 1, inside),
            (0, place + 1, inside),
            (place, BUCKETS, inside),
            (place + 1, BUCKETS, said("off", "DEFAULT")),
            (0, place, said("off", "DEFAULT")),
        ):
            if start < end:
                document = flag(sliced(part(start, end, "s"), threshold=BUCKETS))
                assert ask(document, Context(unit)) == expected, (unit, start, end)


def test_a_slice_of_another_unit_begins_and_ends_at_its_buckets_too() -> None:
    for company, place in {**FIRST_OF_ITS_BUCKET, LOWEST: 0, HIGHEST: BUCKETS - 1}.items():
        for start, end, inside in ((place, place + 1, True), (place + 1, BUCKETS, False), (0, place, False)):
            if start < end:
                document = flag(sliced(part(start, end, "s", unit="company"), threshold=BUCKETS))
                assert (ask(document, Context("u", company=company)).arm is not None) is inside


@pytest.mark.parametrize("when", [None, leaf("country", "in", "CH"), leaf("size", "greater_than", 3)])
@pytest.mark.parametrize("attempt", ["at_1", None])
def test_who_lies_outside_gets_what_everybody_gets_without_the_rollout(when: Any, attempt: str | None) -> None:
    one = part(0, 30_000)
    rule = sliced(one, when=when, attempt=attempt, threshold=BUCKETS)
    outside = Context(who_is(False, one), country="CH", size=4)
    inside = Context(who_is(True, one), country="CH", size=4)
    assert ask(flag(rule), outside) == said("off", "DEFAULT")
    assert ask(flag(rule, released="mid"), outside) == said("mid", "DEFAULT")
    assert ask(flag(rule, serve("mid")), outside) == said("mid", "TARGETING_MATCH")
    assert ask(flag(rule, serve("mid", leaf("country", "in", "CH"))), outside) == said("mid", "TARGETING_MATCH")
    for before in ((), (serve("mid", leaf("country", "in", "FR")),)):
        answer = ask(flag(*before, rule, serve("mid")), inside)
        assert (answer.variant, answer.rollout, answer.attempt) == ("on", "ro_1", attempt)
    assert ask(flag(serve("mid", leaf("country", "in", "CH")), rule), inside) == said("mid", "TARGETING_MATCH")


def test_who_lies_inside_is_still_asked_for_the_condition() -> None:
    one = part(0, 30_000)
    inside = who_is(True, one)
    for when in (leaf("country", "in", "CH"), leaf("size", "greater_than", 3)):
        document = flag(sliced(one, when=when, threshold=BUCKETS), serve("mid"))
        assert ask(document, Context(inside, country="CH", size=4)) == evidence("on", "candidate", inside)
        assert ask(document, Context(inside, country="FR", size=2)) == said("mid", "TARGETING_MATCH")


def test_who_lies_outside_every_rule_of_a_rollout_falls_through_them_all() -> None:
    one = part(0, 30_000)
    early = sliced(one, when=leaf("staff", "equals", True), attempt=None, threshold=BUCKETS)
    rules = [early, sliced(one), serve("mid", leaf("country", "in", "CH"))]
    outside = who_is(False, one)
    assert ask(flag(*rules), Context(outside, staff=True)) == said("off", "DEFAULT")
    assert ask(flag(*rules), Context(outside, staff=True, country="CH")) == said("mid", "TARGETING_MATCH")
    inside = ask(flag(*rules), Context(who_is(True, one), staff=True, country="CH"))
    assert (inside.variant, inside.attempt, inside.arm) == ("on", None, "candidate")


def test_a_unit_takes_part_when_it_lies_in_all_slices() -> None:
    first, second, third = part(5_000, BUCKETS, "holdout"), part(0, 60_000), part(30_000, 90_000, "third")
    answers = compiled({"f": flag(sliced(first, second, third))})
    for unit in UNITS[:500]:
        inside = all(each["start"] <= bucket(each["salt"], unit) < each["end"] for each in (first, second, third))
        assert (evaluate(answers, "f", Context(unit)).arm is not None) is inside


def test_a_slice_may_hash_another_unit_than_the_rule() -> None:
    one = part(0, 50_000, unit="company")
    inside, outside = who_is(True, one), who_is(False, one)
    document = flag(sliced(one, part(0, BUCKETS, "all"), threshold=BUCKETS), serve("mid"))
    assert ask(document, Context("u", company=inside)) == evidence("on", "candidate", "u")
    mid = said("mid", "TARGETING_MATCH")
    for company in (outside, 7, "", None, "\ud800"):
        assert ask(document, Context("u", company=company)) == mid
    assert ask(document, Context("u")) == mid


@pytest.mark.parametrize(
    ("rule", "one"), [(None, None), (None, "targeting_key"), ("user_id", None), ("user_id", "user_id")]
)
def test_a_slice_hashes_the_unit_of_its_rule_unless_it_names_another(rule: str | None, one: str | None) -> None:
    half = part(0, 50_000, unit=one)
    document = flag(sliced(half, unit=rule, threshold=BUCKETS))
    for who in (True, False):
        unit = who_is(who, half)
        context = Context(unit) if rule is None else Context("somebody", user_id=unit)
        assert (ask(document, context).arm is not None) is who


def test_a_slice_of_the_targeting_key_holds_for_a_rule_that_randomises_something_else() -> None:
    half = part(0, 50_000, unit="targeting_key")
    document = flag(sliced(half, unit="talk", threshold=BUCKETS))
    assert ask(document, Context(who_is(True, half), talk="t")) == evidence("on", "candidate", "t")
    assert ask(document, Context(who_is(False, half), talk="t")) == said("off", "DEFAULT")
    assert ask(document, Context(None, talk="t")) == said("off", "DEFAULT")


def test_who_has_no_unit_is_told_so_whatever_the_slices_are() -> None:
    missing = said("off", "DEFAULT", error="TARGETING_KEY_MISSING", rollout="ro_1")
    for slices in ([part(0, 1)], [part(0, BUCKETS, unit="company")]):
        assert ask(flag(sliced(*slices), serve("mid")), NOBODY) == missing
        assert ask(flag(sliced(*slices), serve("mid")), NOBODY, LEASE) == missing


def test_a_lease_lapses_for_those_inside_and_concerns_nobody_else() -> None:
    one = part(0, 50_000)
    inside, outside = Context(who_is(True, one)), Context(who_is(False, one))
    assert ask(flag(sliced(one)), inside, LEASE) == said("off", "STALE", rollout="ro_1")
    assert ask(flag(sliced(one), released="mid"), outside, LEASE) == said("mid", "DEFAULT")
    unleased = flag(sliced(one, lease_ms=None, threshold=BUCKETS), released="mid")
    assert ask(unleased, inside, None) == said("on", "SPLIT", rollout="ro_1", arm="candidate")
    assert ask(unleased, outside, None) == said("mid", "DEFAULT")


def test_a_pin_of_somebody_outside_is_served_and_is_no_evidence() -> None:
    one = part(0, 50_000)
    document = flag(sliced(one, pin="talk", threshold=BUCKETS), pins={"ro_1": "live"})
    for who in (True, False):
        unit = who_is(who, one)
        held = Receipt("e", "f", "ro_1", "at_1", "candidate", "on", 2, cell(unit), pin_hash("t-1"))
        answer = ask(document, Context(unit, {"talk": "t-1"}, receipt=held))
        assert (answer.variant, answer.arm, answer.attempt) == ("on", "candidate", "at_1" if who else None)


def test_disjoint_slices_of_one_salt_never_share_a_unit() -> None:
    flags = {f"f{at}": flag(sliced(part(*each)), salt=f"s{at}") for at, each in enumerate(HALVES)}
    answers = compiled(flags)
    taken = [{u for u in UNITS if evaluate(answers, key, Context(u)).arm is not None} for key in flags]
    assert not taken[0] & taken[1]
    assert taken[0] | taken[1] == set(UNITS)


def test_a_held_out_unit_gets_no_candidate_of_any_flag() -> None:
    held = part(20_000, BUCKETS, "holdout/holdout")
    documents = {
        "open": flag(sliced(held, threshold=BUCKETS), salt="open"),
        "half": flag(sliced(held, part(0, 50_000, "exclusion/g")), salt="half"),
        "cohort": flag(sliced(held, when={"cohort": "all"}, threshold=BUCKETS), rollout(threshold=0), salt="cohort"),
        "staff": flag(sliced(held, attempt=None, threshold=BUCKETS), sliced(held), salt="staff"),
        "holdout": flag(sliced(held), salt="holdout"),
    }
    answers = compiled(documents, cohorts={"all": {"units": UNITS}})
    held_out = {unit for unit in UNITS if bucket("holdout/holdout", unit) < 20_000}
    assert 1_800 < len(held_out) < 2_200
    for key in documents:
        with_it = {unit for unit in UNITS if evaluate(answers, key, Context(unit)).variant == "on"}
        assert not with_it & held_out
        assert with_it


@pytest.mark.parametrize("threshold", [1_000, 10_000, 50_000, 98_000])
@pytest.mark.parametrize("one", [part(0, 30_000), part(30_000, 100_000), part(5_000, 100_000, "holdout")])
def test_the_arms_keep_their_share_within_a_slice(threshold: int, one: dict[str, Any]) -> None:
    answers = compiled({"f": flag(sliced(one, threshold=threshold))})
    arms = [evaluate(answers, "f", Context(f"user-{number}")).arm for number in range(40_000)]
    inside, share = 40_000 - arms.count(None), threshold / BUCKETS
    deviation = (inside * share * (1 - share)) ** 0.5
    assert abs(arms.count("candidate") - inside * share) < 4 * deviation
    assert abs(inside / 40_000 - (one["end"] - one["start"]) / BUCKETS) < 0.01


@settings(deadline=None)
@given(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1),
    st.integers(0, BUCKETS),
    st.integers(0, BUCKETS),
    st.integers(0, BUCKETS - 1),
    st.integers(1, BUCKETS),
)
def test_a_ramp_within_a_slice_only_adds_units(unit: str, one: int, other: int, start: int, width: int) -> None:
    slices = part(start, min(BUCKETS, start + width))
    low, high = sorted((one, other))
    before, after = (ask(flag(sliced(slices, threshold=each)), Context(unit)) for each in (low, high))
    assert (before.arm is None) == (after.arm is None)
    if before.arm == "candidate":
        assert after.arm == "candidate"


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1), st.integers(0, 50_000), st.integers(0, 50_000))
def test_a_slice_that_shrinks_moves_units_out_and_never_into_the_other_arm(unit: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    before, after = (ask(flag(sliced(part(each, BUCKETS))), Context(unit)).arm for each in (low, high))
    assert after in (before, None)


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 5), (6, 5), (0, BUCKETS + 1), (BUCKETS, BUCKETS)])
def test_a_slice_that_holds_nobody_is_refused_with_the_path(start: int, end: int) -> None:
    document = flag(serve("mid", leaf("a", "equals", 1)), sliced(part(0, 1), part(start, end)))
    with pytest.raises(RulesetError) as caught:
        compile_ruleset(ruleset({"f": document}))
    assert str(caught.value) == "flags.f.rules[1].slices: a slice goes from its start to a later end, both 0 to 100000"


def test_a_document_with_slices_has_a_schema_that_a_reader_without_them_refuses() -> None:
    assert (SCHEMA, SCHEMA_OF_SLICES) == (1, 2)
    before = ruleset({"f": flag(rollout())})
    changed = msgspec.convert(flag(sliced(part(0, 1))), RulesetFlag)
    patch = Patch(base=3, base_edition="a", revision=4, edition="b", flags={"f": changed}, schema=SCHEMA_OF_SLICES)
    after = apply_patch(before, patch)
    assert after is not None
    assert after.schema == SCHEMA_OF_SLICES
    assert compile_ruleset(after).attempts["at_1"].slices
    back = apply_patch(after, Patch(base=4, base_edition="b", revision=5, flags=before.flags))  # type: ignore[arg-type]
    assert back is not None
    assert back.schema == SCHEMA
