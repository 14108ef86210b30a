"""What an author or an operator is told: exact paths and sentences."""

from typing import Any

import msgspec
import pytest

from clients.python.tests.answering import flag, leaf, rollout, ruleset, serve, split
from rollout_client.evaluation import histogram, sketch
from rollout_client.evaluation.authoring import condition_problems
from rollout_client.evaluation.condition import DEEPEST, Condition
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import RulesetError, compile_ruleset
from rollout_client.evaluation.operators import OPERATORS
from rollout_client.evaluation.rules import contradiction
from rollout_client.evaluation.ruleset import Ruleset
from rollout_client.evaluation.targeting import cohort_names, compile_condition

EXISTS = leaf("a", "exists")


def condition(document: dict[str, Any]) -> Condition:
    return msgspec.convert(document, Condition)


def problems(document: dict[str, Any]) -> list[tuple[str, str]]:
    return condition_problems(condition(document), "when")


WIDTHS = "widths must not be negative and sum to 100000"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (flag(default_variant="x"), 'flags.f.default_variant: there is no variant "x"'),
        (flag(released="x"), 'flags.f.released: there is no variant "x"'),
        (flag(overrides={"u": "on", "v": "x"}), 'flags.f.overrides: there is no variant "x"'),
        (flag(serve("on"), serve("x")), 'flags.f.rules[1].variant: there is no variant "x"'),
        (flag(rollout(), rollout(baseline="x")), 'flags.f.rules[1].baseline: there is no variant "x"'),
        (flag(rollout(candidate="x")), 'flags.f.rules[0].candidate: there is no variant "x"'),
        (flag(rollout(threshold=-1)), "flags.f.rules[0].threshold: a threshold is 0 to 100000"),
        (flag(rollout(threshold=100_001)), "flags.f.rules[0].threshold: a threshold is 0 to 100000"),
        (flag(split(("on", 1), ("x", 99_999))), 'flags.f.rules[0].weights: there is no variant "x"'),
        (flag(split()), f"flags.f.rules[0].weights: {WIDTHS}"),
        (flag(split(("on", 50_000), ("off", 49_999))), f"flags.f.rules[0].weights: {WIDTHS}"),
        (flag(split(("on", 50_000), ("off", 50_001))), f"flags.f.rules[0].weights: {WIDTHS}"),
        (flag(split(("on", 100_001), ("off", -1))), f"flags.f.rules[0].weights: {WIDTHS}"),
        (flag(split(("on", -1), ("off", 100_001))), f"flags.f.rules[0].weights: {WIDTHS}"),
    ],
)
def test_a_flag_that_contradicts_itself_is_refused_with_its_path_and_why(document: dict[str, Any], said: str) -> None:
    with pytest.raises(RulesetError) as caught:
        compile_ruleset(ruleset({"first": flag(), "f": document}))
    assert str(caught.value) == said


@pytest.mark.parametrize(
    "rule",
    [
        serve("on"),
        rollout(threshold=0),
        rollout(threshold=100_000),
        split(("on", 0), ("off", 100_000)),
        split(("on", 100_000)),
    ],
)
def test_what_is_at_the_edge_of_what_may_be_is_no_contradiction(rule: dict[str, Any]) -> None:
    [read] = ruleset({"f": flag(rule)}).flags["f"].rules
    assert contradiction(read, {"on": 1, "off": 0}) is None
    assert compile_ruleset(ruleset({"f": flag(rule)})).flags.keys() == {"f"}


def test_an_override_to_a_variant_that_is_not_there_is_refused() -> None:
    assert compile_ruleset(ruleset({"f": flag(overrides={"u": "on"})}))
    with pytest.raises(RulesetError, match=r'^flags\.f\.overrides.*: there is no variant "x"\Z'):
        compile_ruleset(ruleset({"f": flag(overrides={"u": "on", "v": "x"})}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 3}, "schema: this reader knows schema 1 and 2, not 3"),
        ({"algorithm": "m-2"}, 'algorithm: this reader knows "murmur3-cbor-1", not "m-2"'),
    ],
)
def test_another_schema_or_algorithm_is_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(RulesetError) as caught:
        compile_ruleset(ruleset({}, **change))
    assert str(caught.value) == said


KNOWN = ", ".join(sorted([*OPERATORS, "exists"]))
FORMS = '"attribute" with "op" and "values", "all", "any", "not" or "cohort"'
AT_ONCE = 'at once; use one, and "all" or "any" to combine several'
NO_VALUES = '"exists" takes no values; wrap it in "not" to ask for a missing attribute'
TEXT = "give a text that is not empty"
VERSION = 'give a semantic version such as "2.1.0" or "2.1.0-rc.1", without a leading "v"'
DATE = 'give an RFC 3339 date with a time zone such as "2026-11-23T08:00:00Z", or epoch milliseconds'
SCALAR = "give a text, a finite number or a boolean"


@pytest.mark.parametrize(
    ("document", "path", "said"),
    [
        ({}, "", f"the condition is empty; give it {FORMS}"),
        (EXISTS | {"cohort": "c"}, "", f'the condition has "attribute" and "cohort" {AT_ONCE}'),
        ({"op": "in", "not": {}, "any": []}, "", f'the condition has "attribute" and "any" and "not" {AT_ONCE}'),
        ({"values": [1], "all": []}, "", f'the condition has "attribute" and "all" {AT_ONCE}'),
        ({"cohort": ""}, ".cohort", "name a cohort"),
        ({"all": []}, ".all", '"all" is empty; give at least one condition'),
        ({"any": []}, ".any", '"any" is empty; give at least one condition'),
        ({"not": {"any": []}}, ".not.any", '"any" is empty; give at least one condition'),
        ({"any": [EXISTS, {"cohort": ""}]}, ".any[1].cohort", "name a cohort"),
        ({"op": "exists"}, ".attribute", "name the attribute to look at"),
        (leaf("", "exists"), ".attribute", "name the attribute to look at"),
        (leaf("a", "exists", 1), ".values", NO_VALUES),
        ({"attribute": "a"}, ".op", f"an operator is missing; use one of {KNOWN}"),
        (leaf("a", "zzz", 1), ".op", f'there is no operator "zzz"; use one of {KNOWN}'),
        (leaf("a", "", 1), ".op", f'there is no operator ""; use one of {KNOWN}'),
        (leaf("a", "exist"), ".op", 'there is no operator "exist"; did you mean "exists"?'),
        (leaf("a", "start_with", "x"), ".op", 'there is no operator "start_with"; did you mean "starts_with"?'),
        (leaf("a", "in"), ".values", '"in" needs at least one value'),
        (leaf("a", "in", "x", None), ".values[1]", SCALAR),
        (leaf("a", "in", float("inf")), ".values[0]", SCALAR),
        (leaf("a", "less_than", True), ".values[0]", "give a finite number"),
        (leaf("a", "contains", "x", ""), ".values[1]", TEXT),
        (leaf("a", "starts_with", 1), ".values[0]", TEXT),
        (leaf("a", "matches", 1), ".values[0]", "give a regular expression as text"),
        (leaf("a", "matches", "x", "("), ".values[1]", "give an RE2 regular expression: missing ): ("),
        (leaf("a", "semver_equals", "v1.0.0"), ".values[0]", VERSION),
        (leaf("a", "semver_equals", 1), ".values[0]", VERSION),
        (leaf("a", "before", "2026-11-23"), ".values[0]", DATE),
        (leaf("a", "after", None), ".values[0]", DATE),
    ],
)
def test_an_author_is_told_where_and_what_to_do(document: dict[str, Any], path: str, said: str) -> None:
    assert problems(document) == [(f"when{path}", said)]
    assert problems({"not": {"all": [EXISTS, document]}}) == [(f"when.not.all[1]{path}", said)]


def test_an_author_is_told_everything_at_once() -> None:
    document = {"all": [{}, EXISTS, leaf("", "less_than", "1", 2, True), {"any": [{"cohort": ""}]}]}
    assert [path for path, _ in problems(document)] == [
        "when.all[0]",
        "when.all[2].attribute",
        "when.all[2].values[0]",
        "when.all[2].values[2]",
        "when.all[3].any[0].cohort",
    ]
    assert problems({"cohort": "c"}) == problems(EXISTS) == problems({"not": {"any": [{"all": [EXISTS]}]}}) == []


def test_an_expression_that_cannot_be_read_is_told_to_its_author_and_printed_nowhere(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert problems(leaf("a", "matches", "((("))
    assert capfd.readouterr() == ("", "")


def nested(form: str, levels: int) -> dict[str, Any]:
    document = EXISTS
    for _ in range(levels):
        document = {form: document if form == "not" else [document]}
    return document


@pytest.mark.parametrize("form", ["not", "all", "any"])
def test_conditions_are_read_to_their_deepest_level_and_no_deeper(form: str) -> None:
    holds = Context("u", a=1)
    deepest, deeper = nested(form, DEEPEST), nested(form, DEEPEST + 1)
    assert DEEPEST == 24
    assert compile_condition(condition(deepest), {})(holds) is True
    assert problems(deepest) == []
    assert compile_condition(condition(deeper), {})(holds) is False
    [(path, said)] = problems(deeper)
    assert path == "when" + (f".{form}" if form == "not" else f".{form}[0]") * 25
    assert said == "conditions may be nested 24 levels deep; use cohorts or fewer levels"
    two = {"any": [{"all": [EXISTS, deepest]}, EXISTS]}
    assert compile_condition(condition(two), {})(holds) is False


def test_cohorts_within_cohorts_are_read_to_the_deepest_level_and_no_deeper() -> None:
    documents = {f"c{n}": {"when": {"cohort": f"c{n + 1}"}} for n in range(40)}
    cohorts = msgspec.convert({"environment": "e", "revision": 1, "cohorts": documents}, Ruleset).cohorts
    for levels, holds in ((DEEPEST, True), (DEEPEST + 1, False)):
        ending = {**cohorts, f"c{levels}": msgspec.convert({"units": ["u"]}, type(cohorts["c0"]))}
        assert compile_condition(Condition(cohort="c0"), ending)(Context("u")) is (levels < DEEPEST + 1)
        ending[f"c{levels - 1}"] = msgspec.convert({"when": EXISTS}, type(cohorts["c0"]))
        assert compile_condition(Condition(cohort="c0"), ending)(Context("u", a=1)) is holds


def test_a_condition_names_its_cohorts_in_order() -> None:
    deep = {"not": {"cohort": "d"}}
    document = {"all": [{"cohort": "a"}, {"any": [{"cohort": "c"}, deep, EXISTS]}, {"not": {"cohort": "b"}}]}
    assert cohort_names(condition(document)) == ["a", "c", "b", "d"]
    assert (cohort_names(condition({"cohort": "a"})), cohort_names(condition(EXISTS))) == (["a"], [])
    assert cohort_names(condition({"cohort": ""})) == [""]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_not_counted(value: float) -> None:
    for count in (histogram.log_bucket, lambda each: histogram.linear_bucket(each, 0, 1)):
        with pytest.raises(ValueError, match=rf"^{value} is not a number that can be counted\Z"):
            count(value)


def test_a_value_that_does_not_fit_is_refused_with_what_to_do() -> None:
    said = {
        -0.5: "-0.5 is negative; give the metric bounds",
        -5e-324: "-5e-324 is negative; give the metric bounds",
        2e12: "2000000000000.0 is above 1e+12; give the metric another unit or bounds",
    }
    for value, sentence in said.items():
        with pytest.raises(ValueError, match=r".") as caught:
            histogram.log_bucket(value)
        assert str(caught.value) == sentence
    for value in (-1.5, 2.5):
        with pytest.raises(ValueError, match=rf"^{value} is outside the bounds -1 to 2\Z"):
            histogram.linear_bucket(value, -1, 2)


def test_a_bucket_that_is_none_is_refused_with_those_that_are() -> None:
    for index in (-1916, 2552):
        with pytest.raises(ValueError, match=rf"^{index} is no log bucket: they are -1915\.\.2551\Z"):
            histogram.log_edges(index)
    for index in (-1, 1000):
        with pytest.raises(ValueError, match=rf"^{index} is no linear bucket: they are 0\.\.999\Z"):
            histogram.linear_edges(index, 0, 1)


@pytest.mark.parametrize("entry", [(-1, 1), (1024, 1), (0, 0), (0, 56)])
def test_an_entry_that_is_none_is_refused_with_those_that_are(entry: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        sketch.absorb(sketch.EMPTY, [entry])
    assert str(caught.value) == f"{entry} is no sketch entry: registers are 0..1023, ranks 1..55"


@pytest.mark.parametrize("length", [0, 1023, 1025])
def test_a_sketch_of_another_size_is_refused(length: int) -> None:
    wrong = bytes(length)
    for use in (
        lambda: sketch.estimate(wrong),
        lambda: sketch.merge(wrong, sketch.EMPTY),
        lambda: sketch.merge(sketch.EMPTY, wrong),
        lambda: sketch.absorb(wrong, []),
    ):
        with pytest.raises(ValueError, match=rf"^a sketch has 1024 registers, not {length}\Z"):
            use()
