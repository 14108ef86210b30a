"""The golden vectors of the wire: the same file the service is tested with."""

import json
from pathlib import Path
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_client.evaluation import bucketing, histogram, sketch
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import compile_ruleset, evaluate
from rollout_client.evaluation.evidence import MetricIncrement
from rollout_client.evaluation.receipt import Receipt, decode_receipt, encode_receipt
from rollout_client.evaluation.ruleset import (
    BUCKETS,
    RolloutRule,
    Ruleset,
    RulesetFlag,
    RulesetMetric,
    Slice,
    Split,
)
from rollout_client.increments import add, measure

CONFORMANCE = Path(__file__).parents[3] / "tests" / "conformance"
VECTORS: dict[str, Any] = json.loads((CONFORMANCE / "wire.json").read_text(encoding="utf-8"))
FRACTIONAL: list[dict[str, Any]] = json.loads((CONFORMANCE / "flagd-fractional-vectors.json").read_text("utf-8"))
UNITS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=400)


@pytest.mark.parametrize("vector", VECTORS["bucket"], ids=lambda v: f"{v['salt']}-{v['unit'][:8]}")
def test_every_bucket_vector_falls_where_the_record_says(vector: dict[str, Any]) -> None:
    encoded = bucketing.cbor_prefix(vector["salt"]) + bucketing.cbor_text(vector["unit"])
    assert encoded.hex() == vector["cbor"]
    assert bucketing.bucket(vector["salt"], vector["unit"]) == vector["bucket"]


@pytest.mark.parametrize("vector", VECTORS["cell"], ids=lambda v: v["unit"][:8])
def test_every_cell_vector_falls_where_the_record_says(vector: dict[str, Any]) -> None:
    assert bucketing.cell(vector["unit"]) == vector["cell"]


@pytest.mark.parametrize("vector", VECTORS["sketch"], ids=lambda v: v["unit"][:8])
def test_every_sketch_vector_falls_where_the_record_says(vector: dict[str, Any]) -> None:
    assert bucketing.sketch_entry(vector["unit"]) == (vector["register"], vector["rank"])


def test_every_slice_vector_admits_as_the_record_says() -> None:
    for vector in VECTORS["slices"]:
        rule = RolloutRule(
            rollout="ro_1", attempt="at_1", baseline="a", candidate="b", threshold=vector["threshold"],
            slices=tuple(msgspec.convert(each, Slice) for each in vector["slices"]),
        )  # fmt: skip
        flag = RulesetFlag(variants={"a": 0, "b": 1}, default_variant="a", salt=vector["salt"], rules=(rule,))
        compiled = compile_ruleset(Ruleset(environment="e", revision=1, flags={"f": flag}))
        assert evaluate(compiled, "f", Context(vector["unit"])).arm == vector["arm"], vector


def test_every_histogram_vector_falls_where_the_record_says() -> None:
    for vector in VECTORS["histogram"]["log"]:
        assert histogram.log_bucket(vector["value"]) == vector["bucket"], vector
    for vector in VECTORS["histogram"]["linear"]:
        found = histogram.linear_bucket(vector["value"], vector["low"], vector["high"])
        assert found == vector["bucket"], vector


@pytest.mark.parametrize("vector", VECTORS["fold"], ids=lambda v: f"{v['metric']['kind']}-{len(v['cell'])}")
def test_every_fold_vector_adds_what_the_record_says(vector: dict[str, Any]) -> None:
    metric = msgspec.convert(vector["metric"], RulesetMetric)
    assert measure(metric, vector["value"]) == (vector["cell"], vector["bucket"])


def test_every_merge_vector_sums_as_the_record_says() -> None:
    for vector in VECTORS["merge"]:
        for one, other in (("a", "b"), ("b", "a")):
            increment = MetricIncrement()
            for numbers in (vector[one], vector[other]):
                add(increment, 7, list(numbers), None)
            assert increment.cells == {7: vector["sum"]}


@given(UNITS, UNITS)
def test_the_hashed_bytes_are_canonical_cbor(salt: str, unit: str) -> None:
    ours = bucketing.cbor_prefix(salt) + bucketing.cbor_text(unit)
    assert ours == cbor2.dumps([salt, unit], canonical=True)


@pytest.mark.parametrize("length", [0, 1, 23, 24, 255, 256, 65535, 65536])
def test_text_heads_are_canonical_at_every_width(length: int) -> None:
    assert bucketing.cbor_text("a" * length) == cbor2.dumps("a" * length, canonical=True)


@pytest.mark.parametrize("value", ["", None, 7, 1.5, True, b"user-1", ["user-1"], "\ud800", "user-\udfff"])
def test_what_is_not_a_text_is_no_unit(value: object) -> None:
    assert not bucketing.valid_unit(value)


def test_normal_forms_of_one_name_are_two_units() -> None:
    assert bucketing.bucket("salt", "é") != bucketing.bucket("salt", "e\u0301")


def test_the_pin_hash_is_seeded_canonical_cbor() -> None:
    import mmh3

    assert bucketing.pin_hash("conversation-1") == mmh3.hash(cbor2.dumps(["pin", "conversation-1"]), 3, signed=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1e-12, 1.0001e12])
def test_a_log_histogram_refuses_what_it_cannot_hold(value: float) -> None:
    with pytest.raises(ValueError, match=r"."):
        histogram.log_bucket(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.001, 1.001])
def test_a_linear_histogram_refuses_what_is_outside_its_bounds(value: float) -> None:
    with pytest.raises(ValueError, match=r"."):
        histogram.linear_bucket(value, 0, 1)


@given(st.floats(min_value=0, max_value=1e12))
def test_a_value_lies_within_the_edges_of_its_log_bucket(value: float) -> None:
    low, high = histogram.log_edges(histogram.log_bucket(value))
    assert low <= value < high


def test_the_lower_edge_of_every_log_bucket_belongs_to_it() -> None:
    for index in range(histogram.ZERO_BUCKET, histogram.HIGHEST_BUCKET + 1):
        assert histogram.log_bucket(histogram.log_edges(index)[0]) == index


@given(st.integers(0, 999))
def test_the_middle_of_a_linear_bucket_belongs_to_it(index: int) -> None:
    low, high = histogram.linear_edges(index, -1.0, 4.0)
    assert histogram.linear_bucket((low + high) / 2, -1.0, 4.0) == index


@pytest.mark.parametrize("distinct", [0, 1, 10, 700, 3_000, 100_000])
def test_the_sketch_counts_units_within_its_error(distinct: int) -> None:
    entries = (bucketing.sketch_entry(f"user-{number}") for number in range(distinct))
    assert sketch.estimate(sketch.absorb(sketch.EMPTY, entries)) == pytest.approx(distinct, rel=0.1, abs=0.5)


def test_merging_sketches_is_the_sketch_of_the_union() -> None:
    left = sketch.absorb(sketch.EMPTY, (bucketing.sketch_entry(f"user-{n}") for n in range(600)))
    right = sketch.absorb(sketch.EMPTY, (bucketing.sketch_entry(f"user-{n}") for n in range(400, 1_000)))
    both = sketch.absorb(sketch.EMPTY, (bucketing.sketch_entry(f"user-{n}") for n in range(1_000)))
    assert sketch.merge(left, right) == sketch.merge(right, left) == both


@pytest.mark.parametrize("entry", [(-1, 3), (1024, 3), (0, 0), (0, 56)])
def test_a_sketch_refuses_entries_that_cannot_be(entry: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no sketch entry"):
        sketch.absorb(sketch.EMPTY, [entry])


RECEIPT = Receipt("production", "support-answer", "ro_2", "at_9", "candidate", "v8", 29395000, 36, None)


def test_a_receipt_survives_its_text() -> None:
    text = encode_receipt(RECEIPT)
    assert text.startswith("r1.")
    assert "=" not in text
    assert decode_receipt(text) == RECEIPT


@pytest.mark.parametrize(
    "change",
    [
        {"cell": 256},
        {"cell": -1},
        {"slot": -1},
        {"arm": "control"},
        {"attempt": ""},
        {"pin": 1 << 32},
        {"variant": None},
    ],
)
def test_a_receipt_with_an_impossible_field_is_none(change: dict[str, Any]) -> None:
    forged = msgspec.structs.replace(RECEIPT, **change)
    assert decode_receipt(encode_receipt(forged)) is None


@given(st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.text().map(lambda text: "r1." + text)))
def test_any_text_that_is_no_receipt_is_none(text: object) -> None:
    assert decode_receipt(text) is None


@pytest.mark.parametrize("vector", FRACTIONAL, ids=lambda vector: f"{vector['flagKey']}-{vector['targetingKey'][:12]}")
def test_a_split_decides_as_the_third_generation_of_flagd_does(vector: dict[str, Any]) -> None:
    total = sum(weight for _, weight in vector["weights"])
    weights = tuple((name, weight * BUCKETS // total) for name, weight in vector["weights"])
    assert sum(width for _, width in weights) == BUCKETS
    flag = RulesetFlag(
        variants={name: name for name, _ in weights},
        default_variant=weights[0][0],
        salt=vector["flagKey"],
        rules=(Split(weights=weights),),
    )
    compiled = compile_ruleset(Ruleset(environment="e", revision=1, flags={"f": flag}))
    assert evaluate(compiled, "f", Context(vector["targetingKey"])).variant == vector["v3"]
