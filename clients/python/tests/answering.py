"""Rulesets in a few words, and the whole answer that is expected of one."""

from __future__ import annotations

from typing import Any

import msgspec

from rollout_client.evaluation.answer import Evaluation
from rollout_client.evaluation.context import Context
from rollout_client.evaluation.evaluate import CompiledRuleset, compile_ruleset, evaluate
from rollout_client.evaluation.ruleset import Ruleset

LEASE = 900_000
VARIANTS = {"off": {"model": "none"}, "on": {"model": "large"}, "mid": {"model": "small"}}
FIRST_OF_ITS_BUCKET = {"user-14851": 27_048, "user-126138": 98_693}
"""Units whose hash under the salt "s" is the lowest of its bucket."""
LOWEST, HIGHEST = "user-39467", "user-102084"
"""Units in bucket 0 and in bucket 99,999."""


def leaf(attribute: str, op: str, *values: Any) -> dict[str, Any]:
    return {"attribute": attribute, "op": op, "values": list(values)}


def serve(variant: str, when: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"kind": "serve", "variant": variant, "when": when}


def split(*weights: tuple[str, int], **changes: Any) -> dict[str, Any]:
    return {"kind": "split", "weights": list(weights)} | changes


def rollout(**changes: Any) -> dict[str, Any]:
    rule = {"kind": "rollout", "rollout": "ro_1", "attempt": "at_1", "baseline": "off", "candidate": "on"}
    return rule | {"threshold": 50_000, "lease_ms": LEASE} | changes


def flag(*rules: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"variants": VARIANTS, "default_variant": "off", "salt": "s", "rules": list(rules)} | changes


def ruleset(flags: dict[str, Any], **changes: Any) -> Ruleset:
    return msgspec.convert({"environment": "e", "revision": 3, "edition": "a", "flags": flags} | changes, Ruleset)


def compiled(flags: dict[str, Any], **changes: Any) -> CompiledRuleset:
    return compile_ruleset(ruleset(flags, **changes))


def ask(document: dict[str, Any], context: Context, *lapsed: int | None, slot: int = 9, **more: Any) -> Evaluation:
    return evaluate(compiled({"f": document}, **more), "f", context, frozenset(lapsed), slot)


def said(variant: str, reason: Any, **more: Any) -> Evaluation:
    plain = {"error": None, "revision": 3, "flag": "f"}
    return Evaluation(VARIANTS[variant], variant, reason, **{**plain, **more})


def evidence(variant: str, arm: Any, unit: str, **more: Any) -> Evaluation:
    what = {"rollout": "ro_1", "attempt": "at_1", "arm": arm, "environment": "e", "unit": unit, "slot": 9}
    return said(variant, "SPLIT", **{**what, **more})
