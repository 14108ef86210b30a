"""Writes REFERENCE.md from the docstrings: `python -m clients.python.tests.reference`."""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

FILE = Path(__file__).parents[1] / "REFERENCE.md"
MODULES = ("rollout_client", "rollout_client.testing", "rollout_client.openfeature")
HEAD = """# Reference

Made from the docstrings; after a change of one: `python -m clients.python.tests.reference`.
"""
SECTION = re.compile(r"(Args|Raises|Attributes|Returns|Yields):")


def reference() -> str:
    """Return the text that the file must have."""
    parts, told = [HEAD], dict[Any, str]()
    for name in MODULES:
        module = importlib.import_module(name)
        parts.append(f"\n## {name}\n")
        if name != MODULES[0]:
            parts.append(f"\n{inspect.getdoc(module)}\n")
        for each in module.__all__:
            if not each.startswith("__"):
                parts.append("\n" + "\n".join(_entry(each, getattr(module, each), told)) + "\n")
    return "".join(parts)


def _entry(name: str, thing: Any, told: dict[Any, str]) -> Iterator[str]:
    yield f"### {name}\n"
    if not inspect.isclass(thing):
        if inspect.isfunction(thing):
            yield f"`{_signature(name, thing)}`\n\n{_text(thing)}"
        else:
            yield "One of " + ", ".join(f"`{each}`" for each in typing.get_args(thing)) + "."
        return
    yield f"`{_signature(name, thing)}`\n\n{_text(thing)}\n"
    same: dict[str, list[str]] = {}
    for each, member in _members(thing):
        if member in told:
            same.setdefault(told[member], []).append(f"`{each}`")
            continue
        told[member] = name
        shown = each if isinstance(member, property) else _signature(each, member)
        yield f"- **`{shown}`** {_text(member)}"
    for other, names in same.items():
        yield f"- {', '.join(names)}: as in `{other}`."


def _members(thing: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties, in the order of the source, the nearest class first."""
    seen = set()
    for kind in thing.__mro__:
        if kind.__module__.startswith("rollout_client"):
            for name, member in vars(kind).items():
                if not name.startswith("_") and isinstance(member, property | types.FunctionType) and name not in seen:
                    seen.add(name)
                    yield name, member


def _signature(name: str, thing: Any) -> str:
    if inspect.isclass(thing) and issubclass(thing, msgspec.Struct):
        return f"{name}({', '.join(_fields(thing))})"
    signature = inspect.signature(thing)
    parameters = [
        parameter.replace(default=_Written(parameter.default))
        if parameter.default is not inspect.Parameter.empty
        else parameter
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    returns = inspect.Signature.empty if inspect.isclass(thing) else signature.return_annotation
    written = str(signature.replace(parameters=parameters, return_annotation=returns))
    # Annotations are texts, but for those of modules that do not wait with reading them.
    written = re.sub(r"'([^']*)'(?=[,)\s=]|$)", r"\1", written).replace("rollout_client.", "")
    return f"{'async ' if inspect.iscoroutinefunction(thing) else ''}{name}{written}"


def _fields(thing: type[msgspec.Struct]) -> Iterator[str]:
    types_of = {name: text for kind in reversed(thing.__mro__) for name, text in inspect.get_annotations(kind).items()}
    if any(each.kind is each.KEYWORD_ONLY for each in inspect.signature(thing).parameters.values()):
        yield "*"
    for each in msgspec.structs.fields(thing):
        default = "" if each.required else f" = {_Written(each.default)!r}"
        yield f"{each.name}: {types_of[each.name]}{default}"


class _Written:
    """A default as a reader would write it, which is the same in every process."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __repr__(self) -> str:
        plain = isinstance(self._value, str | int | float | bytes | bool | tuple | types.NoneType)
        if plain or self._value in ({}, []):
            return repr(self._value)
        return getattr(self._value, "__name__", "...") if callable(self._value) else "..."


def _text(thing: Any) -> str:
    """The docstring as Markdown, a line for each paragraph; what a section lists follows its name."""
    text = inspect.getdoc(thing)
    if not text:
        raise ValueError(f"{thing} has no docstring")
    blocks = []
    for block in re.split(r"\n\n(?!    )", text):
        head, _, rest = block.partition("\n")
        if SECTION.fullmatch(head):
            listed = re.sub(r"^    (\w+): ", r"    \n`\1`: ", rest, flags=re.MULTILINE)
            blocks.append(f"*{head}* " + " ".join(listed.split()))
        elif block.startswith("```") or "\n    " in block or "|" in block:
            blocks.append(block)
        else:
            blocks.append(" ".join(block.split()))
    said = "\n\n".join(blocks)
    member = inspect.isfunction(thing) and "." in thing.__qualname__
    return indent(said) if member or isinstance(thing, property) else said


def indent(said: str) -> str:
    """Keep the paragraphs of a member within its list item."""
    return re.sub(r"\n(?=.)", "\n  ", said)


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
