"""What is lost costs no more than itself: strays, refused batches, poisoned ones, clocks that step."""

import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from clients.python.tests.service import Service, document, eventually
from rollout_client import Client, Context
from rollout_client.evaluation import sketch
from rollout_client.evaluation.bucketing import cell, pin_hash, sketch_entry
from rollout_client.evaluation.evaluate import CompiledRuleset, compile_ruleset, evaluate
from rollout_client.evaluation.receipt import Receipt, decode_receipt, encode_receipt
from rollout_client.evaluation.ruleset import Ruleset
from rollout_client.fold import Folder
from rollout_client.options import Options
from rollout_client.sending import GIVE_UP

FLAG, SLOT = "support-answer", 29395000
Connect = Callable[..., Client]
RECEIPT = Receipt("production", FLAG, "ro_1", "at_0", "candidate", "v8", SLOT - 600, 36, pin_hash("c-1"))


def compiled(**changes: Any) -> CompiledRuleset:
    made = document(**changes)
    made["metrics"]["other"] = {"kind": "proportion"}
    made["flags"][FLAG]["pins"] = {"ro_1": "live"}
    return compile_ruleset(msgspec.convert(made, Ruleset))


def folder_of(served: CompiledRuleset) -> Folder:
    folder = Folder(Options(), lambda: None)
    folder.follow(served)
    return folder


def observed(folder: Folder, metric: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for attempts in folder.take(SLOT):
        for attempt, arms in attempts.items():
            for increment in arms.values():
                for slot in increment.slots.values():
                    for numbers in slot.metrics[metric].cells.values() if metric in slot.metrics else ():
                        found[attempt] = numbers
    return found


def test_a_receipt_takes_a_known_attempt_to_no_metric_and_no_rollout_but_its_own() -> None:
    folder = folder_of(compiled())
    for change in ({"attempt": "at_1", "rollout": "ro_9"}, {"attempt": "at_1"}):
        folder.observe("other", True, None, msgspec.structs.replace(RECEIPT, **change), SLOT)
    forged = msgspec.structs.replace(RECEIPT, attempt="at_1", rollout="ro_9")
    folder.observe("thumbs_down", True, None, forged, SLOT)
    assert folder.take(SLOT) == []
    assert folder.dropped == {"unused": 3}


def test_what_a_receipt_brings_to_an_unknown_attempt_travels_apart() -> None:
    served = compiled()
    folder = folder_of(served)
    for number in range(10):
        folder.noted.append(evaluate(served, FLAG, Context(f"user-{number}"), slot=SLOT))
    folder.observe("other", True, None, msgspec.structs.replace(RECEIPT, rollout="ro_9", attempt="at_9"), SLOT)
    assert [sorted(attempts) for attempts in folder.take(SLOT)] == [["at_1"], ["at_9"]]


def registers(service: Service) -> bytes:
    seen = sketch.EMPTY
    for batch in service.batches.values():
        for arms in batch.attempts.values():
            for increment in arms.values():
                seen = sketch.absorb(seen, increment.sketch)
    return seen


def test_the_units_of_a_refused_batch_are_said_again_with_the_next(service: Service, connect: Connect) -> None:
    client = connect()
    assert client.wait_ready(5)
    units = [f"user-{number}" for number in range(40)]
    service.faults.extend([422] * 40)
    for unit in units:
        client.evaluate(FLAG, Context(unit))
    eventually(lambda: client.status().dropped.get("exposures") == 40)
    posts = len(service.posts)
    service.faults.clear()
    time.sleep(0.2)
    assert len(service.posts) == posts, "what was refused is not sent by itself"
    client.evaluate(FLAG, Context(units[0]))
    eventually(lambda: service.batches)
    assert registers(service) == sketch.absorb(sketch.EMPTY, map(sketch_entry, units))


@pytest.mark.parametrize("name", ["", "at\x00", "at_1\n", "a" * 101, "ä", "at 1", "at/1"])
@pytest.mark.parametrize("field", ["environment", "flag", "rollout", "attempt", "variant"])
def test_a_receipt_names_only_what_a_service_could_have_named(field: str, name: str) -> None:
    forged = msgspec.structs.replace(RECEIPT, **{field: name})
    assert decode_receipt(encode_receipt(forged)) is None
    assert decode_receipt(forged) is None
    assert Context("user-1", receipt=forged).receipt is None


class Poisoned(Service):
    """A service that breaks at every batch in which one metric is."""

    def fault_of(self, body: bytes) -> int | str:
        return 500 if b'"fallback_rate"' in body else super().fault_of(body)


def test_a_batch_at_which_the_service_breaks_does_not_hold_up_the_others(connect: Connect) -> None:
    service = Poisoned()
    client = connect(url=service.url)
    assert client.wait_ready(5)
    client.evaluate(FLAG, Context("user-1"))
    client.observe("fallback_rate", True, Context("user-1"))
    eventually(lambda: service.posts)
    client.evaluate(FLAG, Context("user-2"))
    eventually(lambda: service.counted("exposures").get(("at_1", "candidate")), within=3)
    eventually(lambda: client.status().dropped.get("batches") == 1, within=10)
    poisoned = [identity for identity, fault in service.posts if fault == 500]
    assert len(poisoned) == GIVE_UP
    assert client.status().pending == 0
    service.down()


def test_a_clock_that_steps_back_loses_no_exposure() -> None:
    served = compiled()
    folder = folder_of(served)
    answer = evaluate(served, FLAG, Context("user-1"), slot=SLOT)
    folder.noted.append(answer)
    taken = folder.take(SLOT)
    folder.take(SLOT + 5)
    for _ in range(3):
        folder.noted.append(answer)
    taken += folder.take(SLOT)
    slots = [attempts["at_1"]["candidate"].slots[SLOT] for attempts in taken]
    assert [slot.exposures for slot in slots] == [{cell("user-1"): 1}, {cell("user-1"): 3}]
    assert slots[1].first_exposures == {}


def conversation(text: str, receipt: Receipt | None = None) -> Context:
    return Context("user-1", conversation_id=text, receipt=receipt)


@pytest.mark.parametrize("text", ["c-1", "c-2"])
def test_an_observation_with_a_receipt_in_its_context_counts_once(text: str) -> None:
    served = compiled(pin="conversation_id")
    folder = folder_of(served)
    context = conversation(text, RECEIPT)
    folder.noted.append(evaluate(served, FLAG, conversation("c-3"), slot=SLOT))
    folder.observe("thumbs_down", True, context, None, SLOT)
    assert observed(folder, "thumbs_down") == {"at_0" if text == "c-1" else "at_1": [1, 1]}


def test_what_is_observed_after_the_close_is_counted_as_dropped(service: Service, connect: Connect) -> None:
    client = connect()
    assert client.wait_ready(5)
    attempt = client.attempt(FLAG, Context("user-1"))
    answer = attempt.evaluation
    client.close()
    with attempt:
        attempt.record(thumbs_down=True)
    client.observe("thumbs_down", True, receipt=answer.receipt)
    assert client.status().dropped == {"observations": 2}


def test_what_is_observed_before_the_first_ruleset_waits_for_it(service: Service, connect: Connect) -> None:
    receipt = encode_receipt(RECEIPT)
    whole, service.body = service.body, None
    client = connect()
    client.observe("thumbs_down", True, receipt=receipt)
    client.observe("thumbs_down", True, Context("user-1"))
    assert not client.status().dropped
    service.body = whole
    assert client.wait_ready(5)
    client.observe("thumbs_down", True, receipt=receipt)
    client.close()
    assert service.measured("thumbs_down") == {(RECEIPT.attempt, RECEIPT.arm): [2, 2]}
    assert client.status().dropped == {"no_exposure": 1}


def test_what_waits_for_a_ruleset_that_never_comes_is_counted_as_dropped(service: Service, connect: Connect) -> None:
    service.body = None
    client = connect()
    for _ in range(1_003):
        client.observe("thumbs_down", True, receipt=encode_receipt(RECEIPT))
    client.close()
    dropped = client.status().dropped
    assert (dropped["observations"], sum(dropped.values())) == (1_000, 1_003)
