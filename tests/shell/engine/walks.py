"""Random walks of one rollout through the lab: acts, evidence, kills, failing looks and clock jumps.

The control rules themselves are held by the state machine; this is for tests that need a rollout with a past.
"""

import contextlib
import os
import random

import pytest

from rollout.domain.rollout import ALLOWED
from rollout.engine import switch
from rollout.engine import watchman as watchman_module
from rollout.errors import RolloutError
from tests.shell.engine.lab import ANN, Lab

SEEDS = int(os.environ.get("ROLLOUT_TEST_WALKS", "10"))
PLANS = [
    {},
    {"bake": {"duration": "10m", "holdback": 5}, "lease": "5m", "exclusion": {"group": "pages", "share": 30}},
    {"guardrails": [{"metric": "error_rate", "max_regression": {"absolute": 0.02}, "on_breach": "pause"}]},
    {
        "stages": [{"name": "pilot", "cohort": "staff", "percentage": 50}, {"name": "open", "percentage": 20}],
        "lease": "2m",
    },
    {
        "guardrails": [],
        "signals": [{"metric": "error_rate", "max_regression": {"absolute": 0.02}}],
        "stages": [{"name": "a", "percentage": 5}, {"name": "b", "percentage": 100}],
    },
]


async def step(service: Lab, identifier: str, rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thing that may happen to a rollout."""
    kind = rng.choice(["time", "time", "send", "send", "send", "act", "kill", "restore", "broken"])
    row = await service.row(identifier)
    if kind == "time":
        await service.pass_time(rng.choice([1, 60, 700, 4000]), look_every=300)
    elif kind == "send" and row.state.attempt is not None:
        await service.send(identifier, rng.choice([0.0, 0.02, 0.3]), 0.02, n=rng.choice([0, 1, 60, 400]))
        await service.watchman.round()
    elif kind == "act":
        with contextlib.suppress(RolloutError):
            await service.act(identifier, rng.choice(sorted(ALLOWED)), "a random act")
    elif kind in ("kill", "restore"):
        await getattr(switch, kind)(service.control, "answer", "production", ANN.name, "drill")
    elif kind == "broken":
        with monkeypatch.context() as broken:

            async def fails(*_: object) -> None:
                raise RuntimeError("this look fails")

            broken.setattr(watchman_module, "look", fails)
            await service.pass_time(rng.choice([1, 400]))
