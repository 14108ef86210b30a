"""Random plans, evidence, people, clocks and crashes on the real engine: the control rules hold after every step.

The suite takes 10,000 steps, the same ones every time: 7,500 on SQLite and 2,500 on PostgreSQL, where each step costs
more. ROLLOUT_TEST_SHRINK looks for fewer steps that break the same law, which takes minutes. ROLLOUT_TEST_STEPS takes
more, and other ones each time:
`ROLLOUT_TEST_STEPS=1000000 python3 dev.py test tests/shell/engine/test_state_machine.py`.
"""

import os
import secrets
from collections.abc import Iterator

import pytest

from tests.shell.engine.machine.episodes import Episodes
from tests.shell.engine.machine.faults import found_by
from tests.shell.engine.machine.run import machine_on, walk

IN_CI = 10_000
SHRINK = "ROLLOUT_TEST_SHRINK" in os.environ
STEPS = int(os.environ.get("ROLLOUT_TEST_STEPS", IN_CI))
BY_ENGINE = ("advance", "complete", "pause", "roll_back", "lapse", "regain", "observe", "start")
BY_PEOPLE = (
    "schedule", "start", "advance", "complete", "approve", "waive", "revise", "pause", "resume", "roll_back", "cancel",
)  # fmt: skip
HAPPENED = {
    *(f"{step} by the engine" for step in BY_ENGINE),
    *(f"{step} by a person" for step in BY_PEOPLE),
    "pause breach", "roll_back breach", "hold min_units", "hold srm",
    "hold awaiting_approval", "hold undecided", "hold baking", "Crash", "OperationalError", "Conflict", "Forbidden",
    "Invalid", "served", "killed", "lapsed", "concluded",
    "passed over",
}  # fmt: skip
"""What the steps on SQLite must have brought about; those on PostgreSQL are too few to ask it of them."""
SHARE = {"sqlite": 0.75, "postgresql": 0.25}


@pytest.fixture
def machine(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Episodes]]:
    with machine_on(database_url, monkeypatch) as made:
        yield made


def test_the_control_rules_hold_whatever_happens(machine: type[Episodes], database_url: str) -> None:
    share = SHARE["sqlite" if database_url.startswith("sqlite") else "postgresql"]
    first = 0 if STEPS == IN_CI else secrets.randbelow(2**32)
    walk(machine, round(STEPS * share), first, shrink=SHRINK)
    if machine.steps_taken >= IN_CI * SHARE["sqlite"]:  # a machine in which nothing happens holds every law
        assert set(machine.seen) >= HAPPENED, f"never happened: {HAPPENED - set(machine.seen)}"


def test_the_machine_can_fail() -> None:
    """One fault of `faults`, which are too slow for the suite."""
    assert found_by("publishes_afterwards", 300) is not None
