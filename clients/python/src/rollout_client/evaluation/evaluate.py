"""From a ruleset to answers: compile once, then ask as often as you like.

A flag is answered in this order: killed - prerequisites not met - override of the unit - pinned
conversation - the first rule that applies - what was released, else the default variant (decision record
0001, Ruleset).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from rollout_client.evaluation.answer import ErrorCode, Evaluation, Reason
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.rules import (
    Lapsed,
    RulesetError,
    Site,
    compile_pin,
    compile_rules,
    constant,
    contradiction,
    missing,
)
from rollout_client.evaluation.ruleset import (
    ALGORITHM,
    SCHEMAS,
    Patch,
    Prerequisite,
    RolloutRule,
    Ruleset,
    RulesetFlag,
    RulesetMetric,
    Serve,
)
from rollout_client.evaluation.targeting import unit_reader

__all__ = [
    "CompiledRuleset",
    "ErrorCode",
    "Evaluation",
    "Reason",
    "RulesetError",
    "apply_patch",
    "compile_ruleset",
    "evaluate",
]

_Answer = Callable[[Context, "CompiledRuleset", Lapsed, int], Evaluation]
_Document = TypeVar("_Document")
_NONE: tuple[RolloutRule, ...] = ()
_NONE_LAPSED: Lapsed = frozenset()
_NO_METRICS = frozenset[str]()
_SLICE = 250
"""Flags that are checked between two pauses."""


class _Marked(NamedTuple):
    """The flags that need more than an answer: those with a rollout, and those with prerequisites."""

    splitting: dict[str, tuple[RolloutRule, ...]]
    needing: dict[str, tuple[Prerequisite, ...]]

    def mark(self, key: str, flag: RulesetFlag) -> None:
        """Check a flag that is not marked yet, and mark it."""
        rollouts = _rollouts(key, flag)
        if rollouts:
            self.splitting[key] = rollouts
        if flag.prerequisites:
            self.needing[key] = flag.prerequisites


class CompiledRuleset:
    """Everything one environment serves, ready to answer. Immutable; a new revision is a new object.

    `answers` are the closures of the flags that were asked, `splitting` the flags with a rollout, `leases` the lease
    lengths in use (milliseconds), `attempts` the running attempts with a rule of theirs, and `rollout_metrics` the
    metrics that each rollout takes evidence of.
    """

    __slots__ = (
        "answers",
        "attempts",
        "environment",
        "killed",
        "leases",
        "needing",
        "revision",
        "rollout_metrics",
        "ruleset",
        "splitting",
        "unmet",
    )

    def __init__(self, ruleset: Ruleset, marked: _Marked, killed: frozenset[str], answers: dict[str, _Answer]) -> None:
        self.ruleset = ruleset
        self.revision = ruleset.revision
        self.environment = ruleset.environment
        self.killed = killed
        self.answers = answers
        self.splitting, self.needing = marked
        self.unmet = _into_a_cycle(self.needing)
        leases: set[int] = set()
        self.attempts: dict[str, RolloutRule] = {}
        self.rollout_metrics: dict[str, frozenset[str]] = {}
        for rules in self.splitting.values():
            for rule in rules:
                if rule.lease_ms is not None:
                    leases.add(rule.lease_ms)
                if rule.attempt is not None:
                    self.attempts[rule.attempt] = rule
                known = self.rollout_metrics.get(rule.rollout, _NO_METRICS)
                self.rollout_metrics[rule.rollout] = known.union(rule.metrics) if rule.metrics else known
        self.leases = frozenset(leases)

    def answer_anew(
        self, flag: str, context: Context, lapsed: Lapsed = _NONE_LAPSED, slot: int = 0, default: Any = None
    ) -> Evaluation:
        """Answer a flag that was not asked before, is not there, or cannot be answered; as `evaluate` does."""
        error: ErrorCode = "FLAG_NOT_FOUND"
        try:
            if flag in self.flags:
                return self.answer(flag)(context, self, lapsed, slot)
        except Exception:
            asked: object = context  # whatever the caller passed, whatever its type says
            error = "GENERAL" if isinstance(asked, Context) else "INVALID_CONTEXT"
        return Evaluation(default, None, "ERROR", error, self.revision, flag)

    def answer(self, flag: str) -> _Answer:
        """Return the closure of a flag that is there, compiled now if it was not; two threads may do so at once."""
        answer = self.answers.get(flag)
        if answer is None:
            spec = self.flags[flag]
            site = Site(flag, spec, self.ruleset.cohorts)
            answer = self.answers[flag] = _compile(site, spec.killed or flag in self.killed)
        return answer

    @property
    def flags(self) -> Mapping[str, RulesetFlag]:
        """What is served, by flag key."""
        return self.ruleset.flags

    @property
    def metrics(self) -> Mapping[str, RulesetMetric]:
        """What is needed to fold observations, by metric key."""
        return self.ruleset.metrics

    def baseline(self, flag: str, rollout: str | None) -> str | None:
        """Return the variant that a rollout of a flag goes back to, None for a rollout that the flag does not have."""
        rules = self.splitting.get(flag, ())
        return next((rule.baseline for rule in rules if rule.rollout == rollout), None)


def evaluate(
    compiled: CompiledRuleset,
    flag: str,
    context: Context,
    lapsed: Lapsed = _NONE_LAPSED,
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
        return compiled.answers[flag](context, compiled, lapsed, slot)
    except Exception:
        return compiled.answer_anew(flag, context, lapsed, slot, default)


def compile_ruleset(
    ruleset: Ruleset,
    previous: CompiledRuleset | None = None,
    killed: frozenset[str] = frozenset(),
    changed: Collection[str] | None = None,
    pause: Callable[[], object] | None = None,
) -> CompiledRuleset:
    """Return the compiled form of a ruleset; flags that are the same objects as in `previous` are not compiled again.

    All flags are checked; each is compiled when it is first asked for.

    Args:
        ruleset: whole, as decoded or as `apply_patch` returned it.
        previous: what was served before.
        killed: flags killed in this process only, whatever the ruleset says.
        changed: the flags that are not as in `previous`, added, changed or removed; None if that is not known.
        pause: called every so many flags, to let other threads run.

    Raises:
        RulesetError: an unknown schema or algorithm, or a flag that contradicts itself. The ruleset is
        refused whole.
    """
    if ruleset.schema not in SCHEMAS:
        known = " and ".join(map(str, SCHEMAS))
        raise RulesetError("schema", f"this reader knows schema {known}, not {ruleset.schema}")
    if ruleset.algorithm != ALGORITHM:
        raise RulesetError("algorithm", f'this reader knows "{ALGORITHM}", not "{ruleset.algorithm}"')
    answers = {} if previous is None else _kept(previous, ruleset, killed, changed)
    if previous is not None and changed is not None:
        marked = _Marked(dict(previous.splitting), dict(previous.needing))
        for key in changed:
            for kind in marked:
                kind.pop(key, None)
            if key in ruleset.flags:
                marked.mark(key, ruleset.flags[key])
        return CompiledRuleset(ruleset, marked, killed, answers)
    marked = _Marked({}, {})
    for number, (key, flag) in enumerate(ruleset.flags.items()):
        marked.mark(key, flag)
        if pause is not None and number % _SLICE == _SLICE - 1:
            pause()
    return CompiledRuleset(ruleset, marked, killed, answers)


def apply_patch(ruleset: Ruleset, patch: Patch) -> Ruleset | None:
    """Return the ruleset after a patch; None when the patch is not for this edition or has an unknown schema."""
    fits = (patch.base, patch.base_edition) == (ruleset.revision, ruleset.edition)
    if patch.schema not in SCHEMAS or not fits or patch.revision <= patch.base:
        return None
    return msgspec.structs.replace(
        ruleset,
        schema=patch.schema,
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


def _kept(
    previous: CompiledRuleset, ruleset: Ruleset, killed: frozenset[str], changed: Collection[str] | None
) -> dict[str, _Answer]:
    """Return the closures of the flags that are what they were, and are answered as they were."""
    if previous.ruleset.cohorts is not ruleset.cohorts or previous.killed != killed:
        return {}
    kept = previous.answers.copy()  # at once: other threads add to it
    if changed is None:
        changed = [key for key in kept if ruleset.flags.get(key) is not previous.flags.get(key)]
    for key in changed:
        kept.pop(key, None)
    return kept


def _rollouts(key: str, flag: RulesetFlag) -> tuple[RolloutRule, ...]:
    """Return the rollouts of a flag that does not contradict itself."""
    variants, rollouts = flag.variants, _NONE
    if flag.default_variant not in variants:
        raise RulesetError(f"flags.{key}.default_variant", missing(flag.default_variant))
    if flag.released is not None and flag.released not in variants:
        raise RulesetError(f"flags.{key}.released", missing(flag.released))
    for variant in flag.overrides.values() if flag.overrides else ():
        if variant not in variants:
            raise RulesetError(f"flags.{key}.overrides", missing(variant))  # without the unit: errors are logged
    for rule in flag.rules:
        if rule.__class__ is Serve and rule.variant in variants:
            continue  # so are most rules of many flags
        wrong = contradiction(rule, variants)
        if wrong is not None:
            raise RulesetError(f"flags.{key}.rules[{flag.rules.index(rule)}].{wrong[0]}", wrong[1])
        if rule.__class__ is RolloutRule:
            rollouts = (*rollouts, rule)
    return rollouts


def _compile(site: Site, killed: bool) -> _Answer:
    flag = site.flag
    if killed:
        return constant(site, flag.default_variant, "DISABLED")
    released = flag.default_variant if flag.released is None else flag.released
    answer: _Answer = constant(site, released, "DEFAULT" if flag.rules else "STATIC")
    if flag.rules:
        answer = compile_rules(flag.rules, site, answer)
    if flag.pins:
        answer = _after_pin(site, answer)
    if flag.overrides:
        answer = _after_override(site, answer)
    if flag.prerequisites:
        answer = _after_prerequisites(site, answer)
    return answer


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
    readers = [unit_reader(name) for name in dict.fromkeys(("targeting_key", *units))]

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
    unmet = constant(site, site.flag.default_variant if site.flag.released is None else site.flag.released, "DEFAULT")

    def prerequisites(context: Context, now: CompiledRuleset, lapsed: Lapsed, slot: int) -> Evaluation:
        if key in now.unmet or not all(_met(one, context, now, lapsed) for one in required):
            return unmet(context, now, lapsed, slot)
        return otherwise(context, now, lapsed, slot)

    return prerequisites


def _met(one: Prerequisite, context: Context, now: CompiledRuleset, lapsed: Lapsed) -> bool:
    return one.flag in now.flags and now.answer(one.flag)(context, now, lapsed, 0).variant in one.variants


def _into_a_cycle(needing: Mapping[str, tuple[Prerequisite, ...]]) -> frozenset[str]:
    """Return the flags whose prerequisites lead into a cycle, by taking away those that can be answered first."""
    waiting = {key: {one.flag for one in prerequisites} for key, prerequisites in needing.items()}
    while True:
        ready = [key for key, needed in waiting.items() if needed.isdisjoint(waiting)]
        if not ready:
            return frozenset(waiting)
        for key in ready:
            del waiting[key]
