"""Values of users who return: means, quantiles and distributions, each bet tempered by the D of its own score.

The judge itself, with cells as clients send them once thresholds are frozen. Every user has a level of its own: two
thirds of the variance of the logarithms lie between users, and eighty of them make all the requests of an arm.
"""

from typing import Any

import numpy as np
import pytest

from rollout.domain import weigh
from rollout.domain.metric import Metric
from rollout_client.evaluation.evidence import ArmIncrement, MetricIncrement, SlotIncrement
from rollout_client.evaluation.ruleset import RulesetMetric
from rollout_client.increments import add, measure
from tests.validity.judged import FIRST, Rollout

pytestmark = pytest.mark.slow
USERS, LOOKS, REQUESTS = 80, 30, 60
BETWEEN, WITHIN = 0.7, 0.5  # standard deviations of the logarithm
KINDS: list[tuple[str, dict[str, Any]]] = [("mean", {}), ("quantile", {"focus": "p90"}), ("distribution", {})]


def folded(rng: np.random.Generator, subject: Rollout, levels: np.ndarray, cells: np.ndarray) -> ArmIncrement:
    """One look's requests of one arm, as its client folds them."""
    mine = subject.evidence.metrics.get("v")
    metric = RulesetMetric(kind=subject.watched[0].kind)
    metric = metric if mine is None or mine.frozen is None else metric.measured(mine.frozen)
    users = rng.integers(0, USERS, REQUESTS)
    increment, n = MetricIncrement(), np.bincount(cells[users], minlength=256)
    for user, noise in zip(users.tolist(), rng.normal(0.0, WITHIN, REQUESTS).tolist(), strict=True):
        add(increment, int(cells[user]), *measure(metric, float(np.exp(levels[user] + noise))))
    seen = {int(cell): int(n[cell]) for cell in np.flatnonzero(n)}
    return ArmIncrement(slots={FIRST: SlotIncrement(exposures=seen, started=dict(seen), metrics={"v": increment})})


def wrong(rng: np.random.Generator, kind: str, guardrail: dict[str, Any], *, on_margin: bool) -> bool:
    """Whether an equal candidate is rolled back, or one exactly on its margin lets the gate pass."""
    watched = {"metric": "v", "max_regression": {"relative": 0.3}, "rollback_on": "any_regression", **guardrail}
    analysis = {"alpha_rollback": 1e-9 if on_margin else 0.05}
    subject = Rollout(Metric(key="v", kind=kind), guardrails=[watched], analysis=analysis)
    shift = np.log(1.3) if on_margin else 0.0
    population = {
        arm: (rng.normal(moved, BETWEEN, USERS), rng.integers(0, 256, USERS))
        for arm, moved in (("candidate", shift), ("baseline", 0.0))
    }
    for look in range(LOOKS):
        arms = {arm: folded(rng, subject, *users) for arm, users in population.items()}
        found = subject.look(60.0 * look, arms, USERS)
        if found.readings[0].verdict == "pass" if on_margin else found.breached:
            return True
    return False


@pytest.mark.parametrize("on_margin", [False, True], ids=["rolled back", "advanced"])
@pytest.mark.parametrize(("kind", "guardrail"), KINDS, ids=[kind for kind, _ in KINDS])
def test_users_who_return_with_values_of_their_own_are_no_evidence(
    kind: str, guardrail: dict[str, Any], on_margin: bool
) -> None:
    rng = np.random.default_rng(11)
    runs = 80
    allowed = 0.05 + 2.0 * (0.05 * 0.95 / runs) ** 0.5
    assert np.mean([wrong(rng, kind, guardrail, on_margin=on_margin) for _ in range(runs)]) <= allowed


@pytest.mark.parametrize("on_margin", [False, True], ids=["rolled back", "advanced"])
def test_without_tempering_the_same_users_would_be(monkeypatch: pytest.MonkeyPatch, on_margin: bool) -> None:
    monkeypatch.setattr(weigh, "_rounded_effects", lambda arms, _unknown: np.ones(arms[0].independent.size))
    monkeypatch.setattr(weigh, "_least", lambda *_: 1.0)
    rng = np.random.default_rng(11)
    assert np.mean([wrong(rng, "quantile", {"focus": "p90"}, on_margin=on_margin) for _ in range(40)]) > 0.12
