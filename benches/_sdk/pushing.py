"""From the call that changes a flag to the answer of `evaluate()`, while a real service on SQLite serves 500 streams.

Ten of the streams are those of whole clients, spread evenly among the others, which only read their events: five
hundred clients would take longer to answer, on the cores that they share with the service, than the service to tell
them. The time is from before the call, so the transaction of the change, with its flush to the disk, is part of it.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Protocol

from benches._sdk.rows import ROOT, Row
from benches._sdk.watching import FLAG
from tests.journeys.service import Service, service

STREAMS, CLIENTS, PROCESSES = 500, 10, 2
CHANGES = 30
_FILES = 2 * STREAMS
_NAME = f"push to the change seen in evaluate(), {STREAMS} streams"
_EVERY = f"push to the change at all {STREAMS} streams (its event, or evaluate())"


class Served(Protocol):
    """What is watched: its address, and a key that may read."""

    url: str
    sdk_key: str


class Watcher:
    """A process of `benches._sdk.watching`."""

    def __init__(self, kind: str, served: Served) -> None:
        command = [sys.executable, "-m", "benches._sdk.watching", kind, served.url, served.sdk_key]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def open(self, many: int) -> None:
        """Open so many more, and wait until they are."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{many}\n")
        if stdout.readline() != "open\n":
            raise RuntimeError("what watches the service has failed")

    def end(self) -> list[list[float]]:
        """When each saw each change."""
        said, _ = self._process.communicate("\n", timeout=30)
        seen: list[list[float]] = json.loads(said)
        return seen


def rows(quick: bool) -> list[Row]:
    """The rows."""
    _allow_files()
    with tempfile.TemporaryDirectory() as folder, service(f"sqlite:///{folder}/rampline.db", Path(folder)) as served:
        clients = [Watcher("clients", served) for _ in range(PROCESSES)]
        streams = Watcher("streams", served)
        for number in range(CLIENTS):
            streams.open(STREAMS // CLIENTS - 1)
            clients[number % PROCESSES].open(1)
        began, ended = _changes(served, 8 if quick else CHANGES)
        evaluated = [each for watcher in clients for each in watcher.end()]
        arrived = streams.end()
    asked, every = _waits(evaluated, began), _waits(evaluated + arrived, began)
    answered = median(end - begin for begin, end in zip(began, ended, strict=True)) * 1e3
    return [
        Row(f"{_NAME}: p50", _percentile(asked, 50), "ms", 30.0),
        Row(f"{_NAME}: p99", _percentile(asked, 99), "ms", 150.0),
        Row(f"{_EVERY}: p50", _percentile(every, 50), "ms"),
        Row(f"{_EVERY}: p99", _percentile(every, 99), "ms"),
        Row("push to the answer of the call itself, which is committed then: p50", answered, "ms"),
    ]


def _allow_files() -> None:
    """Let this process, and with it those it starts, have as many files open as there are streams, and more."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed < _FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES if most < 0 else min(_FILES, most), most))


def _changes(served: Service, many: int) -> tuple[list[float], list[float]]:
    """Change the flag again and again, at no beat of the engine's; when each call began and ended."""
    flag: dict[str, Any] = {"key": FLAG, "variants": {"v7": "small", "v8": "large"}, "default_variant": "v7"}
    on = {**flag, "targeting": {"production": {"rules": [{"variant": "v8"}]}}}
    began, ended = [], []
    for number in range(many):
        time.sleep(0.3 + 0.2 * (number * 0.618 % 1))
        began.append(time.monotonic())
        answer = served.http.put(f"/api/v1/flags/{FLAG}", json=flag if number % 2 else on)
        ended.append(time.monotonic())
        answer.raise_for_status()
    time.sleep(1.0)
    return began, ended


def _waits(seen: list[list[float]], began: list[float]) -> list[float] | None:
    """How long each waited for each change; None if one of them did not see every change."""
    if any(len(each) != len(began) for each in seen):
        return None
    return [when - change for each in seen for when, change in zip(each, began, strict=True)]


def _percentile(waits: list[float] | None, percent: int) -> float | None:
    """Milliseconds."""
    return None if waits is None else quantiles(waits, n=100, method="inclusive")[percent - 1] * 1e3
