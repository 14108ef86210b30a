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


def test_a_cell_adds_what_the_record_says() -> None:
    for vector in WIRE["fold"]:
        metric, value, cell = vector["metric"], vector["value"], vector["cell"]
        cap, thresholds = metric.get("cap"), metric.get("thresholds", [])
        worse = [v < value or v == value for v in thresholds]
        if metric.get("direction") == "higher_is_better":
            worse = [not each for each in worse]
        if metric["kind"] == "proportion":
            assert cell == [1, value]
        elif metric["kind"] == "quantile":
            assert cell == ([1, 1, *worse] if thresholds else [1])
        elif cap is None:
            assert cell == [1, value, value**2]
        else:
            least = min(value, cap)
            assert cell == [1, value, value**2, 1, least, least**2, *worse]


def test_frozen_thresholds_go_from_mild_to_extreme() -> None:
    for vector in WIRE["fold"]:
        thresholds = vector["metric"].get("thresholds", [])
        lower = vector["metric"].get("direction", "lower_is_better") == "lower_is_better"
        assert thresholds == sorted(thresholds, reverse=not lower)


def test_short_and_long_cells_merge_by_position() -> None:
    for vector in WIRE["merge"]:
        width = max(len(vector["a"]), len(vector["b"]))
        padded = [[*each, *[0] * (width - len(each))] for each in (vector["a"], vector["b"])]
        assert vector["sum"] == [sum(pair) for pair in zip(*padded, strict=True)]


def test_a_linear_bucket_is_a_thousandth_of_the_bounds() -> None:
    for vector in WIRE["histogram"]["linear"]:
        place = (vector["value"] - vector["low"]) / (vector["high"] - vector["low"])
        assert vector["bucket"] == min(999, math.floor(place * 1000))


def test_a_unit_outside_a_slice_is_in_neither_arm() -> None:
    for vector in WIRE["slices"]:
        unit, slices = vector["unit"], vector["slices"]
        buckets = [murmur([each["salt"], unit], 0) * 100_000 >> 32 for each in slices]
        inside = all(each["start"] <= bucket < each["end"] for each, bucket in zip(slices, buckets, strict=True))
        below = murmur([vector["salt"], unit], 0) * 100_000 >> 32 < vector["threshold"]
        assert vector["arm"] == (("candidate" if below else "baseline") if inside else None)
