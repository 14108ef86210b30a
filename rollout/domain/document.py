"""What every authored document has in common: strict structs, problems with a path, canonical bytes, durations."""

import hashlib
import re
from datetime import timedelta
from typing import Annotated, Any

import msgspec

KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", re.ASCII)
LONGEST_DURATION = timedelta(days=3660)
Why = Annotated[str, msgspec.Meta(max_length=2000)]
"""A person's reason. Some stay with a rollout, and each of its looks is recorded with them."""
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d|w)", re.ASCII)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


class Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A document as people write it: request body, JSON column and domain object at once."""


class Problem(msgspec.Struct, frozen=True):
    """One thing wrong with a document: where (`stages[1].percentage`), and what to do about it."""

    path: str
    message: str


def problem_of(error: msgspec.ValidationError) -> Problem:
    """The field path and sentence of a decoding error ("... - at `$.stages[1].percentage`")."""
    text = str(error)
    message, _, place = text.partition(" - at `")
    path = place.removeprefix("key` in `").removeprefix("$").rstrip("`").lstrip(".")
    unknown = re.search(r"unknown field `([^`]+)`", message)
    missing = re.search(r"missing required field `([^`]+)`", message)
    if unknown:
        path = _join(path, unknown[1])
        message = f"there is no field {unknown[1]!r} here; remove it or correct its name"
    elif missing:
        path = _join(path, missing[1])
        message = f"the field {missing[1]!r} is required; add it"
    return Problem(path, message)


def key_problems(key: str, path: str = "key") -> list[Problem]:
    """Keys travel in addresses and file names, so they are plain: letters, digits, dot, dash, underscore."""
    if KEY.fullmatch(key):
        return []
    return [Problem(path, f"{key!r} is no key: use 1 to 100 letters, digits, '.', '-' or '_', not at the ends")]


def duration(text: str) -> timedelta:
    """'90s', '30m', '24h', '14d', '2w', '250ms' as a time span.

    Raises:
        ValueError: the text is none of these.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no duration: write a number and one of ms, s, m, h, d, w, such as '30m'")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > LONGEST_DURATION.total_seconds():
        raise ValueError(f"{text!r} is longer than ten years; write a shorter duration")
    return timedelta(seconds=seconds)


def duration_problems(text: str | None, path: str) -> list[Problem]:
    """None is no duration and no problem."""
    if text is None:
        return []
    try:
        duration(text)
    except ValueError as error:
        return [Problem(path, str(error))]
    return []


def canonical(document: Any) -> bytes:
    """One spelling of a document: what is hashed, stored and compared."""
    return msgspec.json.encode(document, order="deterministic")


def same(one: Any, other: Any) -> bool:
    """Whether two documents are written the same; `==` would take 1, 1.0 and true for one value."""
    return canonical(one) == canonical(other)


def content_hash(document: Any) -> str:
    """SHA-256 of the canonical bytes; approvals bind to it."""
    return hashlib.sha256(canonical(document)).hexdigest()


def _join(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field
