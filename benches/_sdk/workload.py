"""The workload: 100 flags with two targeting rules each, then a percentage; 10,000 users. And the interpreter, 1.0."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mmh3

FLAGS, USERS, ROUNDS = 100, 10_000, 15
HALF = 50_000
KEYS = [f"flag-{number}" for number in range(FLAGS)]
PEOPLE: list[tuple[str, dict[str, Any]]] = [
    (f"user-{number}", {"country": ("CH", "FR", "US", "IT")[number % 4], "plan": ("free", "pro")[number % 2]})
    for number in range(USERS)
]
RULES = [("country", "in", ["DE", "AT"]), ("plan", "in", ["enterprise"])]
"""(attribute, operator, values); either serves "on". Then half of the users get "on", the others "off"."""

Interpreted = dict[str, tuple[dict[str, Any], list[tuple[str, list[str], str]], str, int]]


def interpreted() -> Interpreted:
    """The flags as the interpreter reads them: variants, rules, salt, and the buckets that get "on"."""
    rules = [(attribute, values, "on") for attribute, _, values in RULES]
    return {key: ({"on": True, "off": False}, rules, key, HALF) for key in KEYS}


def interpret(flags: Interpreted, key: str, unit: str, attributes: Mapping[str, Any]) -> tuple[Any, str, str]:
    """(value, variant, reason), as a plain Python interpreter finds them; a missing attribute matches nothing."""
    variants, rules, salt, below = flags[key]
    for attribute, values, variant in rules:
        if attributes.get(attribute) in values:
            return variants[variant], variant, "TARGETING_MATCH"
    variant = "on" if (mmh3.hash(salt + unit, 0, False) * 100_000) >> 32 < below else "off"
    return variants[variant], variant, "SPLIT"


def updated(content: bytes) -> Interpreted:
    """A document of ours as the interpreter would take it up: the standard library's decoder, then its tables."""
    flags = json.loads(content)["flags"]
    return {key: (flag["variants"], [(rule["when"]["attribute"], rule["when"]["values"], rule["variant"])
                                     for rule in flag["rules"][:-1]], flag["salt"], flag["rules"][-1]["weights"][0][1])
            for key, flag in flags.items()}  # fmt: skip


def document(flags: int = FLAGS, *, rollout: bool = False) -> dict[str, Any]:
    """The flags as a ruleset of ours; with `rollout`, the percentage is a running attempt and its answers evidence."""
    return {"environment": "bench", "revision": 1, "edition": "one", "flags": {
        f"flag-{number}": flag_document(number, rollout=rollout) for number in range(flags)
    }}  # fmt: skip


def flag_document(number: int, *, rollout: bool = False, below: int = HALF) -> dict[str, Any]:
    """One of them."""
    rules: list[dict[str, Any]] = [
        {"kind": "serve", "variant": "on", "when": {"attribute": attribute, "op": op, "values": values}}
        for attribute, op, values in RULES
    ]
    if rollout:
        rules.append({"kind": "rollout", "rollout": f"ro_{number}", "attempt": f"at_{number}", "baseline": "off",
                      "candidate": "on", "threshold": below, "lease_ms": 900_000})  # fmt: skip
    else:
        rules.append({"kind": "split", "weights": [["on", below], ["off", 100_000 - below]]})
    variants = {"on": True, "off": False}
    return {"variants": variants, "default_variant": "off", "salt": f"flag-{number}", "rules": rules}


def by_turns(functions: Mapping[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, float]:
    """Seconds that each takes, the best of some rounds in which they take turns."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def asks(ask: Callable[..., Any], users: Sequence[tuple[Any, ...]]) -> Callable[[], None]:
    """The loop around one evaluation, the same for everybody: `ask(key, *user)`."""
    asked = [(KEYS[number % FLAGS], *user) for number, user in enumerate(users)]
    if len(users[0]) == 1:

        def one() -> None:
            for key, user in asked:
                ask(key, user)

        return one

    def two() -> None:
        for key, unit, attributes in asked:
            ask(key, unit, attributes)

    return two


def interpreter() -> Callable[[], None]:
    """The loop of the interpreter over all users; the flags are an argument as everybody's are."""
    flags = interpreted()
    asked = [(KEYS[number % FLAGS], *user) for number, user in enumerate(PEOPLE)]

    def run() -> None:
        for key, unit, attributes in asked:
            interpret(flags, key, unit, attributes)

    return run


def times(ask: Callable[..., Any], users: Sequence[tuple[Any, ...]], rounds: int = ROUNDS) -> float:
    """How many times the interpreter's time one evaluation takes, measured by turns."""
    best = by_turns({"interpreter": interpreter(), "peer": asks(ask, users)}, rounds)
    return best["peer"] / best["interpreter"] * USERS / len(users)
