"""How long the asyncio client holds its loop up: while it starts, while 10,000 flags change, while it flushes.

In a process of its own, so that a start has everything to import, against a service on a real socket. A task that
sleeps for a millisecond, again and again, says how late the loop is; one without any client is the floor. What is there
before a change is frozen, as servers do: else a full pass of Python's garbage collector over all modules is measured.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from statistics import median
from typing import Any

from benches._sdk.applying import whole
from benches._sdk.rows import ENVIRONMENT, ROOT, Row
from benches._sdk.workload import FLAGS, document
from clients.python.tests.service import KEY, Service

_EXPOSURES, _UPDATES = 10_000, 4
_SCRIPT = f"""
import asyncio, gc, json, sys, time
from rollout_client import AsyncClient, Context, Options

class Watch:
    async def __aenter__(self):
        self.late, self.task = 0.0, asyncio.create_task(self.run())
        await asyncio.sleep(0.05)
        self.late = 0.0
        return self

    async def __aexit__(self, *_):
        self.task.cancel()

    async def run(self):
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            self.late = max(self.late, time.perf_counter() - began - 0.001)

async def main(url, key):
    said = {{}}
    async with Watch() as watch:
        await asyncio.sleep(1.0)
        said["floor"] = watch.late
    client = AsyncClient(url, key, environment="bench", options=Options(flush_interval=0.5))
    async with Watch() as watch:
        await client.start()
        while client.status().revision is None or client.status().stream != "open":
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        said["start"] = watch.late
    gc.collect()
    gc.freeze()
    said["updates"] = []
    for revision in range(2, {_UPDATES} + 2):
        async with Watch() as watch:
            print(revision, flush=True)
            while client.status().revision != revision:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            said["updates"].append(watch.late)
    gc.collect()
    gc.freeze()
    async with Watch() as watch:
        for number in range({_EXPOSURES}):
            client.evaluate(f"flag-{{number % 100}}", Context(f"user-{{number}}"))
            if number < 100 or number % 100 == 0:  # the first question to a flag compiles it
                await asyncio.sleep(0)
        await asyncio.sleep(1.0)
        said["flush"] = watch.late
    await client.close(2.0)
    print(json.dumps(said))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def rows(quick: bool) -> list[Row]:
    """The rows."""
    found = [_once() for _ in range(3 if quick else 7)]
    updates = [late for said in found for late in said["updates"]]
    floor = _ms(said["floor"] for said in found)
    arrived = min(said["arrived"] for said in found) == _EXPOSURES
    name = "asyncio: longest block of the loop while"
    return [
        Row(f"{name} it starts", _ms(said["start"] for said in found), "ms", 5.0, floor),
        Row(f"{name} it takes in 10,000 changed flags", _ms(updates), "ms", 5.0, floor),
        Row(f"{name} it flushes {_EXPOSURES:,} exposures", _ms(said["flush"] for said in found), "ms", 5.0, floor,
            also=arrived),
    ]  # fmt: skip


def _ms(seconds: Iterable[float]) -> float:
    return median(seconds) * 1e3


def _once() -> dict[str, Any]:
    service = Service()
    command = [sys.executable, "-c", _SCRIPT, service.url, KEY]
    contents = {revision: whole(revision, rollouts=FLAGS) for revision in range(2, _UPDATES + 2)}
    service.body, service.edition = json.dumps(document(rollout=True)).encode(), "one"
    try:
        with subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for revision, content in contents.items():
                assert process.stdout.readline().strip() == str(revision)
                service.body, service.revision, service.edition = content, revision, f"e{revision}"
                service.push_raw(service.heartbeat())
            said: dict[str, Any] = json.loads(process.stdout.readline())
        return said | {"arrived": sum(service.counted("exposures").values())}
    finally:
        service.down()
