"""Eppo: Rust under PyO3, with its configuration given at the start."""

import json
from typing import Any

import eppo_client
from eppo_client._eppo_client import Configuration
from eppo_client.assignment_logger import AssignmentLogger
from eppo_client.config import Config

from benches._sdk.workload import KEYS, PEOPLE, RULES

SHARDS = 10_000


def flag(key: str) -> dict[str, Any]:
    """One flag as Eppo's configuration has it."""
    half = {"salt": key, "ranges": [{"start": 0, "end": SHARDS // 2}]}
    rest = {"salt": key, "ranges": [{"start": SHARDS // 2, "end": SHARDS}]}
    allocations: list[dict[str, Any]] = [
        {"key": f"rule-{number}", "doLog": False, "splits": [{"variationKey": "on", "shards": []}],
         "rules": [{"conditions": [{"attribute": attribute, "operator": "ONE_OF", "value": values}]}]}
        for number, (attribute, _, values) in enumerate(RULES)
    ]  # fmt: skip
    allocations.append({"key": "percentage", "doLog": False, "rules": [], "splits": [
        {"variationKey": "on", "shards": [half]}, {"variationKey": "off", "shards": [rest]}]})  # fmt: skip
    return {"key": key, "enabled": True, "variationType": "BOOLEAN", "totalShards": SHARDS, "allocations": allocations,
            "variations": {"on": {"key": "on", "value": True}, "off": {"key": "off", "value": False}}}  # fmt: skip


def prepare() -> tuple[Any, list[tuple[Any, ...]]]:
    """What is called for one evaluation, and with what."""
    document = {"createdAt": "2026-01-01T00:00:00.000Z", "format": "SERVER", "environment": {"name": "bench"},
                "flags": {key: flag(key) for key in KEYS}}  # fmt: skip
    configuration = Configuration(flags_configuration=json.dumps(document).encode())
    config = Config(api_key="none", base_url="http://127.0.0.1:9/api", assignment_logger=AssignmentLogger(),
                    initial_configuration=configuration, poll_interval_seconds=None)  # fmt: skip
    client = eppo_client.init(config)

    def ask(key: str, unit: str, attributes: dict[str, Any]) -> Any:
        return client.get_boolean_assignment(key, unit, attributes, False)

    return ask, [*PEOPLE]
