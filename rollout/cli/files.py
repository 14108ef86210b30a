"""Documents in YAML files: read as YAML 1.2 (`on` and `off` are texts), checked, in the order they need."""

import json
import re
from collections.abc import Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, get_args

import msgspec
import yaml

from rollout.api.wording import worded
from rollout.domain.cohort import Cohort
from rollout.domain.document import key_problems
from rollout.domain.environment import Environment
from rollout.domain.expectation import Expectation
from rollout.domain.flag import Flag
from rollout.domain.metric import Metric
from rollout.domain.plan import Plan, RolloutDocument
from rollout_client.evaluation.ruleset import MetricKind
from rollout_client.evaluation.targeting import cohort_names

Authored = Environment | Cohort | Metric | Flag | Plan | RolloutDocument
ORDER: tuple[type[Any], ...] = (Environment, Cohort, Metric, Flag, Plan, RolloutDocument)
"""What may be referred to comes before what refers to it."""
METRICS: tuple[str, ...] = get_args(MetricKind)
KINDS: dict[str, type[Any]] = {
    "Environment": Environment,
    "Cohort": Cohort,
    "Flag": Flag,
    "Plan": Plan,
    "Rollout": RolloutDocument,
    "Expectation": Expectation,
    **dict.fromkeys(METRICS, Metric),
}


_BOOL, _INT, _FLOAT, _DATE = (f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "timestamp"))


class BadFile(Exception):
    """A file that cannot be applied; the message has the file, the document, the path and what to do."""


class _Loader(yaml.SafeLoader):
    """Safe YAML in which only true and false are booleans, dates are texts, and a key is not said twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping; refuses a key that is there twice, where YAML would silently keep the last."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is there twice; keep one", key_node.start_mark
                )
            seen.add(key if isinstance(key, str) else None)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, match) for tag, match in resolvers if tag not in (_BOOL, _INT, _FLOAT, _DATE)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NUMERIC = list("-+.0123456789")
_Loader.add_implicit_resolver(_BOOL, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(_INT, re.compile("^(?:[-+]?[0-9]{1,18}|0o[0-7]{1,20}|0x[0-9a-fA-F]{1,15})$"), _NUMERIC)
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    _NUMERIC,
)


def _integer(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """YAML 1.2's integers: 010 is ten, 0o10 is eight, 12:30 is a text."""
    text = loader.construct_scalar(node)
    return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_Loader.add_constructor(_INT, _integer)


def read(paths: Iterable[Path]) -> list[Authored]:
    """Every document of the files that can be saved, in the order in which they can; no expectation is.

    Raises:
        BadFile: a file, a kind or a field is wrong.
    """
    return ordered([each for each in read_all(paths) if not isinstance(each, Expectation)])


def read_all(paths: Iterable[Path]) -> list[Authored | Expectation]:
    """Every document of the files.

    Raises:
        BadFile: a file, a kind or a field is wrong.
    """
    found = [document for path in paths for document in _documents(path)]
    seen: set[tuple[type[Any], str]] = set()
    for document in found:
        if isinstance(document, RolloutDocument | Expectation):
            continue
        name = (type(document), document.key)
        if name in seen:
            raise BadFile(f"{name[0].__name__} {name[1]!r} is there twice; keep one of them")
        seen.add(name)
    return found


def ordered(found: Sequence[Authored]) -> list[Authored]:
    """By kind; cohorts and flags after those they name."""
    result: list[Authored] = []
    for kind in ORDER:
        these = [each for each in found if type(each) is kind]
        result += _by_reference(these) if kind in (Cohort, Flag) else these
    return result


def _documents(path: Path) -> list[Authored | Expectation]:
    try:
        text = path.read_text(encoding="utf-8")
        raw = [each for each in yaml.load_all(text, Loader=_Loader) if each is not None]
        json.dumps(raw, allow_nan=False, ensure_ascii=False).encode()
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise BadFile(f"{path}: is no YAML: {' '.join(str(error).split())}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise BadFile(f"{path}: has a value that no document can carry: {error}") from error
    if not raw:
        raise BadFile(f"{path}: has no document")
    return [_document(each, f"{path}, document {i}" if len(raw) > 1 else str(path)) for i, each in enumerate(raw, 1)]


def _document(raw: Any, where: str) -> Authored | Expectation:
    kind = raw.get("kind") if isinstance(raw, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(KINDS)
        raise BadFile(f"{where}: kind: {kind!r} is no kind of document; use one of {known}")
    try:
        converted: Authored | Expectation = msgspec.convert(raw, KINDS[kind])
    except msgspec.ValidationError as error:
        problem = worded(error, KINDS[kind])
        raise BadFile(f"{where}: {problem.path or 'document'}: {problem.message}") from error
    if not isinstance(converted, RolloutDocument | Expectation):
        for problem in key_problems(converted.key):  # it becomes part of an address
            raise BadFile(f"{where}: {problem.path}: {problem.message}")
    return converted


def _by_reference(found: Sequence[Any]) -> list[Authored]:
    by_key = {each.key: each for each in found}
    graph = {key: [name for name in _named(each) if name in by_key] for key, each in by_key.items()}
    try:
        return [by_key[key] for key in TopologicalSorter(graph).static_order()]
    except CycleError:
        return list(found)  # the service says which cycle it is, and where


def _named(document: Cohort | Flag) -> list[str]:
    if isinstance(document, Flag):
        return [required.flag for required in document.prerequisites]
    return cohort_names(document.when) if document.when is not None else []
