"""Watches from outside: what the database holds while it all happens, and which rulesets each process serves."""

import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import psycopg

from tests.chaos.cluster import Cluster
from tests.chaos.fleet import Fleet, Member, seconds_up

_LOOK = 0.05
_LOOK_AT_ALL = 0.5
_NOBODY = {"process": "watcher", "client": "watcher"}


class Sight(NamedTuple):
    """A rollout at a moment (unix seconds) at which something of it had moved; `judged` batches of `accepted`."""

    at: float
    status: str
    accepted: int
    judged: int


@dataclass
class Watcher:
    """Everything that was seen, by threads that run from `start` to `stop`.

    `accepted`: when a batch of the watcher's own, which holds nothing, was accepted by whoever was asked.
    """

    cluster: Cluster
    fleet: Fleet
    key: str
    sights: dict[str, list[Sight]] = field(default_factory=lambda: defaultdict(list))
    transitions: dict[tuple[str, int], Any] = field(default_factory=dict)
    rulesets: dict[int, bytes] = field(default_factory=dict)
    pauses: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    served: dict[str, list[tuple[float, str, bytes]]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._stopping = threading.Event()
        loops = [self._watch_database, *(lambda member=member: self._watch(member) for member in self.fleet.answering)]
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in loops]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def recovered(self) -> float | None:
        """Seconds from the promotion of the replica until a batch was accepted again, as far as somebody was up."""
        down = self.cluster.down
        if down is None:
            return None
        later = [at for at in self.accepted if at > down[1]]
        return seconds_up(self.fleet.answering, down[1], min(later), None) if later else None

    def longest_pause(self) -> float:
        """Seconds between two looks of one connection, which are meant to be 0.05: how busy the machine was."""
        return max(self.pauses, default=0.0)

    def unwritable(self) -> float | None:
        """Seconds from the death of the primary until its replica took writes."""
        down = self.cluster.down
        return None if down is None else down[1] - down[0]

    def _watch_database(self) -> None:
        while not self._stopping.is_set():
            try:
                with self.cluster.connect() as connection:
                    self._look_on(connection)
            except psycopg.Error:
                time.sleep(0.1)

    def _look_on(self, connection: Any) -> None:
        next_look, last = 0.0, time.time()
        while not self._stopping.wait(_LOOK):
            at = time.time()
            self.pauses.append(at - last)
            last = at
            for identifier, *rest in connection.execute("SELECT id, status, accepted, judged FROM rollouts"):
                seen, sight = self.sights[identifier], Sight(at, *rest)
                if not seen or seen[-1][1:] != sight[1:]:
                    seen.append(sight)
            if at >= next_look:
                next_look = at + _LOOK_AT_ALL
                for rollout, seq, *rest in connection.execute(TRANSITIONS):
                    self.transitions.setdefault((rollout, seq), rest)
                known = max(self.rulesets, default=0)
                for revision, document in connection.execute(f"{RULESETS} WHERE revision > {known}"):
                    self.rulesets[revision] = bytes(document)

    def _watch(self, member: Member) -> None:
        with httpx.Client(headers={"Authorization": f"Bearer {self.key}"}, timeout=5) as http:
            while not self._stopping.wait(0.2):
                empty = {"schema": 1, "batch_id": uuid4().hex, "environment": "production", **_NOBODY, "attempts": {}}
                try:
                    if http.post(f"{member.url}/sdk/v1/events", json=empty).status_code == 200:
                        self.accepted.append(time.time())
                    answer = http.get(f"{member.url}/sdk/v1/ruleset")
                except httpx.TransportError:
                    continue
                seen = self.served[member.name]
                if answer.status_code == 200 and (not seen or seen[-1][1] != answer.headers["ETag"].strip('"')):
                    seen.append((time.time(), answer.headers["ETag"].strip('"'), answer.content))


TRANSITIONS = "SELECT rollout, seq, change, ruleset_revision, tick FROM transitions ORDER BY rollout, seq"
RULESETS = "SELECT revision, document FROM rulesets"
