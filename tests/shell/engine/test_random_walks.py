"""Random acts, evidence, kills, failing looks and clock jumps: what must hold does, after every step.

Exposure rises only by a step that may raise it; what is recorded is what is served; transitions are numbered without
gaps; every recorded look can be made again. ROLLOUT_TEST_WALKS takes more walks than the suite does.
"""

import contextlib
import os
import random

import msgspec
import pytest

from rollout.db import flag_states, rollouts
from rollout.delivery import publish as publish_module
from rollout.domain.compile import compile_ruleset
from rollout.domain.plan import PlanBody
from rollout.domain.rollout import ALLOWED, ENDED, State, percentage_now
from rollout.engine import switch
from rollout.engine import watchman as watchman_module
from rollout.engine.replay import replay
from rollout.errors import RolloutError
from rollout_client.evaluation.ruleset import BUCKETS, RolloutRule, Ruleset
from tests.shell.engine.lab import ANN, Lab, lab

RAISES = {"start", "advance", "complete", "resume", "regain"}
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


async def holds(service: Lab, identifier: str, before: State) -> State:
    """The invariants; the present state."""
    row = await service.row(identifier)
    async with service.database.read() as session:
        found = await rollouts.transitions(session, identifier)
        killed = (await flag_states.find(session, "answer", "production")).killed
        wanted = compile_ruleset(await publish_module.gathered(session, "production", service.now), 0)
    assert [each.seq for each in found] == list(range(1, len(found) + 1))
    assert before.status not in ENDED or row.state == before, "what has ended stays as it is"
    for each in found:
        rises = each.change.to_percentage > each.change.from_percentage
        assert not rises or each.change.step in RAISES, each
    await service.control.hub.refresh()
    newest = service.control.hub.newest("production")
    assert newest is not None
    assert msgspec.structs.replace(newest.ruleset, revision=0, edition="") == wanted, (
        "what is recorded is what is served"
    )
    assert newest.ruleset.flags["answer"].killed == killed
    assert exposed(newest.ruleset) <= max(percentage_now(row.document, row.state), *kept(row.document, row.state)) / 100
    return row.state


def exposed(ruleset: Ruleset) -> float:
    """The widest share any rule of the ruleset gives the candidate."""
    rules = [rule for rule in ruleset.flags["answer"].rules if isinstance(rule, RolloutRule)]
    return max((rule.threshold / BUCKETS for rule in rules), default=0.0)


def kept(plan: PlanBody, state: State) -> list[float]:
    """What cohorts of earlier stages keep."""
    earlier = plan.stages[: max(state.stage, 0)] if state.exposed else ()
    return [0.0, *(stage.percentage for stage in earlier if stage.cohort is not None)]


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_the_invariants_hold_on_every_random_walk(
    sqlite_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    async with lab(sqlite_url) as service:
        service.rng = random.Random(seed)
        identifier = await service.start(**PLANS[seed % len(PLANS)])
        state = await holds(service, identifier, State())
        for _ in range(25):
            await step(service, identifier, rng, monkeypatch)
            state = await holds(service, identifier, state)
            if state.status in ENDED:
                break
        async with service.database.read() as session:
            assert (await replay(session, identifier)).exact
