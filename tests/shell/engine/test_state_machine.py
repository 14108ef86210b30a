"""Random plans, evidence, people, clocks and crashes on the real engine: the control rules hold after every step.

The suite takes 10,000 steps, half of them on each database, the same ones every time. ROLLOUT_TEST_STEPS takes more,
and other ones each time: `ROLLOUT_TEST_STEPS=1000000 python3 dev.py test tests/shell/engine/test_state_machine.py`.
"""

import os
import secrets
from collections.abc import Iterator

import pytest

from tests.shell.engine.machine.machine import Machine
from tests.shell.engine.machine.run import machine_on, walk

IN_CI = 10_000
SHRINK = "ROLLOUT_TEST_SHRINK" in os.environ
STEPS = int(os.environ.get("ROLLOUT_TEST_STEPS", IN_CI))
BY_ENGINE = ("advance", "complete", "pause", "roll_back", "lapse", "regain", "calibrate")
BY_PEOPLE = ("start", "advance", "approve", "pause", "resume", "roll_back", "cancel")
HAPPENED = {
    *(f"{step} by the engine" for step in BY_ENGINE),
    *(f"{step} by a person" for step in BY_PEOPLE),
    "pause breach", "roll_back breach", "hold min_units", "hold srm",
    "hold awaiting_approval", "hold undecided", "hold baking", "Crash", "OperationalError", "Conflict", "Forbidden",
    "Invalid", "served", "killed", "lapsed", "concluded",
}  # fmt: skip
"""What 10,000 steps must have brought about: a machine in which nothing happens holds every law."""


@pytest.fixture
def machine(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Machine]]:
    with machine_on(database_url, monkeypatch) as made:
        yield made


def test_the_control_rules_hold_whatever_happens(machine: type[Machine]) -> None:
    first = 0 if STEPS == IN_CI else secrets.randbelow(2**32)
    walk(machine, STEPS // 2, first, shrink=SHRINK)
    assert STEPS < IN_CI or set(machine.seen) >= HAPPENED, f"never happened: {HAPPENED - set(machine.seen)}"
