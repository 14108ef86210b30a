"""The receipt: what an exposure was, small enough to travel with a conversation (decision record 0001).

It names no user. It is not signed, so whoever decodes one checks its shape and believes no more than that.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from typing import Annotated

import msgspec

from rollout_client.evaluation.evidence import CELLS
from rollout_client.evaluation.ruleset import Arm

PREFIX = "r1."
LONGEST = 4096
"""Characters; a longer text is no receipt and is not decoded."""

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,100}\Z")]
_Slot = Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]
_Cell = Annotated[int, msgspec.Meta(ge=0, lt=CELLS)]
_Hash = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


class Receipt(msgspec.Struct, frozen=True, array_like=True):
    """One exposure. `slot` is its minute (unix seconds // 60), `pin` the hash of the conversation or None."""

    environment: _Name
    flag: _Name
    rollout: _Name
    attempt: _Name
    arm: Arm
    variant: _Name
    slot: _Slot
    cell: _Cell
    pin: _Hash | None


_TO_URL, _FROM_URL = bytes.maketrans(b"+/", b"-_"), bytes.maketrans(b"-_", b"+/")


def encode_receipt(receipt: Receipt) -> str:
    """Return `r1.` and the unpadded base64url of the receipt's JSON array."""
    body = b2a_base64(msgspec.json.encode(receipt), newline=False)
    return PREFIX + body.translate(_TO_URL).rstrip(b"=").decode()


def decode_receipt(text: object) -> Receipt | None:
    """Return the receipt a text carries, or None when it carries none: wrong prefix, alphabet, shape or ranges.

    A Receipt is checked like its text: it may have been made by hand.
    """
    if isinstance(text, Receipt):
        try:
            return msgspec.convert(msgspec.to_builtins(text), Receipt)
        except (ValueError, TypeError, RecursionError):
            return None
    if not isinstance(text, str) or not text.startswith(PREFIX) or len(text) > LONGEST:
        return None
    body = text[len(PREFIX) :]
    if not body.isascii() or "+" in body or "/" in body:  # base64url only
        return None
    padded = (body + "=" * (-len(body) % 4)).encode().translate(_FROM_URL)
    try:
        return msgspec.json.decode(a2b_base64(padded, strict_mode=True), type=Receipt)
    except (ValueError, RecursionError):  # binascii.Error and msgspec's errors are ValueErrors
        return None
