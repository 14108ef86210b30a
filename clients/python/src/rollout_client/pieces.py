"""Decodes a large ruleset in pieces, so that other threads run in between: a decoder holds them up until its end."""

from __future__ import annotations

from typing import Any

import msgspec

from rollout_client.evaluation.ruleset import Ruleset, RulesetFlag

_Whole = msgspec.defstruct(
    "_Whole",
    [
        (field.encode_name, dict[str, msgspec.Raw] if field.name == "flags" else msgspec.Raw, msgspec.Raw(b""))
        for field in msgspec.structs.fields(Ruleset)
    ],
)


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
    whole: Any = msgspec.json.decode(content, type=_Whole)
    flags = {key: msgspec.json.decode(raw, type=RulesetFlag) for key, raw in whole.flags.items()}
    rest = {field: raw for field, raw in msgspec.structs.asdict(whole).items() if field != "flags" and bytes(raw)}
    body = b",".join(b'"%b":%b' % (field.encode(), bytes(raw)) for field, raw in rest.items())
    small = msgspec.json.decode(b"{%b}" % body, type=Ruleset)
    return msgspec.structs.replace(small, flags=flags)
