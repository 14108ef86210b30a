"""Sends folded evidence: batches with an id of their own, sent again with the same id until the service answers."""

from __future__ import annotations

import asyncio
import gzip
import os
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

import httpx
import msgspec

from rollout_client import native
from rollout_client.backoff import delay, retry_after
from rollout_client.delivery import Offload
from rollout_client.evaluation.evidence import ArmIncrement, Batch, acknowledges
from rollout_client.evaluation.ruleset import Arm
from rollout_client.fold import Folder
from rollout_client.options import Options
from rollout_client.report import Reporter, explain
from rollout_client.spool import Spool, Spooled
from rollout_client.tally import Attempts, Sketches, weigh

COMPRESSED_FROM = 1_000
"""Bytes; shorter bodies travel as they are."""
WAITING = 4
"""Batches that may wait before flushes pause and the folder goes on adding up: an outage costs no memory."""
TOGETHER, TURNS = 250, 200
"""Exposures that are counted, in half a millisecond, before others on the loop, or other threads, go on."""
LARGE = 2_000
"""Exposures and outcomes that are encoded and compressed in two milliseconds at most, beyond which it is done aside."""
LET_PASS, GIVE_UP = 3, 20
"""Failures of the service at one batch after which the others pass it, and after which it is dropped."""
LOOK_AT_SPOOL = 60.0
"""Seconds between two looks for what other processes left."""
_AWAY = frozenset({502, 503, 504})
"""Server errors that say nothing about the batch."""


class Pending(NamedTuple):
    """One encoded batch, and what is lost with it."""

    batch_id: str
    body: bytes
    encoding: str | None
    exposures: int
    observations: int
    dropped: dict[str, int]
    sketches: Sketches


class Sender:
    """The queue of one process. `collect` and `count_unsent` need no loop; the rest runs on the background thread."""

    def __init__(
        self, folder: Folder, batch: Batch, options: Options, reporter: Reporter, spool: Spool | None, offload: Offload
    ) -> None:
        self.pending: deque[Pending] = deque()
        self._spool = spool
        self._offload = offload
        self._folder = folder
        self._template = batch
        self._options = options
        self._reporter = reporter
        self._reported: Counter[str] = Counter()
        self._collecting = native.lock()
        self._failures = 0
        self._failed_at: Counter[str] = Counter()

    async def run(self, http: httpx.AsyncClient, woken: asyncio.Event) -> None:
        """Flush on the clock and when the folder has counted enough exposures; never returns."""
        not_before = 0.0
        loop = asyncio.get_running_loop()
        look = loop.time()
        while True:
            if self._spool is not None and not self.pending and loop.time() >= look:
                await self._offload(self._take_left)
                look = loop.time() + LOOK_AT_SPOOL
            with suppress(TimeoutError):
                async with asyncio.timeout(self._options.flush_interval):
                    await woken.wait()
            woken.clear()
            if len(self.pending) < WAITING:
                await self._collect()
            else:
                await self._offload(self._count)
            while self.pending and loop.time() >= not_before:
                not_before = loop.time() + await self._send(http)

    async def finish(self, http: httpx.AsyncClient, deadline: float) -> None:
        """Send what is left before `deadline` (loop time)."""
        loop = asyncio.get_running_loop()
        self.collect()
        self._failures = 0
        while self.pending and loop.time() < deadline:
            try:
                async with asyncio.timeout_at(deadline):
                    await asyncio.sleep(await self._send(http))
            except TimeoutError:
                return

    def keep(self) -> None:
        """Leave what is still queued to the next process, where there is a place for it."""
        if self._spool is None:
            return
        left = [Spooled(*batch[:5]) for batch in self.pending]  # without what this process alone can make up for
        try:
            kept = self._spool.keep(left)
        except Exception as error:  # what is not kept is counted as lost
            self._reporter.trouble("spool", f"evidence cannot be kept: {explain(error)}")
            kept = set()
        self.pending = deque(batch for batch in self.pending if batch.batch_id not in kept)
        self._spool.leave()

    def leave(self) -> None:
        """In a forked child: the files of the parent are the parent's to send."""
        if self._spool is not None:
            self._spool.leave()

    async def _collect(self) -> None:
        """Collect, aside if that takes long. What nobody began to collect before this was cancelled is still folded."""
        if self._folder.unsent + len(self._folder.noted) < LARGE:
            self.collect()
            return
        try:
            await self._offload(self.collect)
        except RuntimeError as error:  # the loop's executor is gone
            self._reporter.trouble("flush", f"evidence is encoded on the loop: {error}")
            self.collect()

    def _count(self) -> None:
        """Count what was noted, a little at a time."""
        for _ in range(TURNS):
            if len(self._folder.noted) < TOGETHER:
                return
            self._folder.count(TOGETHER)
            native.pause()

    def collect(self) -> None:
        """Take what was folded, encode and queue it; the oldest batches give way, counted, when the queue is full."""
        with self._collecting:
            self._count()
            for attempts in self._folder.take(int(self._options.clock() // 60)):
                native.pause()
                for piece in fit(attempts, self._options.batch_bytes):
                    self.pending.append(self._encode(piece))
                    native.pause()
            while len(self.pending) > self._options.pending_batches:
                self._lose(self.pending.popleft())

    def count_unsent(self) -> None:
        """Give up what is still queued, counted."""
        while self.pending:
            self._lose(self.pending.popleft())

    def _take_left(self) -> None:
        if self._spool is not None:
            options = self._options
            left = self._spool.take(options.pending_batches, options.clock(), lambda old: self._lose(_taken(old)))
            self.pending.extend(_taken(batch) for batch in left)

    def _settle(self, batch: Pending) -> None:
        self._failed_at.pop(batch.batch_id, None)
        if self._spool is not None:
            self._spool.settle(batch.batch_id)

    def _encode(self, attempts: Attempts) -> Pending:
        dropped = self._newly_dropped()
        batch = msgspec.structs.replace(
            self._template, batch_id=os.urandom(16).hex(), attempts=attempts, dropped=dropped
        )
        body = msgspec.json.encode(batch)
        encoding = None
        if len(body) > COMPRESSED_FROM:
            body, encoding = gzip.compress(body, compresslevel=5, mtime=0), "gzip"
        sketches: Sketches = {key: {arm: held.sketch for arm, held in arms.items()} for key, arms in attempts.items()}
        return Pending(batch.batch_id, body, encoding, *weigh(attempts), dropped, sketches)

    def _newly_dropped(self) -> dict[str, int]:
        counts = self._folder.dropped
        now = Counter(
            exposures=counts["exposures"],
            observations=counts["observations"] + counts["no_exposure"] + counts["bad_value"],
            batches=counts["batches"],
        )
        fresh = dict(now - self._reported)
        self._reported = now
        return fresh

    async def _send(self, http: httpx.AsyncClient) -> float:
        """Send the oldest batch once; return the seconds to wait before the next."""
        batch = self.pending[0]
        headers = {"Content-Type": "application/json"} | (
            {"Content-Encoding": batch.encoding} if batch.encoding else {}
        )
        try:
            answer = await http.post("/sdk/v1/events", content=batch.body, headers=headers)
        except httpx.HTTPError as error:
            return self._again("events", f"evidence cannot be sent: {explain(error)}")
        if answer.status_code == 429 or not 200 <= answer.status_code < 500:
            wait = self._again(
                f"events-{answer.status_code}", f"evidence waits: the service answered {answer.status_code}"
            )
            if answer.status_code >= 500 and answer.status_code not in _AWAY:
                self._suspect(batch)
            return max(wait, retry_after(answer.headers.get("Retry-After"), self._options.clock()))
        if answer.status_code >= 300:
            said = answer.text[:300]
            self._reporter.trouble(
                f"events-{answer.status_code}", f"a batch of evidence was refused with {answer.status_code}: {said}"
            )
            self._lose(self.pending.popleft())
        elif not acknowledges(answer.content, batch.batch_id):
            return self._again("events-answer", "evidence waits: the answer is no acknowledgement of the batch")
        else:
            self._settle(self.pending.popleft())
        self._failures = 0
        return 0.0

    def _suspect(self, batch: Pending) -> None:
        """Let the others pass a batch at which the service fails again and again, and give it up in the end."""
        self._failed_at[batch.batch_id] += 1
        if self._failed_at[batch.batch_id] >= GIVE_UP:
            self._reporter.trouble("events-given-up", f"a batch of evidence was dropped after {GIVE_UP} server errors")
            self._lose(self.pending.popleft())
        elif self._failed_at[batch.batch_id] >= LET_PASS:
            self.pending.rotate(-1)

    def _again(self, kind: str, said: str) -> float:
        self._failures += 1
        self._reporter.trouble(kind, said)
        return delay(self._failures, self._options.backoff_first, self._options.backoff_longest)

    def _lose(self, batch: Pending) -> None:
        self._settle(batch)
        self._folder.give_back(batch.sketches)
        self._folder.drop("batches")
        self._folder.drop("exposures", batch.exposures)
        self._folder.drop("observations", batch.observations)
        self._reported.subtract(batch.dropped)  # nobody has read them: the next batch says them again


def _taken(batch: Spooled) -> Pending:
    """What an earlier process left; what it had dropped, and its sketches, went with it."""
    return Pending(batch.batch_id, batch.body, batch.encoding, batch.exposures, batch.observations, {}, {})


def fit(attempts: Attempts, limit: int) -> Iterator[Attempts]:
    """Yield increments in pieces of at most `limit` encoded bytes; both arms of a minute stay in one piece."""
    slots = sorted({slot for arms in attempts.values() for arm in arms.values() for slot in arm.slots})
    if (len(attempts) < 2 and len(slots) < 2) or len(msgspec.json.encode(attempts)) <= limit:
        yield attempts
        return
    if len(attempts) > 1:
        keys = list(attempts)
        for half in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
            yield from fit({key: attempts[key] for key in half}, limit)
        return
    middle = slots[len(slots) // 2]
    [(attempt, arms)] = attempts.items()
    yield from fit({attempt: {arm: _part(i, 0, middle, i.sketch) for arm, i in arms.items()}}, limit)
    yield from fit({attempt: {arm: _part(i, middle, slots[-1] + 1, []) for arm, i in arms.items()}}, limit)


def _part(increment: ArmIncrement, start: int, end: int, sketch: list[tuple[int, int]]) -> ArmIncrement:
    slots = {slot: held for slot, held in increment.slots.items() if start <= slot < end}
    return ArmIncrement(sketch=sketch, slots=slots)


def batch_of(environment: str, process: str, client: str) -> Batch:
    """Return the batch that every batch of one process is made from."""
    arms: dict[str, dict[Arm, ArmIncrement]] = {}
    return Batch(batch_id="", environment=environment, process=process, client=client, attempts=arms)
