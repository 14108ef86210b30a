"""A flag: the question an application asks, its immutable variants, and how an environment answers it."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from rollout.domain import exclusion, holdout
from rollout.domain.document import Document, Problem, key_problems, same
from rollout_client.evaluation.authoring import condition_problems
from rollout_client.evaluation.ruleset import BUCKETS
from rollout_client.evaluation.targeting import Condition


class Require(Document, frozen=True, kw_only=True):
    """Another flag must serve one of these variants."""

    flag: str
    variants: tuple[str, ...]


class TargetingRule(Document, frozen=True, kw_only=True):
    """Whom `when` matches (None: everyone) gets `variant`, or is split by bucket: variant to percentage, sum 100."""

    when: Condition | None = None
    variant: str | None = None
    split: dict[str, float] | None = None
    unit: str | None = None


class Targeting(Document, frozen=True, kw_only=True):
    """How one environment answers before any rollout: overrides of single units, then rules in order."""

    overrides: dict[str, str] = {}
    rules: tuple[TargetingRule, ...] = ()


class Flag(Document, frozen=True, kw_only=True):
    """An authored flag. Variants may be added; one that exists never changes its value."""

    key: str
    variants: dict[str, Any]
    default_variant: str
    kind: Literal["Flag"] = "Flag"
    description: str = ""
    salt: str | None = None
    prerequisites: tuple[Require, ...] = ()
    targeting: dict[str, Targeting] = {}


class FlagState(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a flag in one environment.

    `released` is what everyone gets once a rollout ended there: its candidate if it completed, its baseline if it was
    rolled back. `default_variant` stays the answer of a kill.
    """

    released: str | None = None
    killed_at: datetime | None = None
    killed_by: str | None = None
    kill_reason: str | None = None

    @property
    def killed(self) -> bool:
        """A person switched the flag to its default variant here."""
        return self.killed_at is not None


def flag_problems(flag: Flag) -> list[Problem]:
    """Everything that can be said about a flag by itself; references to others are checked on save."""
    problems = key_problems(flag.key)
    if not flag.variants:
        problems.append(Problem("variants", "a flag needs at least one variant; add its name and value"))
    for name in flag.variants:
        problems += key_problems(name, f"variants.{name}")
    problems += _unknown(flag, flag.default_variant, "default_variant")
    if flag.salt is not None and flag.salt.startswith((exclusion.SALT, holdout.SALT)):
        message = "would draw the arms from the buckets of a slice; choose one that does not begin so"
        problems.append(Problem("salt", message))
    for i, required in enumerate(flag.prerequisites):
        if required.flag == flag.key:
            problems.append(Problem(f"prerequisites[{i}].flag", "a flag cannot require itself; name another flag"))
        if not required.variants:
            problems.append(Problem(f"prerequisites[{i}].variants", "name at least one variant that satisfies it"))
    for environment, targeting in flag.targeting.items():
        problems += _targeting_problems(flag, targeting, f"targeting.{environment}")
    return problems


def changed_variants(before: Flag, after: Flag) -> list[Problem]:
    """Variants are immutable: what was served under a name is what that name means for ever."""
    problems = []
    for name, value in before.variants.items():
        if name not in after.variants:
            problems.append(Problem(f"variants.{name}", "a variant cannot be removed once it exists; leave it unused"))
        elif not same(after.variants[name], value):
            problems.append(Problem(f"variants.{name}", "a variant never changes its value; add a new variant instead"))
    if (before.salt or before.key) != (after.salt or after.key):
        problems.append(Problem("salt", "a new salt would move every unit to another bucket; keep the old one"))
    return problems


def _targeting_problems(flag: Flag, targeting: Targeting, path: str) -> list[Problem]:
    problems = []
    for unit, variant in targeting.overrides.items():
        problems += _unknown(flag, variant, f"{path}.overrides.{unit}")
    for i, rule in enumerate(targeting.rules):
        problems += _rule_problems(flag, rule, f"{path}.rules[{i}]")
    return problems


def _rule_problems(flag: Flag, rule: TargetingRule, path: str) -> list[Problem]:
    problems = _condition(rule.when, f"{path}.when")
    if (rule.variant is None) == (rule.split is None):
        problems.append(Problem(path, "give either 'variant' or 'split', not both"))
    if rule.variant is not None:
        problems += _unknown(flag, rule.variant, f"{path}.variant")
    if rule.split is not None:
        for variant in rule.split:
            problems += _unknown(flag, variant, f"{path}.split.{variant}")
        sound = all(0 <= percentage <= 100 for percentage in rule.split.values())
        widths = [round(percentage * BUCKETS / 100) for percentage in rule.split.values()] if sound else []
        if sum(widths) != BUCKETS:
            problems.append(Problem(f"{path}.split", "the percentages must be 0 or more and sum to 100"))
    return problems


def _condition(condition: Condition | None, path: str) -> list[Problem]:
    return [] if condition is None else [Problem(p, message) for p, message in condition_problems(condition, path)]


def _unknown(flag: Flag, variant: str, path: str) -> list[Problem]:
    if variant in flag.variants:
        return []
    return [Problem(path, f"flag {flag.key!r} has no variant {variant!r}; it has {', '.join(sorted(flag.variants))}")]
