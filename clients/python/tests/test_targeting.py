"""The operator table of `rollout_client.evaluation.targeting`, row by row."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_client.evaluation.authoring import condition_problems
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.operators import OPERATORS
from rollout_client.evaluation.ruleset import RulesetCohort
from rollout_client.evaluation.targeting import Condition, compile_condition

NAN, INF = float("nan"), float("inf")
MISSING = object()


def condition(document: dict[str, Any]) -> Condition:
    return msgspec.convert(document, Condition)


def matches(op: str, values: list[Any], attribute: Any) -> bool:
    attributes = {} if attribute is MISSING else {"a": attribute}
    test = compile_condition(condition({"attribute": "a", "op": op, "values": values}), {})
    return test(Context("user-1", attributes))


ROWS: list[tuple[str, list[Any], Any, bool]] = [
    ("in", ["CH", "DE"], "DE", True),
    ("in", ["CH", "DE"], "de", False),
    ("in", ["CH"], "CH ", False),
    ("in", ["é"], "e\u0301", False),
    ("in", [8], "8", False),
    ("in", ["8"], 8, False),
    ("in", [1], True, False),
    ("in", [True], 1, False),
    ("in", ["true"], True, False),
    ("in", [1], 1.0, True),
    ("in", [1.0], 1, True),
    ("in", [9007199254740993], 9007199254740992, False),
    ("equals", ["pro"], "pro", True),
    ("equals", [True], True, True),
    ("equals", [False], 0, False),
    ("equals", [0.1], 0.1, True),
    ("not_in", ["CH"], "DE", True),
    ("not_in", ["CH"], "CH", False),
    ("not_in", [8], "8", True),
    ("not_equals", ["pro"], "free", True),
    ("not_equals", ["pro"], "pro", False),
    ("not_equals", [1], True, True),
    ("less_than", [10], 9, True),
    ("less_than", [10], 10, False),
    ("less_than", [1, 10], 9.5, True),
    ("less_than", [10], "8", False),
    ("less_than", [10], True, False),
    ("less_than", [10], NAN, False),
    ("less_than", [10], -INF, False),
    ("at_most", [10], 10, True),
    ("at_most", [10], 10.5, False),
    ("greater_than", [10], 11, True),
    ("greater_than", [10], 10, False),
    ("greater_than", [10, 1], 2, True),
    ("greater_than", [10], INF, False),
    ("greater_than", [10], 10**400, True),
    ("at_least", [10], 10, True),
    ("at_least", [10], 9.99, False),
    ("contains", ["@example."], "jo@example.com", True),
    ("contains", ["@EXAMPLE."], "jo@example.com", False),
    ("contains", ["1"], 123, False),
    ("starts_with", ["a", "jo"], "jo@example.com", True),
    ("starts_with", ["example"], "jo@example.com", False),
    ("ends_with", [".org", ".com"], "jo@example.com", True),
    ("ends_with", [".org"], "jo@example.com", False),
    ("matches", ["example"], "jo@example.com", True),
    ("matches", ["^example"], "jo@example.com", False),
    ("matches", ["x+y", "^jo"], "jo@example.com", True),
    ("matches", ["[[:digit:]]{3}"], "a123", True),
    ("matches", ["a(?i)B"], "aB ab", True),
    ("matches", ["a.c"], "a\nc", False),
    ("matches", ["é$"], "café", True),
    ("matches", ["1"], 1, False),
    ("matches", ["."], "\ud800", False),
    ("semver_equals", ["2.0.0"], "2.0", True),
    ("semver_equals", ["2"], "2.0.0", True),
    ("semver_equals", ["2.0.0"], "v2.0.0", False),
    ("semver_equals", ["2.0.0"], "2.0.0+build.7", True),
    ("semver_equals", ["2.0.0"], "2.0.0-rc.1", False),
    ("semver_equals", ["2.0.0"], "02.0.0", False),
    ("semver_equals", ["2.0.0"], 2, False),
    ("semver_equals", ["2.1.0"], "2.\u0661.0", False),
    ("semver_less_than", ["2.0.0"], "2.0.0-rc.1", True),
    ("semver_less_than", ["2.0.0-rc.2"], "2.0.0-rc.1", True),
    ("semver_less_than", ["2.0.0-rc.11"], "2.0.0-rc.2", True),
    ("semver_less_than", ["1.0.0-beta"], "1.0.0-alpha.beta", True),
    ("semver_less_than", ["2.0.0"], "10.0.0", False),
    ("semver_at_most", ["2.0.0"], "2.0.0", True),
    ("semver_at_most", ["2.0.0"], "2.0.1-rc.1", False),
    ("semver_greater_than", ["2.9.0"], "2.10.0", True),
    ("semver_greater_than", ["2.9.0"], "latest", False),
    ("semver_at_least", ["2.0.0"], "2.0.0", True),
    ("semver_at_least", ["2.0.0"], "2.0.0-rc.1", False),
    ("before", ["2026-01-01T00:00:00Z"], "2025-12-31T23:59:59.999Z", True),
    ("before", ["2026-01-01T00:00:00Z"], "2026-01-01T00:30:00+01:00", True),
    ("before", ["2026-01-01T00:00:00Z"], "2026-01-01T00:00:00Z", False),
    ("before", ["2026-01-01T00:00:00Z"], 1767225599999, True),
    ("before", ["2026-01-01T00:00:00Z"], 1767225600000, False),
    ("before", [1767225600000], "2025-12-31T23:59:59z", True),
    ("before", ["2026-01-01T00:00:00Z"], datetime(2025, 6, 1, tzinfo=UTC), True),
    ("before", ["2026-01-01T00:00:00Z"], datetime(2025, 6, 1), False),  # noqa: DTZ001 (a naive date is no date here)
    ("before", ["2026-01-01T00:00:00Z"], "2025-06-01", False),
    ("before", ["2026-01-01T00:00:00Z"], "2025-06-01T00:00:00", False),
    ("before", ["2026-01-01T00:00:00Z"], "2025-06-31T00:00:00Z", False),
    ("before", ["2026-01-01T00:00:00Z"], "20250601T000000Z", False),
    ("before", ["2026-01-01T00:00:00Z"], "1767225599999", False),
    ("before", ["2026-01-01T00:00:00Z"], True, False),
    ("after", ["2026-01-01T00:00:00Z"], "2026-01-01T00:00:00.001Z", True),
    ("after", ["2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"], "2026-06-01T00:00:00Z", True),
    ("after", ["2026-01-01T00:00:00Z"], "tomorrow", False),
    ("exists", [], 0, True),
    ("exists", [], "", True),
    ("exists", [], False, True),
    ("exists", [], [], True),
    ("exists", [], {}, True),
    ("exists", [], NAN, True),
    ("includes_all", ["a", "b"], ["b", "c", "a"], True),
    ("includes_all", ["a", "b"], ["a"], False),
    ("includes_all", ["a"], "a", True),
    ("includes_all", [1], ["1", 1], True),
    ("includes_all", [1], [True], False),
    ("in", ["a"], ["x", "a"], True),
    ("in", ["a"], [], False),
    ("in", ["a"], [None, {"a": 1}, ["a"], NAN], False),
    ("less_than", [3], ["1", 2], True),
    ("contains", ["b"], ["abc"], True),
    ("not_in", ["a"], ["x", "y"], True),
    ("not_in", ["a"], ["x", "a"], False),
    ("not_in", ["a"], [], True),
    ("not_in", ["a"], NAN, False),
    ("not_equals", [1], INF, False),
    ("not_in", ["a"], {"a": 1}, False),
    ("not_in", ["a"], b"b", False),
    ("in", ["a"], ("a",), True),
    ("in", ["a"], {"a", "b"}, True),
]


@pytest.mark.parametrize(("op", "values", "attribute", "expected"), ROWS)
def test_it_matches_what_the_table_says(op: str, values: list[Any], attribute: Any, expected: bool) -> None:
    assert matches(op, values, attribute) is expected


def test_every_operator_has_rows_that_match_and_rows_that_do_not() -> None:
    seen = {(op, expected) for op, _, _, expected in ROWS}
    assert {op for op in OPERATORS if {(op, True), (op, False)} <= seen} == set(OPERATORS)


@pytest.mark.parametrize("attribute", [MISSING, None])
@pytest.mark.parametrize("op", [*OPERATORS, "exists"])
def test_nothing_matches_a_missing_or_null_attribute(op: str, attribute: Any) -> None:
    values: dict[str, list[Any]] = {"exists": [], "before": [0], "after": [0]}
    fallback: list[Any] = [1] if op in ("less_than", "at_most", "greater_than", "at_least") else ["1"]
    assert matches(op, values.get(op, fallback), attribute) is False


def test_an_exact_key_wins_over_a_dotted_path() -> None:
    test = compile_condition(condition({"attribute": "user.plan", "op": "in", "values": ["pro"]}), {})
    assert test(Context("u", {"user": {"plan": "pro"}}))
    assert not test(Context("u", {"user": {"plan": "pro"}, "user.plan": "free"}))
    assert not test(Context("u", {"user": "pro"}))
    assert not test(Context("u", {"user": {"plan": None}}))


def test_the_targeting_key_is_the_unit() -> None:
    test = compile_condition(condition({"attribute": "targeting_key", "op": "in", "values": ["user-1"]}), {})
    assert test(Context("user-1", targeting_key_="other"))
    assert not test(Context("user-2"))
    assert not test(Context(None))


def test_all_any_and_not_combine() -> None:
    swiss = {"attribute": "country", "op": "in", "values": ["CH"]}
    pro = {"attribute": "plan", "op": "in", "values": ["pro"]}
    both = compile_condition(condition({"all": [swiss, pro]}), {})
    either = compile_condition(condition({"any": [swiss, pro]}), {})
    neither = compile_condition(condition({"not": {"any": [swiss, pro]}}), {})
    for country, plan in (("CH", "pro"), ("CH", "free"), ("DE", "pro"), ("DE", "free")):
        context = Context("u", country=country, plan=plan)
        assert both(context) is (country == "CH" and plan == "pro")
        assert either(context) is (country == "CH" or plan == "pro")
        assert neither(context) is not either(context)


COHORTS = {
    "staff": RulesetCohort(units=("user-1",), when=None),
    "swiss": RulesetCohort(when=condition({"attribute": "country", "op": "in", "values": ["CH"]})),
    "pilot": RulesetCohort(
        units=("user-9",), when=condition({"any": [{"cohort": "staff"}, {"not": {"cohort": "swiss"}}]})
    ),
    "loop": RulesetCohort(units=("user-1",), when=condition({"cohort": "noose"})),
    "noose": RulesetCohort(when=condition({"all": [{"cohort": "staff"}, {"cohort": "loop"}]})),
}


def test_a_cohort_admits_by_list_or_by_condition_and_may_be_nested() -> None:
    pilot = compile_condition(Condition(cohort="pilot"), COHORTS)
    assert pilot(Context("user-9", country="CH"))
    assert pilot(Context("user-1", country="CH"))
    assert pilot(Context("user-3", country="DE"))
    assert not pilot(Context("user-3", country="CH"))


def test_a_listed_unit_is_also_the_attribute_that_is_randomised() -> None:
    staff = compile_condition(Condition(cohort="staff"), COHORTS, "user_id")
    assert staff(Context("session-7", user_id="user-1"))
    assert not compile_condition(Condition(cohort="staff"), COHORTS)(Context("session-7", user_id="user-1"))


UNREADABLE: list[dict[str, Any]] = [
    {},
    {"attribute": "a"},
    {"attribute": "a", "op": "resembles", "values": ["x"]},
    {"attribute": "a", "op": "in", "values": []},
    {"attribute": "a", "op": "exists", "values": [True]},
    {"attribute": "a", "op": "matches", "values": ["("]},
    {"attribute": "a", "op": "matches", "values": [r"(a)\1"]},
    {"attribute": "a", "op": "matches", "values": ["a", 3]},
    {"attribute": "a", "op": "semver_equals", "values": ["v1.0.0"]},
    {"attribute": "a", "op": "before", "values": ["soon"]},
    {"attribute": "a", "op": "less_than", "values": ["10"]},
    {"attribute": "a", "op": "less_than", "values": [True]},
    {"attribute": "a", "op": "contains", "values": [""]},
    {"attribute": "a", "op": "in", "values": [None]},
    {"attribute": "a", "op": "in", "values": [["x"]]},
    {"attribute": "a", "op": "in", "values": ["x"], "cohort": "staff"},
    {"all": []},
    {"any": []},
    {"all": [{}]},
]


@pytest.mark.parametrize("document", UNREADABLE)
def test_what_cannot_be_read_admits_nobody_and_is_explained_to_its_author(document: dict[str, Any]) -> None:
    context = Context("user-1", a="x")
    for form in (document, {"not": document}, {"any": [{"attribute": "a", "op": "exists"}, document]}):
        assert compile_condition(condition(form), COHORTS)(context) is False
        problems = condition_problems(condition(form), "rules[0].when")
        assert problems
        assert all(path.startswith("rules[0].when") and sentence for path, sentence in problems)


@pytest.mark.parametrize("name", ["unknown", "loop", "noose"])
def test_an_unknown_or_circular_cohort_admits_nobody(name: str) -> None:
    assert compile_condition(Condition(cohort=name), COHORTS)(Context("user-1")) is False
    assert compile_condition(condition({"not": {"cohort": name}}), COHORTS)(Context("user-1")) is False


def test_problems_carry_the_path_and_what_to_do() -> None:
    document = {"all": [{"not": {"attribute": "v", "op": "semver_atleast", "values": ["1"]}}, {"any": []}]}
    assert condition_problems(condition(document), "when") == [
        ("when.all[0].not.op", 'there is no operator "semver_atleast"; did you mean "semver_at_least"?'),
        ("when.all[1].any", '"any" is empty; give at least one condition'),
    ]
    wrong = {"attribute": "v", "op": "matches", "values": ["ok", "("]}
    [(path, sentence)] = condition_problems(condition(wrong), "when")
    assert path == "when.values[1]"
    assert "RE2" in sentence


def test_a_readable_condition_has_no_problems() -> None:
    for op, values, _, _ in ROWS:
        assert condition_problems(condition({"attribute": "a", "op": op, "values": values}), "when") == []
    assert condition_problems(condition({"not": {"cohort": "staff"}}), "when") == []


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unless"):
        condition({"attribute": "a", "op": "in", "values": ["x"], "unless": {"cohort": "staff"}})


def test_depth_is_bounded() -> None:
    document: dict[str, Any] = {"attribute": "a", "op": "exists"}
    for _ in range(30):
        document = {"not": document}
    assert compile_condition(condition(document), {})(Context("u", a=1)) is False
    assert condition_problems(condition(document), "when")


class Hostile:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    def __hash__(self) -> int:
        raise RuntimeError("no")


SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.builds(Hostile))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(st.sampled_from([*OPERATORS, "exists", "other"]), st.lists(SCALARS, max_size=3), VALUES)
def test_no_condition_and_no_attribute_can_make_it_raise(op: str, values: list[Any], attribute: Any) -> None:
    test = compile_condition(Condition(attribute="a", op=op, values=tuple(values)), {})
    assert test(Context("u", {"a": attribute})) in (True, False)


@given(VALUES, st.lists(st.one_of(st.booleans(), st.integers(), st.text()), min_size=1, max_size=3))
def test_not_in_is_never_true_together_with_in(attribute: Any, values: list[Any]) -> None:
    assert not (matches("in", values, attribute) and matches("not_in", values, attribute))
