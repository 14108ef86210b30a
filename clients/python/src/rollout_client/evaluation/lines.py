"""A ruleset as text, one flag on each line, so that a large one can be read and written a piece at a time.

A decoder holds up all threads until its end. JSON has no line break within a text, so what stands between two of them
is whole, and some lines of flags are an object by themselves. Any other layout is read as well, in one go.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rollout_client.evaluation.ruleset import Ruleset, RulesetFlag

_SLICE = 250
"""Flags between two pauses: about half a millisecond."""
_FLAGS = b'"flags":{'
_flags = msgspec.json.Decoder(dict[str, RulesetFlag])
_whole = msgspec.json.Decoder(Ruleset)


def encode(ruleset: Ruleset, pause: Callable[[], object] | None = None) -> bytes:
    """Return the JSON of a ruleset; `pause` is called every so many flags, to let other threads run."""
    head, tail = msgspec.json.encode(msgspec.structs.replace(ruleset, flags={})).split(_FLAGS, 1)
    lines = []
    for number, (key, flag) in enumerate(ruleset.flags.items()):
        lines.append(b"%b:%b" % (msgspec.json.encode(key), msgspec.json.encode(flag)))
        if pause is not None and number % _SLICE == _SLICE - 1:
            pause()
    return b"%b%b\n%b\n%b" % (head, _FLAGS, b",\n".join(lines), tail)


def decode(content: bytes, pause: Callable[[], object] | None = None) -> Ruleset:
    """Return the ruleset of a JSON text, as `msgspec.json.decode(content, type=Ruleset)` does.

    Raises:
        msgspec.DecodeError: it is none.
        UnicodeError: it is no text.
    """
    first, last = content.find(b"\n"), content.rfind(b"\n")
    if not content[: max(first, 0)].endswith(_FLAGS) or not content.startswith(b"}", last + 1):
        return _whole.decode(content)
    flags: dict[str, RulesetFlag] = {}
    try:
        at = first
        while at < last:
            end = _after_lines(content, at, last)
            piece = content[at + 1 : end]
            if piece.endswith(b",") is not (end < last):
                return _whole.decode(content)
            flags.update(_flags.decode(b"{%b}" % piece.removesuffix(b",")))
            at = end
            if pause is not None:
                pause()
        return msgspec.structs.replace(_whole.decode(content[:first] + content[last:]), flags=flags)
    except msgspec.DecodeError:  # other line breaks; or a fault, and the whole says where
        return _whole.decode(content)


def _after_lines(content: bytes, at: int, last: int) -> int:
    """Return the line break that is so many lines after another, or the last one."""
    for _ in range(_SLICE):
        at = content.find(b"\n", at + 1, last)
        if at < 0:
            return last
    return at
