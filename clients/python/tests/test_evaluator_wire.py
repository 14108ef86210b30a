"""What travels: defaults and names of each document, receipts to the character, and the numbers all must share."""

import json
from binascii import b2a_base64
from typing import Any

import msgspec
import pytest

from clients.python.tests.answering import said
from rollout_client.evaluation import bucketing, evidence, histogram, lines, ruleset, sketch
from rollout_client.evaluation.answer import Evaluation
from rollout_client.evaluation.condition import Condition
from rollout_client.evaluation.context import NOBODY, Context
from rollout_client.evaluation.receipt import Receipt, decode_receipt, encode_receipt

SMALLEST: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (ruleset.Prerequisite, {"flag": "f", "variants": ["on"]}, {}),
    (ruleset.Serve, {"kind": "serve", "variant": "on"}, {"when": None}),
    (ruleset.Split, {"kind": "split", "weights": []}, {"when": None, "unit": None, "salt": None}),
    (ruleset.Slice, {"salt": "s", "start": 0, "end": 1}, {"unit": None}),
    (ruleset.Frozen, {}, {"thresholds": [], "cap": None}),
    (
        ruleset.RolloutRule,
        {"kind": "rollout", "rollout": "r", "baseline": "off", "candidate": "on", "threshold": 1},
        {"attempt": None, "when": None, "lease_ms": None, "unit": None, "pin": None, "salt": None, "metrics": [],
         "frozen": {}, "slices": []},
    ),
    (
        ruleset.RulesetFlag,
        {"variants": {}, "default_variant": "on", "salt": "s"},
        {"killed": False, "released": None, "prerequisites": [], "overrides": {}, "pins": {}, "rules": []},
    ),
    (ruleset.RulesetCohort, {}, {"units": [], "when": None}),
    (
        ruleset.RulesetMetric,
        {"kind": "mean"},
        {"direction": "lower_is_better", "denominator": "attempt", "bounds": None, "thresholds": [], "cap": None},
    ),
    (
        ruleset.Ruleset,
        {"environment": "e", "revision": 1},
        {"flags": {}, "cohorts": {}, "metrics": {}, "schema": 1, "algorithm": "murmur3-cbor-1", "edition": ""},
    ),
    (
        ruleset.Patch,
        {"base": 1, "revision": 2},
        {"flags": {}, "cohorts": {}, "metrics": {}, "schema": 1, "base_edition": "", "edition": ""},
    ),
    (ruleset.Heartbeat, {"revision": 1}, {"engine_age_ms": None, "edition": ""}),
    (
        evidence.Batch,
        {"batch_id": "b", "environment": "e", "process": "p", "client": "c"},
        {"attempts": {}, "dropped": {}, "alerts": [], "schema": 1},
    ),
    (evidence.BatchAnswer, {"batch_id": "b", "accepted": 2}, {"orphaned": 0}),
    (evidence.MetricIncrement, {}, {}),
    (evidence.SlotIncrement, {}, {}),
    (evidence.ArmIncrement, {}, {}),
    (evidence.Alert, {"flag": "f", "kind": "breaker_open", "at": 1.5}, {}),
    (Condition, {"attribute": "a", "op": "exists"}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "smallest", "defaults"), SMALLEST, ids=lambda each: getattr(each, "__name__", ""))
def test_what_is_left_out_of_a_document_is_known(kind: Any, smallest: dict[str, Any], defaults: dict[str, Any]) -> None:
    made = msgspec.convert(smallest, kind)
    assert json.loads(msgspec.json.encode(made)) == smallest | defaults
    assert msgspec.json.decode(msgspec.json.encode(made), type=kind) == made
    named = [
        value for name, value in smallest.items() if name != "kind" or kind in (evidence.Alert, ruleset.RulesetMetric)
    ]
    with pytest.raises(TypeError, match="positional"):
        kind(*(named or [{}]))


def test_a_field_nobody_knows_is_left_alone_but_in_a_condition() -> None:
    for kind, smallest, _ in SMALLEST:
        if kind is Condition:
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert({**smallest, "unless": 1}, kind)
        else:
            assert msgspec.convert({**smallest, "unless": 1}, kind) == msgspec.convert(smallest, kind)


@pytest.mark.parametrize("name", ["attribute", "op", "values", "all", "any", "not", "cohort"])
def test_a_condition_has_no_more_than_it_says(name: str) -> None:
    value: Any = {"values": [1], "all": [{}], "any": [{}], "not": {}}.get(name, "x")
    assert json.loads(msgspec.json.encode(msgspec.convert({name: value}, Condition))) == {name: value}


@pytest.mark.parametrize(
    ("field", "known"),
    [
        ("kind", ["proportion", "count_rate", "mean", "quantile", "distribution", "ratio"]),
        ("direction", ["lower_is_better", "higher_is_better"]),
        ("denominator", ["attempt", "exposure"]),
    ],
)
def test_the_words_of_a_metric_are_these(field: str, known: list[str]) -> None:
    for word in known:
        made = msgspec.convert({"kind": "mean", field: word}, ruleset.RulesetMetric)
        assert getattr(made, field) == word
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"kind": "mean", field: "x"}, ruleset.RulesetMetric)


def test_a_metric_is_measured_with_what_was_frozen() -> None:
    metric = ruleset.RulesetMetric(kind="mean", bounds=(0.0, 1.0))
    frozen = ruleset.Frozen(thresholds=(1.0, 2.0), cap=5.0)
    assert metric.measured(None) == metric
    measured = metric.measured(frozen)
    assert (measured.thresholds, measured.cap, measured.bounds) == ((1.0, 2.0), 5.0, (0.0, 1.0))


def test_an_increment_says_only_what_was_added() -> None:
    metric = evidence.MetricIncrement(cells={7: [1.0, 2.0]})
    slot = evidence.SlotIncrement(exposures={7: 2}, metrics={"m": metric, "n": evidence.MetricIncrement()})
    arm = evidence.ArmIncrement(sketch=[(3, 4)], slots={9: slot})
    slots = {"9": {"exposures": {"7": 2}, "metrics": {"m": {"cells": {"7": [1.0, 2.0]}}, "n": {}}}}
    assert json.loads(msgspec.json.encode(arm)) == {"sketch": [[3, 4]], "slots": slots}


@pytest.mark.parametrize("name", ["flag", "kind", "variant", "rollout", "attempt", "failure"])
def test_an_alert_takes_names_that_a_receipt_takes(name: str) -> None:
    plain = {"flag": "f", "kind": "k", "at": 1.0}
    least = msgspec.convert(plain, evidence.Alert)
    assert (least.variant, least.rollout, least.attempt, least.arm, least.failure) == (None,) * 5
    for good in ("a", "A.b_c-9", "x" * 100):
        assert getattr(msgspec.convert(plain | {name: good}, evidence.Alert), name) == good
    for wrong in ("", "x" * 101, "a b", "a\n", "é", "a/b"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(plain | {name: wrong}, evidence.Alert)


def test_only_the_answer_to_a_batch_acknowledges_it() -> None:
    answer = msgspec.json.encode(evidence.BatchAnswer(batch_id="b", accepted=1))
    assert evidence.acknowledges(answer, "b") is True
    for content in (answer.replace(b'"b"', b'"c"'), b"", b"<html>", b"[]", b'{"batch_id":"b"}', b"[" * 100_000):
        assert evidence.acknowledges(content, "b") is False
    assert evidence.MOST_ALERTS == 100


RECEIPT = Receipt("e", "f", "ro_1", "at_1", "candidate", "on", 29_395_000, 36, None)
TEXT = "r1.WyJlIiwiZiIsInJvXzEiLCJhdF8xIiwiY2FuZGlkYXRlIiwib24iLDI5Mzk1MDAwLDM2LG51bGxd"


def forged(text: str) -> str:
    """The receipt of a JSON text."""
    return "r1." + b2a_base64(text.encode(), newline=False).decode().translate({43: 45, 47: 95}).rstrip("=")


def test_a_receipt_has_one_text() -> None:
    assert (encode_receipt(RECEIPT), decode_receipt(TEXT), decode_receipt(RECEIPT)) == (TEXT, RECEIPT, RECEIPT)
    assert Context("u", receipt=TEXT).receipt == Context("u", receipt=RECEIPT).receipt == RECEIPT


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({"slot": 0}, True), ({"slot": (1 << 40) - 1}, True), ({"slot": 1 << 40}, False), ({"slot": -1}, False),
        ({"cell": 0}, True), ({"cell": 255}, True), ({"cell": 256}, False), ({"cell": -1}, False),
        ({"pin": 0}, True), ({"pin": (1 << 32) - 1}, True), ({"pin": 1 << 32}, False), ({"pin": -1}, False),
        ({"arm": "baseline"}, True), ({"arm": "control"}, False), ({"variant": None}, False),
        ({"flag": "x" * 100}, True), ({"flag": "x" * 101}, False), ({"flag": ""}, False), ({"flag": "a\n"}, False),
        ({"environment": "A.b_c-9"}, True), ({"environment": "é"}, False), ({"environment": "a b"}, False),
    ],
)  # fmt: skip
def test_a_receipt_holds_what_an_exposure_can_be(change: dict[str, Any], good: bool) -> None:
    receipt = msgspec.structs.replace(RECEIPT, **change)
    expected = receipt if good else None
    assert (decode_receipt(receipt), decode_receipt(encode_receipt(receipt))) == (expected, expected)


def test_a_receipt_made_by_hand_of_what_cannot_travel_is_none() -> None:
    circle: list[Any] = []
    circle.append(circle)
    for odd in (object(), circle, 1 << 70, "\ud800"):
        assert decode_receipt(msgspec.structs.replace(RECEIPT, variant=odd)) is None


def test_a_text_that_is_nearly_a_receipt_is_none() -> None:
    said = msgspec.json.encode(RECEIPT).decode()
    assert decode_receipt(forged(said)) == decode_receipt(forged(said + "  ")) == RECEIPT
    assert decode_receipt(forged(said[:-1] + ",1]")) == RECEIPT, "a newer writer may say more"
    for pad in range(3):
        assert decode_receipt(encode_receipt(msgspec.structs.replace(RECEIPT, flag="f" * (pad + 1)))) is not None
    long = forged(said.ljust(3069))
    assert (len(long), decode_receipt(long)) == (4095, RECEIPT)
    too_long = forged(said.ljust(3070))
    assert (len(too_long), decode_receipt(too_long)) == (4097, None)
    for odd in ("", "r1", "r1.", TEXT[3:], TEXT.upper(), "r2" + TEXT[2:], TEXT + "\ud800", TEXT[:-1] + "é", TEXT + "A",
                TEXT[:7] + "!!!!" + TEXT[7:], TEXT + "\n", TEXT.encode(), 7, None, forged("["),
                forged("[" * 3000), forged("{}")):  # fmt: skip
        assert decode_receipt(odd) is None


@pytest.mark.parametrize(("sign", "instead"), [("-", "+"), ("_", "/")])
def test_the_alphabet_of_a_receipt_is_that_of_addresses(sign: str, instead: str) -> None:
    more = {"-": ">>>", "_": "???"}[sign]
    text = forged(f'{msgspec.json.encode(RECEIPT).decode()[:-1]},"{more}"]')
    assert sign in text
    assert decode_receipt(text) == RECEIPT
    assert decode_receipt(text.replace(sign, instead)) is None


def test_an_answer_writes_its_receipt_only_when_it_is_evidence() -> None:
    whole = {"rollout": "ro_1", "attempt": "at_1", "arm": "candidate", "environment": "e", "unit": "u", "slot": 9}
    answer = said("on", "SPLIT", **whole)
    expected = Receipt("e", "f", "ro_1", "at_1", "candidate", "on", 9, bucketing.cell("u"), None)
    assert decode_receipt(answer.receipt) == expected
    for pin in ("t-1", bucketing.pin_hash("t-1")):
        pinned = decode_receipt(msgspec.structs.replace(answer, pin=pin).receipt)
        assert pinned == msgspec.structs.replace(expected, pin=bucketing.pin_hash("t-1"))
    for name in ("rollout", "attempt", "arm", "variant"):
        assert msgspec.structs.replace(answer, **{name: None}).receipt is None
    assert msgspec.structs.replace(answer, attempt=None, pinned=RECEIPT).receipt == TEXT


def test_an_answer_shows_all_but_its_unit() -> None:
    assert repr(Evaluation(0, "on", "STATIC", None, 3, "f")) == (
        "Evaluation(flag='f', value=0, variant='on', reason='STATIC', revision=3)"
    )
    whole = Evaluation(1, "on", "SPLIT", "GENERAL", 3, "f", "r", "a", "baseline", "e", "secret", 5, "secret", RECEIPT)
    assert repr(whole) == (
        "Evaluation(flag='f', value=1, variant='on', reason='SPLIT', error='GENERAL', revision=3, rollout='r', "
        "attempt='a', arm='baseline')"
    )
    plain = Evaluation(0, "on", "STATIC", None, 3, "f")
    assert (plain.rollout, plain.attempt, plain.arm, plain.pin, plain.pinned) == (None, None, None, None, None)
    assert (plain.environment, plain.unit, plain.slot) == ("", "", 0)


def test_a_context_is_what_it_was_given() -> None:
    assert (NOBODY.targeting_key, NOBODY.attributes, NOBODY.receipt, NOBODY.unit) == (None, {}, None, b"")
    assert Context("u", {"a": 1, "b": 1}, b=2).attributes == {"a": 1, "b": 2}
    assert Context("u", None, b=2).attributes == {"b": 2}
    assert repr(Context("u", {"a": 1}, b=2)) == "Context('u', {'a': 1, 'b': 2})"


@pytest.mark.parametrize("length", [1, 22, 23, 24, 25, 254, 255, 256, 257, 65_535, 65_536, 70_000])
def test_every_way_to_hash_a_unit_agrees_at_every_length(length: int) -> None:
    unit = "é" + "u" * (length - 2) if length > 1 else "u"
    assert bucketing.unit_text(unit) == bucketing.cbor_text(unit)
    assert bucketing.bucket("s", unit) == bucketing.bucket_after(bucketing.cbor_prefix("s"), unit)
    hashed = bucketing.mmh3.hash(bucketing.cbor_prefix("s") + bucketing.cbor_text(unit), 0, signed=False)
    assert bucketing.bucket("s", unit) == hashed * 100_000 >> 32
    celled = bucketing.mmh3.hash(bucketing.cbor_prefix("cell") + bucketing.cbor_text(unit), 1, signed=False)
    assert bucketing.cell(unit) == celled % 256
    wide = bucketing.mmh3.hash64(unit, 2, signed=False)[0]
    rank = 54 - (wide % (1 << 54)).bit_length() + 1
    assert bucketing.sketch_entry(unit) == (wide >> 54, rank)


@pytest.mark.parametrize("value", ["", None, 7, 1.5, True, b"user-1", ["user-1"], "\ud800", "user-\udfff"])
def test_what_is_no_unit_has_no_text(value: object) -> None:
    assert (bucketing.unit_text(value), bucketing.valid_unit(value)) == (b"", False)
    assert bucketing.valid_unit("\x00")


def test_the_edges_of_the_histograms_are_these() -> None:
    assert (histogram.ZERO_BUCKET, histogram.LOWEST_BUCKET, histogram.HIGHEST_BUCKET) == (-1915, -1914, 2551)
    with pytest.raises(ValueError, match="above"):
        histogram.log_bucket(1e12 + 0.5)
    counted = {0.0: -1915, 1e-300: -1915, 9.99e-10: -1915, 1e-9: -1914, 1.0: 0, 2.0: 64, 1e12: 2551}
    assert {value: histogram.log_bucket(value) for value in counted} == counted
    assert (histogram.log_edges(-1915), histogram.log_edges(0)) == ((0.0, 1e-9), (1.0, 2 ** (1 / 64)))
    assert histogram.log_edges(-1914) == (1e-9, 2 ** (-1913 / 64))
    assert histogram.log_edges(2551)[1] > 1e12 >= histogram.log_edges(2551)[0]
    assert [histogram.linear_bucket(value, -1, 4) for value in (-1, 1.5, 4)] == [0, 500, 999]
    assert histogram.linear_edges(0, -1.0, 4.0) == (-1.0, -0.995)
    assert histogram.linear_edges(998, -1.0, 4.0) == pytest.approx((3.99, 3.995), rel=1e-12)
    assert histogram.linear_edges(999, -2.0, -0.9)[1] == -0.9


def test_the_estimate_of_a_sketch_is_that_of_the_paper() -> None:
    ones, one_empty = bytes([1]) * 1024, bytes([0]) + bytes([2]) * 1023
    assert sketch.estimate(sketch.EMPTY) == 0.0
    assert sketch.estimate(ones) == pytest.approx(1475.6675, abs=1e-4)
    assert sketch.estimate(one_empty) == pytest.approx(2942.7, abs=0.1)
    assert sketch.estimate(bytes([1]) * 512 + bytes(512)) == pytest.approx(709.7827, abs=1e-3)
    assert sketch.absorb(sketch.EMPTY, [(0, 1), (0, 3), (0, 2), (1023, 55)]) == bytes([3]) + bytes(1022) + bytes([55])


def test_a_ruleset_of_few_flags_is_read_in_one_piece_and_one_of_many_in_several() -> None:
    flag = ruleset.RulesetFlag(variants={"on": 1}, default_variant="on", salt="s")
    for number, pauses in ((249, 0), (250, 1), (499, 1), (500, 2)):
        document = ruleset.Ruleset(environment="e", revision=1, flags={f"f{n}": flag for n in range(number)})
        paused: list[str] = []
        content = lines.encode(document, lambda: paused.append("w"))  # noqa: B023
        assert paused == ["w"] * pauses
        assert lines.decode(content) == lines.decode(content, lambda: None) == document
        assert content == lines.encode(document)


@pytest.mark.parametrize("lines_each", [2, 3])
def test_a_ruleset_is_read_whole_where_its_lines_are_not_its_flags(lines_each: int) -> None:
    flag = ruleset.RulesetFlag(variants={"on": 1}, default_variant="on", salt="s")
    odd = Condition(attribute="a", op="in", values=({"flags": {}},))
    cohorts = {"c": ruleset.RulesetCohort(when=odd)}
    flags = {f"f{n}": flag for n in range(300)}
    document = ruleset.Ruleset(environment="e", revision=1, flags=flags, cohorts=cohorts)
    content = lines.encode(document)
    assert lines.decode(content) == document
    torn = content.replace(b'"salt"', b'"salt"' + b"\n" * (lines_each - 1))
    assert lines.decode(torn) == document
