"""What is wrong with an authored condition, said so that its author can repair it."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from rollout_client.evaluation.condition import DEEPEST, Condition, forms
from rollout_client.evaluation.operators import OPERATORS

_FORMS = '"attribute" with "op" and "values", "all", "any", "not" or "cohort"'


def condition_problems(condition: Condition, path: str) -> list[tuple[str, str]]:
    """Return (path, sentence that says what to do) for everything that would make a condition match nobody.

    Whether the cohorts it names exist is for whoever knows them.
    """
    return _problems(condition, path, 0)


def _problems(condition: Condition, path: str, depth: int) -> list[tuple[str, str]]:
    if depth > DEEPEST:
        return [(path, f"conditions may be nested {DEEPEST} levels deep; use cohorts or fewer levels")]
    found = forms(condition)
    if not found:
        return [(path, f"the condition is empty; give it {_FORMS}")]
    if len(found) > 1:
        named = " and ".join(f'"{form}"' for form in found)
        return [(path, f'the condition has {named} at once; use one, and "all" or "any" to combine several')]
    if condition.cohort is not None:
        return [] if condition.cohort else [(f"{path}.cohort", "name a cohort")]
    if condition.not_ is not None:
        return _problems(condition.not_, f"{path}.not", depth + 1)
    for form, members in (("all", condition.all), ("any", condition.any)):
        if members is not None:
            if not members:
                return [(f"{path}.{form}", f'"{form}" is empty; give at least one condition')]
            return [
                problem
                for index, member in enumerate(members)
                for problem in _problems(member, f"{path}.{form}[{index}]", depth + 1)
            ]
    return _leaf_problems(condition, path)


def _leaf_problems(condition: Condition, path: str) -> list[tuple[str, str]]:
    problems = []
    if not condition.attribute:
        problems.append((f"{path}.attribute", "name the attribute to look at"))
    op = condition.op
    if op == "exists":
        if condition.values:
            problems.append(
                (f"{path}.values", '"exists" takes no values; wrap it in "not" to ask for a missing attribute')
            )
    elif op is None or op not in OPERATORS:
        known = sorted((*OPERATORS, "exists"))
        near = get_close_matches(op or "", known, 1)
        said = f'did you mean "{near[0]}"?' if near else f"use one of {', '.join(known)}"
        what = "an operator is missing" if op is None else f'there is no operator "{op}"'
        problems.append((f"{path}.op", f"{what}; {said}"))
    elif not condition.values:
        problems.append((f"{path}.values", f'"{op}" needs at least one value'))
    else:
        problems.extend(_value_problems(op, condition.values, path))
    return problems


def _value_problems(op: str, values: tuple[Any, ...], path: str) -> list[tuple[str, str]]:
    problems = []
    for index, value in enumerate(values):
        try:
            OPERATORS[op].operand(value)
        except (ValueError, OverflowError) as error:
            problems.append((f"{path}.values[{index}]", str(error)))
    return problems
