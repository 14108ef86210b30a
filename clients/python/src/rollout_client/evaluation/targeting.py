"""Conditions: who a rule is for. This docstring is the operator table; `tests/test_targeting.py` tests every row.

A condition has exactly one form:

- `{"attribute": A, "op": OP, "values": [...]}`: the value of an attribute
- `{"all": [...]}`, `{"any": [...]}`, `{"not": {...}}`: and, or, not; `all` and `any` need at least one member
- `{"cohort": NAME}`: the unit is listed in the cohort, or the cohort's own condition holds. A listed unit
  is compared with the targeting key and with the attribute that the rule randomises.

**Reading the attribute.** `targeting_key` is the unit of the context. Otherwise the exact key is tried
first ("a.b"), then the path through nested mappings ("a", then "b").

**`values` is always a list and means any of them**; for `not_in` and `not_equals`, none of them; for
`includes_all`, all.

| op | attribute | matches when |
|---|---|---|
| in, equals | text, number, boolean | it equals a value of its own type; `equals` is `in`, for one value |
| not_in, not_equals | text, number, boolean | it is there and equals none |
| less_than, at_most, greater_than, at_least | number | it compares so with a value |
| contains, starts_with, ends_with | text | a value is in it, begins it, ends it |
| matches | text | an RE2 expression is found in it (search; anchor with ^ and $) |
| semver_equals, semver_less_than, semver_at_most | text | semver 2.0 precedence |
| semver_greater_than, semver_at_least | text | the same |
| before, after | RFC 3339 text, epoch ms, aware datetime | it is earlier, later than a value |
| exists | anything | it is there and not null; `values` stays empty |
| includes_all | array | every value equals one of its elements |

| attribute value | what happens |
|---|---|
| missing, null | no operator matches: `not_in`, `not_equals` and `exists` neither |
| text, number, boolean | types are strict: 8 never equals "8", true never equals 1, and `not_equals` is then true |
| int and float | compare as numbers: 1 equals 1.0, and large integers keep every digit |
| NaN, infinities | no operator matches but `exists`, `not_in` and `not_equals` neither |
| array | matches if any element does; `not_in`, `not_equals` if none does, so an empty array matches those |
| element of an array | null, mappings, arrays within arrays, NaN: passed over |
| a single value with includes_all | is an array of one |
| mapping, bytes, other objects | no operator matches but `exists`, `not_in` and `not_equals` neither |
| text | code point by code point: no case folding, no Unicode normalisation, no trimming |
| text that is no semver ("v2.0.0", "02.0.0") | no semver operator matches |
| "2", "2.0", "2.0-rc.1" as semver | padded to 2.0.0 and 2.0.0-rc.1 |
| semver build metadata ("+exp") | ignored |
| text that is no RFC 3339 date, or one without a time zone | `before` and `after` do not match |

**What cannot be read admits nobody.** An unknown operator, a wrong value, no form or several, an unknown
cohort, a cohort that leads back to itself, or more than 24 levels make the whole condition around them
False, through `not` as well: a newer service or a damaged document must not widen an audience.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from rollout_client.evaluation.bucketing import plain
from rollout_client.evaluation.condition import DEEPEST, Condition, forms
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.operators import OPERATORS, Operator, Test, comparable

__all__ = ["Cohort", "Condition", "cohort_names", "compile_condition", "reader"]

UNIT_ATTRIBUTE = "targeting_key"

Predicate = Callable[[Context], bool]
_EQUALITY = frozenset({"in", "equals", "not_in", "not_equals"})
_ARRAYS = (list, tuple, set, frozenset)


class Cohort(Protocol):
    """What targeting needs of a cohort: listed units, a condition, or both (either admits)."""

    @property
    def units(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def when(self) -> Condition | None: ...  # noqa: D102


class _Unreadable(Exception):
    """Raised inside a compilation only: the condition around it never matches."""


def compile_condition(
    condition: Condition, cohorts: Mapping[str, Cohort], unit: str | None = None
) -> Callable[[Context], bool]:
    """Return the closure that answers one condition; neither this function nor the closure ever raises.

    Args:
        condition: as authored or as it came over the wire.
        cohorts: by name, for the `cohort` form.
        unit: the attribute that the rule randomises, when it is not the targeting key.
    """
    try:
        return _Compiler(cohorts, unit).compile(condition, 0, ())
    except _Unreadable:
        return _never


class TextLeaf(NamedTuple):
    """The commonest condition, a text attribute among texts, as data: whoever asks looks it up without a call."""

    attribute: str
    texts: frozenset[str]
    otherwise: Test
    """What to ask for a value that is no text; never raises."""


def text_leaf(condition: Condition) -> TextLeaf | None:
    """Return a condition as a `TextLeaf` when it is one: `in` or `equals` on an attribute that is no path."""
    attribute, operator = condition.attribute, OPERATORS.get(condition.op or "")
    if attribute is None or operator is None or len(forms(condition)) != 1 or not condition.values:
        return None
    if condition.op not in ("in", "equals") or "." in attribute or attribute == UNIT_ATTRIBUTE:
        return None
    try:
        operands = [operator.operand(value) for value in condition.values]
    except (ValueError, OverflowError, RecursionError):
        return None
    texts = frozenset(operand for operand in operands if isinstance(operand, str))
    return TextLeaf(sys.intern(attribute), texts, _guarded_test(_any_or_none(operator, operands)))


def reader(attribute: str) -> Callable[[Context], Any]:
    """Return the function that reads an attribute from a context: exact key, then dotted path; None when missing."""
    if attribute == UNIT_ATTRIBUTE:
        return lambda context: context.targeting_key
    if "." not in attribute:
        return lambda context: context.attributes.get(attribute)
    path = attribute.split(".")

    def nested(context: Context) -> Any:
        value: Any = context.attributes
        if attribute in value:
            return value[attribute]
        for key in path:
            if not isinstance(value, Mapping):
                return None
            value = value.get(key)
        return value

    return nested


def unit_reader(attribute: str) -> Callable[[Context], Any]:
    """Return the function that reads who is randomised: a text is nothing more than a text."""
    if attribute == UNIT_ATTRIBUTE:
        return reader(attribute)
    read = reader(attribute)
    return lambda context: plain(read(context))


def cohort_names(condition: Condition) -> list[str]:
    """Return the cohorts a condition names, in order."""
    named: list[str] = []
    pending = [condition]
    while pending:
        current = pending.pop(0)
        if current.cohort is not None:
            named.append(current.cohort)
        pending.extend((*(current.all or ()), *(current.any or ()), *((current.not_,) if current.not_ else ())))
    return named


class _Compiler:
    """Compiles one condition; holds what does not change on the way down."""

    def __init__(self, cohorts: Mapping[str, Cohort], unit: str | None) -> None:
        self._cohorts = cohorts
        self._unit = unit

    def compile(self, condition: Condition, depth: int, inside: tuple[str, ...]) -> Predicate:
        if depth > DEEPEST or len(forms(condition)) != 1:
            raise _Unreadable
        if condition.attribute is not None:
            return _leaf(condition.attribute, condition.op, condition.values)
        if condition.cohort is not None:
            return self._cohort(condition.cohort, depth, inside)
        if condition.not_ is not None:
            inner = self.compile(condition.not_, depth + 1, inside)
            return lambda context: not inner(context)
        members = condition.all if condition.all is not None else condition.any
        tests = tuple(self.compile(member, depth + 1, inside) for member in members or ())
        if not tests:
            raise _Unreadable
        if len(tests) == 1:
            return tests[0]
        return _every(tests) if condition.all is not None else _some(tests)

    def _cohort(self, name: str, depth: int, inside: tuple[str, ...]) -> Predicate:
        if name in inside or name not in self._cohorts:
            raise _Unreadable
        cohort = self._cohorts[name]
        when = None if cohort.when is None else self.compile(cohort.when, depth + 1, (*inside, name))
        units = frozenset(cohort.units)
        read = None if self._unit is None else unit_reader(self._unit)

        def member(context: Context) -> bool:
            key: Any = context.targeting_key
            if isinstance(key, str) and key in units:
                return True
            if read is not None:
                key = read(context)
                if isinstance(key, str) and key in units:
                    return True
            return when is not None and when(context)

        return member


def _never(_: Context) -> bool:
    return False


def _every(tests: tuple[Predicate, ...]) -> Predicate:
    def every(context: Context) -> bool:
        for test in tests:  # noqa: SIM110 (a loop: half the cost of all() over a generator)
            if not test(context):
                return False
        return True

    return every


def _some(tests: tuple[Predicate, ...]) -> Predicate:
    def some(context: Context) -> bool:
        for test in tests:  # noqa: SIM110
            if test(context):
                return True
        return False

    return some


def _leaf(attribute: str, op: str | None, values: tuple[Any, ...]) -> Predicate:
    read = reader(attribute)
    if op == "exists":
        if values:
            raise _Unreadable
        return _guarded(read, lambda value: value is not None)
    operator = OPERATORS.get(op or "")
    if operator is None or not values:
        raise _Unreadable
    try:
        operands = [operator.operand(value) for value in values]
    except (ValueError, OverflowError, RecursionError):
        raise _Unreadable from None
    if op == "includes_all":
        return _guarded(read, _includes_all(operands))
    if op in _EQUALITY and "." not in attribute and attribute != UNIT_ATTRIBUTE:
        texts = frozenset(operand for operand in operands if isinstance(operand, str))
        return _text_leaf(attribute, texts, not operator.negative, _any_or_none(operator, operands))
    return _guarded(read, _any_or_none(operator, operands))


def _text_leaf(attribute: str, texts: frozenset[str], wanted: bool, otherwise: Test) -> Predicate:
    """Return the closure of the commonest leaf, a text attribute among texts, at the cost of one look-up."""

    def text_leaf(context: Context) -> bool:
        value = context.attributes.get(attribute)
        if type(value) is str:
            return (value in texts) is wanted
        try:
            return otherwise(value)
        except Exception:
            return False

    return text_leaf


def _any_or_none(operator: Operator, operands: list[Any]) -> Test:
    test = operator.test(operands)
    return _none_of(test) if operator.negative else _any_of(test)


def _guarded(read: Callable[[Context], Any], test: Test) -> Predicate:
    """Return the closure of one leaf. An object with a hostile `__eq__` or a huge integer must not reach the caller."""

    def leaf(context: Context) -> bool:
        try:
            return test(read(context))
        except Exception:
            return False

    return leaf


def _guarded_test(test: Test) -> Test:
    def guarded(value: Any) -> bool:
        try:
            return test(value)
        except Exception:
            return False

    return guarded


def _any_of(test: Test) -> Test:
    def any_of(value: Any) -> bool:
        if isinstance(value, _ARRAYS):
            return any(test(element) for element in value)
        return value is not None and test(value)

    return any_of


def _none_of(test: Test) -> Test:
    def none_of(value: Any) -> bool:
        if isinstance(value, _ARRAYS):
            return not any(test(element) for element in value)
        return comparable(value) and not test(value)

    return none_of


def _includes_all(operands: list[Any]) -> Test:
    tests = [OPERATORS["equals"].test([operand]) for operand in operands]

    def includes_all(value: Any) -> bool:
        elements = value if isinstance(value, _ARRAYS) else (value,)
        return all(any(test(element) for element in elements) for test in tests)

    return includes_all
