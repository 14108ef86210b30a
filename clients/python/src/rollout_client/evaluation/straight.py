"""Answers written out: a table of text leaves, then a constant, a split or a rollout, in one function without a loop.

The loop over a table, and a call for what comes after it, would cost a third of an evaluation. So the function is made
from its text, once for each number of leaves, as `dataclasses` and `namedtuple` make theirs. What a ruleset says is
bound to names; nothing of it gets into the text.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from functools import cache
from typing import Any

from mmh3 import mmh3_32_uintdigest

from rollout_client.evaluation.answer import Evaluation
from rollout_client.evaluation.bucketing import unit_text

Leaf = tuple[str, frozenset[str], Callable[[Any], bool], Callable[..., Evaluation]]
"""A text attribute, the texts that match, what to ask for another value than a text, and the answer of the rule."""
Leaves = tuple[Leaf, ...]

_MOST = 8
"""Leaves in one function; what is more is in others."""
_ALWAYS = {"Evaluation": Evaluation, "unit_text": unit_text,
           "bisect_right": bisect_right, "digest": mmh3_32_uintdigest}  # fmt: skip

_LEAF = """
        value = attributes.get(attribute{0})
        if value in texts{0} if type(value) is str else value is not None and matches{0}(value):
            return then{0}(context, now, lapsed, slot)"""

TABLE = """
        return otherwise(context, now, lapsed, slot)"""
"""The end of a table: `otherwise` answers."""
_NEXT = """
        return none"""

_UNIT = """
        unit = context.unit
        if not unit:
            return nobody(now)"""
_UNIT_OF = """
        who = unit_of(context)
        unit = unit_text(who)
        if not unit:
            return nobody(now)"""
_TWO = """
        nonlocal below, above
        if digest(prefix + unit) < end:
            if below.revision != now.revision:
                below = of_revision(below, now.revision)
            return below
        if above.revision != now.revision:
            above = of_revision(above, now.revision)
        return above"""
_MANY = """
        at = bisect_right(ends, digest(prefix + unit))
        answer = answers[at]
        if answer.revision != now.revision:
            answer = answers[at] = of_revision(answer, now.revision)
        return answer"""
_STALE = """
        if lapsed and lease in lapsed:
            return stale(now)"""
_UNVOUCHED = """
        if lapsed and None in lapsed:
            return unvouched(context, now, lapsed, slot)"""
_INSIDE = """
        if not low{0} <= digest(prefix{0} + unit) < high{0}:
            return outside(context, now, lapsed, slot)"""
_INSIDE_OF = """
        if not holds{0}(context, unit):
            return outside(context, now, lapsed, slot)"""
_ARMS = """
        if digest(prefix + unit) < end:
            return Evaluation(above, candidate, "SPLIT", None, now.revision, key, rollout, attempt, "candidate"{whose})
        return Evaluation(below, baseline, "SPLIT", None, now.revision, key, rollout, attempt, "baseline"{whose})"""


def split(variants: int, *, attribute: bool) -> str:
    """Return the end that splits between some variants; `attribute`: the unit is not the targeting key."""
    return (_UNIT_OF if attribute else _UNIT) + (_TWO if variants == 2 else _MANY)


def rollout(*, attribute: bool, leased: bool, evidence: bool, pinned: bool, slices: tuple[bool, ...] = ()) -> str:
    """Return the end that gives one of two arms, as `evidence` or not.

    What is no evidence with a lease that lapsed is the baseline; evidence without a lease, which nobody vouched for, is
    answered by `unvouched`. Whom one of the `slices` leaves out (true: it hashes another unit) is answered by
    `outside`, whatever has lapsed.
    """
    who, pin = "who" if attribute else "context._targeting_key", ", pin_of(context)" if pinned else ""
    whose = f", now.environment, {who}, slot{pin}" if evidence else ""
    watched = _STALE if leased else _UNVOUCHED if evidence else ""
    unit = _UNIT_OF if attribute else _UNIT
    inside = "".join((_INSIDE_OF if other else _INSIDE).format(at) for at, other in enumerate(slices))
    return (unit + inside + watched if slices else watched + unit) + _ARMS.format(whose=whose)


def straight(leaves: Leaves, text: str, **bound: Any) -> Callable[..., Evaluation]:
    """Return the function that answers as the first leaf that matches, else as `text` says.

    Args:
        leaves: asked in order.
        text: TABLE, or what `split` or `rollout` returned.
        bound: the values of the names in the text.
    """
    if len(leaves) > _MOST:
        parts_of = [straight(leaves[at : at + _MOST], _NEXT, none=None) for at in range(0, len(leaves), _MOST)]
        return _one_after_another(tuple(parts_of), straight((), text, **bound))
    parts = (part for leaf in leaves for part in leaf)
    return _maker(len(leaves), text, tuple(bound))(*parts, *bound.values())


def _one_after_another(
    tables: tuple[Callable[..., Any], ...], otherwise: Callable[..., Evaluation]
) -> Callable[..., Evaluation]:
    """Return the function that asks tables without an end in turn; one within the other, many would be too deep."""

    def answer(context: Any, now: Any, lapsed: Any, slot: int) -> Evaluation:
        for table in tables:
            found: Evaluation | None = table(context, now, lapsed, slot)
            if found is not None:
                return found
        return otherwise(context, now, lapsed, slot)

    return answer


@cache
def _maker(leaves: int, text: str, names: tuple[str, ...]) -> Callable[..., Callable[..., Evaluation]]:
    """Return the function that takes the parts of all leaves, then the values of the names, and returns an answer."""
    parts = [f"{part}{leaf}" for leaf in range(leaves) for part in ("attribute", "texts", "matches", "then")]
    whole = (
        f"def make({', '.join([*parts, *names])}):\n"
        "    def answer(context, now, lapsed, slot):"
        + ("\n        attributes = context.attributes" if leaves else "")
        + "".join(_LEAF.format(leaf) for leaf in range(leaves))
        + f"{text}\n"
        "    return answer\n"
    )
    made: dict[str, Any] = {}
    exec(compile(whole, f"<{leaves} leaves>", "exec"), dict(_ALWAYS), made)  # noqa: S102
    maker: Callable[..., Callable[..., Evaluation]] = made["make"]
    return maker
