"""What the evaluator does rarely: flags compiled anew by a patch, tables that are none, what contradicts itself."""

import math
from typing import Any

import msgspec
import pytest

from rollout_client.evaluation import bucketing, histogram, sketch
from rollout_client.evaluation.authoring import condition_problems
from rollout_client.evaluation.condition import Condition
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import RulesetError, apply_patch, compile_ruleset, evaluate
from rollout_client.evaluation.receipt import Receipt, decode_receipt
from rollout_client.evaluation.ruleset import BUCKETS, Patch, Ruleset

ROLLOUT = {"kind": "rollout", "rollout": "ro_1", "attempt": "at_1", "baseline": "off", "candidate": "on",
           "threshold": 100_000, "metrics": ["errors"]}  # fmt: skip
SPLIT = {"kind": "split", "weights": [["on", 50_000], ["off", 50_000]]}


def leaf(attribute: str, op: str, *values: Any) -> dict[str, Any]:
    return {"attribute": attribute, "op": op, "values": list(values)}


def flag(*rules: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"variants": {"on": 1, "off": 0}, "default_variant": "off", "salt": "s", "rules": list(rules)} | changes


def ruleset(flags: dict[str, Any], **changes: Any) -> Ruleset:
    return msgspec.convert({"environment": "e", "revision": 1, "edition": "a", "flags": flags} | changes, Ruleset)


def ask(document: dict[str, Any], context: Context) -> tuple[Any, str | None, str]:
    answer = evaluate(compile_ruleset(ruleset({"f": document})), "f", context)
    return answer.value, answer.variant, answer.reason


TABLES = [flag({"kind": "serve", "variant": "on", "when": leaf("plan", "in", "pro", 7, True)}, last) for last in
          (SPLIT | {"weights": [["on", 0], ["off", BUCKETS]]}, ROLLOUT | {"threshold": 0})]  # fmt: skip
TABLES.append(flag({"kind": "serve", "variant": "on", "when": leaf("plan", "in", "pro", 7, True)}))


class Hostile:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None


class Broken(list[str]):
    def __iter__(self) -> Any:
        raise RuntimeError


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize(
    ("plan", "matches"),
    [("pro", True), (7, True), (7.0, True), (True, True), (["free", "pro"], True), (("pro",), True), ("free", False),
     (None, False), (1, False), ("7", False), ([], False), ({"pro": 1}, False), (Hostile(), False),
     (Broken(["pro"]), False)],
)  # fmt: skip
def test_a_table_of_texts_matches_what_the_condition_matches(table: dict[str, Any], plan: Any, matches: bool) -> None:
    context = Context("user-1", plan=plan)
    assert (ask(table, context)[2] == "TARGETING_MATCH") is matches
    slow = {
        **table,
        "rules": [{**table["rules"][0], "when": {"all": [table["rules"][0]["when"]]}}, *table["rules"][1:]],
    }
    assert ask(slow, context) == ask(table, context)


@pytest.mark.parametrize("when", [leaf("plan", "matches", "("), leaf("plan", "in"), leaf("plan", "in", [1]), {}])
def test_a_condition_that_cannot_be_read_is_no_table_and_admits_nobody(when: dict[str, Any]) -> None:
    assert ask(flag({"kind": "serve", "variant": "on", "when": when}), Context("u", plan="pro"))[1] == "off"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (flag(default_variant="gone"), 'flags.f.default_variant: there is no variant "gone"'),
        (flag(released="gone"), 'flags.f.released: there is no variant "gone"'),
        (flag(overrides={"u": "gone"}), 'flags.f.overrides: there is no variant "gone"'),
        (flag({"kind": "serve", "variant": "gone"}), 'flags.f.rules[0].variant: there is no variant "gone"'),
        (flag(SPLIT, SPLIT | {"weights": [["on", 99_999]]}), "flags.f.rules[1].weights: widths"),
        (flag(SPLIT | {"weights": [["on", -1], ["off", 100_001]]}), "flags.f.rules[0].weights: widths"),
        (flag(SPLIT | {"weights": [["gone", BUCKETS]]}), 'flags.f.rules[0].weights: there is no variant "gone"'),
        (flag(ROLLOUT | {"threshold": -1}), "flags.f.rules[0].threshold: a threshold is 0 to 100000"),
        (flag(ROLLOUT | {"threshold": 100_001}), "flags.f.rules[0].threshold: a threshold is 0 to 100000"),
        (flag(ROLLOUT | {"baseline": "gone"}), 'flags.f.rules[0].baseline: there is no variant "gone"'),
        (flag(ROLLOUT | {"candidate": "gone"}), 'flags.f.rules[0].candidate: there is no variant "gone"'),
    ],
)
def test_a_flag_that_contradicts_itself_is_refused_with_its_path(document: dict[str, Any], said: str) -> None:
    with pytest.raises(RulesetError) as caught:
        compile_ruleset(ruleset({"f": document}))
    assert str(caught.value).startswith(said)


def test_a_patch_compiles_what_it_changes_and_nothing_else() -> None:
    needing = flag(prerequisites=[{"flag": "a", "variants": ["on"]}])
    before = compile_ruleset(ruleset({"a": flag(ROLLOUT), "b": flag(SPLIT), "c": needing}))
    asked = [evaluate(before, key, Context("u")).variant for key in "ab"]
    assert asked[0] == "on"
    changes = {"base": 1, "revision": 2, "base_edition": "a", "edition": "b",
               "flags": {"a": flag(), "c": None, "d": flag(ROLLOUT), "e": needing}}  # fmt: skip
    patched = apply_patch(before.ruleset, msgspec.convert(changes, Patch))
    assert patched is not None
    for after in (compile_ruleset(patched, before, frozenset(), changes["flags"]), compile_ruleset(patched, before)):
        assert after.flags.keys() == {"a", "b", "d", "e"}
        assert after.answers == {"b": before.answers["b"]}
        assert (after.splitting.keys(), after.needing.keys()) == ({"d"}, {"e"})
        assert after.attempts.keys() == {"at_1"}
        assert after.rollout_metrics == {"ro_1": frozenset({"errors"})}
        assert [evaluate(after, key, Context("u")).variant for key in "abcde"][2:] == [None, "on", "off"]
        assert {evaluate(after, key, Context("u")).revision for key in "abde"} == {2}
        assert evaluate(after, "b", Context("u")).value == evaluate(before, "b", Context("u")).value
    assert evaluate(before, "b", Context("u")).revision == 1
    assert [after.baseline(*of) for of in (("d", "ro_1"), ("d", "ro_2"), ("b", "ro_1"))] == ["off", None, None]


def test_a_large_ruleset_is_compiled_with_pauses() -> None:
    pauses: list[int] = []
    compile_ruleset(ruleset({f"f{n}": flag() for n in range(2_500)}), pause=lambda: pauses.append(1))
    assert len(pauses) == 10


@pytest.mark.parametrize("position", [0, 1, 12_345, 50_000, 99_999, BUCKETS])
def test_a_hash_is_below_if_and_only_if_its_bucket_is(position: int) -> None:
    end = bucketing.hashes_below(position)
    for hashed in (end - 1, end):
        if 0 <= hashed < 1 << 32:
            assert (hashed < end) == ((hashed * BUCKETS) >> 32 < position)


def test_a_key_that_is_no_text_and_a_context_that_is_none() -> None:
    compiled = compile_ruleset(ruleset({"f": flag(SPLIT)}))
    odd: Any = ["f"]
    assert evaluate(compiled, odd, Context("u"), default=3).error == "GENERAL"
    assert evaluate(compiled, "f", odd, default=3).error == "INVALID_CONTEXT"
    missing = evaluate(compiled, "g", Context("u"), default=3)
    assert (missing.value, missing.error, missing.reason) == (3, "FLAG_NOT_FOUND", "ERROR")


def test_a_context_that_changes_its_key_is_somebody_else() -> None:
    context = Context("user-1", plan="pro")
    assert (context.unit, repr(context)) == (bucketing.cbor_text("user-1"), "Context('user-1', {'plan': 'pro'})")
    context.targeting_key = "user-2"
    assert (context.targeting_key, context.unit) == ("user-2", bucketing.cbor_text("user-2"))
    context.targeting_key = None
    assert context.unit == b""


def test_a_cohort_lists_units_by_the_randomised_attribute_when_that_is_a_text() -> None:
    document = flag(ROLLOUT | {"unit": "account", "when": {"cohort": "staff"}})
    compiled = compile_ruleset(ruleset({"f": document}, cohorts={"staff": {"units": ["a-1"]}}))
    answers = [evaluate(compiled, "f", Context("u", account=account)).variant for account in ("a-1", "a-2", 7, None)]
    assert answers == ["on", "off", "off", "off"]


def test_a_value_just_below_an_edge_of_a_histogram_is_below_it() -> None:
    for index in range(histogram.LOWEST_BUCKET + 1, histogram.HIGHEST_BUCKET + 1):
        edge = histogram.log_edges(index)[0]
        assert (histogram.log_bucket(math.nextafter(edge, 0.0)), histogram.log_bucket(edge)) == (index - 1, index)


def test_what_cannot_be_is_refused() -> None:
    for wrong in (histogram.LOWEST_BUCKET - 2, histogram.HIGHEST_BUCKET + 1):
        with pytest.raises(ValueError, match="is no log bucket"):
            histogram.log_edges(wrong)
    for wrong in (-1, histogram.LINEAR_BUCKETS):
        with pytest.raises(ValueError, match="is no linear bucket"):
            histogram.linear_edges(wrong, 0.0, 1.0)
    with pytest.raises(ValueError, match="registers"):
        sketch.estimate(b"")
    receipt = Receipt("e", "f", "ro_1", "at_1", "candidate", "on", 1, 1, None)
    assert decode_receipt(receipt) == receipt
    assert decode_receipt(msgspec.structs.replace(receipt, cell=256)) is None
    assert condition_problems(Condition(attribute="", op="exists"), "when")[0][0] == "when.attribute"
