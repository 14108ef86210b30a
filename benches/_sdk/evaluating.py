"""Our evaluation as a multiple of the interpreter, and our OpenFeature provider over the no-op one."""

import time
from typing import Any

import msgspec
from openfeature import api
from openfeature.evaluation_context import EvaluationContext

from benches._sdk import peers
from benches._sdk.rows import Row
from benches._sdk.workload import FLAGS, KEYS, PEOPLE, ROUNDS, asks, by_turns, document, interpreter
from rollout_client import Client, Context
from rollout_client.evaluation.evaluate import compile_ruleset, evaluate
from rollout_client.evaluation.ruleset import Ruleset
from rollout_client.openfeature import RamplineProvider

PIECE = 4_000
"""Unique users between two counts by the client's thread, which is stopped here; it counts at every flush."""


def rows(quick: bool) -> list[Row]:
    """The rows that are multiples of the interpreter, with the peers."""
    rounds = 4 if quick else ROUNDS
    compiled = compile_ruleset(msgspec.convert(document(), Ruleset))
    users = [(Context(unit, attributes),) for unit, attributes in PEOPLE]
    counting = Counting(_client(document(rollout=True)))
    best = by_turns(
        {
            "interp": interpreter(),
            "plain": asks(lambda key, user: None, users),
            "ours": _loop(compiled, users),
            "counted": counting.evaluate_again,
        },
        rounds,
    )
    interp = best["interp"]
    measured = {name: peers.measure(name, 3 if quick else 8) for name in peers.names()}
    named = {"interp (ns)": interp / len(users) * 1e9, **measured}
    eppo = measured["eppo"]
    ours = best["ours"] / interp
    hot, whole = (each / interp * len(users) / PIECE for each in (counting.hot, counting.whole))
    return [
        Row("one evaluation (value, variant, reason), x interp; and below Eppo", ours, "x", 1.0, 0.35, named,
            also=eppo is not None and ours < eppo),
        Row("evaluate() with all details and exposure counting, unique users, x interp", hot, "x", 2.0),
        Row("the same with what the client's thread counts later", whole, "x"),
        _provider(rounds),
    ]  # fmt: skip


def _loop(compiled: Any, users: list[Any]) -> Any:
    asked = [(KEYS[number % FLAGS], user) for number, (user,) in enumerate(users)]

    def run() -> None:
        for key, user in asked:
            evaluate(compiled, key, user)

    return run


def _client(ruleset: dict[str, Any]) -> Client:
    """A client that has its ruleset from the service, as far as it can tell, and no thread."""
    client = Client("http://127.0.0.1:9", "none", environment="bench")
    compiled = client._served.compile(msgspec.convert(ruleset, Ruleset))
    assert compiled is not None
    client._served.take(compiled, "service", 0, time.monotonic())
    client._changed()
    return client


class Counting:
    """Evaluates for users that were never seen, a piece at a time; then counts what was noted, as each flush does."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._round = 0
        self.hot = self.whole = float("inf")

    def evaluate_again(self) -> None:
        """One piece."""
        self._round += 1
        asked = [
            (KEYS[number % FLAGS], Context(f"{unit}-{self._round}", attributes))
            for number, (unit, attributes) in enumerate(PEOPLE[:PIECE])
        ]
        evaluate_one = self._client.evaluate
        began = time.perf_counter()
        for key, user in asked:
            evaluate_one(key, user)
        self.hot = min(self.hot, time.perf_counter() - began)
        self._client._folder.take(0)
        self.whole = min(self.whole, time.perf_counter() - began)


def _provider(rounds: int) -> Row:
    client = _client(document())
    users = [(EvaluationContext(unit, attributes),) for unit, attributes in PEOPLE]
    api.set_provider(RamplineProvider(client), "ours")
    ours, nothing = api.get_client("ours"), api.get_client("nothing")
    best = by_turns(
        {
            "nothing": asks(lambda key, user: nothing.get_boolean_details(key, False, user), users),
            "ours": asks(lambda key, user: ours.get_boolean_details(key, False, user), users),
        },
        max(3, rounds // 3),
    )
    client.close()
    return Row("OpenFeature provider over the no-op provider", best["ours"] / best["nothing"], "x", 1.1)
