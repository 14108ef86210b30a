"""The rules of a flag as closures: serve, split, rollout, and the pin of a conversation.

The answer of a rule is a closure that gets the context, what is served now, the lapsed leases and the minute. The
commonest are written out (`straight`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

from msgspec.structs import replace

from rollout_client.evaluation.answer import Evaluation, Reason
from rollout_client.evaluation.bucketing import (
    bucket_after,
    cbor_prefix,
    cell,
    hashes_below,
    pin_hash,
    unit_text,
    valid_unit,
)
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.receipt import Receipt
from rollout_client.evaluation.ruleset import BUCKETS, Arm, RolloutRule, Rule, RulesetCohort, RulesetFlag, Serve, Split
from rollout_client.evaluation.slices import windows
from rollout_client.evaluation.straight import TABLE, Leaf, Leaves, rollout, split, straight
from rollout_client.evaluation.targeting import UNIT_ATTRIBUTE, compile_condition, reader, text_leaf, unit_reader


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

    def when(self, rule: Rule) -> Callable[[Context], bool] | None:
        """Return the compiled condition of a rule, None for everyone."""
        if rule.when is None:
            return None
        return compile_condition(rule.when, self.cohorts, None if isinstance(rule, Serve) else rule.unit)


def contradiction(rule: Rule, variants: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the field in which a rule contradicts itself or its flag, and the problem; None when it does not.

    Variants must be there, widths sum to 100,000, a threshold lie in 0..100,000. It runs for every rule of every
    ruleset, so what is right makes nothing.
    """
    if isinstance(rule, Serve):
        return None if rule.variant in variants else ("variant", missing(rule.variant))
    if isinstance(rule, RolloutRule):
        if not 0 <= rule.threshold <= BUCKETS:
            return "threshold", f"a threshold is 0 to {BUCKETS}"
        if rule.slices and not all(0 <= each.start < each.end <= BUCKETS for each in rule.slices):
            return "slices", f"a slice goes from its start to a later end, both 0 to {BUCKETS}"
        if rule.baseline not in variants:
            return "baseline", missing(rule.baseline)
        return None if rule.candidate in variants else ("candidate", missing(rule.candidate))
    total = 0
    for variant, width in rule.weights:
        if variant not in variants:
            return "weights", missing(variant)
        if width < 0:
            break
        total += width
    else:
        if total == BUCKETS:
            return None
    return "weights", f"widths must not be negative and sum to {BUCKETS}"


def missing(variant: str) -> str:
    """The problem of a name that no variant of the flag has."""
    return f'there is no variant "{variant}"'


def compile_rules(rules: tuple[Rule, ...], site: Site, otherwise: RuleAnswer) -> RuleAnswer:
    """Return the closure that answers with the first rule that applies, else as `otherwise` does.

    What follows a rule with slices answers whom they leave out, so it is compiled first.
    """
    end = len(rules)
    for at in reversed(range(end)):
        rule = rules[at]
        if isinstance(rule, RolloutRule) and rule.slices:
            following = _until_sliced(rules[at + 1 : end], site, otherwise)
            when, answer = site.when(rule), _rollout(rule, site, (), following)
            otherwise = answer if when is None else _first_of(((when, answer),), following)
            end = at
    return _until_sliced(rules[:end], site, otherwise)


def _until_sliced(rules: tuple[Rule, ...], site: Site, otherwise: RuleAnswer) -> RuleAnswer:
    """Return the closure of rules without slices, which may be none.

    Where all conditions ask for a text attribute, they are a table, and the rule for everyone is written out behind it.
    """
    if not rules:
        return otherwise
    leaves: list[Leaf] = []
    for rule in rules:
        if rule.when is None:
            return _answer(rule, site, tuple(leaves))
        leaf = text_leaf(rule.when)
        if leaf is None:
            break
        leaves.append((*leaf, _answer(rule, site, ())))
    else:
        return straight(tuple(leaves), TABLE, otherwise=otherwise)
    return _first_of(tuple((site.when(rule), _answer(rule, site, ())) for rule in rules), otherwise)


def constant(site: Site, variant: str, reason: Reason) -> RuleAnswer:
    """Return the closure that gives everyone one variant. The answer is made once for each revision."""
    last = Evaluation(site.flag.variants[variant], variant, reason, None, -1, site.key)

    def always(context: Context, now: Now, lapsed: Lapsed, slot: int) -> Evaluation:
        nonlocal last
        answer = last
        if answer.revision != now.revision:
            answer = last = of_revision(answer, now.revision)
        return answer

    return always


def of_revision(answer: Evaluation, revision: int) -> Evaluation:
    """Return what a rule answers everyone, as an answer of another revision."""
    return Evaluation(answer.value, answer.variant, answer.reason, None, revision, answer.flag)


def _answer(rule: Rule, site: Site, leaves: Leaves) -> RuleAnswer:
    if isinstance(rule, Serve):
        served = constant(site, rule.variant, "TARGETING_MATCH")
        return straight(leaves, TABLE, otherwise=served) if leaves else served
    return _split(rule, site, leaves) if isinstance(rule, Split) else _rollout(rule, site, leaves)


def _first_of(
    rules: tuple[tuple[Callable[[Context], bool] | None, RuleAnswer], ...], otherwise: RuleAnswer
) -> RuleAnswer:
    def first(context: Context, now: Now, lapsed: Lapsed, slot: int) -> Evaluation:
        for applies, answer in rules:
            if applies is None or applies(context):
                return answer(context, now, lapsed, slot)
        return otherwise(context, now, lapsed, slot)

    return first


def _split(rule: Split, site: Site, leaves: Leaves) -> RuleAnswer:
    key, flag = site.key, site.flag
    ends = [hashes_below(end) for end in accumulate(width for _, width in rule.weights)]
    answers = [Evaluation(flag.variants[variant], variant, "SPLIT", None, -1, key) for variant, _ in rule.weights]
    elsewhere = flag.default_variant if flag.released is None else flag.released
    otherwise = flag.variants[elsewhere]

    def nobody(now: Now) -> Evaluation:
        return Evaluation(otherwise, elsewhere, "DEFAULT", "TARGETING_KEY_MISSING", now.revision, key)

    two = {"end": ends[0], "below": answers[0], "above": answers[1]} if len(ends) == 2 else {}
    return straight(
        leaves,
        split(len(ends), attribute=rule.unit is not None),
        unit_of=_unit_reader(rule.unit),
        prefix=_prefix(rule, flag),
        ends=ends,
        answers=answers,
        nobody=nobody,
        of_revision=of_revision,
        **two,
    )


def _rollout(rule: RolloutRule, site: Site, leaves: Leaves, outside: RuleAnswer | None = None) -> RuleAnswer:
    key, flag = site.key, site.flag
    baseline, below = rule.baseline, flag.variants[rule.baseline]

    def nobody(now: Now) -> Evaluation:
        return Evaluation(below, baseline, "DEFAULT", "TARGETING_KEY_MISSING", now.revision, key, rule.rollout)

    def stale(now: Now) -> Evaluation:
        return Evaluation(below, baseline, "STALE", None, now.revision, key, rule.rollout)

    evidence, leased = rule.attempt is not None, rule.lease_ms is not None
    unvouched = replace(rule, attempt=None, slices=()) if evidence and not leased else None
    asked = windows(rule)
    within: dict[str, Any] = {"outside": outside} if asked else {}
    for at, each in enumerate(asked):
        within |= {f"prefix{at}": each.prefix, f"low{at}": each.low, f"high{at}": each.high, f"holds{at}": each.holds}
    return straight(
        leaves,
        rollout(
            attribute=rule.unit is not None,
            leased=leased,
            evidence=evidence,
            pinned=rule.pin is not None,
            slices=tuple(each.unit_of is not None for each in asked),
        ),
        **within,
        stale=stale,
        lease=rule.lease_ms,
        unvouched=None if unvouched is None else _rollout(unvouched, site, ()),
        unit_of=_unit_reader(rule.unit),
        nobody=nobody,
        attempt=rule.attempt,
        pin_of=None if rule.pin is None else _text_reader(rule.pin),
        prefix=_prefix(rule, flag),
        end=hashes_below(rule.threshold),
        above=flag.variants[rule.candidate],
        candidate=rule.candidate,
        below=below,
        baseline=baseline,
        key=key,
        rollout=rule.rollout,
    )


def compile_pin(site: Site) -> Callable[[Receipt, Context, Any, Lapsed, int], Evaluation | None]:
    """Return the closure that serves what a conversation began with, while the flag's pins hold its rollout.

    The receipt's pin hash must match the attribute that a rule names as `pin`. When no rule names one any
    more (the rollout was rolled back and drains), any text attribute with that hash identifies the
    conversation. The answer is evidence only where the rule of the receipt's attempt would give this unit
    the same arm: a receipt can be edited, and others may join a conversation.
    """
    key, flag = site.key, site.flag
    rules = {rule.rollout: rule for rule in reversed(flag.rules) if isinstance(rule, RolloutRule)}
    draws = {
        (rule.rollout, rule.attempt): _draw(rule, flag)
        for rule in flag.rules
        if isinstance(rule, RolloutRule) and rule.attempt
    }
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
        draw = None if rule is None or None in lapsed else draws.get((rollout, receipt.attempt))
        unit = None if draw is None else draw(context, arm)
        if unit is not None and cell(unit) == receipt.cell:
            whose = receipt.attempt, arm, receipt.environment, unit, slot, receipt.pin
            return Evaluation(value, variant, "SPLIT", None, revision, key, rollout, *whose)
        return Evaluation(value, variant, "SPLIT", None, revision, key, rollout, None, arm, pinned=receipt)

    return pinned


def _draw(rule: RolloutRule, flag: RulesetFlag) -> Callable[[Context, Arm], str | None]:
    """Return the function that gives the unit of a context when the rule puts it into an arm, else None."""
    unit_of, prefix = unit_reader(rule.unit or UNIT_ATTRIBUTE), _prefix(rule, flag)
    slices = windows(rule)

    def draw(context: Context, arm: Arm) -> str | None:
        unit = unit_of(context)
        if not valid_unit(unit) or not all(each.holds(context, unit_text(unit)) for each in slices):
            return None
        return unit if (bucket_after(prefix, unit) < rule.threshold) == (arm == "candidate") else None

    return draw


def _is_pinned(receipt: Receipt, context: Context, pins: list[Read]) -> bool:
    if receipt.pin is None:
        return False
    named = (pin(context) for pin in pins) if pins else (v for v in context.attributes.values() if valid_unit(v))
    return any(text is not None and pin_hash(text) == receipt.pin for text in named)


def _unit_reader(unit: str | None) -> Read | None:
    """Return the reader of what is randomised, None for the targeting key, which is read without a call."""
    return None if unit is None else unit_reader(unit)


def _prefix(rule: Split | RolloutRule, flag: RulesetFlag) -> bytes:
    return cbor_prefix(flag.salt if rule.salt is None else rule.salt)


def _text_reader(attribute: str) -> Read:
    read = reader(attribute)

    def text(context: Context) -> str | None:
        value = read(context)
        return value if valid_unit(value) else None

    return text
