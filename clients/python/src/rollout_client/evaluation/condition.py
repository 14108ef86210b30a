"""The condition of a rule or a cohort, as it is authored and as it travels; `targeting` says what it means."""

from __future__ import annotations

from typing import Any

import msgspec

DEEPEST = 24
"""Levels of nested conditions and cohorts; deeper ones never match."""


class Condition(msgspec.Struct, frozen=True, kw_only=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """One condition in exactly one of the forms of `targeting`.

    A field that is not known refuses the document that holds it. This is the one wire struct that does: a condition
    whose unknown half is ignored would admit more units.
    """

    attribute: str | None = None
    op: str | None = None
    values: tuple[Any, ...] = ()
    all: tuple[Condition, ...] | None = None
    any: tuple[Condition, ...] | None = None
    not_: Condition | None = msgspec.field(default=None, name="not")
    cohort: str | None = None


def forms(condition: Condition) -> list[str]:
    """Return the forms a condition has; a readable one has exactly one."""
    attribute = condition.attribute is not None or condition.op is not None or bool(condition.values)
    present = {
        "attribute": attribute,
        "all": condition.all is not None,
        "any": condition.any is not None,
        "not": condition.not_ is not None,
        "cohort": condition.cohort is not None,
    }
    return [form for form, there in present.items() if there]
