"""Every kind of metric: a worse candidate goes back, an equal one completes, clients measure with what is frozen."""

import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from rollout_client import Client, Context
from tests.journeys.service import Service, service

Draw = Callable[[random.Random, float], Any]
PATIENCE = 45.0
CHUNK = 400
ENDS = {
    "worse": ("rolled_back", ["start", "roll_back"]),
    "equal": ("completed", ["start", "advance", "complete"]),
}


class Case(NamedTuple):
    """A metric, the guardrail on it, how an observation is drawn, and how much worse the worse candidate is."""

    metric: dict[str, Any]
    guardrail: dict[str, Any]
    draw: Draw
    worse: float
    short: int
    freezes: bool = True


def latency(rng: random.Random, worse: float) -> float:
    return worse * rng.lognormvariate(6.0, 0.5)


CASES = {
    "mean_cost": Case(
        {"kind": "mean", "unit": "USD"}, {"max_regression": {"relative": 0.5}},
        lambda rng, worse: worse * rng.lognormvariate(-4.0, 0.8), 2.0, 3,
    ),
    "p95_latency": Case({"kind": "quantile"}, {"max_regression": {"relative": 0.3}, "focus": "p95"}, latency, 2.0, 1),
    "latency": Case({"kind": "distribution"}, {"max_regression": {"relative": 0.3}, "focus": "p95"}, latency, 2.0, 3),
    "retries": Case(
        {"kind": "count_rate"}, {"max_regression": {"relative": 0.5}},
        lambda rng, worse: (int(rng.random() < 0.1 * worse), 1.0), 3.0, 2, False,
    ),
    "cost_per_call": Case(
        {"kind": "ratio"}, {"max_regression": {"relative": 0.5}},
        lambda rng, worse: (worse * rng.lognormvariate(0.0, 0.5), rng.randint(1, 3)), 3.0, 5, False,
    ),
    "rating": Case(
        {"kind": "mean", "direction": "higher_is_better", "bounds": [1, 5]}, {"max_regression": {"absolute": 0.5}},
        lambda rng, worse: float(max(1, min(5, round(rng.gauss(4.4, 0.8) - (worse - 1.0))))), 2.5, 3,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Path]]:
    folder = tmp_path_factory.mktemp("kinds")
    with service(f"sqlite+aiosqlite:///{folder}/rampline.db", folder) as running:
        yield running, folder / "rampline.db"


class Traffic:
    """Users of one flag; each is exposed once and observed once."""

    def __init__(self, client: Client, metric: str, fate: str, case: Case) -> None:
        self.client, self.metric, self.flag, self.case = client, metric, f"{metric}-{fate}", case
        self.worse = case.worse if fate == "worse" else 1.0
        self._rng, self._users = random.Random(self.flag), 0

    def serve(self) -> None:
        for _ in range(CHUNK):
            self._users += 1
            user = Context(f"{self.flag}-{self._users}")
            answer = self.client.evaluate(self.flag, user)
            value = self.case.draw(self._rng, self.worse if answer.variant == "v8" else 1.0)
            self.client.observe(self.metric, value, user)


def begin(running: Service, name: str, case: Case, fate: str) -> str:
    flag = f"{name}-{fate}"
    running.post(
        "flags", {"kind": "Flag", "key": flag, "variants": {"v7": "small", "v8": "large"}, "default_variant": "v7"}
    )
    stages = [
        {"name": "half", "percentage": 50, "min_duration": "1s", "min_units": 0},
        {"name": "most", "percentage": 60, "min_duration": "1s", "min_units": 0},
    ]
    return running.rollout(flag=flag, stages=stages, guardrails=[{"metric": name, **case.guardrail}])


def frozen(running: Service, flag: str, metric: str) -> dict[str, Any]:
    """What the ruleset says is frozen of a metric; empty before, and after the rollout."""
    answer = httpx.get(f"{running.url}/sdk/v1/ruleset", headers={"Authorization": f"Bearer {running.sdk_key}"})
    rules = answer.json()["flags"][flag].get("rules", [])
    return next((rule.get("frozen", {}).get(metric, {}) for rule in rules if rule["kind"] == "rollout"), {})


def longest_cell(database: Path, rollout: str, metric: str) -> int:
    """How many numbers the longest cell in the log of a rollout has."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as log:
        bodies = log.execute("select body from increments where rollout = ? and metric = ?", (rollout, metric))
        return max(
            len(cell) for (body,) in bodies for one in json.loads(body).values() for cell in one["cells"].values()
        )


def until_decided(running: Service, traffic: dict[str, Traffic], rollouts: dict[str, str]) -> dict[str, Any]:
    """Serve until each rollout has ended; what was frozen of each meanwhile."""
    published: dict[str, Any] = {}
    began, waiting = time.monotonic(), set(rollouts)
    while waiting:
        held = {fate: running.status(rollouts[fate])["held"] for fate in waiting}
        assert time.monotonic() - began < PATIENCE, held
        for fate in sorted(waiting):
            traffic[fate].serve()
            flag, metric = traffic[fate].flag, traffic[fate].metric
            published[fate] = published.get(fate) or frozen(running, flag, metric)
            if running.status(rollouts[fate])["status"] not in ("running", "baking"):
                waiting.discard(fate)
    return published


@pytest.mark.parametrize("name", list(CASES))
def test_a_worse_candidate_goes_back_and_an_equal_one_completes(name: str, opened: tuple[Service, Path]) -> None:
    (running, database), case = opened, CASES[name]
    running.post("metrics", {"key": name, **case.metric})
    rollouts = {fate: begin(running, name, case, fate) for fate in ENDS}
    with Client(running.url, running.sdk_key, environment="production") as client:
        assert client.wait_ready(10)
        traffic = {fate: Traffic(client, name, fate, case) for fate in ENDS}
        published = until_decided(running, traffic, rollouts)
        assert not client.status().dropped.get("bad_value")
    for fate, identifier in rollouts.items():
        status = running.status(identifier)
        assert (status["status"], status["readings"][0]["kind"]) == (ENDS[fate][0], case.metric["kind"])
        assert running.get(f"rollouts/{identifier}/replay")["exact"]
        steps = [each["change"]["step"] for each in running.get(f"rollouts/{identifier}/transitions")]
        assert steps.count("calibrate") == case.freezes
        assert [step for step in steps if step != "calibrate"] == ENDS[fate][1]
    more = len(published["equal"].get("thresholds", [])) + (1 if case.metric["kind"] == "quantile" else 3)
    longest = longest_cell(database, rollouts["equal"], name)
    assert longest == case.short + (more if case.freezes else 0)
    has_cap = case.metric["kind"] in ("mean", "distribution")
    assert (published["equal"].get("cap") is not None) == has_cap
