"""What each targeting operator does with one attribute value; the table is in `targeting`.

An operator turns the authored values into operands once, and operands into one test that is asked for
every request. Tests are asked for text, numbers, booleans and dates only, and answer False for whatever
they do not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

Test = Callable[[Any], bool]
_REMEMBERED = 100
"""Characters; a longer text is read each time and never kept, whatever an application passes as a version or date."""


class Operator(NamedTuple):
    """`operand` reads one authored value or raises ValueError with what to do; `test` asks any-of over the operands."""

    operand: Callable[[Any], Any]
    test: Callable[[Sequence[Any]], Test]
    negative: bool = False


def comparable(value: object) -> bool:
    """Whether a value can be equal or unequal to anything: text, boolean, or a finite number."""
    return isinstance(value, (str, bool, int)) or (isinstance(value, float) and isfinite(value))


def is_number(value: object) -> bool:
    """Whether a value is a finite number; a boolean is none."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and isfinite(value))


def equality(operands: Sequence[Any]) -> Test:
    """Return the test for equality with any operand: text with text, number with number, boolean with boolean."""
    texts = frozenset(o for o in operands if isinstance(o, str))
    booleans = frozenset(o for o in operands if isinstance(o, bool))
    numbers = frozenset(o for o in operands if is_number(o))

    def equals_any(value: Any) -> bool:
        if isinstance(value, str):
            return value in texts
        if isinstance(value, bool):
            return value in booleans
        return isinstance(value, (int, float)) and value in numbers

    return equals_any


def _below(operands: Sequence[Any]) -> Test:
    limit = max(operands)
    return lambda value: is_number(value) and value < limit


def _at_most(operands: Sequence[Any]) -> Test:
    limit = max(operands)
    return lambda value: is_number(value) and value <= limit


def _above(operands: Sequence[Any]) -> Test:
    limit = min(operands)
    return lambda value: is_number(value) and value > limit


def _at_least(operands: Sequence[Any]) -> Test:
    limit = min(operands)
    return lambda value: is_number(value) and value >= limit


def _contains(operands: Sequence[Any]) -> Test:
    return lambda value: isinstance(value, str) and any(part in value for part in operands)


def _starts_with(operands: Sequence[Any]) -> Test:
    starts = tuple(operands)
    return lambda value: isinstance(value, str) and value.startswith(starts)


def _ends_with(operands: Sequence[Any]) -> Test:
    ends = tuple(operands)
    return lambda value: isinstance(value, str) and value.endswith(ends)


def _pattern(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("give a regular expression as text")
    import re2  # imported by the first ruleset that has a regular expression: it costs more than the whole evaluator

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(value, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        told = said.decode(errors="replace") if isinstance(said, bytes) else said
        raise ValueError(f"give an RE2 regular expression: {told}") from None


def _matches(operands: Sequence[Any]) -> Test:
    searches = tuple(pattern.search for pattern in operands)
    return lambda value: isinstance(value, str) and any(search(value) is not None for search in searches)


def parse_semver(text: str) -> Any:
    """Return the semver.Version of a text, "2" and "2.0" padded to 2.0.0, or None; a leading "v" is invalid."""
    return _read_semver(text) if len(text) <= _REMEMBERED else _read_semver.__wrapped__(text)


@lru_cache(maxsize=4096)
def _read_semver(text: str) -> Any:
    if not text.isascii():
        return None
    from semver import Version  # imported by the first ruleset that compares versions

    try:
        return Version.parse(text, optional_minor_and_patch=True)
    except ValueError:
        return None


def _version(value: Any) -> Any:
    version = parse_semver(value) if isinstance(value, str) else None
    if version is None:
        raise ValueError('give a semantic version such as "2.1.0" or "2.1.0-rc.1", without a leading "v"')
    return version


def _compares(accepts: Callable[[int], bool]) -> Callable[[Sequence[Any]], Test]:
    """Return the test maker for semver precedence (semver.org, item 11; build metadata is ignored)."""

    def make(operands: Sequence[Any]) -> Test:
        def test(value: Any) -> bool:
            version = parse_semver(value) if isinstance(value, str) else None
            return version is not None and any(accepts(version.compare(operand)) for operand in operands)

        return test

    return make


_RFC_3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _parse_date(text: str) -> int | None:
    return _read_date(text) if len(text) <= _REMEMBERED else _read_date.__wrapped__(text)


@lru_cache(maxsize=4096)
def _read_date(text: str) -> int | None:
    if _RFC_3339.fullmatch(text) is None:
        return None
    try:
        return (datetime.fromisoformat(text.upper()) - _EPOCH) // _MICROSECOND
    except ValueError:
        return None


def instant(value: Any) -> float | None:
    """Return microseconds since 1970 of RFC 3339 text, of epoch milliseconds or of an aware datetime; else None."""
    if isinstance(value, str):
        return _parse_date(value)
    if is_number(value):
        return float(value) * 1000.0
    if isinstance(value, datetime) and value.utcoffset() is not None:
        return (value - _EPOCH) // _MICROSECOND
    return None


def _date(value: Any) -> float:
    moment = instant(value)
    if moment is None:
        raise ValueError('give an RFC 3339 date with a time zone such as "2026-11-23T08:00:00Z", or epoch milliseconds')
    return moment


def _before(operands: Sequence[Any]) -> Test:
    limit = max(operands)

    def test(value: Any) -> bool:
        moment = instant(value)
        return moment is not None and moment < limit

    return test


def _after(operands: Sequence[Any]) -> Test:
    limit = min(operands)

    def test(value: Any) -> bool:
        moment = instant(value)
        return moment is not None and moment > limit

    return test


def _scalar(value: Any) -> Any:
    if not comparable(value):
        raise ValueError("give a text, a finite number or a boolean")
    return value


def _number(value: Any) -> Any:
    if not is_number(value):
        raise ValueError("give a finite number")
    return value


def _part(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("give a text that is not empty")
    return value


OPERATORS: dict[str, Operator] = {
    "in": Operator(_scalar, equality),
    "equals": Operator(_scalar, equality),
    "not_in": Operator(_scalar, equality, negative=True),
    "not_equals": Operator(_scalar, equality, negative=True),
    "includes_all": Operator(_scalar, equality),
    "less_than": Operator(_number, _below),
    "at_most": Operator(_number, _at_most),
    "greater_than": Operator(_number, _above),
    "at_least": Operator(_number, _at_least),
    "contains": Operator(_part, _contains),
    "starts_with": Operator(_part, _starts_with),
    "ends_with": Operator(_part, _ends_with),
    "matches": Operator(_pattern, _matches),
    "semver_equals": Operator(_version, _compares(lambda order: order == 0)),
    "semver_less_than": Operator(_version, _compares(lambda order: order < 0)),
    "semver_at_most": Operator(_version, _compares(lambda order: order <= 0)),
    "semver_greater_than": Operator(_version, _compares(lambda order: order > 0)),
    "semver_at_least": Operator(_version, _compares(lambda order: order >= 0)),
    "before": Operator(_date, _before),
    "after": Operator(_date, _after),
}
"""Every operator that has values, by name; `exists` has none and is known to `targeting` alone."""
