"""From the observation that decides, sent to a real service on SQLite, to the new ruleset in a hundred clients.

Ten of them are whole clients, in processes of their own, whose `evaluate()` must answer with the baseline again; the
others read their streams. The time is from before the request with the evidence: it is accepted and committed, the
engine is nudged and judges, takes the candidate back and publishes, both committed to the disk, and the clients hear of
it. The floor is one event of a bare asyncio server to as many streams.
"""

import random
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

from benches._control.bare import Bare
from benches._sdk.pushing import Watcher
from benches._sdk.rows import Row
from rollout_client.evaluation.ruleset import SCHEMA
from tests.journeys.service import Service, service, until

STREAMS, CLIENTS, PROCESSES = 90, 10, 2
TRIALS = 25
METRICS: list[dict[str, Any]] = [
    {"key": "latency_ms", "kind": "distribution", "unit": "ms"},
    {"key": "thumbs_down", "kind": "proportion", "event": "thumbs down", "denominator": "exposure", "maturity": "2m"},
]
PLAN: dict[str, Any] = {
    "stages": [{"name": "most", "percentage": 80, "min_duration": "1h"}, {"name": "all", "percentage": 95}],
    "guardrails": [
        {"metric": "error_rate", "max_regression": {"absolute": 0.02}},
        {"metric": "latency_ms", "focus": "p95", "max_regression": {"relative": 0.1}},
        {"metric": "thumbs_down", "max_regression": {"relative": 0.2}},
    ],
}
NAME = f"observation to the new ruleset at {STREAMS + CLIENTS} clients"


def rows(quick: bool) -> list[Row]:
    """The rows."""
    trials = 6 if quick else TRIALS
    floor = _bare(trials)
    with tempfile.TemporaryDirectory() as folder, service(f"sqlite:///{folder}/rampline.db", Path(folder)) as served:
        for metric in METRICS:
            served.post("metrics", metric)
        clients = [Watcher("clients", served) for _ in range(PROCESSES)]
        for watcher in clients:
            watcher.open(CLIENTS // PROCESSES)
        streams = Watcher("streams", served)
        streams.open(STREAMS)
        sent = [_taken_back(served, number) for number in range(trials + 1)][1:]  # the first warms the service up
        time.sleep(1.0)
        evaluated = _waits([each for watcher in clients for each in watcher.end()], sent)
        arrived = _waits(streams.end(), sent)
    every = None if evaluated is None or arrived is None else evaluated + arrived
    return [
        Row(f"{NAME}: p50", _percentile(every, 50), "ms", floor=_percentile(floor, 50)),
        Row(f"{NAME}: p95", _percentile(every, 95), "ms", 500.0, floor=_percentile(floor, 95)),
        Row(f"the same, to evaluate() in the {CLIENTS} whole clients: p95", _percentile(evaluated, 95), "ms"),
    ]  # fmt: skip


def _taken_back(served: Service, number: int) -> tuple[float, float]:
    """Start a rollout, let its candidate fail; when that was sent, and when it was over.

    The whole clients ask for one user all the time, and say so: without enough failures and successes in both arms to
    tell how they cluster, it would be taken for what every user does.
    """
    identifier = served.rollout(**PLAN)
    attempt = served.get(f"rollouts/{identifier}")["state"]["attempts"][-1]["id"]
    time.sleep(0.5 + 0.4 * (number * 0.618 % 1))  # at no beat of the engine's
    batch = {
        "schema": SCHEMA, "batch_id": f"bench-{number}", "environment": "production", "process": "p", "client": "bench",
        "attempts": {attempt: {"candidate": _counted(400, 320), "baseline": _counted(120, 40)}},
    }  # fmt: skip
    sent = time.monotonic()
    answer = served.http.post("/sdk/v1/events", json=batch, headers={"Authorization": f"Bearer {served.sdk_key}"})
    answer.raise_for_status()
    until(lambda: served.status(identifier)["status"] == "rolled_back", 60, "the candidate is taken back")
    over = time.monotonic()
    time.sleep(0.3)
    return sent, over


def _counted(requests: int, failed: int) -> dict[str, Any]:
    """What a client counts of so many requests of one minute, each of a user of its own."""
    rng = random.Random(requests)
    cells: dict[str, list[int]] = {}
    for request in range(requests):
        numbers = cells.setdefault(str(rng.randrange(256)), [0, 0])
        numbers[0] += 1
        numbers[1] += request < failed
    seen = {cell: numbers[0] for cell, numbers in cells.items()}
    slot = {"exposures": seen, "first_exposures": seen, "started": seen, "metrics": {"error_rate": {"cells": cells}}}
    return {"sketch": [[rng.randrange(1024), rng.randint(1, 6)] for _ in range(requests)],
            "slots": {str(int(time.time()) // 60): slot}}  # fmt: skip


def _bare(trials: int) -> list[float] | None:
    server = Bare()
    try:
        streams = Watcher("streams", server)
        streams.open(STREAMS + CLIENTS)
        pushed = []
        for _ in range(trials):
            pushed.append(server.push())
            time.sleep(0.2)
        return _waits(streams.end(), [(began, began + 0.2) for began in pushed])
    finally:
        server.close()


def _waits(seen: list[list[float]], sent: list[tuple[float, float]]) -> list[float] | None:
    """How long each waited for the first change after each sending; None if one of them missed one."""
    waits = []
    for each in seen:
        for began, over in sent:
            after = [when for when in each if began < when < over + 0.25]
            if not after:
                return None
            waits.append(after[0] - began)
    return waits


def _percentile(waits: list[float] | None, percent: int) -> float | None:
    """Milliseconds."""
    return None if waits is None else quantiles(waits, n=100, method="inclusive")[percent - 1] * 1e3
