"""Statsig: its core (Rust under PyO3), with its configuration from a store, no connection and no exposures.

Asked for the value alone, which is the cheapest: with the rule and the reason (`get_feature_gate`) it takes half again
as long.
"""

import json
from typing import Any

from statsig_python_core import DataStore, DataStoreResponse, Statsig, StatsigOptions, StatsigUser

from benches._sdk.workload import KEYS, PEOPLE, RULES

EVERYBODY = "everybody"


def condition(kind: str, **asked: Any) -> dict[str, Any]:
    """What a rule asks; gates share their conditions."""
    nothing = {"operator": None, "field": None, "targetValue": None}
    return {"type": kind, "idType": "userID", "additionalValues": {}, **nothing, **asked}


def rule(key: str, condition: str, percentage: int) -> dict[str, Any]:
    """One rule: the first whose condition holds decides, and gives "on" to `percentage` of those who come to it."""
    name = f"{key}-{condition}"
    return {"name": name, "id": name, "salt": name, "groupName": condition, "passPercentage": percentage,
            "conditions": [condition], "returnValue": True, "idType": "userID"}  # fmt: skip


def gate(key: str) -> dict[str, Any]:
    """One flag as Statsig has it."""
    rules = [*(rule(key, attribute, 100) for attribute, _, _ in RULES), rule(key, EVERYBODY, 50)]
    return {"type": "feature_gate", "entity": "feature_gate", "salt": key, "enabled": True, "defaultValue": False,
            "idType": "userID", "rules": rules}  # fmt: skip


def specs() -> str:
    """All of them as its service sends them."""
    conditions = {attribute: condition("user_field", field=attribute, operator="any", targetValue=values)
                  for attribute, _, values in RULES}  # fmt: skip
    return json.dumps({
        "has_updates": True, "time": 1_700_000_000_000, "response_format": "dcs-v2", "company_id": "bench",
        "feature_gates": {key: gate(key) for key in KEYS}, "dynamic_configs": {}, "layer_configs": {},
        "condition_map": conditions | {EVERYBODY: condition("public")}, "experiment_to_layer": {}, "id_lists": {},
    })  # fmt: skip


class Store(DataStore):
    """Where it looks before it asks its service."""

    def get(self, key: str) -> DataStoreResponse:
        """The configuration."""
        return DataStoreResponse(result=specs(), time=0)


def prepare() -> tuple[Any, list[tuple[Any, ...]]]:
    """What is called for one evaluation, and with what."""
    options = StatsigOptions(data_store=Store(), disable_network=True, disable_all_logging=True,
                             disable_country_lookup=True, disable_disk_access=True)  # fmt: skip
    client = Statsig("secret-none", options)
    client.initialize().wait()
    users: list[tuple[Any, ...]] = [
        (StatsigUser(user_id=unit, country=each["country"], custom={"plan": each["plan"]}),) for unit, each in PEOPLE
    ]

    def ask(key: str, user: Any) -> Any:
        return client.check_gate(user, key)

    return ask, users
