"""From a ruleset to answers: compile once, then ask as often as you like.

A flag is answered in this order: killed - prerequisites not met - override of the unit - pinned
conversation - the first rule that applies - what was released, else the default variant (decision record
0001, Ruleset).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from rollout_client.evaluation.answer import ErrorCode, Evaluation, Exposure, Reason
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.rules import CompiledRule, Lapsed, RulesetError, Site, compile_pin, compile_rule
from rollout_client.evaluation.ruleset import (
    ALGORITHM,
    SCHEMA,
    Patch,
    Prerequisite,
    RolloutRule,
    Ruleset,
    RulesetCohort,
    RulesetFlag,
    RulesetMetric,
)
from rollout_client.evaluation.targeting import reader

__all__ = [
    "CompiledFlag",
    "CompiledRuleset",
    "ErrorCode",
    "Evaluation",
    "Exposure",
    "Reason",
    "RulesetError",
    "apply_patch",
    "compile_ruleset",
    "evaluate",
]

_Answer = Callable[[Context, "CompiledRuleset", Lapsed, int], Evaluation]
_Document = TypeVar("_Document")


class CompiledFlag(NamedTuple):
    """One flag as a closure, with the rollout rules that it came from."""

    flag: RulesetFlag
    answer: _Answer
    rollouts: tuple[RolloutRule, ...]

    def baseline(self, rollout: str | None) -> str | None:
        """Return the variant a rollout of this flag goes back to, None for a rollout the flag does not have."""
        return next((rule.baseline for rule in self.rollouts if rule.rollout == rollout), None)


class CompiledRuleset:
    """Everything one environment serves, ready to answer. Immutable; a new revision is a new object.

    `leases` are the lease lengths in use (milliseconds), `attempts` the running attempts with a rule of
    theirs, `rollout_metrics` the metrics that each rollout in the ruleset takes evidence of.
    """

    __slots__ = (
        "attempts",
        "environment",
        "flags",
        "killed",
        "leases",
        "revision",
        "rollout_metrics",
        "ruleset",
        "unmet",
    )

    def __init__(self, ruleset: Ruleset, flags: dict[str, CompiledFlag], killed: frozenset[str]) -> None:
        self.ruleset = ruleset
        self.revision = ruleset.revision
        self.environment = ruleset.environment
        self.flags = flags
        self.killed = killed
        self.unmet = _into_a_cycle(ruleset.flags)
        rules = [rule for compiled in flags.values() for rule in compiled.rollouts]
        self.leases = frozenset(rule.lease_ms for rule in rules if rule.lease_ms is not None)
        self.attempts = {rule.attempt: rule for rule in rules if rule.attempt is not None}
        self.rollout_metrics: dict[str, frozenset[str]] = {}
        for rule in rules:
            known = self.rollout_metrics.get(rule.rollout, frozenset())
            self.rollout_metrics[rule.rollout] = known.union(rule.metrics)

    @property
    def metrics(self) -> Mapping[str, RulesetMetric]:
        """What is needed to fold observations, by metric key."""
        return self.ruleset.metrics


def evaluate(
    compiled: CompiledRuleset,
    flag: str,
    context: Context,
    lapsed: Lapsed = frozenset(),
    slot: int = 0,
    default: Any = None,
) -> Evaluation:
    """Answer one flag; never raises, and gives `default` with reason ERROR when there is no better answer.

    Args:
        compiled: what `compile_ruleset` returned.
        flag: its key.
        context: who is asking.
        lapsed: the lease lengths (ms) that have lapsed; their rules serve the baseline with reason STALE.
        slot: the minute (unix seconds // 60), which goes into the receipt.
        default: the value when the flag is not there.
    """
    try:
        found = compiled.flags.get(flag)
        if found is None:
            return Evaluation(default, None, "ERROR", "FLAG_NOT_FOUND", compiled.revision, flag)
        return found.answer(context, compiled, lapsed, slot)
    except Exception:
        asked: object = context  # whatever the caller passed, whatever its type says
        error: ErrorCode = "GENERAL" if isinstance(asked, Context) else "INVALID_CONTEXT"
        return Evaluation(default, None, "ERROR", error, compiled.revision, flag)


def compile_ruleset(
    ruleset: Ruleset, previous: CompiledRuleset | None = None, killed: frozenset[str] = frozenset()
) -> CompiledRuleset:
    """Return the compiled form of a ruleset; flags that are the same objects as in `previous` are not compiled again.

    Args:
        ruleset: whole, as decoded or as `apply_patch` returned it.
        previous: what was served before.
        killed: flags killed in this process only, whatever the ruleset says.

    Raises:
        RulesetError: an unknown schema or algorithm, or a flag that contradicts itself. The ruleset is
        refused whole.
    """
    if ruleset.schema != SCHEMA:
        raise RulesetError("schema", f"this reader knows schema {SCHEMA}, not {ruleset.schema}")
    if ruleset.algorithm != ALGORITHM:
        raise RulesetError("algorithm", f'this reader knows "{ALGORITHM}", not "{ruleset.algorithm}"')
    former: dict[str, CompiledFlag] = {}
    if previous is not None and previous.ruleset.cohorts is ruleset.cohorts and previous.killed == killed:
        former = previous.flags
    flags = {}
    for key, flag in ruleset.flags.items():
        compiled = former.get(key)
        if compiled is None or compiled.flag is not flag:
            compiled = _compile_flag(key, flag, ruleset.cohorts, key in killed)
        flags[key] = compiled
    return CompiledRuleset(ruleset, flags, killed)


def apply_patch(ruleset: Ruleset, patch: Patch) -> Ruleset | None:
    """Return the ruleset after a patch; None when the patch is not for this edition or has an unknown schema."""
    fits = (patch.base, patch.base_edition) == (ruleset.revision, ruleset.edition)
    if patch.schema != SCHEMA or not fits or patch.revision <= patch.base:
        return None
    return msgspec.structs.replace(
        ruleset,
        revision=patch.revision,
        edition=patch.edition,
        flags=_patched(ruleset.flags, patch.flags),
        cohorts=_patched(ruleset.cohorts, patch.cohorts),
        metrics=_patched(ruleset.metrics, patch.metrics),
    )


def _patched(current: dict[str, _Document], changes: Mapping[str, _Document | None]) -> dict[str, _Document]:
    if not changes:
        return current
    patched = dict(current)
    for key, value in changes.items():
        if value is None:
            patched.pop(key, None)
        else:
            patched[key] = value
    return patched


def _compile_flag(key: str, flag: RulesetFlag, cohorts: Mapping[str, RulesetCohort], killed: bool) -> CompiledFlag:
    site = Site(key, flag, cohorts, f"flags.{key}")
    site.value(flag.default_variant, "default_variant")
    if flag.released is not None:
        site.value(flag.released, "released")
    for unit, variant in flag.overrides.items():
        site.value(variant, f"overrides.{unit}")
    rules = tuple(
        compile_rule(rule, site._replace(path=f"{site.path}.rules[{index}]")) for index, rule in enumerate(flag.rules)
    )
    rollouts = tuple(rule for rule in flag.rules if isinstance(rule, RolloutRule))
    if killed or flag.killed:
        return CompiledFlag(flag, _constant(site, flag.default_variant, "DISABLED"), rollouts)
    released = flag.default_variant if flag.released is None else flag.released
    answer = _constant(site, released, "DEFAULT" if rules else "STATIC")
    if rules:
        answer = _first_of(rules, answer)
    if flag.pins:
        answer = _after_pin(site, answer)
    if flag.overrides:
        answer = _after_override(site, answer)
    if flag.prerequisites:
        answer = _after_prerequisites(site, answer)
    return CompiledFlag(flag, answer, rollouts)


def _constant(site: Site, variant: str, reason: Reason) -> _Answer:
    key, value = site.key, site.flag.variants[variant]
    return lambda _context, now, _lapsed, _slot: Evaluation(value, variant, reason, None, now.revision, key)


def _first_of(rules: tuple[CompiledRule, ...], otherwise: _Answer) -> _Answer:
    def first(context: Context, now: CompiledRuleset, lapsed: Lapsed, slot: int) -> Evaluation:
        for applies, answer in rules:
            if applies is None or applies(context):
                return answer(context, now, lapsed, slot)
        return otherwise(context, now, lapsed, slot)

    return first


def _after_pin(site: Site, otherwise: _Answer) -> _Answer:
    pinned = compile_pin(site)

    def pin(context: Context, now: CompiledRuleset, lapsed: Lapsed, slot: int) -> Evaluation:
        receipt = context.receipt
        answer = None if receipt is None else pinned(receipt, context, now, lapsed, slot)
        return otherwise(context, now, lapsed, slot) if answer is None else answer

    return pin


def _after_override(site: Site, otherwise: _Answer) -> _Answer:
    """A unit is looked up by the targeting key and by every attribute that a rule of the flag randomises."""
    key, variants, overrides = site.key, site.flag.variants, site.flag.overrides
    units = dict.fromkeys(getattr(rule, "unit", None) or "targeting_key" for rule in site.flag.rules)
    readers = [reader(name) for name in dict.fromkeys(("targeting_key", *units))]

    def override(context: Context, now: CompiledRuleset, lapsed: Lapsed, slot: int) -> Evaluation:
        for read in readers:
            unit = read(context)
            if isinstance(unit, str) and unit in overrides:
                variant = overrides[unit]
                return Evaluation(variants[variant], variant, "TARGETING_MATCH", None, now.revision, key)
        return otherwise(context, now, lapsed, slot)

    return override


def _after_prerequisites(site: Site, otherwise: _Answer) -> _Answer:
    key, required = site.key, site.flag.prerequisites
    unmet = _constant(site, site.flag.default_variant if site.flag.released is None else site.flag.released, "DEFAULT")

    def prerequisites(context: Context, now: CompiledRuleset, lapsed: Lapsed, slot: int) -> Evaluation:
        if key in now.unmet or not all(_met(one, context, now, lapsed) for one in required):
            return unmet(context, now, lapsed, slot)
        return otherwise(context, now, lapsed, slot)

    return prerequisites


def _met(one: Prerequisite, context: Context, now: CompiledRuleset, lapsed: Lapsed) -> bool:
    found = now.flags.get(one.flag)
    return found is not None and found.answer(context, now, lapsed, 0).variant in one.variants


def _into_a_cycle(flags: Mapping[str, RulesetFlag]) -> frozenset[str]:
    """Return the flags whose prerequisites lead into a cycle, by taking away those that can be answered first."""
    waiting = {key: {one.flag for one in flag.prerequisites} for key, flag in flags.items() if flag.prerequisites}
    while True:
        ready = [key for key, needed in waiting.items() if needed.isdisjoint(waiting)]
        if not ready:
            return frozenset(waiting)
        for key in ready:
            del waiting[key]
