"""flagd: its OpenFeature provider in process, on a file."""

import json
import tempfile
from typing import Any

from openfeature import api
from openfeature.contrib.provider.flagd import FlagdProvider
from openfeature.contrib.provider.flagd.config import ResolverType
from openfeature.evaluation_context import EvaluationContext

from benches._sdk.workload import KEYS, PEOPLE, RULES


def flag(key: str) -> dict[str, Any]:
    """One flag as flagd has it, in JSON logic."""
    logic: Any = {"fractional": [{"cat": [key, {"var": "targetingKey"}]}, ["on", 50], ["off", 50]]}
    for attribute, _, values in reversed(RULES):
        logic = {"if": [{"in": [{"var": attribute}, values]}, "on", logic]}
    return {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off", "targeting": logic}


def prepare() -> tuple[Any, list[tuple[Any, ...]]]:
    """What is called for one evaluation, and with what."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
        json.dump({"flags": {key: flag(key) for key in KEYS}}, file)
    api.set_provider_and_wait(FlagdProvider(resolver_type=ResolverType.FILE, offline_flag_source_path=file.name))
    client = api.get_client()
    users: list[tuple[Any, ...]] = [(EvaluationContext(unit, attributes),) for unit, attributes in PEOPLE]

    def ask(key: str, user: Any) -> Any:
        return client.get_boolean_details(key, False, user)

    return ask, users
