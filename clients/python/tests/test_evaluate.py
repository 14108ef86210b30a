"""The order in which a flag is answered, and what each answer counts for."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout_client.evaluation.answer import Evaluation
from rollout_client.evaluation.bucketing import bucket, cell, pin_hash
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import CompiledRuleset, RulesetError, apply_patch, compile_ruleset, evaluate
from rollout_client.evaluation.receipt import Receipt, decode_receipt
from rollout_client.evaluation.ruleset import Patch, Ruleset

LEASE = 900_000
SLOT = 29395000


def rollout(**changes: Any) -> dict[str, Any]:
    rule = {
        "kind": "rollout", "rollout": "ro_2", "attempt": "at_9", "baseline": "v7", "candidate": "v8",
        "threshold": 50_000, "lease_ms": LEASE, "unit": None, "pin": None, "metrics": ["error_rate"],
    }  # fmt: skip
    return rule | changes


def flag(*rules: dict[str, Any], **changes: Any) -> dict[str, Any]:
    document = {
        "variants": {"v7": {"model": "small"}, "v8": {"model": "large"}, "v9": {"model": "huge"}},
        "default_variant": "v7",
        "salt": "support-answer",
        "rules": list(rules),
    }
    return document | changes


def compiled(flags: dict[str, Any], **changes: Any) -> CompiledRuleset:
    document = {"environment": "production", "revision": 42, "flags": flags} | changes
    return compile_ruleset(msgspec.convert(document, Ruleset))


def ask(document: dict[str, Any], context: Context, lapsed: frozenset[int | None] = frozenset()) -> Evaluation:
    return evaluate(compiled({"f": document}), "f", context, lapsed, SLOT)


def unit_in(arm: str, threshold: int = 50_000) -> str:
    units = (f"user-{number}" for number in range(1_000))
    return next(u for u in units if (bucket("support-answer", u) < threshold) == (arm == "candidate"))


STAFF = {"attribute": "staff", "op": "equals", "values": [True]}


def test_a_flag_without_rules_serves_what_was_released_else_its_default() -> None:
    answer = ask(flag(), Context("user-1"))
    assert (answer.value, answer.variant, answer.reason) == ({"model": "small"}, "v7", "STATIC")
    assert ask(flag(released="v8"), Context("user-1")).variant == "v8"


def test_a_flag_whose_rules_do_not_apply_serves_the_default() -> None:
    answer = ask(flag({"kind": "serve", "when": STAFF, "variant": "v9"}), Context("user-1"))
    assert (answer.variant, answer.reason, answer.error) == ("v7", "DEFAULT", None)


def test_the_first_rule_that_applies_answers() -> None:
    rules = [{"kind": "serve", "when": STAFF, "variant": "v9"}, {"kind": "serve", "when": None, "variant": "v8"}]
    assert ask(flag(*rules), Context("user-1", staff=True)).variant == "v9"
    assert ask(flag(*rules), Context("user-1")).variant == "v8"
    assert ask(flag(*rules), Context("user-1")).reason == "TARGETING_MATCH"


def test_a_kill_beats_everything() -> None:
    document = flag(
        rollout(), killed=True, released="v8", overrides={"user-1": "v9"}, pins={"ro_2": "live"},
        prerequisites=[{"flag": "gone", "variants": ["on"]}],
    )  # fmt: skip
    answer = ask(document, Context("user-1"))
    assert (answer.variant, answer.reason, answer.attempt) == ("v7", "DISABLED", None)


def test_a_kill_of_this_process_beats_the_ruleset() -> None:
    ruleset = msgspec.convert(
        {"environment": "e", "revision": 1, "flags": {"f": flag(rollout(threshold=100_000))}}, Ruleset
    )
    served = compile_ruleset(ruleset)
    killed = compile_ruleset(ruleset, served, frozenset({"f"}))
    assert evaluate(killed, "f", Context("user-1")).reason == "DISABLED"
    assert evaluate(served, "f", Context("user-1")).variant == "v8"


def test_prerequisites_come_before_overrides() -> None:
    needing = flag(
        rollout(), released="v9", overrides={"user-1": "v8"}, prerequisites=[{"flag": "g", "variants": ["v8"]}]
    )
    unmet = compiled({"f": needing, "g": flag()})
    answer = evaluate(unmet, "f", Context("user-1"))
    assert (answer.variant, answer.reason) == ("v9", "DEFAULT")
    met = compiled({"f": needing, "g": flag(released="v8")})
    assert evaluate(met, "f", Context("user-1")).reason == "TARGETING_MATCH"
    assert evaluate(compiled({"f": needing}), "f", Context("user-1")).variant == "v9"


def test_a_prerequisite_that_leads_into_a_cycle_is_not_met() -> None:
    def needs(other: str) -> dict[str, Any]:
        return flag({"kind": "serve", "variant": "v8"}, prerequisites=[{"flag": other, "variants": ["v7", "v8"]}])

    looped = compiled({"a": needs("b"), "b": needs("a"), "c": needs("b"), "d": needs("e"), "e": flag()})
    assert [evaluate(looped, key, Context("u")).variant for key in "abcd"] == ["v7", "v7", "v7", "v8"]


def test_an_override_names_the_unit_by_targeting_key_or_by_the_randomised_attribute() -> None:
    document = flag(rollout(unit="user_id", threshold=0), overrides={"user-1": "v9"})
    assert ask(document, Context("user-1", user_id="user-5")).variant == "v9"
    answer = ask(document, Context("session-3", user_id="user-1"))
    assert (answer.variant, answer.reason, answer.attempt) == ("v9", "TARGETING_MATCH", None)
    assert ask(document, Context("session-3", user_id="user-5")).variant == "v7"


@pytest.mark.parametrize("arm", ["candidate", "baseline"])
def test_a_rollout_rule_randomises_and_names_its_evidence(arm: str) -> None:
    unit = unit_in(arm)
    answer = ask(flag(rollout()), Context(unit))
    assert answer.variant == {"candidate": "v8", "baseline": "v7"}[arm]
    assert (answer.reason, answer.rollout, answer.attempt, answer.arm) == ("SPLIT", "ro_2", "at_9", arm)
    assert decode_receipt(answer.receipt) == Receipt(
        "production",
        "f",
        "ro_2",
        "at_9",
        answer.arm,
        answer.variant,
        SLOT,
        cell(unit),
        None,
    )


def test_a_cohort_let_in_earlier_is_no_evidence() -> None:
    document = flag(rollout(when=STAFF, attempt=None, threshold=100_000), rollout(threshold=0))
    answer = ask(document, Context("user-1", staff=True))
    assert (answer.variant, answer.attempt, answer.receipt) == ("v8", None, None)
    assert ask(document, Context("user-1")).attempt == "at_9"


def test_a_lapsed_lease_serves_the_baseline_and_is_no_evidence() -> None:
    answer = ask(flag(rollout(threshold=100_000)), Context("user-1"), frozenset({LEASE}))
    assert (answer.variant, answer.reason, answer.attempt, answer.receipt) == ("v7", "STALE", None, None)
    assert ask(flag(rollout(threshold=100_000)), Context("user-1"), frozenset({LEASE - 1})).variant == "v8"
    assert ask(flag(rollout(threshold=100_000, lease_ms=None)), Context("user-1"), frozenset({LEASE})).variant == "v8"


@pytest.mark.parametrize("unit", [None, "", 7, True, b"user-1", ["user-1"], "\ud800", {"id": 1}])
def test_a_missing_or_malformed_unit_serves_the_baseline(unit: Any) -> None:
    for answer in (
        ask(flag(rollout(threshold=100_000)), Context(unit)),
        ask(flag(rollout(threshold=100_000, unit="user_id")), Context("user-1", user_id=unit)),
    ):
        assert (answer.variant, answer.reason, answer.error) == ("v7", "DEFAULT", "TARGETING_KEY_MISSING")
        assert answer.attempt is None


def test_the_randomised_unit_may_be_an_attribute() -> None:
    unit = unit_in("candidate")
    answer = ask(flag(rollout(unit="user_id")), Context("session", user_id=unit))
    assert (answer.variant, answer.unit) == ("v8", unit)
    assert unit not in repr(answer), "users are not logged"


def test_a_salt_of_the_rule_wins_over_the_salt_of_the_flag() -> None:
    units = [f"user-{number}" for number in range(200)]
    answers = [ask(flag(rollout(salt="again")), Context(unit)).arm == "candidate" for unit in units]
    assert answers == [bucket("again", unit) < 50_000 for unit in units]


def test_a_split_walks_its_weights_over_the_bucket() -> None:
    document = flag({"kind": "split", "weights": [["v7", 20_000], ["v8", 0], ["v9", 80_000]]})
    for number in range(300):
        unit = f"user-{number}"
        answer = ask(document, Context(unit))
        assert answer.variant == ("v7" if bucket("support-answer", unit) < 20_000 else "v9")
        assert (answer.reason, answer.attempt) == ("SPLIT", None)
    assert ask(document, Context(None)).error == "TARGETING_KEY_MISSING"


CONVERSATION = {"pin": "conversation_id"}


def pinned_to(attempt: str, arm: Any = "candidate", **changes: Any) -> Receipt:
    variant = {"candidate": "v8", "baseline": "v7"}[arm]
    receipt = Receipt("production", "f", "ro_2", attempt, arm, variant, SLOT - 90, 36, pin_hash("c-1"))
    return msgspec.structs.replace(receipt, **changes)


@pytest.mark.parametrize("arm", ["candidate", "baseline"])
def test_a_conversation_keeps_its_variant_whatever_its_unit_would_get_now(arm: str) -> None:
    document = flag(rollout(threshold=0 if arm == "candidate" else 100_000, **CONVERSATION), pins={"ro_2": "live"})
    receipt = pinned_to("at_9", arm)
    answer = ask(document, Context("user-1", conversation_id="c-1", receipt=receipt))
    assert (answer.variant, answer.arm, answer.attempt) == (receipt.variant, arm, None)
    assert decode_receipt(answer.receipt) == receipt, "the unit of the conversation was moved: that is no evidence"


@pytest.mark.parametrize("arm", ["candidate", "baseline"])
def test_a_pin_is_evidence_only_for_the_unit_and_the_arm_that_were_drawn(arm: Any) -> None:
    document = flag(rollout(**CONVERSATION), pins={"ro_2": "live"})
    unit, other = unit_in(arm), unit_in("baseline" if arm == "candidate" else "candidate")
    receipt = pinned_to("at_9", arm, cell=cell(unit))
    answer = ask(document, Context(unit, conversation_id="c-1", receipt=receipt))
    assert (answer.variant, answer.arm, answer.attempt) == (receipt.variant, arm, "at_9")
    assert decode_receipt(answer.receipt) == msgspec.structs.replace(receipt, slot=SLOT)
    for asked, change in (
        (other, {"cell": cell(other)}), (other, {}), (unit, {"cell": cell(unit) ^ 1}), (None, {}),
    ):  # fmt: skip
        edited = msgspec.structs.replace(receipt, **change)
        answer = ask(document, Context(asked, conversation_id="c-1", receipt=edited))
        assert (answer.variant, answer.arm, answer.attempt) == (receipt.variant, arm, None)


def test_a_rule_without_a_lease_splits_but_is_no_evidence_while_nobody_vouched() -> None:
    document = flag(rollout(threshold=100_000, lease_ms=None, **CONVERSATION), pins={"ro_2": "live"})
    receipt = pinned_to("at_9", cell=cell("user-1"))
    for context in (Context("user-1"), Context("user-1", conversation_id="c-1", receipt=receipt)):
        assert ask(document, context).attempt == "at_9"
        answer = ask(document, context, frozenset({None}))
        assert (answer.variant, answer.reason, answer.attempt) == ("v8", "SPLIT", None)


def test_a_unit_whose_truth_cannot_be_asked_is_malformed() -> None:
    class Hostile:
        def __bool__(self) -> bool:
            raise RuntimeError

    unit: Any = Hostile()
    answer = ask(flag(rollout(threshold=100_000)), Context(unit))
    assert (answer.variant, answer.reason, answer.error) == ("v7", "DEFAULT", "TARGETING_KEY_MISSING")


def test_a_pin_to_an_older_attempt_is_no_evidence_and_hands_its_receipt_on() -> None:
    document = flag(rollout(threshold=0, **CONVERSATION), pins={"ro_2": "live"})
    receipt = pinned_to("at_3")
    answer = ask(document, Context("user-1", conversation_id="c-1", receipt=receipt))
    assert (answer.variant, answer.attempt, answer.rollout, answer.arm) == ("v8", None, "ro_2", "candidate")
    assert decode_receipt(answer.receipt) == receipt


def test_a_rolled_back_conversation_drains_or_is_cut() -> None:
    context = Context("user-1", conversation_id="c-1", receipt=pinned_to("at_9"))
    assert ask(flag(pins={"ro_2": "drain"}), context).variant == "v8"
    assert (
        ask(flag(rollout(rollout="ro_3", threshold=0, **CONVERSATION), pins={"ro_2": "drain"}), context).variant == "v8"
    )
    assert ask(flag(), context).variant == "v7"


@pytest.mark.parametrize(
    "receipt",
    [
        pinned_to("at_9", pin=None),
        pinned_to("at_9", pin=pin_hash("c-2")),
        pinned_to("at_9", environment="staging"),
        pinned_to("at_9", flag="g"),
        pinned_to("at_9", rollout="ro_1"),
        pinned_to("at_9", variant="v9"),
        pinned_to("at_9", variant="gone"),
    ],
)
def test_a_receipt_of_another_conversation_flag_or_rollout_pins_nothing(receipt: Receipt) -> None:
    document = flag(rollout(threshold=0, **CONVERSATION), pins={"ro_2": "live"})
    answer = ask(document, Context("user-1", conversation_id="c-1", receipt=receipt))
    assert (answer.variant, answer.arm) == ("v7", "baseline")


def test_a_pin_gives_way_to_a_kill_an_override_and_a_lapsed_lease() -> None:
    context = Context("user-1", conversation_id="c-1", receipt=pinned_to("at_9"))
    live = flag(rollout(threshold=0, **CONVERSATION), pins={"ro_2": "live"})
    assert ask(live | {"killed": True}, context).variant == "v7"
    assert ask(live | {"overrides": {"user-1": "v9"}}, context).variant == "v9"
    answer = ask(live, context, frozenset({LEASE}))
    assert (answer.variant, answer.reason, answer.attempt) == ("v7", "STALE", None)


def test_the_receipt_of_a_first_answer_pins_the_next_ones() -> None:
    document = flag(rollout(threshold=100_000, **CONVERSATION), pins={"ro_2": "live"})
    first = ask(document, Context("user-1", conversation_id="c-1"))
    lowered = flag(rollout(threshold=0, **CONVERSATION), pins={"ro_2": "live"})
    assert ask(lowered, Context("user-1", conversation_id="c-1", receipt=first.receipt)).variant == "v8"
    assert ask(lowered, Context("user-1", conversation_id="c-2", receipt=first.receipt)).variant == "v7"


def test_an_unknown_flag_gives_the_default_of_the_caller() -> None:
    answer = evaluate(compiled({}), "f", Context("user-1"), default=3)
    assert (answer.value, answer.variant, answer.reason, answer.error) == (3, None, "ERROR", "FLAG_NOT_FOUND")


@pytest.mark.parametrize("context", [None, "user-1", {"targeting_key": "user-1"}, 7])
def test_what_is_no_context_gives_an_answer_all_the_same(context: Any) -> None:
    answer = evaluate(compiled({"f": flag(rollout())}), "f", context, default=3)
    assert (answer.value, answer.reason, answer.error) == (3, "ERROR", "INVALID_CONTEXT")


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (flag(default_variant="gone"), "flags.f.default_variant"),
        (flag(released="gone"), "flags.f.released"),
        (flag(overrides={"user-1": "gone"}), "flags.f.overrides"),
        (flag({"kind": "serve", "variant": "gone"}), "flags.f.rules[0].variant"),
        (flag(rollout(), rollout(candidate="gone")), "flags.f.rules[1].candidate"),
        (flag(rollout(threshold=100_001)), "flags.f.rules[0].threshold"),
        (flag({"kind": "split", "weights": [["v7", 99_999]]}), "flags.f.rules[0].weights"),
        (flag({"kind": "split", "weights": []}), "flags.f.rules[0].weights"),
    ],
)
def test_a_ruleset_that_contradicts_itself_is_refused_with_the_path(document: dict[str, Any], path: str) -> None:
    with pytest.raises(RulesetError, match=path.replace("[", r"\[")):
        compiled({"f": document})


@pytest.mark.parametrize("change", [{"schema": 3}, {"algorithm": "murmur3-cbor-2"}])
def test_a_ruleset_of_another_schema_or_algorithm_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RulesetError):
        compiled({"f": flag()}, **change)


RULESET = msgspec.convert(
    {
        "environment": "production",
        "revision": 42,
        "flags": {"f": flag(rollout()), "g": flag()},
        "cohorts": {"staff": {"units": ["user-1"]}},
        "metrics": {"error_rate": {"kind": "proportion"}},
    },
    Ruleset,
)


def test_a_patch_changes_what_it_names_and_compiles_nothing_else_again() -> None:
    patch = msgspec.convert({"base": 42, "revision": 43, "flags": {"g": flag(released="v8"), "f2": flag()}}, Patch)
    after = apply_patch(RULESET, patch)
    assert after is not None
    before, now = compile_ruleset(RULESET), None
    now = compile_ruleset(after, before)
    assert (now.revision, sorted(now.flags)) == (43, ["f", "f2", "g"])
    assert now.flags["f"] is before.flags["f"]
    assert evaluate(now, "g", Context("u")).variant == "v8"
    assert evaluate(before, "g", Context("u")).variant == "v7"
    assert evaluate(now, "f", Context("u")).revision == 43


def test_null_in_a_patch_removes_a_key() -> None:
    patch = msgspec.json.decode(
        json.dumps(
            {"base": 42, "revision": 44, "flags": {"g": None}, "cohorts": {"staff": None}, "metrics": {"x": None}}
        ),
        type=Patch,
    )
    after = apply_patch(RULESET, patch)
    assert after is not None
    assert (list(after.flags), after.cohorts, list(after.metrics)) == (["f"], {}, ["error_rate"])


@pytest.mark.parametrize("change", [{"base": 41}, {"base": 43, "revision": 44}, {"revision": 42}, {"schema": 3}])
def test_a_patch_for_another_revision_is_not_applied(change: dict[str, Any]) -> None:
    patch = msgspec.convert({"base": 42, "revision": 43, "flags": {"g": None}} | change, Patch)
    assert apply_patch(RULESET, patch) is None


def test_a_changed_cohort_reaches_every_flag_that_names_it() -> None:
    ruleset = msgspec.structs.replace(
        RULESET,
        flags={
            "f": msgspec.convert(
                flag({"kind": "serve", "when": {"cohort": "staff"}, "variant": "v8"}), type(RULESET.flags["f"])
            )
        },
    )
    before = compile_ruleset(ruleset)
    patch = msgspec.convert({"base": 42, "revision": 43, "cohorts": {"staff": {"units": ["user-2"]}}}, Patch)
    after = apply_patch(ruleset, patch)
    assert after is not None
    now = compile_ruleset(after, before)
    assert [evaluate(before, "f", Context(unit)).variant for unit in ("user-1", "user-2")] == ["v8", "v7"]
    assert [evaluate(now, "f", Context(unit)).variant for unit in ("user-1", "user-2")] == ["v7", "v8"]


@settings(deadline=None)
@given(st.text(min_size=1), st.integers(0, 100_000), st.integers(0, 100_000))
def test_raising_a_threshold_never_takes_the_candidate_from_a_unit(unit: str, one: int, other: int) -> None:
    low, high = sorted((one, other))
    if ask(flag(rollout(threshold=low)), Context(unit)).arm == "candidate":
        assert ask(flag(rollout(threshold=high)), Context(unit)).arm == "candidate"
