"""A cohort: a named group of units, by list, by rule, or both."""

from collections.abc import Mapping
from typing import Literal

from rollout.domain.document import Document, Problem, key_problems
from rollout_client.evaluation.authoring import condition_problems
from rollout_client.evaluation.targeting import Condition, cohort_names


class Cohort(Document, frozen=True, kw_only=True):
    """An authored cohort; a unit belongs to it when it is listed or the rule matches its context."""

    key: str
    kind: Literal["Cohort"] = "Cohort"
    description: str = ""
    units: tuple[str, ...] = ()
    when: Condition | None = None


def cohort_problems(cohort: Cohort, others: Mapping[str, Cohort]) -> list[Problem]:
    """Problems of the cohort itself and of the cohorts its rule names (which must exist, without a cycle)."""
    problems = key_problems(cohort.key)
    if not cohort.units and cohort.when is None:
        problems.append(Problem("units", "an empty cohort admits nobody; list units or give a rule in 'when'"))
    problems += [
        Problem(f"units[{i}]", "a unit is a non-empty text; remove the empty one")
        for i, unit in enumerate(cohort.units)
        if not unit
    ]
    if cohort.when is not None:
        problems += [Problem(path, message) for path, message in condition_problems(cohort.when, "when")]
        named = set(cohort_names(cohort.when))
        problems += [
            Problem("when", f"there is no cohort {name!r}; create it first or correct the name")
            for name in sorted(named)
            if name != cohort.key and name not in others
        ]
        if _reaches(cohort.key, named, others):
            problems.append(Problem("when", f"cohort {cohort.key!r} would contain itself; break the cycle"))
    return problems


def _reaches(key: str, names: set[str], others: Mapping[str, Cohort]) -> bool:
    seen: set[str] = set()
    while names:
        name = names.pop()
        if name == key:
            return True
        inner = others.get(name)
        if name not in seen and inner is not None and inner.when is not None:
            names |= set(cohort_names(inner.when))
        seen.add(name)
    return False
