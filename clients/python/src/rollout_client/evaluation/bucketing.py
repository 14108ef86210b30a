"""Where a unit falls: bucket, cell, sketch register and pin hash (decision record 0001, Hashes).

A unit is hashed as it is written: NFC and NFD forms are two units, and nothing is trimmed or converted.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import mmh3

from rollout_client.evaluation.evidence import CELLS, REGISTERS
from rollout_client.evaluation.ruleset import BUCKETS

BUCKET_SEED, CELL_SEED, SKETCH_SEED, PIN_SEED = 0, 1, 2, 3
_RANK_BITS = 64 - (REGISTERS.bit_length() - 1)
_LOW_BITS = (1 << _RANK_BITS) - 1


def _text_head(length: int) -> bytes:
    """Return the canonical (shortest) CBOR head of a text of `length` bytes: RFC 8949, 3.1 major type 3 and 4.2.1."""
    if length < 24:
        return bytes((0x60 + length,))
    for width, code in ((1, 0x78), (2, 0x79), (4, 0x7A)):
        if length < 1 << 8 * width:
            return bytes((code,)) + length.to_bytes(width, "big")
    return b"\x7b" + length.to_bytes(8, "big")  # pragma: no cover (four gigabytes)


_HEADS = tuple(_text_head(length) for length in range(256))


def cbor_prefix(first: str) -> bytes:
    """Return the CBOR of an array of two texts up to and including its first text."""
    encoded = first.encode()
    return b"\x82" + _text_head(len(encoded)) + encoded


def cbor_text(text: str) -> bytes:
    """Return the canonical CBOR of one text; UnicodeEncodeError on lone surrogates."""
    encoded = text.encode()
    length = len(encoded)
    return (_HEADS[length] if length < 256 else _text_head(length)) + encoded


_CELL_PREFIX = cbor_prefix("cell")
_CELL_HEADS = tuple(_CELL_PREFIX + head for head in _HEADS)
_PIN_PREFIX = cbor_prefix("pin")


def valid_unit(value: object) -> TypeGuard[str]:
    """Whether `value` can be randomised: a non-empty text without lone surrogates; numbers are refused."""
    if not isinstance(value, str) or not value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def bucket(salt: str, unit: str) -> int:
    """Return the position of a unit under a salt, 0 to 99,999; flagd's `fractional` arithmetic."""
    return bucket_after(cbor_prefix(salt), unit)


def bucket_after(prefix: bytes, unit: str) -> int:
    """Return the bucket of a unit when `cbor_prefix(salt)` is already there: what a compiled rule calls."""
    encoded = unit.encode()  # cbor_text, without its call
    length = len(encoded)
    head = _HEADS[length] if length < 256 else _text_head(length)
    position: int = mmh3.mmh3_32_uintdigest(prefix + head + encoded, BUCKET_SEED)
    return (position * BUCKETS) >> 32


def hashes_below(position: int) -> int:
    """Return how many hashes fall below a position: a hash is less than that if and only if its bucket is below."""
    return -(-(position << 32) // BUCKETS)


def plain(value: Any) -> Any:
    """Return a text as nothing more than a text: a subclass may compare, hash and print as it likes."""
    return str.__str__(value) if isinstance(value, str) and type(value) is not str else value


def unit_text(unit: object) -> bytes:
    """Return the canonical CBOR of a unit, empty for what `valid_unit` refuses."""
    if not isinstance(unit, str) or not unit:
        return b""
    try:
        encoded = unit.encode()
    except UnicodeEncodeError:
        return b""
    length = len(encoded)
    return (_HEADS[length] if length < 256 else _text_head(length)) + encoded


def cell(unit: str) -> int:
    """Return the cluster cell of a unit, 0 to 255; independent of every bucket."""
    encoded = unit.encode()  # cbor_text, without its call
    length = len(encoded)
    head = _CELL_HEADS[length] if length < 256 else _CELL_PREFIX + _text_head(length)
    position: int = mmh3.mmh3_32_uintdigest(head + encoded, CELL_SEED)
    return position & (CELLS - 1)


def sketch_entry(unit: str) -> tuple[int, int]:
    """Return (register 0 to 1023, rank 1 to 55): what a unit contributes to the HyperLogLog sketch of its arm."""
    hashed: int = mmh3.mmh3_x64_128_utupledigest(unit.encode(), SKETCH_SEED)[0]
    return hashed >> _RANK_BITS, _RANK_BITS - (hashed & _LOW_BITS).bit_length() + 1


def pin_hash(value: str) -> int:
    """Return the 32-bit hash that stands for a conversation in a receipt."""
    hashed: int = mmh3.mmh3_32_uintdigest(_PIN_PREFIX + cbor_text(value), PIN_SEED)
    return hashed
