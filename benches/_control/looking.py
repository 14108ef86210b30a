"""Rounds of the engine over fleets of ten to ten thousand running rollouts, on SQLite with every commit on the disk.

A rate is of one core: so many in a second of the processor, of all the threads of the process. The floor of a judged
rollout is the judge alone: evidence read, carried forward, judged and written to memory, without a database. The floor
of an idle one is the same change in a table of nothing else, five hundred rows to a commit. How long the loop is held
up is measured by the processor's time of its thread between two of its turns.
"""

import asyncio
import random
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median

import msgspec

from benches._control.fleet import Fleet, Member, fleet
from benches._sdk.rows import Row
from rollout.db import increments, rollouts
from rollout.domain.evidence import Evidence
from rollout.engine.look import Inputs, examine

SIZES = (10, 100, 1_000, 10_000)
FRESH = 100
"""Rollouts that get evidence before a round that judges, at most."""
_TARGET_JUDGED, _TARGET_IDLE, _FLAT = 200.0, 5_000.0, 0.8


class Found:
    """What one fleet showed: rollouts a second, judged, idle and by the judge alone; the longest stall in seconds."""

    def __init__(self) -> None:
        self.judged: list[float] = []
        self.alone: list[float] = []
        self.idle: list[float] = []
        self.stalls: list[float] = []


def rows(quick: bool) -> Iterator[Row]:
    """The rows, each when it is known."""
    sizes = SIZES[:-1] if quick else SIZES
    rate, judged, idle, stalls = "rollouts/s", [], [], []
    with tempfile.TemporaryDirectory() as folder:
        floor = _bare_updates(Path(folder))
        for size in sizes:
            found = asyncio.run(_watched(Path(folder), size, 3 if quick else 5))
            judged.append(median(found.judged))
            idle.append(median(found.idle))
            stalls += found.stalls
            yield Row(f"judged with fresh evidence, three guardrails, {size:,} running", judged[-1], rate,
                      _TARGET_JUDGED, median(found.alone), at_least=True)  # fmt: skip
            yield Row(f"idle ones passed over, {size:,} running", idle[-1], rate,
                      _TARGET_IDLE if size >= 1_000 else None, floor, at_least=True)  # fmt: skip
    over = f"{sizes[-1]:,} running over {sizes[0]:,}"
    yield Row(f"judged a second, {over}", judged[-1] / judged[0], "ratio", _FLAT, at_least=True)
    yield Row("a round over 10 idle ones, with its vouching", 10 / idle[0] * 1e3, "ms")
    yield Row("the longest that a round held the loop up", max(stalls) * 1e3, "ms", 100.0)


async def _watched(folder: Path, size: int, repeats: int) -> Found:
    async with fleet(folder, size) as opened:
        found, rng = Found(), random.Random(size)
        for _ in range(repeats):
            opened.now += timedelta(seconds=6)
            found.idle.append(await _timed(opened.watchman.round, size))
        for _ in range(repeats if size > FRESH else 3 * repeats):
            opened.now += timedelta(seconds=61)
            await opened.watchman.round()
            members = rng.sample(opened.members, min(size, FRESH))
            await opened.send(members)
            found.alone.append(await _judged_alone(opened, members[:20]))
            opened.now += timedelta(milliseconds=1)
            found.judged.append(await _timed(opened.watchman.round, len(members)))
        for _ in range(repeats):
            opened.now += timedelta(seconds=6)
            await opened.send(rng.sample(opened.members, min(size, FRESH)))
            stalls = asyncio.create_task(_stalls(found.stalls))
            await opened.watchman.round()
            stalls.cancel()
        return found


async def _timed(work: Callable[[], Awaitable[int]], wanted: int) -> float:
    """How many a second a round is through with, which must be as many as wanted."""
    with _spent() as spent:
        done = await work()
    if done != wanted:
        raise RuntimeError(f"{done} rollouts were due, not {wanted}")
    return done / spent[0]


async def _judged_alone(opened: Fleet, members: list[Member]) -> float:
    """Looks a second, everything read before and nothing written after."""
    waiting = []
    async with opened.control.database.read() as session:
        for member in members:
            row = await rollouts.find(session, member.rollout, evidence=True)
            assert row is not None
            taken = await increments.unbet(session, {row.id: row.accepted})
            inputs = Inputs(state=row.state, units=900, attempt_units=900, killed=False, now=opened.now)
            waiting.append((row, msgspec.json.encode(row.evidence), taken[row.id].increments, inputs))
    with _spent() as spent:
        for row, encoded, added, inputs in waiting:
            evidence = msgspec.json.decode(encoded, type=Evidence)
            evidence, _ = examine(row.document, row.metrics, evidence, added, inputs)
            msgspec.json.encode(evidence)
    return len(members) / spent[0]


@contextmanager
def _spent() -> Iterator[list[float]]:
    """Seconds of one core, in a list of one."""
    spent: list[float] = []
    began = time.process_time()
    yield spent
    spent.append(time.process_time() - began)


async def _stalls(longest: list[float]) -> None:
    """Keep how long the loop was busy between two turns of this task, at most; it is always ready for the next."""
    longest.append(0.0)
    while True:
        asked = time.thread_time()
        await asyncio.sleep(0)
        longest[-1] = max(longest[-1], time.thread_time() - asked)


def _bare_updates(folder: Path, many: int = 10_000, at_once: int = 500) -> float:
    """Rows a second of a table that has nothing but two moments, each five hundred committed to the disk."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE bare (id INTEGER PRIMARY KEY, due TEXT, seen TEXT)")
    connection.executemany("INSERT INTO bare VALUES (?, '2026', '2026')", [(number,) for number in range(many)])
    began = time.process_time()
    for first in range(0, many, at_once):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE bare SET due = '2027', seen = '2027' WHERE id >= ? AND id < ?",
                           (first, first + at_once))  # fmt: skip
        connection.execute("COMMIT")
    spent = time.process_time() - began
    connection.close()
    return many / spent
