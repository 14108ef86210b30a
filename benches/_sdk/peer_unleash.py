"""Unleash: its client (Rust below) with its features from a bootstrapped cache, no connection, no metrics."""

import logging
from typing import Any

from UnleashClient import UnleashClient
from UnleashClient.cache import FileCache

from benches._sdk.workload import KEYS, PEOPLE, RULES


def feature(key: str) -> dict[str, Any]:
    """One flag as Unleash has it: strategies are alternatives."""
    strategies: list[dict[str, Any]] = [
        {"name": "default", "parameters": {}, "constraints": [
            {"contextName": attribute, "operator": "IN", "values": values}]}
        for attribute, _, values in RULES
    ]  # fmt: skip
    strategies.append({"name": "flexibleRollout", "constraints": [],
                       "parameters": {"rollout": "50", "stickiness": "userId", "groupId": key}})  # fmt: skip
    return {"name": key, "enabled": True, "type": "release", "strategies": strategies, "variants": []}


def prepare() -> tuple[Any, list[tuple[Any, ...]]]:
    """What is called for one evaluation, and with what."""
    logging.disable(logging.CRITICAL)
    cache = FileCache("bench")
    cache.bootstrap_from_dict({"version": 1, "features": [feature(key) for key in KEYS]})
    client = UnleashClient("http://127.0.0.1:9/api", "bench", cache=cache, disable_metrics=True,
                           disable_registration=True, custom_headers={"Authorization": "none"})  # fmt: skip
    client.initialize_client(fetch_toggles=False)
    users: list[tuple[Any, ...]] = [({"userId": unit, **attributes},) for unit, attributes in PEOPLE]

    def ask(key: str, user: Any) -> Any:
        return client.is_enabled(key, user)

    return ask, users
