"""The newest ruleset of each environment in memory, and who waits for the next one.

The environments' revisions in the database are the truth; `refresh` follows them, whoever moved them.
"""

import asyncio
import math
from collections import OrderedDict
from dataclasses import dataclass
from time import monotonic

import msgspec

from rollout.db import environments, heartbeat
from rollout.db.session import Database
from rollout.domain.compile import difference
from rollout_client.evaluation import lines
from rollout_client.evaluation.ruleset import Ruleset

HISTORY = 16
"""Revisions kept decoded per environment, so that a client that was away for a moment gets a patch."""

_RINGS = 20
"""Times in a second at which those are woken whose time is over."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One encoded ruleset. `tag` is its identity: the number for people, the edition against restored databases."""

    tag: str
    body: bytes
    ruleset: Ruleset


class Hub:
    """What this process serves. Reads never wait for a writer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._history: dict[str, OrderedDict[str, Snapshot]] = {}
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._bells: dict[int, set[asyncio.Future[None]]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._age: tuple[int, float] | None = None
        self._patches: dict[tuple[str, str, str], bytes] = {}
        self.closing = False

    def newest(self, environment: str) -> Snapshot | None:
        """The newest snapshot of an environment, None before its first ruleset."""
        known = self._history.get(environment)
        return next(reversed(known.values())) if known else None

    def patch(self, environment: str, base: str) -> bytes | None:
        """The encoded patch from the tag `base` to the newest; None when `base` is not known here."""
        known = self._history.get(environment, OrderedDict())
        newest = self.newest(environment)
        if newest is None or base not in known:
            return None
        key = (environment, base, newest.tag)
        if key not in self._patches:
            self._patches[key] = msgspec.json.encode(difference(known[base].ruleset, newest.ruleset))
        return self._patches[key]

    def engine_age_ms(self) -> int | None:
        """Age of the engine's last complete protect pass, carried forward since it was last read."""
        if self._age is None:
            return None
        age, read_at = self._age
        return age + int((monotonic() - read_at) * 1000)

    async def refresh(self) -> None:
        """Follow the database: newer rulesets, the engine's age. Wakes everyone who waits when something moved."""
        async with self._one_at_a_time, self._database.read() as session:
            moved = []
            for environment, (revision, edition) in (await environments.newest(session)).items():
                newest = self.newest(environment)
                if revision and (newest is None or newest.tag != f"{revision}.{edition}"):
                    body = await environments.ruleset(session, environment)
                    if body is not None:
                        self._keep(environment, body)
                        moved.append(environment)
            for environment in moved:
                self._wake(environment)
            asked_at = monotonic()  # before the answer: an age may be too old, never too young
            age = await heartbeat.engine_age_ms(session)
            self._age = None if age is None else (age, asked_at)

    async def wait(self, environment: str, tag: str | None, seconds: float) -> None:
        """Return when the environment's newest is not `tag`, when the service is closing, or after `seconds`."""
        newest = self.newest(environment)
        if self.closing or (newest is not None and newest.tag != tag):
            return
        moved = asyncio.get_running_loop().create_future()
        waiting, bell = self._waiting.setdefault(environment, set()), self._bell(seconds)
        waiting.add(moved)
        bell.add(moved)
        try:
            await moved
        finally:
            bell.discard(moved)
            waiting.discard(moved)

    async def close(self) -> None:
        """Let every stream end by itself."""
        self.closing = True
        for environment in list(self._waiting):
            self._wake(environment)

    def _bell(self, seconds: float) -> set[asyncio.Future[None]]:
        """Who is woken in so many seconds, or a little later: a timer each would be most of what a wait costs."""
        loop = asyncio.get_running_loop()
        due = math.ceil((loop.time() + seconds) * _RINGS)
        bell = self._bells.get(due)
        if bell is None:
            bell = self._bells[due] = set()
            loop.call_at(due / _RINGS, self._ring, due)
        return bell

    def _ring(self, due: int) -> None:
        for moved in list(self._bells.pop(due)):
            _settle(moved)

    def _wake(self, environment: str) -> None:
        for moved in self._waiting.pop(environment, ()):
            _settle(moved)

    def _keep(self, environment: str, body: bytes) -> None:
        ruleset = lines.decode(body)
        known = self._history.setdefault(environment, OrderedDict())
        tag = f"{ruleset.revision}.{ruleset.edition}"
        known[tag] = Snapshot(tag, body, ruleset)
        known.move_to_end(tag)
        while len(known) > HISTORY:
            known.popitem(last=False)
        self._patches = {key: patch for key, patch in self._patches.items() if key[0] != environment}


def _settle(waited_for: "asyncio.Future[None]") -> None:
    if not waited_for.done():
        waited_for.set_result(None)
