"""What a decoding error leaves unsaid: what may be written at the place it names. Derived from the document's type."""

import re
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from rollout.domain.document import Problem, problem_of
from rollout.domain.plan import MaxRegression

_STEP = re.compile(r"[^.\[\]]+|\[[^\]]*\]")
_SHORT = {MaxRegression: "{absolute: 0.05} or {relative: 0.1}"}
"""How an object is written whose fields alone would not tell."""


def worded(error: msgspec.ValidationError, document: Any) -> Problem:
    """The problem of a decoding error, with what may be written there instead; `document` is the type wanted."""
    problem = problem_of(error)
    if not problem.message.startswith(("Invalid enum value", "Expected ")):
        return problem
    wanted = _alternatives(_at(document, problem.path))
    values = [value for each in wanted if get_origin(each) is Literal for value in get_args(each)]
    short = [_SHORT[each] for each in wanted if each in _SHORT]
    allowed = short or [str(value) for value in values]
    if not allowed:
        return problem
    said = " or ".join(allowed) if len(allowed) < 3 else f"one of {', '.join(allowed)}"
    return Problem(problem.path, f"{problem.message}; write {said}")


def _at(document: Any, path: str) -> Any:
    """The type at a path such as `stages[1].approval`; None where the types do not say."""
    found = document
    for step in _STEP.findall(path):
        found = next(
            (each for each in (_member(kind, step) for kind in _alternatives(found)) if each is not None), None
        )
    return found


def _member(kind: Any, step: str) -> Any:
    if step.startswith("["):
        arguments = get_args(kind)
        place = 1 if get_origin(kind) is dict else 0
        return arguments[place] if place < len(arguments) else None
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return get_type_hints(kind).get(step)
    return None


def _alternatives(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone."""
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
