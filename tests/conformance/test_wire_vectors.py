"""The golden vectors against their definition (decision record 0001), by libraries that share no code with ours."""

import json
import math
from pathlib import Path
from typing import Any

import cbor2
import mmh3

WIRE: dict[str, Any] = json.loads((Path(__file__).parent / "wire.json").read_text(encoding="utf-8"))


def murmur(document: list[str], seed: int) -> int:
    return int(mmh3.hash(cbor2.dumps(document, canonical=True), seed, signed=False))


def test_buckets_and_cells_are_murmur_of_canonical_cbor() -> None:
    for vector in WIRE["bucket"]:
        assert (murmur([vector["salt"], vector["unit"]], 0) * 100_000) >> 32 == vector["bucket"]
    for vector in WIRE["cell"]:
        assert murmur(["cell", vector["unit"]], 1) & 255 == vector["cell"]


def test_sketch_entries_are_the_high_bits_and_the_leading_zeros_of_the_rest() -> None:
    for vector in WIRE["sketch"]:
        hashed = mmh3.hash64(vector["unit"].encode(), 2, True, signed=False)[0]
        bits = f"{hashed:064b}"
        assert int(bits[:10], 2) == vector["register"]
        assert len(bits[10:]) - len(bits[10:].lstrip("0")) + 1 == vector["rank"]


def test_a_log_bucket_holds_the_values_between_its_edges() -> None:
    for vector in WIRE["histogram"]["log"]:
        bucket, value = vector["bucket"], vector["value"]
        if value < 1e-9:
            assert bucket == -1915
        else:
            assert 2 ** (bucket / 64) <= value < 2 ** ((bucket + 1) / 64)


def test_a_linear_bucket_is_a_thousandth_of_the_bounds() -> None:
    for vector in WIRE["histogram"]["linear"]:
        place = (vector["value"] - vector["low"]) / (vector["high"] - vector["low"])
        assert vector["bucket"] == min(999, math.floor(place * 1000))
