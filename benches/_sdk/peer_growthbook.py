"""GrowthBook: its SDK with features given, one instance for each user."""

from typing import Any

from growthbook import GrowthBook

from benches._sdk.workload import KEYS, PEOPLE, RULES


def prepare() -> tuple[Any, list[tuple[Any, ...]]]:
    """What is called for one evaluation, and with what."""
    features: dict[str, Any] = {
        key: {"defaultValue": False, "rules": [
            *({"condition": {attribute: {"$in": values}}, "force": True} for attribute, _, values in RULES),
            {"force": True, "coverage": 0.5, "hashAttribute": "id"}]}
        for key in KEYS
    }  # fmt: skip
    shared = GrowthBook(attributes={}, features=features)
    users: list[tuple[Any, ...]] = [({"id": unit, **attributes},) for unit, attributes in PEOPLE]

    def ask(key: str, attributes: Any) -> Any:
        shared.set_attributes(attributes)
        return shared.eval_feature(key)

    return ask, users
