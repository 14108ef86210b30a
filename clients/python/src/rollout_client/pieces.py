"""Decodes a large ruleset in pieces, so that other threads run in between: a decoder holds them up until its end."""

from __future__ import annotations

from typing import Any

import msgspec

from rollout_client.evaluation.ruleset import Ruleset, RulesetFlag
from rollout_client.native import pause

_SLICE = 400
"""Flags that are decoded between two pauses."""
_FLAGS = msgspec.json.Decoder(list[RulesetFlag])
_Whole = msgspec.defstruct(
    "_Whole",
    [
        (field.encode_name, dict[str, msgspec.Raw], msgspec.field(default_factory=dict))
        if field.name == "flags"
        else (field.encode_name, msgspec.Raw, msgspec.Raw(b""))
        for field in msgspec.structs.fields(Ruleset)
    ],
)
_WHOLE = msgspec.json.Decoder(_Whole)


def decode(content: bytes, kind: type[Any]) -> Any:
    """Return a document, as `msgspec.json.decode(content, type=kind)` does.

    Raises:
        msgspec.DecodeError: it is none.
        UnicodeError: it is no text.
    """
    if kind is not Ruleset:
        return msgspec.json.decode(content, type=kind)
    try:
        return _ruleset(content)
    except msgspec.DecodeError:
        return msgspec.json.decode(content, type=Ruleset)  # which says where the fault is


def _ruleset(content: bytes) -> Ruleset:
    pause()
    whole: Any = _WHOLE.decode(content)  # nobody else runs meanwhile: five milliseconds for 10,000 flags
    pause()
    flags: dict[str, RulesetFlag] = {}
    keys, raws = list(whole.flags), list(whole.flags.values())
    for start in range(0, len(keys), _SLICE):
        piece = _FLAGS.decode(b"[%b]" % b",".join(raws[start : start + _SLICE]))
        flags.update(zip(keys[start : start + _SLICE], piece, strict=True))
        pause()
    rest = {field: raw for field, raw in msgspec.structs.asdict(whole).items() if field != "flags" and bytes(raw)}
    body = b",".join(b'"%b":%b' % (field.encode(), bytes(raw)) for field, raw in rest.items())
    small = msgspec.json.decode(b"{%b}" % body, type=Ruleset)
    return msgspec.structs.replace(small, flags=flags)
