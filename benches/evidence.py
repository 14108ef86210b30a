"""Evidence: what one flush costs for one event, a thousand and a million, on the wire and in the service.

The peer is what event pipelines send: one JSON object per event, gzipped. The floor of counting is one Counter with the
same keys. Figures are ratios measured in this run.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from rollout.db import documents, environments
from rollout.db.migrate import migrate
from rollout.db.session import Database
from rollout.delivery.hub import Hub
from rollout.domain.environment import Environment
from rollout.domain.flag import Flag
from rollout.domain.metric import Metric
from rollout.domain.plan import Guardrail, MaxRegression, RolloutDocument, Stage
from rollout.engine import commands, drafting
from rollout.engine.control import Control
from rollout.engine.rights import Act, Actor
from rollout.ingest.accept import accept
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import compile_ruleset, evaluate
from rollout_client.evaluation.evidence import Batch
from rollout_client.evaluation.ruleset import RolloutRule, Ruleset, RulesetFlag, RulesetMetric
from rollout_client.fold import Folder
from rollout_client.options import Options

SLOT = 29_500_000
USERS = 20_000


def ruleset(attempt: str) -> Ruleset:
    """One flag with one running rollout."""
    rule = RolloutRule(
        rollout="ro_1", attempt=attempt, baseline="v7", candidate="v8", threshold=50_000, metrics=("error_rate",)
    )
    flag = RulesetFlag(variants={"v7": 7, "v8": 8}, default_variant="v7", salt="answer", rules=(rule,))
    metric = RulesetMetric(kind="proportion")
    return Ruleset(environment="production", revision=1, flags={"answer": flag}, metrics={"error_rate": metric})


def folded(events: int, attempt: str) -> tuple[bytes, float]:
    """One encoded flush after so many requests of 20,000 users, and the seconds that counting took."""
    compiled = compile_ruleset(ruleset(attempt))
    folder = Folder(Options(flush_exposures=10**9), lambda: None)
    folder.follow(compiled)
    rng = random.Random(1)
    users = [Context(f"user-{number}") for number in range(USERS)]
    requests = [(users[rng.randrange(USERS)], rng.random() < 0.02) for _ in range(events)]
    answers = {id(user): evaluate(compiled, "answer", user, slot=SLOT) for user in users}
    began = time.perf_counter()
    for user, failed in requests:
        answer = answers[id(user)]
        folder.noted.append(answer)
        if len(folder.noted) >= folder.together:
            folder.crowd()
        folder.start(answer)
        folder.finish(answer, {"error_rate": failed}, ())
    took = time.perf_counter() - began
    attempts = folder.take(SLOT)
    batch = Batch(batch_id=f"b{events}", environment="production", process="p", client="bench", attempts=attempts[0])
    return msgspec.json.encode(batch), took


def raw_events(events: int) -> int:
    """Bytes of the same requests as one JSON object per event, gzipped."""
    rng = random.Random(1)
    lines = (
        json.dumps({"event": "outcome", "user": f"user-{rng.randrange(USERS)}", "flag": "answer", "variant": "v7",
                    "metric": "error_rate", "value": rng.random() < 0.02, "time": SLOT * 60 + n})
        for n in range(events)
    )  # fmt: skip
    return len(gzip.compress("\n".join(lines).encode(), 6))


def counting_floor(events: int) -> float:
    """Seconds that one Counter takes for the same number of events, three counts each."""
    rng = random.Random(1)
    cells = [(rng.randrange(2), rng.randrange(256)) for _ in range(events)]
    counts: Counter[tuple[str, tuple[int, int]]] = Counter()
    began = time.perf_counter()
    for cell in cells:
        counts["exposures", cell] += 1
        counts["started", cell] += 1
        counts["n", cell] += 1
    return time.perf_counter() - began


async def accepting(sizes: list[int]) -> list[float]:
    """Seconds to accept and commit one flush of each size, the best of five, on SQLite with synchronous=FULL."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder)}/bench.db")
        try:
            control, attempt = await _started(database)
            taken = []
            for size in sizes:
                best = float("inf")
                document = json.loads(folded(size, attempt)[0])
                for repeat in range(5):
                    body = json.dumps({**document, "batch_id": f"b{size}-{repeat}"}).encode()
                    began = time.perf_counter()
                    await accept(database, "production", body, control.now())
                    best = min(best, time.perf_counter() - began)
                taken.append(best)
            return taken
        finally:
            await database.close()


async def _started(database: Database) -> tuple[Control, str]:
    control = Control(database, Hub(database))
    await migrate(database)
    async with database.write() as session:
        await environments.save(session, Environment(key="production"), control.now())
        await documents.save(session, Flag(key="answer", variants={"v7": 7, "v8": 8}, default_variant="v7"), None)
        await documents.save(session, Metric(key="error_rate", kind="proportion", event="failed"), None)
    document = RolloutDocument(
        flag="answer", environment="production", baseline="v7", candidate="v8",
        stages=(Stage(name="half", percentage=50),),
        guardrails=(Guardrail(metric="error_rate", max_regression=MaxRegression(absolute=0.02)),),
    )  # fmt: skip
    identifier = await drafting.create(control, document, "bench")
    await commands.act(control, identifier, Act(action="start"), Actor(name="bench", may_operate=True))
    newest = control.hub.newest("production")
    assert newest is not None
    return control, next(rule.attempt for rule in newest.ruleset.flags["answer"].rules if isinstance(rule, RolloutRule))


def rows(most: int) -> list[dict[str, Any]]:
    """One row per claim."""
    small, large = 1_000, most
    sizes = {events: folded(events, "at_1") for events in (1, small, 100_000, large)}
    wire = {events: len(gzip.compress(body, 6)) for events, (body, _) in sizes.items()}
    counting = sizes[large][1] / large
    floor = counting_floor(large) / large
    accepted = asyncio.run(accepting([small, large]))
    return [
        row("bytes of a flush, most events over 100,000", wire[large] / wire[100_000], "ratio", 1.5),
        row(f"bytes of a flush of {large:,} events", wire[large], "bytes", 30_000, raw=raw_events(large)),
        row(f"bytes of a flush of {small:,} events", wire[small], "bytes", None, raw=raw_events(small)),
        row("bytes of a flush of 1 event", wire[1], "bytes", None, raw=raw_events(1)),
        row("counting one request, over a Counter", counting / floor, "ratio", 10, floor=floor * 1e9),
        row(f"accepting {large:,} events over {small:,}", accepted[1] / accepted[0], "ratio", 3),
        row(f"accepting a flush of {large:,} events", accepted[1] * 1e3, "ms", None),
    ]


def row(
    name: str, value: float, unit: str, target: float | None, floor: float | None = None, **peers: float
) -> dict[str, Any]:
    """One measured claim; without a target it is shown, not judged."""
    holds = target is None or value <= target
    return {"name": name, "value": round(value, 3), "unit": unit, "target": target, "holds": holds,
            "floor": floor, "peers": peers}  # fmt: skip


def main() -> int:
    """Measure, print a table, and with --json one object last; 1 if a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, prog="bench evidence")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--quick", action="store_true", help="200,000 events instead of a million")
    wanted = parser.parse_args()
    measured = rows(200_000 if wanted.quick else 1_000_000)
    for each in measured:
        against = "".join(f"  {name}: {value:,.0f}" for name, value in each["peers"].items())
        target = "" if each["target"] is None else f"  (target <= {each['target']:g})"
        print(f"{each['name']:<48} {each['value']:>12,.2f} {each['unit']}{target}{against}")
    holds = all(each["holds"] for each in measured)
    if wanted.json:
        print(json.dumps({"bench": "evidence", "holds": holds, "rows": measured}))
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
