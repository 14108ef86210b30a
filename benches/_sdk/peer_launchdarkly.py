"""LaunchDarkly: its server SDK on its own test data, without events and without a connection."""

from typing import Any

import ldclient
from ldclient.config import Config
from ldclient.integrations.test_data import TestData

from benches._sdk.workload import KEYS, PEOPLE, RULES


def flag(key: str) -> dict[str, Any]:
    """One flag as LaunchDarkly's stream has it."""
    return {
        "key": key, "version": 1, "on": True, "salt": key, "variations": [True, False], "offVariation": 1,
        "fallthrough": {"rollout": {"variations": [{"variation": each, "weight": 50_000} for each in (0, 1)]}},
        "rules": [{"id": attribute, "variation": 0, "clauses": [{"attribute": attribute, "op": "in", "values": values,
                                                                "contextKind": "user", "negate": False}]}
                  for attribute, _, values in RULES],
    }  # fmt: skip


class Source(TestData):
    """Test data with whole flags: the builder knows no percentages."""

    def _make_init_data(self) -> Any:
        from ldclient.versioned_data_kind import FEATURES, SEGMENTS

        return {FEATURES: {key: FEATURES.decode(flag(key)) for key in KEYS}, SEGMENTS: {}}


def prepare() -> tuple[Any, list[tuple[Any, ...]]]:
    """What is called for one evaluation, and with what."""
    data = Source()
    client = ldclient.LDClient(Config("none", update_processor_class=data, send_events=False))
    users: list[tuple[Any, ...]] = []
    for unit, attributes in PEOPLE:
        builder = ldclient.Context.builder(unit)
        for name, value in attributes.items():
            builder.set(name, value)
        users.append((builder.build(),))

    def ask(key: str, user: Any) -> Any:
        return client.variation_detail(key, user, None)

    return ask, users
