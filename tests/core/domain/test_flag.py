"""Flags: variants are immutable down to the spelling of their values."""

from typing import Any

import pytest

from rollout.domain.document import duration, key_problems
from rollout.domain.flag import Flag, Targeting, TargetingRule, changed_variants, flag_problems


def flag(**changes: Any) -> Flag:
    return Flag(**{"key": "answer", "variants": {"a": {"temperature": 1}, "b": 2}, "default_variant": "a", **changes})


@pytest.mark.parametrize("value", [True, 1.0, "1", None])
def test_a_variant_never_changes_its_value_not_even_to_one_that_equals_it(value: Any) -> None:
    after = flag(variants={"a": {"temperature": value}, "b": 2})
    assert [problem.path for problem in changed_variants(flag(), after)] == ["variants.a"]


def test_variants_may_be_added_and_never_removed() -> None:
    assert changed_variants(flag(), flag(variants={"a": {"temperature": 1}, "b": 2, "c": 3})) == []
    assert [problem.path for problem in changed_variants(flag(), flag(variants={"b": 2}))] == ["variants.a"]
    assert [problem.path for problem in changed_variants(flag(), flag(salt="other"))] == ["salt"]


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        (TargetingRule(), "targeting.e.rules[0]"),
        (TargetingRule(variant="a", split={"a": 100}), "targeting.e.rules[0]"),
        (TargetingRule(variant="z"), "targeting.e.rules[0].variant"),
        (TargetingRule(split={"a": 50, "b": 49}), "targeting.e.rules[0].split"),
        (TargetingRule(split={"a": 1e308, "b": 0}), "targeting.e.rules[0].split"),
        (TargetingRule(split={"a": 110, "b": -10}), "targeting.e.rules[0].split"),
    ],
)
def test_a_rule_that_cannot_be_served_is_refused_with_the_path(rule: TargetingRule, path: str) -> None:
    assert path in [problem.path for problem in flag_problems(flag(targeting={"e": Targeting(rules=(rule,))}))]


@pytest.mark.parametrize("key", ["", "a\n", "-a", "a-", "a b", "\u212a", "ü", "a" * 101])
def test_what_is_no_plain_word_is_no_key(key: str) -> None:
    assert key_problems(key)


@pytest.mark.parametrize("text", ["", "1", "m", "1 m", "-1m", "1m\n", "1mm", "999999999999w", "99999999w"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration(text)
