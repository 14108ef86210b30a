"""Rollouts, again and again: on each flag a good one and a harmful one by turns, driven through the API."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.fleet import Fleet

ENDED = {"completed", "rolled_back", "cancelled"}
HARMLESS, HARM = 0.02, 0.6
"""How often a request fails."""
_VARIANTS = {"one": {"fails": HARMLESS}, "two": {"fails": HARMLESS}, "bad": {"fails": HARM}}
_PLAN: dict[str, Any] = {
    "kind": "Rollout",
    "environment": "production",
    "stages": [
        {"name": "some", "percentage": 30, "min_duration": "1s", "min_units": 0},
        {"name": "most", "percentage": 80, "min_duration": "1s", "min_units": 0},
    ],
    "guardrails": [{"metric": "error_rate", "max_regression": {"absolute": 0.2}}],
    "lease": "30s",
}


@dataclass
class Run:
    """One started rollout: what it must end as, and what it ended as (None: it did not)."""

    id: str
    flag: str
    harmful: bool
    ended: str | None = None


@dataclass
class Course(threading.Thread):
    """Starts the next rollout of a flag when the last one has ended, until `stop`, but two at least.

    From then on it waits `patience` seconds for each.
    """

    fleet: Fleet
    flag: str
    patience: float = 60.0
    runs: list[Run] = field(default_factory=list)
    failed: BaseException | None = None

    def __post_init__(self) -> None:
        super().__init__(name=self.flag, daemon=True)
        self._stopping = threading.Event()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Go through them."""
        try:
            self._go()
        except BaseException as error:
            self.failed = error

    def stop(self) -> None:
        """Start no more."""
        self._stopping.set()

    def _go(self) -> None:
        released, other = "one", "two"
        while len(self.runs) < 2 or not self._stopping.is_set():
            run = self._start(released, other, harmful=len(self.runs) % 2 == 0)
            self.runs.append(run)
            self._await_end(run)
            if run.ended == "completed" and not run.harmful:
                released, other = other, released

    def _start(self, released: str, other: str, *, harmful: bool) -> Run:
        candidate = "bad" if harmful else other
        document = {**_PLAN, "flag": self.flag, "baseline": released, "candidate": candidate}
        made = self.fleet.ask("POST", "rollouts", document)
        assert made.status_code == 201, made.text
        identifier: str = made.json()["id"]
        while self._status(identifier) == "draft":  # whether a start without an answer was made shows here
            started = self.fleet.ask("POST", f"rollouts/{identifier}/actions/start", {"reason": "chaos"})
            assert started.status_code < 300 or self._status(identifier) != "draft", started.text
        return Run(identifier, self.flag, harmful)

    def _await_end(self, run: Run) -> None:
        deadline = None
        while deadline is None or time.monotonic() < deadline:
            status = self._status(run.id)
            if status in ENDED:
                run.ended = status
                return
            if self._stopping.is_set() and deadline is None:
                deadline = time.monotonic() + self.patience
            time.sleep(0.2)

    def _status(self, identifier: str) -> str:
        answer = self.fleet.ask("GET", f"rollouts/{identifier}")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["status"])


def prepare(fleet: Fleet, flags: list[str]) -> str:
    """What the rollouts are about; the secret of a key for applications."""
    documents: list[tuple[str, dict[str, Any]]] = [
        ("environments", {"key": "production"}),
        ("metrics", {"key": "error_rate", "kind": "proportion", "event": "the request failed"}),
        *(("flags", {"key": flag, "variants": _VARIANTS, "default_variant": "one"}) for flag in flags),
    ]
    for kind, document in documents:
        made = fleet.ask("POST", kind, document)
        assert made.status_code < 300, made.text
    key = {"name": "app", "scopes": ["sdk:read", "sdk:evidence"], "environment": "production"}
    return str(fleet.ask("POST", "keys", key).json()["secret"])
