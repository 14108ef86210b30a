"""Whole answers, field by field: each kind of rule, at the edges of what it may say."""

from typing import Any

import msgspec
import pytest

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
    said,
    serve,
    split,
)  # fmt: skip
from rollout_client.evaluation.answer import Evaluation
from rollout_client.evaluation.bucketing import bucket, hashes_below
from rollout_client.evaluation.context import NOBODY, Context
from rollout_client.evaluation.evaluate import apply_patch, compile_ruleset, evaluate
from rollout_client.evaluation.ruleset import BUCKETS, Patch

UNITS = [LOWEST, *(f"user-{number}" for number in range(40)), *FIRST_OF_ITS_BUCKET, HIGHEST]


@pytest.mark.parametrize("attempt", ["at_1", None])
@pytest.mark.parametrize("lease", [LEASE, None])
@pytest.mark.parametrize("unit", [None, "account"])
@pytest.mark.parametrize("pin", [None, "talk"])
def test_a_rollout_says_who_was_exposed_where_and_when_if_it_is_evidence(
    attempt: str | None, lease: int | None, unit: str | None, pin: str | None
) -> None:
    document = flag(rollout(attempt=attempt, lease_ms=lease, unit=unit, pin=pin))
    served = compiled({"f": document})
    for who in UNITS:
        context = Context("someone" if unit else who, talk="t-1", **({unit: who} if unit else {}))
        arm: Any = "candidate" if bucket("s", who) < 50_000 else "baseline"
        variant = {"candidate": "on", "baseline": "off"}[arm]
        bare = said(variant, "SPLIT", rollout="ro_1", arm=arm)
        expected = evidence(variant, arm, who, pin="t-1" if pin else None) if attempt else bare
        assert evaluate(served, "f", context, frozenset(), 9) == expected
        assert evaluate(served, "f", context, frozenset({LEASE - 1}), 9) == expected
        nobody_vouched = evaluate(served, "f", context, frozenset({None}), 9)
        assert nobody_vouched == (expected if lease else bare)
        stale = said("off", "STALE", rollout="ro_1") if lease else expected
        assert evaluate(served, "f", context, frozenset({LEASE}), 9) == stale


@pytest.mark.parametrize("value", [None, "", 7, b"t-1", ["t-1"], "\ud800"])
def test_a_conversation_that_is_no_text_is_none(value: Any) -> None:
    answer = ask(flag(rollout(threshold=BUCKETS, pin="talk")), Context("u", talk=value))
    assert answer == evidence("on", "candidate", "u", pin=None)


@pytest.mark.parametrize("unit", [None, "", 7, 1.5, True, b"u", ["u"], {"id": "u"}, "\ud800", "u\udfff"])
def test_who_cannot_be_randomised_gets_the_baseline_or_what_everybody_gets(unit: Any) -> None:
    missing = {"error": "TARGETING_KEY_MISSING"}
    for context, by in ((Context(unit), None), (Context("u", account=unit), "account")):
        assert ask(flag(rollout(unit=by)), context) == said("off", "DEFAULT", rollout="ro_1", **missing)
        for rule in (split(("on", 50_000), ("mid", 50_000)), split(("on", 1), ("off", 1), ("mid", 99_998))):
            assert ask(flag(rule | {"unit": by}), context) == said("off", "DEFAULT", **missing)
            assert ask(flag(rule | {"unit": by}, released="on"), context) == said("on", "DEFAULT", **missing)


@pytest.mark.parametrize(("unit", "position"), [*FIRST_OF_ITS_BUCKET.items(), (LOWEST, 0), (HIGHEST, 99_999)])
def test_a_threshold_and_a_width_end_before_their_position(unit: str, position: int) -> None:
    assert bucket("s", unit) == position
    for threshold in {0, 1, position, position + 1, 99_999, BUCKETS}:
        inside = position < threshold
        assert ask(flag(rollout(threshold=threshold)), Context(unit)).variant == ("on" if inside else "off")
        two = split(("on", threshold), ("off", BUCKETS - threshold))
        three = split(("mid", 0), ("on", threshold), ("mid", 0), ("off", BUCKETS - threshold), ("mid", 0))
        for rule in (two, three):
            assert ask(flag(rule), Context(unit)) == said("on" if inside else "off", "SPLIT")


def test_no_hash_is_below_nothing_and_every_hash_is_below_everything() -> None:
    assert (hashes_below(0), hashes_below(1), hashes_below(BUCKETS)) == (0, 42_950, 1 << 32)


@pytest.mark.parametrize("unit", [None, "account"])
@pytest.mark.parametrize("weights", [
    [("on", BUCKETS)], [("on", 30_000), ("off", 70_000)], [("on", 0), ("off", BUCKETS)], [("on", BUCKETS), ("off", 0)],
    [("off", 10_000), ("on", 20_000), ("mid", 70_000)], [("on", 25_000), ("mid", 25_000), ("on", 50_000)],
])  # fmt: skip
def test_a_split_gives_each_unit_the_variant_its_bucket_falls_into(weights: Any, unit: str | None) -> None:
    served = compiled({"f": flag(split(*weights, unit=unit))})
    for who in UNITS:
        position, variant = bucket("s", who), ""
        for name, width in weights:
            if position >= 0 and position - width < 0:
                variant = name
            position -= width
        context = Context("someone", account=who) if unit else Context(who)
        assert evaluate(served, "f", context) == said(variant, "SPLIT")


@pytest.mark.parametrize("kind", [split(("on", 50_000), ("off", 50_000)), rollout()])
def test_a_salt_of_its_own_draws_anew(kind: dict[str, Any]) -> None:
    for who in UNITS:
        expected = "on" if bucket("again", who) < 50_000 else "off"
        assert ask(flag(kind | {"salt": "again"}), Context(who)).variant == expected


RULES = [
    [serve("on")],
    [serve("on", leaf("plan", "in", "pro"))],
    [serve("on", leaf("plan", "starts_with", "p"))],
    [split(("on", 50_000), ("off", 50_000))],
    [split(("on", 30_000), ("off", 30_000), ("mid", 40_000))],
    [rollout()],
    [rollout(attempt=None)],
    [],
]


@pytest.mark.parametrize("rules", RULES)
def test_an_answer_that_is_kept_over_a_patch_has_the_revision_that_is_served_now(rules: list[Any]) -> None:
    before = compiled({"f": flag(*rules), "other": flag()})
    contexts = [Context(who, plan=plan) for who in UNITS for plan in ("pro", "free")]
    answers = [evaluate(before, "f", context, slot=9) for context in contexts]
    for revision in (4, 5):
        patch = {"base": 3, "revision": revision, "base_edition": "a", "flags": {"other": None}}
        patched = apply_patch(before.ruleset, msgspec.convert(patch, Patch))
        assert patched is not None
        after = compile_ruleset(patched, before, frozenset(), {"other"})
        assert after.answers["f"] is before.answers["f"]
        for now, number, order in ((after, revision, 1), (before, 3, -1), (after, revision, -1), (before, 3, 1)):
            for context, answer in list(zip(contexts, answers, strict=True))[::order]:
                expected = msgspec.structs.replace(answer, revision=number)
                assert evaluate(now, "f", context, slot=9) == expected
                assert evaluate(now, "f", context, slot=9) == expected


@pytest.mark.parametrize("last", [None, serve("mid"), split(("mid", BUCKETS), ("off", 0)), rollout(threshold=BUCKETS)])
@pytest.mark.parametrize("leaves", [1, 2, 7, 8, 9, 16, 17, 200])
def test_a_table_of_any_length_answers_as_its_first_leaf_that_matches(leaves: int, last: dict[str, Any] | None) -> None:
    rules = [serve("on" if n % 2 else "off", leaf(f"a{n}", "in", "yes", n)) for n in range(leaves)]
    served = compiled({"f": flag(*rules, *([last] if last else []), default_variant="mid")})
    for at in range(leaves):
        for value in ("yes", at, ["no", "yes"]):
            context = Context("u", {f"a{at}": value, f"a{leaves - 1}": value})
            assert evaluate(served, "f", context, slot=9) == said("on" if at % 2 else "off", "TARGETING_MATCH")
    ends = {"serve": said("mid", "TARGETING_MATCH"), "split": said("mid", "SPLIT"),
            "rollout": evidence("on", "candidate", "u"), None: said("mid", "DEFAULT")}  # fmt: skip
    for value in ("no", "", None, leaves, [], True):
        context = Context("u", {f"a{n}": value for n in range(leaves)})
        assert evaluate(served, "f", context, slot=9) == ends[last and last["kind"]]


@pytest.mark.parametrize(
    ("when", "context", "matches"),
    [
        (leaf("user.plan", "in", "pro"), Context("u", {"user": {"plan": "pro"}}), True),
        (leaf("user.plan", "in", "pro"), Context("u", {"user": {"plan": "free"}, "user.plan": "pro"}), True),
        (leaf("user.plan", "in", "pro"), Context("u", {"user": {"plan": "pro"}, "user.plan": "free"}), False),
        (leaf("targeting_key", "in", "u"), Context("u", {"targeting_key": "v"}), True),
        (leaf("targeting_key", "in", "v"), Context("u", {"targeting_key": "v"}), False),
        (leaf("plan", "not_in", "pro"), Context("u", plan="free"), True),
        (leaf("plan", "not_in", "pro"), Context("u", plan="pro"), False),
        (leaf("plan", "not_equals", "pro"), Context("u"), False),
        (leaf("plan", "equals", "pro"), Context("u", plan="pro"), True),
        (leaf("plan", "equals", "pro"), Context("u", plan="PRO"), False),
        (leaf("plan", "in", "pro") | {"cohort": "everyone"}, Context("u", plan="pro"), False),
        (leaf("plan", "in", "pro") | {"all": [leaf("plan", "exists")]}, Context("u", plan="pro"), False),
        ({"op": "in", "values": ["pro"]}, Context("u", plan="pro"), False),
        ({"attribute": "plan", "values": ["pro"]}, Context("u", plan="pro"), False),
        (leaf("plan", "inn", "pro"), Context("u", plan="pro"), False),
        (leaf("plan", "in"), Context("u", plan="pro"), False),
        (leaf("plan", "in", "pro", None), Context("u", plan="pro"), False),
        (leaf("plan", "in", "pro", float("nan")), Context("u", plan="pro"), False),
    ],
)
def test_a_rule_applies_when_its_condition_holds_wherever_it_stands(
    when: dict[str, Any], context: Context, matches: bool
) -> None:
    cohorts = {"everyone": {"units": ["u"]}}
    for rules in ([serve("on", when)], [serve("mid", leaf("x", "in", "y")), serve("on", when)]):
        expected = said("on", "TARGETING_MATCH") if matches else said("off", "DEFAULT")
        assert ask(flag(*rules), context, cohorts=cohorts) == expected
        behind = said("on", "TARGETING_MATCH") if matches else said("mid", "TARGETING_MATCH")
        assert ask(flag(*rules, serve("mid")), context, cohorts=cohorts) == behind


@pytest.mark.parametrize("kind", [serve("on"), split(("on", BUCKETS)), rollout(threshold=BUCKETS)])
def test_rules_that_are_no_table_are_asked_in_order(kind: dict[str, Any]) -> None:
    document = flag(serve("mid", leaf("age", "less_than", 18)), kind | {"when": leaf("plan", "in", "pro")})
    assert ask(document, Context("u", age=17, plan="pro")).variant == "mid"
    assert ask(document, Context("u", age=18, plan="pro")).variant == "on"
    assert ask(document, Context("u", age=18, plan="free")) == said("off", "DEFAULT")
    last = flag(*document["rules"], serve("mid"))
    assert ask(last, Context("u", age=18)) == said("mid", "TARGETING_MATCH")


def test_the_cohort_of_a_rule_lists_its_unit_where_the_rule_randomises_one() -> None:
    cohorts = {"staff": {"units": ["a-1"]}}
    for rule in (split(("on", BUCKETS), unit="account"), rollout(threshold=BUCKETS, unit="account")):
        document = flag(rule | {"when": {"cohort": "staff"}})
        assert ask(document, Context("u", account="a-1"), cohorts=cohorts).variant == "on"
        assert ask(document, Context("a-1", account="a-2"), cohorts=cohorts).variant == "on"
        assert ask(document, Context("u", account="a-2"), cohorts=cohorts) == said("off", "DEFAULT")
    document = flag(serve("on", {"cohort": "staff"}), rollout(unit="account", threshold=0))
    assert ask(document, Context("u", account="a-1"), cohorts=cohorts).variant == "off"


class Odd(str):
    """A text that compares, hashes and prints as it likes."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 1

    def __str__(self) -> str:
        return "somebody else"


@pytest.mark.parametrize("unit", [None, "account"])
def test_a_unit_is_nothing_more_than_its_text(unit: str | None) -> None:
    def asked(who: str) -> Context:
        return Context("u", account=who) if unit else Context(who)

    cohorts = {"c": {"units": ["listed"]}}
    document = flag(rollout(unit=unit, when={"cohort": "c"}, threshold=BUCKETS), rollout(unit=unit, attempt="at_2"))
    for who in ("listed", "user-1", LOWEST, HIGHEST):
        answer = ask(document, asked(Odd(who)), cohorts=cohorts)
        assert answer == ask(document, asked(who), cohorts=cohorts)
        assert type(answer.unit) is str
        named = document | {"overrides": {who: "mid"}}
        assert ask(named, asked(Odd(who)), cohorts=cohorts) == said("mid", "TARGETING_MATCH")


def test_a_kill_a_missing_flag_and_a_flag_without_rules_say_no_more_than_they_must() -> None:
    assert ask(flag(rollout(), killed=True, released="on"), Context("u")) == said("off", "DISABLED")
    assert ask(flag(), NOBODY) == said("off", "STATIC")
    assert ask(flag(released="on"), NOBODY) == said("on", "STATIC")
    assert ask(flag(serve("mid", leaf("x", "exists")), released="on"), NOBODY) == said("on", "DEFAULT")
    served = compiled({})
    missing = Evaluation(None, None, "ERROR", "FLAG_NOT_FOUND", 3, "f")
    assert evaluate(served, "f", NOBODY) == served.answer_anew("f", NOBODY) == missing
    assert evaluate(served, "f", NOBODY, default=4) == msgspec.structs.replace(missing, value=4)


def test_the_first_answer_of_a_flag_is_as_the_later_ones() -> None:
    served = compiled({"f": flag(rollout(threshold=BUCKETS))})
    for context in (Context("u"), Context("v"), Context("w")):
        fresh = compiled({"f": flag(rollout(threshold=BUCKETS))})
        lapsed = frozenset({LEASE})
        assert evaluate(fresh, "f", context, lapsed, 5) == evaluate(served, "f", context, lapsed, 5)
        assert evaluate(served, "f", context, slot=5).slot == 5
    assert [compiled({"f": flag(rollout())}).answer_anew("f", Context("u")).slot,
            evaluate(served, "f", Context("u")).slot] == [0, 0]  # fmt: skip


class Asked(dict[str, Any]):
    """Attributes that know what was looked up."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(attributes)
        self.names: list[str] = []

    def get(self, name: str, default: Any = None) -> Any:
        self.names.append(name)
        return super().get(name, default)


@pytest.mark.parametrize("rule", [serve("on"), split(("on", BUCKETS)), rollout(unit="account")])
def test_an_override_is_looked_up_by_the_units_of_the_rules_and_nothing_else(rule: dict[str, Any]) -> None:
    context = Context("u")
    context.attributes = asked = Asked(account=7)
    document = flag(rule, overrides={"v": "mid", "account": "mid"})
    assert ask(document, context).variant != "mid"
    assert set(asked.names) <= ({"account"} if rule.get("unit") else set())
    assert ask(document, Context("v")) == said("mid", "TARGETING_MATCH")
    assert ask(document, Context("u", targeting_key="v")).variant != "mid"
    assert (ask(document, Context("u", account="v")).variant == "mid") is ("unit" in rule)


def test_all_prerequisites_must_be_met() -> None:
    needs = [{"flag": "a", "variants": ["on", "mid"]}, {"flag": "b", "variants": ["on"]}]
    for a, b, met in (("on", "on", True), ("mid", "on", True), ("on", "off", False), ("off", "on", False)):
        flags = {"f": flag(serve("mid"), prerequisites=needs), "a": flag(released=a), "b": flag(released=b)}
        expected = said("mid", "TARGETING_MATCH") if met else said("off", "DEFAULT")
        assert evaluate(compiled(flags), "f", Context("u")) == expected
    chain = {"f": flag(serve("mid"), prerequisites=needs[:1]), "a": flag(serve("on"), prerequisites=needs[1:])}
    assert evaluate(compiled(chain | {"b": flag(released="on")}), "f", NOBODY).variant == "mid"
    assert evaluate(compiled(chain | {"b": flag()}), "f", NOBODY).variant == "off"


def test_what_a_rollout_is_known_for_is_kept_with_the_ruleset() -> None:
    rules = [
        rollout(attempt=None, lease_ms=None, metrics=["latency"]),
        rollout(metrics=["errors"]),
        rollout(rollout="ro_2", attempt="at_2", lease_ms=5, metrics=[], baseline="mid"),
    ]
    served = compiled({"f": flag(*rules), "g": flag(serve("on"))}, metrics={"errors": {"kind": "proportion"}})
    assert served.leases == frozenset({LEASE, 5})
    assert {key: rule.rollout for key, rule in served.attempts.items()} == {"at_1": "ro_1", "at_2": "ro_2"}
    assert served.rollout_metrics == {"ro_1": frozenset({"latency", "errors"}), "ro_2": frozenset()}
    assert (served.revision, served.environment, served.killed) == (3, "e", frozenset())
    assert (served.metrics, served.flags.keys()) == (served.ruleset.metrics, {"f", "g"})
    assert [served.baseline("f", "ro_2"), served.baseline("f", None), served.baseline("x", "ro_1")] == [
        "mid",
        None,
        None,
    ]
