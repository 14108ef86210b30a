"""The rules of a flag as closures: serve, split, rollout, and the pin of a conversation.

A rule becomes two closures: whether it applies to a context (None: to everyone), and its answer, which gets the
context, what is served now, the lapsed leases and the minute.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

from rollout_client.evaluation.answer import Evaluation, Exposure
from rollout_client.evaluation.bucketing import bucket_after, cbor_prefix, cell, pin_hash, valid_unit
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.receipt import Receipt
from rollout_client.evaluation.ruleset import BUCKETS, Arm, RolloutRule, Rule, RulesetCohort, RulesetFlag, Serve, Split
from rollout_client.evaluation.targeting import compile_condition, reader


class Now(Protocol):
    """What a rule must know of the ruleset that is asked."""

    @property
    def revision(self) -> int: ...  # noqa: D102

    @property
    def environment(self) -> str: ...  # noqa: D102


Lapsed = AbstractSet[int | None]
"""The lease lengths (milliseconds) that have lapsed; None is among them while nobody ever vouched.

A rule without a lease then still splits, but what it answers is no evidence.
"""
RuleAnswer = Callable[[Context, Any, Lapsed, int], Evaluation]
CompiledRule = tuple[Callable[[Context], bool] | None, RuleAnswer]
Read = Callable[[Context], Any]


class RulesetError(ValueError):
    """A ruleset that contradicts itself; the message starts with the path."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")


class Site(NamedTuple):
    """Where a rule stands."""

    key: str
    flag: RulesetFlag
    cohorts: Mapping[str, RulesetCohort]
    path: str

    def value(self, variant: str, where: str) -> Any:
        """Return the value of a variant; RulesetError with the path when the flag has none of that name."""
        try:
            return self.flag.variants[variant]
        except KeyError:
            raise RulesetError(f"{self.path}.{where}", f'there is no variant "{variant}"') from None

    def when(self, rule: Rule, unit: str | None = None) -> Callable[[Context], bool] | None:
        """Return the compiled condition of a rule, None for everyone."""
        return None if rule.when is None else compile_condition(rule.when, self.cohorts, unit)


def compile_rule(rule: Rule, site: Site) -> CompiledRule:
    """Return the two closures of one rule: whether it applies, and its answer.

    Raises:
        RulesetError: a variant that is not there, weights that do not sum to 100,000, a threshold outside
        0..100,000.
    """
    if isinstance(rule, Serve):
        return site.when(rule), _serve(rule, site)
    if isinstance(rule, Split):
        return site.when(rule, rule.unit), _split(rule, site)
    return site.when(rule, rule.unit), _rollout(rule, site)


def _serve(rule: Serve, site: Site) -> RuleAnswer:
    key, variant, value = site.key, rule.variant, site.value(rule.variant, "variant")

    def serve(context: Context, now: Now, lapsed: Lapsed, slot: int) -> Evaluation:
        return Evaluation(value, variant, "TARGETING_MATCH", None, now.revision, key)

    return serve


def _split(rule: Split, site: Site) -> RuleAnswer:
    widths = [width for _, width in rule.weights]
    if sum(widths) != BUCKETS or min(widths) < 0:
        raise RulesetError(f"{site.path}.weights", f"widths must not be negative and sum to {BUCKETS}")
    shares = [(variant, site.value(variant, "weights")) for variant, _ in rule.weights]
    ends = list(accumulate(widths))
    key, flag = site.key, site.flag
    unit_of, prefix = _unit_reader(rule.unit), cbor_prefix(flag.salt if rule.salt is None else rule.salt)
    elsewhere = flag.default_variant if flag.released is None else flag.released
    otherwise = flag.variants[elsewhere]

    def split(context: Context, now: Now, lapsed: Lapsed, slot: int) -> Evaluation:
        unit = unit_of(context)
        if not valid_unit(unit):
            return Evaluation(otherwise, elsewhere, "DEFAULT", "TARGETING_KEY_MISSING", now.revision, key)
        variant, value = shares[bisect_right(ends, bucket_after(prefix, unit))]
        return Evaluation(value, variant, "SPLIT", None, now.revision, key)

    return split


def _rollout(rule: RolloutRule, site: Site) -> RuleAnswer:
    if not 0 <= rule.threshold <= BUCKETS:
        raise RulesetError(f"{site.path}.threshold", f"a threshold is 0 to {BUCKETS}")
    key, flag = site.key, site.flag
    baseline, below = rule.baseline, site.value(rule.baseline, "baseline")
    candidate, above = rule.candidate, site.value(rule.candidate, "candidate")
    unit_of, prefix = _unit_reader(rule.unit), cbor_prefix(flag.salt if rule.salt is None else rule.salt)
    pin_of = None if rule.pin is None else _text_reader(rule.pin)
    rollout, running, threshold, lease = rule.rollout, rule.attempt, rule.threshold, rule.lease_ms

    def expose(context: Context, now: Now, lapsed: Lapsed, slot: int) -> Evaluation:
        revision, attempt = now.revision, running
        if lease in lapsed:
            if lease is not None:
                return Evaluation(below, baseline, "STALE", None, revision, key, rollout)
            attempt = None
        unit = unit_of(context)
        try:
            position = bucket_after(prefix, unit) if isinstance(unit, str) and unit else None
        except UnicodeEncodeError:  # with the line above, what valid_unit refuses, without encoding twice
            position = None
        if position is None:
            return Evaluation(below, baseline, "DEFAULT", "TARGETING_KEY_MISSING", revision, key, rollout)
        trail = None
        if attempt is not None:
            trail = Exposure(now.environment, unit, slot, None if pin_of is None else pin_of(context))
        if position < threshold:
            return Evaluation(above, candidate, "SPLIT", None, revision, key, rollout, attempt, "candidate", trail)
        return Evaluation(below, baseline, "SPLIT", None, revision, key, rollout, attempt, "baseline", trail)

    return expose


def compile_pin(site: Site) -> Callable[[Receipt, Context, Any, Lapsed, int], Evaluation | None]:
    """Return the closure that serves what a conversation began with, while the flag's pins hold its rollout.

    The receipt's pin hash must match the attribute that a rule names as `pin`. When no rule names one any
    more (the rollout was rolled back and drains), any text attribute with that hash identifies the
    conversation. The answer is evidence only where the rule of the receipt's attempt would give this unit
    the same arm: a receipt can be edited, and others may join a conversation.
    """
    key, flag = site.key, site.flag
    rules = {rule.rollout: rule for rule in reversed(flag.rules) if isinstance(rule, RolloutRule)}
    draws = {rule.attempt: _draw(rule, flag) for rule in flag.rules if isinstance(rule, RolloutRule) and rule.attempt}
    pins = [_text_reader(name) for name in dict.fromkeys(r.pin for r in rules.values() if r.pin is not None)]

    def pinned(receipt: Receipt, context: Context, now: Now, lapsed: Lapsed, slot: int) -> Evaluation | None:
        rollout, variant = receipt.rollout, receipt.variant
        if receipt.flag != key or receipt.environment != now.environment or rollout not in flag.pins:
            return None
        rule = rules.get(rollout)
        expected = variant if rule is None else rule.baseline if receipt.arm == "baseline" else rule.candidate
        if variant != expected or variant not in flag.variants or not _is_pinned(receipt, context, pins):
            return None
        value, revision, arm = flag.variants[variant], now.revision, receipt.arm
        if rule is not None and rule.lease_ms is not None and rule.lease_ms in lapsed:
            return Evaluation(flag.variants[rule.baseline], rule.baseline, "STALE", None, revision, key, rollout)
        draw = None if rule is None or None in lapsed else draws.get(receipt.attempt)
        unit = None if draw is None else draw(context, arm)
        if unit is not None and cell(unit) == receipt.cell:
            trail = Exposure(receipt.environment, unit, slot, receipt.pin, receipt.cell)
            return Evaluation(value, variant, "SPLIT", None, revision, key, rollout, receipt.attempt, arm, trail)
        return Evaluation(value, variant, "SPLIT", None, revision, key, rollout, None, arm, receipt)

    return pinned


def _draw(rule: RolloutRule, flag: RulesetFlag) -> Callable[[Context, Arm], str | None]:
    """Return the function that gives the unit of a context when the rule puts it into an arm, else None."""
    unit_of, prefix = _unit_reader(rule.unit), cbor_prefix(flag.salt if rule.salt is None else rule.salt)

    def draw(context: Context, arm: Arm) -> str | None:
        unit = unit_of(context)
        below = valid_unit(unit) and bucket_after(prefix, unit) < rule.threshold
        return unit if valid_unit(unit) and below == (arm == "candidate") else None

    return draw


def _is_pinned(receipt: Receipt, context: Context, pins: list[Read]) -> bool:
    if receipt.pin is None:
        return False
    named = (pin(context) for pin in pins) if pins else (v for v in context.attributes.values() if valid_unit(v))
    return any(text is not None and pin_hash(text) == receipt.pin for text in named)


def _unit_reader(unit: str | None) -> Read:
    return reader("targeting_key" if unit is None else unit)


def _text_reader(attribute: str) -> Read:
    read = reader(attribute)

    def text(context: Context) -> str | None:
        value = read(context)
        return value if valid_unit(value) else None

    return text
