"""The check is strict: anything but the three outcomes, seen by everybody, is said and is a failure."""

from typing import Any

import msgspec
import pytest

from rollout.demo.course import Track
from rollout.demo.documents import ramps
from rollout.demo.outcome import Result, deviations, seconds
from rollout.demo.reports import Flush, Settled

RIGHT = {
    "better": Result(
        outcome="completed", expected="completed", breached=None, serving="175b_verification", users_exposed=900,
        decisions=20, changes=(), seconds_to_every_client=0.2, seconds_at_most=1.2,
    ),
    "worse": Result(
        outcome="rolled_back", expected="rolled_back", breached="answer_correct", serving="175b_finetuning",
        users_exposed=400, decisions=20, changes=(), seconds_to_every_client=0.2, seconds_at_most=1.2,
    ),
}  # fmt: skip


def ended(name: str, variant: str, *at: float) -> Track:
    ramp = next(ramp for ramp in ramps() if ramp.name == name)
    track = Track(ramp, "ro_1", {"status": "..."})
    for part, moment in enumerate(at):
        track.settled[part] = Settled(flag=ramp.flag.key, variant=variant, revision=9, at=moment)
    return track


@pytest.mark.parametrize("name", ["better", "worse"])
def test_the_expected_end_deviates_in_nothing(name: str) -> None:
    right = RIGHT[name]
    assert deviations(ended(name, right.serving or "", 10.0, 10.1), right) == []


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("better", {"outcome": "running"}, "the API reports running; it must be completed"),
        ("worse", {"outcome": "completed"}, "the API reports completed; it must be rolled_back"),
        ("worse", {"breached": "error_rate"}, "breached is error_rate; it must be answer_correct"),
        ("better", {"breached": "answer_correct"}, "it must be None"),
        ("worse", {"serving": "6b_finetuning"}, "everybody is to get 6b_finetuning; it must be 175b_finetuning"),
        ("worse", {"seconds_to_every_client": None}, "not every client"),
    ],
)
def test_every_deviation_is_said(name: str, change: dict[str, Any], said: str) -> None:
    right = RIGHT[name]
    found = deviations(ended(name, right.serving or "", 10.0), msgspec.structs.replace(right, **change))
    assert len(found) == 1
    assert said in found[0]


def test_a_client_that_serves_something_else_is_a_deviation() -> None:
    [said] = deviations(ended("worse", "6b_finetuning", 10.0), RIGHT["worse"])
    assert said == "worse: app process 0 serves 6b_finetuning; it must serve 175b_finetuning"


def test_seconds_run_from_the_batch_before_the_decision_to_the_last_client() -> None:
    flushes = {0: [Flush(8.0, 8.1), Flush(9.0, 9.1), Flush(10.0, 10.1)], 1: [Flush(8.5, 8.6), Flush(9.4, 9.6)]}
    track = ended("worse", "175b_finetuning", 9.9, 10.5)
    newest, oldest = seconds(track, flushes, 2, decided=9.8)
    assert newest == pytest.approx(10.5 - 9.4)
    assert oldest == pytest.approx(10.5 - 8.5)


def test_seconds_are_unknown_while_a_client_or_the_batch_is_missing() -> None:
    assert seconds(ended("worse", "175b_finetuning", 9.9), {0: [Flush(9.0, 9.1)]}, 2, decided=9.8) == (None, None)
    assert seconds(ended("worse", "175b_finetuning", 9.9), {0: [Flush(9.0, 9.9)]}, 1, decided=9.8) == (None, None)
