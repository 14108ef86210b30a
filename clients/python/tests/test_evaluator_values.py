"""Attributes of every kind against conditions of every kind: several values, arrays, odd numbers, dates, versions."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from clients.python.tests.answering import ask, flag, leaf, rollout, serve, split
from rollout_client.evaluation.condition import Condition
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import compile_ruleset, evaluate
from rollout_client.evaluation.operators import OPERATORS, comparable, instant, is_number, parse_semver
from rollout_client.evaluation.ruleset import Ruleset, RulesetCohort
from rollout_client.evaluation.targeting import compile_condition

NAN, INF = float("nan"), float("inf")
BIG = 10**400


def holds(when: dict[str, Any], cohorts: Any = (), /, key: Any = "u", **attributes: Any) -> bool:
    return compile_condition(msgspec.convert(when, Condition), dict(cohorts))(Context(key, attributes))


SEVERAL: list[tuple[str, list[Any], list[Any], list[Any]]] = [
    ("in", ["a", 1, True], ["a", 1, 1.0, True, ["z", "a"], ["z", 1], {1}, {"a"}],
     ["b", "1", 2, False, "True", ["b"], [], {}, None, NAN, b"a", [["a"]], [None]]),
    ("in", [False], [False, [False]], [0, 0.0, "", None, True]),
    ("in", [0], [0, 0.0, -0.0], [False, "0", "", None, 1]),
    ("in", [2**53 + 1], [2**53 + 1], [2**53, float(2**53), 2**53 + 2]),
    ("in", [BIG], [BIG], [BIG + 1, INF, -BIG]),
    ("not_in", ["a", 1, True], ["b", "1", 2, False, ["b"], [], [None], [NAN], frozenset(), BIG, -1.5],
     ["a", 1, 1.0, True, ["z", "a"], (1,), None, NAN, INF, -INF, {}, {"a": 1}, b"b", 1j, object()]),
    ("not_equals", [""], ["a", 0, False], ["", [""], None]),
    ("equals", [""], ["", ["", "x"]], [None, 0, False, [], [[]]]),
    ("less_than", [1, 5], [0, 4, 4.999, -BIG, [9, 4]], [5, 5.0, 6, BIG, "4", True, None, NAN, INF, -INF, [], [True]]),
    ("at_most", [1, 5], [0, 5, 5.0, -BIG, [9, 5]], [5.001, 6, BIG, "4", False, None, NAN, -INF]),
    ("greater_than", [1, 5], [2, 1.001, 5, BIG, [0, 2]], [1, 1.0, 0, -BIG, "2", True, None, NAN, INF]),
    ("at_least", [1, 5], [1, 1.0, 5, BIG, [0, 1]], [0.999, 0, -BIG, "2", True, None, NAN, INF]),
    ("contains", ["b", "cd"], ["abc", "cd", "b", ["x", "ab"]], ["c", "dc", "B", "", None, 1, ["x"], {"b": 1}]),
    ("starts_with", ["b", "cd"], ["bc", "cde", ["x", "b"]], ["ab", "c", "", 1, None]),
    ("ends_with", ["b", "cd"], ["ab", "acd", ["x", "b"]], ["ba", "c", "", 1, None]),
    ("matches", ["^b", "d$"], ["bx", "xd", ["x", "b"]], ["xb", "dx", "", 1, None]),
    ("matches", [""], ["", "x"], [1, None]),
    ("semver_equals", ["1.0.0", "2"], ["1", "1.0", "1.0.0", "2.0.0+b", ["x", "2"]],
     ["1.0.1", "v1", "01", "", "1.0.0.0", 1, 2.0, None, "1" * 101]),
    ("semver_less_than", ["1.0.0", "2"], ["1.9", "2-rc.1", "0.1"], ["2", "2.0.0", "2.0.1", "x", None]),
    ("semver_at_most", ["1.0.0", "2"], ["1.9", "2", "2.0.0+b", "2-rc.1"], ["2.0.1", "3", "x", None]),
    ("semver_greater_than", ["1.0.0", "2"], ["1.0.1", "3", "2-rc.1"], ["1", "1.0.0+b", "1.0.0-rc.1", "0.9", "x"]),
    ("semver_at_least", ["1.0.0", "2"], ["1", "1.0.0+b", "1.0.1"], ["1.0.0-rc.1", "0.9", "x", None]),
    ("before", [0, 1000], [999, 999.5, -1, "1970-01-01T00:00:00.999Z", "1970-01-01t00:00:00.999999z", [5000, 1]],
     [1000, 1001, "1970-01-01T00:00:01Z", "1970-01-01T00:00:00", "1970-01-01", "999", True, None, NAN, INF, -INF]),
    ("after", [0, 1000], [1, 0.5, "1970-01-01T00:00:00.001+00:00", "1970-01-01T01:00:01+01:00", [0, 1]],
     [0, -1, "1970-01-01T00:00:00Z", "1970-01-01T01:00:00+01:00", "x", False, None, NAN, INF, BIG]),
    ("exists", [], [0, "", False, [], {}, NAN, b"", object(), [None]], [None]),
    ("includes_all", ["a", 1], [["a", 1], ["a", "b", 1.0], ("a", 1), {"a", 1}],
     ["a", 1, ["a"], [1], ["a", "1"], [], None]),
    ("includes_all", ["a"], ["a", ["a"], {"a"}], ["b", ["b", None], [["a"]], {"a": 1}, None, []]),
]  # fmt: skip


@pytest.mark.parametrize(("op", "values", "matching", "others"), SEVERAL)
def test_several_values_mean_any_of_them(op: str, values: list[Any], matching: list[Any], others: list[Any]) -> None:
    when = leaf("a", op, *values)
    nested = leaf("b.c", op, *values)
    for expected, attributes in ((True, matching), (False, others)):
        for value in attributes:
            assert holds(when, a=value) is expected, value
            assert holds(nested, b={"c": value}) is expected, value
            assert holds({"not": when}, a=value) is not expected, value
            answer = ask(flag(serve("on", when)), Context("u", a=value))
            assert (answer.variant == "on") is expected, value
    assert holds(when) is holds(nested) is holds(nested, b=None) is holds(nested, b="c") is False


@pytest.mark.parametrize(("op", "value"), [(op, values[0]) for op, values, _, _ in SEVERAL if values])
def test_the_test_of_an_operator_is_false_for_what_it_does_not_know(op: str, value: Any) -> None:
    operator = OPERATORS[op]
    test = operator.test([operator.operand(value)])
    knows = {int, float, str} if op in ("before", "after") else {int, float} if type(value) is int else {type(value)}
    for odd in ("\ud800", 12345.5, 12345, False, datetime(1, 1, 1)):  # noqa: DTZ001
        assert type(odd) in knows or test(odd) is False


@pytest.mark.parametrize("op", ["in", "equals", "not_in", "not_equals", "contains", "starts_with", "exists"])
def test_the_targeting_key_is_read_as_a_text(op: str) -> None:
    when = leaf("targeting_key", op, *([] if op == "exists" else ["u"]))
    assert holds(when, key="u", targeting_key="v") is (not op.startswith("not_"))
    assert holds(when, key="v", targeting_key="u") is (op.startswith("not_") or op == "exists")
    assert holds(when, key=None, targeting_key="u") is False


def test_a_path_goes_through_mappings_only_and_an_exact_key_goes_first() -> None:
    when = leaf("a.b.c", "equals", 1)
    assert holds(when, a={"b": {"c": 1}})
    assert holds(when, **{"a.b.c": 1})
    assert holds(when, **{"a.b.c": 1, "a": {"b": {"c": 2}}})
    for wrong in ({"b": {"c": 2}}, {"b": [1]}, {"b": None}, {"b.c": 1}, {"b": {"c": {}}}, [1], "abc", None):
        assert not holds(when, a=wrong)
    assert not holds(when, **{"a.b.c": None, "a": {"b": {"c": 1}}})
    assert not holds(when, **{"a.b": {"c": 1}})
    assert holds(leaf("a.b", "exists"), a={"b": {"c": 1}})
    assert holds(leaf("a.", "equals", 1), a={"": 1})


class Hostile:
    """Whatever is asked of it, it raises."""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        raise RuntimeError


class Stops(list[Any]):
    def __iter__(self) -> Any:
        raise RuntimeError


@pytest.mark.parametrize("op", ["in", "not_in", "equals", "less_than", "contains", "before", "includes_all"])
def test_an_attribute_that_raises_matches_nothing(op: str) -> None:
    for name in ("a", "a.b"):
        when = leaf(name, op, *([5] if op in ("less_than", "before") else ["x"]))
        for odd in (Stops(["x"]), Stops()):
            assert holds(when, a=odd if name == "a" else {"b": odd}) is False
            assert ask(flag(serve("on", when)), Context("u", {name: odd})).variant == "off"
        assert holds({"any": [when, leaf("z", "exists")]}, a=Stops(["x"]), z=1) is True
    assert holds(leaf("a", "in", "x"), a=[Hostile(), "x"]) is True


def test_all_any_and_not_ask_as_many_as_they_must() -> None:
    yes, no = leaf("a", "exists"), leaf("b", "exists")
    for members, every, some in (([yes], True, True), ([no], False, False), ([yes, no], False, True),
                                 ([no, yes], False, True), ([yes, yes], True, True), ([no, no, no], False, False),
                                 ([yes, yes, no], False, True), ([no, no, yes], False, True)):  # fmt: skip
        assert holds({"all": members}, a=1) is every
        assert holds({"any": members}, a=1) is some
        assert holds({"not": {"all": members}}, a=1) is not every
        assert holds({"not": {"not": {"any": members}}}, a=1) is some


def test_one_part_that_cannot_be_read_spoils_the_whole_condition_and_no_other_rule() -> None:
    yes, odd = leaf("a", "exists"), leaf("a", "resembles", 1)
    for when in ({"any": [yes, odd]}, {"any": [odd, yes]}, {"not": {"all": [odd, yes]}}, {"not": {"cohort": "gone"}},
                 {"any": [yes, {"cohort": "odd"}]}, {"any": [yes, {"cohort": "loop"}]}):  # fmt: skip
        cohorts = {
            "odd": {"units": ["u"], "when": odd},
            "loop": {"units": ["u"], "when": {"any": [yes, {"cohort": "loop"}]}},
        }
        assert ask(flag(serve("on", when)), Context("u", a=1), cohorts=cohorts).variant == "off"
        assert ask(flag(serve("on", when), serve("mid", yes)), Context("u", a=1), cohorts=cohorts).variant == "mid"


def test_a_cohort_that_is_named_twice_is_no_circle() -> None:
    cohorts = {"a": RulesetCohort(units=("u",)), "b": RulesetCohort(when=Condition(cohort="a"))}
    twice = {"all": [{"cohort": "a"}, {"cohort": "b"}, {"cohort": "a"}]}
    assert holds(twice, cohorts)
    assert not holds(twice, cohorts, key="v")
    assert not holds({"cohort": "a"}, cohorts, key=None)
    assert not holds({"cohort": "a"}, cohorts, key=["u"])
    assert not holds({"cohort": "none"}, {"none": RulesetCohort()})


class Same(dict[str, Any]):
    """Attributes that are all one text."""

    def get(self, name: str, default: Any = None) -> Any:
        return "listed"


def test_a_cohort_lists_no_attribute_that_no_rule_randomises() -> None:
    cohorts = {"c": RulesetCohort(units=("listed",))}
    context = Context("u")
    context.attributes = Same()
    assert compile_condition(Condition(cohort="c"), cohorts)(context) is False
    assert compile_condition(Condition(cohort="c"), cohorts, "account")(context) is True
    served = {"c": {"units": ["listed"]}}
    assert ask(flag(serve("on", {"cohort": "c"})), context, cohorts=served).variant == "off"
    assert ask(flag(rollout(threshold=100_000, when={"cohort": "c"})), context, cohorts=served).variant == "off"


def test_a_cohort_reads_its_condition_where_nobody_is_listed() -> None:
    cohorts = {"c": RulesetCohort(units=("listed",), when=msgspec.convert(leaf("plan", "in", "pro"), Condition))}
    for unit in (None, "account"):
        when = compile_condition(Condition(cohort="c"), cohorts, unit)
        assert when(Context("listed", plan="free"))
        assert when(Context("u", plan="pro", account="a"))
        assert not when(Context("u", plan="free", account="a"))
        assert when(Context("u", plan="free", account="listed")) is (unit == "account")
        assert not when(Context("u", plan="free", account=["listed"]))


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000), ("1970-01-01t00:00:01.5z", 1_500_000), (1, 1000.0), (1.5, 1500.0),
        ("1970-01-01T00:00:00.000001Z", 1), ("1970-01-01T02:00:00+02:00", 0), ("1969-12-31T23:59:59-00:00", -1_000_000),
        ("1970-01-01 00:00:01Z", None), ("1970-01-01T00:00:01", None), ("1970-01-01T00:00Z", None), ("x", None),
        ("1970-13-01T00:00:01Z", None), ("1970-01-01T24:00:01Z", None), ("1970-01-01T00:00:01Z ", None),
        ("1970-01-01T00:00:01.Z", None), ("\u0661970-01-01T00:00:01Z", None), ("1970-01-01T00:00:01+0100", None),
        (datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC), 2_000_000), (True, None), (NAN, None), (None, None), (b"", None),
        (datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), 0),
        (datetime(1970, 1, 1), None),  # noqa: DTZ001 (a naive date is no date here)
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), 253_402_300_799_999_999),
        ("1970-01-01T00:00:01." + "0" * 100 + "Z", 1_000_000), ("1970-01-01T00:00:01." + "0" * 80 + "Z", 1_000_000),
    ],
)  # fmt: skip
def test_an_instant_is_microseconds_since_1970(value: Any, moment: float | None) -> None:
    assert instant(value) == moment
    assert instant(value) == moment, "and is the same when it is remembered"


def test_a_version_is_read_whatever_its_length_and_only_from_ascii() -> None:
    for text in ("1", "1.2", "1.2.3", "1.2.3-rc." + "9" * 90, "1.2.3-rc." + "9" * 200):
        assert parse_semver(text) == parse_semver(text)
        assert parse_semver(text).major == 1
    for text in ("", "v1", "1.02.3", "1.2.3.4", "1.2.3-", "\u0661.2.3", "1.2.3 ", "x" * 200, "1.2.3-é"):
        assert parse_semver(text) is None


def test_numbers_are_finite_and_booleans_are_none() -> None:
    values = [1, 1.5, BIG, True, NAN, INF, -INF, "1", None, b"1", 1j]
    assert [is_number(value) for value in values] == [True] * 3 + [False] * 8
    assert [comparable(value) for value in values] == [True] * 4 + [False] * 3 + [True] + [False] * 3


@pytest.mark.parametrize("kind", [serve("on"), split(("on", 100_000)), rollout(threshold=100_000)])
@pytest.mark.parametrize("when", [leaf("a", "in", "x"), leaf("a", "starts_with", "x"), {"cohort": "c"}])
def test_a_changed_cohort_or_kill_is_seen_by_flags_that_were_asked_before(kind: Any, when: dict[str, Any]) -> None:
    document = {"environment": "e", "revision": 1, "flags": {"f": flag(kind | {"when": when})}}
    first = compile_ruleset(msgspec.convert(document | {"cohorts": {"c": {"units": ["u"]}}}, Ruleset))
    assert evaluate(first, "f", Context("u", a="x")).variant == "on"
    moved = {"c": msgspec.convert({"units": ["v"]}, RulesetCohort)}
    second = compile_ruleset(msgspec.structs.replace(first.ruleset, revision=2, cohorts=moved), first)
    assert evaluate(second, "f", Context("u", a="x")).variant == ("off" if "cohort" in when else "on")
    assert evaluate(second, "f", Context("v")).variant == ("on" if "cohort" in when else "off")
    killed = compile_ruleset(first.ruleset, first, frozenset({"f"}), ())
    assert evaluate(killed, "f", Context("u", a="x")).reason == "DISABLED"
    again = compile_ruleset(first.ruleset, killed, frozenset(), ())
    assert evaluate(again, "f", Context("u", a="x")).variant == "on"
    assert again.splitting == first.splitting


@pytest.mark.parametrize(("flags", "pauses"), [(249, 0), (250, 1), (499, 1), (500, 2)])
def test_others_go_on_after_every_250_flags(flags: int, pauses: int) -> None:
    document = {"environment": "e", "revision": 1, "flags": {f"f{n}": flag() for n in range(flags)}}
    whole, paused = msgspec.convert(document, Ruleset), list[int]()
    compile_ruleset(whole, pause=lambda: paused.append(1))
    assert len(paused) == pauses
    assert compile_ruleset(whole, None, frozenset(), {"f0"}).flags.keys() == whole.flags.keys()
