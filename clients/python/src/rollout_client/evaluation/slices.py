"""The slices of a rule: which units take part in it at all, before anything is randomised.

A slice hashes the unit under a salt of its own, so where a unit lies in it says nothing about the arm it draws: inside,
every threshold keeps its share, and a slice that shrinks takes units away from both arms alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mmh3 import mmh3_32_uintdigest

from rollout_client.evaluation.bucketing import cbor_prefix, hashes_below, unit_text
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.ruleset import RolloutRule
from rollout_client.evaluation.targeting import UNIT_ATTRIBUTE, unit_reader


class Window(NamedTuple):
    """A slice as hashes: those after `prefix` from `low` on and below `high`. `unit_of` None: the rule's own unit."""

    prefix: bytes
    low: int
    high: int
    unit_of: Callable[[Context], Any] | None

    def holds(self, context: Context, unit: bytes) -> bool:
        """Whether a unit lies inside; `unit` is the canonical CBOR of the rule's own.

        A context without the other unit that a slice asks for cannot be placed, and is outside.
        """
        if self.unit_of is not None:
            unit = unit_text(self.unit_of(context))
        return bool(unit) and bool(self.low <= mmh3_32_uintdigest(self.prefix + unit) < self.high)


def windows(rule: RolloutRule) -> tuple[Window, ...]:
    """Return the slices of a rule, ready to be asked; a unit takes part when all of them hold it."""
    own = (None, rule.unit or UNIT_ATTRIBUTE)
    return tuple(
        Window(
            cbor_prefix(each.salt),
            hashes_below(each.start),
            hashes_below(each.end),
            None if each.unit in own else unit_reader(each.unit or UNIT_ATTRIBUTE),
        )
        for each in rule.slices
    )
