"""A conversation keeps its variant: which receipts hold it there, and what the answer then counts for."""

from typing import Any

import msgspec
import pytest

from clients.python.tests.answering import (
    FIRST_OF_ITS_BUCKET,
    HIGHEST,
    LEASE,
    LOWEST,
    ask,
    evidence,
    flag,
    leaf,
    rollout,
    said,
    serve,
    split,
)  # fmt: skip
from rollout_client.evaluation.bucketing import bucket, cell, pin_hash
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.receipt import Receipt, decode_receipt
from rollout_client.evaluation.ruleset import BUCKETS


def receipt(**changes: Any) -> Receipt:
    plain = Receipt("e", "f", "ro_1", "at_1", "candidate", "on", 2, cell("u"), pin_hash("t-1"))
    return msgspec.structs.replace(plain, **changes)


TALK = {"pin": "talk", "threshold": BUCKETS}
LIVE = {"pins": {"ro_1": "live"}}


def talking(held: Any, who: str | None = "u", **attributes: Any) -> Context:
    return Context(who, {"talk": "t-1", **attributes}, receipt=held)


def test_a_pinned_answer_says_what_it_counts_for() -> None:
    document = flag(rollout(**TALK), **LIVE)
    held = receipt()
    live = evidence("on", "candidate", "u", pin=held.pin)
    assert ask(document, talking(held)) == live
    assert live.receipt == msgspec.structs.replace(live, pin="t-1").receipt
    kept = said("on", "SPLIT", rollout="ro_1", arm="candidate", pinned=held)
    assert ask(document, talking(held), None) == kept
    assert ask(document, talking(held, "somebody")) == kept
    assert ask(document, talking(held), LEASE) == said("off", "STALE", rollout="ro_1")
    assert ask(document, talking(held), LEASE + 1) == live
    old = receipt(attempt="at_0")
    assert ask(document, talking(old)) == msgspec.structs.replace(kept, pinned=old)
    anew = evidence("on", "candidate", "u", pin="t-1")
    others = ({"pin": None}, {"pin": 1}, {"rollout": "ro_2"}, {"environment": "d"}, {"flag": "g"}, {"variant": "mid"})
    for other in (None, "r1.nothing", receipt(variant="off"), *(receipt(**each) for each in others)):
        assert ask(document, talking(other)) == anew
        assert ask(flag(rollout(**TALK)), talking(held)) == anew


@pytest.mark.parametrize("arm", ["candidate", "baseline"])
@pytest.mark.parametrize("unit", [None, "account"])
def test_a_pin_is_evidence_where_the_draw_of_its_attempt_says_the_same(arm: Any, unit: str | None) -> None:
    variant = {"candidate": "on", "baseline": "off"}[arm]
    for who in [*FIRST_OF_ITS_BUCKET, LOWEST, HIGHEST, "user-1", "user-2"]:
        held = receipt(arm=arm, variant=variant, cell=cell(who))
        for threshold in (0, bucket("again", who), bucket("again", who) + 1, BUCKETS):
            rule = rollout(pin="talk", threshold=threshold, unit=unit, salt="again")
            context = talking(held, "x", account=who) if unit else talking(held, who)
            drawn = "candidate" if bucket("again", who) < threshold else "baseline"
            answer = ask(flag(rule, **LIVE), context)
            assert (answer.variant, answer.arm) == (variant, arm)
            assert (answer.attempt, answer.unit) == (("at_1", who) if drawn == arm else (None, ""))


def test_the_conversation_is_named_by_the_pin_of_a_rule_or_when_none_is_left_by_any_text() -> None:
    held = receipt()
    other = rollout(rollout="ro_2", attempt="at_2", pin="thread", threshold=0)
    both = flag(rollout(**TALK, when=leaf("x", "exists")), other, **LIVE)
    assert ask(both, Context("u", talk="t-1", receipt=held)).rollout == "ro_1"
    assert ask(both, Context("u", thread="t-1", receipt=held)).rollout == "ro_1"
    assert ask(both, Context("u", other="t-1", receipt=held)).rollout == "ro_2"
    drained = flag(pins={"ro_1": "drain"})
    for attributes in ({"any": "t-1"}, {"n": 7, "empty": "", "odd": "\ud800", "last": "t-1"}):
        answer = ask(drained, Context("u", attributes, receipt=held), LEASE)
        assert answer == said("on", "SPLIT", rollout="ro_1", arm="candidate", pinned=held)
        assert decode_receipt(answer.receipt) == held
    assert ask(drained, Context("t-1", {"any": ["t-1"]}, receipt=held)) == said("off", "STATIC")
    assert ask(drained, Context("u", talk="t-1", receipt=receipt(variant="gone"))) == said("off", "STATIC")


def test_a_pin_goes_by_the_first_rule_of_its_rollout() -> None:
    cohort = rollout(attempt=None, lease_ms=None, threshold=BUCKETS, when=leaf("staff", "equals", True), pin="talk")
    later = rollout(attempt="at_1", lease_ms=LEASE, candidate="mid", pin="talk")
    document = flag(cohort, later, **LIVE)
    assert ask(document, talking(receipt(variant="on")), LEASE).variant == "on"
    assert ask(document, talking(receipt(variant="mid"), LEASE), LEASE).variant == "off"


def test_rules_that_split_nothing_or_pin_nothing_leave_a_pin_alone() -> None:
    others = [serve("mid", leaf("x", "exists")), split(("mid", BUCKETS), when=leaf("x", "exists"))]
    unpinned = rollout(rollout="ro_2", attempt="at_2", when=leaf("x", "exists"))
    document = flag(*others, unpinned, rollout(**TALK), **LIVE)
    assert ask(document, talking(receipt())) == evidence("on", "candidate", "u", pin=pin_hash("t-1"))
    assert ask(document, talking(None)) == evidence("on", "candidate", "u", pin="t-1")
    assert ask(document, talking(receipt(), x=1)).rollout == "ro_1"
    assert ask(document, Context("u", other="t-1", x=1, receipt=receipt())) == said("mid", "TARGETING_MATCH")


def test_a_pin_of_a_rollout_that_is_over_is_no_evidence_of_another_one() -> None:
    other = rollout(rollout="ro_2", attempt="at_2", **TALK)
    document = flag(other, pins={"ro_1": "drain", "ro_2": "live"})
    held = receipt(attempt="at_2")
    assert ask(document, talking(held)) == said("on", "SPLIT", rollout="ro_1", arm="candidate", pinned=held)


def test_a_pinned_conversation_goes_back_to_the_baseline_of_its_rollout_whatever_stands_before_it() -> None:
    document = flag(serve("mid", leaf("x", "exists")), rollout(**TALK), **LIVE)
    assert ask(document, talking(receipt(), x=1), LEASE) == said("off", "STALE", rollout="ro_1")
    assert ask(document, talking(None, x=1), LEASE) == said("mid", "TARGETING_MATCH")


def test_a_receipt_counts_for_an_attempt_of_its_own_rollout_only() -> None:
    other = rollout(**TALK, rollout="ro_2", attempt="at_2", candidate="mid")
    document = flag(rollout(**TALK), other, pins={"ro_1": "live", "ro_2": "live"})
    forged = receipt(attempt="at_2")
    assert ask(document, talking(forged)) == said("on", "SPLIT", rollout="ro_1", arm="candidate", pinned=forged)
