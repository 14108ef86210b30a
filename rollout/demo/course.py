"""How the three rollouts go: set up over the public API, followed until they have ended for every client."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from rollout.demo.apps import Apps
from rollout.demo.documents import Ramp, environment, ramps, shared
from rollout.demo.failure import DemoFailed
from rollout.demo.reports import Exchange, Flush, Order, Progress, Settled, Unsettled
from rollout.demo.service import Api
from rollout.demo.traffic import SPEED

ENDED = ("completed", "rolled_back", "cancelled")
JUST_BEGUN = 2.0
"""Seconds after a change of stage in which nobody expects numbers yet."""


@dataclass
class Track:
    """One rollout as the public API tells it, and when each app process was through with it."""

    ramp: Ramp
    id: str
    status: dict[str, Any]
    transitions: list[dict[str, Any]] = field(default_factory=list)
    settled: dict[int, Settled] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the service has ended the rollout."""
        return self.status["status"] in ENDED

    @property
    def age(self) -> float:
        """Seconds from the last change to the last look, both by the service's clock; 0 or less: not looked since."""
        judged = self.status["judged_at"]
        if not self.transitions or judged is None:
            return 0.0
        changed = datetime.fromisoformat(self.transitions[-1]["change"]["at"])
        return (datetime.fromisoformat(judged) - changed).total_seconds()

    @property
    def just_begun(self) -> bool:
        """Whether it runs in a stage of which there can hardly be anything to say."""
        return self.status["status"] == "running" and self.age < JUST_BEGUN


@dataclass
class Traffic:
    """What the app processes reported so far."""

    requests: int = 0
    behind: float = 0.0
    lost: dict[int, int] = field(default_factory=dict)
    flushes: dict[int, list[Flush]] = field(default_factory=dict)
    exchange: Exchange | None = None


class Took(NamedTuple):
    """How much it took until every rollout had ended for every client: seconds, and requests of all processes."""

    seconds: float
    requests: int


class Course:
    """The whole run. `follow` is called again and again; `done` says when to stop."""

    def __init__(self, api: Api, apps: Apps, processes: int) -> None:
        self.traffic = Traffic()
        self.tracks: list[Track] = []
        self.processes = processes
        self._api, self._apps = api, apps

    def set_up(self, url: str) -> None:
        """Post every document, start the app processes, start the rollouts, and let the traffic begin."""
        kinds = ("environments", *["metrics"] * (len(shared()) - 1))
        for kind, document in zip(kinds, shared(), strict=True):
            self._api.post(f"/{kind}", document)
        for ramp in ramps():
            self._api.post("/flags", ramp.flag_document)
            made = self._api.post("/rollouts", ramp.rollout_document)
            self.tracks.append(Track(ramp, made["id"], self._status(made["id"])))
        scopes = ["sdk:read", "sdk:evidence"]
        key = self._api.post("/keys", {"name": "tutor", "scopes": scopes, "environment": environment()})
        flags = tuple(ramp.flag.key for ramp in ramps())
        self._apps.start([
            Order(
                url=url, key=key["secret"], environment=environment(), flags=flags,
                part=part, parts=self.processes, speed=SPEED,
            )
            for part in range(self.processes)
        ])  # fmt: skip
        for track in self.tracks:
            self._api.post(f"/rollouts/{track.id}/actions/start", {"reason": "the demonstration begins"})
        self._apps.go()

    def follow(self, wait: float, changed: Callable[[Track, dict[str, Any]], None]) -> None:
        """Take what the apps say within `wait` seconds, then look at what runs; `changed` gets each new transition.

        Raises:
            DemoFailed: an app process ended, or a user got the candidate after a rollback.
        """
        for part, report in self._apps.take(wait):
            self._hear(part, report)
        for track in self.tracks:
            if track.ended:
                continue
            track.status = self._status(track.id)
            if track.status["transitions"] != len(track.transitions):
                known = len(track.transitions)
                track.transitions = self._api.get(f"/rollouts/{track.id}/transitions")
                for transition in track.transitions[known:]:
                    changed(track, transition)

    @property
    def done(self) -> bool:
        """Whether every rollout has ended, and every client has noticed."""
        return all(track.ended and len(track.settled) == self.processes for track in self.tracks)

    def _hear(self, part: int, report: object) -> None:
        if isinstance(report, Progress):
            traffic = self.traffic
            traffic.requests += report.requests
            traffic.behind = report.behind
            traffic.lost[part] = report.lost
            traffic.flushes.setdefault(part, []).extend(report.flushes)
            traffic.exchange = report.exchange or traffic.exchange
        elif isinstance(report, Settled):
            next(track for track in self.tracks if track.ramp.flag.key == report.flag).settled[part] = report
        elif isinstance(report, Unsettled):
            raise DemoFailed(
                f"{report.flag}: a user got {report.variant} in revision {report.revision} after the rollout had ended"
            )

    def _status(self, rollout: str) -> dict[str, Any]:
        status: dict[str, Any] = self._api.get(f"/rollouts/{rollout}/status")
        return status
